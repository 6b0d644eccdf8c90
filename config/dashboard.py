"""The start page: what is used, what it earns, and what needs a person. Every number comes from a named question."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django_celery_beat.models import PeriodicTask

from billing import reports
from billing.corrections import pending_corrections
from customers.admin.base import with_query
from customers.admin.charts import Series, ranked, sparkline, time_chart
from customers.admin.formats import money, money_change
from customers.models import ApiKey, Customer
from meters import reconciliation, rollups
from meters.admin.meters import definition_in_words, trend
from meters.admin.samples import as_curl, as_python, event_payload
from meters.models import Meter
from meters.partitions import MonthArchived
from meters.usage import customer_quantities, daily_quantities, event_volume, meter_activity, unmetered_event_names

DAYS = 30
# Questions asked once for each meter; more meters than this are found in their list.
MOST_METERS = 6
# Closed periods that the start page compares again; the page of corrections compares more.
MOST_COMPARED = 50
# How long a period may wait before somebody should look whether the schedule still runs.
BEAT_PATIENCE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Attention:
    """Something a person should look at, with where to do so."""

    title: str
    detail: str
    url: str
    tone: str = "warn"


def parked_badge(request: HttpRequest) -> str:
    return _counted(request, "parked", reports.parked_subscriptions)


def overdue_badge(request: HttpRequest) -> str:
    return _counted(request, "overdue", lambda: reports.overdue_invoices(now=timezone.now()))


def _counted(request: HttpRequest, name: str, count: Any) -> str:
    """The menu asks several times while it is drawn; the database is asked once."""
    known: dict[str, str] = request.__dict__.setdefault("_menu_counts", {})
    if name not in known:
        known[name] = str(count() or "")
    return known[name]


def start_page(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The start page's context. A person sees the parts that they may see."""
    now = timezone.now()
    may = {
        "meters": request.user.has_perm("meters.view_meter"),
        "billing": request.user.has_perm("billing.view_invoice"),
        "corrections": request.user.has_perm("billing.view_ignoredcorrection"),
    }
    context.update({"title": "Start", "now": now, "may": may})
    steps = reports.first_steps()
    if may["meters"] or may["billing"]:
        context["steps"] = _steps(steps)
        context["steps_done"] = steps.done
    if may["meters"]:
        context.update(_usage(now))
    if may["billing"]:
        context.update(_money(now))
    context["attention"] = _attention(now, may, context)
    return context


def _usage(now: datetime) -> dict[str, Any]:
    zone = settings.BILLING_TIME_ZONE
    span = reports.last_days(now=now, count=DAYS, time_zone=zone)
    before = reports.last_days(now=now, count=DAYS, time_zone=zone, back=DAYS)
    volume = event_volume(start=span.start, end=span.end, time_zone=zone)
    earlier = event_volume(start=before.start, end=before.end, time_zone=zone)
    total, total_before = sum(d.events for d in volume), sum(d.events for d in earlier)
    meters = list(Meter.objects.filter(archived_at__isnull=True).order_by("-created_at", "-id")[:MOST_METERS])
    cards, unreadable = [], []
    for meter in meters:
        try:
            days = daily_quantities(meter=meter, start=span.start, end=span.end, time_zone=zone)
            customers = customer_quantities(meter=meter, start=span.start, end=span.end)
        except MonthArchived:
            continue  # its page says why
        activity = meter_activity(meter=meter, start=span.start, end=span.end)
        if broken := activity.unreadable + activity.missing:
            unreadable.append((meter, broken))
        cards.append(
            {
                "meter": meter,
                "url": reverse("admin:meters_meter_change", args=[meter.pk]),
                "definition": definition_in_words(meter),
                "total": sum((used.quantity for used in customers), Decimal(0)),
                "spark": sparkline([Decimal(format(d.quantity, ".6g")) if d.quantity else 0 for d in days]),
                "customers": len(customers),
                "top": customers[0] if customers else None,
            }
        )
    busiest = reports.events_per_customer(start=span.start, end=span.end, limit=8)
    return {
        "volume_chart": time_chart(
            title="Events",
            days=[d.day for d in volume],
            series=[
                Series("Last 30 days", [Decimal(d.events) for d in volume]),
                Series("The 30 days before", [Decimal(d.events) for d in earlier], "dotted", "4"),
            ],
            unit="events",
            whole_numbers=True,
        ),
        "events_total": total,
        "events_trend": trend(total, total_before, DAYS),
        "events_today": volume[-1].events if volume else 0,
        "meter_cards": cards,
        "meters_more": Meter.objects.filter(archived_at__isnull=True).count() > MOST_METERS,
        "busiest": ranked(
            caption="Events per customer, last 30 days",
            label_head="Customer",
            value_head="Events",
            rows=[(c.name, Decimal(n), reverse("admin:customers_customer_change", args=[c.pk])) for c, n in busiest],
            empty="No customer has sent events in the last 30 days.",
        ),
        "unreadable": unreadable,
        "unmetered": unmetered_event_names(start=span.start, end=span.end),
    }


