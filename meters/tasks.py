"""Background work of the event log."""

import logging

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from billing.retention import month_in_use
from customers.clock import database_now
from customers.errors import DomainError
from meters import reconciliation
from meters.imports import go_on, unfinished_uploads
from meters.partitions import ensure_partitions, months_ahead
from meters.retention import archive_month, drop_month, months_to_archive
from meters.rollups import keep_rolled_up

logger = logging.getLogger(__name__)
# An import of any length goes on in pieces, so that a worker is never taken up for long.
IMPORT_SECONDS = 30.0
# Of each meter, every day: enough to notice soon what is wrong everywhere, and little work however long the log is.
RECONCILED_CUSTOMERS = 50
RECONCILED_DAYS = 7


@shared_task(name="meters.tasks.make_partitions")
def make_partitions() -> list[str]:
    """Make the event log's partitions for this month and the next three, so that ingestion never has to."""
    made = ensure_partitions(months=months_ahead(now=timezone.now(), count=3))
    return [month.isoformat() for month in made]


@shared_task(name="meters.tasks.roll_up", ignore_result=True)
def roll_up() -> None:
    """Bring the buckets up to the log; under load for a while, so that the tail stays short between ticks."""
    keep_rolled_up()


@shared_task(name="meters.tasks.reconcile", ignore_result=True)
def reconcile() -> None:
    """Compare a few days of a few customers' buckets with the log; what differs is for a person to look at."""
    reconciliation.reconcile(trigger="schedule", sample=RECONCILED_CUSTOMERS, days=RECONCILED_DAYS, now=database_now())


@shared_task(name="meters.tasks.import_file", ignore_result=True)
def import_file(import_id: int) -> None:
    """Read on in an uploaded file of events, and queue the next piece if it is not done."""
    if not go_on(import_id=import_id, clock=database_now, seconds=IMPORT_SECONDS):
        import_file.delay(import_id)


@shared_task(name="meters.tasks.resume_imports", ignore_result=True)
def resume_imports() -> None:
    """Take up the uploads whose worker was stopped; one that is being read is left alone."""
    for import_id in unfinished_uploads():
        import_file.delay(import_id)


@shared_task(name="meters.tasks.archive_old_events", ignore_result=True)
def archive_old_events() -> None:
    """Archive and drop the months that are older than the setting keeps; without the setting nothing."""
    if not settings.EVENT_RETENTION_MONTHS:
        return
    for month in months_to_archive(now=database_now(), keep_months=settings.EVENT_RETENTION_MONTHS):
        if reason := month_in_use(month):
            # An archive is written when it is of use, and not anew every day until then.
            logger.info("Events of %s stay in the log: %s", month, reason)
            continue
        try:
            archive_month(month=month, folder=settings.EVENT_ARCHIVE_DIR, now=database_now())
            drop_month(month=month, now=database_now(), in_use=month_in_use)
        except DomainError as error:
            # The next day tries again; the events are in the log until then.
            logger.warning("Events of %s stay in the log: %s", month, error.message)
