"""Put a month of events that was archived and dropped back into the log, from its archive."""

from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from customers.errors import DomainError
from meters.retention import restore_month


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("month", metavar="YYYY-MM")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            month = datetime.strptime(options["month"], "%Y-%m").date()  # noqa: DTZ007 - a month has no time zone
        except ValueError:
            raise CommandError("Name the month as 2026-01.") from None
        try:
            restored = restore_month(month=month)
        except DomainError as error:
            raise CommandError(error.message) from None
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {str(error).strip()}.") from None
        self.stdout.write(f"{month:%Y-%m}: {restored.events} events are in the log again.")
