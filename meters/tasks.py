"""Background work of the event log."""

from celery import shared_task
from django.utils import timezone

from meters.partitions import ensure_partitions, months_ahead
from meters.rollups import keep_rolled_up


@shared_task(name="meters.tasks.make_partitions")
def make_partitions() -> list[str]:
    """Make the event log's partitions for this month and the next three, so that ingestion never has to."""
    made = ensure_partitions(months=months_ahead(now=timezone.now(), count=3))
    return [month.isoformat() for month in made]


@shared_task(name="meters.tasks.roll_up", ignore_result=True)
def roll_up() -> None:
    """Bring the buckets up to the log; under load for a while, so that the tail stays short between ticks."""
    keep_rolled_up()
