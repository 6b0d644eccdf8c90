"""Void the events of a selection: they stay in the log and count for nothing. Shows the effect first."""

import getpass
import json
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime

from billing.corrections import Correction, preview_void
from billing.money import format_amount, format_units
from customers.clock import database_now
from customers.customers import get_customer
from customers.errors import DomainError
from meters.meters import get_meter
from meters.voids import Selection, Voided, check_reason, void_events

MOST_SHOWN = 50


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--start", required=True, metavar="INSTANT", help="events at or after 2026-02-01T00:00:00Z")
        parser.add_argument("--end", required=True, metavar="INSTANT", help="events before this")
        parser.add_argument("--event-name", metavar="NAME")
        parser.add_argument("--customer", metavar="ID")
        parser.add_argument("--meter", metavar="ID", help="events that this meter's name and filter match")
        parser.add_argument("--filter", metavar="JSON", help="conditions on the metadata, as a meter has them")
        parser.add_argument("--reason", default="", help="why they must not count; kept with each event")
        parser.add_argument("--dry-run", action="store_true", help="show the effect in units and money, change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            where = Selection(
                start=_instant("--start", options["start"]),
                end=_instant("--end", options["end"]),
                event_name=options["event_name"],
                customer=get_customer(customer_id=options["customer"]) if options["customer"] else None,
                meter=get_meter(meter_id=options["meter"]) if options["meter"] else None,
                filter=_tree(options["filter"]),
            )
            now = database_now()
            if options["dry_run"]:
                self._show(preview_void(where=where, now=now))
                return
            voided = void_events(where=where, reason=check_reason(options["reason"]), author=_author(), now=now)
        except DomainError as error:
            raise CommandError(error.message) from None
        self._units(voided)
        self.stdout.write(f"{_events(voided)} voided.")

    def _show(self, correction: Correction) -> None:
        self._units(correction.voided)
        for effect in correction.money[:MOST_SHOWN]:
            later = ", adjusted on the next invoice" if effect.closed else ""
            self.stdout.write(
                f"{effect.period.subscription.customer.name}, {effect.charge.meter.name},"
                f" {effect.period.start:%Y-%m-%d} to {effect.period.end:%Y-%m-%d}:"
                f" {format_amount(effect.change, effect.currency)}{later}"
            )
        self._more(len(correction.money), "amount")
        if not correction.complete:
            self.stdout.write("More periods change than could be rated here.")
        totals = " and ".join(format_amount(change, currency) for currency, change in correction.totals.items())
        self.stdout.write(
            f"Dry run: {_events(correction.voided)} would be voided, a change of {totals or 'no money'}."
            " Nothing was changed."
        )

    def _units(self, voided: Voided) -> None:
        for unit in voided.units[:MOST_SHOWN]:
            self.stdout.write(
                f"{unit.customer.name}, {unit.meter.name}: {format_units(unit.before)} to {format_units(unit.after)}"
                f" {unit.meter.measurement_unit}"
            )
        self._more(len(voided.units), "quantity")

    def _more(self, found: int, what: str) -> None:
        if found > MOST_SHOWN:
            self.stdout.write(f"… and {found - MOST_SHOWN:,} more: {what} not shown.")


def _events(voided: Voided) -> str:
    events = f"{voided.events:,} event{'' if voided.events == 1 else 's'}"
    return f"{events} of {voided.customers:,} customer{'' if voided.customers == 1 else 's'}"


def _author() -> str:
    try:
        return f"{getpass.getuser()} (command)"
    except (KeyError, OSError):  # an account without a name, as in some containers
        return "command"


def _instant(option: str, text: str) -> datetime:
    try:
        instant = parse_datetime(text)
    except ValueError:
        instant = None
    if instant is None:
        raise CommandError(f"{option} {text!r} is not an instant such as 2026-02-01T00:00:00Z.")
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _tree(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(f"--filter is not JSON: {error}.") from None
