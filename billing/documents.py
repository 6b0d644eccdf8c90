"""Invoices and credit notes as documents: plain data that the page and the PDF both show, and the PDF itself.

`invoice_document` and `credit_note_document` do all the wording and formatting, so a page and a PDF of one document
cannot differ. The PDF is typeset by typst, which gets the data as one JSON input: text in a name is text, never markup.
"""

import json
import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, TypedDict
from zoneinfo import ZoneInfo

import typst
from django.conf import settings

from billing.credit_notes import owed
from billing.models import CreditNote, CreditNoteLine, Invoice, InvoiceLine, InvoiceStatus, LineKind
from billing.money import add, format_amount, format_unit_price, format_units, plain, round_to_minor

log = logging.getLogger(__name__)

_FOLDER = Path(settings.BASE_DIR) / "templates" / "invoices"
_MARKUP = _FOLDER / "invoice.typ"
_FONTS = _FOLDER / "fonts"

# A customer is not told that nobody expects their money any more: the invoice still asks for it.
_STATUS_WORDS = {InvoiceStatus.UNCOLLECTIBLE: "Open"}
_INVOICE_COLUMNS = ["Quantity", "Free", "Charged", "Unit price", "Amount"]
_CREDIT_NOTE_COLUMNS = ["Amount", "Prepaid credit", "Tax", "Given back"]


class DocumentCell(TypedDict):
    """A figure of a line, under its column's name. Empty text: a dash."""

    column: str
    value: str
    unit: str


class DocumentLine(TypedDict):
    """One line as it is printed, all text. The last cell is the line's amount; the notes stand under its name."""

    kind: str
    description: str
    period: str
    cells: list[DocumentCell]
    notes: list[str]


class DocumentParty(TypedDict):
    name: str
    address: list[str]
    email: str


class DocumentRow(TypedDict):
    """A name and a value: beside the addresses, or a sum under the lines."""

    name: str
    value: str
    strong: bool


class Document(TypedDict):
    """Everything an invoice or a credit note says, in words and numbers as printed."""

    kind: str
    title: str
    number: str
    status: str
    status_word: str
    headline: str
    note: str
    facts: list[DocumentRow]
    time_zone: str
    currency: str
    seller: DocumentParty
    customer: DocumentParty
    columns: list[str]
    lines: list[DocumentLine]
    sums: list[DocumentRow]
    issued_on: str
    due_on: str
    total: str
    amount_due: str


def invoice_document(*, invoice: Invoice) -> Document:
    """What the invoice says. It depends on rows alone, its own and its credit notes', not on the day it is asked."""
    zone = ZoneInfo(invoice.time_zone)
    lines = list(invoice.lines.order_by("position"))
    notes = list(invoice.credit_notes.order_by("issued_at", "pk")) if invoice.pk else []
    asked = owed(invoice)

    def money(minor: Decimal) -> str:
        return format_amount(minor, invoice.currency)

    facts = [
        _row("Issued", day_in_words(invoice.issued_at, zone)),
        _row("Due", day_in_words(invoice.due_at, zone)),
        _row("Paid", day_in_words(invoice.paid_at, zone)),
        _row("Voided", day_in_words(invoice.voided_at, zone)),
        _row("Period", span_in_words(invoice.period_start, invoice.period_end, zone)),
        _row("Replaces", (invoice.replaces.number or "") if invoice.replaces else ""),
    ]
    return Document(
        kind="invoice",
        title="Invoice",
        number=invoice.number or "",
        status=invoice.status,
        status_word=_STATUS_WORDS.get(InvoiceStatus(invoice.status), InvoiceStatus(invoice.status).label),
        headline=_headline(invoice, notes, asked, zone),
        note=_note(invoice),
        facts=[fact for fact in facts if fact["value"]],
        time_zone=invoice.time_zone,
        currency=invoice.currency,
        seller=_seller(invoice),
        customer=_customer(invoice),
        columns=_INVOICE_COLUMNS,
        lines=[_line(line, invoice.currency, zone) for line in lines],
        sums=[
            *_discounts(lines, invoice.currency),
            _row("Subtotal", money(invoice.subtotal)),
            *([_row("Prepaid credit", money(-invoice.credit))] if invoice.credit else []),
            *_taxes([(line.taxes, line.tax_inclusive) for line in lines], invoice.tax, invoice.currency),
            _row(f"Total {invoice.currency}", money(invoice.total), strong=True),
            *([_row("Paid from your balance", money(-invoice.balance))] if invoice.balance > 0 else []),
            *([_row("Put onto your balance", money(-invoice.balance))] if invoice.balance < 0 else []),
            *(_row(f"Credit note {note.number}", money(-note.to_invoice)) for note in notes if note.to_invoice),
            # What the balance will pay is known when it is issued.
            *([_row("Amount due", money(asked), strong=True)] if invoice.status != InvoiceStatus.DRAFT else []),
        ],
        issued_on=day_in_words(invoice.issued_at, zone),
        due_on=day_in_words(invoice.due_at, zone),
        total=money(invoice.total),
        amount_due=money(asked),
    )


