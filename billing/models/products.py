"""What is sold: a product, the versions of its price, and the charges that tie a meter to a price version."""

from decimal import Decimal

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from customers.fields import PublicIdField
from customers.ids import new_product_id
from meters.models import Meter

MAX_METERS_PER_PRODUCT = 10
LARGEST_THRESHOLD = 2**63 - 1


class Interval(models.TextChoices):
    """The contract's words, capitalised as on the wire; the quarter is ours."""

    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"
    QUARTER = "Quarter"
    YEAR = "Year"


class TaxCategory(models.TextChoices):
    DIGITAL_PRODUCTS = "digital_products", "Digital products"
    SAAS = "saas", "SaaS"
    E_BOOK = "e_book", "E-book"
    EDTECH = "edtech", "Edtech"


class PriceType(models.TextChoices):
    ONE_TIME = "one_time_price", "One-time"
    RECURRING = "recurring_price", "Recurring"
    USAGE_BASED = "usage_based_price", "Usage-based"


class Alignment(models.TextChoices):
    """Where billing periods begin."""

    ANNIVERSARY = "anniversary", "On the day the subscription began"
    CALENDAR = "calendar", "On the first of the calendar's week, month, quarter or year"


class Corrections(models.TextChoices):
    """What becomes of usage that is found after its period was invoiced."""

    ADJUST = "adjust", "An adjustment line on the next invoice"
    CREDIT_NOTE = "credit_note", "A credit note where too much was billed, an adjustment line where too little"
    IGNORE = "ignore", "Nothing; the difference is recorded"


class Covers(models.TextChoices):
    """What counts towards a commitment."""

    USAGE = "usage", "Usage"
    ALL = "all", "Usage and the fee of the same period"


class Product(models.Model):
    public_id = PublicIdField("product id", default=new_product_id, editable=False)
    name = models.CharField(max_length=255)
    description = models.TextField(null=True, blank=True)
    tax_category = models.CharField(max_length=30, choices=TaxCategory, default=TaxCategory.SAAS)
    corrections = models.CharField(max_length=11, choices=Corrections, default=Corrections.ADJUST)
    metadata = models.JSONField(default=dict, blank=True)
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return self.name

    def is_archived(self) -> bool:
        return self.archived_at is not None

    def current_price(self) -> "Price":
        """The newest version: what a new subscription gets."""
        newest = self.prices.order_by("-version").first()
        if newest is None:
            raise Price.DoesNotExist(f"{self} has no price.")
        return newest


class Price(models.Model):
    """One version of a product's price. Never edited: an edit makes the next version, subscriptions keep theirs."""

    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="prices")
    version = models.PositiveIntegerField()
    type = models.CharField(max_length=20, choices=PriceType)
    currency = models.CharField(max_length=3)
    # Minor units: the price of a one-time product, the fee of each period otherwise.
    fixed_amount = models.DecimalField(max_digits=20, decimal_places=0, default=Decimal(0))
    payment_frequency_count = models.PositiveIntegerField(null=True, blank=True)
    payment_frequency_interval = models.CharField(max_length=7, choices=Interval, null=True, blank=True)
    # Usage is billed in periods of its own where they are shorter than the fee's (a yearly plan with monthly usage).
    usage_frequency_count = models.PositiveIntegerField(null=True, blank=True)
    usage_frequency_interval = models.CharField(max_length=7, choices=Interval, null=True, blank=True)
    alignment = models.CharField(max_length=11, choices=Alignment, default=Alignment.ANNIVERSARY)
    # What the customer pays for usage in each usage period at least, in minor units; a line makes up the difference.
    commitment = models.DecimalField(max_digits=20, decimal_places=0, null=True, blank=True)
    commitment_covers = models.CharField(max_length=5, choices=Covers, default=Covers.USAGE)
    # The conventions that differ from billing.pricing's defaults, as billing.pricing.conventions_to_data writes them.
    conventions = models.JSONField(default=dict, blank=True)
    # The whole life of a subscription; it expires at its end.
    subscription_period_count = models.PositiveIntegerField(null=True, blank=True)
    subscription_period_interval = models.CharField(max_length=7, choices=Interval, null=True, blank=True)
    # Days before the first fee; usage inside them is recorded and free.
    trial_period_days = models.PositiveIntegerField(default=0)
    tax_inclusive = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["product", "-version"]
        constraints = [
            models.UniqueConstraint(fields=["product", "version"], name="price_one_row_per_version"),
            models.CheckConstraint(condition=Q(fixed_amount__gte=0), name="price_not_negative"),
            models.CheckConstraint(
                condition=Q(type="one_time_price")
                | Q(
                    payment_frequency_count__gte=1,
                    payment_frequency_interval__isnull=False,
                    subscription_period_count__gte=1,
                    subscription_period_interval__isnull=False,
                ),
                name="price_recurring_has_periods",
            ),
            models.CheckConstraint(
                condition=Q(usage_frequency_count__isnull=True, usage_frequency_interval__isnull=True)
                | Q(usage_frequency_count__gte=1, usage_frequency_interval__isnull=False),
                name="price_usage_period_is_whole",
            ),
            models.CheckConstraint(
                condition=Q(commitment__isnull=True) | Q(commitment__gt=0), name="price_commitment_positive"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.product} v{self.version}"

    def is_recurring(self) -> bool:
        return self.type != PriceType.ONE_TIME


class Charge(models.Model):
    """A meter priced within a price version."""

    price = models.ForeignKey(Price, on_delete=models.PROTECT, related_name="charges")
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="charges")
    # Minor units per unit: "0.1" is a tenth of a cent. Null for a model that has no single price per unit.
    price_per_unit = models.DecimalField(max_digits=17, decimal_places=12, null=True, blank=True)
    # How a quantity is priced, as billing.pricing.rule_to_data writes it. Null where the price per unit and the free
    # units say it all.
    terms = models.JSONField(null=True, blank=True)
    # Whole units free in each period, as the contract says them.
    free_threshold = models.BigIntegerField(
        default=0, validators=[MinValueValidator(0), MaxValueValidator(LARGEST_THRESHOLD)]
    )
    position = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["price", "position", "id"]
        constraints = [
            models.UniqueConstraint(fields=["price", "meter"], name="charge_one_per_meter"),
            models.CheckConstraint(
                condition=Q(price_per_unit__isnull=True) | Q(price_per_unit__gt=0), name="charge_price_positive"
            ),
            models.CheckConstraint(
                condition=Q(price_per_unit__isnull=False) | Q(terms__isnull=False), name="charge_says_its_price"
            ),
            models.CheckConstraint(condition=Q(free_threshold__gte=0), name="charge_threshold_not_negative"),
            models.CheckConstraint(condition=Q(position__lt=MAX_METERS_PER_PRODUCT), name="charge_at_most_ten"),
            models.UniqueConstraint(fields=["price", "position"], name="charge_one_per_position"),
        ]

    def __str__(self) -> str:
        return f"{self.meter} in {self.price}"
