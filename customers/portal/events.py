"""The very events behind a line of one's own invoice, as a page and as a file."""

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render

from billing.documents import span_in_words
from billing.line_events import (
    PER_PAGE,
    LineSource,
    events_csv,
    events_page,
    how_it_follows,
    key_values,
    pinned,
    settled_source,
    shown_value,
)
from billing.models import Invoice, InvoiceLine, InvoiceStatus
from billing.money import format_units, plain
from customers.errors import DomainError
from customers.portal.access import Visit, portal_page
from meters.evidence import CountedEvent


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event, in words. `counts` is what it brings to the quantity."""

    happened: str
    event_id: str
    keys: tuple[str, ...]
    value: str
    counts: str
    before: bool


@dataclass(frozen=True, slots=True)
class MeteredLine:
    """A line that has events to show."""

    position: int
    name: str
    events: str


def metered_lines(invoice: Invoice) -> list[MeteredLine]:
    """The lines of an invoice whose events can be looked at."""
    lines = invoice.lines.select_related("charge").order_by("position")
    return [MeteredLine(line.position, line.description, _many(line)) for line in lines if pinned(line)]


def _many(line: InvoiceLine) -> str:
    count = line.events_counted or 0
    return f"{count:,} event{'' if count == 1 else 's'}"


def _line(visit: Visit, invoice_id: str, position: int) -> InvoiceLine:
    """A line of an invoice of the visitor's own that was issued; a draft is the operator's business."""
    line = (
        InvoiceLine.objects.filter(
            invoice__customer=visit.customer, invoice__public_id=invoice_id, position=min(position, 2**31 - 1)
        )
        .exclude(invoice__status=InvoiceStatus.DRAFT)
        .select_related("invoice__customer", "charge__meter", "charge__price")
        .first()
    )
    if line is None or not pinned(line):
        raise Http404
    return line


def _events(request: HttpRequest, visit: Visit, invoice_id: str, position: int) -> HttpResponse:
    line = _line(visit, invoice_id, position)
    zone = ZoneInfo(line.invoice.time_zone)
    after = request.GET.get("after", "")
    context: dict[str, object] = {"problem": ""}
    try:
        page = events_page(line, after=after)
    except DomainError:
        # A month that left the log, or too many events to turn pages in: the seller's words are for operators.
        context["problem"] = "These events cannot be shown one by one here."
    else:
        context |= {
            "keys": page.source.keys or (),
            "follows": how_it_follows(page.source),
            "rows": [_row(page.source, event, zone) for event in page.events],
            "following": page.following,
            "from_the_start": not after,
        }
    return render(
        request,
        "portal/line_events.html",
        {
            "visit": visit,
            "section": "invoices",
            "brand": settings.SELLER_NAME,
            "invoice": line.invoice,
            "line": line,
            "quantity": format_units(line.quantity),
            "period": span_in_words(line.period_start, line.period_end, zone),
            "count": _many(line),
            "per_page": PER_PAGE,
            "zone": line.invoice.time_zone,
            **context,
        },
    )


def _row(source: LineSource, event: CountedEvent, zone: ZoneInfo) -> EventRow:
    return EventRow(
        happened=f"{event.timestamp.astimezone(zone):%Y-%m-%d %H:%M:%S}",
        event_id=event.event_id,
        keys=tuple(word or "–" for word in key_values(source, event)),
        value=shown_value(source.meter, event),
        counts=plain(event.brings),
        before=event.before,
    )


def _events_csv(request: HttpRequest, visit: Visit, invoice_id: str, position: int) -> HttpResponse:
    line = _line(visit, invoice_id, position)
    try:
        pieces = events_csv(settled_source(line))
    except DomainError as error:
        raise Http404 from error
    name = f"events-{line.invoice}-line-{line.position}.csv".replace(" ", "-")
    return StreamingHttpResponse(  # type: ignore[return-value]
        pieces,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


line_events = portal_page(_events)
line_events_csv = portal_page(_events_csv)
