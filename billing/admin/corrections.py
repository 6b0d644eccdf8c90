"""Corrections: what changed in periods that are billed, before it is billed; and what was ignored."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, RangeDateFilter
from unfold.decorators import display

from billing.corrections import PendingCorrection, events_behind, pending_corrections
from billing.models import Corrections, IgnoredCorrection
from customers.admin.base import PageAdmin, with_query
from customers.admin.formats import moment, money, quantity, span

# So many periods are rated for the page, and so many events named beside each.
MOST_RATED = 200
EVENTS_NAMED = 3


@admin.register(IgnoredCorrection)
class IgnoredCorrectionAdmin(PageAdmin):
    """The list of what was ignored, and beside it the page of what is pending."""

    page_template = "admin/billing/ignoredcorrection/page.html"
    list_display = ("found", "customer_shown", "what", "period_shown", "units", "effect")
    list_display_links = ("found",)
    list_select_related = ("charge__meter", "period__subscription__customer", "period__subscription__price__product")
    search_fields = (
        "period__subscription__customer__name",
        "period__subscription__customer__public_id",
        "period__subscription__public_id",
        "charge__meter__name",
    )
    list_filter = (("currency", AllValuesCheckboxFilter), ("found_at", RangeDateFilter))
    list_filter_submit = True
    actions = None
    empty_state = (
        "Nothing was ignored",
        "A product may leave late usage of billed periods unbilled. What that comes to is recorded here, once.",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # -- what is pending ---------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        return [
            path("pending/", self.admin_site.admin_view(self.pending_view), name="billing_ignoredcorrection_pending"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(
            request, {**(extra_context or {}), "title": "Ignored corrections", "mb_tabs": tabs("ignored")}
        )

    def pending_view(self, request: HttpRequest) -> HttpResponse:
        """What the next closings will correct, and with what effect. Changes nothing."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        now = timezone.now()
        pending = pending_corrections(limit=MOST_RATED)
        return TemplateResponse(
            request,
            "admin/billing/ignoredcorrection/pending.html",
            {
                **self.admin_site.each_context(request),
                "title": "Corrections",
                "content_title": "Corrections",
                "mb_tabs": tabs("pending"),
                "pending": pending,
                "rows": [_row(correction, now) for correction in pending.corrections],
                "most_rated": MOST_RATED,
                "now": now,
            },
        )

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        return {"what": self.what(obj), "events_url": events_url(obj.period, obj.charge)}

    # -- columns -----------------------------------------------------------------------------------------------

    @display(description="Found", ordering="found_at")
    def found(self, obj: Any) -> str:
        return moment(obj.found_at)

    @display(description="Customer", ordering="period__subscription__customer__name")
    def customer_shown(self, obj: Any) -> str:
        return str(obj.period.subscription.customer.name)

    @display(description="What")
    def what(self, obj: Any) -> str:
        return str(obj.charge.meter.name) if obj.charge else f"{obj.period.subscription.price.product}, commitment"

    @display(description="Period", ordering="period__start")
    def period_shown(self, obj: Any) -> str:
        return span(obj.period.start, obj.period.end)

    @display(description="Units")
    def units(self, obj: Any) -> str:
        return quantity(obj.quantity, obj.charge.meter.measurement_unit) if obj.charge else "–"

    @display(description="Not billed", ordering="amount")
    def effect(self, obj: Any) -> str:
        return money(obj.amount, obj.currency)


def tabs(active: str) -> list[dict[str, Any]]:
    """Pending and ignored are two pages of one entry in the menu."""
    return [
        {
            "label": label,
            "url": reverse(f"admin:billing_ignoredcorrection_{name}"),
            "active": value == active,
            "count": None,
        }
        for value, label, name in (("pending", "Pending", "pending"), ("ignored", "Ignored", "changelist"))
    ]


def _row(correction: PendingCorrection, now: datetime) -> dict[str, Any]:
    behind = events_behind(correction, limit=EVENTS_NAMED)
    charge = correction.charge
    return {
        "correction": correction,
        "what": charge.meter.name if charge else "Commitment",
        "units": quantity(correction.quantity, charge.meter.measurement_unit) if charge else "–",
        "then": _what_then(correction),
        "when": _when(correction, now),
        "behind": behind,
        "events_url": events_url(correction.period, charge),
    }


def _what_then(correction: PendingCorrection) -> str:
    """What the product does with it, in words."""
    if correction.choice == Corrections.IGNORE:
        return "is recorded and not billed"
    if correction.choice == Corrections.CREDIT_NOTE and correction.amount < 0:
        return "is given back by a credit note"
    return "becomes a line of the next invoice"


def _when(correction: PendingCorrection, now: datetime) -> datetime | None:
    """When the subscription is closed next; None where nothing but this is left to close: then at the next run."""
    following = correction.subscription.periods.filter(closed_at__isnull=True).order_by("end").first()
    if following is None:
        return None
    closes: datetime = following.end + settings.LATENESS_WINDOW
    return max(closes, now)


def events_url(period: Any, charge: Any) -> str:
    """The events of a period that its meter could count, in the log."""
    if charge is None:
        return ""
    first, last = timezone.localtime(period.start), timezone.localtime(period.end)
    return with_query(
        reverse("admin:meters_event_changelist"),
        event_name=charge.meter.event_name,
        customer=period.subscription.customer.public_id,
        timestamp_from_0=f"{first:%Y-%m-%d}",
        timestamp_from_1=f"{first:%H:%M:%S}",
        timestamp_to_0=f"{last:%Y-%m-%d}",
        timestamp_to_1=f"{last:%H:%M:%S}",
    )
