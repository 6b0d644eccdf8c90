"""Subscriptions: begun, watched, ended; what they cost so far and what the next invoice will say."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.db import OperationalError, connection, transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.contrib.filters.admin import RangeDateFilter, RelatedDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from billing.admin.discounts import DiscountForm, EndDiscountForm, discount_rows, discount_words, not_ended
from billing.admin.runs import MOST_CHOSEN, too_many_chosen
from billing.admin.words import period_progress, price_sentence
from billing.cycles import ProposedInvoice, preview_subscription
from billing.discounts import add_discount, end_discount
from billing.models import (
    BillingPeriod,
    Interval,
    Invoice,
    LineKind,
    Price,
    PriceType,
    Product,
    Subscription,
)
from billing.models.subscriptions import RUNNING
from billing.money import add
from billing.periods import Period, PeriodInvalid, period_at
from billing.profiles import profile_of
from billing.proposals import UsageNotPriceable, fee_rule
from billing.reports import usage_so_far
from billing.subscriptions import (
    cancel_now,
    extend_expiry,
    move_next_billing_date,
    reason_of,
    revoke_cancellation,
    schedule_cancellation,
    subscribe,
    unpark,
    update_details,
)
from customers.admin.base import CommandForm, PageAdmin, command, link_action, with_query
from customers.admin.customers import usage_rows
from customers.admin.formats import badge, moment
from customers.admin.forms import (
    choice,
    grouped_fields,
    instant,
    long_text,
    model_choice,
    pairs,
    search_choice,
    text,
    whole_number,
    width,
)
from customers.models import Customer

logger = logging.getLogger(__name__)


def recurring_products() -> QuerySet[Product]:
    """Products on sale whose newest price goes on from period to period."""
    newest = Price.objects.filter(product=OuterRef("pk")).order_by("-version").values("type")[:1]
    return (
        Product.objects.filter(archived_at__isnull=True)
        .annotate(newest_type=newest)
        .exclude(newest_type=PriceType.ONE_TIME)
        .order_by("name", "pk")
    )


class SubscribeForm(CommandForm):
    customer = width(
        search_choice("Customer", Subscription._meta.get_field("customer"), Customer.objects.all()), "mb-half"
    )
    product = width(model_choice("Product", Product.objects.none()), "mb-half")
    quantity = width(
        whole_number("Quantity", least=1, most=2**31 - 1, initial=1, help_text="Multiplies the fee, never the usage."),
        "mb-half",
    )
    starts_at = width(
        instant("Starts", help_text=""),
        "mb-half",
    )
    trial_period_days = width(
        whole_number("Trial days", most=10_000, required=False, help_text="Empty: as the product says."),
        "mb-half",
    )
    tax_id = width(text("Tax id", required=False, max_length=100), "mb-half")
    metadata = pairs()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        product: Any = self.fields["product"]
        product.queryset = recurring_products()
        zone = timezone.get_default_timezone_name()
        self.fields[
            "starts_at"
        ].help_text = f"Empty: now. A start in the past is billed for, period by period. Time zone: {zone}."

    @property
    def groups(self) -> list[tuple[str, list[Any]]]:
        return grouped_fields(
            self,
            [
                ("Who and what", ["customer", "product", "quantity"]),
                ("When", ["starts_at", "trial_period_days"]),
                ("More", ["tax_id", "metadata"]),
            ],
        )


class DetailsForm(CommandForm):
    tax_id = text("Tax id", required=False, max_length=100)
    metadata = pairs()

    def __init__(self, data: Any = None, *, request: Any, obj: Any = None, **kwargs: Any) -> None:
        kwargs["initial"] = {"tax_id": obj.tax_id, "metadata": obj.metadata}
        super().__init__(data, request=request, obj=obj, **kwargs)
        self.fields["metadata"].initial = obj.metadata


class CancelForm(CommandForm):
    comment = long_text("Why (optional)", help_text="Kept with the subscription.", max_length=2000)


class MoveForm(CommandForm):
    to = instant("Next billing date", required=True)


class ExtendForm(CommandForm):
    count = width(whole_number("Whole life, from its start", least=1, most=36600), "mb-half")
    interval = width(choice("Unit", Interval.choices, initial=Interval.YEAR), "mb-half")


@admin.register(Subscription)
class SubscriptionAdmin(PageAdmin):
    add_form = SubscribeForm
    edit_form = DetailsForm
    add_title = "Subscribe a customer"
    add_submit = "Subscribe"
    page_template = "admin/billing/subscription/page.html"
    list_display = ("customer_shown", "product_shown", "status_shown", "next_billing", "started")
    list_display_links = ("customer_shown",)
    list_select_related = ("customer", "price__product")
    search_fields = (
        "public_id",
        "customer__name",
        "customer__email",
        "customer__public_id",
        "price__product__name",
        "price__product__public_id",
    )
    list_filter = (("price__product", RelatedDropdownFilter), ("created_at", RangeDateFilter))
    list_filter_submit = True
    list_tabs = (
        ("", "Running"),
        ("parked", "Parked"),
        ("ending", "Ending"),
        ("over", "Cancelled or expired"),
        ("all", "All"),
    )
    actions = ("run_billing",)
    actions_detail = (
        "try_again",
        "edit_details",
        "move_billing",
        "extend",
        "add_discount",
        "end_discount",
        "undo_cancel",
        "cancel_later",
        "cancel",
    )
    empty_state = (
        "No subscription yet",
        "A subscription ties a customer to a product: from then on usage is billed period by period.",
    )

    # -- permissions -------------------------------------------------------------------------------------------

    def has_cancel_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "cancel_subscription")

    def has_run_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "start_billingrun")

    # -- list --------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Subscription]:
        end = (
            BillingPeriod.objects.filter(subscription=OuterRef("pk"), closed_at__isnull=True)
            .order_by("end")
            .values("end")[:1]
        )
        return super().get_queryset(request).annotate(next_end=Subquery(end))

    def in_tab(self, queryset: Any, value: str) -> Any:
        return {
            "": queryset.filter(status__in=RUNNING),
            "parked": queryset.filter(parked_at__isnull=False),
            "ending": queryset.filter(status__in=RUNNING, cancel_at_period_end=True),
            "over": queryset.exclude(status__in=RUNNING),
        }.get(value, queryset)

    def tab_counts(self, request: HttpRequest) -> Mapping[str, int]:
        from django.db.models import Count

        return Subscription.objects.aggregate(
            **{
                "": Count("pk", filter=Q(status__in=RUNNING)),
                "parked": Count("pk", filter=Q(parked_at__isnull=False)),
                "ending": Count("pk", filter=Q(status__in=RUNNING, cancel_at_period_end=True)),
                "over": Count("pk", filter=~Q(status__in=RUNNING)),
                "all": Count("pk"),
            }
        )

    @display(description="Customer", ordering="customer__name")
    def customer_shown(self, obj: Any) -> str:
        return str(obj.customer.name)

    @display(description="Product", ordering="price__product__name")
    def product_shown(self, obj: Any) -> str:
        many = f" × {obj.quantity}" if obj.quantity > 1 else ""
        return f"{obj.price.product.name}{many}"

    @display(description="Status", ordering="status")
    def status_shown(self, obj: Any) -> Any:
        if obj.parked_at:
            return badge("parked")
        if obj.is_running() and obj.cancel_at_period_end:
            return badge("ends with the period", "warn")
        return badge(obj.status)

    @display(description="Period ends", ordering="next_end")
    def next_billing(self, obj: Any) -> str:
        return moment(obj.next_end)

    @display(description="Started", ordering="started_at")
    def started(self, obj: Any) -> str:
        return moment(obj.started_at)

    @action(description="Run billing for the selected…", permissions=["run"])
    def run_billing(self, request: HttpRequest, queryset: QuerySet[Subscription]) -> HttpResponseRedirect | None:
        """Changes nothing: leads to the dry run of the chosen ones."""
        count = queryset.count()
        if count > MOST_CHOSEN:
            messages.error(request, too_many_chosen(count))
            return None
        chosen = ",".join(str(pk) for pk in queryset.order_by("pk").values_list("pk", flat=True))
        return HttpResponseRedirect(with_query(reverse("admin:billing_billingrun_start"), only=chosen))

    # -- forms -------------------------------------------------------------------------------------------------

    def create(self, request: HttpRequest, form: Any) -> Subscription:
        data = form.cleaned_data
        return subscribe(
            customer=data["customer"],
            product=data["product"],
            now=timezone.now(),
            quantity=data["quantity"],
            starts_at=data["starts_at"],
            trial_period_days=data["trial_period_days"],
            metadata=data["metadata"],
            tax_id=data["tax_id"] or None,
        )

    def after_create(self, request: HttpRequest, obj: Any) -> None:
        issued = obj.invoices.filter(number__isnull=False).first()
        billed = f" Its first fee is on invoice {issued}." if issued else ""
        messages.success(request, f"{obj.customer.name} is subscribed to “{obj.price.product.name}”.{billed}")

    def edit(self, request: HttpRequest, obj: Any, form: Any) -> None:
        update_details(
            subscription=obj,
            tax_id=form.cleaned_data["tax_id"] or None,
            metadata=form.cleaned_data["metadata"],
        )

    # -- the page ----------------------------------------------------------------------------------------------

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        now = timezone.now()
        unpriced = ""
        try:
            so_far = usage_so_far(subscription=obj, now=now)
        except UsageNotPriceable as error:
            so_far, unpriced = None, error.message
        open_period = so_far.next_period if so_far else None
        period = so_far.running.period if so_far else None
        coming, trouble = next_invoice(obj, open_period, now)
        context: dict[str, Any] = {
            "sentence": price_sentence(obj.price),
            "usage": {"so_far": so_far, "running": so_far.running, "lines": usage_rows(so_far.running)}
            if so_far
            else None,
            "periods": list(obj.periods.order_by("-start")[:12]),
            "invoices": list(Invoice.objects.filter(subscription=obj).order_by("-created_at", "-id")[:12]),
            "open_period": open_period,
            "closes_at": open_period.end + settings.LATENESS_WINDOW if open_period else None,
            "lateness_minutes": int(settings.LATENESS_WINDOW.total_seconds() // 60),
            "run_url": with_query(reverse("admin:billing_billingrun_start"), only=obj.pk),
            "coming": coming,
            "unpriced": unpriced,
            "trouble": trouble,
            "combined": profile_of(obj.customer).combine_invoices,
            "discounts": discount_rows(obj, now=now, period_start=period.start if period else None),
            "commitment": _commitment(obj, coming),
            "fee_period": _fee_period(obj, now),
        }
        if period:
            context["progress"] = period_progress(start=period.start, end=period.end, now=now)
            context["is_now"] = period.start <= now < period.end
        return context

    # -- what can be done ----------------------------------------------------------------------------------------

    @link_action(title="Edit details", permission="change", icon="edit")
    def edit_details(self, request: HttpRequest, object_id: str) -> str:
        return reverse("admin:billing_subscription_edit", args=[object_id])

    @command(
        title="Try again",
        permission="run",
        icon="restart_alt",
        variant=ActionVariant.PRIMARY,
        explain=lambda subscription: [
            f"Billing stopped for this subscription: {subscription.parked_reason or 'no reason was kept'}",
            "When the reason is gone, let billing take it up again: the next run closes what has waited.",
        ],
        submit="Take it up again",
        available=lambda subscription: subscription.parked_at is not None,
    )
    def try_again(self, request: HttpRequest, obj: Subscription, form: CommandForm) -> None:
        unpark(subscription=obj)
        self.log_change(request, obj, "Unparked.")
        messages.success(request, "The next billing run tries it again. You can also run billing for it now.")

    @command(
        title="Move next billing date",
        permission="change",
        icon="event",
        explain="The running period ends at that moment, and later periods are counted from it.",
        submit="Move it",
        form_class=MoveForm,
        available=lambda subscription: subscription.is_running(),
    )
    def move_billing(self, request: HttpRequest, obj: Subscription, form: Any) -> None:
        move_next_billing_date(subscription=obj, to=form.cleaned_data["to"], now=timezone.now())
        self.log_change(request, obj, f"Moved the next billing date to {form.cleaned_data['to'].isoformat()}.")
        messages.success(request, "The running period ends at the new date.")

    @command(
        title="Extend its life",
        permission="change",
        icon="more_time",
        explain=lambda subscription: f"It expires on {subscription.expires_at:%Y-%m-%d}; it can only be made longer.",
        submit="Extend it",
        form_class=ExtendForm,
        available=lambda subscription: subscription.is_running(),
    )
    def extend(self, request: HttpRequest, obj: Subscription, form: Any) -> None:
        extend_expiry(
            subscription=obj,
            count=form.cleaned_data["count"],
            interval=form.cleaned_data["interval"],
            now=timezone.now(),
        )
        self.log_change(request, obj, "Extended.")
        messages.success(request, f"It now expires on {obj.expires_at:%Y-%m-%d}.")

    @command(
        title="Add a discount",
        permission="change",
        icon="sell",
        explain=lambda subscription: [
            "It is the last in the order and finds what the earlier ones left. What is billed already stays as it is.",
            "A percentage may be off the fee, the usage or both. An amount is off one of them, in each period.",
        ],
        submit="Add it",
        form_class=DiscountForm,
        available=lambda subscription: subscription.is_running(),
    )
    def add_discount(self, request: HttpRequest, obj: Subscription, form: Any) -> None:
        discount = add_discount(subscription=obj, now=timezone.now(), **form.terms())
        self.log_change(request, obj, f"Added the discount “{discount.name}”: {discount_words(discount)}.")
        messages.success(request, f"“{discount.name}” takes {discount_words(discount)}.")

    @command(
        title="End a discount",
        permission="change",
        icon="money_off",
        explain="Periods that begin from now on have it no more; the running one keeps it.",
        submit="End it",
        form_class=EndDiscountForm,
        available=lambda subscription: not_ended(subscription).exists(),
    )
    def end_discount(self, request: HttpRequest, obj: Subscription, form: Any) -> None:
        discount = form.cleaned_data["discount"]
        end_discount(discount=discount, now=timezone.now())
        self.log_change(request, obj, f"Ended the discount “{discount.name}”.")
        messages.success(request, f"“{discount.name}” counts for no period that begins from now on.")

    @command(
        title="Cancel at period end",
        permission="cancel",
        icon="event_busy",
        explain="It goes on until the running period ends, then stops. Usage up to then is invoiced.",
        submit="Cancel at period end",
        form_class=CancelForm,
        available=lambda subscription: subscription.is_running() and not subscription.cancel_at_period_end,
    )
    def cancel_later(self, request: HttpRequest, obj: Subscription, form: Any) -> None:
        schedule_cancellation(
            subscription=obj,
            now=timezone.now(),
            reason="cancelled_by_merchant",
            comment=form.cleaned_data["comment"] or None,
        )
        self.log_change(request, obj, "Cancellation scheduled.")
        messages.success(request, "It ends with the running period. You can undo this until then.")

    @command(
        title="Undo the cancellation",
        permission="cancel",
        icon="undo",
        explain="It goes on after the running period as if nothing had happened.",
        submit="Keep the subscription",
        available=lambda subscription: subscription.is_running() and subscription.cancel_at_period_end,
    )
    def undo_cancel(self, request: HttpRequest, obj: Subscription, form: CommandForm) -> None:
        revoke_cancellation(subscription=obj, now=timezone.now())
        self.log_change(request, obj, "Cancellation undone.")
        messages.success(request, "The subscription goes on.")

    @command(
        title="Cancel now",
        permission="cancel",
        icon="cancel",
        variant=ActionVariant.DANGER,
        explain="It ends at this moment and cannot be brought back. Usage up to now is invoiced with the next billing "
        "run; a fee already paid is not refunded.",
        submit="Cancel now",
        form_class=CancelForm,
        available=lambda subscription: subscription.is_running(),
    )
    def cancel(self, request: HttpRequest, obj: Subscription, form: Any) -> None:
        cancel_now(
            subscription=obj,
            now=timezone.now(),
            reason="cancelled_by_merchant",
            comment=form.cleaned_data["comment"] or None,
        )
        self.log_change(request, obj, "Cancelled.")
        messages.success(request, "The subscription is cancelled. Its last usage is on the next invoice.")


# Another transaction may be billing this subscription right now; the page waits no longer for it.
PATIENCE = "1s"


def next_invoice(
    subscription: Subscription, open_period: BillingPeriod | None, now: datetime
) -> tuple[ProposedInvoice | None, str]:
    """What the next closing would issue if nothing more were used, or why that cannot be said."""
    until = open_period.end + settings.LATENESS_WINDOW if open_period else now
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [PATIENCE])
            proposed = preview_subscription(subscription_id=subscription.pk, until=max(until, now), now=now)
    except OperationalError:
        return None, "It is being billed at this moment; look again."
    except Exception as error:
        # Billing would park it for this; the page says why, and shows the rest.
        logger.exception("the next invoice of %s cannot be previewed", subscription.public_id)
        return None, reason_of(error)
    return (proposed[0] if proposed else None), ""


def _commitment(subscription: Subscription, coming: ProposedInvoice | None) -> dict[str, Any] | None:
    """What the commitment would add to the next invoice; None where the price has none."""
    committed = subscription.price.commitment
    if committed is None:
        return None
    added = [line for line in coming.lines if line.kind == LineKind.COMMITMENT] if coming else []
    return {"amount": committed, "added": add(*(line.amount for line in added))}


def _fee_period(subscription: Subscription, now: datetime) -> Period | None:
    """The period that the fee is paid for, where it is longer than the usage's."""
    if subscription.price.usage_frequency_interval is None or subscription.price.fixed_amount == 0:
        return None
    try:
        return period_at(fee_rule(subscription), max(now, subscription.anchor))
    except PeriodInvalid:
        return None
