"""A customer's own pages. Every look-up starts from the visiting customer, so another's id is simply not there."""

import csv
import re
from dataclasses import dataclass
from io import StringIO
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from billing.credit_notes import owed
from billing.documents import (
    credit_note_document,
    day_in_words,
    invoice_document,
    render_credit_note_pdf,
    render_pdf,
    span_in_words,
)
from billing.models import BillingPeriod, CreditNote, Invoice, InvoiceStatus, Subscription
from billing.models.invoices import OPEN
from billing.money import format_amount
from billing.proposals import UsageNotPriceable
from billing.reckonings import reckonings
from customers.portal.access import Visit, guarded, let_in, no_access, portal_page, show_out
from customers.portal.events import metered_lines
from customers.portal.holdings import balance_entries, grant_views, holdings_view, movement_views
from customers.portal.usage import csv_rows, history_views, invoice_status, plan_view
from customers.portal_links import find_portal_link

# A customer has one or two plans; whoever has more opens the others one by one.
PLANS_IN_FULL = 4
PERIODS_PER_PAGE = 12
INVOICES_PER_PAGE = 25
MOVEMENTS_PER_PAGE = 25
# No customer turns further pages than this, and an offset beyond it would only cost the database time.
LAST_PAGE = 10_000
_LARGEST_ROW = 2**63 - 1


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """An invoice in a list."""

    public_id: str
    number: str
    status: str
    status_word: str
    issued_on: str
    due_on: str
    period: str
    total: str


@dataclass(frozen=True, slots=True)
class CreditNoteRow:
    """A credit note in a list."""

    public_id: str
    number: str
    invoice_id: str
    invoice_number: str
    issued_on: str
    reason: str
    total: str


@csrf_exempt  # a refusal would log the address, and with it the token
def enter(request: HttpRequest, token: str) -> HttpResponse:
    """Exchange a link's token for a cookie and go to an address without it, whatever comes of it: no page, log line
    or Referer header after this one holds the token."""
    now = timezone.now()
    opened = request.method in ("GET", "HEAD")
    link = find_portal_link(token=token.rstrip("/"), now=now) if opened else None
    response = guarded(redirect("portal:closed" if link is None else "portal:home"))
    if link is not None:
        let_in(response, link=link, now=now)
    response["Referrer-Policy"] = "no-referrer"
    return response


def closed(request: HttpRequest) -> HttpResponse:
    return no_access(request)


def _leave(request: HttpRequest, visit: Visit) -> HttpResponse:
    response = render(request, "portal/left.html", {})
    show_out(response)
    return response


def _home(request: HttpRequest, visit: Visit) -> HttpResponse:
    mine = list(_subscriptions(visit))
    current = [subscription for subscription in mine if subscription.is_running()]
    past = [subscription for subscription in mine if not subscription.is_running()]
    plans, unpriced = [], []
    for subscription in current[:PLANS_IN_FULL]:
        try:
            plans.append(plan_view(subscription=subscription, now=visit.now))
        except UsageNotPriceable:
            unpriced.append(subscription)
    unpaid = _invoices(visit).filter(status__in=OPEN).order_by("due_at", "pk")
    return _page(
        request,
        visit,
        "portal/home.html",
        section="usage",
        plans=[plan for plan in plans if plan is not None],
        unpriced=unpriced,
        more_plans=current[PLANS_IN_FULL:],
        past_plans=past,
        unpaid=[
            (_invoice_row(invoice, visit), format_amount(owed(invoice), invoice.currency)) for invoice in unpaid[:3]
        ],
        unpaid_more=unpaid.count() > 3,
    )


def _plan(request: HttpRequest, visit: Visit, subscription_id: str) -> HttpResponse:
    subscription = get_object_or_404(_subscriptions(visit), public_id=subscription_id)
    number = _page_number(request)
    first, found, view, unpriced = number * PERIODS_PER_PAGE, [], None, []
    try:
        view = plan_view(subscription=subscription, now=visit.now)
        found = history_views(subscription=subscription, now=visit.now, offset=first, limit=PERIODS_PER_PAGE + 1)
    except UsageNotPriceable:
        unpriced = [subscription]
    history = found[:PERIODS_PER_PAGE]
    # One that was billed ahead goes on, so it still stands above.
    top = view if view is not None and (view.running or not view.closed) else None
    return _page(
        request,
        visit,
        "portal/plan.html",
        section="usage",
        plan=top,
        subscription=subscription,
        unpriced=unpriced,
        # The one above stands there with its charts.
        history=[item for item in history if not (top and item.period_id == top.period_id)],
        newer=number - 1 if number else None,
        older=number + 1 if len(found) > PERIODS_PER_PAGE else None,
    )


def _usage_csv(request: HttpRequest, visit: Visit, period_id: int) -> HttpResponse:
    period = get_object_or_404(
        BillingPeriod.objects.select_related("subscription__price", "subscription__customer"),
        pk=min(period_id, _LARGEST_ROW),
        subscription__customer=visit.customer,
    )
    text = StringIO()
    csv.writer(text).writerows(csv_rows(period=period, customer=visit.customer, now=visit.now))
    response = HttpResponse(text.getvalue(), content_type="text/csv; charset=utf-8")
    name = f"usage-{period.start:%Y-%m-%d}-to-{period.end:%Y-%m-%d}.csv"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _invoice_list(request: HttpRequest, visit: Visit) -> HttpResponse:
    number = _page_number(request)
    first = number * INVOICES_PER_PAGE
    found = list(_invoices(visit).order_by("-issued_at", "-pk")[first : first + INVOICES_PER_PAGE + 1])
    return _page(
        request,
        visit,
        "portal/invoices.html",
        section="invoices",
        invoices=[_invoice_row(invoice, visit) for invoice in found[:INVOICES_PER_PAGE]],
        # The newest; an older one stands on its invoice's page.
        notes=[_note_row(note) for note in _notes(visit)[:INVOICES_PER_PAGE]] if not number else [],
        newer=number - 1 if number else None,
        older=number + 1 if len(found) > INVOICES_PER_PAGE else None,
    )


