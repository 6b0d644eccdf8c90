"""Public identifiers: a prefix that says what the thing is, and 20 random characters (119 bits)."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """A fresh identifier such as `cus_h3kR…`."""
    return f"{prefix}_{''.join(secrets.choice(_ALPHABET) for _ in range(20))}"


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
