"""Invoices: reviewed as drafts, read as the customer reads them, paid, credited, given up, made void; never edited."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Count, DecimalField, F, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, ChoicesDropdownFilter, RangeDateFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from billing.admin.credit_forms import CreditForm
from billing.admin.payments import payment_badge
from billing.admin.proofs import ProvesInvoices, line_links
from billing.credit_notes import CREDITABLE, ProposedCredit, credit_invoice, lines_left, owed
from billing.cycles import issue_now, refresh_draft, regenerate_invoice
from billing.documents import invoice_document, render_pdf
from billing.invoices import (
    approve_invoice,
    hold_invoice,
    mark_paid,
    mark_uncollectible,
    release_invoice,
    void_invoice,
)
from billing.models import CreditNote, Invoice, InvoiceStatus
from billing.models.invoices import OPEN
from billing.reckonings import reckonings
from customers.admin.base import CommandForm, PageAdmin, command, link_action
from customers.admin.formats import badge, day, money
from customers.admin.forms import long_text
from customers.errors import DomainError


class HoldForm(CommandForm):
    reason = long_text(
        "Why is it held?",
        required=True,
        help_text="For you and your colleagues; no customer reads it.",
        max_length=2000,
    )


class UncollectibleForm(CommandForm):
    reason = long_text(
        "Why will the money not come?", required=True, help_text="For you; no customer reads it.", max_length=2000
    )


class AgainForm(CommandForm):
    reason = long_text(
        "What was wrong with it?", required=True, help_text="Stands on the void invoice.", max_length=2000
    )


class PaidForm(CommandForm):
    note = long_text(
        "How the money came (optional)", help_text="A transfer's reference, a cheque's number.", max_length=2000
    )


class VoidForm(CommandForm):
    reason = long_text("Why is it void?", required=True, help_text="Stands on the invoice.", max_length=2000)


@admin.register(Invoice)
class InvoiceAdmin(ProvesInvoices, PageAdmin):
    page_template = "admin/billing/invoice/page.html"
    list_display = ("number_shown", "customer_shown", "status_shown", "issued", "due_on", "total_money", "asked_money")
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
        ("draft", "Drafts"),
        ("held", "Held"),
        ("open", "Open"),
        ("overdue", "Overdue"),
        ("paid", "Paid"),
        ("uncollectible", "Uncollectible"),
        ("void", "Void"),
    )
    actions_detail = (
        "pdf",
        "verify",
        "pay",
        "issue",
        "approve",
        "release",
        "hold",
        "refresh",
        "credit",
        "give_up",
        "void",
        "bill_again",
    )
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

    def has_issue_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "issue_invoice")

    def has_credit_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "credit_invoice")

    def has_void_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Also to give one up, and to bill it again."""
        return self.may(request, "void_invoice")

    # -- list --------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> Any:
        """With `asked`: what an open invoice still asks for, in the list's one query."""
        noted = CreditNote.objects.filter(invoice=OuterRef("pk")).values("invoice").annotate(all=Sum("to_invoice"))
        none = Value(0, output_field=DecimalField(max_digits=30, decimal_places=0))
        return super().get_queryset(request).annotate(asked=F("due") - Coalesce(Subquery(noted.values("all")), none))

    def in_tab(self, queryset: Any, value: str) -> Any:
        return queryset.filter(_TABS[value]()) if value in _TABS else queryset

    def tab_counts(self, request: HttpRequest) -> Mapping[str, int]:
        tabs = {value: Count("pk", filter=condition()) for value, condition in _TABS.items()}
        return Invoice.objects.aggregate(**{"": Count("pk"), **tabs})

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
        if obj.status == InvoiceStatus.DRAFT and obj.held_at is not None:
            return badge("held", "warn")
        return badge(obj.get_status_display(), tone_of(obj.status))

    @display(description="Issued", ordering="issued_at")
    def issued(self, obj: Any) -> str:
        return day(obj.issued_at)

    @display(description="Due", ordering="due_at")
    def due_on(self, obj: Any) -> str:
        return day(obj.due_at)

    @display(description="Total", ordering="total")
    def total_money(self, obj: Any) -> str:
        return money(obj.total, obj.currency)

    @display(description="Still asked for")
    def asked_money(self, obj: Any) -> str:
        return money(obj.asked if obj.status in OPEN else None, obj.currency)

    # -- the page ----------------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        return [
            path(
                "<path:object_id>/invoice.pdf",
                self.admin_site.admin_view(self.pdf_view),
                name="billing_invoice_document",
            ),
            path(
                "<path:object_id>/credit-note/",
                self.admin_site.admin_view(self.credit_view),
                name="billing_invoice_credit_note",
            ),
            *self.proof_urls(),
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
        lines = obj.lines.select_related("charge__meter", "charge__price__product", "product").order_by("position")
        return {
            "document": invoice_document(invoice=obj),
            "overdue": obj.is_overdue(now=timezone.now()),
            "status_tone": tone_of(obj.status),
            "reckonings": reckonings(lines, currency=obj.currency),
            "event_links": line_links(lines) if self.may(request, "view_event", app="meters") else {},
            "payment": payment,
            "payment_status": payment_badge(payment.status) if payment else "",
            "notes": list(obj.credit_notes.order_by("issued_at", "pk")),
            "replaced_by": Invoice.objects.filter(replaces=obj).first(),
            "pdf_url": reverse("admin:billing_invoice_document", args=[quote(obj.pk)]),
        }

    # -- a credit note -------------------------------------------------------------------------------------------

    def credit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask what to credit, show what that gives back, and give it back once that was seen."""
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "POST"])
        if not self.has_credit_permission(request):
            raise PermissionDenied
        invoice = self.get_object(request, unquote(object_id))
        if invoice is None:
            raise Http404("There is no such invoice.")
        form = CreditForm(
            request.POST if request.method == "POST" else None,
            request=request,
            obj=invoice,
            left=lines_left(invoice) if invoice.status in CREDITABLE else [],
        )
        preview = None
        if request.method == "POST" and form.is_valid():
            try:
                proposed = form.proposed()
                if form.is_confirmed(proposed):
                    return self._credit(request, invoice, form, proposed)
                preview = form.preview(proposed)
            except DomainError as error:
                form.add_error(None, error.message)
        return TemplateResponse(
            request,
            "admin/billing/invoice/credit.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": invoice,
                "title": f"Credit note for {invoice}",
                "form": form,
                "preview": preview,
                "submit": "Look again" if preview else "Show what it gives back",
                "asked": money(owed(invoice), invoice.currency),
                "below_zero": invoice.lines.filter(amount__lt=0).exists(),
                "back_url": self.page_url(invoice),
                "media": form.media,
            },
        )

    def _credit(self, request: HttpRequest, invoice: Invoice, form: CreditForm, seen: ProposedCredit) -> HttpResponse:
        note = credit_invoice(
            invoice=invoice,
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
            by=request.user.get_username(),
            seen=seen,
            **form.what(),
        )
        self.log_change(request, invoice, f"Credited by {note}.")
        messages.success(request, f"{note} gives back {money(note.total, note.currency)} of {invoice}.")
        return HttpResponseRedirect(reverse("admin:billing_creditnote_change", args=[note.pk]))

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
            f"Records that {money(owed(invoice), invoice.currency)} came from {invoice.customer_name}. "
            "This cannot be undone."
        ),
        form_class=PaidForm,
        available=lambda invoice: invoice.status in OPEN,
    )
    def pay(self, request: HttpRequest, obj: Invoice, form: Any) -> None:
        mark_paid(invoice=obj, now=timezone.now(), note=form.cleaned_data["note"])
        self.log_change(request, obj, "Marked paid.")
        messages.success(request, f"{obj} is paid.")

    @command(
        title="Issue now",
        permission="issue",
        icon="send",
        variant=ActionVariant.PRIMARY,
        explain=lambda invoice: [
            f"{invoice.customer_name} gets the invoice now, with the usage as it is now, and is asked for the money.",
            "It gets the next number and never changes again.",
        ],
        available=lambda invoice: invoice.status == InvoiceStatus.DRAFT and invoice.held_at is None,
    )
    def issue(self, request: HttpRequest, obj: Invoice, form: Any) -> None:
        issue_now(invoice=obj, now=timezone.now())
        self.log_change(request, obj, "Issued before its time.")
        messages.success(request, f"{obj} is issued.")

    @command(
        title="Approve",
        permission="issue",
        icon="verified",
        explain="You have looked at the draft. It is issued by itself when its time comes, also if it was held.",
        available=lambda invoice: (
            invoice.status == InvoiceStatus.DRAFT and (invoice.approved_at is None or invoice.held_at is not None)
        ),
    )
    def approve(self, request: HttpRequest, obj: Invoice, form: Any) -> None:
        approve_invoice(invoice=obj, by=request.user.get_username(), now=timezone.now())
        self.log_change(request, obj, "Approved.")
        messages.success(request, "The draft is approved.")

    @command(
        title="Release",
        permission="issue",
        icon="lock_open",
        explain="It is issued by itself when its time comes.",
        available=lambda invoice: invoice.status == InvoiceStatus.DRAFT and invoice.held_at is not None,
    )
    def release(self, request: HttpRequest, obj: Invoice, form: Any) -> None:
        release_invoice(invoice=obj, now=timezone.now())
        self.log_change(request, obj, "Released.")
        messages.success(request, "The draft is no longer held.")

    @command(
        title="Hold",
        permission="issue",
        icon="lock",
        explain="It stays a draft until somebody releases or approves it.",
        form_class=HoldForm,
        available=lambda invoice: invoice.status == InvoiceStatus.DRAFT and invoice.held_at is None,
    )
    def hold(self, request: HttpRequest, obj: Invoice, form: Any) -> None:
        hold_invoice(invoice=obj, reason=form.cleaned_data["reason"], now=timezone.now())
        self.log_change(request, obj, "Held.")
        messages.success(request, "The draft is held.")

    @command(
        title="Take in usage",
        permission="issue",
        icon="sync",
        explain="Makes the draft's lines anew from the usage, discounts, credit and taxes as they are now.",
        submit="Take it in",
        available=lambda invoice: invoice.status == InvoiceStatus.DRAFT,
    )
    def refresh(self, request: HttpRequest, obj: Invoice, form: Any) -> None:
        refresh_draft(invoice=obj, now=timezone.now())
        messages.success(request, "The draft is as the usage is now.")

    @link_action(
        title="Credit note",
        permission="credit",
        icon="undo",
        available=lambda invoice: invoice.status in CREDITABLE,
    )
    def credit(self, request: HttpRequest, object_id: str) -> str:
        return reverse("admin:billing_invoice_credit_note", args=[object_id])

    @command(
        title="Give up",
        permission="void",
        icon="money_off",
        explain=lambda invoice: (
            f"Nobody expects the {money(owed(invoice), invoice.currency)} from {invoice.customer_name} any more. "
            "It stays billed, the customer still reads it as open, and it can still be paid or credited."
        ),
        submit="Mark uncollectible",
        form_class=UncollectibleForm,
        available=lambda invoice: invoice.status == InvoiceStatus.ISSUED,
    )
    def give_up(self, request: HttpRequest, obj: Invoice, form: Any) -> None:
        mark_uncollectible(invoice=obj, reason=form.cleaned_data["reason"], now=timezone.now())
        self.log_change(request, obj, "Marked uncollectible.")
        messages.success(request, f"{obj} is uncollectible.")

    @command(
        title="Void",
        permission="void",
        icon="block",
        variant=ActionVariant.DANGER,
        explain=lambda invoice: [
            f"{invoice} stays on record as void, and its number stays used. {invoice.customer_name} no longer owes "
            f"{money(owed(invoice), invoice.currency)}; prepaid credit and balance it used are given back.",
            "Nothing bills these lines again by itself. This cannot be undone.",
        ],
        submit="Make it void",
        form_class=VoidForm,
        available=lambda invoice: can_be_void(invoice),
    )
    def void(self, request: HttpRequest, obj: Invoice, form: Any) -> None:
        void_invoice(invoice=obj, reason=form.cleaned_data["reason"], now=timezone.now())
        self.log_change(request, obj, "Made void.")
        messages.success(request, f"{obj} is void.")

    @command(
        title="Void and bill again",
        permission="void",
        icon="restart_alt",
        variant=ActionVariant.DANGER,
        explain=lambda invoice: [
            f"{invoice} stays on record as void. What it billed is billed anew, with the usage, prices and taxes as "
            "they are now, on an invoice with a number of its own.",
            "This cannot be undone.",
        ],
        form_class=AgainForm,
        available=lambda invoice: can_be_void(invoice) and invoice.lines.filter(subscription__isnull=False).exists(),
    )
    def bill_again(self, request: HttpRequest, obj: Invoice, form: Any) -> str:
        made = regenerate_invoice(invoice=obj, reason=form.cleaned_data["reason"], now=timezone.now())
        self.log_change(request, obj, "Made void and billed again.")
        messages.success(request, f"{obj} is void; {made} bills it anew.")
        return self.page_url(made)


def can_be_void(invoice: Invoice) -> bool:
    """Only decides whether the button is offered: an invoice that money was paid for, or credited, is not."""
    return (invoice.status in OPEN or invoice.is_paid_without_money()) and not invoice.credit_notes.exists()


_TABS = {
    "draft": lambda: Q(status=InvoiceStatus.DRAFT),
    "held": lambda: Q(status=InvoiceStatus.DRAFT, held_at__isnull=False),
    "open": lambda: Q(status=InvoiceStatus.ISSUED),
    "overdue": lambda: Q(status=InvoiceStatus.ISSUED, due_at__lt=timezone.now()),
    "paid": lambda: Q(status=InvoiceStatus.PAID),
    "uncollectible": lambda: Q(status=InvoiceStatus.UNCOLLECTIBLE),
    "void": lambda: Q(status=InvoiceStatus.VOID),
}


def tone_of(status: str) -> str:
    return {"issued": "info", "paid": "good", "uncollectible": "warn"}.get(status, "calm")
