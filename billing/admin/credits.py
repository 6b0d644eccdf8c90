"""Prepaid credit: granted and withdrawn; drawn and given back by invoices. Each grant shows its ledger."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Q
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, RangeDateFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from billing.credits import LARGEST_PRIORITY, grant_credit, in_force, withdraw_grant
from billing.models import CreditGrant
from customers.admin.base import CommandForm, PageAdmin, command
from customers.admin.billing import MoneyForm, amount_field, ledger_page, once_field
from customers.admin.formats import badge, moment, money
from customers.admin.forms import (
    choice,
    currency_choices,
    grouped_fields,
    instant,
    long_text,
    search_choice,
    text,
    whole_number,
    width,
)
from customers.models import Customer


class GrantForm(MoneyForm):
    customer = width(
        search_choice("Customer", CreditGrant._meta.get_field("customer"), Customer.objects.all()), "mb-half"
    )
    name = width(text("Name", help_text="The customer reads it: “Yearly prepayment”."), "mb-half")
    amount = width(amount_field(), "mb-half")
    currency = width(
        choice("Currency", currency_choices, initial="USD", help_text="It pays for invoices in this currency only."),
        "mb-half",
    )
    starts_at = width(instant("Counts from", help_text=""), "mb-half")
    expires_at = width(instant("Expires", help_text="What is left then is lost. Empty: never."), "mb-half")
    priority = whole_number(
        "Priority",
        most=LARGEST_PRIORITY,
        initial=0,
        help_text="The lowest is drawn first; among equals what expires first, then the older.",
    )
    once = once_field()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["starts_at"].help_text = f"Empty: now. Time zone: {timezone.get_default_timezone_name()}."

    @property
    def groups(self) -> list[tuple[str, list[Any]]]:
        return grouped_fields(
            self,
            [
                ("Credit", ["customer", "name", "amount", "currency"]),
                ("When and in what order", ["starts_at", "expires_at", "priority"]),
            ],
        )


class WithdrawForm(CommandForm):
    reason = long_text(
        "Why", required=True, help_text="Stands in the ledger; the customer reads it too.", max_length=2000
    )


def state_of(grant: CreditGrant, now: datetime) -> str:
    """One word or two: "active", "not begun", "used up", "expired", "withdrawn"."""
    if grant.withdrawn_at is not None:
        return "withdrawn"
    if grant.expires_at is not None and grant.expires_at <= now:
        return "expired"
    if grant.remaining == 0:
        return "used up"
    return "not begun" if grant.starts_at > now else "active"


def state_badge(grant: CreditGrant, now: datetime) -> str:
    word = state_of(grant, now)
    return badge(word, {"active": "good", "not begun": "info", "expired": "warn"}.get(word, "calm"))


def _coming(now: datetime) -> Q:
    return Q(remaining__gt=0, withdrawn_at__isnull=True, starts_at__gt=now)


@admin.register(CreditGrant)
class CreditGrantAdmin(PageAdmin):
    add_form = GrantForm
    add_title = "Grant prepaid credit"
    add_submit = "Grant it"
    page_template = "admin/billing/creditgrant/page.html"
    list_display = ("name", "customer_shown", "state", "left", "granted", "expires", "priority")
    list_display_links = ("name",)
    list_select_related = ("customer",)
    search_fields = ("name", "public_id", "customer__name", "customer__public_id", "customer__email")
    list_filter = (("currency", AllValuesCheckboxFilter), ("expires_at", RangeDateFilter))
    list_filter_submit = True
    actions = None
    list_tabs = (("", "To be drawn"), ("coming", "Not begun"), ("over", "Over"), ("all", "All"))
    actions_detail = ("withdraw",)
    empty_state = (
        "No prepaid credit",
        "Credit that a customer has bought ahead, or was given, pays for invoices before tax until it is used up or "
        "expires.",
    )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_withdraw_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "withdraw_creditgrant")

    def in_tab(self, queryset: Any, value: str) -> Any:
        now = timezone.now()
        return {
            "": queryset.filter(in_force(now)),
            "coming": queryset.filter(_coming(now)),
            "over": queryset.exclude(in_force(now)).exclude(_coming(now)),
        }.get(value, queryset)

    def tab_counts(self, request: HttpRequest) -> Mapping[str, int]:
        now = timezone.now()
        return CreditGrant.objects.aggregate(
            **{
                "": Count("pk", filter=in_force(now)),
                "coming": Count("pk", filter=_coming(now)),
                "over": Count("pk", filter=~in_force(now) & ~_coming(now)),
                "all": Count("pk"),
            }
        )

    @display(description="Customer", ordering="customer__name")
    def customer_shown(self, obj: Any) -> str:
        return str(obj.customer.name)

    @display(description="State")
    def state(self, obj: Any) -> str:
        return state_badge(obj, timezone.now())

    @display(description="Left", ordering="remaining")
    def left(self, obj: Any) -> str:
        return money(obj.remaining, obj.currency)

    @display(description="Granted", ordering="amount")
    def granted(self, obj: Any) -> str:
        return money(obj.amount, obj.currency)

    @display(description="Expires", ordering="expires_at")
    def expires(self, obj: Any) -> str:
        return moment(obj.expires_at) if obj.expires_at else "never"

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        return {"state": self.state(obj), **ledger_page(request, obj.entries.all(), self.page_url(obj))}

    def create(self, request: HttpRequest, form: Any) -> CreditGrant:
        data = form.cleaned_data
        return grant_credit(
            customer=data["customer"],
            name=data["name"],
            amount=data["minor"],
            currency=data["currency"],
            priority=data["priority"],
            starts_at=data["starts_at"],
            expires_at=data["expires_at"],
            author=str(request.user),
            once=data["once"],
            now=timezone.now(),
        )

    def after_create(self, request: HttpRequest, obj: Any) -> None:
        messages.success(request, f"{obj.customer.name} has {money(obj.amount, obj.currency)} of prepaid credit more.")

    @command(
        title="Withdraw",
        permission="withdraw",
        icon="money_off",
        variant=ActionVariant.DANGER,
        explain=lambda grant: [
            f"The {money(grant.remaining, grant.currency)} that are left of “{grant}” are taken back, for good.",
            "What invoices have drawn stays theirs; should one of them be voided, its part is withdrawn as well.",
        ],
        submit="Withdraw it",
        form_class=WithdrawForm,
        available=lambda grant: grant.withdrawn_at is None and grant.remaining > 0,
    )
    def withdraw(self, request: HttpRequest, obj: CreditGrant, form: Any) -> None:
        withdraw_grant(grant=obj, reason=form.cleaned_data["reason"], now=timezone.now())
        self.log_change(request, obj, "Withdrawn.")
        messages.success(request, "Nothing is left of it now.")
