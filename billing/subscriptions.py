"""Subscriptions: begin, go on from period to period, end."""

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Exists, OuterRef, QuerySet

from billing.invoices import issue_invoice, void_invoice
from billing.models import (
    BillingPeriod,
    ChargeType,
    Interval,
    InvoiceReason,
    InvoiceStatus,
    Payment,
    PaymentStatus,
    Price,
    Product,
    Subscription,
    SubscriptionStatus,
)
from billing.models.subscriptions import RUNNING
from billing.periods import Period, add_intervals, index_containing, period_at, whole_period
from billing.pricing import PricingInvalid
from billing.products import MAX_TRIAL_DAYS, ProductArchived
from billing.proposals import fee_rule, fees_owed, usage_rule
from customers.errors import Conflict, DomainError
from customers.models import Customer

logger = logging.getLogger(__name__)

# A subscription may begin in the past, but a typing error must not make ten thousand invoices.
MAX_PAST_PERIODS = 400
_CANCELLATION = ["cancel_at_period_end", "cancel_reason", "cancellation_feedback", "cancellation_comment"]
# No calendar arithmetic past this year.
_LAST_YEAR = 9000


class SubscriptionInactive(Conflict):
    code = "SUBSCRIPTION_INACTIVE"


@transaction.atomic
def subscribe(
    *,
    customer: Customer,
    product: Product,
    now: datetime,
    quantity: int = 1,
    starts_at: datetime | None = None,
    trial_period_days: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    billing_address: Mapping[str, Any] | None = None,
    tax_id: str | None = None,
    time_zone: str | None = None,
) -> Subscription:
    """Begin a subscription at the product's current price, open its first period, and bill the first fee.

    With a trial the first fee is billed when the trial has ended. A start with nothing to pay is recorded as a
    payment of zero without an invoice.
    """
    price = product.current_price()
    if product.is_archived():
        raise ProductArchived(f"“{product.name}” is archived and cannot be subscribed to.")
    if not price.is_recurring():
        raise DomainError(f"“{product.name}” has a one-time price and cannot be subscribed to.")
    if quantity < 1:
        raise DomainError("The quantity must be 1 or more.", code="INVALID_QUANTITY")
    trial = price.trial_period_days if trial_period_days is None else trial_period_days
    if not 0 <= trial <= MAX_TRIAL_DAYS:
        raise DomainError(f"A trial lasts between 0 and {MAX_TRIAL_DAYS} days.")
    zone = time_zone or settings.BILLING_TIME_ZONE
    start = starts_at or now
    _check_start(start, price, zone, now)
    anchor = add_intervals(start, Interval.DAY, trial, zone)
    subscription = Subscription.objects.create(
        customer=customer,
        price=price,
        quantity=quantity,
        started_at=start,
        anchor=anchor,
        time_zone=zone,
        trial_period_days=trial,
        expires_at=add_intervals(
            anchor, _text(price.subscription_period_interval), price.subscription_period_count or 1, zone
        ),
        billing_address=dict(billing_address or customer.billing_address),
        tax_id=tax_id,
        metadata=dict(metadata or {}),
        created_at=now,
    )
    if trial:
        BillingPeriod.objects.create(subscription=subscription, index=-1, start=start, end=anchor, is_trial=True)
    else:
        _bill_start(subscription, _open(subscription, start=anchor, index=0), now)
    if trial or price.fixed_amount == 0:
        Payment.objects.create(
            customer=customer,
            subscription=subscription,
            currency=price.currency,
            status=PaymentStatus.SUCCEEDED,
            charge_type=ChargeType.NEW,
            created_at=now,
        )
    return subscription


def _text(value: str | None) -> str:
    assert value is not None, "a recurring price has its intervals: price_recurring_has_periods"  # noqa: S101
    return value


def _check_start(start: datetime, price: Price, zone: str, now: datetime) -> None:
    if not 1900 <= start.year <= now.year + 10:
        raise DomainError("A subscription starts between 1900 and ten years from now.")
    past = index_containing(
        start,
        _text(price.usage_frequency_interval or price.payment_frequency_interval),
        price.usage_frequency_count or price.payment_frequency_count or 1,
        max(now, start),
        zone,
    )
    if past > MAX_PAST_PERIODS:
        raise DomainError(
            f"That start lies {past} billing periods back; at most {MAX_PAST_PERIODS} can be billed at once."
        )


