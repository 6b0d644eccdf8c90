"""Comparisons of the buckets with the log: what was looked at, and what differed."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from customers.admin.base import PageAdmin
from customers.admin.formats import badge, moment
from meters.models import Reconciliation


@admin.register(Reconciliation)
class ReconciliationAdmin(PageAdmin):
    page_template = "admin/meters/reconciliation/page.html"
    list_display = ("started", "trigger_shown", "meters", "buckets_shown", "differing_shown", "state")
    list_display_links = ("started",)
    sortable_by = ()
    list_per_page = 25
    actions = None
    empty_state = (
        "Not compared yet",
        "Every day a sample of the usage is counted again from the log. `manage.py reconcile` compares everything.",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description="Started", ordering="started_at")
    def started(self, obj: Any) -> str:
        return moment(obj.started_at)

    @display(description="By")
    def trigger_shown(self, obj: Any) -> str:
        return str(obj.get_trigger_display())

    @display(description="Compared")
    def buckets_shown(self, obj: Any) -> str:
        return f"{obj.buckets:,}"

    @display(description="Differing")
    def differing_shown(self, obj: Any) -> str:
        return f"{obj.differing:,}"

    @display(description="Result")
    def state(self, obj: Any) -> str:
        return state_badge(obj)


def state_badge(record: Reconciliation) -> str:
    if record.finished_at is None:
        return badge("not finished", "warn")
    if not record.differing:
        return badge("as the log says", "good")
    return badge("mended", "info") if record.fixed else badge("differs", "bad")
