"""Prepaid credit and tax: whom it is drawn from, how it is spread, how it is rounded. Whole cents, both sides."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import Conventions, Credit, LineToSettle, PerUnit, PricingInvalid, Tax, rate, settle

D = Decimal
VAT = Tax("VAT", D(19))
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def line(amount: str, *taxes: Tax, key: str = "", **more: Any) -> LineToSettle:
    return LineToSettle(key or amount, D(amount), taxes, **more)


def day(month: int, number: int = 1) -> datetime:
    return datetime(2026, month, number, tzinfo=UTC)


# -- credit


def test_without_credit_and_tax_the_lines_are_the_total() -> None:
    done = settle([line("100"), line("-30"), ("c", D(5))])
    assert (done.subtotal, done.credit, done.tax, done.total) == (D(75), D(0), D(0), D(75))
    assert [one.total for one in done.lines] == [D(100), D(-30), D(5)]
    assert settle([]).total == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # priority before expiry
        (
            Credit("x", D(10), priority=1, expires_at=day(12)),
            Credit("y", D(10), priority=2, expires_at=day(4)),
        ),
        # then the first to expire
        (Credit("x", D(10), expires_at=day(4)), Credit("y", D(10), expires_at=day(5))),
        # which one without an expiry does last
        (Credit("x", D(10), expires_at=day(12)), Credit("y", D(10))),
        # then the oldest
        (Credit("x", D(10), granted_at=day(1)), Credit("y", D(10), granted_at=day(2))),
        (
            Credit("x", D(10), expires_at=day(4), granted_at=day(1)),
            Credit("y", D(10), expires_at=day(4), granted_at=day(2)),
        ),
    ],
)
def test_whose_turn_it_is(first: Credit, second: Credit) -> None:
    for credits in ((first, second), (second, first)):
        done = settle([line("15")], credits=credits, at=NOW)
        assert [(one.key, one.drawn, one.remaining) for one in done.credits] == [("x", D(10), D(0)), ("y", D(5), D(5))]


def test_of_equals_the_first_given_is_drawn_first() -> None:
    done = settle([line("15")], credits=[Credit("b", D(10)), Credit("a", D(10))])
    assert [(one.key, one.drawn) for one in done.credits] == [("b", D(10)), ("a", D(5))]


@pytest.mark.parametrize(
    ("at", "drawn", "why"),
    [
        (day(2, 28), "0", "not started"),
        (day(3, 1), "40", ""),
        (day(3, 31), "40", ""),
        (day(4, 1), "0", "expired"),
    ],
)
def test_a_credit_lives_from_its_start_to_its_expiry(at: datetime, drawn: str, why: str) -> None:
    credit = Credit("c", D(40), starts_at=day(3), expires_at=day(4))
    done = settle([line("100")], credits=[credit], at=at)
    assert (done.credit, done.total) == (D(drawn), 100 - D(drawn))
    assert [(one.drawn, one.remaining, one.untouched) for one in done.credits] == [(D(drawn), 40 - D(drawn), why)]


def test_a_credit_with_a_time_needs_the_instant() -> None:
    with pytest.raises(PricingInvalid, match="needs the instant"):
        settle([line("1")], credits=[Credit("c", D(1), expires_at=day(4))])
    with pytest.raises(PricingInvalid, match="instant with a time zone"):
        Credit("c", D(1), expires_at=datetime(2026, 3, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("amounts", "credit", "shares"),
    [
        (("1000", "333", "333"), "99", ["59", "20", "20"]),  # 59.42, 19.79, 19.79
        (("100", "100", "100"), "100", ["34", "33", "33"]),
        (("100", "0", "100"), "101", ["51", "0", "50"]),
        (("5", "5"), "11", ["5", "5"]),
        (("5", "5"), "10", ["5", "5"]),
        (("5", "5"), "0", ["0", "0"]),
        # a line below zero made the whole smaller: 70 are owed
        (("100", "-30"), "80", ["70", "0"]),
        (("60", "40", "-30"), "1000", ["42", "28", "0"]),
        (("30", "-40"), "10", ["0", "0"]),
    ],
)
def test_credit_is_spread_over_the_lines(amounts: tuple[str, ...], credit: str, shares: list[str]) -> None:
    done = settle([line(amount, key=str(n)) for n, amount in enumerate(amounts)], credits=[Credit("c", D(credit))])
    assert [one.credit for one in done.lines] == [D(share) for share in shares]
    assert done.credits[0].drawn == done.credit
    assert done.total == done.subtotal - done.credit


def test_credit_may_be_for_some_lines_only() -> None:
    lines = [line("100", key="u"), line("100", key="f", kind="fee"), line("100", key="v")]
    credits = [
        Credit("usage", D(50), covers="usage"),
        Credit("one", D(500), only=("v",)),
        Credit("fee", D(10), covers="fee"),
    ]
    done = settle(lines, credits=credits)
    assert [one.credit for one in done.lines] == [D(25), D(10), D(100)]
    assert [one.drawn for one in done.credits] == [D(50), D(75), D(10)]


def test_credit_comes_before_tax_or_after_it() -> None:
    for inclusive, before, after in ((False, ("171", "1071"), ("190", "1090")), (True, ("144", "900"), ("160", "900"))):
        for convention, (tax, total) in (("before_tax", before), ("after_tax", after)):
            done = settle(
                [line("1000", VAT, tax_inclusive=inclusive)],
                credits=[Credit("c", D(100))],
                conventions=Conventions(credit=convention),
            )
            assert (done.tax, done.total, done.credit) == (D(tax), D(total), D(100))
    everything = settle(
        [line("1000", VAT)], credits=[Credit("c", D(5000))], conventions=Conventions(credit="after_tax")
    )
    assert (everything.credit, everything.total) == (D(1190), D(0))


def test_credit_may_fill_line_after_line() -> None:
    done = settle(
        [line("100", key="a"), line("100", key="b")],
        credits=[Credit("c", D(120))],
        conventions=Conventions(spread="in_order"),
    )
    assert [one.credit for one in done.lines] == [D(100), D(20)]


# -- tax


@pytest.mark.parametrize(
    ("amount", "percent", "tax"),
    [
        ("100", "19", "19"),
        ("2", "19", "0"),  # 0.38
        ("3", "19", "1"),  # 0.57
        ("50", "7", "4"),  # 3.5
        ("-50", "7", "-4"),
        ("49", "7", "3"),
        ("0", "19", "0"),
        ("100", "0", "0"),
        ("1000", "8.875", "89"),
    ],
)
def test_tax_on_top(amount: str, percent: str, tax: str) -> None:
    done = settle([line(amount, Tax("Tax", D(percent)))])
    assert (done.net, done.tax, done.total) == (D(amount), D(tax), D(amount) + D(tax))


@pytest.mark.parametrize(
    ("amount", "percent", "by_tax", "by_net"),
    [
        ("11900", "19", "1900", "1900"),
        ("100", "19", "16", "16"),  # 15.97
        ("3", "20", "1", "0"),  # tax 0.5, net 2.5: whichever is rounded goes up
        ("9", "20", "2", "1"),
        ("-3", "20", "-1", "0"),
        ("107", "7", "7", "7"),
    ],
)
def test_tax_inside(amount: str, percent: str, by_tax: str, by_net: str) -> None:
    for rounds, tax in (("tax", by_tax), ("net", by_net)):
        done = settle(
            [line(amount, Tax("Tax", D(percent)), tax_inclusive=True)], conventions=Conventions(inclusive_rounds=rounds)
        )
        assert (done.tax, done.net, done.total) == (D(tax), D(amount) - D(tax), D(amount))


def test_several_taxes_beside_and_upon_each_other() -> None:
    gst, pst, qst = Tax("GST", D(5)), Tax("PST", D(7)), Tax("QST", D("9.5"), compound=True)
    beside = settle([line("10000", gst, pst)])
    assert [(one.name, one.amount, one.base) for one in beside.taxes] == [
        ("GST", D(500), D(10000)),
        ("PST", D(700), D(10000)),
    ]
    upon = settle([line("10000", gst, qst)])
    assert [(one.amount, one.base) for one in upon.taxes] == [(D(500), D(10000)), (D(998), D(10500))]  # 997.5
    inside = settle([line("11498", gst, qst, tax_inclusive=True)])
    assert (inside.net, inside.tax) == (D(10000), D(1498))


def test_taxes_are_summed_by_rate() -> None:
    done = settle([line("100", VAT), line("50", Tax("VAT", D(7))), line("10", VAT)])
    assert [(one.name, one.percent, one.base, one.amount) for one in done.taxes] == [
        ("VAT", D(19), D(110), D(21)),
        ("VAT", D(7), D(50), D(4)),
    ]


def test_a_line_without_tax_keeps_its_reason() -> None:
    done = settle([line("100", reason="Reverse charge"), line("100", VAT, reason="VAT for DE, SaaS")])
    assert [one.reason for one in done.lines] == ["Reverse charge", "VAT for DE, SaaS"]
    assert done.lines[0].explanation["reason"] == "Reverse charge"
    assert done.lines[1].explanation["taxes"] == [{"name": "VAT", "percent": "19", "on": "100", "amount": "19"}]


@pytest.mark.parametrize(
    ("amounts", "by_line", "together", "shares"),
    [
        # 19 %: 0.38 each
        (("2", "2", "2"), "0", "1", ["1", "0", "0"]),  # 1.14
        (("3", "3", "3"), "3", "2", ["1", "1", "0"]),  # 0.57 each: 1.71
        (("2", "3", "-2"), "1", "1", ["0", "1", "0"]),  # 0.38, 0.57, -0.38
        (("100", "200"), "57", "57", ["19", "38"]),
    ],
)
def test_tax_once_for_the_invoice_is_spread_over_its_lines(
    amounts: tuple[str, ...], by_line: str, together: str, shares: list[str]
) -> None:
    lines = [line(amount, VAT, key=str(n)) for n, amount in enumerate(amounts)]
    assert settle(lines).tax == D(by_line)
    done = settle(lines, conventions=Conventions(tax_rounding="invoice"))
    assert done.tax == D(together)
    assert [one.tax for one in done.lines] == [D(share) for share in shares]
    assert sum(one.total for one in done.lines) == done.total


def test_lines_of_other_rates_are_rounded_by_themselves() -> None:
    other = Tax("VAT", D(7))
    done = settle(
        [line("2", VAT, key="a"), line("7", other, key="b"), line("2", VAT, key="c"), line("7", other, key="d")],
        conventions=Conventions(tax_rounding="invoice"),
    )
    assert [one.tax for one in done.lines] == [D(1), D(1), D(0), D(0)]  # 0.76 -> 1, 0.98 -> 1


@pytest.mark.parametrize(
    ("rounding", "net", "tax", "total", "prices"),
    [
        ("line", "42015", "7985", "50000", ["10000"] * 5),
        ("invoice", "42017", "7983", "50000", ["10000"] * 5),
        ("invoice_net", "42015", "7983", "49998", ["9999", "9999", "10000", "10000", "10000"]),
        ("invoice_gross", "42017", "7983", "50000", ["10000"] * 5),
    ],
)
def test_five_prices_with_the_tax_inside(rounding: str, net: str, tax: str, total: str, prices: list[str]) -> None:
    """100.00 at 19 %: 84.03 net each, 420.15 together, of which 19 % are 79.83; of 500.00 the net is 420.17."""
    done = settle(
        [line("10000", VAT, key=str(n), tax_inclusive=True) for n in range(5)],
        conventions=Conventions(tax_rounding=rounding, spread="largest_amount"),
    )
    assert (done.net, done.tax, done.total) == (D(net), D(tax), D(total))
    assert [one.amount for one in done.lines] == [D(price) for price in prices]
    assert all(one.net + one.tax == one.total for one in done.lines)


def test_a_price_that_no_net_gives_moves_only_by_the_strict_convention() -> None:
    """99.99 at 19 %: 84.03 give 100.00, 84.02 give 99.98."""
    lines = [line("9999", VAT, tax_inclusive=True)]
    kept = settle(lines, conventions=Conventions(tax_rounding="invoice"))
    assert (kept.net, kept.tax, kept.total) == (D(8403), D(1596), D(9999))
    moved = settle(lines, conventions=Conventions(tax_rounding="invoice_gross"))
    assert (moved.net, moved.tax, moved.total) == (D(8403), D(1597), D(10000))
    assert moved.lines[0].explanation["moved"] == "1"


def test_units_left_over_go_to_the_largest_line_by_convention() -> None:
    lines = [line("10", VAT, key="small"), line("1000", VAT, key="large"), line("12", VAT, key="middle")]
    # 1.9, 190, 2.28: each by itself 2, 190, 2; together 194.18
    done = settle(lines, conventions=Conventions(tax_rounding="invoice", spread="largest_amount"))
    assert [one.tax for one in done.lines] == [D(2), D(190), D(2)]
    more = [line("2", VAT, key="a"), line("5", VAT, key="b"), line("2", VAT, key="c")]
    # 0.38, 0.95, 0.38: 0, 1, 0; together 1.71 = 2
    done = settle(more, conventions=Conventions(tax_rounding="invoice", spread="largest_amount"))
    assert [one.tax for one in done.lines] == [D(0), D(2), D(0)]
    done = settle(more, conventions=Conventions(tax_rounding="invoice"))
    assert [one.tax for one in done.lines] == [D(1), D(1), D(0)]


def test_a_rated_line_can_be_settled_as_it_is() -> None:
    done = settle([rate(PerUnit(D(2)), "7", key="calls")], credits=[Credit("c", D(4), covers="usage")])
    assert (done.lines[0].key, done.total) == ("calls", D(10))


# -- what always holds

amounts = st.integers(-5000, 20000)
rates = st.sampled_from([(), (VAT,), (Tax("VAT", D(7)),), (Tax("A", D(5)), Tax("B", D("9.975"), compound=True))])
settings_of = st.builds(
    Conventions,
    credit=st.sampled_from(["before_tax", "after_tax"]),
    tax_rounding=st.sampled_from(["line", "invoice", "invoice_net", "invoice_gross"]),
    inclusive_rounds=st.sampled_from(["tax", "net"]),
    spread=st.sampled_from(["largest_remainder", "largest_amount", "in_order"]),
    rounding_mode=st.sampled_from(["half_up", "half_even", "up", "down"]),
)


@given(
    st.lists(st.tuples(amounts, rates, st.booleans()), max_size=8),
    st.lists(st.integers(0, 9000), max_size=4),
    settings_of,
)
def test_every_sum_is_the_sum_of_its_lines(
    rows: list[tuple[int, tuple[Tax, ...], bool]], credits: list[int], how: Conventions
) -> None:
    lines = [LineToSettle(str(n), D(amount), taxes, inside) for n, (amount, taxes, inside) in enumerate(rows)]
    done = settle(lines, credits=[Credit(str(n), D(amount)) for n, amount in enumerate(credits)], conventions=how)
    assert done.total == sum(one.total for one in done.lines)
    assert done.tax == sum(one.tax for one in done.lines) == sum(tax.amount for tax in done.taxes)
    assert done.credit == sum(one.credit for one in done.lines) == sum(one.drawn for one in done.credits)
    for given_line, one in zip(lines, done.lines, strict=True):
        assert one.total == one.amount - one.credit + (0 if one.tax_inclusive else one.tax)
        assert one.tax == sum(tax.amount for tax in one.taxes)
        assert one.credit >= 0
        assert one.credit == one.credit.to_integral_value()
        assert one.tax == one.tax.to_integral_value()
        if how.tax_rounding in ("line", "invoice"):
            assert one.amount == given_line.amount
    for amount, drawn in zip(credits, done.credits, strict=True):
        assert 0 <= drawn.drawn <= amount
        assert drawn.drawn + drawn.remaining == amount


@given(st.lists(amounts, min_size=1, max_size=8), st.integers(0, 30000))
def test_credit_never_turns_a_total_below_zero(given_amounts: list[int], credit: int) -> None:
    done = settle([line(str(amount)) for amount in given_amounts], credits=[Credit("c", D(credit))])
    assert done.credit == min(credit, max(sum(given_amounts), 0))
    for amount, one in zip(given_amounts, done.lines, strict=True):
        assert one.credit <= max(amount, 0)
