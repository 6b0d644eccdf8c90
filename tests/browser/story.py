"""Data for the browser, made inside a running installation by `manage.py shell`."""

import json
from datetime import timedelta
from decimal import Decimal

from django.utils import timezone

from billing.balances import move_balance
from billing.credit_notes import credit_invoice
from billing.credits import grant_credit
from billing.cycles import close_subscription
from billing.invoices import hold_invoice
from billing.pricing import ChargeRule, Graduated, Tier
from billing.products import ChargeTerms, PriceTerms, create_product
from billing.profiles import set_profile
from billing.subscriptions import subscribe
from billing.taxes import create_tax_rate
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
    # Held for later: no invoice of this story has to do with it.
    move_balance(
        customer=customer,
        currency="USD",
        amount=Decimal(1250),
        kind="adjustment",
        reason="Thank you for your <b>patience</b> with the outage of last week, which we have looked into since",
        now=now,
    )
    grant_credit(customer=customer, name="Yearly prepayment", amount=Decimal(50_000), currency="USD", now=now)
    ahead = globex(name="Initech")
    early = subscribe(customer=ahead, product=product, now=now)
    send(ahead, 2500, on=now, name="portal.call", received=now.isoformat())
    close_subscription(subscription_id=early.pk, until=now + timedelta(days=31), now=now)
    # Billed with tax by tiers, credited in part, and with a draft that is held.
    credited = globex(name="Hooli", billing_address={"country": "FR"})
    create_tax_rate(name="VAT", percent=Decimal(20), country="FR")
    tiers = Graduated((Tier(Decimal(1000), Decimal(2)), Tier(None, Decimal(1))))
    storage = call_meter(name="Storage", event_name="portal.storage", measurement_unit="gigabytes")
    tiered = create_product(
        name="Storage",
        terms=PriceTerms(
            type="usage_based_price",
            currency="USD",
            fixed_amount=Decimal(0),
            payment_frequency_count=30,
            payment_frequency_interval="Day",
            subscription_period_count=20,
            subscription_period_interval="Year",
            charges=(ChargeTerms.of(storage, ChargeRule(price=tiers)),),
        ),
    )
    stored = subscribe(customer=credited, product=tiered, now=now, starts_at=start)
    send(credited, 1500, on=start + timedelta(days=1), name="portal.storage", received=now.isoformat())
    (bill,) = close_subscription(subscription_id=stored.pk, until=now, now=now)
    credit_invoice(invoice=bill, reason="The outage of Monday", amount=Decimal(1000), by="axe", now=now)
    set_profile(customer=credited, grace_hours=24)
    send(credited, 10, on=now, name="portal.storage")
    (draft,) = close_subscription(subscription_id=stored.pk, until=now + timedelta(days=31), now=now)
    hold_invoice(invoice=draft, reason="Looks odd", now=now)
    return json.dumps(
        {
            "link": create_portal_link(customer=customer, now=now)[1],
            "early": create_portal_link(customer=ahead, now=now)[1],
            "credited": create_portal_link(customer=credited, now=now)[1],
            "credited_invoice": bill.number,
            "nothing": create_portal_link(customer=globex(), now=now)[1],
            "invoice": subscription.invoices.exclude(reason="start").get().number,
        }
    )
