"""Background work of the event log."""

from celery import shared_task
from django.utils import timezone

from meters.partitions import ensure_partitions, months_ahead


@shared_task(name="meters.tasks.make_partitions")
def make_partitions() -> list[str]:
    """Make the event log's partitions for this month and the next three, so that ingestion never has to."""
    made = ensure_partitions(months=months_ahead(now=timezone.now(), count=3))
    return [month.isoformat() for month in made]
