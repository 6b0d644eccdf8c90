"""Differences that were found and, by the product's choice, not billed."""

from django.db import models
from django.utils import timezone

from billing.models.products import Charge
from billing.models.subscriptions import BillingPeriod
from customers.fields import ExactDecimalField


class IgnoredCorrection(models.Model):
    """Late, backfilled or voided usage of a closed period whose product ignores corrections: the record of it.

    It counts as billed, so that the same difference is found once.
    """

    period = models.ForeignKey(BillingPeriod, on_delete=models.PROTECT, related_name="ignored_corrections")
    # Null for what a commitment's true-up would have become.
    charge = models.ForeignKey(Charge, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    currency = models.CharField(max_length=3)
    # What would have been added: units and minor units, negative where too much was billed.
    quantity = ExactDecimalField()
    billable_units = ExactDecimalField()
    exact_amount = ExactDecimalField()
    amount = models.DecimalField(max_digits=30, decimal_places=0)
    explanation = models.JSONField(default=dict, blank=True)
    found_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-found_at", "-id"]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.amount} {self.currency} of {self.period}"
