"""The form of a product and its price. People type major units ("0.001" dollars); the domain gets minor ones."""

from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.forms import BaseFormSet, formset_factory

from billing.models import Interval, Price, PriceType, TaxCategory
from billing.models.products import LARGEST_THRESHOLD, MAX_METERS_PER_PRODUCT
from billing.money import is_currency, minor_digits, plain, to_major, to_minor
from billing.products import ChargeTerms, PriceTerms
from customers.admin.base import CommandForm
from customers.admin.forms import (
    MajorAmountField,
    check_major_digits,
    choice,
    currency_choices,
    grouped_fields,
    long_text,
    model_choice,
    pairs,
    switch,
    text,
    whole_number,
    width,
)
from meters.models import Meter

# A price per unit has 12 digits after the point in the minor unit.
UNIT_PRICE_DIGITS = 12

TYPES = [
    (PriceType.USAGE_BASED, "Usage-based: meters, with or without a fee"),
    (PriceType.RECURRING, "Recurring: a fee each period"),
    (PriceType.ONE_TIME, "One-time: billed once"),
]


PLURALS = [(interval, f"{interval.lower()}(s)") for interval in Interval.values]


def amount_field(label: str, *, help_text: str = "", required: bool = False, means: bool = False) -> Any:
    field = MajorAmountField(
        label=label,
        required=required,
        min_value=Decimal(0),
        max_digits=40,
        decimal_places=None,
        help_text=help_text,
    )
    field.mb_means = means  # type: ignore[attr-defined]
    return field


