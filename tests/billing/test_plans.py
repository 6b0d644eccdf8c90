"""Every price model and period, from an event to an invoice. Amounts are in cents, with the arithmetic beside them."""

from dataclasses import fields
from decimal import Decimal
from typing import Any

import pytest

from billing.credits import grant_credit
from billing.cycles import close_subscription, running_usage, start_run, work_run
from billing.discounts import DiscountInvalid, add_discount, end_discount
from billing.models import Interval, Invoice, Product, Subscription
from billing.pricing import (
    ByDimension,
    ChargeRule,
    Conventions,
    Discount,
    Flat,
    Graduated,
    Package,
    Percentage,
    PerUnit,
    Tier,
    Volume,
)
from billing.products import ChargeTerms, PriceInvalid, PriceTerms, change_price, create_product, terms_of
from billing.profiles import set_profile
from billing.proposals import adjustment_lines
from billing.subscriptions import cancel_now
from billing.taxes import create_tax_rate
from meters.models import Meter
from tests.base import acme, at, call_meter, invoices_of, lines_of, send, subscribed, token_meter

D = Decimal
pytestmark = pytest.mark.django_db


def close(subscription: Subscription, on: str) -> list[Invoice]:
    made = close_subscription(subscription_id=subscription.pk, until=at(on), now=at(on))
    subscription.refresh_from_db()
    return made


def product(*charges: tuple[Meter, ChargeRule], fee: int = 0, **changes: Any) -> Product:
    terms = {
        "type": "usage_based_price",
        "currency": "USD",
        "fixed_amount": D(fee),
        "payment_frequency_count": 1,
        "payment_frequency_interval": Interval.MONTH,
        "subscription_period_count": 20,
        "subscription_period_interval": Interval.YEAR,
        "charges": tuple(ChargeTerms.of(meter, rule) for meter, rule in charges),
        **changes,
    }
    return create_product(name="P", terms=PriceTerms(**terms))


TIERS = (Tier(D(10), D(5), D(100)), Tier(None, D(3), D(50)))


@pytest.mark.parametrize(
    ("rule", "calls", "amount"),
    [
        # 10 x 5 + 100, and 2 x 3 + 50
        (ChargeRule(Graduated(TIERS)), 12, 206),
        (ChargeRule(Graduated(TIERS)), 10, 150),
        (ChargeRule(Graduated(TIERS)), 0, 0),
        # 12 x 3 + 50
        (ChargeRule(Volume(TIERS)), 12, 86),
        (ChargeRule(Volume(TIERS)), 10, 150),
        # 12 - 2 free = 10, in 4 packages of 3
        (ChargeRule(Package(price=D(70), size=D(3)), free_units=D(2)), 12, 280),
        (ChargeRule(Flat(D(999))), 0, 999),
        (ChargeRule(PerUnit(D(2)), minimum=D(50)), 12, 50),
        (ChargeRule(PerUnit(D(2)), maximum=D(20)), 12, 20),
    ],
)
def test_each_model_bills_what_it_says(rule: ChargeRule, calls: int, amount: int) -> None:
    customer = acme()
    subscription = subscribed(customer, product((call_meter(), rule)), on="2026-01-01")
    send(customer, calls, on="2026-01-10")
    (invoice,) = close(subscription, "2026-02-01T01:00")
    assert lines_of(invoice) == [("usage", "API calls", D(calls), D(amount))]
    assert invoice.total == D(amount)
    line = invoice.lines.get()
    assert line.explanation["amount"] == str(amount)
    assert line.explanation["text"]


def test_a_price_by_dimension_prices_each_value_of_its_key() -> None:
    customer = acme()
    meter = token_meter(group_by=["model"])
    rule = ChargeRule(ByDimension(("model",), {"small": PerUnit(D(1)), "large": PerUnit(D(10))}, default=PerUnit(D(3))))
    subscription = subscribed(customer, product((meter, rule)), on="2026-01-01")
    for model, tokens in (("small", 5), ("large", 2), ("other", 4), ("small", 1)):
        send(customer, on="2026-01-10", name="token.usage", metadata={"tokens": tokens, "model": model})
    (invoice,) = close(subscription, "2026-02-01T01:00")
    # 6 x 1 + 2 x 10 + 4 x 3
    assert lines_of(invoice) == [("usage", "Tokens", D(12), D(38))]


