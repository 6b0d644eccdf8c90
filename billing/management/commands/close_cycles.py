"""Close every billing period that is due and issue its invoice, or draft it where it is reviewed first."""

from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError
from django.utils.dateparse import parse_datetime

from billing import cycles
from billing.models import RunItem, RunOutcome, RunTrigger, Subscription
from billing.money import format_amount
from billing.reports import run_results
from billing.subscriptions import advance_periods
from customers.clock import database_now
from customers.errors import DomainError


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--until",
            metavar="INSTANT",
            help="bill as if it were this instant (2026-02-01T00:00:00Z); later than now closes periods early",
        )
        parser.add_argument("--dry-run", action="store_true", help="show what would be issued, save nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        now = database_now()
        until = _instant(options["until"]) if options["until"] else now
        try:
            if options["dry_run"]:
                self._preview(until, now)
            else:
                self._run(until, now)
        except DomainError as error:
            raise CommandError(error.message) from None
        except OperationalError as error:
            raise CommandError(f"The database did not go along, so run it again: {error}".strip()) from None

    def _preview(self, until: datetime, now: datetime) -> None:
        totals: dict[str, Decimal] = defaultdict(Decimal)
        invoices = drafts = 0
        failures: list[tuple[int, str]] = []
        for proposal in cycles.preview_run(until=until, now=now, on_failure=lambda pk, why: failures.append((pk, why))):
            assert proposal.settled is not None, "a preview settles"  # noqa: S101
            invoices += 1
            drafts += proposal.settled.is_draft
            totals[proposal.currency] += proposal.settled.total
            total = format_amount(proposal.settled.total, proposal.currency)
            if proposal.settled.is_draft:
                total += ", a draft first"
            span = f"{proposal.period_start:%Y-%m-%d %H:%M} to {proposal.period_end:%Y-%m-%d %H:%M}"
            self.stdout.write(
                f"{proposal.subscription.customer.name} ({proposal.subscription.public_id}), {span}: {total}"
            )
            for line in proposal.lines:
                self.stdout.write(f"    {line.description}: {line.explanation['text']}")
        for subscription in (
            Subscription.objects.select_related("customer").in_bulk([pk for pk, _ in failures]).values()
        ):
            reason = dict(failures)[subscription.pk]
            self.stderr.write(f"{subscription} ({subscription.public_id}) would be parked: {reason}")
        waiting = f", {_count(drafts, 'of them a draft', 'of them drafts')} first" if drafts else ""
        self.stdout.write(
            f"Dry run: {_count(invoices, 'invoice')} would be made{_sums(totals)}{waiting}. Nothing was saved."
        )

    def _run(self, until: datetime, now: datetime) -> None:
        if until <= now:
            advance_periods(now=now)
        run = cycles.start_run(trigger=RunTrigger.COMMAND, until=until, now=now)
        due = run.items.count()
        done = 0

        def progress(item: RunItem) -> None:
            nonlocal done
            done += 1
            if self.stderr.isatty():
                self.stderr.write(f"\r{done} of {due} subscriptions", ending="")
            elif done % 100 == 0:
                self.stderr.write(f"{done} of {due} subscriptions")
            if item.outcome == RunOutcome.PARKED:
                self.stderr.write(f"\n{item.subscription} is parked: {item.reason}")

        cycles.work_run(run=run, clock=database_now, on_progress=progress)
        if done and self.stderr.isatty():
            self.stderr.write("")
        (result,) = run_results(runs=[run])
        drafted = f", {_count(result.drafts, 'draft')} to review{_sums(result.draft_totals)}" if result.drafts else ""
        waits = f", {result.parked} parked (see the admin)" if result.parked else ""
        self.stdout.write(
            f"{_count(due, 'subscription')} due, {_count(result.invoices, 'invoice')} issued{_sums(result.totals)}"
            f"{drafted}{waits}."
        )


def _instant(text: str) -> datetime:
    try:
        instant = parse_datetime(text)
    except ValueError:
        instant = None
    if instant is None:
        raise CommandError(f"--until {text!r} is not an instant such as 2026-02-01T00:00:00Z.")
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _count(number: int, noun: str, many: str = "") -> str:
    return f"{number} {noun if number == 1 else many or f'{noun}s'}"


def _sums(totals: Mapping[str, Decimal]) -> str:
    if not totals:
        return ""
    return " for " + " and ".join(format_amount(total, currency) for currency, total in sorted(totals.items()))
