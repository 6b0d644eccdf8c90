"""What was billed: invoices, frozen once issued, and the lines that explain themselves."""

from datetime import datetime
from decimal import Decimal

from django.db import models
from django.db.models import Q
from django.utils import timezone

from billing.models.products import Charge, Product
from billing.models.runs import BillingRun
from billing.models.subscriptions import Subscription
from customers.fields import ExactDecimalField, PublicIdField
from customers.ids import new_invoice_id
from customers.models import Customer


class InvoiceStatus(models.TextChoices):
    DRAFT = "draft", "Draft"
    ISSUED = "issued", "Open"
    PAID = "paid", "Paid"
    VOID = "void", "Void"


class InvoiceReason(models.TextChoices):
    """What made it necessary."""

    START = "start", "Subscription started"
    CYCLE = "cycle", "Billing period closed"
    CORRECTION = "correction", "Usage that came late"
    ONE_TIME = "one_time", "One-time charge"


class LineKind(models.TextChoices):
    FEE = "fee", "Fee, in advance"
    USAGE = "usage", "Usage, in arrears"
    ADJUSTMENT = "adjustment", "Adjustment of an earlier period"
    ONE_TIME = "one_time", "One-time"


class NumberSeries(models.Model):
    """The next invoice number. Its row is locked while an invoice is issued, so numbers have no gaps."""

    name = models.CharField(max_length=50, unique=True)
    next_number = models.PositiveBigIntegerField(default=1)

    class Meta:
        verbose_name_plural = "number series"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.name}: next is {self.next_number}"


class Invoice(models.Model):
    """A document to a customer. Names, addresses and prices are copied; a database trigger refuses any later edit."""

    public_id = PublicIdField("invoice id", default=new_invoice_id, editable=False)
    # Given when it is issued; a draft has none.
    number = models.CharField(max_length=50, null=True, blank=True, unique=True)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="invoices")
    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, related_name="invoices", null=True, blank=True
    )
    # The billing run that made it, if one did.
    run = models.ForeignKey(BillingRun, on_delete=models.PROTECT, related_name="invoices", null=True, blank=True)
    reason = models.CharField(max_length=10, choices=InvoiceReason)
    status = models.CharField(max_length=10, choices=InvoiceStatus, default=InvoiceStatus.DRAFT)
    currency = models.CharField(max_length=3)
    # Minor units. `total` is the sum of the printed lines; tax stands apart.
    subtotal = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    tax = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    total = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    # The billing period whose closing this invoice bills; the fee's period for a first invoice; null for one-time.
    period_start = models.DateTimeField(null=True, blank=True)
    period_end = models.DateTimeField(null=True, blank=True)
    # Dates on pages and PDF are shown in this zone.
    time_zone = models.CharField(max_length=64, default="UTC")
    # Copies, from the moment of issue.
    customer_name = models.CharField(max_length=255)
    customer_email = models.EmailField()
    customer_address = models.JSONField(default=dict, blank=True)
    seller_name = models.CharField(max_length=255, blank=True)
    seller_address = models.TextField(blank=True)
    seller_email = models.CharField(max_length=255, blank=True)
    issued_at = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField(null=True, blank=True)
    paid_at = models.DateTimeField(null=True, blank=True)
    voided_at = models.DateTimeField(null=True, blank=True)
    void_reason = models.TextField(blank=True)
    # Set by the function that makes it, from its `now`.
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["subscription", "reason", "period_start"],
                condition=~Q(status="void") & Q(reason__in=["start", "cycle"]),
                name="invoice_one_per_period",
            ),
            models.CheckConstraint(
                condition=Q(status="draft") | Q(number__isnull=False, issued_at__isnull=False),
                name="invoice_issued_has_number",
            ),
            models.CheckConstraint(
                condition=~Q(status="paid") | Q(paid_at__isnull=False), name="invoice_paid_has_instant"
            ),
            models.CheckConstraint(
                condition=~Q(status="void") | Q(voided_at__isnull=False), name="invoice_void_has_instant"
            ),
        ]
        indexes = [models.Index(fields=["status", "-issued_at"], name="invoice_by_status")]
        permissions = [
            ("mark_paid_invoice", "Can mark an invoice paid"),
            ("void_invoice", "Can void an invoice"),
        ]

    def __str__(self) -> str:
        return self.number or f"draft {self.public_id}"

    def is_overdue(self, *, now: datetime) -> bool:
        return self.status == InvoiceStatus.ISSUED and self.due_at is not None and self.due_at < now


class InvoiceLine(models.Model):
    """One printed line. It carries why the amount is what it is, so that no page computes it again."""

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=LineKind)
    description = models.TextField()
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="+")
    charge = models.ForeignKey(Charge, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    period_start = models.DateTimeField(null=True, blank=True)
    period_end = models.DateTimeField(null=True, blank=True)
    # Units metered (usage), bought (fee), or differing from what was billed (adjustment).
    quantity = ExactDecimalField()
    measurement_unit = models.CharField(max_length=100, blank=True)
    free_units = ExactDecimalField(default=Decimal(0))
    billable_units = ExactDecimalField()
    # Minor units per unit.
    unit_price = ExactDecimalField()
    # Minor units: as computed, and as printed (rounded once, half up).
    exact_amount = ExactDecimalField()
    amount = models.DecimalField(max_digits=30, decimal_places=0)
    # Steps in words and numbers, made by billing.pricing.
    explanation = models.JSONField(default=dict, blank=True)
    # False once its invoice is void: only live lines count as billed.
    live = models.BooleanField(default=True)

    class Meta:
        ordering = ["invoice", "position"]
        constraints = [
            models.UniqueConstraint(fields=["invoice", "position"], name="line_one_per_position"),
            models.UniqueConstraint(
                fields=["subscription", "kind", "charge", "period_start"],
                condition=Q(live=True, kind__in=["fee", "usage"]),
                nulls_distinct=False,
                name="line_billed_once",
            ),
        ]

    def __str__(self) -> str:
        return self.description
