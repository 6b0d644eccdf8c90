"""Billing runs: a dry run first, then the run with its progress, its invoices, and what it parked."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from billing.cycles import ProposedInvoice, due_subscriptions, preview_run, start_run
from billing.invoices import address_for
from billing.models import (
    BillingProfile,
    BillingRun,
    InvoiceReason,
    InvoiceStatus,
    RunOutcome,
    RunTrigger,
    Subscription,
)
from billing.money import add
from billing.reports import run_results
from billing.subscriptions import unpark
from billing.tasks import enqueue_run
from customers.admin.base import CommandForm, PageAdmin, command, link_action
from customers.admin.formats import badge, moment, money_totals
from customers.admin.forms import instant, width
from customers.errors import DomainError

# What a page can show and a person can look through; the rest is billed all the same.
MOST_SHOWN = 200
# Subscriptions chosen in the list travel in the address.
MOST_CHOSEN = 500


class RunForm(CommandForm):
    until = width(instant("Bill everything up to"), "mb-half")


@admin.register(BillingRun)
class BillingRunAdmin(PageAdmin):
    page_template = "admin/billing/billingrun/page.html"
    list_display = (
        "started",
        "trigger_shown",
        "state",
        "progress_number",
        "parked_number",
        "invoices_number",
        "total_money",
    )
    list_display_links = ("started",)
    list_select_related = ("started_by",)
    list_filter = (("trigger", ChoicesDropdownFilter), ("started_at", RangeDateFilter))
    list_filter_submit = True
    list_per_page = 25
    sortable_by = ("started",)
    actions = None
    actions_list = ("run_billing",)
    actions_detail = ("try_again",)
    empty_state = (
        "No billing run yet",
        "Periods are closed by the schedule as they fall due. You can also run billing yourself: press “Run billing” "
        "above, look at the dry run, and confirm.",
    )

    # -- permissions -------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_start_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "start_billingrun")

    # -- list --------------------------------------------------------------------------------------------------

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """The page's runs with their results: two more statements in all."""
        changelist = super().get_changelist_instance(request)
        runs = list(changelist.result_list)
        for run, result in zip(runs, run_results(runs=runs), strict=True):
            run.result = result
        changelist.result_list = runs
        return changelist

    @display(description="Started", ordering="started_at")
    def started(self, obj: Any) -> str:
        return moment(obj.started_at)

    @display(description="By")
    def trigger_shown(self, obj: Any) -> str:
        return str(obj.started_by) if obj.started_by else str(obj.get_trigger_display())

    @display(description="Result")
    def state(self, obj: Any) -> str:
        return state_badge(obj.result)

    @display(description="Subscriptions")
    def progress_number(self, obj: Any) -> str:
        result = obj.result
        return f"{result.due}" if not result.pending else f"{result.done} of {result.due}"

    @display(description="Parked")
    def parked_number(self, obj: Any) -> int:
        return int(obj.result.parked)

    @display(description="Invoices")
    def invoices_number(self, obj: Any) -> str:
        result = obj.result
        drafts = f"{result.drafts} draft{'' if result.drafts == 1 else 's'}" if result.drafts else ""
        return ", ".join(
            part for part in (f"{result.invoices}" if result.invoices or not drafts else "", drafts) if part
        )

    @display(description="Total")
    def total_money(self, obj: Any) -> str:
        return money_totals(obj.result.totals)

    # -- pages ---------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [
            path("start/", view(self.start_view), name="billing_billingrun_start"),
            path("<path:object_id>/progress/", view(self.progress_view), name="billing_billingrun_progress"),
            *super().get_urls(),
        ]

    def start_view(self, request: HttpRequest) -> HttpResponse:
        """GET asks and shows the dry run, which saves nothing. POST starts the run."""
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "POST"])
        if not self.has_start_permission(request):
            raise PermissionDenied
        now = timezone.now()
        sent = request.POST if request.method == "POST" else request.GET
        refusal, chosen = "", None
        try:
            chosen = chosen_ids(sent.get("only", ""))
        except DomainError as error:
            refusal = error.message
        asked = "until" in sent and not refusal
        form = RunForm(sent if asked else None, request=request, initial={"until": now})
        context: dict[str, Any] = {}
        if asked and form.is_valid():
            until = form.cleaned_data["until"] or now
            try:
                if request.method == "POST":
                    return self._start(request, until, now, chosen)
                context = dry_run(until=until, now=now, chosen=chosen)
            except DomainError as error:
                form.add_error(None, error.message)
        return TemplateResponse(
            request,
            "admin/billing/billingrun/start.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": "Run billing",
                "form": form,
                "refusal": refusal,
                "only": ",".join(map(str, chosen or [])),
                "chosen": list(Subscription.objects.filter(pk__in=chosen).select_related("customer", "price__product"))
                if chosen
                else [],
                "lateness_minutes": int(settings.LATENESS_WINDOW.total_seconds() // 60),
                "all_url": reverse("admin:billing_billingrun_start"),
                **context,
            },
        )

    def _start(self, request: HttpRequest, until: datetime, now: datetime, chosen: list[int] | None) -> HttpResponse:
        run = start_run(
            trigger=RunTrigger.ADMIN, until=until, now=now, started_by=request.user, subscription_ids=chosen
        )
        self.log_addition(request, run, [{"added": {}}])
        hand_over(request, run)
        return HttpResponseRedirect(self.page_url(run))

    def progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The part of a run's page that is asked for again and again while it runs."""
        run = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, run):
            raise PermissionDenied
        if run is None:
            raise Http404("There is no such billing run.")
        return TemplateResponse(
            request, "admin/billing/billingrun/_progress.html", {**self.page_context(request, run), "obj": run}
        )

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        now = timezone.now()
        result = run_results(runs=[obj])[0]
        elapsed = ((obj.finished_at or now) - obj.started_at).total_seconds()
        return {
            "result": result,
            "state": state_badge(result),
            "progress_url": reverse("admin:billing_billingrun_progress", args=[quote(obj.pk)]),
            "slow": obj.finished_at is None and not result.done and elapsed > 20,
            "seconds": int(elapsed),
            "invoices": list(obj.invoices.select_related("customer").order_by("pk")[:MOST_SHOWN]),
            "held": obj.invoices.filter(status=InvoiceStatus.DRAFT, held_at__isnull=False).count(),
            "combined": obj.invoices.filter(subscription__isnull=True).exclude(status=InvoiceStatus.VOID).count(),
            "parked": list(
                obj.items.filter(outcome=RunOutcome.PARKED).select_related(
                    "subscription__customer", "subscription__price__product"
                )[:MOST_SHOWN]
            ),
            "now": now,
        }

    # -- what can be done ----------------------------------------------------------------------------------------

    @link_action(title="Run billing", permission="start", icon="play_circle")
    def run_billing(self, request: HttpRequest, object_id: str | None = None) -> str:
        return reverse("admin:billing_billingrun_start")

    @command(
        title="Try the parked ones again",
        permission="start",
        icon="restart_alt",
        variant=ActionVariant.PRIMARY,
        explain=lambda run: (
            f"Takes up again the {parked_now(run).count()} subscriptions that this run parked, in a new run up to the "
            "same moment. Those whose reason still stands are parked again."
        ),
        submit="Try again",
        available=lambda run: parked_now(run).exists(),
    )
    def try_again(self, request: HttpRequest, obj: BillingRun, form: CommandForm) -> str:
        parked = list(parked_now(obj))
        if not parked:
            raise DomainError("None of them is parked any more.")
        for subscription in parked:
            unpark(subscription=subscription)
        run = start_run(
            trigger=RunTrigger.ADMIN,
            until=obj.until,
            now=timezone.now(),
            started_by=request.user,
            subscription_ids=[subscription.pk for subscription in parked],
        )
        self.log_addition(request, run, [{"added": {}}])
        hand_over(request, run)
        return self.page_url(run)


