"""/customers and the links into their pages."""

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from customers.api.errors import NotSupported
from customers.api.objects import CustomerObject, PortalSessionObject, customer_object
from customers.api.pagination import PAGE_PARAMETERS, page
from customers.api.schema import answer, page_answer
from customers.api.serializers import CustomerCreate, CustomerQuery, CustomerUpdate, PortalSessionQuery
from customers.customers import create_customer, get_customer, update_customer
from customers.models import Customer
from customers.portal_links import create_portal_link


class CustomersView(APIView):
    @extend_schema(
        operation_id="customers_list",
        tags=["customers"],
        summary="List customers, newest first",
        parameters=[CustomerQuery, *PAGE_PARAMETERS],
        responses={200: page_answer(CustomerObject)},
    )
    def get(self, request: Request) -> Response:
        wanted = CustomerQuery(data=request.query_params).read()
        customers = Customer.objects.all()
        if email := wanted.get("email"):
            customers = customers.filter(email__iexact=email)
        if name := wanted.get("name"):
            customers = customers.filter(name__icontains=name)
        if since := wanted.get("created_at_gte"):
            customers = customers.filter(created_at__gte=since)
        if until := wanted.get("created_at_lte"):
            customers = customers.filter(created_at__lte=until)
        return page(request, customers, customer_object)

    @extend_schema(
        operation_id="customers_create",
        tags=["customers"],
        summary="Create a customer",
        request=CustomerCreate,
        responses={201: answer(CustomerObject)},
    )
    def post(self, request: Request) -> Response:
        body = CustomerCreate(data=request.data)
        body.is_valid(raise_exception=True)
        return Response(customer_object(create_customer(**body.validated_data)), status=201)


class CustomerView(APIView):
    @extend_schema(
        operation_id="customers_retrieve",
        tags=["customers"],
        summary="Get a customer",
        responses={200: answer(CustomerObject)},
    )
    def get(self, request: Request, customer_id: str) -> Response:
        return Response(customer_object(get_customer(customer_id=customer_id)))

    @extend_schema(
        operation_id="customers_update",
        tags=["customers"],
        summary="Change a customer",
        request=CustomerUpdate,
        responses={200: answer(CustomerObject)},
    )
    def patch(self, request: Request, customer_id: str) -> Response:
        customer = get_customer(customer_id=customer_id)
        body = CustomerUpdate(data=request.data)
        body.is_valid(raise_exception=True)
        return Response(customer_object(update_customer(customer=customer, **body.changes())))


class PortalSessionView(APIView):
    @extend_schema(
        operation_id="customers_customer_portal_session_create",
        tags=["customers"],
        summary="Make a link into the customer's own pages",
        description="The link is valid for 24 hours. No mail is sent yet: `send_email=true` is refused.",
        parameters=[PortalSessionQuery],
        request=None,
        responses={200: answer(PortalSessionObject)},
    )
    def post(self, request: Request, customer_id: str) -> Response:
        customer = get_customer(customer_id=customer_id)
        wanted = PortalSessionQuery(data=request.query_params).read()
        if wanted.get("send_email"):
            raise NotSupported("send_email: this server sends no mail; pass the link on yourself.")
        _, link = create_portal_link(customer=customer, now=timezone.now(), return_url=wanted.get("return_url", ""))
        made: PortalSessionObject = {"link": link}
        return Response(made)
