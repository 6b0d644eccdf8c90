"""Credit notes: numbered documents that are read and never edited; they are given from the invoice's page."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path, reverse
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, ChoicesDropdownFilter, RangeDateFilter
from unfold.decorators import display

from billing.documents import credit_note_document, render_credit_note_pdf
from billing.models import BalanceEntry, CreditNote, GrantEntry
from customers.admin.base import PageAdmin, link_action
from customers.admin.formats import day, money


@admin.register(CreditNote)
class CreditNoteAdmin(PageAdmin):
    page_template = "admin/billing/creditnote/page.html"
    list_display = ("number", "invoice_shown", "customer_shown", "issued", "cause_shown", "total_money")
    list_display_links = ("number",)
    list_select_related = ("invoice", "customer")
    search_fields = ("number", "public_id", "invoice__number", "customer__name", "customer__public_id")
    list_filter = (
        ("cause", ChoicesDropdownFilter),
        ("currency", AllValuesCheckboxFilter),
        ("issued_at", RangeDateFilter),
    )
    list_filter_submit = True
    actions = None
    actions_detail = ("pdf",)
    empty_state = (
        "No credit note yet",
        "Open an invoice and choose “Credit note” to give back all of it, some lines, or an amount.",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description="Invoice", ordering="invoice__number")
    def invoice_shown(self, obj: Any) -> str:
        return str(obj.invoice)

    @display(description="Customer", ordering="customer__name")
    def customer_shown(self, obj: Any) -> str:
        return str(obj.invoice.customer_name)

    @display(description="Issued", ordering="issued_at")
    def issued(self, obj: Any) -> str:
        return day(obj.issued_at)

    @display(description="Cause", ordering="cause")
    def cause_shown(self, obj: Any) -> str:
        return str(obj.get_cause_display())

    @display(description="Given back", ordering="total")
    def total_money(self, obj: Any) -> str:
        credit = f" + {money(obj.credit, obj.currency)} prepaid" if obj.credit else ""
        return f"{money(obj.total, obj.currency)}{credit}"

    def get_urls(self) -> list[Any]:
        return [
            path(
                "<path:object_id>/credit-note.pdf",
                self.admin_site.admin_view(self.pdf_view),
                name="billing_creditnote_document",
            ),
            *super().get_urls(),
        ]

    def pdf_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        note = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, note):
            raise PermissionDenied
        if note is None:
            raise Http404("There is no such credit note.")
        return HttpResponse(
            render_credit_note_pdf(note=note),
            content_type="application/pdf",
            headers={"Content-Disposition": f'inline; filename="{note}.pdf"', "Cache-Control": "no-store"},
        )

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        return {
            "document": credit_note_document(note=obj),
            "lines": list(obj.lines.select_related("invoice_line").order_by("position")),
            "moved": [
                *BalanceEntry.objects.filter(credit_note=obj).select_related("balance"),
                *GrantEntry.objects.filter(credit_note=obj).select_related("grant").order_by("pk"),
            ],
            "pdf_url": reverse("admin:billing_creditnote_document", args=[quote(obj.pk)]),
        }

    @link_action(title="PDF", permission="view", icon="picture_as_pdf")
    def pdf(self, request: HttpRequest, object_id: str) -> str:
        return reverse("admin:billing_creditnote_document", args=[object_id])
