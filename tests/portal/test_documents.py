"""One invoice, two renderings: the page and the PDF say the same, whatever the names hold."""

import re
from datetime import timedelta
from decimal import Decimal
from html import unescape
from io import BytesIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.template.loader import render_to_string
from pypdf import PdfReader

from billing.credit_notes import credit_invoice
from billing.documents import (
    Document,
    credit_note_document,
    invoice_document,
    render_credit_note_pdf,
    render_pdf,
    span_in_words,
)
from billing.invoices import ProposedLine, issue_invoice, mark_paid, void_invoice
from billing.models import CreditNote, Invoice, LineKind
from billing.money import format_amount
from billing.products import PriceTerms, create_product
from customers.models import Customer
from tests.base import acme, at
from tests.portal.visit import billed
from tests.written import Row, written

pytestmark = pytest.mark.django_db

D = Decimal
NOW = "2026-02-01T02:00"


def letters(text: str) -> str:
    """Without the white space and soft break points that typesetting puts in."""
    return re.sub(r"[\s\u200b\u200c\u200d\u00ad]+", "", text)


def pdf_text(pdf: bytes) -> str:
    return letters("".join(page.extract_text() for page in PdfReader(BytesIO(pdf)).pages))


def page_text(document: Document) -> str:
    html = render_to_string("invoices/_document.html", {"document": document})
    return letters(unescape(re.sub(r"<[^>]+>", " ", html)))


def words(value: Any) -> list[str]:
    """Every text in the data that both renderings must show."""
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, bool):
        return []
    if isinstance(value, list):
        return [word for item in value for word in words(item)]
    return [word for key, item in value.items() if key not in ("status", "kind") for word in words(item)]


def sums_of(document: Document) -> list[tuple[str, str]]:
    return [(row["name"], row["value"]) for row in document["sums"]]


def facts_of(document: Document) -> list[tuple[str, str]]:
    return [(row["name"], row["value"]) for row in document["facts"]]


def invoice_of(*descriptions: str, customer: Customer | None = None, amount: int = 100) -> Invoice:
    """An issued invoice with one line a description, `amount` minor units each."""
    terms = PriceTerms(type="one_time_price", currency="USD", fixed_amount=Decimal(100))
    product = create_product(name="Work", terms=terms)
    lines = [
        ProposedLine(
            kind=LineKind.ONE_TIME,
            description=description,
            product=product,
            quantity=Decimal(1),
            free_units=Decimal(0),
            billable_units=Decimal(1),
            unit_price=Decimal(amount),
            exact_amount=Decimal(amount),
            amount=Decimal(amount),
        )
        for description in descriptions
    ]
    return issue_invoice(customer=customer or acme(), reason="one_time", currency="USD", lines=lines, now=at(NOW))


def test_page_and_pdf_hold_every_word_of_the_same_data(settings: Any) -> None:
    settings.SELLER_NAME, settings.SELLER_EMAIL = "Meterbook Ltd", "money@seller.example"
    settings.SELLER_ADDRESS = "1 Market Street\n94105 San Francisco"
    address = {"street": "Hauptstr. 5", "zipcode": "10115", "city": "Berlin", "country": "DE"}
    _subscription, invoice = billed(acme(billing_address=address))
    document = invoice_document(invoice=invoice)
    assert len(words(document)) > 40
    page, pdf = page_text(document), pdf_text(render_pdf(invoice=invoice))
    for word in words(document):
        assert letters(word) in page, word
        # The PDF sets small labels in capitals.
        assert letters(word) in pdf, word
    assert "Page1of1" in pdf


def rich_invoice(**changes: Any) -> Invoice:
    """Discount, prepaid credit, two taxes, an included one, balance, and a line without a single price."""
    return written(
        # 100.00 - 60.00 by prepaid credit; 5 % and 10 % of the other 40.00
        Row(10_000, 6_000, 600, taxes=[("GST", "5", "200"), ("QST", "10", "400")], description="Seats",
            more={"discount": D("1111.5")}),
        Row(11_900, 0, 1_900, inclusive=True, description="Handbook"),
        Row(3_050, description="Calls", kind="usage", more={
            "quantity": D("25.5"), "free_units": D(2), "billable_units": D("23.5"), "unit_price": None,
            "measurement_unit": "calls", "explanation": {"text": "10 × $1.00 + 13.5 × $1.518 = $30.50"},
        }),
        balance=5_000,
        **changes,
    )  # fmt: skip


