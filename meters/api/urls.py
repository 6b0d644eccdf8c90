from django.urls import path, register_converter

from meters.api import corrections, usage, views


class AnythingConverter:
    """A whole event id: slashes, spaces, also line breaks (Django's own `path` stops at those)."""

    regex = r"(?s:.+)"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(AnythingConverter, "anything")

urlpatterns = [
    path("events", views.EventsView.as_view()),
    path("events/ingest", views.IngestView.as_view()),
    path("events/void", corrections.BulkVoidView.as_view()),
    path("events/<anything:event_id>/void", corrections.EventVoidView.as_view()),
    path("events/<anything:event_id>/verdicts", corrections.EventVerdictsView.as_view()),
    path("events/<anything:event_id>", views.EventView.as_view()),
    path("meters", views.MetersView.as_view()),
    path("meters/preview", usage.MeterPreviewView.as_view()),
    path("meters/<str:meter_id>", views.MeterView.as_view()),
    path("meters/<str:meter_id>/unarchive", views.MeterUnarchiveView.as_view()),
    path("meters/<str:meter_id>/usage", usage.MeterUsageView.as_view()),
    path("meters/<str:meter_id>/activity", usage.MeterActivityView.as_view()),
]
