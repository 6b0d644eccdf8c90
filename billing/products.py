"""Products and the versions of their prices."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing.models import Alignment, Charge, Corrections, Covers, Interval, Price, PriceType, Product, TaxCategory
from billing.models.products import LARGEST_THRESHOLD, MAX_METERS_PER_PRODUCT
from billing.money import is_currency
from billing.periods import Rule, why_not_nested
from billing.pricing import (
    ByDimension,
    ChargeRule,
    Conventions,
    PerUnit,
    PricingInvalid,
    conventions_from_data,
    conventions_to_data,
    rule_from_data,
    rule_to_data,
)
from customers.errors import DomainError
from meters.models import Meter

# A fee of a billion billions of minor units is a typing error.
# Ways to round tax that move prices which contain it by a unit.
_MOVING_PRICES = ("invoice_net", "invoice_gross")
LARGEST_FEE = Decimal(10) ** 15
MAX_TRIAL_DAYS = 10_000
_DAYS = {"Day": 1, "Week": 7, "Month": 30, "Quarter": 91, "Year": 365}
# The contract's longest subscription is 20 years; we only keep dates inside the calendar.
_LONGEST_DAYS = 100 * 366


class PriceInvalid(DomainError):
    pass


class ProductArchived(DomainError):
    code = "PRODUCT_IS_DELETED"
    status = 410


@dataclass(frozen=True, slots=True)
class ChargeTerms:
    """A meter and how its quantity is priced: a price per unit (minor units) with whole free units, or any other rule.

    `other` is None where the price per unit and the free units say it all. Beside it they are what the rule says of
    them: no price per unit for a model that has no single one.
    """

    meter: Meter
    price_per_unit: Decimal | None = None
    free_threshold: int = 0
    other: ChargeRule | None = None

    @classmethod
    def of(cls, meter: Meter, rule: ChargeRule) -> "ChargeTerms":
        """The terms of a rule, in the contract's words as far as they go."""
        price = rule.price.unit_price if isinstance(rule.price, PerUnit) else None
        whole = rule.free_units == rule.free_units.to_integral_value() and rule.free_units <= LARGEST_THRESHOLD
        free = int(rule.free_units) if whole else 0
        plain = price is not None and rule == ChargeRule(PerUnit(price), free_units=Decimal(free))
        return cls(meter, price, free, None if plain else rule)

    @property
    def rule(self) -> ChargeRule:
        """The same as billing.pricing takes it."""
        if self.other is not None:
            return self.other
        assert self.price_per_unit is not None, "checked when it was made"  # noqa: S101
        return ChargeRule(PerUnit(self.price_per_unit), free_units=Decimal(self.free_threshold))

    def __post_init__(self) -> None:
        self._check_dimensions()
        price = self.price_per_unit
        if price is None:
            if self.other is None:
                raise PriceInvalid(f"“{self.meter.name}” needs a price.")
            if self.free_threshold < 0:
                raise PriceInvalid(f"The free threshold of “{self.meter.name}” must not be below zero.")
            return
        if not price.is_finite() or price <= 0:
            raise PriceInvalid(f"The price per unit of “{self.meter.name}” must be above zero.")
        if price >= 100_000 or (price.as_tuple().exponent < -12 and price != round(price, 12)):  # type: ignore[operator]
            raise PriceInvalid(
                f"The price per unit of “{self.meter.name}” may have 5 digits before and 12 after the point, in the "
                "currency's minor unit."
            )
        if not 0 <= self.free_threshold <= LARGEST_THRESHOLD:
            raise PriceInvalid(f"The free threshold of “{self.meter.name}” must lie between 0 and {LARGEST_THRESHOLD}.")

    def _check_dimensions(self) -> None:
        if self.other is None or not isinstance(self.other.price, ByDimension):
            return
        missing = [key for key in self.other.price.keys if key not in self.meter.group_by]
        if missing:
            raise PriceInvalid(
                f"“{self.meter.name}” does not keep its usage by “{missing[0]}”, so it cannot be priced by it. Use a "
                "meter that groups by this key."
            )


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
    # None: usage is billed together with the fee.
    usage_frequency_count: int | None = None
    usage_frequency_interval: str | None = None
    alignment: str = Alignment.ANNIVERSARY
    # In minor units, of each usage period.
    commitment: Decimal | None = None
    commitment_covers: str = Covers.USAGE
    # Those that differ from the defaults, as billing.pricing writes them.
    conventions: Mapping[str, Any] = field(default_factory=dict)

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
        if self.type != PriceType.USAGE_BASED:
            if self.charges:
                raise PriceInvalid("Only a usage-based price has meters.")
            if self.commitment is not None or self.usage_frequency_count or self.usage_frequency_interval:
                raise PriceInvalid("Only a usage-based price has a commitment or usage periods of its own.")
        self._check_terms()
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
        if self.usage_frequency_count is not None or self.usage_frequency_interval is not None:
            _days(self.usage_frequency_count, self.usage_frequency_interval, "usage period")
            if reason := why_not_nested(self._periods("payment"), self._periods("usage")):
                raise PriceInvalid(reason)

    def _periods(self, which: str) -> Rule:
        """Periods of the price from some start: any will do to see whether one kind consists of the other."""
        return Rule(
            getattr(self, f"{which}_frequency_interval"),
            getattr(self, f"{which}_frequency_count"),
            anchor=datetime(2000, 1, 1, tzinfo=UTC),
            alignment=self.alignment,
        )

    def _check_terms(self) -> None:
        if self.alignment not in Alignment.values:
            raise PriceInvalid(f"The alignment is one of {', '.join(Alignment.values)}; not {self.alignment!r}.")
        if self.commitment_covers not in Covers.values:
            raise PriceInvalid(
                f"A commitment covers one of {', '.join(Covers.values)}; not {self.commitment_covers!r}."
            )
        least = self.commitment
        if least is not None and not (least == least.to_integral_value() and 0 < least <= LARGEST_FEE):
            raise PriceInvalid(f"The commitment must be a whole number of minor units from 1 to {LARGEST_FEE}.")
        try:
            conventions = conventions_to_data(conventions_from_data(self.conventions))
        except PricingInvalid as error:
            raise PriceInvalid(error.message) from error
        if self.tax_inclusive and conventions.get("tax_rounding") in _MOVING_PRICES:
            raise PriceInvalid(
                "Tax cannot be rounded on the invoice's net or gross sum (invoice_net, invoice_gross) where prices "
                "include it: that would change the prices as printed. Round it by line, or once for lines taxed alike."
            )
        if conventions.get("spread") == "exact":
            raise PriceInvalid(
                "An invoice is printed in whole minor units, so what is spread over its lines cannot stay exact."
            )
        # What says the defaults says nothing, so that two terms that mean the same are the same.
        object.__setattr__(self, "conventions", conventions)


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
    corrections: str = Corrections.ADJUST,
) -> Product:
    """A product with version 1 of its price."""
    product = Product.objects.create(
        name=name,
        description=description,
        tax_category=tax_category,
        metadata=dict(metadata or {}),
        corrections=corrections,
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
            ChargeTerms.of(charge.meter, charge_rule(charge)) for charge in price.charges.select_related("meter")
        ),
        usage_frequency_count=price.usage_frequency_count,
        usage_frequency_interval=price.usage_frequency_interval,
        alignment=price.alignment,
        commitment=price.commitment,
        commitment_covers=price.commitment_covers,
        conventions=price.conventions,
    )