class ChargeRow(forms.Form):
    """One meter of the price."""

    meter = width(model_choice("Meter", Meter.objects.none()), "mb-third")
    price_per_unit = width(
        amount_field("Price per unit", required=True, means=True, help_text="In the major unit, such as 0.001."),
        "mb-third",
    )
    free_threshold = width(
        whole_number(
            "Free units each period",
            required=False,
            most=LARGEST_THRESHOLD,
            initial=0,
            help_text="Only units beyond these cost something.",
            attrs={"max": str(LARGEST_THRESHOLD)},
        ),
        "mb-third",
    )

    def __init__(self, *args: Any, meters: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["meter"]
        field.queryset = meters
        field.label_from_instance = lambda meter: (
            f"{meter.name} ({meter.measurement_unit}){' – archived' if meter.is_archived() else ''}"
        )


class ChargeRows(BaseFormSet):
    def clean(self) -> None:
        if any(self.errors):
            return
        meters = [row.cleaned_data["meter"] for row in self.forms if row.cleaned_data.get("meter")]
        twice = {meter.name for meter in meters if meters.count(meter) > 1}
        if twice:
            raise ValidationError(f"“{twice.pop()}” is chosen twice; a meter can be used once in a product.")


def charge_rows(*, initial: list[dict[str, Any]] | None) -> Any:
    """The form set of up to ten meters; a new product starts with one row."""
    return formset_factory(
        ChargeRow,
        formset=ChargeRows,
        extra=0 if initial else 1,
        max_num=MAX_METERS_PER_PRODUCT,
        validate_max=True,
        # Without it a browser may ask for a thousand rows.
        absolute_max=MAX_METERS_PER_PRODUCT + 1,
        can_delete=False,
    )


class PriceForm(CommandForm):
    """The terms of a price. `terms` is what the domain wants, once the form is valid."""

    type = width(choice("Type", TYPES), "mb-half")
    currency = width(choice("Currency", []), "mb-half")
    fixed_amount = width(
        amount_field(
            "Fee",
            help_text="The price of a one-time product; otherwise the fee of each period, billed in advance. "
            "0 for usage alone.",
        ),
        "mb-third",
    )
    payment_frequency_count = width(
        whole_number("Billed every", least=1, most=36600, initial=1, required=False), "mb-quarter"
    )
    payment_frequency_interval = width(choice("Period", PLURALS, initial=Interval.MONTH, required=False), "mb-quarter")
    subscription_period_count = width(
        whole_number(
            "A subscription lasts",
            least=1,
            most=36600,
            initial=20,
            required=False,
            help_text="Its whole life; then it expires.",
        ),
        "mb-quarter",
    )
    subscription_period_interval = width(
        choice("of these", PLURALS, initial=Interval.YEAR, required=False), "mb-quarter"
    )
    trial_period_days = width(
        whole_number(
            "Trial days",
            most=10_000,
            initial=0,
            required=False,
            help_text="Before the first fee; usage inside them is free.",
        ),
        "mb-third",
    )
    tax_inclusive = switch("Prices include tax", help_text="Said on the API; Meterbook itself adds no tax.")

    def __init__(
        self, data: Any = None, *, request: Any, obj: Any = None, price: Price | None = None, **kwargs: Any
    ) -> None:
        self.price = price
        charges: list[dict[str, Any]] | None = None
        if price is not None:
            kwargs["initial"] = price_initial(price)
            charges = [charge_initial(charge, price.currency) for charge in price.charges.all()]
        super().__init__(data, request=request, obj=obj, **kwargs)
        currency: Any = self.fields["currency"]
        currency.choices = currency_choices()
        used = [charge.meter_id for charge in price.charges.all()] if price else []
        meters = Meter.objects.filter(Q(archived_at__isnull=True) | Q(pk__in=used)).order_by("name", "pk")
        self.rows = charge_rows(initial=charges)(
            data, initial=charges, prefix="charges", form_kwargs={"meters": meters}
        )
        self.any_meter = meters.exists()

    def is_valid(self) -> bool:
        """The rows count only for a usage-based price: others hide them."""
        valid = super().is_valid()
        if self.is_bound and self.data.get("type") == PriceType.USAGE_BASED:
            valid = self.rows.is_valid() and self._rows_fit() and valid
            if valid and not any(row.cleaned_data.get("meter") for row in self.rows.forms):
                self.add_error(None, "A usage-based price needs at least one meter.")
                valid = False
        return valid

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        currency = values.get("currency", "")
        problem = check_major_digits(values.get("fixed_amount"), currency, digits=0) if is_currency(currency) else None
        if problem:
            self.add_error("fixed_amount", problem)
        if values.get("type") != PriceType.ONE_TIME:
            for name, label in (
                ("payment_frequency_count", "how often it is billed"),
                ("payment_frequency_interval", "the period"),
                ("subscription_period_count", "how long a subscription lasts"),
                ("subscription_period_interval", "the unit of its life"),
            ):
                if name in values and not values[name]:
                    self.add_error(name, f"Say {label}.")
        elif values.get("fixed_amount") is None and "fixed_amount" not in self.errors:
            self.add_error("fixed_amount", "Say what it costs; 0 is allowed.")
        return values

    def _rows_fit(self) -> bool:
        """Digits and size of each price per unit in the chosen currency."""
        currency = self.cleaned_data.get("currency", "") if hasattr(self, "cleaned_data") else ""
        if not is_currency(currency):
            return True
        fits = True
        for row in self.rows.forms:
            price = row.cleaned_data.get("price_per_unit")
            if price is None:
                continue
            problem = check_major_digits(price, currency, digits=UNIT_PRICE_DIGITS)
            if problem is None and price <= 0:
                problem = "The price per unit must be above zero."
            if problem is None and to_minor(price, currency) >= 100_000:
                largest = plain(to_major(Decimal(100_000), currency))
                problem = f"A price per unit must be below {largest} {currency}."
            if problem:
                row.add_error("price_per_unit", problem)
                fits = False
        return fits

    @property
    def terms(self) -> PriceTerms:
        """The price in minor units. May raise the domain's PriceInvalid."""
        data = self.cleaned_data
        currency = data["currency"]
        kind = data["type"]
        recurring = kind != PriceType.ONE_TIME
        charges: tuple[ChargeTerms, ...] = ()
        if kind == PriceType.USAGE_BASED:
            charges = tuple(
                ChargeTerms(
                    row.cleaned_data["meter"],
                    to_minor(row.cleaned_data["price_per_unit"], currency),
                    row.cleaned_data["free_threshold"] or 0,
                )
                for row in self.rows.forms
                if row.cleaned_data.get("meter")
            )
        return PriceTerms(
            type=kind,
            currency=currency,
            fixed_amount=to_minor(data["fixed_amount"] or Decimal(0), currency),
            payment_frequency_count=data["payment_frequency_count"] if recurring else None,
            payment_frequency_interval=data["payment_frequency_interval"] if recurring else None,
            subscription_period_count=data["subscription_period_count"] if recurring else None,
            subscription_period_interval=data["subscription_period_interval"] if recurring else None,
            trial_period_days=(data["trial_period_days"] or 0) if recurring else 0,
            tax_inclusive=data["tax_inclusive"],
            charges=charges,
        )

    @property
    def price_groups(self) -> list[tuple[str, list[Any]]]:
        return grouped_fields(
            self,
            [
                ("Price", ["type", "currency", "fixed_amount"]),
                (
                    "Billing period",
                    [
                        "payment_frequency_count",
                        "payment_frequency_interval",
                        "subscription_period_count",
                        "subscription_period_interval",
                        "trial_period_days",
                        "tax_inclusive",
                    ],
                ),
            ],
        )


class ProductForm(PriceForm):
    name = width(text("Name", attrs={"placeholder": "AI Platform"}), "mb-half")
    tax_category = width(choice("Tax category", TaxCategory.choices, initial=TaxCategory.SAAS), "mb-half")
    description = long_text("Description", rows=2)
    metadata = pairs()

    @property
    def text_group(self) -> list[tuple[str, list[Any]]]:
        return grouped_fields(self, [("Product", ["name", "tax_category", "description"])])


class ProductTextsForm(CommandForm):
    """What may change about a product without a new price."""

    name = width(text("Name", help_text="Issued invoices keep the name they were issued with."), "mb-half")
    tax_category = width(choice("Tax category", TaxCategory.choices), "mb-half")
    description = long_text("Description")
    metadata = pairs()

    def __init__(self, data: Any = None, *, request: Any, obj: Any = None, **kwargs: Any) -> None:
        kwargs["initial"] = {
            "name": obj.name,
            "tax_category": obj.tax_category,
            "description": obj.description,
            "metadata": obj.metadata,
        }
        super().__init__(data, request=request, obj=obj, **kwargs)
        self.fields["metadata"].initial = obj.metadata


def major_text(minor: Decimal, currency: str) -> str:
    """A minor amount as it would be typed: "0.001", "49"."""
    return plain(to_major(minor, currency))


def price_initial(price: Price) -> dict[str, Any]:
    initial = {name: getattr(price, name) for name in PriceForm.base_fields if hasattr(price, name)}
    return {**initial, "fixed_amount": major_text(price.fixed_amount, price.currency)}


def charge_initial(charge: Any, currency: str) -> dict[str, Any]:
    return {
        "meter": charge.meter_id,
        "price_per_unit": major_text(charge.price_per_unit, currency),
        "free_threshold": charge.free_threshold,
    }


def digits_by_currency() -> dict[str, int]:
    """Digits after the point, for the page's script: only those that are not two."""
    return {code: minor_digits(code) for code, _ in currency_choices() if minor_digits(code) != 2}
