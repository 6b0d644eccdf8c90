"""Customers as the contract writes them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

from django.conf import settings

from customers.models import Customer


class CustomerObject(TypedDict):
    """A customer."""

    customer_id: str
    business_id: str
    name: str
    email: str
    phone_number: str | None
    metadata: dict[str, str | float | bool]
    preferred_locale: str | None
    created_at: datetime
    blocked_at: datetime | None
    blocklist_entry_id: str | None


class CustomerLimitedDetailsObject(TypedDict):
    """The customer inside a subscription or payment."""

    customer_id: str
    name: str
    email: str
    phone_number: str | None
    metadata: dict[str, str | float | bool]


class BillingAddressObject(TypedDict):
    """A postal address; null where it was never given."""

    country: str | None
    city: str | None
    state: str | None
    street: str | None
    zipcode: str | None


class PortalSessionObject(TypedDict):
    """A way into the customer's own pages."""

    link: str


def customer_object(customer: Customer) -> CustomerObject:
    return {
        "customer_id": customer.public_id,
        "business_id": settings.BUSINESS_ID,
        "name": customer.name,
        "email": customer.email,
        "phone_number": customer.phone_number,
        "metadata": customer.metadata,
        "preferred_locale": customer.preferred_locale,
        "created_at": customer.created_at,
        "blocked_at": None,
        "blocklist_entry_id": None,
    }


def customer_details(customer: Customer) -> CustomerLimitedDetailsObject:
    return {
        "customer_id": customer.public_id,
        "name": customer.name,
        "email": customer.email,
        "phone_number": customer.phone_number,
        "metadata": customer.metadata,
    }


def billing_address(address: Mapping[str, Any]) -> BillingAddressObject:
    def part(name: str) -> str | None:
        return str(address[name]) if address.get(name) else None

    return {
        "country": part("country"),
        "city": part("city"),
        "state": part("state"),
        "street": part("street"),
        "zipcode": part("zipcode"),
    }