def _bill_start(subscription: Subscription, period: BillingPeriod, now: datetime) -> None:
    lines = fees_owed(subscription, until=period.start)
    if lines:
        issue_invoice(
            customer=subscription.customer,
            subscription=subscription,
            reason=InvoiceReason.START,
            currency=subscription.price.currency,
            lines=lines,
            period_start=lines[0].period_start,
            period_end=lines[0].period_end,
            now=now,
        )


def natural_period(subscription: Subscription, instant: datetime) -> tuple[Period, Period]:
    """The period that holds `instant` by the subscription's rule, cut where it expires; and the whole of it."""
    rule = usage_rule(subscription)
    found = period_at(rule, instant)
    return Period(found.start, min(found.end, subscription.expires_at)), whole_period(rule, found)


def _open(subscription: Subscription, *, start: datetime, index: int) -> BillingPeriod:
    period, whole = natural_period(subscription, start)
    if period.start != start:
        raise DomainError(f"The period after {start.isoformat()} would start at {period.start.isoformat()}.")
    return BillingPeriod.objects.create(
        subscription=subscription, index=index, start=period.start, end=period.end, **_whole_of(period, whole)
    )


def _whole_of(period: Period, whole: Period) -> dict[str, datetime | None]:
    """The columns that say what a partial period is part of."""
    if period == whole:
        return {"whole_start": None, "whole_end": None}
    return {"whole_start": whole.start, "whole_end": whole.end}


def advance(subscription: Subscription, *, until: datetime) -> None:
    """Open every period that has begun by `until`, or end the subscription where it ends. The row must be locked."""
    last = subscription.periods.order_by("-end").first()
    while last is not None and subscription.is_running() and last.end <= until:
        if subscription.cancel_at_period_end:
            _end(subscription, SubscriptionStatus.CANCELLED, cancelled_at=last.end)
        elif last.end >= subscription.expires_at:
            _end(subscription, SubscriptionStatus.EXPIRED)
        else:
            index = 0 if last.end == subscription.anchor else last.index + 1
            last = _open(subscription, start=last.end, index=index)


def _end(subscription: Subscription, status: str, *, cancelled_at: datetime | None = None) -> None:
    subscription.status = status
    if cancelled_at is not None:
        subscription.cancelled_at = cancelled_at
    subscription.save(update_fields=["status", "cancelled_at", "updated_at"])


def advance_periods(*, now: datetime) -> int:
    """Open the next period of every running subscription whose last one is over. Returns how many moved on.

    One that cannot is parked with the reason, and the rest go on.
    """
    behind = (
        Subscription.objects.filter(status__in=RUNNING, parked_at__isnull=True)
        .exclude(Exists(BillingPeriod.objects.filter(subscription=OuterRef("pk"), end__gt=now)))
        .values_list("pk", flat=True)
    )
    moved = 0
    for pk in list(behind):
        try:
            with transaction.atomic():
                subscription = lock_subscription(pk, skip_locked=True)
                if subscription is not None:
                    advance(subscription, until=now)
                    moved += 1
        except (OperationalError, InterfaceError):
            raise  # the database went away: nothing is wrong with this subscription
        except Exception as error:
            logger.exception("subscription %s is parked", pk)
            park(subscription_id=pk, error=error, now=now)
    return moved


def park(*, subscription_id: int, error: Exception, now: datetime) -> None:
    """Keep billing away from it until a person has looked; the first reason stays."""
    Subscription.objects.filter(pk=subscription_id, parked_at__isnull=True).update(
        parked_at=now, parked_reason=reason_of(error)
    )


def reason_of(error: Exception) -> str:
    """An error as a sentence for the operator."""
    return error.message if isinstance(error, DomainError | PricingInvalid) else f"{type(error).__name__}: {error}"


