"""Fill an empty installation with a demo, or reset it."""

import json
import os
import secrets
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from billing import demo
from customers.clock import database_now
from customers.errors import DomainError
from customers.keys import create_api_key
from customers.models import Customer
from customers.portal_links import create_portal_link

OPERATOR = "demo"
CREDENTIALS = settings.VAR_DIR / "demo.json"


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--reset", action="store_true", help="forget everything and make the demo anew")
        parser.add_argument("--yes", action="store_true", help="do not ask before a reset")
        parser.add_argument("--links", action="store_true", help="only renew the demo customer's link")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["links"]:
                self._renew_link()
            elif options["reset"]:
                self._reset(asked=options["yes"])
            elif demo.is_empty():
                self._make()
            else:
                self.stdout.write("There is data already, so no demo was made.")
        except DomainError as error:
            raise CommandError(error.message) from None

    def _reset(self, *, asked: bool) -> None:
        if not asked and input("Forget every customer, event and invoice here? Type yes: ").strip() != "yes":
            raise CommandError("Nothing was changed.")
        demo.empty_everything()
        self._make()

    def _make(self) -> None:
        def progress(day: int) -> None:
            if self.stderr.isatty():
                self.stderr.write(f"\r{day} of {demo.DAYS} days", ending="" if day < demo.DAYS else "\n")

        demo.make_demo(now=database_now(), on_progress=progress)
        password = secrets.token_urlsafe(12)
        users = get_user_model()
        operator, _ = users.objects.get_or_create(
            username=OPERATOR, defaults={"is_staff": True, "is_superuser": True, "email": "demo@meterbook.example"}
        )
        operator.set_password(password)
        operator.save()
        _, key = create_api_key(name="Demo application")
        self._write({"admin_username": OPERATOR, "admin_password": password, "api_key": key})
        self._renew_link()
        self.stdout.write(
            f"The demo is ready: {Customer.objects.count()} customers, {demo.DAYS} days of events and their invoices. "
            f"The login, an API key and a customer's link are in {CREDENTIALS}."
        )

    def _renew_link(self) -> None:
        customer = Customer.objects.filter(public_id=demo.FIRST_CUSTOMER).first()
        if customer is None or not CREDENTIALS.exists():
            raise CommandError("There is no demo here.")
        _, link = create_portal_link(customer=customer, now=database_now())
        self._write({**json.loads(CREDENTIALS.read_text()), "portal_link": link})

    def _write(self, credentials: dict[str, str]) -> None:
        # Readable for its owner only, from the first byte on.
        CREDENTIALS.parent.mkdir(parents=True, exist_ok=True)
        part = CREDENTIALS.with_suffix(".part")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(credentials, file, indent=1)
        part.replace(CREDENTIALS)
