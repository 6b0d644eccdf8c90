"""Billing runs: who started one, how far it is, what came of it."""

from django.conf import settings
from django.db import models
from django.db.models import Q


class RunTrigger(models.TextChoices):
    SCHEDULE = "schedule", "Schedule"
    ADMIN = "admin", "Admin"
    COMMAND = "command", "Command"


class BillingRun(models.Model):
    """One pass over the periods that were due at `until`."""

    trigger = models.CharField(max_length=10, choices=RunTrigger)
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    # The instant it bills up to; now, unless an operator closes early.
    until = models.DateTimeField()
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    # Subscriptions with something due, and how each ended.
    due = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    parked = models.PositiveIntegerField(default=0)
    invoices = models.PositiveIntegerField(default=0)
    # {"USD": "12300"}: the invoices' totals in minor units.
    totals = models.JSONField(default=dict)

    class Meta:
        ordering = ["-started_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(done__lte=models.F("due")), name="run_done_at_most_due"
            )
        ]
        permissions = [("start_billingrun", "Can start a billing run")]

    def __str__(self) -> str:
        return f"run of {self.started_at:%Y-%m-%d %H:%M}"
