"""How a quantity becomes money. Pure functions over values; every rated line explains itself.

`price` takes and gives plain data and reaches everything; `docs/pricing.md` shows it. Inside of Meterbook:

    rate(rule, usage)             one charge: free units, price, its discounts, maximum, minimum
    rate_fee(rule)                one fee
    rate_period(items, ...)       all of one period: also its discounts and its commitment
    settle(lines, credits=...)    prepaid credit, then tax
    explain(line, ...)            a line in words
    rule_to_data, rule_from_data  a rule as it is stored

Amounts are in the currency's minor unit. What is computed stays an exact fraction; `amount` is that rounded once.
"""

from billing.pricing.data import (
    commitment_from_data,
    credits_from_data,
    discounts_from_data,
    fee_from_data,
    rule_from_data,
    rule_to_data,
    taxes_from_data,
    usage_from_data,
)
from billing.pricing.entry import price
from billing.pricing.period import Item, rate_period
from billing.pricing.rating import RatedLine, rate, rate_fee, waive
from billing.pricing.settling import CreditDrawn, LineToSettle, SettledLine, Settlement, TaxAmount, settle
from billing.pricing.values import (
    ByDimension,
    ChargeRule,
    Commitment,
    Conventions,
    Credit,
    Discount,
    FeeRule,
    Flat,
    Graduated,
    Model,
    Package,
    Percentage,
    PerUnit,
    PricingInvalid,
    Tax,
    Tier,
    Usage,
    Volume,
    conventions_from_data,
    conventions_to_data,
)
from billing.pricing.words import explain

__all__ = [
    "ByDimension",
    "ChargeRule",
    "Commitment",
    "Conventions",
    "Credit",
    "CreditDrawn",
    "Discount",
    "FeeRule",
    "Flat",
    "Graduated",
    "Item",
    "LineToSettle",
    "Model",
    "Package",
    "PerUnit",
    "Percentage",
    "PricingInvalid",
    "RatedLine",
    "SettledLine",
    "Settlement",
    "Tax",
    "TaxAmount",
    "Tier",
    "Usage",
    "Volume",
    "commitment_from_data",
    "conventions_from_data",
    "conventions_to_data",
    "credits_from_data",
    "discounts_from_data",
    "explain",
    "fee_from_data",
    "price",
    "rate",
    "rate_fee",
    "rate_period",
    "rule_from_data",
    "rule_to_data",
    "settle",
    "taxes_from_data",
    "usage_from_data",
    "waive",
]