def credit_note_document(*, note: CreditNote) -> Document:
    """What the credit note says: its own lines and sums, and the parties as the invoice has them."""
    invoice = note.invoice
    zone = ZoneInfo(invoice.time_zone)
    rows = list(note.lines.order_by("position"))

    def money(minor: Decimal) -> str:
        return format_amount(minor, note.currency)

    return Document(
        kind="credit_note",
        title="Credit note",
        number=note.number,
        status="credited",
        status_word="",
        headline=_credited(note),
        note=note.reason,
        facts=[
            _row("Issued", day_in_words(note.issued_at, zone)),
            _row("For invoice", invoice.number or ""),
            _row("Invoice date", day_in_words(invoice.issued_at, zone)),
        ],
        time_zone=invoice.time_zone,
        currency=note.currency,
        seller=_seller(invoice),
        customer=_customer(invoice),
        columns=_CREDIT_NOTE_COLUMNS,
        lines=[_credited_line(row, note.currency) for row in rows],
        sums=[
            _row("Subtotal", money(note.subtotal)),
            *([_row("Prepaid credit given back", money(-note.credit))] if note.credit else []),
            *_taxes([(row.explanation.get("taxes", []), row.tax_inclusive) for row in rows], note.tax, note.currency),
            _row(f"Total {note.currency}", money(note.total), strong=True),
            *([_row(f"Taken off {invoice.number}", money(note.to_invoice))] if note.to_invoice else []),
            *([_row("Put onto your balance", money(note.to_balance))] if note.to_balance else []),
        ],
        issued_on=day_in_words(note.issued_at, zone),
        due_on="",
        total=money(note.total),
        amount_due=money(Decimal(0)),
    )


def render_pdf(*, invoice: Invoice) -> bytes:
    """The invoice as PDF/A-2b. The same rows give the same bytes."""
    return _pdf(
        invoice_document(invoice=invoice), invoice.issued_at or invoice.created_at, f"Invoice {invoice.public_id}"
    )


def render_credit_note_pdf(*, note: CreditNote) -> bytes:
    """The credit note as PDF/A-2b. The same rows give the same bytes."""
    return _pdf(credit_note_document(note=note), note.issued_at, f"Credit note {note.public_id}")


def _pdf(document: Document, stamp: datetime, name: str) -> bytes:
    """PDF/A refuses a letter that no font at hand can draw; such a document comes as an ordinary PDF with a box in that
    letter's place, and the log says so, since a customer must get it either way."""
    data = json.dumps(_printable(document), ensure_ascii=False)
    try:
        return _typeset(data, stamp, archival=True)
    except typst.TypstError as error:
        if "could not be displayed" not in str(error):
            raise
        log.warning("%s has letters that no font here can draw.", name)
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
    notes = [
        # A single fee explains itself.
        "" if steps == amount else steps,
        f"Prepaid credit: {format_amount(-line.credit, currency)}" if line.credit else "",
        *(f"{_rate(rate, line.tax_inclusive)}: {_tax_of(rate, currency)}" for rate in line.taxes),
        _why_no_tax(line),
    ]
    return DocumentLine(
        kind=line.kind,
        description=line.description,
        period=span_in_words(line.period_start, line.period_end, zone),
        cells=_cells(
            _INVOICE_COLUMNS,
            format_units(line.quantity),
            format_units(line.free_units) if metered else "",
            format_units(line.billable_units) if metered else "",
            # Tiers, packages and dimensions have no single price; the note says the steps.
            "" if line.unit_price is None else format_unit_price(line.unit_price, currency),
            amount,
            unit=line.measurement_unit,
        ),
        notes=[note for note in notes if note],
    )


def _credited_line(row: CreditNoteLine, currency: str) -> DocumentLine:
    return DocumentLine(
        kind="credit",
        description=row.description,
        period="",
        cells=_cells(
            _CREDIT_NOTE_COLUMNS,
            format_amount(row.amount, currency),
            format_amount(-row.credit, currency) if row.credit else "",
            format_amount(row.tax, currency) if row.tax else "",
            format_amount(row.total, currency),
        ),
        notes=[
            *([str(row.explanation["text"])] if row.explanation.get("text") else []),
            *(
                f"{_rate(rate, row.tax_inclusive)}: {_tax_of(rate, currency)}"
                for rate in row.explanation.get("taxes", [])
                if len(row.explanation["taxes"]) > 1 or row.tax_inclusive
            ),
        ],
    )


