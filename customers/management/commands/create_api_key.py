"""`manage.py create_api_key NAME`: makes a key and prints it, the only time it can be read."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from customers.errors import DomainError
from customers.keys import create_api_key


class Command(BaseCommand):
    help = "Make an API key and print it once; only a hash of it is stored."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="which application uses the key")
        parser.add_argument("--read-only", action="store_true", help="the key may read, never write")
        parser.add_argument("--backfill", action="store_true", help="the key may send and void events of any age")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            _, full_key = create_api_key(
                name=options["name"], read_only=options["read_only"], backfill=options["backfill"]
            )
        except DomainError as error:
            raise CommandError(error.message) from error
        # Alone on stdout, so that `KEY=$(manage.py create_api_key shop)` works.
        self.stdout.write(full_key)
        self.stderr.write("Keep it now: only a hash is stored, and nobody can show it again.")
