"""Discounts of one subscription: a share or an amount off its fee, its usage or both, one after the other."""

from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import Max

from billing.models import Discount, DiscountScope, Subscription
from billing.products import LARGEST_FEE
from billing.subscriptions import current_period, lock_subscription
from customers.errors import DomainError


class DiscountInvalid(DomainError):
    pass


@transaction.atomic
def add_discount(
    *,
    subscription: Subscription,
    name: str,
    now: datetime,
    percent: Decimal | None = None,
    amount: Decimal | None = None,
    applies_to: str = DiscountScope.ALL,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
) -> Discount:
    """Take a percentage, or an amount of minor units in each period, off what the subscription costs.

    It is the last in the order: it finds what the earlier ones left. It counts for periods that begin in
    [starts_at, ends_at), from the running one on unless said; what was billed before stays as it is. An amount is off
    the fee or off the usage, since the two are billed at different times.
    """
    if not name.strip():
        raise DiscountInvalid("Give the discount a name; it is printed.")
    if applies_to not in DiscountScope.values:
        raise DiscountInvalid(f"A discount applies to {', '.join(DiscountScope.values)}; not {applies_to!r}.")
    if (percent is None) == (amount is None):
        raise DiscountInvalid("A discount is a percentage or an amount, one of the two.")
    if percent is not None and not (percent.is_finite() and 0 < percent <= 100):
        raise DiscountInvalid("A percentage lies above 0 and is 100 at most.")
    if amount is not None:
        if not amount.is_finite() or amount != amount.to_integral_value() or not 0 < amount <= LARGEST_FEE:
            raise DiscountInvalid(f"An amount is a whole number of minor units from 1 to {LARGEST_FEE}.")
        if applies_to == DiscountScope.ALL:
            raise DiscountInvalid("Say whether the amount is off the fee or off the usage.")
    locked = lock_subscription(subscription.pk)
    assert locked is not None, "subscriptions are never deleted"  # noqa: S101
    period = current_period(subscription=locked, now=now)
    earliest = period.start if period is not None and period.closed_at is None else now
    begins = starts_at or earliest
    if begins < earliest:
        raise DiscountInvalid("A discount cannot begin before the running period: what was billed stays as it is.")
    if ends_at is not None and ends_at <= begins:
        raise DiscountInvalid("A discount ends after it begins.")
    last = locked.discounts.aggregate(last=Max("position"))["last"]
    return Discount.objects.create(
        subscription=locked,
        name=name.strip(),
        percent=percent,
        amount=amount,
        applies_to=applies_to,
        position=0 if last is None else last + 1,
        starts_at=begins,
        ends_at=ends_at,
        created_at=now,
    )


@transaction.atomic
def end_discount(*, discount: Discount, now: datetime) -> None:
    """Periods that begin from now on have it no more; the running one keeps it."""
    if discount.ends_at is not None and discount.ends_at <= now:
        raise DiscountInvalid("The discount has ended already.")
    discount.ends_at = max(now, discount.starts_at)
    discount.save(update_fields=["ends_at"])
