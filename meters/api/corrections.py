"""/events/…/void and /events/…/verdicts: taking events back, and why an event counts or does not."""

from datetime import datetime, timedelta

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.corrections import preview_void
from customers.api.authentication import MayBackfill
from customers.api.errors import BackfillKeyNeeded
from customers.api.schema import answer
from customers.clock import database_now
from customers.customers import get_customer
from customers.models import ApiKey
from meters.api.objects import (
    BulkVoidObject,
    EventVoidObject,
    VerdictsObject,
    bulk_void_object,
    event_object,
    verdict_object,
    void_object,
)
from meters.api.serializers import BulkVoidRequest, EventVoidRequest
from meters.api.views import EVENT_ID
from meters.events import EventNotFound, find_event, find_place, get_event
from meters.meters import get_meter
from meters.usage import event_verdicts
from meters.voids import Selection, void_event, void_events


class EventVoidView(APIView):
    @extend_schema(
        operation_id="events_void",
        tags=["events"],
        summary="Void an event",
        description=(
            "The event stays in the log and counts for nothing from now on. A closed period is adjusted on the next "
            "invoice. Voiding it again is refused with 409 `EVENT_ALREADY_VOIDED`: the first reason stands. Its id "
            "remains taken. 409 `EVENT_ARCHIVED`: its month was archived and is settled. An event that is older than "
            "the lateness window (1 hour unless configured otherwise) needs a key that may backfill, else 403."
        ),
        parameters=[EVENT_ID],
        request=EventVoidRequest,
        responses={200: answer(EventVoidObject)},
    )
    def post(self, request: Request, event_id: str) -> Response:
        body = EventVoidRequest(data=request.data)
        body.is_valid(raise_exception=True)
        now = database_now()
        _check_right(request, event_id, now)
        void = void_event(event_id=event_id, reason=body.validated_data["reason"], author=_author(request), now=now)
        return Response(void_object(void))

    @extend_schema(exclude=True)
    def get(self, request: Request, event_id: str) -> Response:
        """The id of an event may end in `/void`."""
        return Response(event_object(get_event(event_id=f"{event_id}/void")))


class BulkVoidView(APIView):
    permission_classes = (MayBackfill,)

    @extend_schema(
        operation_id="events_void_many",
        tags=["events"],
        summary="Void events by filter, with a dry run",
        description=(
            "Voids every event of the selection that is not void yet, 100,000 at most; all of them, or none. With "
            "`dry_run` it says what would change in units (for each meter and customer over the whole span) and in "
            "money, and changes nothing. A level that is carried forward changes the time after the span, too; that is "
            "in `money` and not in `units`. Needs a key that may backfill, else 403."
        ),
        request=BulkVoidRequest,
        responses={200: answer(BulkVoidObject)},
    )
    def post(self, request: Request) -> Response:
        body = BulkVoidRequest(data=request.data)
        body.is_valid(raise_exception=True)
        given = body.validated_data
        where = Selection(
            start=given["start"],
            end=given["end"],
            event_name=given.get("event_name"),
            customer=get_customer(customer_id=given["customer_id"]) if "customer_id" in given else None,
            meter=get_meter(meter_id=given["meter_id"]) if "meter_id" in given else None,
            filter=given.get("filter"),
        )
        now = database_now()
        if given.get("dry_run"):
            correction = preview_void(where=where, now=now)
            return Response(bulk_void_object(correction.voided, correction))
        voided = void_events(where=where, reason=given.get("reason", ""), author=_author(request), now=now)
        return Response(bulk_void_object(voided, None))

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        """An event may be called `void`, too."""
        return Response(event_object(get_event(event_id="void")))


class EventVerdictsView(APIView):
    @extend_schema(
        operation_id="events_verdicts",
        tags=["events"],
        summary="Say what each meter makes of an event, and why",
        parameters=[EVENT_ID],
        responses={200: answer(VerdictsObject)},
    )
    def get(self, request: Request, event_id: str) -> Response:
        try:
            # The id of an event may end in `/verdicts`.
            return Response(event_object(get_event(event_id=f"{event_id}/verdicts")))
        except EventNotFound:
            pass
        event = find_event(event_id=event_id)
        said: VerdictsObject = {
            "event_id": event.event_id,
            "items": [verdict_object(meter, verdict) for meter, verdict in event_verdicts(event=event)],
        }
        return Response(said)


def _author(request: Request) -> str:
    return request.auth.name if isinstance(request.auth, ApiKey) else ""


def _check_right(request: Request, event_id: str, now: datetime) -> None:
    """Whoever may not send an event of this age may not take it back either."""
    if isinstance(request.auth, ApiKey) and request.auth.backfill:
        return
    if find_place(event_id=event_id).timestamp < now - settings.LATENESS_WINDOW:
        minutes = settings.LATENESS_WINDOW // timedelta(minutes=1)
        raise BackfillKeyNeeded(
            f"This event is more than {minutes} minutes old; voiding it needs an API key that may backfill."
        )