def _money(now: datetime) -> dict[str, Any]:
    figures = reports.money_now(now=now, time_zone=settings.BILLING_TIME_ZONE)
    accrued = reports.accrued_unbilled(now=now)
    return {
        "figures": figures,
        "accrued": accrued,
        "accruing": ranked(
            caption="Usage not billed yet",
            label_head="Customer",
            value_head="So far",
            rows=[
                (
                    f"{subscription.customer.name}",
                    amount,
                    reverse("admin:billing_subscription_change", args=[subscription.pk]),
                )
                for subscription, amount, currency in accrued.by_subscription[:8]
            ],
            shown=[money(amount, currency) for _, amount, currency in accrued.by_subscription[:8]],
            empty="Nothing is waiting to be billed.",
        ),
        "runs": [
            {
                "result": result,
                "tone": {"running": "info", "parked": "bad"}.get(result.state, "" if result.due else "calm"),
                "url": reverse("admin:billing_billingrun_change", args=[result.run.pk]),
            }
            for result in reports.latest_runs(limit=40)
        ],
        "invoices_url": reverse("admin:billing_invoice_changelist"),
    }


def _attention(now: datetime, may: dict[str, bool], context: dict[str, Any]) -> list[Attention]:
    found: list[Attention] = []
    if may["billing"]:
        if parked := reports.parked_subscriptions():
            found.append(
                Attention(
                    f"{_many(parked, 'subscription')} parked",
                    "Billing stopped for them and waits for a person; each says why.",
                    with_query(reverse("admin:billing_subscription_changelist"), status="parked"),
                    "bad",
                )
            )
        if late := context["figures"].overdue_count:
            found.append(
                Attention(
                    f"{_many(late, 'invoice')} overdue",
                    "Nobody has recorded the money after the due date.",
                    with_query(reverse("admin:billing_invoice_changelist"), status="overdue"),
                    "bad",
                )
            )
        figures = context["figures"]
        for subscription, reason in context["accrued"].unpriced[:3]:
            found.append(
                Attention(
                    f"The usage of {subscription.customer.name} has no price",
                    f"“{subscription.price.product.name}”: {reason} It will be parked when its period closes.",
                    reverse("admin:billing_subscription_change", args=[subscription.pk]),
                    "bad",
                )
            )
        if held := figures.held_count:
            found.append(
                Attention(
                    f"{_many(held, 'draft')} held",
                    "They are issued once somebody has released or approved them.",
                    with_query(reverse("admin:billing_invoice_changelist"), status="held"),
                )
            )
        if may["corrections"]:
            found += _corrections()
        waiting = reports.longest_waiting_period(now=now, lateness=settings.LATENESS_WINDOW)
        if waiting is not None and now - waiting > BEAT_PATIENCE:
            found.append(
                Attention(
                    "Billing periods are waiting to be closed",
                    "The schedule should have closed them. Look whether Celery beat and a worker run, or bill now.",
                    reverse("admin:billing_billingrun_start"),
                    "bad",
                )
            )
    if off := list(PeriodicTask.objects.filter(enabled=False).values_list("name", flat=True)[:5]):
        found.append(
            Attention(
                f"{_many(len(off), 'schedule')} switched off",
                ", ".join(off),
                reverse("admin:django_celery_beat_periodictask_changelist"),
            )
        )
    if may["meters"] and (checked := reconciliation.last_reconciliation()) is not None:
        context["reconciliation"] = {
            "record": checked,
            "url": reverse("admin:meters_reconciliation_change", args=[checked.pk]),
        }
        if checked.differing and not checked.fixed:
            found.append(
                Attention(
                    f"{_many(checked.differing, 'bucket')} of usage not as the event log says",
                    "Invoices may have been computed with them. The comparison says which, and how to mend them.",
                    context["reconciliation"]["url"],
                    "bad",
                )
            )
    for meter in rollups.stuck_meters() if may["meters"] else []:
        found.append(
            Attention(
                f"“{meter.name}” is not rolled up",
                f"Its quantities stay exact and are ever slower to read. The database says: {meter.roll_failure}",
                reverse("admin:meters_meter_change", args=[meter.pk]),
                "bad",
            )
        )
    for meter, broken in context.get("unreadable", []):
        found.append(
            Attention(
                f"{_many(broken, 'event')} not counted by “{meter.name}”",
                f"“{meter.property_key}” is missing or is no number in them.",
                reverse("admin:meters_meter_change", args=[meter.pk]),
            )
        )
    for name, events in context.get("unmetered", [])[:3]:
        found.append(
            Attention(
                f"{_many(events, 'event')} named “{name}” are read by no meter",
                "They are stored and not billed. A misspelt name looks like this.",
                with_query(reverse("admin:meters_event_changelist"), event_name=name),
            )
        )
    if may["meters"] and context.get("steps_done") and not ApiKey.objects.filter(revoked_at__isnull=True).exists():
        found.append(
            Attention(
                "There is no API key",
                "No application can send events.",
                reverse("admin:customers_apikey_add"),
            )
        )
    return found


