"""/products, /subscriptions, /payments and the invoices behind them. Views check, call one domain function, answer."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Case, OuterRef, Prefetch, Q, QuerySet, Subquery, Value, When
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.api.objects import (
    CreditUsageObject,
    LineItemsObject,
    PaymentListItemObject,
    PaymentObject,
    ProductListItemObject,
    ProductObject,
    SubscriptionCreatedObject,
    SubscriptionListItemObject,
    SubscriptionObject,
    UsagePeriodObject,
    created_subscription,
    line_items,
    payment_list_item,
    payment_object,
    product_list_item,
    product_object,
    subscription_list_item,
    subscription_object,
    usage_period,
)
from billing.api.serializers import (
    PaymentQuery,
    ProductCreate,
    ProductQuery,
    ProductUpdate,
    SubscriptionCreate,
    SubscriptionQuery,
    SubscriptionUpdate,
    UsageHistoryQuery,
    price_terms,
)
from billing.cycles import usage_history
from billing.documents import render_pdf
from billing.models import BillingPeriod, Charge, InvoiceLine, Payment, Price, PriceType, Product, Subscription
from billing.products import archive_product, change_price, create_product, unarchive_product, update_product
from billing.subscriptions import (
    cancel_now,
    extend_expiry,
    move_next_billing_date,
    revoke_cancellation,
    schedule_cancellation,
    subscribe,
    update_details,
)
from customers.api.errors import ITEM_NOT_FOUND
from customers.api.pagination import PAGE_PARAMETERS, page, page_bounds
from customers.api.schema import answer, nothing, page_answer, refusal
from customers.customers import create_customer, get_customer
from customers.errors import DomainError, NotFound
from customers.models import Customer

_CHARGES = Prefetch("charges", queryset=Charge.objects.select_related("meter").order_by("position", "id"))


def _found(rows: QuerySet[Any], public_id: str) -> Any:
    """The one row of this id, or 404. PostgreSQL refuses a null character even in a question."""
    row = None if "\x00" in public_id else rows.filter(public_id=public_id).first()
    if row is None:
        raise NotFound(ITEM_NOT_FOUND)
    return row


def _created_between(rows: QuerySet[Any], wanted: dict[str, Any]) -> QuerySet[Any]:
    if since := wanted.get("created_at_gte"):
        rows = rows.filter(created_at__gte=since)
    if until := wanted.get("created_at_lte"):
        rows = rows.filter(created_at__lte=until)
    return rows


def _of_brand(rows: QuerySet[Any], wanted: dict[str, Any]) -> QuerySet[Any]:
    """There is one brand, of the id of the business."""
    brand = wanted.get("brand_id")
    return rows.none() if brand and brand != settings.BUSINESS_ID else rows


# -- products -----------------------------------------------------------------------------------------------------


def _current_prices(products: Iterable[Product]) -> dict[int, Price]:
    """The newest price version of each product, in two queries."""
    newest = Price.objects.filter(product__in=list(products)).order_by("product_id", "-version")
    return {price.product_id: price for price in newest.distinct("product_id").prefetch_related(_CHARGES)}


class ProductsView(APIView):
    @extend_schema(
        operation_id="products_list",
        tags=["products"],
        summary="List products, newest first",
        parameters=[ProductQuery, *PAGE_PARAMETERS],
        responses={200: page_answer(ProductListItemObject)},
    )
    def get(self, request: Request) -> Response:
        wanted = ProductQuery(data=request.query_params).read()
        products = Product.objects.filter(archived_at__isnull=not wanted.get("archived"))
        products = _of_brand(products, wanted)
        if wanted.get("recurring") is not None:
            newest = Price.objects.filter(product=OuterRef("pk")).order_by("-version").values("type")[:1]
            once = Q(newest_type=PriceType.ONE_TIME)
            products = products.alias(newest_type=Subquery(newest)).filter(~once if wanted["recurring"] else once)
        first, end = page_bounds(request)
        shown = list(products[first:end])
        prices = _current_prices(shown)
        return Response({"items": [product_list_item(product, prices[product.pk]) for product in shown]})

    @extend_schema(
        operation_id="products_create",
        tags=["products"],
        summary="Create a product",
        request=ProductCreate,
        responses={201: answer(ProductObject)},
    )
    def post(self, request: Request) -> Response:
        body = ProductCreate(data=request.data)
        body.is_valid(raise_exception=True)
        given = dict(body.validated_data)
        product = create_product(terms=price_terms(given.pop("price")), **given)
        return Response(product_object(product, _current_prices([product])[product.pk]), status=201)


class ProductView(APIView):
    @extend_schema(
        operation_id="products_retrieve",
        tags=["products"],
        summary="Get a product",
        responses={200: answer(ProductObject)},
    )
    def get(self, request: Request, product_id: str) -> Response:
        product: Product = _found(Product.objects.all(), product_id)
        return Response(product_object(product, _current_prices([product])[product.pk]))

    @extend_schema(
        operation_id="products_update",
        tags=["products"],
        summary="Change a product",
        description="A changed price is a new version: running subscriptions keep the one they were sold at.",
        request=ProductUpdate,
        responses={200: nothing("Changed; no body.")},
    )
    def patch(self, request: Request, product_id: str) -> Response:
        product: Product = _found(Product.objects.all(), product_id)
        body = ProductUpdate(data=request.data)
        body.is_valid(raise_exception=True)
        changes = {name: value for name, value in body.validated_data.items() if value is not None}
        if "description" in body.validated_data:
            changes["description"] = body.validated_data["description"]
        price = changes.pop("price", None)
        with transaction.atomic():
            if changes:
                update_product(product=product, **changes)
            if price is not None:
                change_price(product=product, terms=price_terms(price))
        return Response()

    @extend_schema(
        operation_id="products_archive",
        tags=["products"],
        summary="Archive a product",
        description="No new subscriptions; running ones go on.",
        responses={204: nothing("Archived.")},
    )
    def delete(self, request: Request, product_id: str) -> Response:
        archive_product(product=_found(Product.objects.all(), product_id), now=timezone.now())
        return Response(status=204)


class ProductUnarchiveView(APIView):
    @extend_schema(
        operation_id="products_unarchive",
        tags=["products"],
        summary="Bring an archived product back",
        request=None,
        responses={200: nothing("Back; no body.")},
    )
    def post(self, request: Request, product_id: str) -> Response:
        unarchive_product(product=_found(Product.objects.all(), product_id))
        return Response()


# -- subscriptions ------------------------------------------------------------------------------------------------


def _subscriptions(now: datetime) -> QuerySet[Subscription]:
    """Subscriptions with what an answer shows of them, and the ends of the period that `now` falls in."""
    running = Q(start__lte=now, end__gt=now)
    periods = BillingPeriod.objects.filter(subscription=OuterRef("pk")).order_by(
        Case(When(running, then=Value(0)), default=Value(1)), "-end"
    )
    return Subscription.objects.select_related("customer", "price__product").annotate(
        previous=Subquery(periods.values("start")[:1]), following=Subquery(periods.values("end")[:1])
    )


def _span(row: Any) -> dict[str, datetime]:
    """A subscription cancelled before it began has no period at all: then its whole life stands in."""
    return {"previous": row.previous or row.started_at, "following": row.following or row.expires_at}


def _subscription_answer(public_id: str, now: datetime) -> SubscriptionObject:
    rows = _subscriptions(now).prefetch_related(Prefetch("price__charges", queryset=_CHARGES.queryset))
    row = _found(rows, public_id)
    return subscription_object(row, **_span(row))


class SubscriptionsView(APIView):
    @extend_schema(
        operation_id="subscriptions_list",
        tags=["subscriptions"],
        summary="List subscriptions, newest first",
        parameters=[SubscriptionQuery, *PAGE_PARAMETERS],
        responses={200: page_answer(SubscriptionListItemObject)},
    )
    def get(self, request: Request) -> Response:
        wanted = SubscriptionQuery(data=request.query_params).read()
        rows = _of_brand(_created_between(_subscriptions(timezone.now()), wanted), wanted)
        if customer_id := wanted.get("customer_id"):
            rows = rows.filter(customer__public_id=customer_id)
        if product_id := wanted.get("product_id"):
            rows = rows.filter(price__product__public_id=product_id)
        if status := wanted.get("status"):
            rows = rows.filter(status=status)
        if wanted.get("cancel_at_next_billing_date") is not None:
            rows = rows.filter(cancel_at_period_end=wanted["cancel_at_next_billing_date"])
        return page(request, rows, lambda row: subscription_list_item(row, **_span(row)))

    @extend_schema(
        operation_id="subscriptions_create",
        tags=["subscriptions"],
        summary="Subscribe a customer to a product",
        description=(
            "The first period begins at once, and its fee is invoiced in advance. `payment_id` is the payment of that "
            "first invoice, or a payment of 0 where nothing is due yet."
        ),
        request=SubscriptionCreate,
        responses={200: answer(SubscriptionCreatedObject)},
    )
    def post(self, request: Request) -> Response:
        body = SubscriptionCreate(data=request.data)
        body.is_valid(raise_exception=True)
        given = body.validated_data
        product: Product = _found(Product.objects.all(), given["product_id"])
        currency = product.current_price().currency
        if (given.get("billing_currency") or currency) != currency:
            raise DomainError(f"billing_currency: the product is sold in {currency} only.")
        with transaction.atomic():
            subscription = subscribe(
                customer=_subscribing_customer(given["customer"], given.get("billing")),
                product=product,
                now=timezone.now(),
                quantity=given["quantity"],
                starts_at=given.get("starts_at"),
                trial_period_days=given.get("trial_period_days"),
                metadata=given.get("metadata"),
                billing_address=given.get("billing"),
                tax_id=given.get("tax_id"),
            )
            payment = subscription.payments.earliest("id")
        return Response(created_subscription(subscription, payment))


def _subscribing_customer(who: dict[str, Any], billing: dict[str, Any] | None) -> Customer:
    if customer_id := who.get("customer_id"):
        return get_customer(customer_id=customer_id)
    return create_customer(
        name=who.get("name") or who["email"],
        email=who["email"],
        phone_number=who.get("phone_number"),
        billing_address=billing,
    )


class SubscriptionView(APIView):
    @extend_schema(
        operation_id="subscriptions_retrieve",
        tags=["subscriptions"],
        summary="Get a subscription",
        responses={200: answer(SubscriptionObject)},
    )
    def get(self, request: Request, subscription_id: str) -> Response:
        return Response(_subscription_answer(subscription_id, timezone.now()))

    @extend_schema(
        operation_id="subscriptions_update",
        tags=["subscriptions"],
        summary="Change, extend or cancel a subscription",
        description=(
            "`status: cancelled` ends it at once: usage up to that moment is invoiced, fees are not refunded. "
            "`cancel_at_next_billing_date` ends it with the running period, `false` takes that back. "
            "`next_billing_date` ends the running period there, and later periods count from it. "
            "All changes of one request happen, or none. Null means not given."
        ),
        request=SubscriptionUpdate,
        responses={200: answer(SubscriptionObject)},
    )
    def patch(self, request: Request, subscription_id: str) -> Response:
        subscription: Subscription = _found(Subscription.objects.select_related("price"), subscription_id)
        body = SubscriptionUpdate(data=request.data)
        body.is_valid(raise_exception=True)
        now = timezone.now()
        with transaction.atomic():
            _apply(subscription, body.validated_data, now)
        return Response(_subscription_answer(subscription_id, now))


def _apply(subscription: Subscription, changes: dict[str, Any], now: datetime) -> None:
    names = {"metadata": "metadata", "billing": "billing_address", "tax_id": "tax_id"}
    details = {of: changes[name] for name, of in names.items() if name in changes}
    if details:
        update_details(subscription=subscription, **details)
    if "subscription_period_count" in changes or "subscription_period_interval" in changes:
        price = subscription.price
        extend_expiry(
            subscription=subscription,
            count=changes.get("subscription_period_count") or price.subscription_period_count or 1,
            interval=changes.get("subscription_period_interval") or price.subscription_period_interval or "",
            now=now,
        )
    if "next_billing_date" in changes:
        move_next_billing_date(subscription=subscription, to=changes["next_billing_date"], now=now)
    why = {
        "reason": changes.get("cancel_reason"),
        "feedback": changes.get("cancellation_feedback"),
        "comment": changes.get("cancellation_comment"),
    }
    match changes.get("cancel_at_next_billing_date"):
        case True:
            schedule_cancellation(subscription=subscription, now=now, **why)
        case False:
            revoke_cancellation(subscription=subscription, now=now)
    if changes.get("status"):
        cancel_now(subscription=subscription, now=now, **why)


class UsageHistoryView(APIView):
    @extend_schema(
        operation_id="subscriptions_usage_history",
        tags=["subscriptions"],
        summary="Usage by billing period, newest first",
        description="The running period comes first, rated as it stands now.",
        parameters=[UsageHistoryQuery, *PAGE_PARAMETERS],
        responses={
            200: page_answer(UsagePeriodObject),
            409: refusal("The price says nothing of such usage, or a month that it needs has left the log."),
        },
    )
    def get(self, request: Request, subscription_id: str) -> Response:
        rows = Subscription.objects.select_related("price", "customer")
        subscription: Subscription = _found(rows, subscription_id)
        wanted = UsageHistoryQuery(data=request.query_params).read()
        first, end = page_bounds(request)
        periods = usage_history(
            subscription=subscription,
            now=timezone.now(),
            start=wanted.get("start_date"),
            end=wanted.get("end_date"),
            meter_id=wanted.get("meter_id") or None,
            offset=first,
            limit=end - first,
        )
        return Response({"items": [usage_period(period) for period in periods]})


class CreditUsageView(APIView):
    @extend_schema(
        operation_id="subscriptions_credit_usage",
        tags=["subscriptions"],
        summary="Credits of a subscription",
        responses={200: answer(CreditUsageObject)},
    )
    def get(self, request: Request, subscription_id: str) -> Response:
        subscription: Subscription = _found(Subscription.objects.all(), subscription_id)
        usage: CreditUsageObject = {"subscription_id": subscription.public_id, "items": []}
        return Response(usage)


# -- payments -----------------------------------------------------------------------------------------------------


def _payments() -> QuerySet[Payment]:
    lines = InvoiceLine.objects.select_related("subscription", "product", "charge__meter").order_by("position")
    return Payment.objects.select_related("customer", "subscription", "invoice").prefetch_related(
        Prefetch("invoice__lines", queryset=lines)
    )


class PaymentsView(APIView):
    @extend_schema(
        operation_id="payments_list",
        tags=["payments"],
        summary="List payments, newest first",
        description="Each issued invoice has one; it waits (`requires_payment_method`) until the invoice is paid.",
        parameters=[PaymentQuery, *PAGE_PARAMETERS],
        responses={200: page_answer(PaymentListItemObject)},
    )
    def get(self, request: Request) -> Response:
        wanted = PaymentQuery(data=request.query_params).read()
        rows = _of_brand(_created_between(_payments(), wanted), wanted)
        if customer_id := wanted.get("customer_id"):
            rows = rows.filter(customer__public_id=customer_id)
        if subscription_id := wanted.get("subscription_id"):
            rows = rows.filter(subscription__public_id=subscription_id)
        if product_id := wanted.get("product_id"):
            sold = InvoiceLine.objects.filter(product__public_id=product_id)
            rows = rows.filter(
                Q(subscription__price__product__public_id=product_id) | Q(invoice__in=sold.values("invoice"))
            )
        if status := wanted.get("status"):
            rows = rows.filter(status=status)
        if currency := wanted.get("currency"):
            rows = rows.filter(currency=currency)
        return page(request, rows, payment_list_item)


class PaymentView(APIView):
    @extend_schema(
        operation_id="payments_retrieve",
        tags=["payments"],
        summary="Get a payment",
        responses={200: answer(PaymentObject)},
    )
    def get(self, request: Request, payment_id: str) -> Response:
        return Response(payment_object(_found(_payments(), payment_id)))


class PaymentLineItemsView(APIView):
    @extend_schema(
        operation_id="payments_retrieve_line_items",
        tags=["payments"],
        summary="The lines of a payment's invoice",
        responses={200: answer(LineItemsObject)},
    )
    def get(self, request: Request, payment_id: str) -> Response:
        return Response(line_items(_found(_payments(), payment_id)))


class InvoiceOfPaymentView(APIView):
    @extend_schema(
        operation_id="invoices_payments_retrieve",
        tags=["invoices"],
        summary="The invoice of a payment, as a PDF",
        responses={(200, "application/pdf"): OpenApiResponse(OpenApiTypes.BINARY, description="The invoice.")},
    )
    def get(self, request: Request, payment_id: str) -> HttpResponse:
        payment: Payment = _found(Payment.objects.select_related("invoice"), payment_id)
        if payment.invoice is None:
            raise NotFound("This payment was of nothing, so it has no invoice.")
        pdf = HttpResponse(render_pdf(invoice=payment.invoice), content_type="application/pdf")
        pdf["Content-Disposition"] = f'attachment; filename="{payment.invoice.number}.pdf"'
        return pdf