def chosen_ids(text: str) -> list[int] | None:
    """The subscriptions named in the address; None for "all that are due". An address that is not understood bills
    nobody."""
    if not text:
        return None
    parts = text.split(",")
    if len(parts) > MOST_CHOSEN:
        raise DomainError(too_many_chosen(len(parts)))
    if not all(re.fullmatch(r"[0-9]{1,18}", part) for part in parts):
        raise DomainError("The address names the chosen subscriptions in a way that cannot be read.")
    found = sorted({int(part) for part in parts})
    missing = len(found) - Subscription.objects.filter(pk__in=found).count()
    if missing:
        raise DomainError(f"Of the {len(found)} subscriptions that the address names, {missing} cannot be found.")
    return found


def too_many_chosen(count: int) -> str:
    return (
        f"You chose {count:,} subscriptions; at most {MOST_CHOSEN} can be chosen by hand. Choose fewer, or bill all "
        "that are due."
    )


def dry_run(*, until: datetime, now: datetime, chosen: list[int] | None) -> dict[str, Any]:
    """What a run would issue, with totals; at most MOST_SHOWN invoices of it."""
    due = due_subscriptions(until=until)
    if chosen is not None:
        due = due.filter(pk__in=chosen)
    failed: list[tuple[Subscription, str]] = []

    def note(pk: int, reason: str) -> None:
        failed.append((Subscription.objects.select_related("customer", "price__product").get(pk=pk), reason))

    ids = list(due.order_by("pk").values_list("pk", flat=True)[: MOST_SHOWN + 1])
    proposals = list(preview_run(until=until, now=now, subscription_ids=ids[:MOST_SHOWN], on_failure=note))
    totals: dict[str, Decimal] = {}
    for proposal in proposals:
        assert proposal.settled is not None, "a preview settles"  # noqa: S101
        totals[proposal.currency] = add(totals.get(proposal.currency, Decimal(0)), proposal.settled.total)
    return {
        "asked": True,
        "until": until,
        "due_count": due.count() if len(ids) > MOST_SHOWN else len(ids),
        "proposals": list(islice(proposals, MOST_SHOWN)),
        "more": len(ids) > MOST_SHOWN,
        "most_shown": MOST_SHOWN,
        "failed": failed,
        "totals": totals,
        "draft_count": sum(1 for proposal in proposals if proposal.settled and proposal.settled.is_draft),
        "combined": _sharing(proposals),
    }


