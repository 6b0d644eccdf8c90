"""Number series: gapless, of the operator's choosing until they are used, and never two that print one number."""

import pytest

from billing.models import NumberSeries
from billing.numbers import INVOICES, SeriesInUse, change_series, create_series, is_used, numbered, take_number
from customers.errors import DomainError
from tests.written import Row, written

pytestmark = pytest.mark.django_db


def test_a_series_begins_where_it_is_told_and_goes_on() -> None:
    series = create_series(name="France", prefix="FR-", first=41)
    assert [take_number(name="France", prefix="ignored")[1] for _ in range(3)] == [
        "FR-000041",
        "FR-000042",
        "FR-000043",
    ]
    series.refresh_from_db()
    assert series.next_number == 44


@pytest.mark.parametrize(
    ("number", "printed"),
    [(1, "A-000001"), (999_999, "A-999999"), (1_000_000, "A-1000000"), (12_345_678, "A-12345678")],
)
def test_a_number_has_six_digits_or_as_many_as_it_needs(number: int, printed: str) -> None:
    assert numbered("A-", number) == printed


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("INV-", "could give the same numbers as “INV-” of the series “invoices”"),
        ("CN-", "could give the same numbers as “CN-” of the series “credit_notes”"),
        # Its number 1 would be "FR-1000001", the number 1,000,001 of FR-.
        ("FR-1", "could give the same numbers as “FR-”"),
        ("", "A prefix is 1 to 20"),
        ("-FR", "A prefix is 1 to 20"),
        ("F R", "A prefix is 1 to 20"),
        ("F" * 21, "A prefix is 1 to 20"),
    ],
)
def test_no_two_series_can_print_one_number(prefix: str, says: str) -> None:
    create_series(name="France", prefix="FR-")
    with pytest.raises(DomainError, match=says):
        create_series(name="Other", prefix=prefix)
    assert NumberSeries.objects.count() == 1


@pytest.mark.parametrize("prefix", ["FR-B-", "FR", "F" * 20, "2026/"])
def test_a_prefix_that_goes_on_with_letters_is_another(prefix: str) -> None:
    create_series(name="France", prefix="FR-")
    assert create_series(name=" Other ", prefix=f" {prefix} ").prefix == prefix


@pytest.mark.parametrize(
    ("name", "first", "says"), [(" ", 1, "a name"), ("France", 1, "already"), ("B", 0, "1 or more")]
)
def test_a_series_wants_a_name_of_its_own_and_a_number(name: str, first: int, says: str) -> None:
    create_series(name="France", prefix="FR-")
    with pytest.raises(DomainError, match=says):
        create_series(name=name, prefix="B-", first=first)


def test_an_unused_series_can_be_corrected_and_a_used_one_not() -> None:
    series = create_series(name="France", prefix="FR-")
    assert not is_used(series)
    # Its own prefix is no other's.
    assert change_series(series=series, prefix="FR-", first=5).next_number == 5
    assert change_series(series=series, prefix="FRA-", first=1).prefix == "FRA-"
    invoice = written(Row(100))
    assert invoice.series is not None
    assert is_used(invoice.series)
    with pytest.raises(SeriesInUse, match="has numbered documents"):
        change_series(series=invoice.series, prefix="X-", first=1)


def test_invoices_of_before_the_series_was_kept_count_as_use() -> None:
    invoice = written(Row(100), status="draft")
    series, invoice.number = take_number(name=INVOICES, prefix="INV-")
    assert not is_used(series)
    invoice.save()
    assert is_used(series)
