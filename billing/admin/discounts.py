"""The discounts of a subscription: their forms, and what its page says of them."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone

from billing.models import Discount, DiscountScope, Subscription
from billing.money import plain, to_minor
from customers.admin.base import CommandForm
from customers.admin.formats import money
from customers.admin.forms import MajorAmountField, check_major_digits, choice, instant, model_choice, text, width

PERCENT, AMOUNT = "percent", "amount"


class DiscountForm(CommandForm):
    """A percentage or an amount, off the fee or the usage of each period."""

    name = text("Name", help_text="Printed with the line, such as Launch offer.")
    kind = width(choice("It is", [(PERCENT, "a percentage"), (AMOUNT, "an amount each period")]), "mb-half")
    value = width(
        MajorAmountField(label="How much", max_digits=30, decimal_places=None, help_text=""),
        "mb-half",
    )
    applies_to = choice("Taken off", DiscountScope.choices, initial=DiscountScope.ALL)
    starts_at = width(instant("From"), "mb-half")
    ends_at = width(instant("Until"), "mb-half")

    def __init__(self, data: Any = None, *, request: Any, obj: Any = None, **kwargs: Any) -> None:
        super().__init__(data, request=request, obj=obj, **kwargs)
        zone = timezone.get_default_timezone_name()
        value: Any = self.fields["value"]
        value.mb_affix = ""
        value.help_text = f"10 for 10 %, or 12.50 for that much {obj.price.currency if obj else ''}."
        self.fields[
            "starts_at"
        ].help_text = f"Periods that begin from then on; empty: the running one too. Time zone: {zone}."
        self.fields["ends_at"].help_text = "Periods that begin before then; empty: all."

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        currency, value = self.obj.price.currency, values.get("value")
        if value is not None and values.get("kind") == AMOUNT:
            if problem := check_major_digits(value, currency, digits=0):
                self.add_error("value", problem)
            else:
                values["minor"] = to_minor(value, currency)
        return values

    def terms(self) -> dict[str, Any]:
        """The discount as the domain wants it."""
        data = self.cleaned_data
        share: dict[str, Decimal] = {"percent": data["value"]} if data["kind"] == PERCENT else {"amount": data["minor"]}
        return {name: data[name] for name in ("name", "applies_to", "starts_at", "ends_at")} | share


def not_ended(subscription: Subscription) -> QuerySet[Discount]:
    """In the order in which they are taken."""
    now = timezone.now()
    return subscription.discounts.filter(Q(ends_at__isnull=True) | Q(ends_at__gt=now)).order_by("position")


class EndDiscountForm(CommandForm):
    discount = model_choice("Discount", Discount.objects.none())

    def __init__(self, data: Any = None, *, request: Any, obj: Any = None, **kwargs: Any) -> None:
        super().__init__(data, request=request, obj=obj, **kwargs)
        field: Any = self.fields["discount"]
        field.queryset = not_ended(obj)
        field.label_from_instance = lambda discount: f"{discount.name}: {discount_words(discount)}"


def discount_words(discount: Discount) -> str:
    """ "10 % off fee and usage", "$5.00 off the usage of each period"."""
    if discount.percent is not None:
        return f"{plain(discount.percent)} % off {discount.get_applies_to_display().lower()}"
    amount = money(discount.amount, discount.subscription.price.currency)
    return f"{amount} off the {discount.get_applies_to_display().lower()} of each period"


def discount_rows(subscription: Subscription, *, now: datetime, period_start: datetime | None) -> list[dict[str, Any]]:
    """Each discount with whether it counts for the running period, in the order in which they are taken."""
    rows = []
    for number, discount in enumerate(subscription.discounts.order_by("position"), start=1):
        at = period_start or now
        if discount.starts_at > at:
            state, tone = "to come", "info"
        elif discount.ends_at is not None and discount.ends_at <= at:
            state, tone = "ended", "calm"
        elif discount.ends_at is not None and discount.ends_at <= now:
            state, tone = "ends with this period", "warn"
        else:
            state, tone = "counts", "good"
        rows.append(
            {
                "number": number,
                "discount": discount,
                "words": discount_words(discount),
                "state": state,
                "tone": tone,
            }
        )
    return rows