def lock_subscription(pk: int, *, skip_locked: bool = False) -> Subscription | None:
    """The row, locked until the transaction ends; None where somebody else holds it and `skip_locked` is set."""
    rows: QuerySet[Subscription] = Subscription.objects.select_related("customer", "price__product")
    return rows.select_for_update(of=("self",), skip_locked=skip_locked).filter(pk=pk).first()


def _locked(subscription: Subscription, *, now: datetime) -> Subscription:
    row = lock_subscription(subscription.pk)
    assert row is not None, "subscriptions are never deleted"  # noqa: S101
    advance(row, until=now)
    return row


def _require_running(subscription: Subscription) -> None:
    if not subscription.is_running():
        raise SubscriptionInactive(f"The subscription is {subscription.status}.")


@transaction.atomic
def cancel_now(
    *,
    subscription: Subscription,
    now: datetime,
    reason: str | None = None,
    feedback: str | None = None,
    comment: str | None = None,
) -> Subscription:
    """End it at this instant. Usage up to now is invoiced when the lateness window is over; fees are not refunded."""
    row = _locked(subscription, now=now)
    _require_running(row)
    for period in row.periods.filter(end__gt=now):
        if period.start >= now:
            # Closed early; what was billed for it is given back, so what was not billed needs no record.
            period.ignored_corrections.all().delete()
            period.delete()
        else:
            # Closed early, it is compared again when the window of its new end is over.
            period.whole_start, period.whole_end = period.whole_start or period.start, period.whole_end or period.end
            period.end = now
            period.watch_until = now + settings.LATENESS_WINDOW if period.is_closed() else None
            period.save(update_fields=["end", "watch_until", "whole_start", "whole_end"])
    _take_back_unbegun_start(row, now)
    row.cancel_reason, row.cancellation_feedback, row.cancellation_comment = reason, feedback, comment
    row.cancel_at_period_end = False
    row.save(update_fields=_CANCELLATION)
    _end(row, SubscriptionStatus.CANCELLED, cancelled_at=now)
    subscription.refresh_from_db()
    return row


def _take_back_unbegun_start(subscription: Subscription, now: datetime) -> None:
    """The first fee of a subscription that never began: its open invoice is void; paid money is a person's matter."""
    for invoice in subscription.invoices.filter(reason=InvoiceReason.START, period_start__gte=now):
        if invoice.status == InvoiceStatus.ISSUED:
            void_invoice(invoice=invoice, reason="The subscription was cancelled before it began.", now=now)
        elif invoice.status == InvoiceStatus.PAID and invoice.total:
            error = DomainError(f"{invoice} was paid for a subscription that never began: give the money back by hand.")
            park(subscription_id=subscription.pk, error=error, now=now)


def schedule_cancellation(
    *,
    subscription: Subscription,
    now: datetime,
    reason: str | None = None,
    feedback: str | None = None,
    comment: str | None = None,
) -> Subscription:
    """End it with the running period."""
    return _plan_cancellation(subscription, True, reason, feedback, comment, now=now)


def revoke_cancellation(*, subscription: Subscription, now: datetime) -> Subscription:
    """Take a scheduled cancellation back; too late once it has happened."""
    return _plan_cancellation(subscription, False, None, None, None, now=now)


@transaction.atomic
def _plan_cancellation(
    subscription: Subscription,
    at_period_end: bool,
    reason: str | None,
    feedback: str | None,
    comment: str | None,
    *,
    now: datetime,
) -> Subscription:
    row = _locked(subscription, now=now)
    _require_running(row)
    row.cancel_at_period_end = at_period_end
    row.cancel_reason, row.cancellation_feedback, row.cancellation_comment = reason, feedback, comment
    row.save(update_fields=[*_CANCELLATION, "updated_at"])
    subscription.refresh_from_db()
    return row


