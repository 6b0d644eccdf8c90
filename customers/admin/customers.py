"""Customers: found, created, edited, and a page that says what they use, owe and see."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.contrib.filters.admin import RangeDateFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from billing.balances import move_balance
from billing.invoices import charge_once
from billing.models import Invoice, InvoiceStatus, PriceType, Product, Subscription
from billing.models.subscriptions import RUNNING
from billing.profiles import profile_of, set_profile
from billing.proposals import UsageNotPriceable
from billing.reports import customer_balance, usage_so_far
from customers.admin.base import CommandForm, PageAdmin, command, link_action, with_query
from customers.admin.billing import AdjustForm, ProfileForm, holdings
from customers.admin.formats import badge, moment, money
from customers.admin.forms import grouped_fields, model_choice, pairs, text, whole_number, width
from customers.customers import create_customer, update_customer
from customers.models import Customer
from customers.portal_links import create_portal_link, revoke_portal_links

ADDRESS = ("street", "city", "zipcode", "state", "country")


class CustomerForm(CommandForm):
    name = width(text("Name", help_text="As it stands on invoices."), "mb-half")
    email = width(text("Email", max_length=254), "mb-half")
    customer_id = text(
        "Customer id",
        required=False,
        max_length=100,
        help_text="What your application sends as customer_id with every event, for example cus_abc123 or an id of "
        "your own. Leave it empty to have one made. It can never change.",
    )
    phone_number = width(text("Phone", required=False, max_length=50), "mb-half")
    preferred_locale = width(
        text("Language", required=False, max_length=20, help_text="For example en or de."), "mb-half"
    )
    street = width(text("Street and number", required=False), "mb-half")
    city = width(text("City", required=False), "mb-half")
    zipcode = width(text("Postal code", required=False, max_length=20), "mb-third")
    state = width(text("State or region", required=False), "mb-third")
    country = width(
        text("Country", required=False, max_length=2, help_text="Two letters, such as DE or US."), "mb-third"
    )
    metadata = pairs()

    def __init__(self, data: Any = None, *, request: HttpRequest, obj: Any = None, **kwargs: Any) -> None:
        if obj is not None:
            kwargs["initial"] = {
                "name": obj.name,
                "email": obj.email,
                "phone_number": obj.phone_number,
                "preferred_locale": obj.preferred_locale,
                **{part: obj.billing_address.get(part, "") for part in ADDRESS},
                "metadata": obj.metadata,
            }
        super().__init__(data, request=request, obj=obj, **kwargs)
        if obj is not None:
            del self.fields["customer_id"]
            self.fields["metadata"].initial = obj.metadata

    @property
    def groups(self) -> list[tuple[str, list[Any]]]:
        return grouped_fields(
            self,
            [
                ("Who", ["name", "email", "customer_id", "phone_number", "preferred_locale"]),
                ("Billing address", list(ADDRESS)),
                ("Metadata", ["metadata"]),
            ],
        )

    def values(self) -> dict[str, Any]:
        """The fields as the domain wants them; nothing typed means nothing known."""
        data = self.cleaned_data
        address = {part: data[part].strip() for part in ADDRESS if data[part].strip()}
        if "country" in address:
            address["country"] = address["country"].upper()
        kept = {k: v for k, v in (self.obj.billing_address if self.obj else {}).items() if k not in ADDRESS}
        return {
            "name": data["name"],
            "email": data["email"],
            "phone_number": data["phone_number"] or None,
            "preferred_locale": data["preferred_locale"] or None,
            "billing_address": {**kept, **address},
            "metadata": data["metadata"],
        }


class ChargeForm(CommandForm):
    product = model_choice("Product", Product.objects.none(), help_text="Products with a one-time price.")
    quantity = whole_number("Quantity", least=1, most=2**31 - 1, initial=1)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["product"].queryset = one_time_products()  # type: ignore[attr-defined]


def one_time_products() -> QuerySet[Product]:
    """Products on sale whose newest price is one-time."""
    from billing.models import Price

    newest = Price.objects.filter(product=OuterRef("pk")).order_by("-version").values("type")[:1]
    return (
        Product.objects.filter(archived_at__isnull=True)
        .annotate(newest_type=newest)
        .filter(newest_type=PriceType.ONE_TIME)
    )


@admin.register(Customer)
class CustomerAdmin(PageAdmin):
    add_form = CustomerForm
    edit_form = CustomerForm
    add_title = "Create customer"
    add_submit = "Create customer"
    page_template = "admin/customers/customer/page.html"
    list_display = ("name", "email", "id_shown", "subscriptions_number", "open_number", "created")
    search_fields = ("name", "email", "public_id")
    list_filter = (("created_at", RangeDateFilter),)
    list_filter_submit = True
    actions_detail = (
        "edit_details",
        "subscribe",
        "charge",
        "adjust_balance",
        "grant_credit",
        "billing_profile",
        "portal_link",
        "revoke_links",
    )
    empty_state = (
        "No customer yet",
        "A customer is who you bill. Create one here, or let your application do it with POST /customers.",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Customer]:
        now = timezone.now()
        overdue = Invoice.objects.filter(customer=OuterRef("pk"), status=InvoiceStatus.ISSUED, due_at__lt=now)
        return (
            super()
            .get_queryset(request)
            .annotate(
                running=Count("subscriptions", filter=Q(subscriptions__status__in=RUNNING), distinct=True),
                open_invoices=Count("invoices", filter=Q(invoices__status=InvoiceStatus.ISSUED), distinct=True),
                is_overdue=Exists(overdue),
            )
        )

    # -- permissions -----------------------------------------------------------------------------------------

    def has_portal_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "add_portallink")

    def has_revoke_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "change_portallink")

    def has_subscribe_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "add_subscription", "billing")

    def has_charge_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "add_invoice", "billing")

    def has_adjust_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "add_balanceentry", "billing")

    def has_grant_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "add_creditgrant", "billing")

    def has_profile_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "change_billingprofile", "billing")

    # -- forms -----------------------------------------------------------------------------------------------

    def create(self, request: HttpRequest, form: Any) -> Customer:
        return create_customer(customer_id=form.cleaned_data["customer_id"] or None, **form.values())

    def edit(self, request: HttpRequest, obj: Any, form: Any) -> None:
        update_customer(customer=obj, **form.values())

    # -- the page --------------------------------------------------------------------------------------------

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        now = timezone.now()
        tab = request.GET.get("tab", "usage")
        tabs = [("usage", "Usage this period"), ("subscriptions", "Subscriptions"), ("invoices", "Invoices")]
        tabs += [("money", "Balance and credit"), ("details", "Details")]
        if tab not in dict(tabs):
            tab = "usage"
        subscriptions = list(
            Subscription.objects.filter(customer=obj).select_related("price__product", "customer")[:50]
        )
        context: dict[str, Any] = {
            "tab": tab,
            "tabs": [
                {"label": label, "url": with_query(self.page_url(obj), tab=value), "active": tab == value}
                for value, label in tabs
            ],
            "subscriptions": subscriptions,
            "balance": customer_balance(customer=obj, now=now),
            "events_url": with_query(reverse("admin:meters_event_changelist"), customer=obj.public_id),
        }
        if tab == "usage":
            context["usages"] = usage_now(subscriptions, now)
        elif tab == "invoices":
            context["invoices"] = list(Invoice.objects.filter(customer=obj).order_by("-created_at", "-id")[:50])
            context["notes"] = list(obj.credit_notes.select_related("invoice")[:50])
            context["invoices_url"] = with_query(reverse("admin:billing_invoice_changelist"), q=obj.public_id)
        elif tab == "money":
            context.update(holdings(obj, now))
            context["grants_url"] = with_query(
                reverse("admin:billing_creditgrant_changelist"), q=obj.public_id, status="all"
            )
            context["balances_url"] = with_query(reverse("admin:billing_balance_changelist"), q=obj.public_id)
        elif tab == "details":
            context["links"] = list(obj.portal_links.all()[:5])
            context["profile"] = profile_of(obj)
        return context

    # -- what can be done ------------------------------------------------------------------------------------

    @link_action(title="Edit", permission="change", icon="edit")
    def edit_details(self, request: HttpRequest, object_id: str) -> str:
        return reverse("admin:customers_customer_edit", args=[object_id])

    @link_action(title="Subscribe", permission="subscribe", icon="autorenew")
    def subscribe(self, request: HttpRequest, object_id: str) -> str:
        return with_query(reverse("admin:billing_subscription_add"), customer=object_id)

    @command(
        title="Charge once",
        permission="charge",
        icon="receipt",
        explain=lambda customer: f"{customer.name} gets an invoice for a one-time product now.",
        submit="Issue the invoice",
        form_class=ChargeForm,
    )
    def charge(self, request: HttpRequest, obj: Customer, form: Any) -> str:
        invoice = charge_once(
            customer=obj,
            product=form.cleaned_data["product"],
            quantity=form.cleaned_data["quantity"],
            now=timezone.now(),
        )
        self.log_change(request, obj, f"Invoiced {invoice}.")
        messages.success(request, f"Invoice {invoice} is issued.")
        return reverse("admin:billing_invoice_change", args=[invoice.pk])

    @command(
        title="Adjust balance",
        permission="adjust",
        icon="account_balance_wallet",
        explain=lambda customer: (
            f"The balance pays for invoices of {customer.name} when they are issued. It can never be less than nothing."
        ),
        submit="Move it",
        form_class=AdjustForm,
    )
    def adjust_balance(self, request: HttpRequest, obj: Customer, form: Any) -> str:
        entry = move_balance(customer=obj, now=timezone.now(), **form.movement())
        currency = entry.balance.currency
        self.log_change(request, obj, f"Moved the balance by {money(entry.amount, currency)}.")
        messages.success(request, f"The balance is {money(entry.after, currency)} now.")
        return with_query(self.page_url(obj), tab="money")

    @link_action(title="Grant credit", permission="grant", icon="savings")
    def grant_credit(self, request: HttpRequest, object_id: str) -> str:
        return with_query(reverse("admin:billing_creditgrant_add"), customer=object_id)

    @command(
        title="Billing profile",
        permission="profile",
        icon="request_quote",
        explain=lambda customer: (
            f"How {customer.name} is billed where it differs from everybody. Issued invoices stay as they are."
        ),
        submit="Save",
        form_class=ProfileForm,
        own_page=True,
    )
    def billing_profile(self, request: HttpRequest, obj: Customer, form: Any) -> str:
        set_profile(customer=obj, **form.cleaned_data)
        self.log_change(request, obj, [{"changed": {"fields": list(form.changed_data)}}])
        messages.success(request, "The billing profile is saved.")
        return with_query(self.page_url(obj), tab="details")

    @command(
        title="Portal link",
        permission="portal",
        icon="link",
        explain=lambda customer: (
            f"Makes a link that opens the pages of {customer.name}: their usage, cost so far, invoices. "
            "Whoever has the link can see them until it expires after 24 hours, so send it to this customer only."
        ),
        submit="Make the link",
        own_page=True,
    )
    def portal_link(self, request: HttpRequest, obj: Customer, form: CommandForm) -> HttpResponse:
        link, url = create_portal_link(customer=obj, now=timezone.now())
        self.log_change(request, obj, "Made a portal link.")
        response = TemplateResponse(
            request,
            "admin/customers/customer/portal_link.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": obj,
                "obj": obj,
                "title": "Portal link",
                "link": link,
                "url": url,
            },
        )
        # The address is shown by this answer only; the database keeps a hash of it.
        response["Cache-Control"] = "no-store"
        return response

    @command(
        title="Revoke portal links",
        permission="revoke",
        icon="link_off",
        variant=ActionVariant.DANGER,
        explain=lambda customer: (
            f"Closes every open link of {customer.name} at once, and every browser that came in through one. Open now: "
            f"{open_links(customer)}. Use it when a link has reached the wrong hands; a new one can be made any time."
        ),
        submit="Revoke them",
        available=lambda customer: open_links(customer) > 0,
    )
    def revoke_links(self, request: HttpRequest, obj: Customer, form: CommandForm) -> None:
        closed = revoke_portal_links(customer=obj, now=timezone.now())
        self.log_change(request, obj, "Revoked the portal links.")
        messages.success(request, f"Closed {closed} portal link{'' if closed == 1 else 's'}.")

    # -- list columns ----------------------------------------------------------------------------------------

    @display(description="Customer id", ordering="public_id")
    def id_shown(self, obj: Any) -> str:
        return str(obj.public_id)

    @display(description="Subscriptions", ordering="running")
    def subscriptions_number(self, obj: Any) -> int:
        return int(obj.running)

    @display(description="Open invoices", ordering="open_invoices")
    def open_number(self, obj: Any) -> Any:
        if obj.is_overdue:
            return badge(f"{obj.open_invoices} open, overdue", "bad")
        return obj.open_invoices or "–"

    @display(description="Created", ordering="created_at")
    def created(self, obj: Any) -> str:
        return moment(obj.created_at)


def open_links(customer: Customer) -> int:
    return customer.portal_links.filter(revoked_at__isnull=True, expires_at__gt=timezone.now()).count()


def usage_now(subscriptions: list[Subscription], now: datetime) -> list[dict[str, Any]]:
    """The running period of each running subscription, as closing would rate it at this moment."""
    found = []
    for subscription in subscriptions:
        if not subscription.is_running():
            continue
        try:
            so_far = usage_so_far(subscription=subscription, now=now)
        except UsageNotPriceable as error:
            found.append({"subscription": subscription, "unpriced": error.message})
            continue
        if so_far is not None:
            running = so_far.running
            found.append(
                {"subscription": subscription, "so_far": so_far, "running": running, "lines": usage_rows(running)}
            )
    return found


def usage_rows(running: Any) -> list[dict[str, Any]]:
    """Each meter of a running period with how much of its free units are used, in whole per cent.

    `model` is the word for a price that no single unit price says.
    """
    rows = []
    for line in running.lines:
        free = line.free_units
        per_cent = None
        if free > 0:
            per_cent = int(min(max(line.quantity * 100 / free, 0), 100))
        model = str(line.explanation.get("model", "")).replace("_", " ")
        rows.append({"line": line, "per_cent": per_cent, "over": free > 0 and line.quantity > free, "model": model})
    return rows