def _invoice(request: HttpRequest, visit: Visit, invoice_id: str) -> HttpResponse:
    invoice = get_object_or_404(_invoices(visit), public_id=invoice_id)
    return _page(
        request,
        visit,
        "portal/invoice.html",
        section="invoices",
        invoice=_invoice_row(invoice, visit),
        document=invoice_document(invoice=invoice),
        notes=[_note_row(note) for note in _notes(visit).filter(invoice=invoice)],
        reckonings=reckonings(
            invoice.lines.select_related("charge__meter").order_by("position"),
            currency=invoice.currency,
            for_customer=True,
        ),
        metered=metered_lines(invoice),
    )


def _invoice_pdf(request: HttpRequest, visit: Visit, invoice_id: str) -> HttpResponse:
    invoice = get_object_or_404(_invoices(visit), public_id=invoice_id)
    return _pdf(render_pdf(invoice=invoice), invoice.number or invoice.public_id)


def _credit_note(request: HttpRequest, visit: Visit, note_id: str) -> HttpResponse:
    note = get_object_or_404(_notes(visit), public_id=note_id)
    return _page(
        request,
        visit,
        "portal/credit_note.html",
        section="invoices",
        note=_note_row(note),
        document=credit_note_document(note=note),
    )


def _credit_note_pdf(request: HttpRequest, visit: Visit, note_id: str) -> HttpResponse:
    note = get_object_or_404(_notes(visit), public_id=note_id)
    return _pdf(render_credit_note_pdf(note=note), note.number)


def _pdf(pdf: bytes, number: str) -> HttpResponse:
    response = HttpResponse(pdf, content_type="application/pdf")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", number)
    response["Content-Disposition"] = f'attachment; filename="{name}.pdf"'
    return response


def _balance(request: HttpRequest, visit: Visit) -> HttpResponse:
    number = _page_number(request)
    first = number * MOVEMENTS_PER_PAGE
    found = list(balance_entries(visit.customer)[first : first + MOVEMENTS_PER_PAGE + 1])
    return _page(
        request,
        visit,
        "portal/balance.html",
        section="balance",
        holdings=holdings_view(customer=visit.customer, now=visit.now),
        grants=grant_views(customer=visit.customer, now=visit.now),
        movements=movement_views(found[:MOVEMENTS_PER_PAGE]),
        newer=number - 1 if number else None,
        older=number + 1 if len(found) > MOVEMENTS_PER_PAGE else None,
    )


def _nowhere(request: HttpRequest, visit: Visit, rest: str) -> HttpResponse:
    raise Http404


home = portal_page(_home)
plan = portal_page(_plan)
usage_csv = portal_page(_usage_csv)
invoices = portal_page(_invoice_list)
invoice = portal_page(_invoice)
invoice_pdf = portal_page(_invoice_pdf)
credit_note = portal_page(_credit_note)
credit_note_pdf = portal_page(_credit_note_pdf)
balance = portal_page(_balance)
nowhere = portal_page(_nowhere)
leave = portal_page(_leave, methods=("POST",))


def _page(request: HttpRequest, visit: Visit, template: str, *, section: str, **context: object) -> HttpResponse:
    shared = {"visit": visit, "section": section, "brand": settings.SELLER_NAME}
    return render(request, template, {**shared, **context})


def _subscriptions(visit: Visit) -> QuerySet[Subscription]:
    return Subscription.objects.filter(customer=visit.customer).select_related("price__product", "customer")


def _invoices(visit: Visit) -> QuerySet[Invoice]:
    """The visitor's invoices. A draft is the operator's business."""
    return Invoice.objects.filter(customer=visit.customer).exclude(status=InvoiceStatus.DRAFT)


def _notes(visit: Visit) -> QuerySet[CreditNote]:
    return CreditNote.objects.filter(customer=visit.customer).select_related("invoice").order_by("-issued_at", "-pk")


def _note_row(note: CreditNote) -> CreditNoteRow:
    prepaid = f" + {format_amount(note.credit, note.currency)} of prepaid credit" if note.credit else ""
    return CreditNoteRow(
        public_id=note.public_id,
        number=note.number,
        invoice_id=note.invoice.public_id,
        invoice_number=note.invoice.number or "",
        issued_on=day_in_words(note.issued_at, ZoneInfo(note.invoice.time_zone)),
        reason=note.reason,
        total=f"{format_amount(note.total, note.currency)}{prepaid}",
    )


def _invoice_row(invoice: Invoice, visit: Visit) -> InvoiceRow:
    zone = ZoneInfo(invoice.time_zone)
    status, word = invoice_status(invoice=invoice, now=visit.now)
    return InvoiceRow(
        public_id=invoice.public_id,
        number=invoice.number or "",
        status=status,
        status_word=word,
        issued_on=day_in_words(invoice.issued_at, zone),
        due_on=day_in_words(invoice.due_at, zone),
        period=span_in_words(invoice.period_start, invoice.period_end, zone),
        total=format_amount(invoice.total, invoice.currency),
    )


def _page_number(request: HttpRequest) -> int:
    """The page asked for, from 0. Nonsense is page 0: the address is typed by people."""
    text = request.GET.get("page", "0")
    return min(int(text), LAST_PAGE) if re.fullmatch(r"[0-9]{1,9}", text) else 0
