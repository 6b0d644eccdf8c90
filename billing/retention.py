"""What billing still needs of the event log."""

from datetime import date

from django.db.models import Exists, OuterRef, Q

from billing.models import BillingPeriod, Subscription
from billing.models.subscriptions import RUNNING
from meters.models import Backfill
from meters.partitions import month_span


def month_in_use(month: date) -> str:
    """Why the events of this month (in UTC) must stay in the log, as a sentence; empty when billing is done with it.

    A period is done with when it is closed and no longer compared with what was billed for it.
    """
    start, end = month_span(month)
    period = (
        BillingPeriod.objects.filter(start__lt=end, end__gt=start)
        .filter(Q(closed_at__isnull=True) | Q(watch_until__isnull=False))
        .select_related("subscription__customer", "subscription__price__product")
        .order_by("start")
        .first()
    )
    name = f"{month:%B %Y}"
    if period is not None:
        still = "is not closed" if period.closed_at is None else "is still compared with what was billed"
        return f"{name} is needed: the period {period} {still}."
    behind = (
        Subscription.objects.filter(status__in=RUNNING, started_at__lt=end)
        .exclude(Exists(BillingPeriod.objects.filter(subscription=OuterRef("pk"), end__gte=end)))
        .select_related("customer", "price__product")
        .first()
    )
    if behind is not None:
        return f"{name} is needed: not all its billing periods of {behind} are opened yet."
    if Backfill.objects.filter(seen_at__isnull=True, first__lt=end, last__gte=start).exists():
        return f"{name} is needed: it received events that billing has not looked at yet."
    return ""
