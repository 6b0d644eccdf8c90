"""Why this number: an invoice verified from the event log, and the very events behind each of its lines."""

from typing import Any

from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone

from billing.line_events import (
    brings_heading,
    events_csv,
    events_page,
    how_it_follows,
    key_values,
    pinned,
    settled_source,
    shown_value,
)
from billing.models import Invoice, InvoiceLine
from billing.money import plain
from billing.proofs import MOST_EVENTS_ON_A_PAGE, Outcome, events_behind, sentences, verify_invoice
from customers.admin.base import CommandAdmin, command, with_query
from customers.admin.formats import grouped
from customers.errors import DomainError

TONES = {Outcome.IDENTICAL: "good", Outcome.DIFFERENT: "bad", Outcome.NOT_PROVABLE: "warn"}


def _what_verifying_does(invoice: Invoice) -> list[str]:
    events = events_behind(invoice)
    return [
        f"Counts the {grouped(events)} events behind {invoice} again from the event log, rates every line anew and "
        "adds everything up. Nothing is changed; the result is kept in the invoice's history.",
        "It takes some seconds for each million events.",
    ]


class ProvesInvoices(CommandAdmin):
    """What the admin of invoices has for proving them: the command, and the pages of a line's events."""

    @command(
        title="Verify",
        permission="view",
        icon="verified",
        explain=_what_verifying_does,
        available=lambda invoice: invoice.number is not None,
        own_page=True,
    )
    def verify(self, request: HttpRequest, obj: Invoice, form: Any) -> HttpResponse:
        if events_behind(obj) > MOST_EVENTS_ON_A_PAGE:
            raise DomainError(
                f"{events_behind(obj):,} events take too long for a page. Run: manage.py verify_invoice {obj}"
            )
        found = verify_invoice(invoice=obj, now=timezone.now())
        self.log_change(request, obj, f"Verified: {found.outcome}.")
        return TemplateResponse(
            request,
            "admin/billing/invoice/proof.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": obj,
                "title": f"Verify {obj}",
                "obj": obj,
                "outcome": found.outcome,
                "tone": TONES[found.outcome],
                "found": [(outcome, TONES[outcome], text) for outcome, text in sentences(found)],
                "events": found.events,
                "verified_at": found.verified_at,
                "back_url": self.page_url(obj),
            },
        )

    def proof_urls(self) -> list[Any]:
        """The addresses of the pages below; `get_urls` has them."""
        return [
            path(
                "<path:object_id>/lines/<int:line_id>/events/",
                self.admin_site.admin_view(self.line_events_view),
                name="billing_invoice_line_events",
            ),
            path(
                "<path:object_id>/lines/<int:line_id>/events.csv",
                self.admin_site.admin_view(self.line_events_csv_view),
                name="billing_invoice_line_events_csv",
            ),
        ]

    def line_events_view(self, request: HttpRequest, object_id: str, line_id: int) -> HttpResponse:
        line = self._line(request, object_id, line_id)
        address = reverse("admin:billing_invoice_line_events", args=[quote(line.invoice_id), line.pk])
        context: dict[str, Any] = {"problem": ""}
        after = request.GET.get("after", "")
        try:
            page = events_page(line, after=after)
        except DomainError as error:
            context["problem"] = error.message
        else:
            source = page.source
            context |= {
                "meter": source.meter,
                "keys": source.keys or (),
                "follows": how_it_follows(source),
                "heading": brings_heading(source.meter).replace("_", " "),
                "rows": [
                    {
                        "event": event,
                        "value": shown_value(source.meter, event),
                        "keys": key_values(source, event),
                        "brings": plain(event.brings),
                    }
                    for event in page.events
                ],
                "following": with_query(address, after=page.following) if page.following else "",
                "first": address if after else "",
            }
        return TemplateResponse(
            request,
            "admin/billing/invoice/line_events.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": line.invoice,
                "title": f"{line.invoice}: the events of “{line.description}”",
                "obj": line.invoice,
                "line": line,
                "csv_url": reverse("admin:billing_invoice_line_events_csv", args=[quote(line.invoice_id), line.pk]),
                "back_url": self.page_url(line.invoice),
                **context,
            },
        )

    def line_events_csv_view(self, request: HttpRequest, object_id: str, line_id: int) -> HttpResponse:
        line = self._line(request, object_id, line_id)
        try:
            pieces = events_csv(settled_source(line))
        except DomainError as error:
            return HttpResponse(error.message, status=error.status, content_type="text/plain; charset=utf-8")
        return csv_response(pieces, line)

    def _line(self, request: HttpRequest, object_id: str, line_id: int) -> InvoiceLine:
        if not self.has_view_permission(request) or not self.may(request, "view_event", app="meters"):
            raise PermissionDenied
        line = (
            InvoiceLine.objects.filter(pk=min(line_id, 2**63 - 1), invoice=_number(unquote(object_id)))
            .select_related("invoice__customer", "charge__meter", "charge__price")
            .first()
        )
        if line is None:
            raise Http404("There is no such line.")
        return line


def csv_response(pieces: Any, line: InvoiceLine) -> HttpResponse:
    """The file, sent piece by piece."""
    name = f"events-{line.invoice}-line-{line.position}.csv".replace(" ", "-")
    return StreamingHttpResponse(  # type: ignore[return-value]
        pieces,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )


def line_links(lines: Any) -> dict[int, str]:
    """The page of each line's events, by the line's primary key; of those that have any."""
    return {
        line.pk: reverse("admin:billing_invoice_line_events", args=[quote(line.invoice_id), line.pk])
        for line in lines
        if pinned(line)
    }


def _number(text: str) -> int:
    return min(int(text), 2**63 - 1) if text.isdecimal() else 0
