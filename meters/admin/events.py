"""The event log: looked through, never changed, and never counted as a whole."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.contrib.filters.admin import RangeDateTimeFilter, TextFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from customers.admin.base import UncountedAdmin, command, link_action, with_query
from customers.admin.formats import as_sent, badge, link, moment
from customers.customers import CustomerNotFound, get_customer
from meters.admin.voids import VoidForm, bulk_void_view
from meters.events import exact_metadata
from meters.ingestion import event_key
from meters.models import Event, EventKey, EventVoid, Meter
from meters.usage import meter_verdict
from meters.voids import void_event


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
    list_display = ("event_id_shown", "event_name_shown", "customer_shown", "when", "received", "carries", "counts")
    list_display_links = ("event_id_shown",)
    list_select_related = ("customer",)
    list_filter = (EventNameFilter, CustomerFilter, ("timestamp", RangeDateTimeFilter))
    list_filter_submit = True
    search_fields = ("event_id",)
    search_help_text = "An event id, whole and exactly"
    sortable_by = ()
    ordering = ("-timestamp", "-id")
    actions = None
    actions_list = ("void_many",)
    actions_detail = ("void",)
    list_per_page = 50
    empty_state = (
        "No event yet",
        "Events appear here the moment your application has sent them. Each meter's page has the lines to send one.",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_void_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "void_event")

    def get_urls(self) -> list[Any]:
        def void_many(request: HttpRequest) -> HttpResponse:
            return bulk_void_view(self, request)

        return [
            path("void/", self.admin_site.admin_view(void_many), name="meters_event_void_by_filter"),
            *super().get_urls(),
        ]

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
            "void": EventVoid.objects.filter(event=obj.pk).first() if obj.voided_at else None,
            "same_name_url": with_query(self.list_url(), event_name=obj.event_name),
            "same_customer_url": with_query(self.list_url(), customer=obj.customer.public_id),
        }

    # -- what can be done --------------------------------------------------------------------------------------

    @link_action(title="Void events", permission="void", icon="block")
    def void_many(self, request: HttpRequest, object_id: str | None = None) -> str:
        return reverse("admin:meters_event_void_by_filter")

    @command(
        title="Void",
        permission="void",
        icon="block",
        variant=ActionVariant.DANGER,
        explain=(
            "The event stays in the log and counts for nothing from now on. An invoice that was issued stays as it "
            "is; the difference is an adjustment on the next one. This cannot be taken back."
        ),
        submit="Void this event",
        form_class=VoidForm,
        available=lambda event: event.voided_at is None,
    )
    def void(self, request: HttpRequest, obj: Event, form: Any) -> None:
        void_event(
            event_id=obj.event_id,
            reason=form.cleaned_data["reason"],
            author=str(request.user),
            operator=request.user,
            now=timezone.now(),
        )
        messages.success(request, f"The event “{obj}” counts for nothing from now on.")

    # -- columns -----------------------------------------------------------------------------------------------

    @display(description="Status")
    def counts(self, obj: Event) -> str:
        return badge("void", "warn") if obj.voided_at else badge("stored", "calm")

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
