"""Money in its smallest unit, and as people read it."""

from decimal import Decimal

import pytest

from billing.money import (
    add,
    format_amount,
    format_unit_price,
    format_units,
    is_currency,
    minor_digits,
    multiply,
    plain,
    round_to_minor,
    to_major,
    to_minor,
)

D = Decimal


@pytest.mark.parametrize(("currency", "digits"), [("JPY", 0), ("USD", 2), ("EUR", 2), ("KWD", 3), ("CLF", 4)])
def test_each_currency_has_its_digits(currency: str, digits: int) -> None:
    assert minor_digits(currency) == digits


@pytest.mark.parametrize(
    ("code", "known"),
    [
        *((code, True) for code in ("USD", "EUR", "JPY", "KWD", "XOF", "MRU")),
        *((code, False) for code in ("usd", "US", "QQQ", "", "USD ")),
        *((code, False) for code in ("XXX", "XTS", "XAU")),  # none, for tests, an ounce of gold
        *((code, False) for code in ("DEM", "HRK", "ZWD")),  # no longer
        *((code, False) for code in ("CLF", "USN", "CHE")),  # in accounts, never in a purse
    ],
)
def test_it_knows_a_currency_in_use_from_other_letters(code: str, known: bool) -> None:
    assert is_currency(code) is known


@pytest.mark.parametrize(
    ("major", "currency", "minor"),
    [
        ("0.02", "USD", "2"),
        ("0.001", "USD", "0.1"),
        ("0.00001", "USD", "0.001"),
        ("49", "USD", "4900"),
        ("500", "JPY", "500"),
        ("1.2345", "KWD", "1234.5"),
        ("999.99999999999999", "USD", "99999.999999999999"),
    ],
)
def test_major_and_minor_units_are_the_same_amount(major: str, currency: str, minor: str) -> None:
    assert to_minor(D(major), currency) == D(minor)
    assert to_major(D(minor), currency) == D(major)


@pytest.mark.parametrize(
    ("exact", "printed"),
    [
        ("0", "0"),
        ("0.4999999999999999999999", "0"),
        ("0.5", "1"),
        ("1.12", "1"),
        ("1.5", "2"),
        ("2.5", "3"),
        ("-0.5", "-1"),
        ("-0.49", "0"),
        ("-2.5", "-3"),
        ("2125.85", "2126"),
        ("1299999999999986999.9999", "1299999999999987000"),
    ],
)
def test_it_rounds_half_away_from_zero(exact: str, printed: str) -> None:
    assert round_to_minor(D(exact)) == D(printed)


def test_products_and_sums_lose_nothing() -> None:
    # 9223372036854775807 x 99999999999999999 in whole numbers, the point put back twelve places.
    assert 9223372036854775807 * 99999999999999999 == 922337203685477571476627963145224193
    assert multiply(D("9223372036854775807"), D("99999.999999999999")) == D("922337203685477571476627.963145224193")
    assert add(D("1e30"), D("1e-30"), D("-1e30")) == D("1e-30")


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        ("3000", "USD", "$30.00"),
        ("0", "USD", "$0.00"),
        ("-50", "USD", "-$0.50"),
        ("500", "JPY", "¥500"),
        ("1234567", "KWD", "KWD1,234.567"),
        ("123456789012345678901234", "USD", "$1,234,567,890,123,456,789,012.34"),
    ],
)
def test_an_amount_reads_as_people_write_it(minor: str, currency: str, text: str) -> None:
    assert format_amount(D(minor), currency).replace("\xa0", "") == text


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        ("2", "USD", "$0.02"),
        ("0.1", "USD", "$0.001"),
        ("0.001", "USD", "$0.00001"),
        ("99999.999999999999", "USD", "$999.99999999999999"),
        ("50", "USD", "$0.50"),
        ("0.5", "JPY", "¥0.5"),
        ("3", "JPY", "¥3"),
    ],
)
def test_a_price_per_unit_keeps_every_digit(minor: str, currency: str, text: str) -> None:
    assert format_unit_price(D(minor), currency) == text


@pytest.mark.parametrize(
    ("quantity", "text"),
    [("2500", "2,500"), ("0", "0"), ("-1234567.25", "-1,234,567.25"), ("1E+5", "100,000"), ("999", "999")],
)
def test_a_quantity_is_grouped_and_keeps_every_digit(quantity: str, text: str) -> None:
    assert format_units(D(quantity)) == text


@pytest.mark.parametrize(("number", "text"), [("1E+3", "1000"), ("0.10", "0.1"), ("-0", "0"), ("1.000", "1")])
def test_plain_digits_have_no_exponent_and_no_idle_zeros(number: str, text: str) -> None:
    assert plain(D(number)) == text
