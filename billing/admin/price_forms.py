"""The form of a product and its price. People type major units ("0.001" dollars); the domain gets minor ones."""

from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.forms import BaseFormSet, formset_factory

from billing.admin.charge_rows import KEPT, ChargeRow, amount_field, major_text, row_of
from billing.admin.conventions import (
    CONVENTIONS,
    FINER,
    PREFIX,
    convention_fields,
    conventions_shown,
    conventions_typed,
)
from billing.models import Alignment, Corrections, Covers, Interval, Price, PriceType, TaxCategory
from billing.models.products import MAX_METERS_PER_PRODUCT
from billing.money import is_currency, minor_digits, to_minor
from billing.products import ChargeTerms, PriceTerms, charge_rule
from customers.admin.base import CommandForm
from customers.admin.forms import (
    check_major_digits,
    choice,
    currency_choices,
    grouped_fields,
    long_text,
    pairs,
    switch,
    text,
    whole_number,
    width,
)
from meters.models import Meter

TYPES = [
    (PriceType.USAGE_BASED, "Usage-based: meters, with or without a fee"),
    (PriceType.RECURRING, "Recurring: a fee each period"),
    (PriceType.ONE_TIME, "One-time: billed once"),
]


PLURALS = [(interval, f"{interval.lower()}(s)") for interval in Interval.values]
ALIGNMENTS = [
    (Alignment.ANNIVERSARY, "on the day the subscription began"),
    (Alignment.CALENDAR, "with the calendar: a first partial one, then from the 1st (weeks from Monday)"),
]
CORRECTIONS = [
    (Corrections.ADJUST, "an adjustment line on the next invoice"),
    (Corrections.CREDIT_NOTE, "a credit note where too much was billed, else an adjustment line"),
    (Corrections.IGNORE, "nothing is billed, and the difference is recorded"),
]
COVERS = [(Covers.USAGE, "usage"), (Covers.ALL, "usage and the fee")]


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
    alignment = width(choice("Periods begin", ALIGNMENTS, initial=Alignment.ANNIVERSARY, required=False), "mb-half")
    usage_frequency_count = width(
        whole_number(
            "Usage billed every",
            least=1,
            most=36600,
            required=False,
            help_text="Empty: together with the fee. A yearly fee may have monthly usage.",
        ),
        "mb-quarter",
    )
    usage_frequency_interval = width(
        choice("Usage period", [("", "as the fee"), *PLURALS], required=False), "mb-quarter"
    )
    commitment = width(
        amount_field(
            "Commitment",
            help_text="What each usage period costs at least, over all meters; a line of its own makes up the "
            "difference. Empty: none.",
        ),
        "mb-half",
    )
    commitment_covers = width(choice("It is met by", COVERS, initial=Covers.USAGE, required=False), "mb-half")
    tax_inclusive = switch("Prices include tax", help_text="The tax is taken out of them, not added.")

    def __init__(
        self, data: Any = None, *, request: Any, obj: Any = None, price: Price | None = None, **kwargs: Any
    ) -> None:
        self.price = price
        charges: list[dict[str, Any]] | None = None
        kept = {}
        if price is not None:
            kwargs["initial"] = price_initial(price)
            rules = {charge.meter_id: charge_rule(charge) for charge in price.charges.all()}
            charges = [{"meter": meter, **row_of(rule, price.currency)} for meter, rule in rules.items()]
            kept = {row["meter"]: rules[row["meter"]] for row in charges if row["model"] == KEPT}
        super().__init__(data, request=request, obj=obj, **kwargs)
        self.fields.update(convention_fields(price.conventions if price else None))
        currency: Any = self.fields["currency"]
        currency.choices = currency_choices()
        used = [charge.meter_id for charge in price.charges.all()] if price else []
        meters = Meter.objects.filter(Q(archived_at__isnull=True) | Q(pk__in=used)).order_by("name", "pk")
        self.rows = charge_rows(initial=charges)(
            data, initial=charges, prefix="charges", form_kwargs={"meters": meters, "kept": kept}
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
        for name in ("fixed_amount", "commitment"):
            amount = values.get(name) if is_currency(currency) else None
            if problem := check_major_digits(amount, currency, digits=0):
                self.add_error(name, problem)
        if values.get("commitment") == 0:
            self.add_error("commitment", "A commitment is above zero; leave it empty for none.")
        period = ("usage_frequency_count", "usage_frequency_interval")
        if not set(period) & set(self.errors) and len([name for name in period if values.get(name)]) == 1:
            self.add_error("usage_frequency_count", "Say both how many and of which, or neither.")
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
        """Whether each row says a rule in the chosen currency."""
        currency = self.cleaned_data.get("currency", "") if hasattr(self, "cleaned_data") else ""
        if not is_currency(currency):
            return True
        fits = True
        for row in self.rows.forms:
            fits = row.read(currency) and fits
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
                ChargeTerms.of(row.cleaned_data["meter"], row.rule) for row in self.rows.forms if row.rule is not None
            )
        commitment = data["commitment"] if kind == PriceType.USAGE_BASED else None
        return PriceTerms(
            type=kind,
            currency=currency,
            fixed_amount=to_minor(data["fixed_amount"] or Decimal(0), currency),
            payment_frequency_count=data["payment_frequency_count"] if recurring else None,
            payment_frequency_interval=data["payment_frequency_interval"] if recurring else None,
            subscription_period_count=data["subscription_period_count"] if recurring else None,
            subscription_period_interval=data["subscription_period_interval"] if recurring else None,
            usage_frequency_count=(data["usage_frequency_count"] or None) if kind == PriceType.USAGE_BASED else None,
            usage_frequency_interval=(
                (data["usage_frequency_interval"] or None) if kind == PriceType.USAGE_BASED else None
            ),
            alignment=(data["alignment"] or Alignment.ANNIVERSARY) if recurring else Alignment.ANNIVERSARY,
            commitment=None if commitment is None else to_minor(commitment, currency),
            commitment_covers=data["commitment_covers"] or Covers.USAGE,
            conventions=conventions_typed(data, self.price.conventions if self.price else {}) if recurring else {},
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
                        "alignment",
                        "trial_period_days",
                        "tax_inclusive",
                    ],
                ),
            ],
        )

    @property
    def usage_groups(self) -> list[tuple[str, list[Any]]]:
        names = ["usage_frequency_count", "usage_frequency_interval", "commitment", "commitment_covers"]
        return grouped_fields(self, [("Usage of all meters", names)])

    @property
    def conventions(self) -> list[Any]:
        return [self[PREFIX + name] for name in CONVENTIONS]

    @property
    def finer_conventions(self) -> list[Any]:
        return [self[PREFIX + name] for name in FINER]

    @property
    def opens_conventions(self) -> bool:
        """Whether a convention differs from its default, so that it must not hide."""
        shown = [self[PREFIX + name] for name in CONVENTIONS | FINER]
        return any(field.errors or field.value() not in (None, "", field.field.initial) for field in shown)


