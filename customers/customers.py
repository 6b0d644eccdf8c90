"""Making, changing and finding customers."""

import re
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from customers.errors import Conflict, DomainError, NotFound
from customers.models import Customer

# What an operator or an application may choose as an id: it travels in paths, files and logs.
_CUSTOMER_ID = re.compile(r"[A-Za-z0-9_.:@-]{1,100}", re.ASCII)

_CHANGEABLE = {"name", "email", "phone_number", "metadata", "preferred_locale", "billing_address"}
_LENGTHS = {"name": 255, "email": 254, "phone_number": 50, "preferred_locale": 20}


class CustomerNotFound(NotFound):
    pass


class CustomerIdTaken(Conflict):
    code = "CUSTOMER_ID_ALREADY_EXISTS"


class CustomerInvalid(DomainError):
    pass


def get_customer(*, customer_id: str) -> Customer:
    """The customer of this public id, or `CustomerNotFound`."""
    # PostgreSQL refuses a null character even in a question.
    customer = None if "\x00" in customer_id else Customer.objects.filter(public_id=customer_id).first()
    if customer is None:
        raise CustomerNotFound("Item not found")
    return customer


def create_customer(
    *,
    name: str,
    email: str,
    customer_id: str | None = None,
    phone_number: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    preferred_locale: str | None = None,
    billing_address: Mapping[str, Any] | None = None,
) -> Customer:
    """A new customer. `CustomerIdTaken` where the id of your own choice belongs to somebody already."""
    values: dict[str, Any] = {
        "name": name.strip(),
        "email": email.strip(),
        "phone_number": phone_number,
        "preferred_locale": preferred_locale,
        "metadata": dict(metadata or {}),
        "billing_address": dict(billing_address or {}),
    }
    _check(values)
    if customer_id is not None:
        if not _CUSTOMER_ID.fullmatch(customer_id):
            raise CustomerInvalid("customer_id: use 1 to 100 letters, digits and _ . : @ - only.")
        values["public_id"] = customer_id
    try:
        with transaction.atomic():
            return Customer.objects.create(**values)
    except IntegrityError as error:
        if customer_id is None:
            raise
        raise CustomerIdTaken(f"There is a customer with the id {customer_id} already.") from error


def update_customer(*, customer: Customer, **changes: Any) -> Customer:
    """Change the given fields. The id never changes; issued invoices keep the name and address they were issued to."""
    if unknown := set(changes) - _CHANGEABLE:
        raise TypeError(f"not fields of a customer that change: {sorted(unknown)}")
    for field in ("name", "email"):
        if field in changes:
            changes[field] = changes[field].strip()
    _check(changes)
    for field, value in changes.items():
        setattr(customer, field, value)
    if changes:
        customer.save(update_fields=[*changes, "updated_at"])
    return customer


def _check(values: Mapping[str, Any]) -> None:
    if "name" in values and not values["name"]:
        raise CustomerInvalid("name: must not be empty.")
    for field, longest in _LENGTHS.items():
        if len(values.get(field) or "") > longest:
            raise CustomerInvalid(f"{field}: may have {longest} characters at most.")
    if "email" in values:
        try:
            validate_email(values["email"])
        except ValidationError as error:
            raise CustomerInvalid("email: must be an e-mail address.") from error