def charge_rule(charge: Charge) -> ChargeRule:
    """How a stored charge prices a quantity: its terms, or the price per unit and the free units of the contract."""
    if charge.terms is not None:
        return rule_from_data(charge.terms)
    if charge.price_per_unit is None:
        raise PriceInvalid(f"{charge} says neither a price per unit nor terms.")
    return ChargeRule(price=PerUnit(charge.price_per_unit), free_units=Decimal(charge.free_threshold))


def price_conventions(price: Price) -> Conventions:
    """The conventions a stored price is rated by."""
    return conventions_from_data(price.conventions)


def settling_conventions(price: Price | None, *, tax_inclusive: bool) -> Conventions:
    """The conventions an invoice of this price is settled by; `tax_inclusive` where any of its lines contains its tax.

    A combined invoice may have lines of other prices, whose printed amounts do not move for the sake of this one's.
    """
    conventions = price_conventions(price) if price is not None else Conventions()
    if tax_inclusive and conventions.tax_rounding in _MOVING_PRICES:
        conventions = replace(conventions, tax_rounding="invoice")
    return conventions


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
        usage_frequency_count=terms.usage_frequency_count,
        usage_frequency_interval=terms.usage_frequency_interval,
        alignment=terms.alignment,
        commitment=terms.commitment,
        commitment_covers=terms.commitment_covers,
        conventions=dict(terms.conventions),
    )
    Charge.objects.bulk_create(
        Charge(
            price=price,
            meter=charge.meter,
            price_per_unit=charge.price_per_unit,
            free_threshold=charge.free_threshold,
            terms=None if charge.other is None else rule_to_data(charge.other),
            position=position,
        )
        for position, charge in enumerate(terms.charges)
    )
    return price


def update_product(*, product: Product, **changes: Any) -> Product:
    """Change the texts (name, description, metadata), the tax category and what becomes of late usage."""
    allowed = {"name", "description", "metadata", "tax_category", "corrections"}
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
