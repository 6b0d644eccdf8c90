"""Count usage again from the log and compare it with the buckets it is read from."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from customers.clock import database_now
from customers.errors import DomainError
from meters.meters import get_meter
from meters.reconciliation import reconcile


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--fix", action="store_true", help="count again what differs")
        parser.add_argument("--meter", metavar="ID", help="only this meter")
        parser.add_argument("--sample", metavar="N", type=int, help="only this many customers of each meter, at random")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["sample"] is not None and options["sample"] < 1:
            raise CommandError("--sample takes a number from 1 on.")
        try:
            meter = get_meter(meter_id=options["meter"]) if options["meter"] else None
        except DomainError:
            raise CommandError(f"There is no meter {options['meter']!r}.") from None
        found = reconcile(
            trigger="command", meter=meter, sample=options["sample"], fix=options["fix"], now=database_now()
        )
        for words in found.findings:
            self.stdout.write(words)
        if found.differing > len(found.findings):
            self.stdout.write(f"… and {found.differing - len(found.findings):,} more.")
        compared = f"{found.buckets:,} buckets of {found.meters:,} meter{'' if found.meters == 1 else 's'} compared"
        if not found.differing:
            self.stdout.write(f"{compared}: all as the log says.")
        elif found.fixed:
            self.stdout.write(f"{compared}: {found.differing:,} differed and were counted again.")
        else:
            raise CommandError(f"{compared}: {found.differing:,} differ; --fix counts them again.")
