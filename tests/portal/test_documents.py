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

from billing.documents import Document, invoice_document, render_pdf, span_in_words
from billing.invoices import ProposedLine, issue_invoice, mark_paid, void_invoice
from billing.models import Invoice, LineKind
from billing.products import PriceTerms, create_product
from customers.models import Customer
from tests.base import acme, at
from tests.portal.visit import billed

pytestmark = pytest.mark.django_db

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
    if isinstance(value, list):
        return [word for item in value for word in words(item)]
    return [word for key, item in value.items() if key not in ("status", "kind") for word in words(item)]


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


def test_the_data_is_the_invoice_in_words() -> None:
    _subscription, invoice = billed(acme())
    document = invoice_document(invoice=invoice)
    assert [
        (line["description"], line["period"], line["quantity"], line["unit"], line["free"], line["charged"],
         line["unit_price"], line["amount"], line["explanation"])
        for line in document["lines"]
    ] == [
        ("AI platform", "1 Feb 2026 – 28 Feb 2026", "1", "", "", "", "$49.00", "$49.00", ""),
        ("AI platform calls", "1 Jan 2026 – 31 Jan 2026", "2,500", "calls", "1,000", "1,500", "$0.02", "$30.00",
         "2,500 calls − 1,000 free = 1,500 × $0.02 = $30.00"),
        ("AI platform tokens", "1 Jan 2026 – 31 Jan 2026", "50,000", "tokens", "10,000", "40,000", "$0.00001",
         "$0.40", "50,000 tokens − 10,000 free = 40,000 × $0.00001 = $0.40"),
    ]  # fmt: skip
    assert {key: document[key] for key in ("subtotal", "tax", "total", "amount_due", "status_word", "headline")} == {
        "subtotal": "$79.40",
        "tax": "$0.00",
        "total": "$79.40",
        "amount_due": "$79.40",
        "status_word": "Open",
        "headline": "$79.40 due 15 February 2026",
    }


def test_a_paid_and_a_void_invoice_ask_for_nothing() -> None:
    paid, void = invoice_of("a"), invoice_of("b")
    mark_paid(invoice=paid, now=at("2026-02-03"))
    void_invoice(invoice=void, reason="a private word", now=at("2026-02-04"))
    document = invoice_document(invoice=paid)
    assert (document["headline"], document["amount_due"]) == ("$1.00 paid on 3 February 2026", "$0.00")
    document = invoice_document(invoice=void)
    assert (document["headline"], document["amount_due"], document["voided_on"]) == (
        "Nothing is due",
        "$0.00",
        "4 February 2026",
    )
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
