from billing.models.balances import (
    Balance,
    BalanceEntry,
    BalanceEntryKind,
    CreditGrant,
    GrantEntry,
    GrantEntryKind,
)
from billing.models.corrections import IgnoredCorrection
from billing.models.credit_notes import CreditNote, CreditNoteCause, CreditNoteLine
from billing.models.invoices import (
    Invoice,
    InvoiceLine,
    InvoiceReason,
    InvoiceStatus,
    LineKind,
    NumberSeries,
)
from billing.models.payments import ChargeType, Payment, PaymentStatus
from billing.models.products import (
    Alignment,
    Charge,
    Corrections,
    Covers,
    Interval,
    Price,
    PriceType,
    Product,
    TaxCategory,
)
from billing.models.runs import BillingRun, RunItem, RunOutcome, RunTrigger
from billing.models.subscriptions import BillingPeriod, Discount, DiscountScope, Subscription, SubscriptionStatus
from billing.models.terms import BillingProfile, TaxRate

__all__ = [
    "Alignment",
    "Balance",
    "BalanceEntry",
    "BalanceEntryKind",
    "BillingPeriod",
    "BillingProfile",
    "BillingRun",
    "Charge",
    "ChargeType",
    "Corrections",
    "Covers",
    "CreditGrant",
    "CreditNote",
    "CreditNoteCause",
    "CreditNoteLine",
    "Discount",
    "DiscountScope",
    "GrantEntry",
    "GrantEntryKind",
    "IgnoredCorrection",
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
    "TaxRate",
]