def _row(name: str, value: str, *, strong: bool = False) -> DocumentRow:
    return DocumentRow(name=name, value=value, strong=strong)


def _cells(columns: Sequence[str], *values: str, unit: str = "") -> list[DocumentCell]:
    """The unit stands under the first."""
    return [
        DocumentCell(column=column, value=value, unit=unit if column == columns[0] else "")
        for column, value in zip(columns, values, strict=True)
    ]


def _seller(invoice: Invoice) -> DocumentParty:
    return DocumentParty(
        name=invoice.seller_name,
        address=[row for row in invoice.seller_address.splitlines() if row.strip()],
        email=invoice.seller_email,
    )


def _customer(invoice: Invoice) -> DocumentParty:
    return DocumentParty(
        name=invoice.customer_name,
        address=_address(invoice.customer_address),
        email=invoice.customer_email,
    )


def _discounts(lines: Iterable[InvoiceLine], currency: str) -> list[DocumentRow]:
    """What discounts took off; the lines' amounts are already without it."""
    taken = round_to_minor(add(*(line.discount for line in lines)))
    return [_row("Discounts, already taken off", format_amount(taken, currency))] if taken else []


def _taxes(
    taxed: Sequence[tuple[Sequence[Mapping[str, Any]], bool]], whole: Decimal, currency: str
) -> list[DocumentRow]:
    """A row a rate; one row of zero where there is none."""
    sums: dict[str, Decimal] = {}
    for rates, inclusive in taxed:
        for rate in rates:
            name = _rate(rate, inclusive)
            sums[name] = add(sums.get(name, Decimal(0)), Decimal(str(rate.get("amount", "0"))))
    if not sums:
        return [_row("Tax", format_amount(whole, currency))]
    return [_row(name, format_amount(amount, currency)) for name, amount in sums.items()]


def _rate(rate: Mapping[str, Any], inclusive: bool) -> str:
    """ "VAT 19 %", "VAT 19 %, included"."""
    percent = plain(Decimal(str(rate.get("percent", "0"))))
    return f"{rate.get('name', 'Tax')} {percent} %{', included' if inclusive else ''}"


def _tax_of(rate: Mapping[str, Any], currency: str) -> str:
    return format_amount(Decimal(str(rate.get("amount", "0"))), currency)


def _why_no_tax(line: InvoiceLine) -> str:
    """The reason where it is the customer's: an exemption, or that they account for the tax themselves."""
    return "" if line.taxes or line.tax_reason.startswith("No tax") else line.tax_reason


def _headline(invoice: Invoice, notes: Sequence[CreditNote], asked: Decimal, zone: ZoneInfo) -> str:
    def money(minor: Decimal) -> str:
        return format_amount(minor, invoice.currency)

    match invoice.status:
        case InvoiceStatus.DRAFT:
            return f"{money(invoice.total)}, not yet issued"
        case InvoiceStatus.VOID:
            return "Nothing is due"
        case InvoiceStatus.PAID:
            credited = add(*(note.to_invoice for note in notes))
            if credited and credited == invoice.due:
                return f"{money(credited)} settled by credit note on {day_in_words(invoice.paid_at, zone)}"
            if invoice.balance > 0 and not invoice.due:
                return f"{money(invoice.balance)} paid from your balance on {day_in_words(invoice.paid_at, zone)}"
            if invoice.total < 0:
                return f"{money(-invoice.total)} put onto your balance on {day_in_words(invoice.paid_at, zone)}"
            return f"{money(add(invoice.due, -credited))} paid on {day_in_words(invoice.paid_at, zone)}"
    if asked <= 0:
        return "Nothing is due"
    return f"{money(asked)} due {day_in_words(invoice.due_at, zone)}" if invoice.due_at else f"{money(asked)} due"


def _credited(note: CreditNote) -> str:
    """What is given back, money and prepaid credit: "$11.00 and $15.00 of prepaid credit given back"."""
    parts = [format_amount(note.total, note.currency)] if note.total or not note.credit else []
    if note.credit:
        parts.append(f"{format_amount(note.credit, note.currency)} of prepaid credit")
    return f"{' and '.join(parts)} given back"


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
        sys_inputs={"document": data},
        format="pdf",
        pdf_standards="a-2b" if archival else None,
        timestamp=int(stamp.timestamp()),
    )