def _corrections() -> list[Attention]:
    """What changed in billed periods and is not billed yet; of the first of them, where there are many."""
    pending = pending_corrections(limit=MOST_COMPARED)
    url = reverse("admin:billing_ignoredcorrection_pending")
    found = []
    if pending.unreadable:
        found.append(
            Attention(
                f"{_many(len(pending.unreadable), 'billed period')} cannot be compared",
                "A month that they need has left the event log. Restore it, so that late usage is billed.",
                url,
            )
        )
    if pending.corrections:
        least = "" if pending.complete else "At least "
        effect = ", ".join(money_change(amount, currency) for currency, amount in pending.totals.items())
        found.append(
            Attention(
                f"{least}{_many(len(pending.corrections), 'correction')} pending, {effect}",
                "Usage of billed periods changed. The next closing deals with it as each product says.",
                url,
                "info",
            )
        )
    return found


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _steps(steps: reports.FirstSteps) -> dict[str, Any] | None:
    """The quick start, ticked as it is done; None once the first invoice exists."""
    if steps.invoice and steps.done == 5:
        return None
    customer = (
        steps.subscription.customer.public_id
        if steps.subscription
        else Customer.objects.order_by("-id").values_list("public_id", flat=True).first() or "cus_abc123"
    )
    payload = event_payload(
        event_name=steps.meter.event_name if steps.meter else "api.call",
        metadata={"endpoint": "/v1/users", "method": "GET"},
        customer_id=customer,
    )
    return {
        "items": [
            {
                "title": "Create a meter",
                "detail": "What is counted: event name api.call, aggregation Count, unit calls.",
                "done": steps.meter is not None,
                "url": reverse("admin:meters_meter_add"),
            },
            {
                "title": "Create a usage-based product",
                "detail": "Connect the meter: $0.001 per call, 1,000 calls free.",
                "done": steps.product is not None,
                "url": reverse("admin:billing_product_add"),
            },
            {
                "title": "Subscribe a customer",
                "detail": "Create the customer first, then subscribe them to the product.",
                "done": steps.subscription is not None,
                "url": reverse("admin:billing_subscription_add")
                if Customer.objects.exists()
                else reverse("admin:customers_customer_add"),
            },
            {
                "title": "Create an API key and send events",
                "detail": "From your application, or with the lines beside this list.",
                "done": steps.key and steps.events,
                "url": reverse("admin:customers_apikey_add")
                if not steps.key
                else reverse("admin:meters_event_changelist"),
            },
            {
                "title": "Run billing and open the invoice",
                "detail": "The schedule closes each period by itself; to see one now, close it early.",
                "done": steps.invoice,
                "url": reverse("admin:billing_billingrun_start"),
            },
        ],
        "curl": as_curl(payload),
        "python": as_python(payload),
    }
