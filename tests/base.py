"""The cast: Acme, who pays, and Globex, who must never see or pay for Acme's. Made by the functions users call."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing.models import Interval, Invoice, Product, Subscription
from billing.products import ChargeTerms, PriceTerms, create_product
from billing.subscriptions import subscribe
from customers.customers import create_customer
from customers.models import Customer
from meters.ingestion import EventInput, store_events
from meters.meters import create_meter
from meters.models import Meter

_sent = 0


def at(text: str) -> datetime:
    """An instant, UTC unless it says otherwise: at("2026-01-31"), at("2026-01-31T12:00+01:00")."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def acme(**changes: Any) -> Customer:
    return create_customer(**{"name": "Acme", "email": "pay@acme.example", **changes})


def globex(**changes: Any) -> Customer:
    return create_customer(**{"name": "Globex", "email": "pay@globex.example", **changes})


def call_meter(**changes: Any) -> Meter:
    return create_meter(
        **{
            "name": "API calls",
            "event_name": "api.call",
            "aggregation": "count",
            "measurement_unit": "calls",
            **changes,
        }
    )


def token_meter(**changes: Any) -> Meter:
    return call_meter(
        **{
            "name": "Tokens",
            "event_name": "token.usage",
            "aggregation": "sum",
            "property_key": "tokens",
            "measurement_unit": "tokens",
            **changes,
        }
    )


def usage_product(*charges: tuple[Meter, str, int], fee: int = 0, name: str = "API", **changes: Any) -> Product:
    """A monthly product: (meter, price per unit in minor units, free threshold) each, and a fee in minor units."""
    terms = {
        "type": "usage_based_price",
        "currency": "USD",
        "fixed_amount": Decimal(fee),
        "payment_frequency_count": 1,
        "payment_frequency_interval": Interval.MONTH,
        "subscription_period_count": 20,
        "subscription_period_interval": Interval.YEAR,
        "charges": tuple(ChargeTerms(meter, Decimal(price), free) for meter, price, free in charges),
        **changes,
    }
    return create_product(name=name, terms=PriceTerms(**terms))


def subscribed(customer: Customer, product: Product, *, on: str, **changes: Any) -> Subscription:
    return subscribe(customer=customer, product=product, now=at(on), **changes)


def send(
    customer: Customer,
    count: int = 1,
    *,
    on: str | datetime,
    name: str = "api.call",
    metadata: dict[str, Any] | None = None,
    received: str | None = None,
) -> int:
    """`count` events at one instant, received then too, or at `received` (an older event then counts as backfill)."""
    global _sent
    instant = at(on) if isinstance(on, str) else on
    events = []
    for _ in range(count):
        _sent += 1
        events.append(
            EventInput(
                event_id=f"evt_{_sent}",
                customer_id=customer.public_id,
                event_name=name,
                timestamp=instant.isoformat(),
                metadata=metadata,
            )
        )
    stored = 0
    for first in range(0, count, 1000):
        with transaction.atomic():
            stored += store_events(
                events=events[first : first + 1000],
                now=at(received) if received else instant,
                backfill=received is not None,
            )
    return stored


def lines_of(invoice: Invoice) -> list[tuple[str, str, Decimal, Decimal]]:
    """Each printed line as (kind, description, quantity, amount)."""
    return [(line.kind, line.description, line.quantity, line.amount) for line in invoice.lines.order_by("position")]


def invoices_of(subscription: Subscription) -> list[Invoice]:
    """Oldest first."""
    return list(subscription.invoices.order_by("pk"))


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def total(invoices: Sequence[Invoice]) -> Decimal:
    return sum((invoice.total for invoice in invoices), Decimal(0))
