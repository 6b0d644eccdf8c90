"""What was billed: invoices, frozen once issued, and the lines that explain themselves."""

from datetime import datetime
from decimal import Decimal

from django.db import models
from django.db.models import Case, F, Q, Value, When
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
    UNCOLLECTIBLE = "uncollectible", "Uncollectible"


# Those that still ask to be paid, whether anybody expects it or not.
OPEN = (InvoiceStatus.ISSUED, InvoiceStatus.UNCOLLECTIBLE)


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
    COMMITMENT = "commitment", "Up to the commitment"


class NumberSeries(models.Model):
    """The next number of a series. Its row is locked while a document is issued, so numbers have no gaps."""

    name = models.CharField(max_length=50, unique=True)
    # Stands before the number; a document keeps what it was given.
    prefix = models.CharField(max_length=20, blank=True)
    next_number = models.PositiveBigIntegerField(default=1)

    class Meta:
        verbose_name_plural = "number series"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.name}: next is {self.next_number}"


class Invoice(models.Model):
    """A document to a customer. Names, addresses and prices are copied; a database trigger refuses any later edit."""

    public_id = PublicIdField("invoice id", default=new_invoice_id, editable=False)
    # Given when it is issued, from its series; a draft has none.
    number = models.CharField(max_length=50, null=True, blank=True, unique=True)
    series = models.ForeignKey(NumberSeries, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="invoices")
    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, related_name="invoices", null=True, blank=True
    )
    # The void invoice whose lines it bills again.
    replaces = models.OneToOneField("self", on_delete=models.PROTECT, related_name="replaced_by", null=True, blank=True)
    # The billing run that made it, if one did.
    run = models.ForeignKey(BillingRun, on_delete=models.PROTECT, related_name="invoices", null=True, blank=True)
    reason = models.CharField(max_length=10, choices=InvoiceReason)
    status = models.CharField(max_length=13, choices=InvoiceStatus, default=InvoiceStatus.DRAFT)
    currency = models.CharField(max_length=3)
    # Minor units, each the sum over the printed lines: what they cost, the prepaid credit drawn, the tax, and the
    # total of it (subtotal - credit + the tax that is not included in the prices).
    subtotal = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    credit = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    tax = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    total = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    # Paid from the customer's balance when it was issued; a negative total is put there (below zero).
    balance = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    # What the customer was asked for. Credit notes may have made it less since: `owed`.
    due = models.GeneratedField(
        expression=F("total") - F("balance"),
        output_field=models.DecimalField(max_digits=30, decimal_places=0),
        db_persist=True,
    )
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
    # A draft is issued when this comes, unless it is held; usage that arrives before is taken into it.
    issue_at = models.DateTimeField(null=True, blank=True)
    held_at = models.DateTimeField(null=True, blank=True)
    hold_reason = models.TextField(blank=True)
    approved_at = models.DateTimeField(null=True, blank=True)
    approved_by = models.CharField(max_length=255, blank=True)
    issued_at = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField(null=True, blank=True)
    paid_at = models.DateTimeField(null=True, blank=True)
    voided_at = models.DateTimeField(null=True, blank=True)
    void_reason = models.TextField(blank=True)
    uncollectible_at = models.DateTimeField(null=True, blank=True)
    uncollectible_reason = models.TextField(blank=True)
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
            models.CheckConstraint(
                condition=~Q(status="uncollectible") | Q(uncollectible_at__isnull=False),
                name="invoice_uncollectible_has_instant",
            ),
            models.CheckConstraint(condition=Q(credit__gte=0), name="invoice_credit_not_negative"),
        ]
        indexes = [
            models.Index(fields=["status", "-issued_at"], name="invoice_by_status"),
            models.Index(
                fields=["issue_at"], condition=Q(status="draft", held_at__isnull=True), name="invoice_to_issue"
            ),
        ]
        permissions = [
            ("mark_paid_invoice", "Can mark an invoice paid"),
            ("void_invoice", "Can void an invoice"),
            ("issue_invoice", "Can hold, approve and issue drafts"),
            ("credit_invoice", "Can credit an invoice"),
        ]

    def __str__(self) -> str:
        return self.number or f"draft {self.public_id}"

    def is_paid_without_money(self) -> bool:
        """Whether prepaid credit and the balance paid it whole; one that never cost anything was not paid by them."""
        took_something = self.total != 0 or self.credit != 0
        return self.status == InvoiceStatus.PAID and self.due == 0 and took_something

    def is_overdue(self, *, now: datetime) -> bool:
        return self.status == InvoiceStatus.ISSUED and self.due_at is not None and self.due_at < now


class InvoiceLine(models.Model):
    """One printed line. It carries why the amount is what it is, so that no page computes it again."""

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=LineKind)
    # Of an adjustment: the kind of line it corrects.
    adjusts = models.CharField(max_length=10, choices=LineKind, blank=True)
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
    # Minor units per unit; null where there is no single price (tiers, packages, dimensions).
    unit_price = ExactDecimalField(null=True, blank=True)
    # Minor units, as computed: what discounts took off, already gone from the amount.
    discount = ExactDecimalField(default=Decimal(0))
    # Minor units: as computed, and as printed (rounded once, half up).
    exact_amount = ExactDecimalField()
    amount = models.DecimalField(max_digits=30, decimal_places=0)
    # Minor units: this line's share of the prepaid credit, then its tax.
    credit = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    tax = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    # The amount contains the tax.
    tax_inclusive = models.BooleanField(default=False)
    # Each rate that was applied: [{"name": "VAT", "percent": "19", "amount": "190"}, …].
    taxes = models.JSONField(default=list, blank=True)
    # Why these rates, or none: "VAT for DE, SaaS", "Reverse charge", "Exempt: charity".
    tax_reason = models.TextField(blank=True)
    total = models.GeneratedField(
        expression=F("amount") - F("credit") + Case(When(tax_inclusive=True, then=Value(Decimal(0))), default=F("tax")),
        output_field=models.DecimalField(max_digits=30, decimal_places=0),
        db_persist=True,
    )
    # What a usage line stands on, so that it can be proved from the log: the digest of the meter's definition, the last
    # event id that could count, how many counted, and a digest over them. The price version is the charge's.
    meter_version = models.CharField(max_length=64, blank=True)
    watermark = models.BigIntegerField(null=True, blank=True)
    events_counted = models.BigIntegerField(null=True, blank=True)
    events_digest = models.CharField(max_length=64, blank=True)
    # Steps in words and numbers, made by billing.pricing.
    explanation = models.JSONField(default=dict, blank=True)
    # False once its invoice is void.
    live = models.BooleanField(default=True)
    # Whether the period counts as billed by it: also when void, unless the invoice is made anew.
    counts = models.BooleanField(default=True)

    class Meta:
        ordering = ["invoice", "position"]
        constraints = [
            models.UniqueConstraint(fields=["invoice", "position"], name="line_one_per_position"),
            models.UniqueConstraint(
                fields=["subscription", "kind", "charge", "period_start"],
                condition=Q(live=True, kind__in=["fee", "usage", "commitment"]),
                nulls_distinct=False,
                name="line_billed_once",
            ),
        ]
        indexes = [models.Index(fields=["subscription", "period_start"], name="line_of_period")]

    def __str__(self) -> str:
        return self.description
