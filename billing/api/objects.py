"""Products, subscriptions and payments as the contract writes them.

Every field that the SDKs' types name is there; what this server has nothing to say about is null, false or empty.
Amounts are whole numbers of the currency's minor unit, prices per unit decimal strings in it.
"""

from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, NotRequired, TypedDict

from django.conf import settings

from billing.cycles import PeriodUsage
from billing.models import (
    Alignment,
    Charge,
    Covers,
    Invoice,
    InvoiceLine,
    LineKind,
    Payment,
    PaymentStatus,
    Price,
    PriceType,
    Product,
    Subscription,
)
from billing.money import plain
from customers.api.objects import (
    BillingAddressObject,
    CustomerLimitedDetailsObject,
    billing_address,
    customer_details,
)

Metadata = dict[str, str | float | bool]
IntervalWord = Literal["Day", "Week", "Month", "Quarter", "Year"]
AlignmentWord = Literal["anniversary", "calendar"]
CorrectionsWord = Literal["adjust", "credit_note", "ignore"]


class MeterOfPriceObject(TypedDict):
    """A meter within a usage-based price."""

    meter_id: str
    name: str
    description: str | None
    measurement_unit: str
    price_per_unit: str | None
    free_threshold: int | None
    pricing: dict[str, Any] | None
    credit_entitlement_id: str | None
    meter_units_per_credit: str | None


class OneTimePriceObject(TypedDict):
    """Paid once."""

    type: Literal["one_time_price"]
    currency: str
    price: int
    discount: int
    discount_bps: int
    purchasing_power_parity: bool
    pay_what_you_want: bool
    suggested_price: int | None
    tax_inclusive: bool


class RecurringPriceObject(TypedDict):
    """A fee each period."""

    type: Literal["recurring_price"]
    currency: str
    price: int
    payment_frequency_count: int
    payment_frequency_interval: IntervalWord
    subscription_period_count: int
    subscription_period_interval: IntervalWord
    trial_period_days: int
    trial_amount: int | None
    trial_apply_discounts: bool
    trial_payment_method_optional: bool
    zero_amount_payment_method_optional: bool
    discount: int
    discount_bps: int
    purchasing_power_parity: bool
    tax_inclusive: bool
    alignment: AlignmentWord
    conventions: dict[str, Any]


class UsageBasedPriceObject(TypedDict):
    """A fee each period, in advance, and metered usage, in arrears."""

    type: Literal["usage_based_price"]
    currency: str
    fixed_price: int
    payment_frequency_count: int
    payment_frequency_interval: IntervalWord
    subscription_period_count: int
    subscription_period_interval: IntervalWord
    trial_period_days: int
    discount: int
    discount_bps: int
    purchasing_power_parity: bool
    tax_inclusive: bool
    alignment: AlignmentWord
    usage_frequency_count: int | None
    usage_frequency_interval: IntervalWord | None
    commitment: int | None
    commitment_covers: Literal["usage", "all"]
    conventions: dict[str, Any]
    meters: list[MeterOfPriceObject]


PriceObject = OneTimePriceObject | RecurringPriceObject | UsageBasedPriceObject


class ProductObject(TypedDict):
    """A product with its current price."""

    product_id: str
    business_id: str
    brand_id: str
    name: str
    description: str | None
    image: str | None
    is_recurring: bool
    price: PriceObject
    tax_category: str
    corrections: CorrectionsWord
    metadata: Metadata
    addons: list[str]
    credit_entitlements: list[dict[str, Any]]
    entitlements: list[dict[str, Any]]
    license_key_enabled: bool
    license_key_activation_message: str | None
    license_key_activations_limit: int | None
    license_key_duration: dict[str, Any] | None
    digital_product_delivery: dict[str, Any] | None
    pricing_mode: str | None
    product_collection_id: str | None
    created_at: datetime
    updated_at: datetime


class ProductListItemObject(TypedDict):
    """A product in a list: `price` is the amount, `price_detail` the whole price."""

    product_id: str
    business_id: str
    name: str
    description: str | None
    image: str | None
    is_recurring: bool
    price: int | None
    currency: str | None
    tax_inclusive: bool | None
    price_detail: PriceObject | None
    tax_category: str
    metadata: Metadata
    entitlements: list[dict[str, Any]]
    pricing_mode: str | None
    created_at: datetime
    updated_at: datetime


