"""Voiding events by hand: one with its reason, or many by filter after a dry run."""

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from billing.corrections import preview_void
from customers.admin.base import CommandAdmin, CommandForm
from customers.admin.forms import INPUT, instant, long_text, text, width
from customers.customers import get_customer
from customers.errors import DomainError
from meters.meters import get_meter, read_filter
from meters.models import Meter
from meters.voids import MAX_REASON, Selection, SelectionChanged, void_events

# What a page can show; a dry run counts all of it.
MOST_SHOWN = 100


class VoidForm(CommandForm):
    reason = long_text("Reason", required=True, help_text="Why it must not count. It is kept with the event.", rows=2)


class BulkVoidForm(CommandForm):
    start = width(instant("From", required=True), "mb-half")
    end = width(instant("Before", required=True), "mb-half")
    event_name = width(
        text("Event name", required=False, help_text="Exactly.", attrs={"autocapitalize": "off"}, strip=False),
        "mb-half",
    )
    customer = width(
        text("Customer id", required=False, attrs={"placeholder": "cus_…", "autocapitalize": "off"}), "mb-half"
    )
    meter = width(
        forms.ModelChoiceField(
            label="Meter",
            queryset=Meter.objects.order_by("name"),
            to_field_name="public_id",
            required=False,
            empty_label="any",
            help_text="Only events that this meter's name and filter match.",
            widget=forms.Select(attrs={"class": INPUT}),
        ),
        "mb-half",
    )
    filter = forms.CharField(
        label="Conditions on the metadata",
        required=False,
        help_text='As a meter has them, in JSON: {"conjunction": "and", "clauses": [{"key": "release", "operator":'
        ' "equals", "value": "7"}]}',
        widget=forms.Textarea(attrs={"class": f"{INPUT} mb-code", "rows": 3, "spellcheck": "false"}),
    )
    reason = long_text("Reason", required=True, help_text="Why they must not count. Kept with each event.", rows=2)

    def clean_filter(self) -> Any:
        shown = self.cleaned_data["filter"].strip()
        if not shown:
            return None
        try:
            return read_filter(json.loads(shown)).as_json()
        except ValueError as error:
            raise ValidationError("This is not JSON.") from error
        except DomainError as error:
            raise ValidationError(error.message) from error

    def clean_customer(self) -> Any:
        given = self.cleaned_data["customer"].strip()
        try:
            return get_customer(customer_id=given) if given else None
        except DomainError as error:
            raise ValidationError("There is no customer of this id.") from error

    def clean_reason(self) -> str:
        reason: str = self.cleaned_data["reason"]
        if len(reason) > MAX_REASON:
            raise ValidationError(f"At most {MAX_REASON} characters.")
        return reason

    def selection(self) -> Selection:
        given = self.cleaned_data
        return Selection(
            start=given["start"],
            end=given["end"],
            event_name=given["event_name"] or None,
            customer=given["customer"],
            meter=None if given["meter"] is None else get_meter(meter_id=given["meter"].public_id),
            filter=given["filter"],
        )


def bulk_void_view(owner: CommandAdmin, request: HttpRequest) -> HttpResponse:
    """GET asks. POST shows the dry run, which changes nothing; with what that one showed, POST voids."""
    if request.method not in ("GET", "HEAD", "POST"):
        return HttpResponseNotAllowed(["GET", "POST"])
    if not request.user.has_perm("meters.void_event"):
        raise PermissionDenied
    asked = request.method == "POST"
    form = BulkVoidForm(request.POST if asked else None, request=request, initial={"end": timezone.now()})
    context: dict[str, Any] = {}
    if asked and form.is_valid():
        try:
            if "shown" in request.POST:
                try:
                    return _void(request, form)
                except SelectionChanged as error:
                    form.add_error(None, error.message)
            context = _dry_run(request, form)
        except DomainError as error:
            form.add_error(None, error.message)
    return TemplateResponse(
        request,
        "admin/meters/event/void.html",
        {
            **owner.admin_site.each_context(request),
            "opts": owner.opts,
            "title": "Void events",
            "form": form,
            "media": form.media,
            "back_url": owner.list_url(),
            **context,
        },
    )


def _void(request: HttpRequest, form: BulkVoidForm) -> HttpResponse:
    voided = void_events(
        where=form.selection(),
        reason=form.cleaned_data["reason"],
        author=str(request.user),
        operator=request.user,
        shown=request.POST["shown"],
        now=timezone.now(),
    )
    many = "1 event is" if voided.events == 1 else f"{voided.events:,} events are"
    messages.success(request, f"{many} void. Closed periods are adjusted on their next invoice.")
    return HttpResponseRedirect(reverse("admin:meters_event_changelist"))


def _dry_run(request: HttpRequest, form: BulkVoidForm) -> dict[str, Any]:
    correction = preview_void(where=form.selection(), now=timezone.now())
    units, money = correction.voided.units, correction.money
    meters = [*(effect.meter for effect in units), *(effect.charge.meter for effect in money)]
    return {
        "correction": correction,
        "units": units[:MOST_SHOWN],
        "money": money[:MOST_SHOWN],
        "more": len(units) > MOST_SHOWN or len(money) > MOST_SHOWN,
        "carried": any(meter.carry_forward for meter in meters),
        "sent": [(name, request.POST.get(name, "")) for name in form.fields],
    }