def test_sums_tell_discount_credit_each_tax_balance_and_what_is_due() -> None:
    document = invoice_document(invoice=rich_invoice())
    assert sums_of(document) == [
        ("Discounts, already taken off", "$11.12"),  # 11.115, half up
        ("Subtotal", "$249.50"),  # 100.00 + 119.00 + 30.50
        ("Prepaid credit", "-$60.00"),
        ("GST 5 %", "$2.00"),
        ("QST 10 %", "$4.00"),
        ("VAT 19 %, included", "$19.00"),
        ("Total USD", "$195.50"),  # 249.50 - 60.00 + 6.00; the VAT is in the price
        ("Paid from your balance", "-$50.00"),
        ("Amount due", "$145.50"),
    ]
    assert document["headline"] == "$145.50 due 15 February 2026"
    assert [line["notes"] for line in document["lines"]] == [
        ["Prepaid credit: -$60.00", "GST 5 %: $2.00", "QST 10 %: $4.00"],
        ["VAT 19 %, included: $19.00"],
        ["10 × $1.00 + 13.5 × $1.518 = $30.50"],
    ]
    assert [cell["value"] for cell in document["lines"][2]["cells"]] == ["25.5", "2", "23.5", "", "$30.50"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Reverse charge, tax id DE123", ["Reverse charge, tax id DE123"]),
        ("Exempt: charity", ["Exempt: charity"]),
        ("No tax rate for FR", []),
        ("", []),
    ],
)
def test_why_there_is_no_tax_is_printed_where_it_is_the_customers_reason(reason: str, said: list[str]) -> None:
    invoice = written(Row(100), status="draft")
    invoice.lines.update(tax_reason=reason)
    assert invoice_document(invoice=invoice)["lines"][0]["notes"] == said


def test_credit_notes_lower_what_an_invoice_asks_for_and_say_so() -> None:
    invoice = rich_invoice()
    credit_invoice(invoice=invoice, reason="Outage", now=at("2026-02-03"), amount=D(5_000))
    note = CreditNote.objects.get()
    document = invoice_document(invoice=invoice)
    assert sums_of(document)[-2:] == [
        ("Credit note CN-000001", format_amount(-note.total, "USD")),
        ("Amount due", format_amount(14_550 - note.total, "USD")),
    ]
    credit_invoice(invoice=invoice, reason="All of it", now=at("2026-02-04"))
    document = invoice_document(invoice=invoice)
    assert document["headline"] == "$145.50 settled by credit note on 4 February 2026"
    assert sums_of(document)[-1] == ("Amount due", "$0.00")


def test_a_credit_note_is_a_document_too() -> None:
    invoice = rich_invoice()
    note = credit_invoice(
        invoice=invoice,
        reason="Outage in March",
        now=at("2026-02-03"),
        lines={invoice.lines.get(position=1).pk: D(5_300)},
    )
    # Half of a line worth 106.00: 50.00, 30.00 prepaid credit, 1.00 and 2.00 of tax.
    document = credit_note_document(note=note)
    assert (document["title"], document["number"], document["note"]) == ("Credit note", "CN-000001", "Outage in March")
    assert document["headline"] == "$23.00 and $30.00 of prepaid credit given back"
    assert facts_of(document) == [
        ("Issued", "3 February 2026"),
        ("For invoice", "INV-000001"),
        ("Invoice date", "1 February 2026"),
    ]
    assert document["columns"] == ["Amount", "Prepaid credit", "Tax", "Given back"]
    assert [
        (line["description"], *(cell["value"] for cell in line["cells"]), *line["notes"]) for line in document["lines"]
    ] == [("Seats", "$50.00", "-$30.00", "$3.00", "$23.00", "GST 5 %: $1.00", "QST 10 %: $2.00")]
    assert sums_of(document) == [
        ("Subtotal", "$50.00"),
        ("Prepaid credit given back", "-$30.00"),
        ("GST 5 %", "$1.00"),
        ("QST 10 %", "$2.00"),
        ("Total USD", "$23.00"),
        ("Taken off INV-000001", "$23.00"),
    ]


@pytest.mark.parametrize("which", ["invoice", "credit note", "credited invoice"])
def test_page_and_pdf_of_every_row_hold_every_word(which: str) -> None:
    invoice = rich_invoice(seller_name="Meterbook Ltd", seller_address="1 Market Street")
    document, pdf = invoice_document(invoice=invoice), render_pdf(invoice=invoice)
    if which != "invoice":
        note = credit_invoice(invoice=invoice, reason="Outage", now=at("2026-02-03"), amount=D(20_000))
        document, pdf = credit_note_document(note=note), render_credit_note_pdf(note=note)
        assert pdf == render_credit_note_pdf(note=CreditNote.objects.get())
    if which == "credited invoice":
        document, pdf = invoice_document(invoice=invoice), render_pdf(invoice=invoice)
    assert b"<pdfaid:part>2</pdfaid:part>" in pdf
    page, text = page_text(document), pdf_text(pdf)
    for word in words({key: value for key, value in document.items() if key not in ("total", "amount_due")}):
        assert letters(word) in page, word
        assert letters(word) in text, word


