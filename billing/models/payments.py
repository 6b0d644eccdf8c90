"""Money collected for an invoice, in the contract's words."""

from decimal import Decimal

from django.db import models
from django.utils import timezone

from billing.models.invoices import Invoice
from billing.models.subscriptions import Subscription
from customers.fields import PublicIdField
from customers.ids import new_payment_id
from customers.models import Customer


class PaymentStatus(models.TextChoices):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PROCESSING = "processing"
    REQUIRES_PAYMENT_METHOD = "requires_payment_method"


class ChargeType(models.TextChoices):
    NEW = "new"
    RENEWAL = "renewal"
    PLAN_CHANGE = "plan_change"
    ON_DEMAND = "on_demand"


class Payment(models.Model):
    """The collection of one invoice. It appears when the invoice is issued and waits for the money.

    A subscription that starts with nothing to pay has a payment of zero without an invoice.
    """

    public_id = PublicIdField("payment id", default=new_payment_id, editable=False)
    invoice = models.OneToOneField(Invoice, on_delete=models.PROTECT, related_name="payment", null=True, blank=True)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="payments")
    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, related_name="payments", null=True, blank=True
    )
    amount = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=40, choices=PaymentStatus)
    charge_type = models.CharField(max_length=15, choices=ChargeType, null=True, blank=True)
    # Also bills metered usage, of the period before the service period.
    includes_usage = models.BooleanField(default=False)
    # How an operator says the money came: a transfer, a cheque number.
    note = models.TextField(blank=True)
    # Set by the function that makes it, from its `now`.
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return self.public_id
