from typing import Any

import pytest

from meters.meters import (
    InvalidMeter,
    MeterNotFound,
    archive_meter,
    get_meter,
    unarchive_meter,
    update_meter,
)
from meters.models import Meter
from tests.base import at, call_meter, token_meter

pytestmark = pytest.mark.django_db

RULE = {"conjunction": "and", "clauses": [{"key": "tier", "operator": "equals", "value": "premium"}]}


def test_a_meter_keeps_what_it_was_made_with() -> None:
    made = token_meter(description=" words ", filter=RULE)
    kept = Meter.objects.get()
    assert kept == made
    assert (kept.name, kept.event_name, kept.aggregation, kept.property_key) == (
        "Tokens",
        "token.usage",
        "sum",
        "tokens",
    )
    assert (kept.measurement_unit, kept.description, kept.filter) == ("tokens", "words", RULE)
    assert kept.public_id.startswith("mtr_")
    assert not kept.is_archived()
    assert get_meter(meter_id=made.public_id) == made


def test_count_reads_no_key() -> None:
    assert call_meter(property_key="tokens").property_key == ""


def test_an_event_name_is_kept_byte_by_byte() -> None:
    assert call_meter(event_name=" API.Call ").event_name == " API.Call "


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"name": ""}, "name:"),
        ({"name": "   "}, "name:"),
        ({"name": "x" * 256}, "name:"),
        ({"name": "a\0"}, "name:"),
        ({"event_name": ""}, "event_name:"),
        ({"event_name": "x" * 256}, "event_name:"),
        ({"event_name": "a\ud800"}, "event_name:"),
        ({"measurement_unit": ""}, "measurement_unit:"),
        ({"measurement_unit": "x" * 101}, "measurement_unit:"),
        ({"description": "x" * 10_001}, "description:"),
        ({"aggregation": "average"}, "aggregation.type:"),
        ({"aggregation": ""}, "aggregation.type:"),
        ({"property_key": ""}, "aggregation.key:"),
        ({"property_key": "x" * 101}, "aggregation.key:"),
        ({"filter": {}}, "filter.conjunction:"),
        ({"filter": []}, "filter:"),
        (
            {"filter": {"conjunction": "or", "clauses": [{"key": "a", "operator": "less_than", "value": "x"}]}},
            "filter: a less_than “x” could never match",
        ),
    ],
)
def test_a_wrong_meter_is_refused_and_the_place_named(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidMeter) as refused:
        token_meter(**changes)
    assert refused.value.message.startswith(place)
    assert (refused.value.code, refused.value.status) == ("INVALID_REQUEST_BODY", 422)
    assert not Meter.objects.exists()


def test_names_may_change_and_nothing_else() -> None:
    made = token_meter(description="words", filter=RULE)
    update_meter(meter=made, name=" New ", measurement_unit="k tokens", description=None)
    kept = Meter.objects.get()
    assert (kept.name, kept.measurement_unit, kept.description) == ("New", "k tokens", None)
    assert (kept.event_name, kept.aggregation, kept.property_key, kept.filter) == (
        "token.usage",
        "sum",
        "tokens",
        RULE,
    )
    update_meter(meter=made)
    assert Meter.objects.get().name == "New"
    with pytest.raises(InvalidMeter):
        update_meter(meter=made, name="")


def test_archiving_twice_keeps_the_first_time_and_can_be_undone() -> None:
    made = call_meter()
    archive_meter(meter=made, now=at("2026-03-01"))
    archive_meter(meter=made, now=at("2026-03-02"))
    assert Meter.objects.get().archived_at == at("2026-03-01")
    unarchive_meter(meter=made)
    unarchive_meter(meter=made)
    assert Meter.objects.get().archived_at is None


@pytest.mark.parametrize("meter_id", ["mtr_nobody", "", "a\0", "x" * 5000])
def test_an_unknown_meter_is_not_found(meter_id: str) -> None:
    with pytest.raises(MeterNotFound):
        get_meter(meter_id=meter_id)