def _address(subscription: Subscription) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(address_for(subscription.customer, subscription).items()))


def _sharing(proposals: Sequence[ProposedInvoice]) -> int:
    """How many of them share an invoice with another of the same run: a dry run looks at each by itself."""
    customers = [proposal.subscription.customer_id for proposal in proposals]
    combining = set(
        BillingProfile.objects.filter(customer__in=customers, combine_invoices=True).values_list("customer", flat=True)
    )
    shared = Counter(
        (proposal.subscription.customer_id, proposal.currency, _address(proposal.subscription))
        for proposal in proposals
        if proposal.subscription.customer_id in combining and proposal.reason == InvoiceReason.CYCLE
    )
    return sum(count for count in shared.values() if count > 1)


def hand_over(request: HttpRequest, run: BillingRun) -> None:
    """Give the run to the workers. If they cannot be told, the schedule's next tick takes it up."""
    if run.finished_at is not None:
        messages.info(request, "Nothing was due, so nothing was billed.")
        return
    try:
        enqueue_run(run)
    except BrokerError:
        messages.warning(request, "The workers could not be told; the schedule takes this run up at its next tick.")


def parked_now(run: BillingRun) -> Any:
    return Subscription.objects.filter(
        pk__in=run.items.filter(outcome=RunOutcome.PARKED).values("subscription"), parked_at__isnull=False
    )


def state_badge(result: Any) -> Any:
    if result.state == "running":
        return badge("running")
    if result.parked:
        return badge(f"finished, {result.parked} parked", "bad")
    return badge("finished") if result.due else badge("nothing was due", "calm")
