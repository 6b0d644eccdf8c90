"""What may be asked about customers, and how."""

from typing import Any

from rest_framework import serializers

from customers.api.fields import Instant, Metadata, Query, QueryFlag, Request, Text

_LOCALE = r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$"
_LOCALE_MESSAGE = "must be a language such as en or pt-BR."


def locale_field() -> serializers.RegexField:
    return serializers.RegexField(
        _LOCALE, max_length=20, allow_null=True, required=False, error_messages={"invalid": _LOCALE_MESSAGE}
    )


class CustomerCreate(Request):
    customer_id = serializers.RegexField(
        r"^[A-Za-z0-9_.:@-]+\Z",
        trim_whitespace=False,
        max_length=100,
        required=False,
        allow_null=True,
        help_text="An id of your own choice (not in the Dodo contract). Left out, one is made.",
        error_messages={"invalid": "use letters, digits and _ . : @ - only."},
    )
    name = Text(max_length=255)
    email = serializers.EmailField(max_length=254)
    phone_number = Text(max_length=50, required=False, allow_null=True, allow_blank=True)
    metadata = Metadata(required=False, allow_null=True)
    preferred_locale = locale_field()


class CustomerUpdate(Request):
    """Null leaves name, email and metadata as they are, and removes the phone number or the language."""

    name = Text(max_length=255, required=False, allow_null=True)
    email = serializers.EmailField(max_length=254, required=False, allow_null=True)
    phone_number = Text(max_length=50, required=False, allow_null=True, allow_blank=True)
    metadata = Metadata(required=False, allow_null=True)
    preferred_locale = locale_field()

    def changes(self) -> dict[str, Any]:
        clearable = {"phone_number", "preferred_locale"}
        return {name: value for name, value in self.validated_data.items() if value is not None or name in clearable}


class CustomerQuery(Query):
    email = Text(required=False, allow_blank=True, help_text="The whole address, in any case.")
    name = Text(required=False, allow_blank=True, help_text="A part of the name, in any case.")
    created_at_gte = Instant(required=False)
    created_at_lte = Instant(required=False)


class PortalSessionQuery(Query):
    send_email = QueryFlag(required=False)
    return_url = Text(required=False, allow_blank=True, max_length=2000, trim_whitespace=False)
