"""The errors that domain functions raise on purpose.

Each has a `code` (the wire contract's upper-case word) and an HTTP `status` for the API; the admin shows its
message in a form, a command prints it as one sentence.
"""

from typing import Any


class DomainError(Exception):
    """Something the caller can mend. `code` and `status` are what the API answers."""

    code = "INVALID_REQUEST_PARAMETERS"
    status = 400

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status
        # One entry for each thing that is wrong, where there can be several (a batch of events).
        self.errors = errors


class NotFound(DomainError):
    code = "NOT_FOUND"
    status = 404


class Conflict(DomainError):
    code = "CONFLICT"
    status = 409