def test_a_meter_without_the_key_cannot_be_priced_by_it() -> None:
    rule = ChargeRule(ByDimension(("model",), {"small": PerUnit(D(1))}))
    with pytest.raises(PriceInvalid, match="does not keep its usage by “model”"):
        ChargeTerms.of(token_meter(), rule)


def test_a_percentage_looks_at_each_event() -> None:
    customer = acme()
    meter = token_meter(name="Payments", measurement_unit="cents")
    rule = ChargeRule(Percentage(D("2.5"), fixed_fee=D(10), free_events=1, event_maximum=D(100)))
    subscription = subscribed(customer, product((meter, rule)), on="2026-01-01")
    for day, cents in ((3, 1000), (4, 2000), (5, 100_000)):
        send(customer, on=f"2026-01-0{day}", name="token.usage", metadata={"tokens": cents})
    (invoice,) = close(subscription, "2026-02-01T01:00")
    # the first is free; 2000 x 2.5 % + 10 = 60; 100000 x 2.5 % + 10 = 2510, at most 100
    assert invoice.total == D(160)


def test_a_stored_price_says_what_it_was_made_of() -> None:
    rule = ChargeRule(Graduated(TIERS), free_units=D("0.5"), minimum=D(7))
    made = product(
        (call_meter(), rule),
        (token_meter(), ChargeRule(PerUnit(D("0.1")), free_units=D(10))),
        commitment=D(500),
        alignment="calendar",
        conventions={"tier_bound": "exclusive"},
    )
    price = made.current_price()
    terms = terms_of(price)
    assert [charge.rule for charge in terms.charges] == [
        rule,
        ChargeRule(PerUnit(D("0.1")), free_units=D(10)),
    ]
    assert (terms.commitment, terms.alignment, terms.conventions) == (
        D(500),
        "calendar",
        {"tier_bound": "exclusive"},
    )
    assert list(price.charges.values_list("price_per_unit", "free_threshold", "terms__model")) == [
        (None, 0, "graduated"),
        (D("0.1"), 10, None),
    ]
    assert change_price(product=made, terms=terms) == price


# -- periods ------------------------------------------------------------------------------------------------


def test_calendar_periods_begin_with_a_partial_one_and_its_fee_is_a_part() -> None:
    customer = acme()
    plan = product((call_meter(), ChargeRule(PerUnit(D(2)))), fee=3100, alignment="calendar")
    subscription = subscribed(customer, plan, on="2026-01-11")
    (start,) = invoices_of(subscription)
    # 21 of January's 31 days: 3100 / 31 x 21
    assert lines_of(start) == [("fee", "P", D(1), D(2100))]
    assert (start.period_start, start.period_end) == (at("2026-01-11"), at("2026-02-01"))
    period = subscription.periods.get()
    assert (period.whole_start, period.whole_end) == (at("2026-01-01"), at("2026-02-01"))
    send(customer, 4, on="2026-01-20")
    (february,) = close(subscription, "2026-02-01T01:00")
    assert lines_of(february) == [("fee", "P", D(1), D(3100)), ("usage", "API calls", D(4), D(8))]
    assert (subscription.periods.first().start, subscription.periods.first().end) == (  # type: ignore[union-attr]
        at("2026-02-01"),
        at("2026-03-01"),
    )


def test_a_yearly_plan_bills_its_usage_each_month() -> None:
    customer = acme()
    plan = product(
        (call_meter(), ChargeRule(PerUnit(D(2)))),
        fee=12000,
        payment_frequency_interval=Interval.YEAR,
        usage_frequency_count=1,
        usage_frequency_interval=Interval.MONTH,
    )
    subscription = subscribed(customer, plan, on="2026-01-31")
    (start,) = invoices_of(subscription)
    assert lines_of(start) == [("fee", "P", D(1), D(12000))]
    assert (start.lines.get().period_start, start.lines.get().period_end) == (at("2026-01-31"), at("2027-01-31"))
    send(customer, 4, on="2026-02-27")
    send(customer, 5, on="2026-02-28")
    made = close(subscription, "2027-01-31T01:00")
    assert len(made) == 12
    assert lines_of(made[0]) == [("usage", "API calls", D(4), D(8))]
    assert (made[0].period_start, made[0].period_end) == (at("2026-01-31"), at("2026-02-28"))
    assert lines_of(made[1]) == [("usage", "API calls", D(5), D(10))]
    # the second year's fee comes with the last month of the first
    assert lines_of(made[11]) == [("fee", "P", D(1), D(12000)), ("usage", "API calls", D(0), D(0))]
    assert sum(invoice.total for invoice in made) == D(12018)


