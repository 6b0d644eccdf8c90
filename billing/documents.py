"""An invoice as a document: plain data that the page and the PDF both show, and the PDF itself.

`invoice_document` does all the wording and formatting, so a page and a PDF of one invoice cannot differ. The
PDF is typeset by typst, which gets the data as one JSON input: text in a name is text, never markup.
"""

import json
import logging
import unicodedata
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TypedDict
from zoneinfo import ZoneInfo

import typst
from django.conf import settings

from billing.models import Invoice, InvoiceLine, InvoiceStatus, LineKind
from billing.money import format_amount, format_unit_price, format_units

log = logging.getLogger(__name__)

_FOLDER = Path(settings.BASE_DIR) / "templates" / "invoices"
_MARKUP = _FOLDER / "invoice.typ"
_FONTS = _FOLDER / "fonts"


class DocumentLine(TypedDict):
    """One line as it is printed, all text. `free` and `charged` are empty for a fee."""

    kind: str
    description: str
    period: str
    quantity: str
    unit: str
    free: str
    charged: str
    unit_price: str
    amount: str
    explanation: str


class DocumentParty(TypedDict):
    name: str
    address: list[str]
    email: str


class Document(TypedDict):
    """Everything an invoice says, in words and numbers as printed."""

    title: str
    number: str
    status: str
    status_word: str
    headline: str
    note: str
    issued_on: str
    due_on: str
    paid_on: str
    voided_on: str
    period: str
    time_zone: str
    currency: str
    seller: DocumentParty
    customer: DocumentParty
    lines: list[DocumentLine]
    subtotal: str
    tax: str
    total: str
    amount_due: str


def invoice_document(*, invoice: Invoice) -> Document:
    """What the invoice says. It depends on the invoice's rows alone, not on the day it is asked."""
    zone = ZoneInfo(invoice.time_zone)
    amount_due = invoice.total if invoice.status == InvoiceStatus.ISSUED else Decimal(0)

    def money(minor: Decimal) -> str:
        return format_amount(minor, invoice.currency)

    return Document(
        title="Invoice",
        number=invoice.number or "",
        status=invoice.status,
        status_word=InvoiceStatus(invoice.status).label,
        headline=_headline(invoice, zone),
        note=_note(invoice),
        issued_on=day_in_words(invoice.issued_at, zone),
        due_on=day_in_words(invoice.due_at, zone),
        paid_on=day_in_words(invoice.paid_at, zone),
        voided_on=day_in_words(invoice.voided_at, zone),
        period=span_in_words(invoice.period_start, invoice.period_end, zone),
        time_zone=invoice.time_zone,
        currency=invoice.currency,
        seller=DocumentParty(
            name=invoice.seller_name,
            address=[row for row in invoice.seller_address.splitlines() if row.strip()],
            email=invoice.seller_email,
        ),
        customer=DocumentParty(
            name=invoice.customer_name,
            address=_address(invoice.customer_address),
            email=invoice.customer_email,
        ),
        lines=[_line(line, invoice.currency, zone) for line in invoice.lines.order_by("position")],
        subtotal=money(invoice.subtotal),
        tax=money(invoice.tax),
        total=money(invoice.total),
        amount_due=money(amount_due),
    )


def render_pdf(*, invoice: Invoice) -> bytes:
    """The invoice as PDF/A-2b. The same rows give the same bytes.

    PDF/A refuses a letter that no font at hand can draw; such an invoice comes as an ordinary PDF with a box
    in that letter's place, and the log says so, since a customer must get their invoice either way.
    """
    document = invoice_document(invoice=invoice)
    data = json.dumps(_printable(document), ensure_ascii=False)
    stamp = invoice.issued_at or invoice.created_at
    try:
        return _typeset(data, stamp, archival=True)
    except typst.TypstError as error:
        if "could not be displayed" not in str(error):
            raise
        log.warning("Invoice %s has letters that no font here can draw.", invoice.public_id)
        return _typeset(data, stamp, archival=False)


def span_in_words(start: datetime | None, end: datetime | None, zone: ZoneInfo) -> str:
    """A half-open span for people: whole days from first to last, any other span by both its ends."""
    if start is None or end is None:
        return ""
    first, last = start.astimezone(zone), end.astimezone(zone)
    if first.time() == last.time() == datetime.min.time():
        last -= timedelta(days=1)
        if first.date() == last.date():
            return _short(first)
    elif last - first < timedelta(days=2):
        return f"{_short(first)}, {first:%H:%M} – {_short(last)}, {last:%H:%M}"
    return f"{_short(first)} – {_short(last)}"


def _line(line: InvoiceLine, currency: str, zone: ZoneInfo) -> DocumentLine:
    amount = format_amount(line.amount, currency)
    steps = str(line.explanation.get("text", ""))
    metered = line.kind in (LineKind.USAGE, LineKind.ADJUSTMENT)
    return DocumentLine(
        kind=line.kind,
        description=line.description,
        period=span_in_words(line.period_start, line.period_end, zone),
        quantity=format_units(line.quantity),
        unit=line.measurement_unit,
        free=format_units(line.free_units) if metered else "",
        charged=format_units(line.billable_units) if metered else "",
        unit_price=format_unit_price(line.unit_price, currency),
        amount=amount,
        # A single fee explains itself.
        explanation="" if steps == amount else steps,
    )


def _headline(invoice: Invoice, zone: ZoneInfo) -> str:
    total = format_amount(invoice.total, invoice.currency)
    match invoice.status:
        case InvoiceStatus.DRAFT:
            return f"{total}, not yet issued"
        case InvoiceStatus.VOID:
            return "Nothing is due"
        case InvoiceStatus.PAID:
            return f"{total} paid on {day_in_words(invoice.paid_at, zone)}"
    if invoice.total <= 0:
        return "Nothing is due"
    return f"{total} due {day_in_words(invoice.due_at, zone)}" if invoice.due_at else f"{total} due"


def _note(invoice: Invoice) -> str:
    if invoice.status == InvoiceStatus.VOID:
        return "This invoice was withdrawn. Please do not pay it."
    if invoice.status == InvoiceStatus.DRAFT:
        return "A draft may still change."
    return ""


def _address(address: dict[str, object]) -> list[str]:
    """Street, then code and city, then state and country, as far as they are known."""

    def known(*keys: str) -> str:
        return " ".join(str(address[key]) for key in keys if address.get(key))

    rows = [known("street"), known("zipcode", "city"), known("state"), known("country")]
    return [row for row in rows if row]


def day_in_words(instant: datetime | None, zone: ZoneInfo) -> str:
    """An instant's day there, such as "7 December 2026"; nothing for no instant."""
    if instant is None:
        return ""
    local = instant.astimezone(zone)
    return f"{local.day} {local:%B} {local.year}"


def _short(local: datetime) -> str:
    return f"{local.day} {local:%b} {local.year}"


def _printable(value: object) -> object:
    """The same data with control characters turned into spaces: no font draws them."""
    if isinstance(value, str):
        return "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    return value


@cache
def _fonts() -> typst.Fonts:
    """Our own fonts for ordinary text; the system's for scripts that ours lack, such as Japanese."""
    return typst.Fonts(include_system_fonts=True, include_embedded_fonts=False, font_paths=[_FONTS])


def _typeset(data: str, stamp: datetime, *, archival: bool) -> bytes:
    return typst.compile(
        _MARKUP,
        root=_FOLDER,
        font_paths=_fonts(),
        sys_inputs={"invoice": data},
        format="pdf",
        pdf_standards="a-2b" if archival else None,
        timestamp=int(stamp.timestamp()),
    )
