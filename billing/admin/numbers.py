"""Number series: how documents are numbered. A series can be corrected until the first document has a number of it."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from billing.models import BillingProfile, CreditNote, Invoice, NumberSeries
from billing.numbers import CREDIT_NOTES, INVOICES, change_series, create_series, is_used, numbered
from customers.admin.base import CommandForm, PageAdmin, command
from customers.admin.forms import text, whole_number

_LARGEST = 10**12


class SeriesForm(CommandForm):
    name = text("Name", help_text="For you: “France”.", max_length=50)
    prefix = text(
        "Prefix",
        help_text="Stands before the number: with “FR-” the first is FR-000001. End it with a sign such as a dash.",
        max_length=20,
    )
    first = whole_number(
        "First number", least=1, most=_LARGEST, initial=1, help_text="To go on where another system stopped."
    )


class CorrectForm(CommandForm):
    prefix = text("Prefix", max_length=20)
    first = whole_number("Next number", least=1, most=_LARGEST)

    def __init__(self, data: Any = None, **kwargs: Any) -> None:
        super().__init__(data, **kwargs)
        if self.obj is not None:
            self.fields["prefix"].initial = self.obj.prefix
            self.fields["first"].initial = self.obj.next_number


@admin.register(NumberSeries)
class NumberSeriesAdmin(PageAdmin):
    page_template = "admin/billing/numberseries/page.html"
    add_form = SeriesForm
    add_title = "New number series"
    list_display = ("name_shown", "prefix", "next_shown")
    list_display_links = ("name_shown",)
    search_fields = ("name", "prefix")
    ordering = ("name",)
    actions = None
    actions_detail = ("correct",)
    empty_state = (
        "No number series yet",
        "The first invoice makes one. Add your own to number the invoices of some customers apart; a customer's "
        "billing profile says which series they have.",
    )

    # The table has no permissions of its own: who may see invoices sees how they are numbered.
    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "view_invoice")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "issue_invoice")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_correct_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "issue_invoice")

    def create(self, request: HttpRequest, form: Any) -> NumberSeries:
        return create_series(**form.cleaned_data)

    @display(description="Series", ordering="name")
    def name_shown(self, obj: Any) -> str:
        return name_of(obj)

    @display(description="Next number", ordering="next_number")
    def next_shown(self, obj: Any) -> str:
        return numbered(obj.prefix, obj.next_number)

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        return {
            "title": name_of(obj),
            "name": name_of(obj),
            "next": numbered(obj.prefix, obj.next_number),
            "used": is_used(obj),
            "last_invoice": Invoice.objects.filter(series=obj).order_by("-issued_at", "-pk").first(),
            "last_note": CreditNote.objects.filter(series=obj).order_by("-issued_at", "-pk").first(),
            "customers": BillingProfile.objects.filter(series=obj).count(),
        }

    @command(
        title="Correct",
        permission="correct",
        icon="edit",
        explain="Nothing is numbered in this series yet, so it can still be corrected.",
        submit="Save",
        form_class=CorrectForm,
        available=lambda series: not is_used(series),
    )
    def correct(self, request: HttpRequest, obj: NumberSeries, form: Any) -> None:
        change_series(series=obj, **form.cleaned_data)
        self.log_change(request, obj, "Corrected.")


def name_of(series: NumberSeries) -> str:
    return {INVOICES: "Invoices", CREDIT_NOTES: "Credit notes"}.get(series.name, series.name)
