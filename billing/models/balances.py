"""Money held for a customer: the balance and its ledger, and prepaid credit in grants. Both ledgers only grow."""

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from billing.models.credit_notes import CreditNote
from billing.models.invoices import Invoice
from customers.fields import PublicIdField
from customers.ids import new_balance_entry_id, new_grant_id
from customers.models import Customer


class Balance(models.Model):
    """What a customer holds in one currency, in minor units: the sum of its entries. The row is locked to change it."""

    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="balances")
    currency = models.CharField(max_length=3)
    amount = models.DecimalField(max_digits=30, decimal_places=0, default=0)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["customer", "currency"]
        constraints = [
            models.UniqueConstraint(fields=["customer", "currency"], name="balance_one_per_currency"),
            models.CheckConstraint(condition=Q(amount__gte=0), name="balance_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.customer.name} in {self.currency}"


class BalanceEntryKind(models.TextChoices):
    INVOICE_PAID = "invoice_paid", "Used for an invoice"
    INVOICE_RETURNED = "invoice_returned", "Given back by a void invoice"
    INVOICE_CREDIT = "invoice_credit", "Invoice below zero"
    CREDIT_NOTE = "credit_note", "Credit note"
    ADJUSTMENT = "adjustment", "Entered by an operator"


class BalanceEntry(models.Model):
    """One movement of a balance. A trigger refuses any later edit."""

    public_id = PublicIdField("entry id", default=new_balance_entry_id, editable=False)
    balance = models.ForeignKey(Balance, on_delete=models.PROTECT, related_name="entries")
    kind = models.CharField(max_length=20, choices=BalanceEntryKind)
    # Minor units; positive for the customer.
    amount = models.DecimalField(max_digits=30, decimal_places=0)
    after = models.DecimalField(max_digits=30, decimal_places=0)
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    credit_note = models.ForeignKey(CreditNote, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    reason = models.TextField(blank=True)
    author = models.CharField(max_length=255, blank=True)
    # Chosen by the application that made it: the same key again is the same entry.
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name_plural = "balance entries"
        constraints = [
            models.UniqueConstraint(fields=["balance", "idempotency_key"], name="balance_entry_once"),
            models.CheckConstraint(condition=~Q(amount=0), name="balance_entry_moves"),
            models.CheckConstraint(condition=Q(after__gte=0), name="balance_entry_after_not_negative"),
        ]
        indexes = [models.Index(fields=["balance", "-id"], name="balance_entry_last")]
        default_permissions = ("add", "view")

    def __str__(self) -> str:
        return self.public_id


class CreditGrant(models.Model):
    """Prepaid credit: money that pays for invoices before tax, until it is used up or expires."""

    public_id = PublicIdField("grant id", default=new_grant_id, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="credit_grants")
    name = models.CharField(max_length=255)
    currency = models.CharField(max_length=3)
    # Minor units: what was granted, and what is left of it (the sum of its entries).
    amount = models.DecimalField(max_digits=30, decimal_places=0)
    remaining = models.DecimalField(max_digits=30, decimal_places=0)
    # The lower is drawn first; then what expires first; then the older.
    priority = models.PositiveIntegerField(default=0)
    starts_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    # Taken back by an operator; nothing is drawn from it any more.
    withdrawn_at = models.DateTimeField(null=True, blank=True)
    author = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="grant_positive"),
            models.CheckConstraint(
                condition=Q(remaining__gte=0, remaining__lte=F("amount")), name="grant_remaining_within_amount"
            ),
            models.CheckConstraint(
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("starts_at")), name="grant_ends_after_start"
            ),
        ]
        indexes = [models.Index(fields=["customer", "currency"], condition=Q(remaining__gt=0), name="grant_to_draw")]
        permissions = [("withdraw_creditgrant", "Can withdraw a credit grant")]

    def __str__(self) -> str:
        return self.name


class GrantEntryKind(models.TextChoices):
    GRANTED = "granted", "Granted"
    DRAWN = "drawn", "Drawn by an invoice"
    RETURNED = "returned", "Given back"
    EXPIRED = "expired", "Expired"
    WITHDRAWN = "withdrawn", "Withdrawn"


class GrantEntry(models.Model):
    """One movement of a grant. A trigger refuses any later edit."""

    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, related_name="entries")
    kind = models.CharField(max_length=10, choices=GrantEntryKind)
    # Minor units; negative where the grant became less.
    amount = models.DecimalField(max_digits=30, decimal_places=0)
    after = models.DecimalField(max_digits=30, decimal_places=0)
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="grant_entries", null=True, blank=True)
    credit_note = models.ForeignKey(CreditNote, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    reason = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name_plural = "grant entries"
        constraints = [
            models.CheckConstraint(condition=~Q(amount=0), name="grant_entry_moves"),
            models.CheckConstraint(condition=Q(after__gte=0), name="grant_entry_after_not_negative"),
        ]
        indexes = [models.Index(fields=["grant", "-id"], name="grant_entry_last")]
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.kind} {self.amount} of {self.grant}"
