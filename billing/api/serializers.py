"""What may be asked about products, subscriptions and payments, and how."""

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers

from billing.models import Alignment, Corrections, Covers, Interval, PaymentStatus, SubscriptionStatus, TaxCategory
from billing.models.products import LARGEST_THRESHOLD, MAX_METERS_PER_PRODUCT
from billing.pricing import (
    ChargeRule,
    PerUnit,
    PricingInvalid,
    conventions_from_data,
    conventions_to_data,
    rule_from_data,
    rule_to_data,
)
from billing.products import LARGEST_FEE, MAX_TRIAL_DAYS, ChargeTerms, PriceTerms
from customers.api.fields import (
    Choice,
    Email,
    Flag,
    Instant,
    Metadata,
    Pattern,
    Query,
    QueryFlag,
    Request,
    Text,
    WholeNumber,
)
from customers.errors import DomainError
from meters.models import Meter

# -- prices -------------------------------------------------------------------------------------------------------

_DISCOUNTS = frozenset({"discount", "discount_bps", "purchasing_power_parity"})
_INTERVALS = Interval.choices
_LONGEST_COUNT = 100 * 366
# A table of prices that is longer is a mistake, and would be read with every invoice.
_LONGEST_PRICING = 200_000
# It is printed on every line.
_LONGEST_NAME = 255


@extend_schema_field(
    {
        "type": "object",
        "properties": {"model": {"type": "string"}},
        "required": ["model"],
        "additionalProperties": True,
        "description": "Any way to price the meter, as docs/pricing.md has it. Amounts are in the minor unit.",
    }
)
class Pricing(serializers.Field):
    """How a quantity is priced, as `billing.pricing.rule_from_data` reads it."""

    default_error_messages = {
        "invalid": "must be an object with a model.",
        "long": f"is longer than {_LONGEST_PRICING:,} characters.",
        "name": f"pricing.discounts: a name has at most {_LONGEST_NAME} characters; it is printed.",
    }

    def to_internal_value(self, data: Any) -> ChargeRule:
        if not isinstance(data, dict):
            self.fail("invalid")
        try:
            rule = rule_from_data(data, field="pricing")
        except PricingInvalid as error:
            raise serializers.ValidationError(error.message) from error
        if len(json.dumps(rule_to_data(rule))) > _LONGEST_PRICING:
            self.fail("long")
        if any(len(discount.name) > _LONGEST_NAME for discount in rule.discounts):
            self.fail("name")
        return rule


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": True,
        "description": "What differs from the defaults, by name; docs/pricing.md lists them.",
    }
)
class ConventionsField(serializers.Field):
    """The conventions that differ from the defaults."""

    default_error_messages = {"invalid": "must be an object."}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("invalid")
        try:
            return conventions_to_data(conventions_from_data(data))
        except PricingInvalid as error:
            raise serializers.ValidationError(error.message) from error


