"""How a line is given back in parts, and what a line below zero takes off the others: tables and properties."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.crediting import Printed, by_rate, creditable, part_of
from billing.money import spread

D = Decimal
ZERO = D(0)


def printed(amount: int, credit: int = 0, tax: int = 0, *, inclusive: bool = False, key: int = 1) -> Printed:
    return Printed(key=key, amount=D(amount), credit=D(credit), tax=D(tax), tax_inclusive=inclusive)


def said(part: Printed) -> tuple[int, int, int, int]:
    return int(part.amount), int(part.credit), int(part.tax), int(part.total)


@pytest.mark.parametrize(
    ("line", "given_before", "worth", "gives"),
    [
        # (amount, credit, tax, money) each.
        (printed(100), 0, 40, (40, 0, 0, 40)),
        (printed(100), 40, 60, (60, 0, 0, 60)),
        # 19 % on 100: worth 119. 60 / 119 of 19 is 9.58, so 10.
        (printed(100, 0, 19), 0, 60, (50, 0, 10, 60)),
        (printed(100, 0, 19), 60, 59, (50, 0, 9, 59)),
        (printed(100, 0, 19), 0, 119, (100, 0, 19, 119)),
        # Included: worth 119 and the tax is in it.
        (printed(119, 0, 19, inclusive=True), 0, 60, (60, 0, 10, 60)),
        # Half of it was paid by prepaid credit: half of what is given back is.
        (printed(100, 50), 0, 10, (10, 5, 0, 5)),
        # All of it was: no money comes back.
        (printed(100, 100), 0, 33, (33, 33, 0, 0)),
        # 20 % on what credit left: 100 - 50 = 50, tax 10, worth 110; 55 of it is the half of each.
        (printed(100, 50, 10), 0, 55, (50, 25, 5, 30)),
        # A cent at a time of 3 cents with 1 cent of tax: 1/4, 2/4 (half up), 3/4, 4/4 of it.
        (printed(3, 0, 1), 0, 1, (1, 0, 0, 1)),
        (printed(3, 0, 1), 1, 1, (0, 0, 1, 1)),
        (printed(3, 0, 1), 2, 1, (1, 0, 0, 1)),
        (printed(3, 0, 1), 3, 1, (1, 0, 0, 1)),
    ],
)
def test_a_part_carries_its_share_of_everything(
    line: Printed, given_before: int, worth: int, gives: tuple[int, int, int, int]
) -> None:
    assert said(part_of(line, given=D(given_before), worth=D(worth))) == gives


@pytest.mark.parametrize(("given_before", "worth"), [(0, 120), (100, 20), (119, 1), (-1, 5), (5, -1)])
def test_no_part_goes_beyond_its_line(given_before: int, worth: int) -> None:
    with pytest.raises(ValueError, match="is not within a line worth 119"):
        part_of(printed(100, 0, 19), given=D(given_before), worth=D(worth))


@st.composite
def any_line(draw: st.DrawFn, key: int = 1, least: int = 1) -> Printed:
    """As invoices print them: the credit is within the amount, the tax is on what it left."""
    amount = draw(st.integers(least, 10**6))
    credit = draw(st.integers(0, max(amount, 0)))
    inclusive = draw(st.booleans())
    tax = draw(st.integers(0, amount - credit)) if amount > 0 else 0
    return Printed(key, D(amount), D(credit), D(tax), inclusive)


@given(any_line(), st.lists(st.integers(1, 10**6), max_size=12))
def test_any_number_of_steps_gives_back_exactly_the_line(line: Printed, cuts: list[int]) -> None:
    stops = sorted({D(cut) for cut in cuts if cut < line.worth} | {line.worth})
    before, parts = ZERO, []
    for stop in stops:
        parts.append(part_of(line, given=before, worth=stop - before))
        before = stop
    assert all(part.amount >= 0 and part.credit >= 0 and part.tax >= 0 and part.total >= 0 for part in parts)
    assert sum((part.amount for part in parts), ZERO) == line.amount
    assert sum((part.credit for part in parts), ZERO) == line.credit
    assert sum((part.tax for part in parts), ZERO) == line.tax


@given(any_line(), st.data())
def test_the_way_to_a_sum_does_not_matter(line: Printed, data: st.DataObject) -> None:
    until = data.draw(st.integers(1, int(line.worth)))
    at = data.draw(st.integers(0, until))
    first, second = (part_of(line, given=D(0), worth=D(at)), part_of(line, given=D(at), worth=D(until - at)))
    at_once = part_of(line, given=ZERO, worth=D(until))
    assert tuple(a + b for a, b in zip(said(first), said(second), strict=True)) == said(at_once)


@given(any_line(), st.data())
def test_a_part_is_within_a_unit_of_its_exact_share(line: Printed, data: st.DataObject) -> None:
    worth = D(data.draw(st.integers(1, int(line.worth))))
    part = part_of(line, given=ZERO, worth=worth)
    assert abs(part.credit - line.credit * worth / line.worth) <= D("0.5")
    assert abs(part.tax - line.tax * worth / line.worth) <= D("0.5")
    assert part.worth == worth


# -- lines below zero -----------------------------------------------------------------------------------------


def left_of(*lines: tuple[int, int, int, str | None]) -> list[tuple[int, tuple[int, int, int]]]:
    """(amount, credit, tax, like) each; what is left of which."""
    given_lines = [Printed(n, D(a), D(c), D(t), like=like) for n, (a, c, t, like) in enumerate(lines, start=1)]
    return [(one.key, (int(one.amount), int(one.credit), int(one.tax))) for one in creditable(given_lines)]


def test_without_a_line_below_zero_all_lines_can_be_given_back_as_printed() -> None:
    assert left_of((100, 10, 9, "a"), (0, 0, 0, "b"), (50, 50, 0, None)) == [(1, (100, 10, 9)), (3, (50, 50, 0))]


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        # It takes from its own charge first.
        ([(100, 0, 0, "calls"), (50, 0, 0, None), (-30, 0, 0, "calls")], [(1, (70, 0, 0)), (2, (50, 0, 0))]),
        # What that cannot bear, the others bear: 130 = 100 + 30 of 50.
        ([(100, 0, 0, "calls"), (50, 0, 0, None), (-130, 0, 0, "calls")], [(2, (20, 0, 0))]),
        # None is like it: 30 over 100 and 50 is 20 and 10.
        ([(100, 0, 0, "a"), (50, 0, 0, "b"), (-30, 0, 0, "c")], [(1, (80, 0, 0)), (2, (40, 0, 0))]),
        # With tax at 19 %: (100 - 30) * 0.19 = 13.30, as the invoice's own 19.00 - 5.70.
        ([(10000, 0, 1900, "a"), (-3000, 0, -570, "a")], [(1, (7000, 0, 1330))]),
        # Prepaid credit of 50 on the first: 70 are left, 50 of them paid by credit.
        ([(100, 50, 0, "a"), (-30, 0, 0, "a")], [(1, (70, 50, 0))]),
        # The credit stays where it was drawn: 60 of the first, none of the second.
        ([(100, 60, 0, "a"), (50, 0, 0, "b"), (-30, 0, 0, "b")], [(1, (100, 60, 0)), (2, (20, 0, 0))]),
        # Unless it no longer fits: 80 of 100 were drawn on a line of which 40 are left.
        ([(100, 80, 0, "a"), (50, 0, 0, "b"), (-60, 0, 0, "a")], [(1, (40, 36, 0)), (2, (50, 44, 0))]),
        # Credit that was drawn after tax may be more than the amount: 119 of 119, then 83 of 83.
        ([(100, 119, 19, "a"), (-30, -36, -6, "a")], [(1, (70, 83, 13))]),
        # Nothing above zero is left.
        ([(100, 0, 0, "a"), (-100, 0, 0, "a")], []),
        ([(100, 0, 0, "a"), (-130, 0, 0, "b")], []),
        ([(-5, 0, 0, "a")], []),
        ([], []),
    ],
)
def test_a_line_below_zero_takes_its_part_off_the_others(
    lines: list[tuple[int, int, int, str | None]], left: list[tuple[int, tuple[int, int, int]]]
) -> None:
    assert left_of(*lines) == left


@given(st.lists(st.tuples(st.integers(-1000, 1000), st.sampled_from("ab")), min_size=1, max_size=6), st.data())
def test_what_can_be_given_back_is_the_sum_of_the_invoice(rows: list[tuple[int, str]], data: st.DataObject) -> None:
    percent, net = data.draw(st.integers(0, 25)), sum(amount for amount, _ in rows)
    credit = data.draw(st.integers(0, net)) if net > 0 else 0
    credits = spread(D(credit), [D(amount) for amount, _ in rows])
    taxes = spread(D(max(net - credit, 0) * percent // 100), [D(max(amount, 0)) for amount, _ in rows])
    lines = [
        Printed(n, D(amount), part, tax, like=like)
        for n, ((amount, like), part, tax) in enumerate(zip(rows, credits, taxes, strict=True))
    ]
    left = creditable(lines)
    assert all(one.amount > 0 and 0 <= one.credit <= one.amount and one.tax >= 0 for one in left)
    assert sum((one.amount for one in left), ZERO) == max(net, 0)
    assert sum((one.credit for one in left), ZERO) == credit
    if net > 0:
        assert sum((one.total for one in left), ZERO) == sum((line.total for line in lines), ZERO)


@given(
    st.lists(st.tuples(st.integers(-1000, 1000), st.booleans()), min_size=1, max_size=6),
    st.integers(0, 25),
    st.integers(0, 100),
)
def test_never_more_than_the_invoice_where_some_prices_contain_their_tax(
    rows: list[tuple[int, bool]], percent: int, credit_percent: int
) -> None:
    net = sum(amount for amount, _ in rows)
    credit = max(net, 0) * credit_percent // 100
    credits = spread(D(credit), [D(amount) for amount, _ in rows])
    lines = []
    for n, ((amount, inclusive), part) in enumerate(zip(rows, credits, strict=True)):
        base = int(D(amount) - part)
        tax = base * percent // (100 + percent) if inclusive else base * percent // 100
        lines.append(Printed(n, D(amount), part, D(tax), inclusive))
    total = sum((line.total for line in lines), ZERO)
    left = creditable(lines)
    assert all(one.amount >= 0 and 0 <= one.credit <= one.amount and one.tax >= 0 for one in left)
    assert sum((one.total for one in left), ZERO) <= max(total, ZERO)
    assert sum((one.credit for one in left), ZERO) <= credit


@pytest.mark.parametrize(
    ("tax", "amounts", "before", "shares"),
    [
        (10, [5, 10], [], [3, 7]),  # 3 1/3 and 6 2/3
        (5, [5, 10], [[3, 7]], [2, 3]),
        (15, [5, 10], [], [5, 10]),
        (0, [], [], []),
    ],
)
def test_the_tax_of_a_part_is_told_by_rate(
    tax: int, amounts: list[int], before: list[list[int]], shares: list[int]
) -> None:
    given_before = [[D(one) for one in earlier] for earlier in before]
    assert by_rate(D(tax), [D(amount) for amount in amounts], given_before) == [D(share) for share in shares]
