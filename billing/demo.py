"""A demo with a history worth looking at: six plans, eight customers with different habits, sixty days of events.

It shows one of each: tiers with a commitment, a yearly plan with monthly usage, a discount, prepaid credit, tax, a
credit note, a draft in review, and late events that will correct a billed period.

Made through the same functions users call, day by day on a simulated clock, so that its invoices are real ones. The
same day gives the same demo: the randomness is seeded.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection, transaction

from billing.credit_notes import credit_invoice
from billing.credits import grant_credit
from billing.cycles import issue_due_drafts, start_scheduled_run, work_run
from billing.discounts import add_discount
from billing.invoices import charge_once, hold_invoice, mark_paid
from billing.models import Interval, Invoice, InvoiceReason, InvoiceStatus, PriceType, Product, Subscription
from billing.pricing import ChargeRule, Graduated, Package, Tier
from billing.products import ChargeTerms, PriceTerms, create_product
from billing.profiles import set_profile
from billing.subscriptions import advance_periods, cancel_now, subscribe
from billing.taxes import create_tax_rate
from customers.customers import create_customer
from customers.errors import DomainError
from customers.models import Customer
from meters.ingestion import EventInput, store_events
from meters.meters import create_meter
from meters.models import Meter

DAYS = 60
MARK = {"demo": True}
FIRST_CUSTOMER = "cus_abc123"
# Everything a reset empties. Operators, their sessions and the beat table stay.
_TABLES = [
    "customers_customer",
    "customers_apikey",
    "customers_portallink",
    "meters_meter",
    "meters_event",
    "meters_eventkey",
    "meters_backfill",
    "meters_bucket",
    "meters_bucketvalue",
    "meters_eventvoid",
    "meters_reconciliation",
    "meters_eventimport",
    "meters_archivedmonth",
    "billing_product",
    "billing_price",
    "billing_charge",
    "billing_subscription",
    "billing_billingperiod",
    "billing_invoice",
    "billing_invoiceline",
    "billing_numberseries",
    "billing_payment",
    "billing_billingrun",
    "billing_runitem",
    "billing_discount",
    "billing_ignoredcorrection",
    "billing_creditnote",
    "billing_creditnoteline",
    "billing_balance",
    "billing_balanceentry",
    "billing_creditgrant",
    "billing_grantentry",
    "billing_billingprofile",
    "billing_taxrate",
]


class NotADemo(DomainError):
    """There is data here that the demo did not make."""


@dataclass(frozen=True)
class Habit:
    """How a demo customer uses the product: events of each kind on day `n` (0 is the oldest)."""

    calls: Callable[[int, random.Random], float]
    tokens: Callable[[int, random.Random], float] = lambda day, dice: 0.0
    images: Callable[[int, random.Random], float] = lambda day, dice: 0.0
    storage: Callable[[int], float] | None = None


@dataclass(frozen=True)
class Cast:
    customer_id: str
    name: str
    email: str
    country: str
    plan: str
    # Days before today that the subscription starts.
    joined: int
    habit: Habit
    leaves: int | None = None
    pays_after: int | None = 6


def _weekly(day: int, weekday: float, weekend: float) -> float:
    return weekend if day % 7 in (5, 6) else weekday


CAST = (
    Cast(
        FIRST_CUSTOMER,
        "Northwind Labs",
        "billing@northwind.example",
        "US",
        "AI Platform",
        58,
        Habit(
            lambda day, dice: _weekly(day, 70, 22) * (1 + day / 90) * dice.uniform(0.8, 1.2),
            lambda day, dice: _weekly(day, 14, 5) * (1 + day / 60) * dice.uniform(0.7, 1.3),
            lambda day, dice: dice.uniform(0, 6),
            lambda day: 4 + day / 6,
        ),
    ),
    Cast(
        "cus_abc",
        "Kestrel Robotics",
        "ap@kestrel.example",
        "DE",
        "AI Platform",
        45,
        Habit(
            lambda day, dice: 35 + 30 * math.sin(day / 4) * dice.uniform(0.9, 1.1),
            lambda day, dice: 8 * dice.uniform(0.5, 1.5),
            lambda day, dice: 12 if day % 14 == 3 else 1,
            lambda day: 18 - day / 10,
        ),
        pays_after=12,
    ),
    Cast(
        "cus_xyz",
        "Blue Harbor Media",
        "finance@blueharbor.example",
        "GB",
        "Pro",
        52,
        Habit(lambda day, dice: 620 if day % 9 == 0 else _weekly(day, 190, 60) * dice.uniform(0.8, 1.2)),
        pays_after=None,
    ),
    Cast(
        "cus_juniper",
        "Juniper & Co",
        "accounts@juniper.example",
        "FR",
        "Pro",
        40,
        Habit(lambda day, dice: _weekly(day, 90, 90) * dice.uniform(0.9, 1.1)),
    ),
    Cast(
        "cus_solo",
        "Ada Solo",
        "ada@solo.example",
        "SE",
        "API",
        33,
        Habit(lambda day, dice: dice.uniform(30, 130) if day % 3 else 0),
        pays_after=2,
    ),
    Cast(
        "cus_orbit",
        "Orbit Games",
        "money@orbit.example",
        "CA",
        "API",
        55,
        Habit(lambda day, dice: max(0.0, 160 - 4 * day) * dice.uniform(0.8, 1.2)),
        leaves=17,
    ),
    Cast(
        "cus_meridian",
        "Meridian Analytics",
        "billing@meridian.example",
        "NL",
        "Scale",
        59,
        Habit(lambda day, dice: _weekly(day, 75, 30) * dice.uniform(0.8, 1.2)),
        pays_after=4,
    ),
    Cast(
        "cus_fjord",
        "Fjord Studios",
        "office@fjord.example",
        "NO",
        "Studio",
        50,
        Habit(lambda day, dice: 0.0, images=lambda day, dice: _weekly(day, 16, 4) * dice.uniform(0.6, 1.4)),
    ),
)
# Taxes that the demo's seller owes; a customer elsewhere pays none.
TAXES = (("VAT", "20", "GB"), ("VAT", "21", "NL"), ("VAT", "25", "SE"), ("GST", "5", "CA"))


def is_empty() -> bool:
    """Whether nobody has used this installation yet."""
    return not Customer.objects.exists() and not Meter.objects.exists() and not Product.objects.exists()


def make_demo(*, now: datetime, on_progress: Callable[[int], None] | None = None) -> None:
    """Fill an empty installation. `on_progress` hears each simulated day that is done."""
    dice = random.Random(20260101)  # noqa: S311 - patterns to look at, not secrets
    first_day = (now - timedelta(days=DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)
    products = _products()
    customers = {
        who.customer_id: create_customer(
            name=who.name,
            email=who.email,
            customer_id=who.customer_id,
            billing_address={"country": who.country},
            metadata=MARK,
        )
        for who in CAST
    }
    _terms(customers)
    for day in range(DAYS + 1):
        today = first_day + timedelta(days=day)
        _live_through(day, today, min(today + timedelta(days=1), now), customers, products, dice)
        if on_progress is not None:
            on_progress(day)
    _late_events(first_day, now)
    for draft in Invoice.objects.filter(status=InvoiceStatus.DRAFT, customer__public_id="cus_solo"):
        hold_invoice(invoice=draft, reason="Her first bill with VAT: look at it before it goes out.", now=now)


def _terms(customers: dict[str, Customer]) -> None:
    """What an operator enters once: tax rates, and how some customers are billed."""
    for name, percent, country in TAXES:
        create_tax_rate(name=name, percent=Decimal(percent), country=country)
    set_profile(customer=customers["cus_abc"], reverse_charge=True, tax_id="DE811223344")
    # Her last invoice is a draft for a week; `make_demo` leaves it held.
    set_profile(customer=customers["cus_solo"], grace_hours=7 * 24)


def _welcome(subscription: Subscription, *, now: datetime) -> None:
    """Meridian begins with a discount and prepaid credit."""
    if subscription.price.product.name != "Scale":
        return
    add_discount(subscription=subscription, name="Launch offer", percent=Decimal(10), applies_to="usage", now=now)
    grant_credit(
        customer=subscription.customer,
        name="Prepaid with the contract",
        amount=Decimal(6000),
        currency="USD",
        expires_at=now + timedelta(days=365),
        author="demo",
        now=now,
    )


def _late_events(first_day: datetime, now: datetime) -> None:
    """Events of a period that is billed, which arrive today: the next invoice corrects it."""
    _send(
        [
            EventInput(
                event_id=f"demo_late_image_{number}",
                customer_id=FIRST_CUSTOMER,
                event_name="image.generated",
                timestamp=(first_day + timedelta(days=12, hours=15, minutes=number)).isoformat(),
                metadata={"size": "1024x1024", "model": "dall-e-3"},
            )
            for number in range(40)
        ],
        now=now,
    )


def _live_through(
    day: int,
    start: datetime,
    end: datetime,
    customers: dict[str, Customer],
    products: dict[str, Product],
    dice: random.Random,
) -> None:
    """One day: the newly joined subscribe, everybody sends events, what is due is billed, some pay, one leaves."""
    for who in CAST:
        customer = customers[who.customer_id]
        if who.joined == DAYS - day:
            sold = subscribe(customer=customer, product=products[who.plan], now=start + timedelta(hours=9))
            _welcome(sold, now=start + timedelta(hours=9))
        if who.leaves == DAYS - day:
            cancel_now(subscription=customer.subscriptions.get(), now=start + timedelta(hours=12), reason="demo")
        joined, left = who.joined >= DAYS - day, who.leaves is not None and who.leaves >= DAYS - day
        if joined and not left:
            _send(list(_events(who, day, start, end, dice)), now=end)
    if day == DAYS - 20:
        charge_once(customer=customers[FIRST_CUSTOMER], product=products["Onboarding"], now=end)
    advance_periods(now=end)
    run = start_scheduled_run(now=end)
    if run is not None:
        work_run(run=run, clock=lambda: end)
    issue_due_drafts(clock=lambda: end)
    _pay(end)
    if day == DAYS - 9:
        _give_back(end)


def _events(who: Cast, day: int, start: datetime, end: datetime, dice: random.Random) -> Iterator[EventInput]:
    # Nothing before they joined at nine, nothing after now.
    opens = start + timedelta(hours=9) if who.joined == DAYS - day else start
    seconds = max((end - opens).total_seconds() - 1, 0)
    whole_day = seconds / 86400

    def event(name: str, number: int, metadata: dict[str, Any]) -> EventInput:
        # Two draws lean towards the middle of the day.
        instant = opens + timedelta(seconds=round(seconds * (dice.random() + dice.random()) / 2, 3))
        return EventInput(
            event_id=f"demo_{who.customer_id}_{name}_{day}_{number}",
            customer_id=who.customer_id,
            event_name=name,
            timestamp=instant.isoformat(),
            metadata=metadata,
        )

    habit = who.habit
    for number in range(round(habit.calls(day, dice) * whole_day)):
        status = "success" if dice.random() < 0.97 else "error"
        yield event(
            "api.call",
            number,
            {"endpoint": dice.choice(["/v1/generate", "/v1/users", "/v1/search"]), "method": "POST", "status": status},
        )
    for number in range(round(habit.tokens(day, dice) * whole_day)):
        prompt, completion = dice.randint(100, 900), dice.randint(50, 1600)
        yield event(
            "token.usage",
            number,
            {
                "tokens": str(prompt + completion),
                "prompt_tokens": str(prompt),
                "completion_tokens": str(completion),
                "model": dice.choice(["gpt-4", "claude-3"]),
            },
        )
    for number in range(round(habit.images(day, dice) * whole_day)):
        yield event("image.generated", number, {"size": "1024x1024", "model": "dall-e-3"})
    if habit.storage is not None and whole_day > 0.2:
        gigabytes = habit.storage(day)
        yield event("storage.snapshot", 0, {"bytes": str(int(gigabytes * 1024**3)), "gb": f"{gigabytes:.2f}"})


def _send(events: list[EventInput], *, now: datetime) -> None:
    for first in range(0, len(events), 1000):
        with transaction.atomic():
            store_events(events=events[first : first + 1000], now=now, backfill=True)


def _pay(now: datetime) -> None:
    patience = {who.customer_id: who.pays_after for who in CAST}
    for invoice in Invoice.objects.filter(status=InvoiceStatus.ISSUED).select_related("customer"):
        after = patience[invoice.customer.public_id]
        if after is not None and invoice.issued_at is not None and invoice.issued_at + timedelta(days=after) <= now:
            mark_paid(invoice=invoice, now=now, note="bank transfer")


def _give_back(now: datetime) -> None:
    """A fifth of the onboarding day is given back after it was paid; it goes onto the balance."""
    invoice = Invoice.objects.get(customer__public_id=FIRST_CUSTOMER, reason=InvoiceReason.ONE_TIME)
    credit_invoice(invoice=invoice, amount=Decimal(10000), reason="The afternoon fell through", by="demo", now=now)


def _products() -> dict[str, Product]:
    calls = create_meter(
        name="API calls",
        event_name="api.call",
        aggregation="count",
        measurement_unit="calls",
        description="Every request to the API, whatever its answer.",
    )
    tokens = create_meter(
        name="Tokens",
        event_name="token.usage",
        aggregation="sum",
        property_key="tokens",
        measurement_unit="tokens",
        description="Prompt and completion tokens together.",
    )
    images = create_meter(
        name="Images",
        event_name="image.generated",
        aggregation="count",
        measurement_unit="images",
    )
    storage = create_meter(
        name="Storage",
        event_name="storage.snapshot",
        aggregation="last",
        property_key="gb",
        measurement_unit="GB",
        description="What is stored at the end of the period.",
    )

    def monthly(fee: int, *charges: ChargeTerms) -> PriceTerms:
        return PriceTerms(
            type=PriceType.USAGE_BASED,
            currency="USD",
            fixed_amount=Decimal(fee),
            payment_frequency_count=1,
            payment_frequency_interval=Interval.MONTH,
            subscription_period_count=20,
            subscription_period_interval=Interval.YEAR,
            charges=charges,
        )

    return {
        "API": create_product(
            name="API",
            description="$0.02 a call after 1,000 free ones.",
            terms=monthly(0, ChargeTerms(calls, Decimal(2), 1000)),
            metadata=MARK,
        ),
        "AI Platform": create_product(
            name="AI Platform",
            description="Four meters: calls, tokens, images, storage.",
            terms=monthly(
                0,
                ChargeTerms(calls, Decimal("0.1"), 1000),
                ChargeTerms(tokens, Decimal("0.001"), 0),
                ChargeTerms(images, Decimal(5), 10),
                ChargeTerms(storage, Decimal(10), 0),
            ),
            metadata=MARK,
        ),
        "Pro": create_product(
            name="Pro",
            description="$49 a month with 4,000 calls, then $0.01 a call.",
            terms=monthly(4900, ChargeTerms(calls, Decimal(1), 4000)),
            metadata=MARK,
        ),
        "Scale": create_product(
            name="Scale",
            description="Calls get cheaper by the tier; $45 a month at least.",
            terms=replace(
                monthly(
                    0,
                    ChargeTerms.of(
                        calls,
                        ChargeRule(
                            Graduated(
                                (
                                    Tier(Decimal(500), Decimal(3)),
                                    Tier(Decimal(1500), Decimal(2)),
                                    Tier(None, Decimal(1)),
                                )
                            )
                        ),
                    ),
                ),
                commitment=Decimal(4500),
            ),
            metadata=MARK,
        ),
        "Studio": create_product(
            name="Studio",
            description="$480 a year, and $4 for each 100 images a month after 50 free ones.",
            terms=replace(
                monthly(48000, ChargeTerms.of(images, ChargeRule(Package(Decimal(400), Decimal(100)), Decimal(50)))),
                payment_frequency_interval=Interval.YEAR,
                usage_frequency_count=1,
                usage_frequency_interval=Interval.MONTH,
            ),
            metadata=MARK,
        ),
        "Onboarding": create_product(
            name="Onboarding",
            description="A day with our engineers.",
            terms=PriceTerms(type=PriceType.ONE_TIME, currency="USD", fixed_amount=Decimal(50000)),
            metadata=MARK,
        ),
    }


def empty_everything() -> None:
    """Forget every customer, meter, product, event and invoice. `NotADemo` where real customers are among them.

    TRUNCATE, because the triggers that freeze issued invoices refuse a DELETE, as they should.
    """
    real = Customer.objects.exclude(metadata__contains=MARK).count()
    if real:
        raise NotADemo(f"{real} of the customers here were not made by the demo, so nothing was deleted.")
    with transaction.atomic(), connection.cursor() as cursor:
        # Checks put off to the commit would stand in the way of a reset in the transaction that made the rows.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"TRUNCATE {', '.join(_TABLES)} RESTART IDENTITY")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")