def test_a_usage_frequency_that_does_not_tile_the_fees_is_refused() -> None:
    with pytest.raises(PriceInvalid, match="cannot be cut into usage periods"):
        product(
            (call_meter(), ChargeRule(PerUnit(D(2)))),
            usage_frequency_count=1,
            usage_frequency_interval=Interval.WEEK,
        )


def test_quarters_are_a_period_too() -> None:
    plan = product((call_meter(), ChargeRule(PerUnit(D(2)))), payment_frequency_interval=Interval.QUARTER)
    subscription = subscribed(acme(), plan, on="2025-11-30")
    close(subscription, "2026-09-01")
    assert [period.end.date().isoformat() for period in subscription.periods.order_by("start")] == [
        "2026-02-28",
        "2026-05-30",
        "2026-08-30",
        "2026-11-30",
    ]


# -- commitment, minimum in a part of a period, discounts ---------------------------------------------------


def test_what_the_usage_lacks_of_the_commitment_is_a_line_of_its_own() -> None:
    customer = acme()
    plan = product((call_meter(), ChargeRule(PerUnit(D(2)))), fee=100, commitment=D(50))
    subscription = subscribed(customer, plan, on="2026-01-01")
    send(customer, 20, on="2026-01-10")
    send(customer, 25, on="2026-02-10")
    (january,) = close(subscription, "2026-02-01T01:00")
    # 50 - 20 x 2
    assert lines_of(january) == [
        ("fee", "P", D(1), D(100)),
        ("usage", "API calls", D(20), D(40)),
        ("commitment", "P, up to the commitment", D(1), D(10)),
    ]
    (february,) = close(subscription, "2026-03-01T01:00")
    assert [line[0] for line in lines_of(february)] == ["fee", "usage"]
    running = running_usage(subscription=subscription, now=at("2026-03-02"))
    assert running is not None
    assert running.total == D(0)


def test_a_commitment_follows_late_usage() -> None:
    customer = acme()
    plan = product((call_meter(), ChargeRule(PerUnit(D(2)))), commitment=D(50))
    subscription = subscribed(customer, plan, on="2026-01-01")
    send(customer, 20, on="2026-01-10")
    close(subscription, "2026-02-01T01:00")
    send(customer, 3, on="2026-01-11", received="2026-02-05")
    (february,) = close(subscription, "2026-03-01T01:00")
    # 6 more of usage, 6 less to make up; and February's own 50
    assert lines_of(february) == [
        ("usage", "API calls", D(0), D(0)),
        ("commitment", "P, up to the commitment", D(1), D(50)),
        ("adjustment", "API calls, adjustment", D(3), D(6)),
        ("adjustment", "P, up to the commitment, adjustment", D(0), D(-6)),
    ]
    send(customer, 30, on="2026-01-12", received="2026-03-05")
    (march,) = close(subscription, "2026-04-01T01:00")
    # 53 x 2 = 106 now, 46 billed: 60 more; nothing is lacking any more: the last 4 go back
    assert lines_of(march)[2:] == [
        ("adjustment", "API calls, adjustment", D(30), D(60)),
        ("adjustment", "P, up to the commitment, adjustment", D(-1), D(-4)),
    ]


def test_the_fee_counts_towards_a_commitment_that_covers_it() -> None:
    plan = product((call_meter(), ChargeRule(PerUnit(D(2)))), fee=30, commitment=D(50), commitment_covers="all")
    subscription = subscribed(acme(), plan, on="2026-01-01")
    (january,) = close(subscription, "2026-02-01T01:00")
    assert lines_of(january)[-1] == ("commitment", "P, up to the commitment", D(1), D(20))


