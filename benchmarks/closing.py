"""Closing and rating beside their limits: the same rows written by bare inserts, and bare exact arithmetic."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from benchmarks.lab import rate, record, say

D = Decimal
SUBSCRIPTIONS = 300
EVENTS = 20


def closing() -> None:
    """Close a period of each of many subscriptions: propose, prove, settle, number and issue, a transaction each."""
    from django.db import connection

    from billing.cycles import close_subscription
    from billing.models import Invoice, InvoiceLine, Payment
    from meters.rollups import roll_up

    say(f"\n6. Closing {SUBSCRIPTIONS} subscriptions, one after the other, beside bare inserts of the same rows")
    subscriptions, until = _subscriptions()
    while roll_up():
        pass
    begun = time.perf_counter()
    for pk in subscriptions:
        close_subscription(subscription_id=pk, until=until, now=until)
    each = (time.perf_counter() - begun) / len(subscriptions)
    assert Invoice.objects.filter(subscription__in=subscriptions, reason="cycle").count() == len(subscriptions)

    rows = {model._meta.db_table: model._meta for model in (Invoice, InvoiceLine, Payment)}
    with connection.cursor() as cursor:
        for table in rows:
            cursor.execute(f"CREATE TABLE bench_{table} (LIKE {table} INCLUDING ALL)")
    invoices = list(Invoice.objects.filter(subscription__in=subscriptions, reason="cycle").values_list("pk", flat=True))
    begun = time.perf_counter()
    for pk in invoices:
        _write_bare(pk)
    limit = (time.perf_counter() - begun) / len(invoices)
    ratio = limit / each
    say(
        f"  {1 / each:,.0f} subscriptions/s ({each * 1000:.1f} ms each), {ratio:.2f} of bare inserts"
        f" ({1 / limit:,.0f} a second)"
    )
    record(
        "closing",
        {
            "subscriptions": len(subscriptions),
            "events_each": EVENTS,
            "milliseconds_each": round(each * 1000, 2),
            "limit_milliseconds_each": round(limit * 1000, 2),
            "ratio": round(ratio, 3),
            "rating": _rating(),
        },
    )


def _subscriptions() -> tuple[list[int], datetime]:
    """Monthly plans with a fee, a graduated and a per-unit charge; their first month is over."""
    from benchmarks.__main__ import make_customer, make_meters, sql
    from billing.pricing import ChargeRule, Graduated, PerUnit, Tier
    from billing.products import ChargeTerms, PriceTerms, create_product
    from billing.subscriptions import subscribe
    from meters.partitions import ensure_partitions, month_of

    start = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=40)
    until = start + timedelta(days=33)
    meters = make_meters(2, "closed")
    tiers = (Tier(D(10), D("1.5")), Tier(None, D("0.7")))
    product = create_product(
        name="Bench",
        terms=PriceTerms(
            type="usage_based_price",
            currency="USD",
            fixed_amount=D(4900),
            payment_frequency_count=1,
            payment_frequency_interval="Month",
            subscription_period_count=20,
            subscription_period_interval="Year",
            charges=(
                ChargeTerms.of(meters[0], ChargeRule(Graduated(tiers), free_units=D(3))),
                ChargeTerms.of(meters[1], ChargeRule(PerUnit(D("0.3")))),
            ),
        ),
    )
    customers = [make_customer() for _ in range(SUBSCRIPTIONS)]
    found = [subscribe(customer=customer, product=product, now=start).pk for customer in customers]
    ensure_partitions(months={month_of(start), month_of(until)})
    sql(
        "INSERT INTO meters_event (event_id, customer_id, event_name, timestamp, metadata)"
        " SELECT 'closed_' || c || '_' || n, c, 'closed', %s::timestamptz + n * interval '1 hour',"
        " jsonb_build_object('method', 'GET', 'tokens', n) FROM unnest(%s::bigint[]) AS c, generate_series(1, %s) AS n",
        [start, [customer.pk for customer in customers], EVENTS],
    )
    return found, until


def _write_bare(invoice: int) -> None:
    """The rows of one closing into tables with the same indexes and none of the work; one durable commit."""
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        for table, key in (
            ("billing_invoice", "id"),
            ("billing_invoiceline", "invoice_id"),
            ("billing_payment", "invoice_id"),
        ):
            columns = _columns(table)
            cursor.execute(
                f"INSERT INTO bench_{table} ({columns}) SELECT {columns} FROM {table} WHERE {key} = %s", [invoice]
            )


def _columns(table: str) -> str:
    from benchmarks.__main__ import sql

    found = sql(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
        [table],
    )
    return str(found[0][0])


def _rating() -> list[dict[str, Any]]:
    """Microseconds a rated line takes, beside one exact product and its rounding."""
    from billing.pricing import ChargeRule, Graduated, Package, PerUnit, Tier, Usage, Volume
    from billing.pricing import rate as rate_line

    tiers = tuple(Tier(D(10**n), D("1.5") / 10**n) for n in range(1, 6))
    tiers = (*tiers, replace(tiers[-1], up_to=None))
    rules = {
        "per unit": ChargeRule(PerUnit(D("0.3")), free_units=D(100)),
        "graduated, 6 tiers": ChargeRule(Graduated(tiers)),
        "volume, 6 tiers": ChargeRule(Volume(tiers)),
        "package": ChargeRule(Package(price=D(500), size=D(100))),
    }
    usage = Usage(D("123456.789"))
    bare = 1 / rate(lambda: [round(Fraction(usage.decimal) * Fraction(D("0.3"))) for _ in range(100)], times=20) / 100
    found = []
    for name, rule in rules.items():
        each = 1 / rate(lambda rule=rule: [rate_line(rule, usage) for _ in range(100)], times=20) / 100  # type: ignore[misc]
        say(f"  rating {name}: {each * 1e6:,.0f} µs a line, {bare / each:.3f} of one bare exact product")
        found.append({"rule": name, "microseconds": round(each * 1e6, 1), "bare_microseconds": round(bare * 1e6, 1)})
    return found
