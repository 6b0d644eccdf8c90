"""Who buys what, and the billing periods that come of it."""

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField, RangeOperators
from django.db import models
from django.db.models import F, Func, Q
from django.utils import timezone

from billing.models.products import Price
from customers.fields import ExactDecimalField, PublicIdField
from customers.ids import new_subscription_id
from customers.models import Customer


class SubscriptionStatus(models.TextChoices):
    """The contract's words. `pending`, `on_hold`, `paused`, `failed` and `past_due` belong to collecting money."""

    PENDING = "pending"
    ACTIVE = "active"
    ON_HOLD = "on_hold"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FAILED = "failed"
    EXPIRED = "expired"
    PAST_DUE = "past_due"


# In these a subscription goes on into its next period.
RUNNING = (SubscriptionStatus.ACTIVE, SubscriptionStatus.ON_HOLD, SubscriptionStatus.PAST_DUE)


class Subscription(models.Model):
    public_id = PublicIdField("subscription id", default=new_subscription_id, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="subscriptions")
    # The price version it was sold at; edits of the product do not reach it.
    price = models.ForeignKey(Price, on_delete=models.PROTECT, related_name="subscriptions")
    # Multiplies the fee, never the usage.
    quantity = models.PositiveIntegerField(default=1)
    status = models.CharField(max_length=10, choices=SubscriptionStatus, default=SubscriptionStatus.ACTIVE)
    started_at = models.DateTimeField()
    # Periods are counted from here, in `time_zone`: period n ends at anchor + n x frequency. Moves only when an
    # operator moves the next billing date.
    anchor = models.DateTimeField()
    time_zone = models.CharField(max_length=64)
    trial_period_days = models.PositiveIntegerField(default=0)
    expires_at = models.DateTimeField()
    cancel_at_period_end = models.BooleanField(default=False)
    cancelled_at = models.DateTimeField(null=True, blank=True)
    cancel_reason = models.CharField(max_length=100, null=True, blank=True)
    cancellation_feedback = models.CharField(max_length=100, null=True, blank=True)
    cancellation_comment = models.TextField(null=True, blank=True)
    billing_address = models.JSONField(default=dict, blank=True)
    tax_id = models.CharField(max_length=100, null=True, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    # Billing met something unexpected: it stays away until a person has looked.
    parked_at = models.DateTimeField(null=True, blank=True)
    parked_reason = models.TextField(blank=True)
    # Set by the function that makes it, from its `now`.
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(condition=Q(quantity__gte=1), name="subscription_quantity_positive"),
            models.CheckConstraint(
                condition=~Q(status="cancelled") | Q(cancelled_at__isnull=False),
                name="subscription_cancelled_has_instant",
            ),
        ]
        permissions = [("cancel_subscription", "Can cancel a subscription")]

    def __str__(self) -> str:
        return f"{self.customer.name}: {self.price.product.name}"

    def is_running(self) -> bool:
        return self.status in RUNNING


class TsTzRange(Func):
    function = "TSTZRANGE"
    output_field = DateTimeRangeField()


class BillingPeriod(models.Model):
    """A half-open span [start, end) of a subscription, and whether its usage has been invoiced.

    These rows are the queue of billing: an open one whose end lies the lateness window back is due.
    """

    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="periods")
    # Counted from the anchor it was made with; -1 is the trial before the anchor.
    index = models.IntegerField()
    start = models.DateTimeField()
    end = models.DateTimeField()
    is_trial = models.BooleanField(default=False)
    # The uncut period that a partial one is part of: the first of a calendar, or one that ended early. Null otherwise.
    whole_start = models.DateTimeField(null=True, blank=True)
    whole_end = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    # Closed before the lateness window was over, or reached by a backfill: later events may still fall into it, so
    # each later closing compares it with what was billed.
    watch_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-start"]
        constraints = [
            models.CheckConstraint(condition=Q(end__gt=F("start")), name="period_not_empty"),
            models.CheckConstraint(
                condition=Q(whole_start__isnull=True, whole_end__isnull=True)
                | Q(whole_start__lte=F("start"), whole_end__gte=F("end")),
                name="period_within_its_whole",
            ),
            models.UniqueConstraint(fields=["subscription", "start"], name="period_one_per_start"),
            ExclusionConstraint(
                name="periods_do_not_overlap",
                expressions=[
                    ("subscription", RangeOperators.EQUAL),
                    (TsTzRange("start", "end"), RangeOperators.OVERLAPS),
                ],
            ),
        ]
        indexes = [
            models.Index(fields=["end"], condition=Q(closed_at__isnull=True), name="period_due"),
        ]

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d} to {self.end:%Y-%m-%d} of {self.subscription}"

    def is_closed(self) -> bool:
        return self.closed_at is not None


class DiscountScope(models.TextChoices):
    ALL = "all", "Fee and usage"
    USAGE = "usage", "Usage"
    FEE = "fee", "Fee"


class Discount(models.Model):
    """Taken off what one subscription costs in each period; several are taken one after the other, by `position`."""

    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="discounts")
    name = models.CharField(max_length=255)
    # One of the two: a share of what is left, or minor units of each period.
    percent = ExactDecimalField(null=True, blank=True)
    amount = models.DecimalField(max_digits=20, decimal_places=0, null=True, blank=True)
    applies_to = models.CharField(max_length=5, choices=DiscountScope, default=DiscountScope.ALL)
    position = models.PositiveIntegerField()
    # Periods that begin in [starts_at, ends_at) are discounted.
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["subscription", "position"]
        constraints = [
            models.UniqueConstraint(fields=["subscription", "position"], name="discount_one_per_position"),
            models.CheckConstraint(
                condition=Q(percent__gt=0, percent__lte=100, amount__isnull=True)
                | Q(amount__gt=0, percent__isnull=True),
                name="discount_percent_or_amount",
            ),
            models.CheckConstraint(
                condition=Q(ends_at__isnull=True) | Q(ends_at__gte=F("starts_at")), name="discount_ends_after_start"
            ),
        ]

    def __str__(self) -> str:
        return self.name