class SubscribedMeterObject(TypedDict):
    """A meter as it was priced when the subscription was sold."""

    meter_id: str
    name: str
    description: str | None
    measurement_unit: str
    price_per_unit: str | None
    free_threshold: int
    pricing: dict[str, Any] | None
    currency: str


class SubscriptionListItemObject(TypedDict):
    """A subscription in a list."""

    subscription_id: str
    status: str
    product_id: str
    product_name: str
    quantity: int
    currency: str
    customer: CustomerLimitedDetailsObject
    customer_business_name: str | None
    billing: BillingAddressObject
    metadata: Metadata
    created_at: datetime
    previous_billing_date: datetime
    next_billing_date: datetime
    recurring_pre_tax_amount: int
    payment_frequency_count: int
    payment_frequency_interval: IntervalWord
    subscription_period_count: int
    subscription_period_interval: IntervalWord
    trial_period_days: int
    trial_amount: int | None
    on_demand: bool
    tax_inclusive: bool
    tax_id: str | None
    has_payment_method: bool
    payment_method_id: str | None
    cancel_at_next_billing_date: bool
    cancelled_at: datetime | None
    cancelled_by: dict[str, Any] | None
    paused_at: datetime | None
    scheduled_change: dict[str, Any] | None
    discounts: list[dict[str, Any]]
    discount_id: str | None
    discount_cycles_remaining: int | None


class SubscriptionObject(TypedDict):
    """A subscription."""

    subscription_id: str
    status: str
    product_id: str
    brand_id: str
    quantity: int
    currency: str
    customer: CustomerLimitedDetailsObject
    customer_business_name: str | None
    billing: BillingAddressObject
    metadata: Metadata
    created_at: datetime
    previous_billing_date: datetime
    next_billing_date: datetime
    expires_at: datetime | None
    recurring_pre_tax_amount: int
    payment_frequency_count: int
    payment_frequency_interval: IntervalWord
    subscription_period_count: int
    subscription_period_interval: IntervalWord
    trial_period_days: int
    trial_amount: int | None
    on_demand: bool
    tax_inclusive: bool
    tax_id: str | None
    has_payment_method: bool
    payment_method_id: str | None
    cancel_at_next_billing_date: bool
    cancelled_at: datetime | None
    cancelled_by: dict[str, Any] | None
    cancellation_feedback: str | None
    cancellation_comment: str | None
    paused_at: datetime | None
    scheduled_change: dict[str, Any] | None
    meters: list[SubscribedMeterObject]
    addons: list[dict[str, Any]]
    credit_entitlement_cart: list[dict[str, Any]]
    meter_credit_entitlement_cart: list[dict[str, Any]]
    discounts: list[dict[str, Any]]
    discount_id: str | None
    discount_cycles_remaining: int | None
    custom_field_responses: list[dict[str, Any]]


class SubscriptionCreatedObject(TypedDict):
    """What a new subscription begins with."""

    subscription_id: str
    payment_id: str
    customer: CustomerLimitedDetailsObject
    metadata: Metadata
    addons: list[dict[str, Any]]
    recurring_pre_tax_amount: int
    payment_method_required: bool
    payment_link: str | None
    client_secret: str | None
    expires_on: datetime | None
    discount_id: str | None
    discount_ids: list[str]
    one_time_product_cart: list[dict[str, Any]]
    trial_amount: int | None


class UsageOfMeterObject(TypedDict):
    """One meter in one billing period."""

    id: str
    name: str
    consumed_units: str
    chargeable_units: str
    free_threshold: int
    price_per_unit: str | None
    currency: str
    total_price: int


class UsagePeriodObject(TypedDict):
    """One billing period; the running one is as of now."""

    start_date: datetime
    end_date: datetime
    meters: list[UsageOfMeterObject]


class CreditUsageObject(TypedDict):
    """Credits of a subscription: this server keeps none, so `items` is empty."""

    subscription_id: str
    items: list[dict[str, Any]]


class ServicePeriodObject(TypedDict):
    """The period whose fee a payment paid."""

    subscription_id: str
    starts_at: datetime
    ends_at: datetime
    proration_factor: str


class ProductInCartObject(TypedDict):
    """A product of a one-time payment."""

    product_id: str
    quantity: int


