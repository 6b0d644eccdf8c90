"""Column types that every app shares."""

from typing import Any

from django.core import checks
from django.db import models
from django.utils.functional import cached_property


class PublicIdField(models.CharField):
    """An identifier that outside systems know: unique, compared byte by byte (case-sensitive)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = 100
        kwargs["unique"] = True
        kwargs["db_collation"] = "C"
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        for fixed in ("max_length", "unique", "db_collation"):
            kwargs.pop(fixed, None)
        return name, path, args, kwargs


class ExactDecimalField(models.DecimalField):
    """PostgreSQL's `numeric` without a bound: nothing is ever rounded or cut on its way to the row."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_digits", None)
        kwargs.setdefault("decimal_places", None)
        super().__init__(*args, **kwargs)

    def db_type(self, connection: Any) -> str:
        return "numeric"

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        return self.to_python(value)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if hasattr(value, "as_sql"):
            return value
        return self.to_python(value)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        return [error for error in super().check(**kwargs) if error.id not in {"fields.E130", "fields.E132"}]

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(**{"max_digits": None, "decimal_places": None, **kwargs})

    @cached_property
    def validators(self) -> list[Any]:
        # Without Django's own, which wants a number of digits to check.
        return list(self.default_validators)