def _corrections() -> Any:
    return choice(
        "Usage that changes after its invoice becomes",
        CORRECTIONS,
        initial=Corrections.ADJUST,
        required=False,
        help_text="Late, backfilled or voided events of a billed period. Issued invoices never change.",
    )


class ProductForm(PriceForm):
    name = width(text("Name", attrs={"placeholder": "AI Platform"}), "mb-half")
    tax_category = width(choice("Tax category", TaxCategory.choices, initial=TaxCategory.SAAS), "mb-half")
    description = long_text("Description", rows=2)
    corrections = _corrections()
    metadata = pairs()

    @property
    def text_group(self) -> list[tuple[str, list[Any]]]:
        return grouped_fields(self, [("Product", ["name", "tax_category", "description", "corrections"])])


class ProductTextsForm(CommandForm):
    """What may change about a product without a new price."""

    name = width(text("Name", help_text="Issued invoices keep the name they were issued with."), "mb-half")
    tax_category = width(choice("Tax category", TaxCategory.choices), "mb-half")
    description = long_text("Description")
    corrections = _corrections()
    metadata = pairs()

    def __init__(self, data: Any = None, *, request: Any, obj: Any = None, **kwargs: Any) -> None:
        kwargs["initial"] = {
            "name": obj.name,
            "tax_category": obj.tax_category,
            "description": obj.description,
            "corrections": obj.corrections,
            "metadata": obj.metadata,
        }
        super().__init__(data, request=request, obj=obj, **kwargs)
        self.fields["metadata"].initial = obj.metadata


def price_initial(price: Price) -> dict[str, Any]:
    initial = {name: getattr(price, name) for name in PriceForm.base_fields if hasattr(price, name)}
    return {
        **initial,
        "fixed_amount": major_text(price.fixed_amount, price.currency),
        "commitment": major_text(price.commitment, price.currency),
        **conventions_shown(price.conventions),
    }


def digits_by_currency() -> dict[str, int]:
    """Digits after the point, for the page's script: only those that are not two."""
    return {code: minor_digits(code) for code, _ in currency_choices() if minor_digits(code) != 2}