def test_a_minimum_is_a_part_of_itself_in_a_period_that_was_cut() -> None:
    customer = acme()
    plan = product((call_meter(), ChargeRule(PerUnit(D(2)), minimum=D(310))))
    subscription = subscribed(customer, plan, on="2026-01-01")
    cancel_now(subscription=subscription, now=at("2026-01-11"))
    (last,) = close(subscription, "2026-01-11T01:00")
    # 10 of 31 days
    assert lines_of(last) == [("usage", "API calls", D(0), D(100))]


def test_the_last_day_can_be_charged_by_convention() -> None:
    customer = acme()
    plan = product(
        (call_meter(), ChargeRule(PerUnit(D(2)), minimum=D(310))),
        conventions={"proration": "day", "charge_last_day": True},
    )
    subscription = subscribed(customer, plan, on="2026-01-01")
    cancel_now(subscription=subscription, now=at("2026-01-11T09:00"))
    (last,) = close(subscription, "2026-01-11T10:00")
    # 11 of 31 days: the 11th counts
    assert last.total == D(110)


def test_discounts_come_off_one_after_the_other_while_they_last() -> None:
    customer = acme()
    plan = product((call_meter(), ChargeRule(PerUnit(D(10)))), fee=1000)
    subscription = subscribed(customer, plan, on="2026-01-01")
    now = at("2026-01-02")
    add_discount(subscription=subscription, name="Launch", percent=D(50), now=now, ends_at=at("2026-02-15"))
    add_discount(subscription=subscription, name="Sorry", amount=D(30), applies_to="usage", now=now)
    send(customer, 10, on="2026-01-10")
    send(customer, 10, on="2026-02-10")
    send(customer, 10, on="2026-03-10")
    january, february, march = close(subscription, "2026-04-01T01:00")
    # February's fee begins while the launch discount lasts: 500. Usage: 100 - 50 - 30
    assert [line[3] for line in lines_of(january)] == [D(500), D(20)]
    # March's fee begins after it; February's own usage has it
    assert [line[3] for line in lines_of(february)] == [D(1000), D(20)]
    assert [line[3] for line in lines_of(march)] == [D(1000), D(70)]
    usage = january.lines.get(kind="usage")
    assert usage.discount == D(80)
    end_discount(discount=subscription.discounts.get(name="Sorry"), now=at("2026-04-02"))
    (april,) = close(subscription, "2026-05-01T01:00")
    assert [line[3] for line in lines_of(april)] == [D(1000), D(0)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"percent": None}, "one of the two"),
        ({"amount": D(5)}, "one of the two"),
        ({"percent": D(101)}, "100 at most"),
        ({"percent": D(0)}, "above 0"),
        ({"percent": None, "amount": D(5)}, "off the fee or off the usage"),
        ({"percent": None, "amount": D("0.5"), "applies_to": "fee"}, "whole number"),
        ({"name": " "}, "name"),
        ({"applies_to": "tax"}, "applies to"),
        ({"starts_at": at("2025-12-31")}, "running period"),
        ({"ends_at": at("2026-01-01")}, "ends after"),
    ],
)
def test_a_discount_that_makes_no_sense_is_refused(changes: dict[str, Any], why: str) -> None:
    subscription = subscribed(acme(), product((call_meter(), ChargeRule(PerUnit(D(2))))), on="2026-01-01")
    with pytest.raises(DiscountInvalid, match=why):
        add_discount(**{"subscription": subscription, "name": "N", "percent": D(5), "now": at("2026-01-02"), **changes})
    assert subscription.discounts.count() == 0


# -- conventions --------------------------------------------------------------------------------------------


def _other_conventions() -> list[dict[str, Any]]:
    """Each convention, set otherwise than its default."""
    found: list[dict[str, Any]] = []
    for one in fields(Conventions):
        known = (False, True) if isinstance(one.default, bool) else one.metadata["known"]
        found += [{one.name: value} for value in known if value != one.default]
    return found


def _is_refused(conventions: dict[str, Any], tax_inclusive: bool) -> bool:
    """An invoice is printed in whole minor units, and its lines keep the amounts they were rated at."""
    moving = tax_inclusive and conventions.get("tax_rounding") in ("invoice_net", "invoice_gross")
    return moving or conventions == {"spread": "exact"}


