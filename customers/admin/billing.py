"""How one customer is billed: the forms of their profile and balance, and what their page shows of both."""

import hashlib
import secrets
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.db.models import QuerySet, Sum
from django.http import HttpRequest

from billing.credits import in_force
from billing.models import BalanceEntry, BalanceEntryKind, CreditGrant, NumberSeries
from billing.money import is_currency, plain, to_minor
from billing.profiles import MOST_GRACE_HOURS, profile_of
from customers.admin.base import CommandForm, with_query
from customers.admin.forms import (
    MajorAmountField,
    check_major_digits,
    choice,
    currency_choices,
    long_text,
    model_choice,
    switch,
    text,
    whole_number,
    width,
)
from customers.models import Customer

# How many rows of each ledger a customer's page shows; the rest are on pages of their own.
ROWS = 20
ENTRIES_PER_PAGE = 50
# Nobody turns further pages than this, and an offset beyond it would only cost the database time.
LAST_PAGE = 10_000
GIVE, TAKE = "give", "take"


def amount_field(label: str = "Amount", *, help_text: str = "In the major unit: 12.50, not 1250.") -> Any:
    field = MajorAmountField(label=label, max_digits=30, decimal_places=None, help_text=help_text)
    field.mb_affix = ""
    return field


def once_field() -> Any:
    """Made with the form: a button pressed twice moves money once."""
    return forms.CharField(
        required=False, max_length=40, widget=forms.HiddenInput, initial=lambda: secrets.token_hex(8)
    )


class MoneyForm(CommandForm):
    """A form with an `amount` in the major unit of its `currency`."""

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        amount, currency = values.get("amount"), self.currency_of(values)
        if amount is not None and amount <= 0:
            self.add_error("amount", "Enter an amount above zero.")
        elif amount is not None and is_currency(currency):
            if problem := check_major_digits(amount, currency, digits=0):
                self.add_error("amount", problem)
            else:
                values["minor"] = to_minor(amount, currency)
        return values

    def currency_of(self, values: dict[str, Any]) -> str:
        return str(values.get("currency") or "")


class AdjustForm(MoneyForm):
    """A movement of the balance, of a customer or of one balance."""

    direction = width(
        choice("What", [(GIVE, "Put onto the balance"), (TAKE, "Take from the balance")], initial=GIVE), "mb-half"
    )
    amount = width(amount_field(), "mb-half")
    currency = choice("Currency", [])
    reason = long_text(
        "Why", required=True, help_text="Stands in the ledger; the customer reads it too.", max_length=2000
    )
    once = once_field()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.obj, Customer):
            currency: Any = self.fields["currency"]
            currency.choices = currency_choices()
            held = self.obj.balances.order_by("-amount").values_list("currency", flat=True).first()
            currency.initial = held or "USD"
        else:
            del self.fields["currency"]

    def currency_of(self, values: dict[str, Any]) -> str:
        return super().currency_of(values) if isinstance(self.obj, Customer) else str(self.obj.currency)

    def movement(self) -> dict[str, Any]:
        """What move_balance wants of it."""
        minor: Decimal = self.cleaned_data["minor"]
        return {
            "currency": self.currency_of(self.cleaned_data),
            "amount": minor if self.cleaned_data["direction"] == GIVE else -minor,
            "kind": BalanceEntryKind.ADJUSTMENT,
            "reason": self.cleaned_data["reason"],
            "author": str(self.request.user),
            "idempotency_key": self._key(minor),
        }

    def _key(self, minor: Decimal) -> str | None:
        """The form and what it says: sent again after a change, it is another movement."""
        data = self.cleaned_data
        if not data["once"]:
            return None
        said = "|".join([self.currency_of(data), data["direction"], plain(minor), data["reason"]])
        return f"form {data['once']} {hashlib.sha256(said.encode()).hexdigest()[:16]}"


class ProfileForm(CommandForm):
    tax_exempt = switch("Exempt from tax", help_text="No tax is billed, and the reason is printed on each line.")
    exemption_reason = text("Reason of the exemption", required=False, help_text="Such as “charity”.")
    reverse_charge = switch(
        "Reverse charge", help_text="A business elsewhere that accounts for the tax itself; needs its tax id."
    )
    tax_id = text("Tax id", required=False, max_length=100)
    grace_hours = whole_number(
        "Hours as a draft",
        most=MOST_GRACE_HOURS,
        required=False,
        help_text="How long each invoice can be looked at before it is issued. Empty: as the settings say.",
    )
    needs_approval = switch("Wait for approval", help_text="Drafts are issued only once a person has approved them.")
    combine_invoices = switch(
        "One invoice", help_text="One for all subscriptions whose periods close together, instead of one each."
    )
    series = model_choice(
        "Number series",
        NumberSeries.objects.none(),
        required=False,
        empty_label="The default series",
        help_text="Where this customer's invoices get their numbers.",
    )

    def __init__(self, data: Any = None, *, request: HttpRequest, obj: Any = None, **kwargs: Any) -> None:
        profile = profile_of(obj)
        kwargs["initial"] = {name: getattr(profile, name) for name in self.base_fields}
        super().__init__(data, request=request, obj=obj, **kwargs)
        series: Any = self.fields["series"]
        series.queryset = NumberSeries.objects.order_by("name")


def holdings(customer: Customer, now: datetime) -> dict[str, Any]:
    """What the tab “Balance and credit” of a customer's page shows."""
    grants = CreditGrant.objects.filter(customer=customer)
    usable = grants.filter(in_force(now)).values("currency").annotate(held=Sum("remaining")).order_by("currency")
    entries = BalanceEntry.objects.filter(balance__customer=customer).order_by("-created_at", "-id")
    # One more than is shown says whether there are more; counting would read a whole ledger.
    newest = list(grants.order_by("-created_at", "-id")[: ROWS + 1])
    moved = list(entries.select_related("balance", "invoice", "credit_note")[: ROWS + 1])
    return {
        "balances": list(customer.balances.order_by("currency")),
        "usable": {row["currency"]: row["held"] for row in usable},
        "grants": newest[:ROWS],
        "grants_more": len(newest) > ROWS,
        "entries": moved[:ROWS],
        "entries_more": len(moved) > ROWS,
    }


def ledger_page(request: HttpRequest, entries: QuerySet[Any], url: str) -> dict[str, Any]:
    """One page of a ledger, newest first, and where the pages beside it are. A nonsensical page is the first."""
    text = request.GET.get("page", "")
    number = min(int(text), LAST_PAGE) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    first = number * ENTRIES_PER_PAGE
    rows = entries.select_related("invoice", "credit_note").order_by("-created_at", "-id")
    found = list(rows[first : first + ENTRIES_PER_PAGE + 1])
    return {
        "entries": found[:ENTRIES_PER_PAGE],
        "newer_url": with_query(url, page=number - 1) if number else "",
        "older_url": with_query(url, page=number + 1) if len(found) > ENTRIES_PER_PAGE else "",
    }
