"""Payments: what was asked for and what came. They follow their invoice and are changed through it."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, ChoicesDropdownFilter, RangeDateFilter
from unfold.decorators import display

from billing.models import Payment
from customers.admin.base import PageAdmin
from customers.admin.formats import badge, moment, money


@admin.register(Payment)
class PaymentAdmin(PageAdmin):
    page_template = "admin/billing/payment/page.html"
    list_display = ("public_id", "customer_shown", "invoice_shown", "status_shown", "created", "amount_money")
    list_display_links = ("public_id",)
    list_select_related = ("customer", "invoice")
    search_fields = ("public_id", "invoice__number", "customer__name", "customer__public_id")
    list_filter = (
        ("status", ChoicesDropdownFilter),
        ("currency", AllValuesCheckboxFilter),
        ("created_at", RangeDateFilter),
    )
    list_filter_submit = True
    actions = None
    empty_state = ("No payment yet", "A payment appears with each issued invoice and waits for the money.")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        return {"amount": money(obj.amount, obj.currency), "status": payment_badge(obj.status)}

    @display(description="Customer", ordering="customer__name")
    def customer_shown(self, obj: Any) -> str:
        return str(obj.customer.name)

    @display(description="Invoice", ordering="invoice__number")
    def invoice_shown(self, obj: Any) -> str:
        return str(obj.invoice) if obj.invoice else "none: nothing to pay"

    @display(description="Status", ordering="status")
    def status_shown(self, obj: Any) -> str:
        return payment_badge(obj.status)

    @display(description="Created", ordering="created_at")
    def created(self, obj: Any) -> str:
        return moment(obj.created_at)

    @display(description="Amount", ordering="amount")
    def amount_money(self, obj: Any) -> str:
        return money(obj.amount, obj.currency)


def payment_badge(status: str) -> Any:
    """The contract's word, except where it would puzzle a person."""
    word = "waiting for money" if status == "requires_payment_method" else status
    return badge(word, {"succeeded": "good", "failed": "bad", "cancelled": "calm"}.get(status, "info"))
