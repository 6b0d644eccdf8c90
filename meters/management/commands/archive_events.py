"""Write old months of the event log to files with a checksum, and with --drop take them out of the database.

A month is dropped only when its archive is proven to hold all of it, every meter has it in its buckets, and every
billing period that touches it is closed.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from billing.retention import month_in_use
from customers.clock import database_now
from customers.errors import DomainError
from meters.retention import archive_month, drop_month, months_to_archive


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--keep-months",
            type=int,
            metavar="N",
            help="whole months before this one that stay in the log (EVENT_RETENTION_MONTHS)",
        )
        parser.add_argument("--drop", action="store_true", help="take archived months out of the database")
        parser.add_argument("--folder", type=Path, help="where archives are written (EVENT_ARCHIVE_DIR)")
        parser.add_argument("--dry-run", action="store_true", help="say which months, change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        keep = options["keep_months"] if options["keep_months"] is not None else settings.EVENT_RETENTION_MONTHS
        if keep < 1:
            raise CommandError("Say how many months stay in the log: --keep-months N, 1 or more.")
        folder: Path = options["folder"] or settings.EVENT_ARCHIVE_DIR
        try:
            now = database_now()
            months = months_to_archive(now=now, keep_months=keep)
            if not months:
                self.stdout.write(f"There is no month with events older than the last {keep}.")
            if options["dry_run"]:
                for month in months:
                    reason = month_in_use(month) if options["drop"] else ""
                    verb = "archived and dropped" if options["drop"] else "archived"
                    self.stdout.write(f"{month:%Y-%m} would be {verb}." if not reason else f"{month:%Y-%m}: {reason}")
                return
            refused = 0
            for month in months:
                try:
                    archived = archive_month(month=month, folder=folder, now=database_now())
                    self.stdout.write(f"{month:%Y-%m}: {archived.events} events in {archived.path}.")
                    if options["drop"]:
                        drop_month(month=month, now=database_now(), in_use=month_in_use)
                        self.stdout.write(f"{month:%Y-%m} is no longer in the log.")
                except DomainError as error:
                    refused += 1
                    self.stderr.write(f"{month:%Y-%m}: {error.message}")
            if refused:
                raise CommandError(f"{refused} of {len(months)} months could not be done.")
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {str(error).strip()}.") from None
