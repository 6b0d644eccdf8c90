"""What the operator enters once: tax rates, and how one customer is billed."""

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from billing.models.invoices import NumberSeries
from billing.models.products import TaxCategory
from customers.fields import ExactDecimalField
from customers.models import Customer


class TaxRate(models.Model):
    """A tax at a place. Of several rows of one name the most specific counts; taxes of different names add up."""

    # What is printed: "VAT", "GST", "QST".
    name = models.CharField(max_length=50)
    percent = ExactDecimalField()
    # ISO 3166 alpha-2; the region is what the customer's address calls its state. Empty: everywhere.
    country = models.CharField(max_length=2, blank=True)
    region = models.CharField(max_length=100, blank=True)
    # Empty: every category.
    tax_category = models.CharField(max_length=30, choices=TaxCategory, blank=True)
    # Invoices issued in [starts_at, ends_at).
    starts_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["country", "region", "name", "id"]
        constraints = [
            models.CheckConstraint(condition=Q(percent__gte=0, percent__lte=100), name="tax_percent_within_100"),
            models.CheckConstraint(
                condition=Q(starts_at__isnull=True) | Q(ends_at__isnull=True) | Q(ends_at__gt=F("starts_at")),
                name="tax_ends_after_start",
            ),
            models.CheckConstraint(condition=Q(region="") | ~Q(country=""), name="tax_region_has_country"),
        ]

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.country, self.region) if part) or "everywhere"
        return f"{self.name} {self.percent:f} %, {place}"


class BillingProfile(models.Model):
    """How one customer is billed, where it differs from the settings. A customer without a row is billed by these."""

    customer = models.OneToOneField(Customer, on_delete=models.PROTECT, related_name="billing_profile")
    tax_exempt = models.BooleanField(default=False)
    # Printed on the line: "Exempt: charity".
    exemption_reason = models.CharField(max_length=255, blank=True)
    # A business elsewhere that accounts for the tax itself.
    reverse_charge = models.BooleanField(default=False)
    tax_id = models.CharField(max_length=100, blank=True)
    # Hours an invoice stays a draft, beyond the lateness window; null takes the setting.
    grace_hours = models.PositiveIntegerField(null=True, blank=True)
    # Drafts wait until a person has approved them.
    needs_approval = models.BooleanField(default=False)
    # One invoice for all subscriptions whose periods close together.
    combine_invoices = models.BooleanField(default=False)
    # Null: the default series.
    series = models.ForeignKey(NumberSeries, on_delete=models.PROTECT, related_name="+", null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(tax_exempt=False) | ~Q(exemption_reason=""), name="profile_exemption_has_reason"
            ),
            models.CheckConstraint(
                condition=Q(reverse_charge=False) | ~Q(tax_id=""), name="profile_reverse_charge_has_tax_id"
            ),
        ]

    def __str__(self) -> str:
        return f"billing of {self.customer}"
