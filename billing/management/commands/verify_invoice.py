"""`manage.py verify_invoice NUMBER`, or `--all`: prove invoices from the event log. Ends with 1 where one differs."""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from billing.models import Invoice, InvoiceStatus
from billing.proofs import Outcome, sentences, verify_invoice


class Command(BaseCommand):
    help = (
        "Count every line of an invoice again from the event log, rate it and add it up, and say identical or what is "
        "different. Nothing is changed. Ends with 1 where something differs, also when nothing else does."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("number", nargs="*", help="an invoice's number; several may be named")
        parser.add_argument("--all", action="store_true", help="every invoice that was issued, oldest first")
        parser.add_argument("--quiet", action="store_true", help="only the invoices that are not identical")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["number"] and not options["all"]:
            raise CommandError("Name an invoice's number, or --all.")
        found: Counter[Outcome] = Counter()
        for invoice in _every() if options["all"] else _named(options["number"]):
            result = verify_invoice(invoice=invoice, now=timezone.now())
            found[result.outcome] += 1
            if options["quiet"] and result.outcome == Outcome.IDENTICAL:
                continue
            self.stdout.write(f"{invoice}: {result.outcome}")
            for outcome, text in sentences(result):
                if not options["all"] or outcome != Outcome.IDENTICAL:
                    self.stdout.write(f"  {text}")
        if options["all"]:
            count = sum(found.values())
            self.stdout.write(
                f"{count} invoice{'' if count == 1 else 's'} verified: "
                + ", ".join(f"{found[outcome]} {outcome}" for outcome in Outcome)
                + "."
            )
        if found[Outcome.DIFFERENT]:
            sys.exit(1)


def _named(numbers: list[str]) -> Iterator[Invoice]:
    for number in numbers:
        invoice = Invoice.objects.filter(number=number).select_related("customer").first()
        if invoice is None:
            raise CommandError(f"There is no invoice “{number}”.")
        yield invoice


def _every() -> Iterator[Invoice]:
    """In pieces by primary key: a cursor would stay open for hours, and a list would hold them all."""
    last = 0
    issued = Invoice.objects.exclude(status=InvoiceStatus.DRAFT).select_related("customer").order_by("pk")
    while piece := list(issued.filter(pk__gt=last)[:200]):
        yield from piece
        last = piece[-1].pk
