"""What may be asked about customers, and how."""

from typing import Any

from customers.api.fields import Email, Instant, Metadata, Pattern, Query, QueryFlag, Request, Text

_LOCALE = r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*\Z"
_LOCALE_MESSAGE = "must be a language such as en or pt-BR."


def locale_field() -> Pattern:
    return Pattern(_LOCALE, max_length=20, allow_null=True, required=False, said=_LOCALE_MESSAGE)


class CustomerCreate(Request):
    customer_id = Pattern(
        r"^[A-Za-z0-9_.:@-]+\Z",
        max_length=100,
        required=False,
        allow_null=True,
        help_text="An id of your own choice (not in the Dodo contract). Left out, one is made.",
        said="use letters, digits and _ . : @ - only.",
    )
    name = Text(max_length=255)
    email = Email()
    phone_number = Text(max_length=50, required=False, allow_null=True, allow_blank=True)
    metadata = Metadata(required=False, allow_null=True)
    preferred_locale = locale_field()


class CustomerUpdate(Request):
    """Null leaves name, email and metadata as they are, and removes the phone number or the language."""

    name = Text(max_length=255, required=False, allow_null=True)
    email = Email(required=False, allow_null=True)
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