class PaymentListItemObject(TypedDict):
    """A payment in a list."""

    payment_id: str
    brand_id: str
    status: str | None
    total_amount: int
    currency: str
    customer: CustomerLimitedDetailsObject
    metadata: Metadata
    subscription_id: str | None
    subscription_ids: list[str]
    charge_type: str | None
    includes_usage: bool
    is_multi_subscription: bool
    service_periods: list[ServicePeriodObject]
    invoice_id: str | None
    invoice_number: str | None
    invoice_url: str | None
    payment_provider: Literal["dodo"]
    payment_method: str | None
    payment_method_type: str | None
    retry_attempt: int
    refund_status: str | None
    dispute_status: str | None
    digital_products_delivered: bool
    has_license_key: bool
    checkout_session_id: str | None
    card_exp_month: str | None
    card_exp_year: str | None
    card_last_four: str | None
    card_network: str | None
    card_type: str | None
    three_ds_flow: str | None
    three_ds_status: str | None
    three_ds_version: str | None
    created_at: datetime
    updated_at: NotRequired[datetime]


class PaymentObject(TypedDict):
    """The collection of one invoice."""

    payment_id: str
    business_id: str
    brand_id: str
    status: str | None
    total_amount: int
    tax: int | None
    currency: str
    settlement_amount: int
    settlement_currency: str
    settlement_tax: int | None
    customer: CustomerLimitedDetailsObject
    billing: BillingAddressObject
    metadata: Metadata
    subscription_id: str | None
    subscription_ids: list[str]
    charge_type: str | None
    includes_usage: bool
    is_multi_subscription: bool
    is_update_payment_method: bool
    service_periods: list[ServicePeriodObject]
    invoice_id: str | None
    invoice_number: str | None
    invoice_url: str | None
    payment_provider: Literal["dodo"]
    payment_link: str | None
    payment_method: str | None
    payment_method_id: str | None
    payment_method_type: str | None
    product_cart: list[ProductInCartObject] | None
    retry_attempt: int
    refunds: list[dict[str, Any]]
    refund_status: str | None
    disputes: list[dict[str, Any]]
    discounts: list[dict[str, Any]]
    discount_id: str | None
    custom_field_responses: list[dict[str, Any]]
    digital_products_delivered: bool
    checkout_session_id: str | None
    error_code: str | None
    error_message: str | None
    card_exp_month: str | None
    card_exp_year: str | None
    card_holder_name: str | None
    card_issuing_country: str | None
    card_last_four: str | None
    card_network: str | None
    card_type: str | None
    three_ds_flow: str | None
    three_ds_status: str | None
    three_ds_version: str | None
    created_at: datetime
    updated_at: datetime | None


class LineTaxObject(TypedDict):
    """One tax on a line: its percent, and what it came to in minor units."""

    name: str
    percent: str
    amount: str


class LineItemObject(TypedDict):
    """A line of the invoice: `name` says what, `description` how its amount came about.

    Beyond the contract: what kind of line it is, its period and quantity, the prepaid credit and the taxes on it, its
    `total` (amount - credit + tax that is not included), and the explanation as data.
    """

    items_id: str
    amount: int
    tax: int
    refundable_amount: int
    name: str | None
    description: str | None
    kind: str
    subscription_id: str | None
    meter_id: str | None
    period_start: datetime | None
    period_end: datetime | None
    quantity: str
    measurement_unit: str
    unit_price: str | None
    credit: int
    total: int
    tax_inclusive: bool
    taxes: list[LineTaxObject]
    tax_reason: str | None
    explanation: dict[str, Any]


class LineItemsObject(TypedDict):
    """The lines of a payment's invoice. Their totals add up to the invoice's, off which the balance was paid."""

    currency: str
    partial_refund_allowed: bool
    items: list[LineItemObject]


def _minor(amount: Decimal) -> int:
    """A whole number of minor units; the rows hold nothing else."""
    whole = int(amount)
    if whole != amount:
        raise ValueError(f"{amount} is not a whole number of minor units")
    return whole


def _word(interval: str | None) -> IntervalWord:
    match interval:
        case "Day" | "Week" | "Month" | "Quarter" | "Year":
            return interval
    raise ValueError(f"{interval!r} is not an interval")


