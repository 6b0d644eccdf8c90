"""Celery's side of billing. Each task may run twice, at once or later: the rows decide what is left to do."""

from celery import shared_task
from django.db import OperationalError

from billing import cycles
from billing.credits import expire_grants
from billing.models import BillingRun, RunOutcome
from billing.subscriptions import advance_periods
from customers.clock import database_now
from meters.evidence import IngestionBusy

CHUNK = 50
# Each further task takes what is left, so a run of any size needs no more than this.
MOST_TASKS = 100


@shared_task(name="billing.tasks.close_due_cycles")
def close_due_cycles() -> None:
    """Beat's tick: open the periods that have begun, start a run for what is due, go on with unfinished runs, issue
    the drafts whose time has come."""
    now = database_now()
    advance_periods(now=now)
    cycles.start_scheduled_run(now=now)
    for run in cycles.unfinished_runs():
        enqueue_run(run)
    cycles.issue_due_drafts(clock=database_now)


@shared_task(
    name="billing.tasks.close_chunk",
    autoretry_for=(OperationalError, IngestionBusy),
    retry_backoff=True,
    max_retries=5,
)
def close_chunk(run_id: int) -> None:
    """Close up to CHUNK of the run's subscriptions that nobody else is working on."""
    run = BillingRun.objects.filter(pk=run_id).first()
    if run is not None:
        cycles.work_run(run=run, clock=database_now, limit=CHUNK)


def enqueue_run(run: BillingRun) -> None:
    """Hand the run's pending items to the workers, a task a chunk."""
    pending = run.items.filter(outcome=RunOutcome.PENDING).count()
    for _ in range(min(-(-pending // CHUNK), MOST_TASKS)):
        close_chunk.delay(run.pk)
    if not pending:
        cycles.finish_run(run=run, now=database_now())


@shared_task(name="billing.tasks.expire_credit")
def expire_credit() -> None:
    """Beat's tick: what is left of expired grants goes, and their ledgers say so."""
    expire_grants(now=database_now())
