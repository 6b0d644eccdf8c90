"""Number series: the next number of a document, without a gap, and the operator's own series."""

import re

from django.conf import settings
from django.db import transaction

from billing.models import CreditNote, Invoice, NumberSeries
from customers.errors import Conflict, DomainError

# The series that invoices and credit notes are numbered in where nothing else is chosen.
INVOICES = "invoices"
CREDIT_NOTES = "credit_notes"
DIGITS = 6


class SeriesInUse(Conflict):
    code = "NUMBER_SERIES_IN_USE"


def take_number(*, name: str, prefix: str) -> tuple[NumberSeries, str]:
    """The next number of the series, made with this prefix where it is not there yet.

    Must run inside a transaction, as late in it as may be: the series' row stays locked until it ends, so nobody else
    gets a number meanwhile, and one that is rolled back is given again.
    """
    NumberSeries.objects.bulk_create([NumberSeries(name=name, prefix=prefix)], ignore_conflicts=True)
    series = NumberSeries.objects.select_for_update().get(name=name)
    number = numbered(series.prefix, series.next_number)
    series.next_number += 1
    series.save(update_fields=["next_number"])
    return series, number


def numbered(prefix: str, number: int) -> str:
    """ "INV-000042"; longer once six digits are not enough."""
    return f"{prefix}{number:0{DIGITS}d}"


@transaction.atomic
def create_series(*, name: str, prefix: str, first: int = 1) -> NumberSeries:
    """A series that invoices of chosen customers can be numbered in."""
    name, prefix = _checked(name=name, prefix=prefix, first=first)
    return NumberSeries.objects.create(name=name, prefix=prefix, next_number=first)


@transaction.atomic
def change_series(*, series: NumberSeries, prefix: str, first: int) -> NumberSeries:
    """Correct a series that has numbered nothing yet; `SeriesInUse` once it has."""
    locked = NumberSeries.objects.select_for_update().get(pk=series.pk)
    if is_used(locked):
        raise SeriesInUse(
            f"“{locked.name}” has numbered documents, so its prefix and its next number stay as they are."
        )
    _, locked.prefix = _checked(name=locked.name, prefix=prefix, first=first, of=locked)
    locked.next_number = first
    locked.save(update_fields=["prefix", "next_number"])
    return locked


def is_used(series: NumberSeries) -> bool:
    """Whether a document has a number of this series."""
    if series.name == INVOICES and Invoice.objects.filter(series=None, number__isnull=False).exists():
        return True  # numbered before documents kept their series
    return Invoice.objects.filter(series=series).exists() or CreditNote.objects.filter(series=series).exists()


def _checked(*, name: str, prefix: str, first: int, of: NumberSeries | None = None) -> tuple[str, str]:
    name, prefix = name.strip(), prefix.strip()
    others = NumberSeries.objects.exclude(pk=of.pk) if of else NumberSeries.objects.all()
    if not name:
        raise DomainError("Give the series a name.")
    if others.filter(name=name).exists():
        raise DomainError(f"There is a series “{name}” already.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9/._-]{0,19}", prefix):
        raise DomainError("A prefix is 1 to 20 letters, digits or signs of / . _ -, and begins with a letter or digit.")
    if first < 1:
        raise DomainError("The first number is 1 or more.")
    for taken_by, taken in _prefixes(of).items():
        longer, shorter = sorted((prefix, taken), key=len, reverse=True)
        # "A-1" would print its number 1 as "A-1000001", and that is the number 1,000,001 of "A-".
        if longer.startswith(shorter) and re.fullmatch(r"[0-9]*", longer[len(shorter) :]):
            raise DomainError(f"“{prefix}” could give the same numbers as “{taken}” of the series “{taken_by}”.")
    return name, prefix


def _prefixes(other_than: NumberSeries | None) -> dict[str, str]:
    """By the series' name, also of the two that are made with the first document."""
    defaults = {INVOICES: settings.INVOICE_NUMBER_PREFIX, CREDIT_NOTES: settings.CREDIT_NOTE_PREFIX}
    found = {**defaults, **dict(NumberSeries.objects.values_list("name", "prefix"))}
    if other_than is not None:
        del found[other_than.name]
    return {name: prefix or defaults.get(name, "") for name, prefix in found.items()}
