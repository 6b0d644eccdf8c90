"""Public identifiers: a prefix that says what the thing is, and 20 random characters (119 bits)."""

import hashlib
import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """A fresh identifier such as `cus_h3kR…`."""
    return f"{prefix}_{''.join(secrets.choice(_ALPHABET) for _ in range(20))}"


def id_of_request(prefix: str, *said: object) -> str:
    """The identifier of what one request makes: the same request again finds it instead of making a second."""
    number = int.from_bytes(hashlib.sha256(repr(said).encode()).digest(), "big")
    return f"{prefix}_{''.join(_ALPHABET[number // len(_ALPHABET) ** place % len(_ALPHABET)] for place in range(20))}"


def new_customer_id() -> str:
    return new_id("cus")


def new_meter_id() -> str:
    return new_id("mtr")


def new_product_id() -> str:
    return new_id("pdt")


def new_subscription_id() -> str:
    return new_id("sub")


def new_invoice_id() -> str:
    return new_id("inv")


def new_payment_id() -> str:
    return new_id("pay")


def new_credit_note_id() -> str:
    return new_id("cn")


def new_balance_entry_id() -> str:
    return new_id("bal")


def new_grant_id() -> str:
    return new_id("cgr")
