"""/events and /meters."""

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from customers.api.errors import ApiError
from customers.api.pagination import PAGE_PARAMETERS, page, page_bounds
from customers.api.parsers import read_body
from customers.api.schema import answer, nothing, page_answer
from customers.models import ApiKey
from meters.api.objects import (
    EventObject,
    IngestObject,
    MeterObject,
    event_object,
    meter_object,
)
from meters.api.serializers import INGEST_BODY, EventQuery, MeterCreate, MeterQuery, MeterUpdate
from meters.events import get_event, list_events
from meters.ingestion import decode_batch, ingest_events
from meters.meters import archive_meter, create_meter, get_meter, unarchive_meter, update_meter
from meters.models import Meter

EVENT_ID = OpenApiParameter(
    "event_id",
    str,
    OpenApiParameter.PATH,
    description="As it was sent, percent-encoded; it may contain slashes.",
)


class EventsView(APIView):
    @extend_schema(
        operation_id="events_list",
        tags=["events"],
        summary="List events, newest first",
        description="400 when `event_name` is given and is not the name that the meter reads.",
        parameters=[EventQuery, *PAGE_PARAMETERS],
        responses={200: page_answer(EventObject)},
    )
    def get(self, request: Request) -> Response:
        wanted = EventQuery(data=request.query_params).read()
        first, end = page_bounds(request)
        event_name = wanted.get("event_name") or None
        meter = get_meter(meter_id=wanted["meter_id"]) if wanted.get("meter_id") else None
        if meter is not None and event_name not in (None, meter.event_name):
            raise ApiError(f"event_name: the meter {meter.public_id} reads another event name.")
        events = list_events(
            offset=first,
            limit=end - first,
            customer_id=wanted.get("customer_id") or None,
            event_name=event_name,
            meter=meter,
            start=wanted.get("start"),
            end=wanted.get("end"),
        )
        return Response({"items": [event_object(event) for event in events]})


class EventView(APIView):
    @extend_schema(
        operation_id="events_retrieve",
        tags=["events"],
        summary="Get an event",
        parameters=[EVENT_ID],
        responses={200: answer(EventObject)},
    )
    def get(self, request: Request, event_id: str) -> Response:
        return Response(event_object(get_event(event_id=event_id)))


class IngestView(APIView):
    @extend_schema(
        operation_id="events_ingest",
        tags=["events"],
        summary="Store events",
        description=(
            "1 to 1,000 events, all or none. An `event_id` that was stored before is passed over and not counted, so "
            "a batch may be sent again. An answer of 200 means that the events are on disk.\n\n"
            "400: something is wrong with some events; `errors` names each with `index`, `event_id`, `code` and "
            "`message`. 422: the body is not JSON of this shape. The body may come packed (`Content-Encoding: gzip` or "
            "`zstd`). An event may be as old as the lateness window "
            "(1 hour unless configured otherwise) and 5 minutes ahead; a key that may backfill sends older ones."
        ),
        request={"application/json": INGEST_BODY},
        responses={200: answer(IngestObject)},
    )
    def post(self, request: Request) -> Response:
        if request.content_type.partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMediaType(request.content_type)
        events = decode_batch(read_body(request))
        backfill = isinstance(request.auth, ApiKey) and request.auth.backfill
        made: IngestObject = {"ingested_count": ingest_events(events=events, backfill=backfill)}
        return Response(made)

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        """An event may be called `ingest`, too."""
        return Response(event_object(get_event(event_id="ingest")))


class MetersView(APIView):
    @extend_schema(
        operation_id="meters_list",
        tags=["meters"],
        summary="List meters, newest first",
        parameters=[MeterQuery, *PAGE_PARAMETERS],
        responses={200: page_answer(MeterObject)},
    )
    def get(self, request: Request) -> Response:
        wanted = MeterQuery(data=request.query_params).read()
        meters = Meter.objects.filter(archived_at__isnull=not wanted.get("archived"))
        return page(request, meters, meter_object)

    @extend_schema(
        operation_id="meters_create",
        tags=["meters"],
        summary="Create a meter",
        description=(
            "What a meter counts (event name, aggregation, filter) never changes. A value that is text but reads as a "
            "number counts as that number; an event without the key, or whose value is no number, is left out.\n\n"
            "A filter compares as numbers where both sides read as numbers, else as booleans, else as text; a missing "
            "key never matches, also for `not_equals` and `does_not_contain`."
        ),
        request=MeterCreate,
        responses={201: answer(MeterObject)},
    )
    def post(self, request: Request) -> Response:
        body = MeterCreate(data=request.data)
        body.is_valid(raise_exception=True)
        return Response(meter_object(create_meter(**body.arguments())), status=201)


class MeterView(APIView):
    @extend_schema(
        operation_id="meters_retrieve",
        tags=["meters"],
        summary="Get a meter, archived or not",
        responses={200: answer(MeterObject)},
    )
    def get(self, request: Request, meter_id: str) -> Response:
        return Response(meter_object(get_meter(meter_id=meter_id)))

    @extend_schema(
        operation_id="meters_update",
        tags=["meters"],
        summary="Rename a meter",
        request=MeterUpdate,
        responses={200: answer(MeterObject)},
    )
    def patch(self, request: Request, meter_id: str) -> Response:
        meter = get_meter(meter_id=meter_id)
        body = MeterUpdate(data=request.data)
        body.is_valid(raise_exception=True)
        return Response(meter_object(update_meter(meter=meter, **body.changes())))

    @extend_schema(
        operation_id="meters_archive",
        tags=["meters"],
        summary="Archive a meter",
        description="No new product may use it. Subscriptions that run go on.",
        responses={204: nothing("Archived.")},
    )
    def delete(self, request: Request, meter_id: str) -> Response:
        archive_meter(meter=get_meter(meter_id=meter_id), now=timezone.now())
        return Response(status=204)


class MeterUnarchiveView(APIView):
    @extend_schema(
        operation_id="meters_unarchive",
        tags=["meters"],
        summary="Take a meter out of the archive",
        request=None,
        responses={200: nothing("In use again.")},
    )
    def post(self, request: Request, meter_id: str) -> Response:
        unarchive_meter(meter=get_meter(meter_id=meter_id))
        return Response(status=200)