def _alignment(word: str) -> AlignmentWord:
    return "calendar" if word == Alignment.CALENDAR else "anniversary"


def _corrections(word: str) -> CorrectionsWord:
    match word:
        case "adjust" | "credit_note" | "ignore":
            return word
    raise ValueError(f"{word!r} says nothing of late usage")


def _unit_price(charge: Charge) -> str | None:
    """Null for a model that has no single price per unit; `pricing` says it then."""
    return None if charge.price_per_unit is None else plain(charge.price_per_unit)


# -- products -----------------------------------------------------------------------------------------------------


def price_object(price: Price) -> PriceObject:
    """The price union. Reads the price's charges and their meters."""
    if price.type == PriceType.ONE_TIME:
        return {
            "type": "one_time_price",
            "currency": price.currency,
            "price": _minor(price.fixed_amount),
            "discount": 0,
            "discount_bps": 0,
            "purchasing_power_parity": False,
            "pay_what_you_want": False,
            "suggested_price": None,
            "tax_inclusive": price.tax_inclusive,
        }
    if price.type == PriceType.RECURRING:
        return {
            "type": "recurring_price",
            "currency": price.currency,
            "price": _minor(price.fixed_amount),
            "payment_frequency_count": price.payment_frequency_count or 1,
            "payment_frequency_interval": _word(price.payment_frequency_interval),
            "subscription_period_count": price.subscription_period_count or 1,
            "subscription_period_interval": _word(price.subscription_period_interval),
            "trial_period_days": price.trial_period_days,
            "trial_amount": None,
            "trial_apply_discounts": False,
            "trial_payment_method_optional": False,
            "zero_amount_payment_method_optional": False,
            "discount": 0,
            "discount_bps": 0,
            "purchasing_power_parity": False,
            "tax_inclusive": price.tax_inclusive,
            "alignment": _alignment(price.alignment),
            "conventions": price.conventions,
        }
    return {
        "type": "usage_based_price",
        "currency": price.currency,
        "fixed_price": _minor(price.fixed_amount),
        "payment_frequency_count": price.payment_frequency_count or 1,
        "payment_frequency_interval": _word(price.payment_frequency_interval),
        "subscription_period_count": price.subscription_period_count or 1,
        "subscription_period_interval": _word(price.subscription_period_interval),
        "trial_period_days": price.trial_period_days,
        "discount": 0,
        "discount_bps": 0,
        "purchasing_power_parity": False,
        "tax_inclusive": price.tax_inclusive,
        "alignment": _alignment(price.alignment),
        "usage_frequency_count": price.usage_frequency_count,
        "usage_frequency_interval": _word(price.usage_frequency_interval) if price.usage_frequency_interval else None,
        "commitment": None if price.commitment is None else _minor(price.commitment),
        "commitment_covers": "all" if price.commitment_covers == Covers.ALL else "usage",
        "conventions": price.conventions,
        "meters": [
            {
                "meter_id": charge.meter.public_id,
                "name": charge.meter.name,
                "description": charge.meter.description,
                "measurement_unit": charge.meter.measurement_unit,
                "price_per_unit": _unit_price(charge),
                "free_threshold": charge.free_threshold,
                "pricing": charge.terms,
                "credit_entitlement_id": None,
                "meter_units_per_credit": None,
            }
            for charge in price.charges.all()
        ],
    }


def product_object(product: Product, price: Price) -> ProductObject:
    return {
        "product_id": product.public_id,
        "business_id": settings.BUSINESS_ID,
        "brand_id": settings.BUSINESS_ID,  # one installation is one business with one brand
        "name": product.name,
        "description": product.description,
        "image": None,
        "is_recurring": price.is_recurring(),
        "price": price_object(price),
        "tax_category": product.tax_category,
        "corrections": _corrections(product.corrections),
        "metadata": product.metadata,
        "addons": [],
        "credit_entitlements": [],
        "entitlements": [],
        "license_key_enabled": False,
        "license_key_activation_message": None,
        "license_key_activations_limit": None,
        "license_key_duration": None,
        "digital_product_delivery": None,
        "pricing_mode": None,
        "product_collection_id": None,
        "created_at": product.created_at,
        "updated_at": product.updated_at,
    }