@pytest.mark.parametrize(
    ("balance", "amount", "headline", "row"),
    [
        (100, 100, "$1.00 paid from your balance on 1 February 2026", ("Paid from your balance", "-$1.00")),
        (-100, -100, "$1.00 put onto your balance on 1 February 2026", ("Put onto your balance", "$1.00")),
    ],
)
def test_what_the_balance_settled_is_said(balance: int, amount: int, headline: str, row: tuple[str, str]) -> None:
    invoice = written(Row(amount), status="draft")
    Invoice.objects.filter(pk=invoice.pk).update(
        balance=balance, number="INV-1", issued_at=at(NOW), paid_at=at(NOW), status="paid"
    )
    document = invoice_document(invoice=Invoice.objects.get())
    assert document["headline"] == headline
    assert row in sums_of(document)


def test_a_customer_reads_open_where_the_operator_gave_up() -> None:
    document = invoice_document(invoice=written(Row(100), status="uncollectible"))
    assert (document["status_word"], document["headline"]) == ("Open", "$1.00 due 15 February 2026")


def test_the_data_is_the_invoice_in_words() -> None:
    _subscription, invoice = billed(acme())
    document = invoice_document(invoice=invoice)
    assert [
        (line["description"], line["period"], line["cells"][0]["value"], line["cells"][0]["unit"],
         *(cell["value"] for cell in line["cells"][1:]), *line["notes"])
        for line in document["lines"]
    ] == [
        ("AI platform", "1 Feb 2026 – 28 Feb 2026", "1", "", "", "", "$49.00", "$49.00"),
        ("AI platform calls", "1 Jan 2026 – 31 Jan 2026", "2,500", "calls", "1,000", "1,500", "$0.02", "$30.00",
         "2,500 calls − 1,000 free = 1,500 × $0.02 = $30.00"),
        ("AI platform tokens", "1 Jan 2026 – 31 Jan 2026", "50,000", "tokens", "10,000", "40,000", "$0.00001",
         "$0.40", "50,000 tokens − 10,000 free = 40,000 × $0.00001 = $0.40"),
    ]  # fmt: skip
    assert document["columns"] == ["Quantity", "Free", "Charged", "Unit price", "Amount"]
    assert sums_of(document) == [
        ("Subtotal", "$79.40"),
        ("Tax", "$0.00"),
        ("Total USD", "$79.40"),
        ("Amount due", "$79.40"),
    ]
    assert facts_of(document) == [
        ("Issued", "1 February 2026"),
        ("Due", "15 February 2026"),
        ("Period", "1 Jan 2026 – 31 Jan 2026"),
    ]
    assert (document["status_word"], document["headline"]) == ("Open", "$79.40 due 15 February 2026")
    assert (document["total"], document["amount_due"]) == ("$79.40", "$79.40")


def test_a_paid_and_a_void_invoice_ask_for_nothing() -> None:
    paid, void = invoice_of("a"), invoice_of("b")
    mark_paid(invoice=paid, now=at("2026-02-03"))
    void_invoice(invoice=void, reason="a private word", now=at("2026-02-04"))
    document = invoice_document(invoice=paid)
    assert (document["headline"], document["amount_due"]) == ("$1.00 paid on 3 February 2026", "$0.00")
    document = invoice_document(invoice=void)
    assert (document["headline"], document["amount_due"]) == ("Nothing is due", "$0.00")
    assert ("Voided", "4 February 2026") in facts_of(document)
    text = pdf_text(render_pdf(invoice=void))
    assert "VOID" in text
    assert "Pleasedonotpayit." in text
    assert "private" not in text
    assert "VOID" not in pdf_text(render_pdf(invoice=paid))


def test_the_same_invoice_gives_the_same_bytes_and_is_archival() -> None:
    invoice = invoice_of("Work")
    pdf = render_pdf(invoice=invoice)
    assert pdf == render_pdf(invoice=Invoice.objects.get(pk=invoice.pk))
    assert b"<pdfaid:part>2</pdfaid:part>" in pdf
    information = PdfReader(BytesIO(pdf)).metadata
    assert information is not None
    assert information.title == f"Invoice {invoice.number}"


