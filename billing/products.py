"""Products and the versions of their prices."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing.models import Charge, Interval, Price, PriceType, Product, TaxCategory
from billing.models.products import LARGEST_THRESHOLD, MAX_METERS_PER_PRODUCT
from billing.money import is_currency
from customers.errors import DomainError
from meters.models import Meter

# A fee of a billion billions of minor units is a typing error.
LARGEST_FEE = Decimal(10) ** 15
MAX_TRIAL_DAYS = 10_000
_DAYS = {"Day": 1, "Week": 7, "Month": 30, "Year": 365}
# The contract's longest subscription is 20 years; we only keep dates inside the calendar.
_LONGEST_DAYS = 100 * 366


class PriceInvalid(DomainError):
    pass


class ProductArchived(DomainError):
    code = "PRODUCT_IS_DELETED"
    status = 410


@dataclass(frozen=True, slots=True)
class ChargeTerms:
    """A meter with its price per unit (minor units) and the units free in each period."""

    meter: Meter
    price_per_unit: Decimal
    free_threshold: int = 0

    def __post_init__(self) -> None:
        price = self.price_per_unit
        if not price.is_finite() or price <= 0:
            raise PriceInvalid(f"The price per unit of “{self.meter.name}” must be above zero.")
        if price >= 100_000 or (price.as_tuple().exponent < -12 and price != round(price, 12)):  # type: ignore[operator]
            raise PriceInvalid(
                f"The price per unit of “{self.meter.name}” may have 5 digits before and 12 after the point, in the "
                "currency's minor unit."
            )
        if not 0 <= self.free_threshold <= LARGEST_THRESHOLD:
            raise PriceInvalid(f"The free threshold of “{self.meter.name}” must lie between 0 and {LARGEST_THRESHOLD}.")


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """What a price version says. `fixed_amount` is in minor units: the price (one-time) or the fee of each period."""

    type: str
    currency: str
    fixed_amount: Decimal = Decimal(0)
    payment_frequency_count: int | None = None
    payment_frequency_interval: str | None = None
    subscription_period_count: int | None = None
    subscription_period_interval: str | None = None
    trial_period_days: int = 0
    tax_inclusive: bool = False
    charges: tuple[ChargeTerms, ...] = ()

    def __post_init__(self) -> None:
        if self.type not in PriceType.values:
            raise PriceInvalid(f"A price is of type {', '.join(PriceType.values)}; not {self.type!r}.")
        if not is_currency(self.currency):
            raise PriceInvalid(f"{self.currency!r} is not a currency code such as USD.")
        fee = self.fixed_amount
        if not fee.is_finite() or fee != fee.to_integral_value() or not 0 <= fee <= LARGEST_FEE:
            raise PriceInvalid(f"The price must be a whole number of minor units from 0 to {LARGEST_FEE}.")
        if not 0 <= self.trial_period_days <= MAX_TRIAL_DAYS:
            raise PriceInvalid(f"A trial lasts between 0 and {MAX_TRIAL_DAYS} days.")
        if self.type == PriceType.ONE_TIME:
            if self.charges or self.trial_period_days:
                raise PriceInvalid("A one-time price has neither meters nor a trial.")
        else:
            self._check_periods()
        if self.charges and self.type != PriceType.USAGE_BASED:
            raise PriceInvalid("Only a usage-based price has meters.")
        if len(self.charges) > MAX_METERS_PER_PRODUCT:
            raise PriceInvalid(f"A product has at most {MAX_METERS_PER_PRODUCT} meters.")
        ids = [charge.meter.public_id for charge in self.charges]
        if len(set(ids)) < len(ids):
            raise PriceInvalid("A meter can be used once in a product.", code="DUPLICATE_METER_IDS_IN_REQUEST")

    def _check_periods(self) -> None:
        frequency = _days(self.payment_frequency_count, self.payment_frequency_interval, "payment frequency")
        life = _days(self.subscription_period_count, self.subscription_period_interval, "subscription period")
        if life < frequency:
            raise PriceInvalid("The subscription period must be at least as long as the payment frequency.")


def _days(count: int | None, interval: str | None, what: str) -> int:
    if interval not in Interval.values:
        raise PriceInvalid(f"The {what} needs an interval: {', '.join(Interval.values)}.")
    if count is None or count < 1:
        raise PriceInvalid(f"The {what} needs a count of 1 or more.")
    days = count * _DAYS[interval]
    if days > _LONGEST_DAYS:
        raise PriceInvalid(f"The {what} may be a hundred years at most.")
    return days


@transaction.atomic
def create_product(
    *,
    name: str,
    terms: PriceTerms,
    description: str | None = None,
    tax_category: str = TaxCategory.SAAS,
    metadata: Mapping[str, Any] | None = None,
) -> Product:
    """A product with version 1 of its price."""
    product = Product.objects.create(
        name=name, description=description, tax_category=tax_category, metadata=dict(metadata or {})
    )
    _add_version(product, terms, version=1)
    return product


@transaction.atomic
def change_price(*, product: Product, terms: PriceTerms) -> Price:
    """The next version of the price; the current one where nothing differs. Running subscriptions keep theirs."""
    Product.objects.select_for_update().get(pk=product.pk)
    current = product.current_price()
    if terms_of(current) == terms:
        return current
    return _add_version(product, terms, version=current.version + 1)


def terms_of(price: Price) -> PriceTerms:
    """What a stored version says, as a value."""
    return PriceTerms(
        type=price.type,
        currency=price.currency,
        fixed_amount=price.fixed_amount,
        payment_frequency_count=price.payment_frequency_count,
        payment_frequency_interval=price.payment_frequency_interval,
        subscription_period_count=price.subscription_period_count,
        subscription_period_interval=price.subscription_period_interval,
        trial_period_days=price.trial_period_days,
        tax_inclusive=price.tax_inclusive,
        charges=tuple(
            ChargeTerms(charge.meter, charge.price_per_unit, charge.free_threshold)
            for charge in price.charges.select_related("meter")
        ),
    )


def _add_version(product: Product, terms: PriceTerms, *, version: int) -> Price:
    kept = set(product.prices.values_list("charges__meter", flat=True)) if version > 1 else set()
    for charge in terms.charges:
        if charge.meter.is_archived() and charge.meter.pk not in kept:
            raise DomainError(
                f"Meter {charge.meter.public_id} is archived; unarchive it or use another.",
                code="METER_IS_DELETED",
                status=410,
            )
    price = Price.objects.create(
        product=product,
        version=version,
        type=terms.type,
        currency=terms.currency,
        fixed_amount=terms.fixed_amount,
        payment_frequency_count=terms.payment_frequency_count,
        payment_frequency_interval=terms.payment_frequency_interval,
        subscription_period_count=terms.subscription_period_count,
        subscription_period_interval=terms.subscription_period_interval,
        trial_period_days=terms.trial_period_days,
        tax_inclusive=terms.tax_inclusive,
    )
    Charge.objects.bulk_create(
        Charge(
            price=price,
            meter=charge.meter,
            price_per_unit=charge.price_per_unit,
            free_threshold=charge.free_threshold,
            position=position,
        )
        for position, charge in enumerate(terms.charges)
    )
    return price


def update_product(*, product: Product, **changes: Any) -> Product:
    """Change the texts: name, description, metadata, tax_category."""
    allowed = {"name", "description", "metadata", "tax_category"}
    if unknown := set(changes) - allowed:
        raise TypeError(f"not texts of a product: {sorted(unknown)}")
    for name, value in changes.items():
        setattr(product, name, value)
    product.save(update_fields=[*changes, "updated_at"])
    return product


def archive_product(*, product: Product, now: datetime) -> None:
    """No new subscriptions; running ones go on."""
    Product.objects.filter(pk=product.pk, archived_at__isnull=True).update(archived_at=now)
    product.refresh_from_db(fields=["archived_at"])


def unarchive_product(*, product: Product) -> None:
    Product.objects.filter(pk=product.pk).update(archived_at=None)
    product.refresh_from_db(fields=["archived_at"])