def product_list_item(product: Product, price: Price) -> ProductListItemObject:
    return {
        "product_id": product.public_id,
        "business_id": settings.BUSINESS_ID,
        "name": product.name,
        "description": product.description,
        "image": None,
        "is_recurring": price.is_recurring(),
        "price": _minor(price.fixed_amount),
        "currency": price.currency,
        "tax_inclusive": price.tax_inclusive,
        "price_detail": price_object(price),
        "tax_category": product.tax_category,
        "metadata": product.metadata,
        "entitlements": [],
        "pricing_mode": None,
        "created_at": product.created_at,
        "updated_at": product.updated_at,
    }


# -- subscriptions ------------------------------------------------------------------------------------------------


def _recurring_amount(subscription: Subscription) -> int:
    return _minor(subscription.price.fixed_amount) * subscription.quantity


def subscription_list_item(
    subscription: Subscription, *, previous: datetime, following: datetime
) -> SubscriptionListItemObject:
    """`previous` and `following` are the ends of its running period."""
    price = subscription.price
    return {
        "subscription_id": subscription.public_id,
        "status": subscription.status,
        "product_id": price.product.public_id,
        "product_name": price.product.name,
        "quantity": subscription.quantity,
        "currency": price.currency,
        "customer": customer_details(subscription.customer),
        "customer_business_name": None,
        "billing": billing_address(subscription.billing_address),
        "metadata": subscription.metadata,
        "created_at": subscription.created_at,
        "previous_billing_date": previous,
        "next_billing_date": following,
        "recurring_pre_tax_amount": _recurring_amount(subscription),
        "payment_frequency_count": price.payment_frequency_count or 1,
        "payment_frequency_interval": _word(price.payment_frequency_interval),
        "subscription_period_count": price.subscription_period_count or 1,
        "subscription_period_interval": _word(price.subscription_period_interval),
        "trial_period_days": subscription.trial_period_days,
        "trial_amount": None,
        "on_demand": False,
        "tax_inclusive": price.tax_inclusive,
        "tax_id": subscription.tax_id,
        "has_payment_method": False,
        "payment_method_id": None,
        "cancel_at_next_billing_date": subscription.cancel_at_period_end,
        "cancelled_at": subscription.cancelled_at,
        "cancelled_by": None,
        "paused_at": None,
        "scheduled_change": None,
        "discounts": [],
        "discount_id": None,
        "discount_cycles_remaining": None,
    }


def subscription_object(subscription: Subscription, *, previous: datetime, following: datetime) -> SubscriptionObject:
    """`previous` and `following` are the ends of its running period."""
    price = subscription.price
    return {
        "subscription_id": subscription.public_id,
        "status": subscription.status,
        "product_id": price.product.public_id,
        "brand_id": settings.BUSINESS_ID,
        "quantity": subscription.quantity,
        "currency": price.currency,
        "customer": customer_details(subscription.customer),
        "customer_business_name": None,
        "billing": billing_address(subscription.billing_address),
        "metadata": subscription.metadata,
        "created_at": subscription.created_at,
        "previous_billing_date": previous,
        "next_billing_date": following,
        "expires_at": subscription.expires_at,
        "recurring_pre_tax_amount": _recurring_amount(subscription),
        "payment_frequency_count": price.payment_frequency_count or 1,
        "payment_frequency_interval": _word(price.payment_frequency_interval),
        "subscription_period_count": price.subscription_period_count or 1,
        "subscription_period_interval": _word(price.subscription_period_interval),
        "trial_period_days": subscription.trial_period_days,
        "trial_amount": None,
        "on_demand": False,
        "tax_inclusive": price.tax_inclusive,
        "tax_id": subscription.tax_id,
        "has_payment_method": False,
        "payment_method_id": None,
        "cancel_at_next_billing_date": subscription.cancel_at_period_end,
        "cancelled_at": subscription.cancelled_at,
        "cancelled_by": None,
        "cancellation_feedback": subscription.cancellation_feedback,
        "cancellation_comment": subscription.cancellation_comment,
        "paused_at": None,
        "scheduled_change": None,
        "meters": [
            {
                "meter_id": charge.meter.public_id,
                "name": charge.meter.name,
                "description": charge.meter.description,
                "measurement_unit": charge.meter.measurement_unit,
                "price_per_unit": _unit_price(charge),
                "free_threshold": charge.free_threshold,
                "pricing": charge.terms,
                "currency": price.currency,
            }
            for charge in price.charges.all()
        ],
        "addons": [],
        "credit_entitlement_cart": [],
        "meter_credit_entitlement_cart": [],
        "discounts": [],
        "discount_id": None,
        "discount_cycles_remaining": None,
        "custom_field_responses": [],
    }


