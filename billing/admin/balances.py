"""Balances: what customers hold, and the ledger of each. They move by commands and invoices, never by an edit."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import AllValuesCheckboxFilter
from unfold.decorators import display

from billing.balances import move_balance
from billing.models import Balance
from customers.admin.base import PageAdmin, command
from customers.admin.billing import AdjustForm, ledger_page
from customers.admin.formats import moment, money


@admin.register(Balance)
class BalanceAdmin(PageAdmin):
    page_template = "admin/billing/balance/page.html"
    list_display = ("customer_shown", "currency", "held", "moved")
    list_display_links = ("customer_shown",)
    list_select_related = ("customer",)
    search_fields = ("customer__name", "customer__public_id", "customer__email")
    list_filter = (("currency", AllValuesCheckboxFilter),)
    list_filter_submit = True
    ordering = ("-updated_at", "-id")
    actions = None
    actions_detail = ("adjust",)
    empty_state = (
        "No balance yet",
        "A customer's balance begins when you put money onto it from the customer's page, when an application does so "
        "over the API, or when a credit note or an invoice below zero gives money back.",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_adjust_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "add_balanceentry")

    @display(description="Customer", ordering="customer__name")
    def customer_shown(self, obj: Any) -> str:
        return str(obj.customer.name)

    @display(description="Holds", ordering="amount")
    def held(self, obj: Any) -> str:
        return money(obj.amount, obj.currency)

    @display(description="Last moved", ordering="updated_at")
    def moved(self, obj: Any) -> str:
        return moment(obj.updated_at)

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        return ledger_page(request, obj.entries.all(), self.page_url(obj))

    @command(
        title="Adjust",
        permission="adjust",
        icon="account_balance_wallet",
        explain=lambda balance: (
            f"{balance.customer.name} holds {money(balance.amount, balance.currency)}. The balance pays for invoices "
            "when they are issued; it can never be less than nothing."
        ),
        submit="Move it",
        form_class=AdjustForm,
    )
    def adjust(self, request: HttpRequest, obj: Balance, form: Any) -> None:
        entry = move_balance(customer=obj.customer, now=timezone.now(), **form.movement())
        self.log_change(request, obj, f"Moved the balance by {money(entry.amount, obj.currency)}.")
        messages.success(request, f"The balance is {money(entry.after, obj.currency)} now.")
