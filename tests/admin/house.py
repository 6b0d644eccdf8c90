"""A house with one of everything in it, operators with exactly the permissions a test gives them, and a look at what
changed in the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from billing.balances import move_balance
from billing.credit_notes import credit_invoice
from billing.credits import grant_credit
from billing.cycles import start_run, work_run
from billing.invoices import charge_once, draft_invoice, mark_paid, propose_line
from billing.models import (
    Balance,
    BillingRun,
    CreditGrant,
    CreditNote,
    IgnoredCorrection,
    Invoice,
    LineKind,
    NumberSeries,
    Product,
    RunTrigger,
    Subscription,
    TaxRate,
)
from billing.numbers import create_series
from billing.pricing import rate_fee
from billing.products import PriceTerms, create_product
from billing.profiles import set_profile
from billing.taxes import create_tax_rate
from customers.clock import database_now
from customers.keys import create_api_key
from customers.models import ApiKey, Customer
from customers.portal_links import create_portal_link
from meters.models import Event, Meter
from tests.base import acme, call_meter, globex, hours, send, subscribed, token_meter, usage_product

# Text that would do harm on a page that does not escape it.
EVIL = "<script>alert('x')</script>"


@dataclass
class House:
    customer: Customer
    other: Customer
    calls: Meter
    tokens: Meter
    product: Product
    once: Product
    subscription: Subscription
    ending: Subscription
    parked: Subscription
    open_invoice: Invoice
    paid_invoice: Invoice
    credited_invoice: Invoice
    note: CreditNote
    draft: Invoice
    series: NumberSeries
    run: BillingRun
    key: ApiKey
    task: PeriodicTask
    tax_rate: TaxRate
    balance: Balance
    grant: CreditGrant
    ignored: IgnoredCorrection


def build_house(name: str = "Acme") -> House:
    """Acme and Globex, two meters, events of today and of last month, a closed period, something parked."""
    now = timezone.now()
    customer, other = acme(name=name, customer_id="cus_acme"), globex(customer_id="cus_globex")
    calls = call_meter(name=f"{name} calls")
    tokens = token_meter(
        filter={"conjunction": "and", "clauses": [{"key": "tier", "operator": "equals", "value": "pro"}]}
    )
    product = usage_product((calls, "2", 1000), (tokens, "0.001", 0), fee=4900, name=f"{name} API")
    once = create_product(
        name=f"{name} setup", terms=PriceTerms(type="one_time_price", currency="USD", fixed_amount=Decimal(20000))
    )
    month_ago = (now - hours(24 * 40)).isoformat()
    subscription = subscribed(customer, product, on=month_ago, metadata={"note": name})
    ending = subscribed(other, product, on=now.isoformat())
    parked = subscribed(other, product, on=now.isoformat())
    Subscription.objects.filter(pk=parked.pk).update(parked_at=now, parked_reason=f"{name} is odd")
    seen = now.isoformat()
    send(customer, 1200, on=now - hours(24 * 30), received=seen)
    send(customer, 3, on=now - hours(1), received=seen, metadata={"endpoint": name})
    for tokens_sent in ("1500", name):
        metadata = {"tokens": tokens_sent, "tier": "pro"}
        send(customer, on=now - hours(1), name="token.usage", metadata=metadata, received=seen)
    send(customer, on=now - hours(1), name="unread.name", received=seen)
    run = start_run(trigger=RunTrigger.SCHEDULE, until=now, now=now)
    work_run(run=run, clock=database_now)
    run.items.create(subscription=parked, outcome="parked", reason=f"{name} is odd", finished_at=now)
    open_invoice = charge_once(customer=customer, product=once, now=now - hours(24 * 30))
    paid_invoice = charge_once(customer=customer, product=once, now=now)
    mark_paid(invoice=paid_invoice, now=now, note=name)
    credited_invoice = charge_once(customer=customer, product=once, now=now)
    note = credit_invoice(invoice=credited_invoice, reason=name, by=name, amount=Decimal(5000), now=now)
    draft = draft_invoice(
        customer=customer,
        reason="one_time",
        currency="USD",
        lines=[
            propose_line(
                rate_fee(quantity=Decimal(1), fee=Decimal(20000)),
                kind=LineKind.ONE_TIME,
                description=name,
                product=once,
                currency="USD",
            )
        ],
        now=now,
        issue_at=now + hours(24),
    )
    series = create_series(name=name[:50], prefix="XY-")
    key, _ = create_api_key(name=name)
    create_portal_link(customer=customer, now=now)
    every, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.HOURS)
    task = PeriodicTask.objects.create(name=name, task="billing.tasks.close_due_cycles", interval=every)
    run.refresh_from_db()
    # Last, so that no invoice of the house has to do with them.
    tax_rate = create_tax_rate(name=name[:50], percent=Decimal(19), country="DE", region=name[:100])
    held = move_balance(
        customer=customer,
        currency="USD",
        amount=Decimal(5000),
        kind="adjustment",
        reason=f"{name} paid",
        author=name,
        now=now,
    )
    grant = grant_credit(customer=customer, name=name, amount=Decimal(10_000), currency="USD", author=name, now=now)
    # Late usage of the closed period: some of it was found and ignored, some is found by whoever looks.
    closed = subscription.periods.get(closed_at__isnull=False)
    ignored = IgnoredCorrection.objects.create(
        period=closed,
        charge=subscription.price.charges.get(meter=calls),
        currency="USD",
        quantity=Decimal(5),
        billable_units=Decimal(5),
        exact_amount=Decimal(10),
        amount=Decimal(10),
        explanation={"text": f"{name} came late"},
        found_at=now,
    )
    send(customer, 7, on=now - hours(24 * 29), received=now.isoformat())
    set_profile(customer=customer, tax_exempt=True, exemption_reason=name, tax_id=name)
    return House(
        customer=customer,
        other=other,
        calls=calls,
        tokens=tokens,
        product=product,
        once=once,
        subscription=subscription,
        ending=ending,
        parked=parked,
        open_invoice=open_invoice,
        paid_invoice=paid_invoice,
        credited_invoice=credited_invoice,
        note=note,
        draft=draft,
        series=series,
        run=run,
        key=key,
        task=task,
        tax_rate=tax_rate,
        balance=held.balance,
        grant=grant,
        ignored=ignored,
    )


def operator(*codenames: str, views: bool = True) -> Client:
    """A client of a staff member who may view everything, and do what is named ("billing.void_invoice")."""
    user = User.objects.create_user(f"staff{User.objects.count()}", is_staff=True)
    if views:
        user.user_permissions.add(*Permission.objects.filter(codename__startswith="view_"))
    for codename in codenames:
        app, name = codename.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=name))
    return signed_in(user)


def superuser() -> Client:
    return signed_in(User.objects.create_superuser(f"root{User.objects.count()}"))


def signed_in(user: User, **options: Any) -> Client:
    client = Client(**options)
    client.force_login(user)
    return client


def some(model: Any, house: House) -> Any:
    """One row of a registered model."""
    known = {
        type(thing): thing
        for thing in (
            house.customer,
            house.calls,
            house.product,
            house.subscription,
            house.open_invoice,
            house.run,
            house.key,
            house.task,
        )
    }
    if model is Event:
        return Event.objects.filter(event_name="token.usage").order_by("id").first()
    return known.get(model) or model._default_manager.order_by("pk").first()


def registered() -> list[tuple[str, Any, Any]]:
    """(app_model, model, its admin) of all that the admin shows."""
    return [(f"{m._meta.app_label}_{m._meta.model_name}", m, a) for m, a in admin.site._registry.items()]


# Signing in and the session cookie are the client's own doing.
_IGNORED = {"django_session", "auth_user", "auth_user_user_permissions"}


def snapshot() -> dict[str, tuple[int, str]]:
    """Every row version of every table: also an update that writes the same values shows."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
            " AND n.nspname = 'public' ORDER BY 1"
        )
        tables = [name for (name,) in cursor.fetchall() if name not in _IGNORED]
        versions = "coalesce(md5(string_agg(ctid::text || xmin::text, ',' ORDER BY ctid)), '')"
        parts = [f"SELECT '{table}', count(*), {versions} FROM \"{table}\"" for table in tables]  # noqa: S608
        cursor.execute(" UNION ALL ".join(parts))
        return {name: (count, digest) for name, count, digest in cursor.fetchall()}


@contextmanager
def nothing_changes(what: str) -> Iterator[None]:
    before = snapshot()
    yield
    after = snapshot()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    assert changed == [], f"{what} changed {changed}"
