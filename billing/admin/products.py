"""Products: a price in a sentence, its versions, and what happens to whom when it changes."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from unfold.decorators import display

from billing.admin.calculator import calculate
from billing.admin.conventions import conventions_in_words
from billing.admin.price_charts import cost_chart, tier_rows, unit_price_chart
from billing.admin.price_forms import PriceForm, ProductForm, ProductTextsForm, digits_by_currency
from billing.admin.words import charge_sentence, every, in_minor_words, model_name, price_sentence, terms_sentence
from billing.models import Charge, Corrections, Price, PriceType, Product, Subscription
from billing.models.subscriptions import RUNNING
from billing.pricing import conventions_from_data
from billing.products import (
    archive_product,
    change_price,
    charge_rule,
    create_product,
    terms_of,
    unarchive_product,
    update_product,
)
from customers.admin.archive import ArchivedTabs, archive_command, unarchive_command
from customers.admin.base import link_action, with_query
from customers.admin.formats import badge, moment
from customers.errors import DomainError


@admin.register(Product)
class ProductAdmin(ArchivedTabs):
    add_form = ProductForm
    edit_form = ProductTextsForm
    add_title = "Create product"
    add_submit = "Create product"
    form_template = "admin/billing/product/form.html"
    page_template = "admin/billing/product/page.html"
    list_display = ("name", "kind", "price", "running_number", "created", "status")
    list_display_links = ("name",)
    search_fields = ("name", "public_id")
    list_per_page = 25
    list_tabs = (("", "On sale"), ("archived", "Archived"), ("all", "All"))
    list_tab_parameter = "show"
    actions_detail = ("edit_details", "new_price", "subscribe", "archive", "unarchive")
    empty_state = (
        "No product yet",
        "A product is what a customer subscribes to: a fee, a price for each meter, or both.",
    )

    # -- list --------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Product]:
        newest = Price.objects.filter(product=OuterRef("pk")).order_by("-version")
        return (
            super()
            .get_queryset(request)
            .annotate(
                price_type=Subquery(newest.values("type")[:1]),
                running=Count(
                    "prices__subscriptions", filter=Q(prices__subscriptions__status__in=RUNNING), distinct=True
                ),
            )
        )

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Each product of the page with its newest price, its charges and their meters: two more statements in all."""
        changelist = super().get_changelist_instance(request)
        products = list(changelist.result_list)
        newest = (
            Price.objects.filter(product__in=products)
            .order_by("product_id", "-version")
            .distinct("product_id")
            .prefetch_related("charges__meter")
        )
        prices = {price.product_id: price for price in newest}
        for product in products:
            product.newest_price = prices.get(product.pk)
        changelist.result_list = products
        return changelist

    @display(description="Type", ordering="price_type")
    def kind(self, obj: Any) -> str:
        return str(PriceType(obj.price_type).label) if obj.price_type else "–"

    @display(description="Price")
    def price(self, obj: Any) -> str:
        return price_sentence(obj.newest_price) if obj.newest_price else "–"

    @display(description="Running subscriptions", ordering="running")
    def running_number(self, obj: Any) -> int:
        return int(obj.running)

    @display(description="Created", ordering="created_at")
    def created(self, obj: Any) -> str:
        return moment(obj.created_at)

    @display(description="Status", ordering="archived_at")
    def status(self, obj: Any) -> str:
        return badge("archived") if obj.is_archived() else badge("on sale", "good")

    # -- forms -------------------------------------------------------------------------------------------------

    def create(self, request: HttpRequest, form: Any) -> Product:
        data = form.cleaned_data
        return create_product(
            name=data["name"],
            terms=form.terms,
            description=data["description"] or None,
            tax_category=data["tax_category"],
            metadata=data["metadata"],
            corrections=data["corrections"] or Corrections.ADJUST,
        )

    def edit(self, request: HttpRequest, obj: Any, form: Any) -> None:
        data = form.cleaned_data
        update_product(
            product=obj,
            name=data["name"],
            description=data["description"] or None,
            tax_category=data["tax_category"],
            metadata=data["metadata"],
            corrections=data["corrections"] or obj.corrections,
        )

    def form_context(self, request: HttpRequest, form: Any, obj: Any) -> Mapping[str, Any]:
        return {"digits": digits_by_currency()}

    def get_urls(self) -> list[Any]:
        return [
            path(
                "<path:object_id>/price/",
                self.admin_site.admin_view(self.price_view),
                name="billing_product_price",
            ),
            path(
                "<path:object_id>/calculate/",
                self.admin_site.admin_view(self.calculate_view),
                name="billing_product_calculate",
            ),
            *super().get_urls(),
        ]

    def price_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Type the new price; see what it means for whom; confirm. Only the confirmation changes anything."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        product = self.get_object(request, unquote(object_id))
        if product is None:
            raise Http404("There is no such product.")
        current = product.current_price()
        form = PriceForm(
            request.POST if request.method == "POST" else None, request=request, obj=product, price=current
        )
        question = None
        if request.method == "POST" and form.is_valid():
            try:
                terms = form.terms
                if terms == terms_of(current):
                    form.add_error(None, "Nothing differs from the current price.")
                elif "confirm" not in request.POST:
                    question = {
                        "running": running_of(product),
                        "next": current.version + 1,
                        "before": price_sentence(current),
                        "after": terms_sentence(terms),
                    }
                else:
                    price = change_price(product=product, terms=terms)
                    self.log_change(request, product, f"New price, version {price.version}.")
                    messages.success(request, f"Version {price.version} is what new subscriptions get from now on.")
                    return HttpResponseRedirect(self.page_url(product))
            except DomainError as error:
                form.add_error(None, error.message)
        return TemplateResponse(
            request,
            "admin/billing/product/price.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": product,
                "title": "New price",
                "form": form,
                "question": question,
                "current": price_sentence(current),
                "submit": "Continue",
                "back_url": self.page_url(product),
                "digits": digits_by_currency(),
            },
        )

    def calculate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What typed quantities would cost at the newest price. Changes nothing."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        product = self.get_object(request, unquote(object_id))
        if product is None:
            raise Http404("There is no such product.")
        calculation = calculate(product.current_price(), request.GET)
        return TemplateResponse(request, "admin/billing/product/_calculation.html", {"calculation": calculation})

    # -- the page ----------------------------------------------------------------------------------------------

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        prices = list(
            obj.prices.order_by("-version")
            .prefetch_related("charges__meter")
            .annotate(running=Count("subscriptions", filter=Q(subscriptions__status__in=RUNNING)))
        )
        current = prices[0]
        return {
            "current": current,
            "sentence": price_sentence(current),
            "charges": [_charge_shown(charge, current) for charge in current.charges.all()],
            "usage_period": every(current.usage_frequency_count, current.usage_frequency_interval),
            "conventions": conventions_in_words(current.conventions),
            "calculation": calculate(current, request.GET) if current.charges.all() else None,
            "calculate_url": reverse("admin:billing_product_calculate", args=[obj.pk]),
            "versions": [(price, price_sentence(price)) for price in prices],
            "subscriptions": list(
                Subscription.objects.filter(price__product=obj)
                .select_related("customer", "price")
                .order_by("-created_at", "-id")[:10]
            ),
            "subscriptions_url": with_query(reverse("admin:billing_subscription_changelist"), q=obj.public_id),
        }

    # -- what can be done --------------------------------------------------------------------------------------

    def has_subscribe_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "add_subscription")

    @link_action(title="Edit texts", permission="change", icon="edit")
    def edit_details(self, request: HttpRequest, object_id: str) -> str:
        return reverse("admin:billing_product_edit", args=[object_id])

    @link_action(title="Change price", permission="change", icon="sell")
    def new_price(self, request: HttpRequest, object_id: str) -> str:
        return reverse("admin:billing_product_price", args=[object_id])

    @link_action(title="Subscribe a customer", permission="subscribe", icon="autorenew")
    def subscribe(self, request: HttpRequest, object_id: str) -> str:
        return with_query(reverse("admin:billing_subscription_add"), product=object_id)

    archive = archive_command(
        noun="product",
        explain=lambda product: (
            f"“{product.name}” can no longer be subscribed to. Its {running_of(product)} running subscriptions go on "
            "and are billed as before."
        ),
        do=lambda product, now: archive_product(product=product, now=now),
    )
    unarchive = unarchive_command(
        noun="product",
        explain="It can be subscribed to again, at its newest price.",
        do=lambda product: unarchive_product(product=product),
        again="on sale",
    )


def _charge_shown(charge: Charge, price: Price) -> dict[str, Any]:
    """A charge as the page shows it: in words, as a table of tiers, drawn."""
    rule, unit, currency = charge_rule(charge), charge.meter.measurement_unit, price.currency
    charts = (
        unit_price_chart(rule, unit=unit, currency=currency),
        cost_chart(rule, conventions_from_data(price.conventions), unit=unit, currency=currency),
    )
    return {
        "charge": charge,
        "model": model_name(rule),
        "sentence": charge_sentence(charge, currency),
        "on_the_api": "“pricing”" if charge.price_per_unit is None else in_minor_words(charge.price_per_unit, currency),
        "free_units": rule.free_units,
        "tiers": tier_rows(rule, unit=unit, currency=currency),
        "charts": [chart for chart in charts if chart is not None],
    }


def running_of(product: Product) -> int:
    return Subscription.objects.filter(price__product=product, status__in=RUNNING).count()