@transaction.atomic
def move_next_billing_date(*, subscription: Subscription, to: datetime, now: datetime) -> Subscription:
    """End the running period at `to`; later periods count from there."""
    row = _locked(subscription, now=now)
    _require_running(row)
    if to < now:
        raise DomainError("Cannot change next_billing_date to past time")
    if to > row.expires_at or to > now + timedelta(days=366 * 20) or to.year > _LAST_YEAR:
        raise DomainError("The next billing date may not lie after the subscription expires.")
    last = row.periods.order_by("-end").first()
    if last is None or last.closed_at is not None:
        raise DomainError("The running period is closed already.")
    if to <= last.start:
        raise DomainError("The next billing date must lie after the start of the running period.")
    _require_end_of_fee(row, last)
    # The operator's own length of this period: it is a whole one.
    last.end, last.whole_start, last.whole_end = to, None, None
    last.save(update_fields=["end", "whole_start", "whole_end"])
    row.anchor = to
    row.save(update_fields=["anchor", "updated_at"])
    subscription.refresh_from_db()
    return row


def _require_end_of_fee(subscription: Subscription, last: BillingPeriod) -> None:
    """Where usage has shorter periods, fees are counted from the billing date too: one is paid for up to its end."""
    price = subscription.price
    if price.usage_frequency_interval is None or price.fixed_amount == 0 or last.is_trial:
        return
    running = period_at(fee_rule(subscription), last.start)
    paid_until = min(running.end, subscription.expires_at)
    owed = {line.period_start for line in fees_owed(subscription, until=last.start)}
    if last.start in owed:
        raise DomainError("The running fee is not billed yet: move the billing date once the last period is closed.")
    if last.end != paid_until:
        raise DomainError(
            f"The fee is paid until {paid_until:%Y-%m-%d}, and moving the billing date would bill the next one from "
            "there. Move it in the last usage period before that day."
        )


@transaction.atomic
def extend_expiry(*, subscription: Subscription, count: int, interval: str, now: datetime) -> Subscription:
    """Set the whole life of the subscription, counted from its start; it can only grow."""
    row = _locked(subscription, now=now)
    _require_running(row)
    if interval not in Interval.values or not 1 <= count <= 100 * 366:
        raise DomainError(f"A subscription period needs a count and an interval: {', '.join(Interval.values)}.")
    try:
        # From where its life was counted when it began: after the trial.
        began = add_intervals(row.started_at, Interval.DAY, row.trial_period_days, row.time_zone)
        until = add_intervals(began, interval, count, row.time_zone)
    except OverflowError:
        raise DomainError("That subscription period is too long.") from None
    if until <= row.expires_at:
        raise DomainError("The subscription period can only be extended.")
    if until.year > _LAST_YEAR:
        raise DomainError("That subscription period is too long.")
    before, row.expires_at = row.expires_at, until
    row.save(update_fields=["expires_at", "updated_at"])
    # A running period that the old end had cut short runs on to its natural end.
    last = row.periods.order_by("-end").first()
    if last is not None and last.closed_at is None and last.end == before != row.anchor:
        period, whole = natural_period(row, last.start)
        last.end = period.end
        for name, value in _whole_of(period, whole).items():
            setattr(last, name, value)
        last.save(update_fields=["end", "whole_start", "whole_end"])
    subscription.refresh_from_db()
    return row


def update_details(*, subscription: Subscription, **changes: Any) -> Subscription:
    """Change what billing does not depend on: metadata, billing_address, tax_id."""
    allowed = {"metadata", "billing_address", "tax_id"}
    if unknown := set(changes) - allowed:
        raise TypeError(f"not details of a subscription: {sorted(unknown)}")
    for name, value in changes.items():
        setattr(subscription, name, value)
    subscription.save(update_fields=[*changes, "updated_at"])
    return subscription


def current_period(*, subscription: Subscription, now: datetime) -> BillingPeriod | None:
    """The period that `now` falls in; the last one of a subscription that is over; None where there is none."""
    periods = subscription.periods.order_by("-end")
    return periods.filter(start__lte=now, end__gt=now).first() or periods.first()


@transaction.atomic
def unpark(*, subscription: Subscription) -> None:
    """A person has looked: the next billing run tries it again.

    Of a subscription that is over, what could not be billed or credited counts as settled by hand.
    """
    if not subscription.is_running():
        subscription.periods.filter(closed_at__isnull=False).update(watch_until=None)
    Subscription.objects.filter(pk=subscription.pk).update(parked_at=None, parked_reason="")
    subscription.refresh_from_db(fields=["parked_at", "parked_reason"])