def created_subscription(subscription: Subscription, payment: Payment) -> SubscriptionCreatedObject:
    return {
        "subscription_id": subscription.public_id,
        "payment_id": payment.public_id,
        "customer": customer_details(subscription.customer),
        "metadata": subscription.metadata,
        "addons": [],
        "recurring_pre_tax_amount": _recurring_amount(subscription),
        "payment_method_required": False,  # invoices are paid by transfer; no card is ever asked for
        "payment_link": None,
        "client_secret": None,
        "expires_on": None,
        "discount_id": None,
        "discount_ids": [],
        "one_time_product_cart": [],
        "trial_amount": None,
    }


def usage_period(usage: PeriodUsage) -> UsagePeriodObject:
    return {
        "start_date": usage.period.start,
        "end_date": usage.period.end,
        "meters": [
            {
                "id": used.charge.meter.public_id,
                "name": used.charge.meter.name,
                "consumed_units": plain(used.consumed_units),
                "chargeable_units": plain(used.chargeable_units),
                "free_threshold": used.charge.free_threshold,
                "price_per_unit": _unit_price(used.charge),
                "currency": usage.currency,
                "total_price": _minor(used.amount),
            }
            for used in usage.charges
        ],
    }


# -- payments -----------------------------------------------------------------------------------------------------


def _lines(payment: Payment) -> list[InvoiceLine]:
    return [] if payment.invoice is None else list(payment.invoice.lines.all())


def _service_periods(payment: Payment) -> list[ServicePeriodObject]:
    """The periods whose fees were paid; as the contract says, only once the payment has succeeded."""
    if payment.status != PaymentStatus.SUCCEEDED:
        return []
    return [
        {
            "subscription_id": line.subscription.public_id,
            "starts_at": line.period_start,
            "ends_at": line.period_end,
            "proration_factor": _share_of_period(line),
        }
        for line in _lines(payment)
        if line.kind == LineKind.FEE and line.subscription and line.period_start and line.period_end
    ]


def _share_of_period(line: InvoiceLine) -> str:
    """What part of a whole period a fee is for, as decimal text: "1", "0.677419354839"."""
    share = Fraction(str(line.explanation.get("fraction", "1")))
    return plain((Decimal(share.numerator) / Decimal(share.denominator)).quantize(Decimal("1e-12")))


def _cart(payment: Payment) -> list[ProductInCartObject] | None:
    sold = [line for line in _lines(payment) if line.kind == LineKind.ONE_TIME]
    return [{"product_id": line.product.public_id, "quantity": int(line.quantity)} for line in sold] or None


def _subscription_ids(payment: Payment) -> list[str]:
    if payment.subscription is not None:
        return [payment.subscription.public_id]
    # An invoice that several subscriptions share.
    shared = {line.subscription.pk: line.subscription.public_id for line in _lines(payment) if line.subscription}
    return list(shared.values())


def _metadata(payment: Payment) -> Metadata:
    return {} if payment.subscription is None else dict(payment.subscription.metadata)


def _invoice_url(invoice: Invoice | None) -> str | None:
    return None if invoice is None else f"{settings.BASE_URL}/invoices/payments/{invoice.payment.public_id}"


def _billing(payment: Payment) -> BillingAddressObject:
    if payment.invoice is not None:
        return billing_address(payment.invoice.customer_address)
    if payment.subscription is not None:
        return billing_address(payment.subscription.billing_address)
    return billing_address(payment.customer.billing_address)


