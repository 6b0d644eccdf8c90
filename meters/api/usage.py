"""/meters/…/usage, …/activity and /meters/preview: how much was used, and what was left out."""

import csv
import io
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from customers.api.errors import ApiError
from customers.api.schema import answer
from customers.clock import database_now
from customers.customers import get_customer
from customers.models import Customer
from meters.api.objects import (
    MeterActivityObject,
    PreviewObject,
    UsageObject,
    UsageRowObject,
    activity_object,
    preview_object,
    usage_row_object,
)
from meters.api.serializers import ActivityQuery, MeterPreview, UsageQuery
from meters.filters import read_number
from meters.ingestion import EARLIEST
from meters.meters import build_meter, get_meter
from meters.models import Meter
from meters.preview import preview_meter
from meters.usage import meter_activity
from meters.windows import LATEST, Window, usage_by_window

DEFAULT_SPAN = timedelta(days=30)


class MeterUsageView(APIView):
    @extend_schema(
        operation_id="meters_usage",
        tags=["meters"],
        summary="Read usage by hour, day or month",
        description=(
            "Of one customer, or the sum over all of them. Exact at the moment of the request. Windows follow the "
            "clock of the time zone; `start` and `end` may cut the first and the last, and there may be 1,000. "
            "With `group_by` there is a row for each combination of values that occurs. `format=csv`, or "
            "`Accept: text/csv`, answers the same as CSV."
        ),
        parameters=[UsageQuery],
        responses={200: answer(UsageObject)},
    )
    def get(self, request: Request, meter_id: str) -> Response | HttpResponse:
        wanted = UsageQuery(data=request.query_params).read()
        meter = get_meter(meter_id=meter_id)
        customer, start, end = _span(wanted)
        window = Window(wanted.get("window", Window.DAY))
        time_zone = wanted.get("time_zone") or settings.BILLING_TIME_ZONE
        rows = usage_by_window(
            meter=meter,
            customer=customer,
            start=start,
            end=end,
            window=window,
            time_zone=time_zone,
            grouped=_is_grouped(meter, wanted.get("group_by", "")),
        )
        items = [usage_row_object(meter, row) for row in rows]
        asked = wanted.get("format")
        if asked == "csv" or (asked is None and "text/csv" in request.headers.get("Accept", "")):
            return _as_csv(meter, items, grouped=bool(wanted.get("group_by")))
        usage: UsageObject = {
            "meter_id": meter.public_id,
            "customer_id": customer.public_id if customer else None,
            "measurement_unit": meter.measurement_unit,
            "window": window.value,
            "time_zone": time_zone,
            "items": items,
        }
        return Response(usage)


class MeterActivityView(APIView):
    @extend_schema(
        operation_id="meters_activity",
        tags=["meters"],
        summary="Count the events that a meter saw, counted and left out, by reason",
        parameters=[ActivityQuery],
        responses={200: answer(MeterActivityObject)},
    )
    def get(self, request: Request, meter_id: str) -> Response:
        wanted = ActivityQuery(data=request.query_params).read()
        meter = get_meter(meter_id=meter_id)
        customer, start, end = _span(wanted)
        found: MeterActivityObject = {
            "meter_id": meter.public_id,
            "customer_id": customer.public_id if customer else None,
            "start": start,
            "end": end,
            **activity_object(meter_activity(meter=meter, customer=customer, start=start, end=end)),
        }
        return Response(found)


class MeterPreviewView(APIView):
    @extend_schema(
        operation_id="meters_preview",
        tags=["meters"],
        summary="Try a meter on the last days without making it",
        description=(
            "Takes what `POST /meters` takes, and `days`. Answers the quantity by day over all customers, with the "
            "newest events that would count and that would not, and why. Nothing is saved."
        ),
        request=MeterPreview,
        responses={200: answer(PreviewObject)},
    )
    def post(self, request: Request) -> Response:
        body = MeterPreview(data=request.data)
        body.is_valid(raise_exception=True)
        preview = preview_meter(
            definition=build_meter(**body.arguments()),
            days=body.validated_data.get("days", 30),
            now=database_now(),
            time_zone=body.validated_data.get("time_zone") or settings.BILLING_TIME_ZONE,
        )
        return Response(preview_object(preview))


def _span(wanted: dict[str, Any]) -> tuple[Customer | None, Any, Any]:
    customer = get_customer(customer_id=wanted["customer_id"]) if wanted.get("customer_id") else None
    for name in ("start", "end"):
        if wanted.get(name) and not EARLIEST <= wanted[name] <= LATEST:
            raise ApiError(f"{name}: must lie between {EARLIEST.year} and {LATEST.year}.")
    end = wanted.get("end") or database_now()
    start = wanted.get("start") or max(EARLIEST, end - DEFAULT_SPAN)
    if start >= end:
        raise ApiError("end: must lie after start.")
    return customer, start, end


def _is_grouped(meter: Meter, asked: str) -> bool:
    if not asked:
        return False
    if sorted(asked.split(",")) != sorted(",".join(meter.group_by).split(",")):
        keys = ",".join(meter.group_by)
        raise ApiError(
            f"group_by: this meter is grouped by {keys}; name all." if keys else "group_by: it has no groups."
        )
    return True


def _as_csv(meter: Meter, items: Sequence[UsageRowObject], *, grouped: bool) -> HttpResponse:
    target = io.StringIO()
    writer = csv.writer(target)
    keys = meter.group_by if grouped else []
    writer.writerow(["start", "end", *map(_harmless, keys), "quantity", "events"])
    for item in items:
        instants = [item[name].isoformat().replace("+00:00", "Z") for name in ("start", "end")]
        values = [_harmless(item["groups"].get(key) or "") for key in keys]
        writer.writerow([*instants, *values, item["quantity"], item["events"]])
    return HttpResponse(
        target.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="usage-{meter.public_id}.csv"'},
    )


def _harmless(text: str) -> str:
    """A text that a spreadsheet would run as a formula, made a text by an apostrophe before it."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and read_number(text) is None else text
