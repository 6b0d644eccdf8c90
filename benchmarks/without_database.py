"""The web application with the storing taken out of its ingest view: what HTTP, Django and DRF cost by themselves."""

from collections.abc import Sequence

from config.wsgi import application as application
from meters.api import views
from meters.ingestion import EventInput


def _count(*, events: Sequence[EventInput], backfill: bool = False) -> int:
    return len(events)


views.ingest_events = _count
