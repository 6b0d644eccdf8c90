"""The one way in which the embedded stack gives up: a sentence for the person at the terminal."""


class CannotStart(Exception):
    """Something outside the program is in the way; the message is one sentence that says what and what to
    do."""