@pytest.mark.parametrize(
    ("tax_inclusive", "conventions", "why"),
    [
        (True, {"tax_rounding": "invoice_net"}, "change the prices as printed"),
        (True, {"tax_rounding": "invoice_gross"}, "change the prices as printed"),
        (False, {"spread": "exact"}, "whole minor units"),
    ],
)
def test_conventions_that_no_invoice_can_be_printed_by_are_refused(
    tax_inclusive: bool, conventions: dict[str, Any], why: str
) -> None:
    with pytest.raises(PriceInvalid, match=why):
        product((call_meter(), ChargeRule(PerUnit(D(2)))), tax_inclusive=tax_inclusive, conventions=conventions)


@pytest.mark.parametrize("tax_rounding", ["invoice_net", "invoice_gross"])
def test_prices_that_contain_tax_do_not_move_on_an_invoice_they_share(tax_rounding: str) -> None:
    """The first subscription's convention is the invoice's; no net gives 97 at 19 %, and it stays 97 all the same."""
    customer = acme(billing_address={"country": "DE"})
    create_tax_rate(name="VAT", percent=D(19), country="DE")
    set_profile(customer=customer, combine_invoices=True)
    rule = ChargeRule(PerUnit(D(97)))
    net = product((call_meter(), rule), conventions={"tax_rounding": tax_rounding})
    gross = product((call_meter(name="Other", event_name="other"), rule), tax_inclusive=True)
    subscribed(customer, net, on="2026-01-01")
    subscribed(customer, gross, on="2026-01-01")
    send(customer, on="2026-01-15")
    send(customer, on="2026-01-15", name="other")
    now = at("2026-02-01T01:00")
    work_run(run=start_run(trigger="command", until=now, now=now), clock=lambda: now)
    (invoice,) = Invoice.objects.all()
    assert [(line.amount, line.tax, line.total) for line in invoice.lines.order_by("position")] == [
        (D(97), D(18), D(115)),  # 18.43 on top
        (D(97), D(15), D(97)),  # 15.49 inside
    ]
    assert (invoice.status, invoice.total) == ("issued", D(212))


@pytest.mark.parametrize("conventions", _other_conventions(), ids=str)
@pytest.mark.parametrize("tax_inclusive", [False, True])
def test_whatever_the_conventions_an_invoice_is_the_sum_of_its_lines_and_nothing_is_left_to_adjust(
    conventions: dict[str, Any], tax_inclusive: bool
) -> None:
    if _is_refused(conventions, tax_inclusive):
        return
    customer = acme(billing_address={"country": "DE"})
    create_tax_rate(name="VAT", percent=D(19), country="DE")
    create_tax_rate(name="Levy", percent=D("0.7"), country="DE")
    grant_credit(customer=customer, name="Welcome", amount=D(151), currency="USD", now=at("2026-01-01"))
    one, other = call_meter(), call_meter(name="Other", event_name="other")
    plan = product(
        (one, ChargeRule(Graduated((Tier(D(10), D("0.7"), D(3)), Tier(None, D("0.3"), D(2)))), free_units=D(1))),
        (other, ChargeRule(PerUnit(D("33.3")), minimum=D(31), discounts=(Discount(percent=D(7)),))),
        fee=997,
        commitment=D(250),
        alignment="calendar",
        tax_inclusive=tax_inclusive,
        conventions=conventions,
    )
    subscription = subscribed(customer, plan, on="2026-01-11")
    add_discount(subscription=subscription, name="Launch", percent=D("12.5"), now=at("2026-01-12"))
    add_discount(subscription=subscription, name="Sorry", amount=D(17), applies_to="usage", now=at("2026-01-12"))
    send(customer, 13, on="2026-01-15")
    send(customer, 2, on="2026-01-15", name="other")
    (invoice,) = close(subscription, "2026-02-01T01:00")
    lines = list(invoice.lines.all())
    assert len(lines) == 4
    assert invoice.subtotal == sum(line.amount for line in lines)
    assert invoice.total == sum(line.total for line in lines)
    assert invoice.tax == sum(D(tax["amount"]) for line in lines for tax in line.taxes)
    assert [adjustment_lines(subscription, period) for period in subscription.periods.all()] == [[], []]
    assert close(subscription, "2026-02-20") == []
