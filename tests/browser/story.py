"""Data for the browser, made inside a running installation by `manage.py shell`."""

import json
from datetime import timedelta

from django.utils import timezone

from billing.cycles import close_subscription
from billing.subscriptions import subscribe
from customers.portal_links import create_portal_link
from tests.base import acme, call_meter, globex, send, token_meter, usage_product


def portal() -> str:
    """Acme with a closed period and a running one, Initech billed ahead, Globex with nothing. Their links, as JSON."""
    now = timezone.now()
    start = now - timedelta(days=40)
    customer = acme(name="Acme <b>& Söhne</b>", email="pay@acme.example")
    calls = call_meter(name="API calls", event_name="portal.call")
    tokens = token_meter(name="Tokens", event_name="portal.tokens")
    product = usage_product(
        (calls, "2", 1000),
        (tokens, "0.001", 0),
        fee=4900,
        name="Platform",
        payment_frequency_interval="Day",
        payment_frequency_count=30,
    )
    subscription = subscribe(customer=customer, product=product, now=now, starts_at=start)
    for day, count in ((3, 900), (10, 1600), (31, 700), (35, 900)):
        when = start + timedelta(days=day)
        send(customer, count, on=when, name="portal.call", received=now.isoformat())
        send(customer, on=when, name="portal.tokens", metadata={"tokens": 1000 * count}, received=now.isoformat())
    close_subscription(subscription_id=subscription.pk, until=now, now=now)
    ahead = globex(name="Initech")
    early = subscribe(customer=ahead, product=product, now=now)
    send(ahead, 2500, on=now, name="portal.call", received=now.isoformat())
    close_subscription(subscription_id=early.pk, until=now + timedelta(days=31), now=now)
    return json.dumps(
        {
            "link": create_portal_link(customer=customer, now=now)[1],
            "early": create_portal_link(customer=ahead, now=now)[1],
            "nothing": create_portal_link(customer=globex(), now=now)[1],
            "invoice": subscription.invoices.exclude(reason="start").get().number,
        }
    )
