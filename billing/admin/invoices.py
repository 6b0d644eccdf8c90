"""Invoices: read as the customer reads them, marked paid, made void; never edited, never deleted."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path, reverse
from django.utils import timezone
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, ChoicesDropdownFilter, RangeDateFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from billing.admin.payments import payment_badge
from billing.documents import invoice_document, render_pdf
from billing.invoices import mark_paid, void_invoice
from billing.models import Invoice, InvoiceStatus
from billing.money import format_amount, format_unit_price, plain
from customers.admin.base import CommandForm, PageAdmin, command, link_action
from customers.admin.formats import badge, day, grouped, money
from customers.admin.forms import long_text


class PaidForm(CommandForm):
    note = long_text(
        "How the money came (optional)", help_text="A transfer's reference, a cheque's number.", max_length=2000
    )


class VoidForm(CommandForm):
    reason = long_text("Why is it void?", required=True, help_text="Stands on the invoice.", max_length=2000)


@admin.register(Invoice)
class InvoiceAdmin(PageAdmin):
    page_template = "admin/billing/invoice/page.html"
    list_display = ("number_shown", "customer_shown", "status_shown", "issued", "due", "total_money")
    list_display_links = ("number_shown",)
    list_select_related = ("customer",)
    search_fields = ("number", "public_id", "customer_name", "customer__public_id", "customer__email")
    list_filter = (
        ("reason", ChoicesDropdownFilter),
        ("currency", AllValuesCheckboxFilter),
        ("issued_at", RangeDateFilter),
    )
    list_filter_submit = True
    ordering = ("-issued_at", "-id")
    actions = None
    list_tabs = (
        ("", "All"),
        ("open", "Open"),
        ("overdue", "Overdue"),
        ("paid", "Paid"),
        ("void", "Void"),
    )
    actions_detail = ("pdf", "pay", "void")
    empty_state = (
        "No invoice yet",
        "The first comes with a subscription's fee, or when its first billing period closes.",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """An issued invoice never changes; what may still happen to it has commands of its own."""
        return False

    def has_pay_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "mark_paid_invoice")

    def has_void_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "void_invoice")

    # -- list --------------------------------------------------------------------------------------------------

    def in_tab(self, queryset: Any, value: str) -> Any:
        return {
            "open": queryset.filter(status=InvoiceStatus.ISSUED),
            "overdue": queryset.filter(status=InvoiceStatus.ISSUED, due_at__lt=timezone.now()),
            "paid": queryset.filter(status=InvoiceStatus.PAID),
            "void": queryset.filter(status=InvoiceStatus.VOID),
        }.get(value, queryset)

    def tab_counts(self, request: HttpRequest) -> Mapping[str, int]:
        late = Q(status=InvoiceStatus.ISSUED, due_at__lt=timezone.now())
        return Invoice.objects.aggregate(
            **{
                "": Count("pk"),
                "open": Count("pk", filter=Q(status=InvoiceStatus.ISSUED)),
                "overdue": Count("pk", filter=late),
                "paid": Count("pk", filter=Q(status=InvoiceStatus.PAID)),
                "void": Count("pk", filter=Q(status=InvoiceStatus.VOID)),
            }
        )

    @display(description="Invoice", ordering="number")
    def number_shown(self, obj: Any) -> str:
        return str(obj)

    @display(description="Customer", ordering="customer_name")
    def customer_shown(self, obj: Any) -> str:
        return str(obj.customer_name)

    @display(description="Status", ordering="status")
    def status_shown(self, obj: Any) -> Any:
        if obj.is_overdue(now=timezone.now()):
            return badge("overdue")
        return badge(obj.get_status_display(), tone_of(obj.status))

    @display(description="Issued", ordering="issued_at")
    def issued(self, obj: Any) -> str:
        return day(obj.issued_at)

    @display(description="Due", ordering="due_at")
    def due(self, obj: Any) -> str:
        return day(obj.due_at)

    @display(description="Total", ordering="total")
    def total_money(self, obj: Any) -> str:
        return money(obj.total, obj.currency)

    # -- the page ----------------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        return [
            path(
                "<path:object_id>/invoice.pdf",
                self.admin_site.admin_view(self.pdf_view),
                name="billing_invoice_document",
            ),
            *super().get_urls(),
        ]

    def pdf_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        invoice = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, invoice):
            raise PermissionDenied
        if invoice is None:
            raise Http404("There is no such invoice.")
        return HttpResponse(
            render_pdf(invoice=invoice),
            content_type="application/pdf",
            headers={
                "Content-Disposition": f'inline; filename="{invoice}.pdf"',
                "Cache-Control": "no-store",
            },
        )

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        payment = getattr(obj, "payment", None)
        lines = list(obj.lines.select_related("charge__meter", "product").order_by("position"))
        return {
            "document": invoice_document(invoice=obj),
            "overdue": obj.is_overdue(now=timezone.now()),
            "status_tone": tone_of(obj.status),
            "reckonings": [reckoning(line, obj.currency) for line in lines],
            "payment": payment,
            "payment_status": payment_badge(payment.status) if payment else "",
            "pdf_url": reverse("admin:billing_invoice_document", args=[quote(obj.pk)]),
        }

    # -- what can be done ----------------------------------------------------------------------------------------

    @link_action(title="PDF", permission="view", icon="picture_as_pdf")
    def pdf(self, request: HttpRequest, object_id: str) -> str:
        return reverse("admin:billing_invoice_document", args=[object_id])

    @command(
        title="Mark paid",
        permission="pay",
        icon="price_check",
        variant=ActionVariant.PRIMARY,
        explain=lambda invoice: (
            f"Records that {money(invoice.total, invoice.currency)} came from {invoice.customer_name}. "
            "This cannot be undone."
        ),
        form_class=PaidForm,
        available=lambda invoice: invoice.status == InvoiceStatus.ISSUED,
    )
    def pay(self, request: HttpRequest, obj: Invoice, form: Any) -> None:
        mark_paid(invoice=obj, now=timezone.now(), note=form.cleaned_data["note"])
        self.log_change(request, obj, "Marked paid.")
        messages.success(request, f"{obj} is paid.")

    @command(
        title="Void",
        permission="void",
        icon="block",
        variant=ActionVariant.DANGER,
        explain=lambda invoice: [
            f"{invoice} stays on record as void, and its number stays used. {invoice.customer_name} no longer owes "
            f"{money(invoice.total, invoice.currency)}.",
            "Nothing bills these lines again by itself. This cannot be undone.",
        ],
        submit="Make it void",
        form_class=VoidForm,
        available=lambda invoice: invoice.status == InvoiceStatus.ISSUED,
    )
    def void(self, request: HttpRequest, obj: Invoice, form: Any) -> None:
        void_invoice(invoice=obj, reason=form.cleaned_data["reason"], now=timezone.now())
        self.log_change(request, obj, "Made void.")
        messages.success(request, f"{obj} is void.")


def tone_of(status: str) -> str:
    return {"issued": "info", "paid": "good", "void": "calm"}.get(status, "calm")


def reckoning(line: Any, currency: str) -> dict[str, Any]:
    """How one line's amount came about, step by step, from what the line itself keeps."""
    return {
        "line": line,
        "text": line.explanation.get("text", ""),
        "steps": [
            ("Quantity", f"{grouped(line.quantity)} {line.measurement_unit}".strip()),
            ("Free", grouped(line.free_units)),
            ("Chargeable", grouped(line.billable_units)),
            ("Price per unit", format_unit_price(line.unit_price, currency)),
            ("Exactly", f"{plain(line.exact_amount)} in the minor unit"),
            ("Rounded once, half up", format_amount(line.amount, currency)),
        ],
    }
