from billing.models.invoices import (
    Invoice,
    InvoiceLine,
    InvoiceReason,
    InvoiceStatus,
    LineKind,
    NumberSeries,
)
from billing.models.payments import ChargeType, Payment, PaymentStatus
from billing.models.products import Charge, Interval, Price, PriceType, Product, TaxCategory
from billing.models.runs import BillingRun, RunItem, RunOutcome, RunTrigger
from billing.models.subscriptions import BillingPeriod, Subscription, SubscriptionStatus

__all__ = [
    "BillingPeriod",
    "BillingRun",
    "Charge",
    "ChargeType",
    "Interval",
    "Invoice",
    "InvoiceLine",
    "InvoiceReason",
    "InvoiceStatus",
    "LineKind",
    "NumberSeries",
    "Payment",
    "PaymentStatus",
    "Price",
    "PriceType",
    "Product",
    "RunItem",
    "RunOutcome",
    "RunTrigger",
    "Subscription",
    "SubscriptionStatus",
    "TaxCategory",
]
