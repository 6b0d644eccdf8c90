"""The event log: looked through, never changed, and never counted as a whole."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.contrib.filters.admin import RangeDateTimeFilter, TextFilter
from unfold.decorators import display

from customers.admin.base import UncountedAdmin, with_query
from customers.admin.formats import as_sent, link, moment
from customers.customers import CustomerNotFound, get_customer
from meters.events import exact_metadata
from meters.ingestion import event_key
from meters.models import Event, EventKey, Meter
from meters.usage import meter_verdict


class CustomerFilter(TextFilter):
    title = "customer id"
    parameter_name = "customer"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        if not self.value():
            return queryset
        try:
            return queryset.filter(customer=get_customer(customer_id=str(self.value()).strip()))
        except CustomerNotFound:
            return queryset.none()


class EventNameFilter(TextFilter):
    title = "event name, exactly"
    parameter_name = "event_name"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        value = self.value()
        return queryset.filter(event_name=value) if value and "\0" not in value else queryset


@admin.register(Event)
class EventAdmin(UncountedAdmin):
    page_template = "admin/meters/event/page.html"
    list_display = ("event_id_shown", "event_name_shown", "customer_shown", "when", "received", "carries")
    list_display_links = ("event_id_shown",)
    list_select_related = ("customer",)
    list_filter = (EventNameFilter, CustomerFilter, ("timestamp", RangeDateTimeFilter))
    list_filter_submit = True
    search_fields = ("event_id",)
    search_help_text = "An event id, whole and exactly"
    sortable_by = ()
    ordering = ("-timestamp", "-id")
    actions = None
    list_per_page = 50
    empty_state = (
        "No event yet",
        "Events appear here the moment your application has sent them. Each meter's page has the lines to send one.",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        """By event id through the table of keys: one look-up, however long the log is."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            place = EventKey.objects.filter(key=event_key(term)).first()
        except UnicodeEncodeError:
            place = None
        if place is None:
            return queryset.none(), False
        return queryset.filter(pk=place.event, timestamp=place.timestamp), False

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        metadata = exact_metadata([obj]).get(obj.pk)
        meters = list(Meter.objects.filter(event_name=obj.event_name).order_by("name"))
        others = list(Meter.objects.filter(event_name__iexact=obj.event_name).exclude(event_name=obj.event_name))
        return {
            "metadata": [(key, as_sent(value), _kind(value)) for key, value in (metadata or {}).items()],
            "verdicts": [(meter, meter_verdict(meter=meter, event=obj)) for meter in meters],
            "nearly": others,
            "same_name_url": with_query(self.list_url(), event_name=obj.event_name),
            "same_customer_url": with_query(self.list_url(), customer=obj.customer.public_id),
        }

    @display(description="Event id")
    def event_id_shown(self, obj: Event) -> str:
        return format_html('<span class="mb-mono">{}</span>', _short(obj.event_id, 44))

    @display(description="Name")
    def event_name_shown(self, obj: Event) -> str:
        return format_html('<span class="mb-mono">{}</span>', _short(obj.event_name, 40))

    @display(description="Customer")
    def customer_shown(self, obj: Event) -> str:
        return link(reverse("admin:customers_customer_change", args=[obj.customer_id]), obj.customer.name)

    @display(description="Happened")
    def when(self, obj: Event) -> str:
        return moment(obj.timestamp)

    @display(description="Received")
    def received(self, obj: Event) -> str:
        return moment(obj.received_at)

    @display(description="Metadata")
    def carries(self, obj: Event) -> str:
        pairs = [f"{key}: {as_sent(value)}" for key, value in list((obj.metadata or {}).items())[:4]]
        return format_html('<span class="mb-code mb-soft">{}</span>', _short(", ".join(pairs) or "–", 70))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true/false"
    return "text" if isinstance(value, str) else "number"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
