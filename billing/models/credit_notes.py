"""Credit notes: what an issued invoice gives back, whole, by line or by amount. Frozen like the invoice."""

from decimal import Decimal

from django.db import models
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from billing.models.invoices import Invoice, InvoiceLine, NumberSeries
from customers.fields import ExactDecimalField, PublicIdField
from customers.ids import new_credit_note_id
from customers.models import Customer


class CreditNoteCause(models.TextChoices):
    OPERATOR = "operator", "Given by an operator"
    CORRECTION = "correction", "Usage that was taken back"


class CreditNote(models.Model):
    """A numbered document that reduces an issued invoice. It is never edited; a wrong one is made good by an invoice.

    All amounts are minor units, positive, and what is given back.
    """

    public_id = PublicIdField("credit note id", default=new_credit_note_id, editable=False)
    number = models.CharField(max_length=50, unique=True)
    series = models.ForeignKey(NumberSeries, on_delete=models.PROTECT, related_name="+")
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="credit_notes")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="credit_notes")
    currency = models.CharField(max_length=3)
    cause = models.CharField(max_length=10, choices=CreditNoteCause, default=CreditNoteCause.OPERATOR)
    reason = models.TextField()
    # Sums over the lines, as on the invoice.
    subtotal = models.DecimalField(max_digits=30, decimal_places=0)
    credit = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    tax = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    total = models.DecimalField(max_digits=30, decimal_places=0)
    # Where the total went: off what the invoice still asks for, and onto the customer's balance.
    to_invoice = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    to_balance = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    issued_at = models.DateTimeField()
    issued_by = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-issued_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(total=F("to_invoice") + F("to_balance"), to_invoice__gte=0, to_balance__gte=0),
                name="credit_note_goes_somewhere",
            ),
        ]

    def __str__(self) -> str:
        return self.number


class CreditNoteLine(models.Model):
    """What one line of the invoice gives back."""

    credit_note = models.ForeignKey(CreditNote, on_delete=models.PROTECT, related_name="lines")
    invoice_line = models.ForeignKey(InvoiceLine, on_delete=models.PROTECT, related_name="credited")
    position = models.PositiveIntegerField()
    description = models.TextField()
    # Minor units, as on the line: its amount, the prepaid credit given back in it, its tax.
    amount = models.DecimalField(max_digits=30, decimal_places=0)
    credit = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    tax = models.DecimalField(max_digits=30, decimal_places=0, default=Decimal(0))
    tax_inclusive = models.BooleanField(default=False)
    total = models.GeneratedField(
        expression=F("amount") - F("credit") + Case(When(tax_inclusive=True, then=Value(Decimal(0))), default=F("tax")),
        output_field=models.DecimalField(max_digits=30, decimal_places=0),
        db_persist=True,
    )
    # Of a correction: the units that were billed too many.
    quantity = ExactDecimalField(null=True, blank=True)
    explanation = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["credit_note", "position"]
        constraints = [
            models.UniqueConstraint(fields=["credit_note", "invoice_line"], name="credit_note_line_once"),
            models.CheckConstraint(condition=Q(amount__gte=0, credit__gte=0, tax__gte=0), name="credit_note_positive"),
        ]

    def __str__(self) -> str:
        return self.description
