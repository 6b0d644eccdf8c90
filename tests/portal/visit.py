"""A customer at their own pages, and the bills they come to see."""

from django.test import Client

from billing.cycles import close_subscription
from billing.models import Invoice, Subscription
from customers.models import Customer
from customers.portal_links import create_portal_link
from tests.base import at, call_meter, send, subscribed, token_meter, usage_product


def come_in(customer: Customer, *, on: str, client: Client | None = None, return_url: str = "") -> Client:
    """A browser that has opened a link of this customer, made at `on`."""
    _link, address = create_portal_link(customer=customer, now=at(on), return_url=return_url)
    client = client or Client()
    answer = client.get(path_of(address))
    assert (answer.status_code, answer["Location"]) == (302, "/portal/")
    return client


def path_of(address: str) -> str:
    """The part of a link after the host."""
    return "/" + address.split("://", 1)[1].split("/", 1)[1]


def billed(customer: Customer, *, name: str = "AI platform") -> tuple[Subscription, Invoice]:
    """A plan with two meters and a fee since 1 January 2026, and the invoice of its first month: see the sums."""
    calls = call_meter(name=f"{name} calls")
    tokens = token_meter(name=f"{name} tokens")
    product = usage_product((calls, "2", 1000), (tokens, "0.001", 10_000), fee=4900, name=name)
    subscription = subscribed(customer, product, on="2026-01-01")
    send(customer, 2500, on="2026-01-05T12:00")  # 2500 - 1000 = 1500 x 2 = 3000
    send(customer, on="2026-01-06T10:00", name="token.usage", metadata={"tokens": "50000"})  # 40000 x 0.001 = 40
    (invoice,) = close_subscription(
        subscription_id=subscription.pk, until=at("2026-02-01T02:00"), now=at("2026-02-01T02:00")
    )
    assert invoice.total == 7940  # 3000 + 40 + 4900
    subscription.refresh_from_db()
    return subscription, invoice