def test_text_in_a_name_is_never_markup() -> None:
    names = [
        '#read("/etc/passwd")',
        "#import sys: inputs",
        "*bold* _it_ $x^2$ `raw` @ref <label>",
        "= Heading",
        "\\ // /* */ ] } )",
        '"quoted" {{7*7}} <script>alert(1)</script>',
    ]
    invoice = invoice_of(*names, customer=acme(name=names[0]))
    text = pdf_text(render_pdf(invoice=invoice))
    for name in names:
        assert letters(name) in text, name
    assert "root:" not in text
    html = render_to_string("invoices/_document.html", {"document": invoice_document(invoice=invoice)})
    assert "<script" not in html


def test_a_long_invoice_numbers_its_pages_and_repeats_its_head() -> None:
    invoice = invoice_of(*(f"Line {number} with a rather long name" for number in range(200)))
    pdf = render_pdf(invoice=invoice)
    pages = PdfReader(BytesIO(pdf)).pages
    assert len(pages) > 4
    for number, page in enumerate(pages, start=1):
        text = letters(page.extract_text())
        assert f"Page{number}of{len(pages)}" in text
        assert letters(str(invoice.number)) in text
    whole = pdf_text(pdf)
    for number in range(200):
        assert f"Line{number}with" in whole
    assert "$200.00" in whole


def test_a_description_longer_than_a_page_runs_on() -> None:
    invoice = invoice_of("word " * 3000 + "end-of-it")
    assert "end-of-it" in pdf_text(render_pdf(invoice=invoice))


@pytest.mark.parametrize("name", ["שלום עולם בע״מ", "شركة النور", "Zażółć Ελληνικά Кириллица Ħ", "₿ ₹ ₺ € £ ¥ ₩ ₦"])
def test_scripts_and_signs_that_our_own_fonts_hold_stay_archival(name: str) -> None:
    pdf = render_pdf(invoice=invoice_of(name, customer=acme(name=name)))
    assert b"<pdfaid:part>2</pdfaid:part>" in pdf


def test_a_letter_no_font_can_draw_still_gives_an_invoice(caplog: pytest.LogCaptureFixture) -> None:
    invoice = invoice_of("private use \ue123 letter")
    pdf = render_pdf(invoice=invoice)
    assert b"pdfaid" not in pdf
    assert "letter" in pdf_text(pdf)
    assert [record.getMessage() for record in caplog.records] == [
        f"Invoice {invoice.public_id} has letters that no font here can draw."
    ]


@pytest.mark.parametrize(
    "name", ["tab\there", "line\nbreak", "bell\x07", "del\x7f", "c1\x85x", "zero\u200bwidth", "\u202eover"]
)
def test_invisible_characters_do_not_break_the_pdf(name: str) -> None:
    assert render_pdf(invoice=invoice_of(name, customer=acme(name=name))).startswith(b"%PDF")


def test_huge_numbers_stay_on_the_paper() -> None:
    invoice = invoice_of("Much", "More", amount=10**27)
    (page,) = PdfReader(BytesIO(render_pdf(invoice=invoice))).pages
    places = []
    page.extract_text(visitor_text=lambda text, cm, tm, _font, _size: places.append((text.strip(), cm[4] + tm[4])))
    inner = 18 / 25.4 * 72  # the margin in points
    for text, x in places:
        assert not text or inner - 1 <= x <= float(page.mediabox.width) - inner, text
    assert "$10,000,000,000,000,000,000,000,000.00" in letters(page.extract_text())


@pytest.mark.parametrize(
    ("start", "end", "zone", "said"),
    [
        ("2026-01-01", "2026-02-01", "UTC", "1 Jan 2026 – 31 Jan 2026"),
        ("2026-01-31", "2026-02-01", "UTC", "31 Jan 2026"),
        ("2026-01-15T15:42", "2026-02-15T15:42", "UTC", "15 Jan 2026 – 15 Feb 2026"),
        ("2026-01-15T15:42", "2026-01-16T15:42", "UTC", "15 Jan 2026, 15:42 – 16 Jan 2026, 15:42"),
        # Midnights of Berlin, across the change to summer time.
        ("2026-02-28T23:00", "2026-03-31T22:00", "Europe/Berlin", "1 Mar 2026 – 31 Mar 2026"),
        ("2026-02-28T23:00", "2026-03-31T22:00", "UTC", "28 Feb 2026 – 31 Mar 2026"),
    ],
)
def test_a_half_open_period_is_told_by_its_days(start: str, end: str, zone: str, said: str) -> None:
    assert span_in_words(at(start), at(end), ZoneInfo(zone)) == said


def test_no_period_is_no_words() -> None:
    assert span_in_words(None, at(NOW), ZoneInfo("UTC")) == ""
    assert span_in_words(at(NOW), at(NOW) + timedelta(days=1), ZoneInfo("UTC")) == (
        "1 Feb 2026, 02:00 – 2 Feb 2026, 02:00"
    )
