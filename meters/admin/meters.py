"""Meters: made once, watched on a page of their own, archived, never edited in what they count."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from billing.models import Price
from billing.reports import activity_by_name, last_days
from customers.admin.archive import ArchivedTabs, archive_command, unarchive_command
from customers.admin.base import command, link_action, with_query
from customers.admin.charts import Series, ranked, sparkline, time_chart
from customers.admin.formats import ago, badge
from customers.errors import DomainError
from customers.models import Customer
from meters.admin.forms import (
    OPERATORS,
    MeterForm,
    MeterTextsForm,
    MeterTrialForm,
    TestEventForm,
    sample_metadata,
)
from meters.admin.samples import as_curl, as_python, as_typescript, event_payload
from meters.ingestion import EventInput, enter_ingestion, store_events
from meters.meters import archive_meter, build_meter, create_meter, unarchive_meter, update_meter
from meters.models import Event, Meter
from meters.partitions import MonthArchived
from meters.preview import preview_meter
from meters.usage import (
    CustomerQuantity,
    DayQuantity,
    customer_quantities,
    daily_quantities,
    event_volume,
    meter_activity,
    meter_verdicts,
)

SPANS = (7, 30, 90)
SPARK_DAYS = 14
PREVIEW_DAYS = 30


@admin.register(Meter)
class MeterAdmin(ArchivedTabs):
    add_form = MeterForm
    edit_form = MeterTextsForm
    add_title = "Create meter"
    add_submit = "Create meter"
    form_template = "admin/meters/meter/form.html"
    page_template = "admin/meters/meter/page.html"
    list_display = (
        "name",
        "event_name_shown",
        "counts",
        "last_14_days",
        "events_number",
        "last_event",
        "status",
    )
    list_display_links = ("name",)
    search_fields = ("name", "event_name", "public_id")
    list_filter = (("aggregation", ChoicesDropdownFilter),)
    list_filter_submit = True
    list_per_page = 25
    list_tabs = (("", "In use"), ("archived", "Archived"), ("all", "All"))
    list_tab_parameter = "show"
    actions_detail = ("edit_details", "send_test_event", "archive", "unarchive")
    empty_state = (
        "No meter yet",
        "A meter turns your application's events into a quantity to bill: calls, tokens, gigabytes.",
    )

    # -- permissions -----------------------------------------------------------------------------------------

    def has_send_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "add_meter")

    # -- list --------------------------------------------------------------------------------------------------

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """The page's meters with their activity, read in one statement."""
        changelist = super().get_changelist_instance(request)
        meters = list(changelist.result_list)
        now = timezone.now()
        days = last_days(now=now, count=SPARK_DAYS, time_zone=settings.BILLING_TIME_ZONE)
        found = activity_by_name(
            names=[m.event_name for m in meters], now=now, days=days, time_zone=settings.BILLING_TIME_ZONE
        )
        for meter in meters:
            meter.activity = found[meter.event_name]
        changelist.result_list = meters
        return changelist

    @display(description="Event name", ordering="event_name")
    def event_name_shown(self, obj: Any) -> str:
        return format_html('<span class="mb-mono">{}</span>', obj.event_name)

    @display(description="Counts", ordering="aggregation")
    def counts(self, obj: Any) -> str:
        return definition_in_words(obj)

    @display(description="14 days")
    def last_14_days(self, obj: Any) -> str:
        return format_html(
            '<svg class="mb-spark" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label="{}">'
            '<polyline class="mb-path" points="{}"/></svg>',
            f"{sum(obj.activity.by_day)} events in {SPARK_DAYS} days",
            sparkline(obj.activity.by_day),
        )

    @display(description="Events, 24 h")
    def events_number(self, obj: Any) -> str:
        return f"{obj.activity.last_24_hours:,}"

    @display(description="Last event")
    def last_event(self, obj: Any) -> str:
        return ago(obj.activity.last_event_at) if obj.activity.last_event_at else f"none in {SPARK_DAYS} days"

    @display(description="Status", ordering="archived_at")
    def status(self, obj: Any) -> str:
        return badge("archived") if obj.is_archived() else badge("active")

    # -- forms -------------------------------------------------------------------------------------------------

    def create(self, request: HttpRequest, form: Any) -> Meter:
        data = form.cleaned_data
        return create_meter(
            name=data["name"],
            measurement_unit=data["measurement_unit"],
            description=data["description"] or None,
            **form.definition(),
        )

    def edit(self, request: HttpRequest, obj: Any, form: Any) -> None:
        data = form.cleaned_data
        update_meter(
            meter=obj,
            name=data["name"],
            measurement_unit=data["measurement_unit"],
            description=data["description"] or None,
        )

    def form_context(self, request: HttpRequest, form: Any, obj: Any) -> Mapping[str, Any]:
        customer = Customer.objects.order_by("-created_at", "-id").values_list("public_id", flat=True).first()
        return {
            "operators": [{"value": str(value), "label": label} for value, label in OPERATORS],
            "ingest_url": f"{settings.BASE_URL}/events/ingest",
            "sample_customer": customer or "cus_abc123",
            "preview_url": reverse("admin:meters_meter_preview"),
        }

    def get_urls(self) -> list[Any]:
        return [
            path("preview/", self.admin_site.admin_view(self.preview_view), name="meters_meter_preview"),
            *super().get_urls(),
        ]

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """The part of the form's page that tells what the meter would have given. Nothing is saved."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = MeterTrialForm(request.POST, request=request)
        context: dict[str, Any] = {"form": form, "unit": request.POST.get("measurement_unit", "").strip()[:100]}
        if form.is_valid():
            zone = settings.BILLING_TIME_ZONE
            try:
                meter = build_meter(name="Preview", measurement_unit="units", **form.definition())
                preview = preview_meter(definition=meter, days=PREVIEW_DAYS, now=timezone.now(), time_zone=zone)
            except DomainError as error:
                form.add_error(None, error.message)
            else:
                context |= {
                    "preview": preview,
                    "chart": time_chart(
                        title="Quantity by day",
                        days=[day.day for day in preview.days],
                        series=[Series("Quantity", [day.quantity for day in preview.days], "bar")],
                        unit=context["unit"],
                    ),
                    "examples": [*preview.counted, *preview.left_out],
                }
        return TemplateResponse(request, "admin/meters/meter/_preview.html", context)

    # -- the page ----------------------------------------------------------------------------------------------

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        now = timezone.now()
        zone = settings.BILLING_TIME_ZONE
        try:
            length = int(request.GET.get("days", ""))
        except ValueError:
            length = 30
        length = length if length in SPANS else 30
        span = last_days(now=now, count=length, time_zone=zone)
        before = last_days(now=now, count=length, time_zone=zone, back=length)
        volume = event_volume(start=span.start, end=span.end, time_zone=zone, event_name=obj.event_name)
        earlier = event_volume(start=before.start, end=before.end, time_zone=zone, event_name=obj.event_name)
        quantities: list[DayQuantity] = []
        consumers: list[CustomerQuantity] = []
        try:
            quantities = daily_quantities(meter=obj, start=span.start, end=span.end, time_zone=zone)
            consumers = customer_quantities(meter=obj, start=span.start, end=span.end, limit=10)
        except MonthArchived as error:
            messages.warning(request, error.message)
        activity = meter_activity(meter=obj, start=span.start, end=span.end)
        events = list(
            Event.objects.filter(event_name=obj.event_name, timestamp__lt=now + timedelta(minutes=10))
            .select_related("customer")
            .order_by("-timestamp", "-id")[:20]
        )
        sample = event_payload(
            event_name=obj.event_name,
            metadata=sample_metadata(obj),
            customer_id=Customer.objects.order_by("-created_at", "-id").values_list("public_id", flat=True).first()
            or "cus_abc123",
        )
        now_events, earlier_events = sum(d.events for d in volume), sum(d.events for d in earlier)
        return {
            "length": length,
            "span_tabs": [
                {
                    "label": f"{n} days",
                    "url": with_query(self.page_url(obj), days=n),
                    "active": n == length,
                }
                for n in SPANS
            ],
            "definition": definition_in_words(obj),
            "conditions": filter_in_words(obj.filter),
            "activity": activity,
            "left_out": activity.seen - activity.counted,
            "trend": trend(now_events, earlier_events, length),
            "now_events": now_events,
            "volume_chart": time_chart(
                title=f"Events named {obj.event_name}",
                days=[d.day for d in volume],
                series=[
                    Series(f"Last {length} days", [Decimal(d.events) for d in volume]),
                    Series(f"The {length} days before", [Decimal(d.events) for d in earlier], "dotted", "4"),
                ],
                unit="events",
                whole_numbers=True,
            ),
            "quantity_chart": time_chart(
                title=f"{obj.name} by day",
                days=[d.day for d in quantities],
                series=[Series(obj.measurement_unit, [d.quantity for d in quantities], "bar")],
                unit=obj.measurement_unit,
            ),
            "consumers": ranked(
                caption=f"Usage per customer, last {length} days",
                label_head="Customer",
                value_head=obj.measurement_unit.capitalize(),
                rows=[
                    (
                        used.customer.name,
                        used.quantity,
                        reverse("admin:customers_customer_change", args=[used.customer.pk]),
                    )
                    for used in consumers
                ],
                notes=[f"{used.events:,} events" for used in consumers],
                note_head="From",
                empty="No customer has used this meter in this time.",
            ),
            "events": list(zip(events, meter_verdicts(meter=obj, events=events), strict=True)),
            "events_url": with_query(reverse("admin:meters_event_changelist"), event_name=obj.event_name),
            "prices": list(
                Price.objects.filter(charges__meter=obj, product__archived_at__isnull=True)
                .select_related("product")
                .order_by("product__name", "-version")[:20]
            ),
            "curl": as_curl(sample),
            "python": as_python(sample),
            "typescript": as_typescript(sample),
        }

    # -- what can be done --------------------------------------------------------------------------------------

    @link_action(title="Edit texts", permission="change", icon="edit")
    def edit_details(self, request: HttpRequest, object_id: str) -> str:
        return reverse("admin:meters_meter_edit", args=[object_id])

    @command(
        title="Send a test event",
        permission="send",
        icon="send",
        explain=lambda meter: (
            f"Stores one event named {meter.event_name}, now, as if an application had sent it. "
            "It is a real event: it counts, and it is billed like any other."
        ),
        submit="Send it",
        form_class=TestEventForm,
        own_page=True,
    )
    def send_test_event(self, request: HttpRequest, obj: Meter, form: Any) -> None:
        data = form.cleaned_data
        event = EventInput(
            event_id=data["event_id"],
            customer_id=data["customer"].public_id,
            event_name=obj.event_name,
            metadata=data["metadata"] or None,
        )
        with transaction.atomic():
            stored = store_events(events=[event], now=enter_ingestion())
        if not stored:
            raise DomainError("This event id is in the log already; each counts once.")
        self.log_change(request, obj, f"Sent the test event {event.event_id}.")
        found = Event.objects.filter(
            event_id=event.event_id, timestamp__gte=timezone.now() - timedelta(hours=1)
        ).first()
        verdict = meter_verdicts(meter=obj, events=[found])[0] if found else None
        if verdict is None or verdict.counted:
            messages.success(request, f"Stored. {verdict.reason if verdict else ''}")
        else:
            messages.warning(request, f"Stored, but this meter does not count it. {verdict.reason}")

    archive = archive_command(
        noun="meter",
        explain="No new product can use it. Products and subscriptions that have it go on, and so does counting. "
        "You can bring it back at any time.",
        do=lambda meter, now: archive_meter(meter=meter, now=now),
    )
    unarchive = unarchive_command(
        noun="meter",
        explain="New products can use it again.",
        do=lambda meter: unarchive_meter(meter=meter),
        again="in use",
    )


def definition_in_words(meter: Any) -> str:
    """What one period of it is: "sum of tokens"."""
    words = {
        "count": "number of events",
        "sum": "sum of {}",
        "max": "highest {}",
        "last": "latest {}",
        "unique": "number of different {}",
        "min": "lowest {}",
        "avg": "average of {}",
        "weighted_sum": "{} times the hours it held",
    }
    return words[meter.aggregation].format(meter.property_key) + (", filtered" if meter.filter else "")


def filter_in_words(node: Any) -> list[str]:
    """The filter as lines, nested groups indented by a dash."""
    labels = {str(value): label for value, label in OPERATORS}

    def lines(node: Mapping[str, Any], depth: int) -> list[str]:
        joiner = "all of" if node["conjunction"] == "and" else "any of"
        found = [f"{'— ' * depth}{joiner}:"]
        for clause in node["clauses"]:
            if "clauses" in clause:
                found += lines(clause, depth + 1)
            else:
                value = clause["value"]
                shown = ("true" if value else "false") if isinstance(value, bool) else value
                found.append(f"{'— ' * (depth + 1)}{clause['key']} {labels[clause['operator']]} “{shown}”")
        return found

    return lines(node, 0) if isinstance(node, Mapping) else []


def trend(now_events: int, earlier: int, length: int) -> str:
    """The change against the time before, in words; no percentage is made of nothing."""
    if not earlier:
        return f"nothing in the {length} days before" if now_events else "nothing yet"
    change = (Decimal(now_events) - earlier) * 100 / earlier
    rounded = int(change.to_integral_value())
    if rounded == 0:
        return f"as many as in the {length} days before ({earlier:,})"
    return f"{abs(rounded):,} % {'more' if rounded > 0 else 'fewer'} than in the {length} days before ({earlier:,})"