def payment_list_item(payment: Payment) -> PaymentListItemObject:
    invoice = payment.invoice
    return {
        "payment_id": payment.public_id,
        "brand_id": settings.BUSINESS_ID,
        "status": payment.status,
        "total_amount": _minor(payment.amount),
        "currency": payment.currency,
        "customer": customer_details(payment.customer),
        "metadata": _metadata(payment),
        "subscription_id": payment.subscription.public_id if payment.subscription else None,
        "subscription_ids": _subscription_ids(payment),
        "charge_type": payment.charge_type,
        "includes_usage": payment.includes_usage,
        "is_multi_subscription": False,
        "service_periods": _service_periods(payment),
        "invoice_id": invoice.public_id if invoice else None,
        "invoice_number": invoice.number if invoice else None,
        "invoice_url": _invoice_url(invoice),
        "payment_provider": "dodo",
        "payment_method": None,
        "payment_method_type": None,
        "retry_attempt": 0,
        "refund_status": None,
        "dispute_status": None,
        "digital_products_delivered": False,
        "has_license_key": False,
        "checkout_session_id": None,
        "card_exp_month": None,
        "card_exp_year": None,
        "card_last_four": None,
        "card_network": None,
        "card_type": None,
        "three_ds_flow": None,
        "three_ds_status": None,
        "three_ds_version": None,
        "created_at": payment.created_at,
        "updated_at": payment.updated_at,
    }


def payment_object(payment: Payment) -> PaymentObject:
    invoice = payment.invoice
    tax = _minor(invoice.tax) if invoice else 0
    return {
        "payment_id": payment.public_id,
        "business_id": settings.BUSINESS_ID,
        "brand_id": settings.BUSINESS_ID,
        "status": payment.status,
        "total_amount": _minor(payment.amount),
        "tax": tax,
        "currency": payment.currency,
        "settlement_amount": _minor(payment.amount),
        "settlement_currency": payment.currency,
        "settlement_tax": tax,
        "customer": customer_details(payment.customer),
        "billing": _billing(payment),
        "metadata": _metadata(payment),
        "subscription_id": payment.subscription.public_id if payment.subscription else None,
        "subscription_ids": _subscription_ids(payment),
        "charge_type": payment.charge_type,
        "includes_usage": payment.includes_usage,
        "is_multi_subscription": len(_subscription_ids(payment)) > 1,
        "is_update_payment_method": False,
        "service_periods": _service_periods(payment),
        "invoice_id": invoice.public_id if invoice else None,
        "invoice_number": invoice.number if invoice else None,
        "invoice_url": _invoice_url(invoice),
        "payment_provider": "dodo",
        "payment_link": None,
        "payment_method": None,
        "payment_method_id": None,
        "payment_method_type": None,
        "product_cart": _cart(payment),
        "retry_attempt": 0,
        "refunds": [],
        "refund_status": None,
        "disputes": [],
        "discounts": [],
        "discount_id": None,
        "custom_field_responses": [],
        "digital_products_delivered": False,
        "checkout_session_id": None,
        "error_code": None,
        "error_message": None,
        "card_exp_month": None,
        "card_exp_year": None,
        "card_holder_name": None,
        "card_issuing_country": None,
        "card_last_four": None,
        "card_network": None,
        "card_type": None,
        "three_ds_flow": None,
        "three_ds_status": None,
        "three_ds_version": None,
        "created_at": payment.created_at,
        "updated_at": payment.updated_at,
    }


def line_items(payment: Payment) -> LineItemsObject:
    return {
        "currency": payment.currency,
        "partial_refund_allowed": False,
        "items": [
            {
                "items_id": f"{payment.public_id}_{line.position}",
                "amount": _minor(line.amount),
                "tax": _minor(line.tax),
                "refundable_amount": 0,
                "name": line.description,
                "description": line.explanation.get("text") or None,
                "kind": line.kind,
                "subscription_id": line.subscription.public_id if line.subscription else None,
                "meter_id": line.charge.meter.public_id if line.charge else None,
                "period_start": line.period_start,
                "period_end": line.period_end,
                "quantity": plain(line.quantity),
                "measurement_unit": line.measurement_unit,
                "unit_price": None if line.unit_price is None else plain(line.unit_price),
                "credit": _minor(line.credit),
                "total": _minor(line.total),
                "tax_inclusive": line.tax_inclusive,
                "taxes": [
                    {"name": tax["name"], "percent": tax["percent"], "amount": tax["amount"]} for tax in line.taxes
                ],
                "tax_reason": line.tax_reason or None,
                "explanation": {key: value for key, value in line.explanation.items() if key != "text"},
            }
            for line in _lines(payment)
        ],
    }