class MeterOfPrice(Request):
    """`price_per_unit` and `free_threshold`, or `pricing` for every other model (not in the Dodo contract)."""

    harmless = frozenset({"name", "description", "measurement_unit"})
    unsupported = frozenset({"credit_entitlement_id", "meter_units_per_credit"})

    meter_id = Text(max_length=100)
    price_per_unit = Pattern(
        r"^[0-9]{1,5}(\.[0-9]{1,12})?\Z",
        said='must be a decimal string in the currency\'s minor unit, such as "0.1" for a tenth of a cent, with '
        "at most 5 digits before and 12 after the point.",
        help_text='A decimal string in the currency\'s **minor** unit, above 0: "0.1" is a tenth of a cent. Null or '
        "left out where `pricing` says it.",
        required=False,
        allow_null=True,
    )
    free_threshold = WholeNumber(min_value=0, max_value=LARGEST_THRESHOLD, required=False, allow_null=True)
    pricing = Pricing(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One rule out of both ways to say it; what is said twice must be the same."""
        price, free, rule = attrs.get("price_per_unit"), attrs.get("free_threshold"), attrs.get("pricing")
        if rule is None:
            if price is None:
                missing = "null" if "price_per_unit" in attrs else "required"
                raise serializers.ValidationError(
                    {"price_per_unit": [str(self.fields["price_per_unit"].error_messages[missing])]}
                )
            return attrs
        if price is not None and not (isinstance(rule.price, PerUnit) and rule.price.unit_price == Decimal(price)):
            raise serializers.ValidationError({"price_per_unit": ["differs from pricing; leave it out."]})
        if free:
            if rule.free_units not in (0, free):
                raise serializers.ValidationError({"free_threshold": ["differs from pricing; leave it out."]})
            attrs["pricing"] = replace(rule, free_units=Decimal(free))
        return attrs


class OneTimePrice(Request):
    unsupported = _DISCOUNTS | {"pay_what_you_want", "suggested_price"}

    type = Choice(choices=["one_time_price"])
    currency = Text(max_length=3)
    price = WholeNumber(min_value=0, max_value=int(LARGEST_FEE), help_text="In the currency's minor unit.")
    tax_inclusive = Flag(required=False, allow_null=True)


class _PeriodicPrice(Request):
    currency = Text(max_length=3)
    payment_frequency_count = WholeNumber(min_value=1, max_value=_LONGEST_COUNT)
    payment_frequency_interval = Choice(choices=_INTERVALS)
    subscription_period_count = WholeNumber(min_value=1, max_value=_LONGEST_COUNT)
    subscription_period_interval = Choice(choices=_INTERVALS)
    trial_period_days = WholeNumber(min_value=0, max_value=MAX_TRIAL_DAYS, required=False, allow_null=True)
    tax_inclusive = Flag(required=False, allow_null=True)
    alignment = Choice(
        choices=Alignment.choices,
        required=False,
        allow_null=True,
        help_text="Where periods begin: on the day the subscription began, or with the calendar (not in the Dodo "
        "contract).",
    )
    conventions = ConventionsField(required=False, allow_null=True)


class RecurringPrice(_PeriodicPrice):
    harmless = frozenset(
        {"trial_payment_method_optional", "zero_amount_payment_method_optional", "trial_apply_discounts"}
    )
    unsupported = _DISCOUNTS | {"trial_amount"}

    type = Choice(choices=["recurring_price"])
    price = WholeNumber(
        min_value=0, max_value=int(LARGEST_FEE), help_text="The fee of each period, in the currency's minor unit."
    )


class UsageBasedPrice(_PeriodicPrice):
    unsupported = _DISCOUNTS

    type = Choice(choices=["usage_based_price"])
    fixed_price = WholeNumber(
        min_value=0, max_value=int(LARGEST_FEE), help_text="The fee of each period, in the currency's minor unit."
    )
    usage_frequency_count = WholeNumber(
        min_value=1,
        max_value=_LONGEST_COUNT,
        required=False,
        allow_null=True,
        help_text="Usage is billed in periods of its own, of which the fee's consist (not in the Dodo contract).",
    )
    usage_frequency_interval = Choice(choices=_INTERVALS, required=False, allow_null=True)
    commitment = WholeNumber(
        min_value=1,
        max_value=int(LARGEST_FEE),
        required=False,
        allow_null=True,
        help_text="What each usage period costs at least, in the currency's minor unit (not in the Dodo contract).",
    )
    commitment_covers = Choice(choices=Covers.choices, required=False, allow_null=True)
    meters = serializers.ListField(
        child=MeterOfPrice(), required=False, allow_null=True, max_length=MAX_METERS_PER_PRODUCT
    )


_PRICES: dict[str, type[Request]] = {
    "one_time_price": OneTimePrice,
    "recurring_price": RecurringPrice,
    "usage_based_price": UsageBasedPrice,
}


@extend_schema_field(
    PolymorphicProxySerializer(
        component_name="PriceRequest", serializers=dict(_PRICES), resource_type_field_name="type"
    )
)
class Price(serializers.Field):
    """The price union, told apart by `type`."""

    default_error_messages = {
        "invalid": "must be an object.",
        "type": "type: must be one of one_time_price, recurring_price, usage_based_price.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("invalid")
        kind = data.get("type")
        if not isinstance(kind, str) or kind not in _PRICES:
            self.fail("type")
        price = _PRICES[kind](data=data)
        price.is_valid(raise_exception=True)
        return dict(price.validated_data)


def price_terms(price: Mapping[str, Any]) -> PriceTerms:
    """A valid price as the domain takes it. Looks its meters up: `MISSING_METER_IDS` where one does not exist."""
    asked = price.get("meters") or []
    wanted = [item["meter_id"] for item in asked]
    meters = {meter.public_id: meter for meter in Meter.objects.filter(public_id__in=wanted)}
    if missing := [meter_id for meter_id in dict.fromkeys(wanted) if meter_id not in meters]:
        raise DomainError(f"One or more meter IDs do not exist: {', '.join(missing)}", code="MISSING_METER_IDS")
    return PriceTerms(
        type=price["type"],
        currency=price["currency"],
        fixed_amount=Decimal(price["fixed_price"] if price["type"] == "usage_based_price" else price["price"]),
        payment_frequency_count=price.get("payment_frequency_count"),
        payment_frequency_interval=price.get("payment_frequency_interval"),
        subscription_period_count=price.get("subscription_period_count"),
        subscription_period_interval=price.get("subscription_period_interval"),
        trial_period_days=price.get("trial_period_days") or 0,
        tax_inclusive=bool(price.get("tax_inclusive")),
        usage_frequency_count=price.get("usage_frequency_count"),
        usage_frequency_interval=price.get("usage_frequency_interval"),
        alignment=price.get("alignment") or Alignment.ANNIVERSARY,
        commitment=None if price.get("commitment") is None else Decimal(price["commitment"]),
        commitment_covers=price.get("commitment_covers") or Covers.USAGE,
        conventions=price.get("conventions") or {},
        charges=tuple(_charge_terms(meters[item["meter_id"]], item) for item in asked),
    )


def _charge_terms(meter: Meter, item: Mapping[str, Any]) -> ChargeTerms:
    if item.get("pricing") is not None:
        return ChargeTerms.of(meter, item["pricing"])
    return ChargeTerms(meter, Decimal(item["price_per_unit"]), item.get("free_threshold") or 0)


# -- products -----------------------------------------------------------------------------------------------------

_PRODUCT_EXTRAS = frozenset(
    {
        "addons",
        "credit_entitlements",
        "digital_product_delivery",
        "entitlements",
        "image_id",
        "license_key_activation_message",
        "license_key_activations_limit",
        "license_key_duration",
        "license_key_enabled",
        "pricing_mode",
    }
)


class ProductCreate(Request):
    harmless = frozenset({"brand_id"})
    unsupported = _PRODUCT_EXTRAS

    name = Text(max_length=255)
    price = Price()
    tax_category = Choice(choices=TaxCategory.choices)
    description = Text(max_length=10_000, required=False, allow_null=True, allow_blank=True)
    metadata = Metadata(required=False, allow_null=True)
    corrections = Choice(
        choices=Corrections.choices,
        default=Corrections.ADJUST,
        help_text="What becomes of usage that is found after its period was invoiced (not in the Dodo contract).",
    )


class ProductUpdate(Request):
    """Null leaves everything as it is, except the description, which it removes."""

    harmless = frozenset({"brand_id"})
    unsupported = _PRODUCT_EXTRAS

    name = Text(max_length=255, required=False, allow_null=True)
    price = Price(required=False, allow_null=True)
    tax_category = Choice(choices=TaxCategory.choices, required=False, allow_null=True)
    description = Text(max_length=10_000, required=False, allow_null=True, allow_blank=True)
    metadata = Metadata(required=False, allow_null=True)
    corrections = Choice(choices=Corrections.choices, required=False, allow_null=True)


class ProductQuery(Query):
    archived = QueryFlag(required=False, help_text="true lists the archived products instead.")
    recurring = QueryFlag(required=False)
    brand_id = Text(required=False, allow_blank=True)
    locale = Text(required=False, allow_blank=True, help_text="There are no translations yet; it changes nothing.")


# -- subscriptions ------------------------------------------------------------------------------------------------


class Address(Request):
    country = Pattern(r"^[A-Z]{2}\Z", said="must be a two-letter country code such as DE.")
    city = Text(max_length=200, required=False, allow_null=True, allow_blank=True)
    state = Text(max_length=200, required=False, allow_null=True, allow_blank=True)
    street = Text(max_length=500, required=False, allow_null=True, allow_blank=True)
    zipcode = Text(max_length=50, required=False, allow_null=True, allow_blank=True)


class SubscribingCustomer(Request):
    """`customer_id` of an existing customer, or `email` (and `name`) of a new one."""

    customer_id = Text(max_length=100, required=False)
    email = Email(required=False)
    name = Text(max_length=255, required=False, allow_null=True)
    phone_number = Text(max_length=50, required=False, allow_null=True, allow_blank=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("customer_id" in attrs) == ("email" in attrs):
            raise serializers.ValidationError("give either customer_id, or the email of a new customer.")
        return attrs


class SubscriptionCreate(Request):
    # They describe a hosted pay page and a card, which are never shown here.
    harmless = frozenset(
        {
            "allowed_payment_method_types",
            "brand_id",
            "force_3ds",
            "mandate_min_amount_inr_paise",
            "redirect_immediately",
            "require_phone_number",
            "return_url",
            "short_link",
            "show_saved_payment_methods",
        }
    )
    unsupported = frozenset(
        {
            "addons",
            "customer_business_name",
            "discount_code",
            "discount_codes",
            "on_demand",
            "one_time_product_cart",
            "payment_link",
            "payment_method_id",
        }
    )

    customer = SubscribingCustomer()
    product_id = Text(max_length=100)
    quantity = WholeNumber(min_value=1, max_value=1_000_000)
    billing = Address(required=False, allow_null=True)
    billing_currency = Text(max_length=3, required=False, allow_null=True)
    trial_period_days = WholeNumber(min_value=0, max_value=MAX_TRIAL_DAYS, required=False, allow_null=True)
    tax_id = Text(max_length=100, required=False, allow_null=True, allow_blank=True)
    metadata = Metadata(required=False, allow_null=True)
    starts_at = Instant(
        required=False,
        allow_null=True,
        help_text="When the first period begins, also in the past (not in the Dodo contract). Left out: now.",
    )


CANCEL_REASONS = (
    "cancelled_by_customer",
    "cancelled_by_merchant",
    "cancelled_by_merchant_send_dunning",
    "cancelled_by_merchant_grace_period_expired",
    "dodo_team",
)
FEEDBACKS = (
    "too_expensive",
    "missing_features",
    "switched_service",
    "unused",
    "customer_service",
    "low_quality",
    "too_complex",
    "other",
)


class SubscriptionUpdate(Request):
    unsupported = frozenset({"credit_entitlement_cart", "customer_business_name", "customer_name", "disable_on_demand"})

    status = Choice(choices=SubscriptionStatus.values, required=False, allow_null=True)
    cancel_at_next_billing_date = Flag(required=False, allow_null=True)
    cancel_reason = Choice(choices=CANCEL_REASONS, required=False, allow_null=True)
    cancellation_feedback = Choice(choices=FEEDBACKS, required=False, allow_null=True)
    cancellation_comment = Text(max_length=5000, required=False, allow_null=True, allow_blank=True)
    next_billing_date = Instant(required=False, allow_null=True)
    metadata = Metadata(required=False, allow_null=True)
    billing = Address(required=False, allow_null=True)
    tax_id = Text(max_length=100, required=False, allow_null=True, allow_blank=True)
    subscription_period_count = WholeNumber(min_value=1, max_value=_LONGEST_COUNT, required=False, allow_null=True)
    subscription_period_interval = Choice(choices=_INTERVALS, required=False, allow_null=True)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, dict) and data.get("pause") is not None:
            raise serializers.ValidationError({"pause": ["was removed from the contract; pausing is not supported."]})
        if isinstance(data, dict):
            data = {name: value for name, value in data.items() if name != "pause"}
        # In the contract null means "not given" on every field of this request.
        return {name: value for name, value in super().to_internal_value(data).items() if value is not None}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        status = attrs.get("status")
        if status in (SubscriptionStatus.PAUSED, SubscriptionStatus.ACTIVE):
            raise serializers.ValidationError({"status": ["pausing and resuming are not supported by this server."]})
        if status not in (None, SubscriptionStatus.CANCELLED):
            raise serializers.ValidationError({"status": ["can only be set to cancelled."]})
        at_end = attrs.get("cancel_at_next_billing_date")
        if status and at_end is not None:
            raise serializers.ValidationError(
                {"status": ["cancels at once; send either it or cancel_at_next_billing_date."]}
            )
        said = {"cancel_reason", "cancellation_feedback", "cancellation_comment"} & set(attrs)
        if said and not (status or at_end):
            raise serializers.ValidationError(
                {name: ["goes with status cancelled or cancel_at_next_billing_date true."] for name in sorted(said)}
            )
        return attrs


class SubscriptionQuery(Query):
    brand_id = Text(required=False, allow_blank=True)
    customer_id = Text(required=False, allow_blank=True)
    product_id = Text(required=False, allow_blank=True)
    status = Choice(choices=SubscriptionStatus.values, required=False, allow_blank=True)
    cancel_at_next_billing_date = QueryFlag(required=False)
    created_at_gte = Instant(required=False)
    created_at_lte = Instant(required=False)
    locale = Text(required=False, allow_blank=True, help_text="There are no translations yet; it changes nothing.")


class UsageHistoryQuery(Query):
    start_date = Instant(required=False, help_text="Periods that end after it.")
    end_date = Instant(required=False, help_text="Periods that begin at it or before.")
    meter_id = Text(required=False, allow_blank=True)


# -- payments -----------------------------------------------------------------------------------------------------

# The contract's words; those that this server never sets match nothing.
PAYMENT_STATUSES = (
    *PaymentStatus.values,
    "requires_customer_action",
    "requires_merchant_action",
    "requires_confirmation",
    "requires_capture",
    "partially_captured",
    "partially_captured_and_capturable",
)


class PaymentQuery(Query):
    brand_id = Text(required=False, allow_blank=True)
    customer_id = Text(required=False, allow_blank=True)
    subscription_id = Text(required=False, allow_blank=True)
    product_id = Text(required=False, allow_blank=True)
    status = Choice(choices=PAYMENT_STATUSES, required=False, allow_blank=True)
    currency = Pattern(r"^[A-Z]{3}\Z", said="must be a currency code such as USD.", required=False)
    created_at_gte = Instant(required=False)
    created_at_lte = Instant(required=False)
