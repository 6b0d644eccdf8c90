"""Billing runs: who started one, and what became of each subscription that was due."""

from django.conf import settings
from django.db import models

from billing.models.subscriptions import Subscription


class RunTrigger(models.TextChoices):
    SCHEDULE = "schedule", "Schedule"
    ADMIN = "admin", "Admin"
    COMMAND = "command", "Command"


class BillingRun(models.Model):
    """One pass over the subscriptions that had something due at `until`. Its invoices point back to it."""

    trigger = models.CharField(max_length=10, choices=RunTrigger)
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    # The instant it bills up to; now, unless an operator closes early.
    until = models.DateTimeField()
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-started_at", "-id"]
        permissions = [("start_billingrun", "Can start a billing run")]

    def __str__(self) -> str:
        return f"run of {self.started_at:%Y-%m-%d %H:%M}"


class RunOutcome(models.TextChoices):
    PENDING = "pending", "Waiting"
    CLOSED = "closed", "Closed"
    NOTHING = "nothing", "Nothing was due any more"
    PARKED = "parked", "Parked"


class RunItem(models.Model):
    """One subscription of a run. Pending ones are the queue: a worker claims a row, and its outcome commits together
    with the invoices, so a killed worker leaves either both or neither."""

    run = models.ForeignKey(BillingRun, on_delete=models.CASCADE, related_name="items")
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="+")
    outcome = models.CharField(max_length=10, choices=RunOutcome, default=RunOutcome.PENDING)
    # Why it was parked.
    reason = models.TextField(blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["run", "id"]
        constraints = [models.UniqueConstraint(fields=["run", "subscription"], name="run_item_once")]
        indexes = [
            models.Index(fields=["run"], condition=models.Q(outcome="pending"), name="run_item_pending"),
            models.Index(fields=["run", "outcome"], name="run_item_outcome"),
        ]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.subscription} in {self.run}"
