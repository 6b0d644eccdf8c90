import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from rest_framework.test import APIClient

from customers.models import Customer
from meters.ingestion import EventInput, store_events
from meters.models import Backfill, Event
from tests.base import acme, at, call_meter, globex
from tests.meters.conftest import Caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(call: Caller) -> APIClient:
    return call()


@pytest.fixture(autouse=True)
def customer(db: None) -> Customer:
    return acme(customer_id="cus_abc123")


def event(event_id: str = "api_call_1", **changes: Any) -> dict[str, Any]:
    return {"event_id": event_id, "customer_id": "cus_abc123", "event_name": "api.call", **changes}


def ingest(api: APIClient, *events: Any) -> Any:
    return api.post("/events/ingest", {"events": list(events)}, format="json")


def raw(api: APIClient, body: bytes, **changes: Any) -> Any:
    changes = {"content_type": "application/json", **changes}
    return api.generic("POST", "/events/ingest", body, **changes)  # type: ignore[arg-type]  # bytes are taken as they are


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


# -- sending ---------------------------------------------------------------------------------------------------


def test_a_batch_is_stored_and_counted(api: APIClient) -> None:
    answer = ingest(
        api,
        event("a", timestamp=ago(minutes=5), metadata={"endpoint": "/v1/users", "tokens": "1700"}),
        event("b", timestamp=datetime.now().isoformat() if settings.TIME_ZONE == "UTC" else None),  # noqa: DTZ005
    )
    assert (answer.status_code, answer.json()) == (200, {"ingested_count": 2})
    assert Event.objects.count() == 2


def test_a_batch_may_be_sent_again_and_only_new_events_count(api: APIClient) -> None:
    assert ingest(api, event("a"), event("b")).json() == {"ingested_count": 2}
    assert ingest(api, event("a"), event("b")).json() == {"ingested_count": 0}
    assert ingest(api, event("b"), event("c")).json() == {"ingested_count": 1}
    assert Event.objects.count() == 3


def test_a_thousand_events_fit_and_one_more_does_not(api: APIClient) -> None:
    batch = [event(f"evt_{index}", metadata={"n": index}) for index in range(1001)]
    answer = ingest(api, *batch)
    assert answer.status_code == 400
    assert answer.json()["message"] == "events: send 1 to 1000 events, not 1001."
    assert ingest(api, *batch[:1000]).json() == {"ingested_count": 1000}
    assert Event.objects.count() == 1000


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"timestamp": "soon"}, 400, "INVALID_TIMESTAMP"),
        ({"timestamp": "2020-01-01T00:00:00Z"}, 400, "INVALID_TIMESTAMP"),
        ({"customer_id": "cus_nobody"}, 400, "CUSTOMER_NOT_FOUND"),
        ({"metadata": {"k": None}}, 400, "INVALID_METADATA"),
        ({"event_name": 5}, 422, "INVALID_REQUEST_BODY"),
        ({"timestamp": 1767225600}, 422, "INVALID_REQUEST_BODY"),
        ({"metadata": [1]}, 422, "INVALID_REQUEST_BODY"),
        ({"quantity": 5}, 422, "INVALID_REQUEST_BODY"),
    ],
)
def test_an_error_deep_in_a_batch_names_index_and_event_id(
    api: APIClient, changes: dict[str, Any], status: int, code: str
) -> None:
    batch = [event(f"evt_{index}") for index in range(1000)]
    batch[731] |= changes
    answer = ingest(api, *batch)
    assert answer.status_code == status
    body = answer.json()
    assert body["code"] == code
    assert body["message"].startswith("events[731] (evt_731): ")
    assert [(error["index"], error["event_id"], error["code"]) for error in body["errors"]] == [(731, "evt_731", code)]
    assert body["errors"][0]["message"] in body["message"]
    assert Event.objects.count() == 0


def test_an_old_event_needs_a_key_that_may_backfill(call: Caller) -> None:
    assert ingest(call(), event("a", timestamp=ago(hours=2))).status_code == 400
    assert ingest(call(backfill=True), event("a", timestamp=ago(hours=2))).json() == {"ingested_count": 1}
    assert Backfill.objects.get().events == 1
    assert ingest(call(backfill=True), event("b", timestamp=ago(minutes=-6))).status_code == 400


def test_a_read_only_key_stores_nothing(call: Caller) -> None:
    answer = ingest(call(read_only=True), event())
    assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert Event.objects.count() == 0


def test_without_a_key_the_body_is_not_even_looked_at() -> None:
    for client in (APIClient(), APIClient(headers={"Authorization": "Bearer mk_aaaaaaaaaa_" + "b" * 43})):
        answer = raw(client, b"{")
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")


def test_a_body_that_is_too_large_is_413(api: APIClient) -> None:
    answer = raw(api, b'{"events": [' + b" " * settings.MAX_REQUEST_BYTES)
    assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_another_content_type_is_415(api: APIClient, content_type: str) -> None:
    answer = raw(api, json.dumps({"events": [event()]}).encode(), content_type=content_type)
    assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_the_content_type_may_name_a_charset(api: APIClient) -> None:
    body = json.dumps({"events": [event()]}).encode()
    assert raw(api, body, content_type="Application/JSON; charset=utf-8").json() == {"ingested_count": 1}


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_other_methods_are_405(api: APIClient, method: str) -> None:
    answer = getattr(api, method)("/events/ingest")
    assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")


def test_a_single_event_costs_few_round_trips(api: APIClient, django_assert_num_queries: Any) -> None:
    assert ingest(api, event("warm up: the key is read, the month is made")).status_code == 200
    # The test's savepoint and its release. What stands between is one prepared statement, past Django's cursors.
    with django_assert_num_queries(2):
        assert ingest(api, event("a")).json() == {"ingested_count": 1}


# -- bodies that are wrong -------------------------------------------------------------------------------------

VALID = '{"event_id":"a","customer_id":"cus_abc123","event_name":"n"%s}'


def one(extra: str) -> bytes:
    """A batch of one event with something more in it, written by hand."""
    return ('{"events":[' + VALID % extra + "]}").encode("utf-8", "surrogatepass")


DEEP = 100_000
WRONG: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 422),
    "white space": (b"  \n", 422),
    "null": (b"null", 422),
    "a number": (b"5", 422),
    "a text": (b'"events"', 422),
    "a list": (b"[]", 422),
    "no events": (b"{}", 422),
    "events null": (b'{"events":null}', 422),
    "events an object": (b'{"events":{}}', 422),
    "events a text": (b'{"events":"x"}', 422),
    "events empty": (b'{"events":[]}', 400),
    "an event null": (b'{"events":[null]}', 422),
    "an event a number": (b'{"events":[5]}', 422),
    "an event a list": (b'{"events":[[]]}', 422),
    "an event empty": (b'{"events":[{}]}', 422),
    "another field": (b'{"events":[],"more":1}', 422),
    "the same key twice": (one(',"event_id":"b"'), 422),
    "the same metadata key twice": (one(',"metadata":{"k":1,"k":2}'), 422),
    "cut off": (one("")[:-5], 422),
    "more behind it": (one("") + b"x", 422),
    "two documents": (one("") * 2, 422),
    "a comma too many": (b'{"events":[' + (VALID % "").encode() + b",]}", 422),
    "single quotes": (b"{'events':[]}", 422),
    "a comment": (b'{"events":[] /* none */}', 422),
    "NaN": (one(',"metadata":{"k":NaN}'), 422),
    "Infinity": (one(',"metadata":{"k":-Infinity}'), 422),
    "1e400": (one(',"metadata":{"k":1e400}'), 400),
    "-1e400": (one(',"metadata":{"k":-1e400}'), 400),
    "1e-400": (one(',"metadata":{"k":1e-400}'), 400),
    "an exponent without end": (one(',"metadata":{"k":1e999999999999999999999}'), 400),
    "a zero with an exponent without end": (one(',"metadata":{"k":0e999999999999999999999}'), 400),
    "4,000 digits": (one(',"metadata":{"k":' + "9" * 4000 + "}"), 400),
    "5,000 digits": (one(',"metadata":{"k":' + "9" * 5000 + "}"), 422),
    "a million digits": (one(',"metadata":{"k":' + "9" * 1_000_000 + "}"), 422),
    "a million decimals": (one(',"metadata":{"k":0.' + "9" * 1_000_000 + "}"), 400),
    "a leading zero": (one(',"metadata":{"k":01}'), 422),
    "a plus": (one(',"metadata":{"k":+1}'), 422),
    "NUL in a value": (one(',"metadata":{"k":"a\\u0000b"}'), 400),
    "NUL in a key": (one(',"metadata":{"a\\u0000b":1}'), 400),
    "NUL in an id": (one("").replace(b'"a"', b'"a\\u0000"'), 400),
    "NUL in a customer": (one("").replace(b"cus_abc123", b"\\u0000"), 400),
    "NUL in a name": (one("").replace(b'"n"', b'"n\\u0000"'), 400),
    "a bare NUL": (one(',"metadata":{"k":"\0"}'), 422),
    "a NUL document": (b"\0", 422),
    "a high surrogate alone": (one(',"metadata":{"k":"\\ud800"}'), 422),
    "a low surrogate alone": (one(',"metadata":{"k":"x\\udc00y"}'), 422),
    "surrogates the wrong way round": (one(',"metadata":{"k":"\\udc00\\ud800"}'), 422),
    "a surrogate in a key": (one(',"metadata":{"\\ud800":1}'), 422),
    "a surrogate in an id": (one("").replace(b'"a"', b'"\\ud800"'), 422),
    "a surrogate in UTF-8": (one(',"metadata":{"k":"\ud800"}'), 422),
    "bad UTF-8": (one(',"metadata":{"k":"#"}').replace(b"#", b"\xff"), 422),
    "an overlong UTF-8": (one(',"metadata":{"k":"#"}').replace(b"#", b"\xc0\xaf"), 422),
    "Latin-1": ("é".encode("latin-1"), 422),
    "a byte order mark": (b"\xef\xbb\xbf" + one(""), 422),
    "UTF-16": (one("").decode().encode("utf-16"), 422),
    "UTF-32": (one("").decode().encode("utf-32"), 422),
    "gzip": (b"\x1f\x8b\x08\x00" + b"\0" * 50, 422),
    "deep lists": (b"[" * DEEP + b"]" * DEEP, 422),
    "deep objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, 422),
    "deep metadata": (one(',"metadata":{"k":' + "[" * DEEP + "]" * DEEP + "}"), 422),
    "deep and cut off": (one(',"metadata":{"k":' + "[" * DEEP)[:-2], 422),
    "metadata of lists": (one(',"metadata":{"k":[1]}'), 400),
    "metadata of objects": (one(',"metadata":{"k":{"a":{"b":1}}}'), 400),
    "metadata with null": (one(',"metadata":{"k":null}'), 400),
    "metadata a text": (one(',"metadata":"x"'), 422),
    "metadata a list": (one(',"metadata":[]'), 422),
    "too many pairs": (one(',"metadata":' + json.dumps({str(n): n for n in range(51)})), 400),
    "an empty key": (one(',"metadata":{"":1}'), 400),
    "year 1": (one(',"timestamp":"0001-01-01T00:00:00Z"'), 400),
    "year 9999": (one(',"timestamp":"9999-12-31T23:59:59Z"'), 400),
    "hour 24": (one(',"timestamp":"2026-01-01T24:00:00Z"'), 400),
    "a leap second": (one(',"timestamp":"2016-12-31T23:59:60Z"'), 400),
    "a date": (one(',"timestamp":"2026-01-01"'), 400),
    "seconds since 1970": (one(',"timestamp":1767225600'), 422),
    "milliseconds since 1970": (one(',"timestamp":"1767225600000"'), 400),
    "36 days old": (one(f',"timestamp":"{ago(days=36)}"'), 400),
    # Made when the file is read, so far ahead that it stays so until the test runs; the edge is in test_ingestion.
    "two hours ahead": (one(f',"timestamp":"{ago(hours=-2)}"'), 400),
    "an id that is a number": (one("").replace(b'"a"', b"5"), 422),
    "an id that is null": (one("").replace(b'"a"', b"null"), 422),
    "an id that is empty": (one("").replace(b'"a"', b'""'), 400),
    "an id that is long": (one("").replace(b'"a"', b'"' + b"x" * 256 + b'"'), 400),
    "a customer that is null": (one("").replace(b'"cus_abc123"', b"null"), 422),
    "a customer that is SQL": (one("").replace(b"cus_abc123", b"' OR 1=1--"), 400),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_body_is_answered_in_json_and_nothing_is_stored(api: APIClient, name: str) -> None:
    body, status = WRONG[name]
    answer = raw(api, body)
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/json")
    said = answer.json()
    assert said["code"].isupper()
    assert said["message"]
    assert set(said) <= {"code", "message", "errors"}
    assert "Traceback" not in said["message"]
    assert len(answer.content) < 5000
    assert Event.objects.count() == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a surrogate in an id", "events[0] (\\ud800): contains half of a surrogate pair, which is not a character."),
        ("a high surrogate alone", "events[0] (a): contains half of a surrogate pair, which is not a character."),
        (
            "NUL in a value",
            "events[0] (a): metadata[k] contains a character that cannot be stored (NUL or half a surrogate pair).",
        ),
        (
            "1e400",
            "events[0] (a): metadata[k] is beyond what a number may be here (308 digits before the point, 340 after).",
        ),
        ("5,000 digits", "events[0] (a): contains a number with too many digits."),
        ("the same metadata key twice", "events[0] (a): contains the key k stands twice in one object."),
        ("deep metadata", "The body is nested too deeply."),
        ("a byte order mark", "The body begins with a byte order mark; send plain UTF-8."),
        ("UTF-16", "The body is not UTF-8 (byte 0)."),
        ("empty", 'The body is empty; send {"events": […]}.'),
        ("events null", "The body cannot be read: Expected `array`, got `null` - at `$.events`."),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong(api: APIClient, name: str, said: str) -> None:
    assert raw(api, WRONG[name][0]).json()["message"] == said


# -- reading ---------------------------------------------------------------------------------------------------

IDS = [
    "plain",
    "a/b c?d",
    "//a//",
    "ingest",
    "ingest/more",
    "..",
    "a%2Fb",
    "a+b&c=d#e",
    "ünï☃😀",
    "line\nbreak\ttab",
    " leading and trailing ",
    '"quoted\\"',
    "\u202eright to left",
    "x" * 255,
]


@pytest.mark.parametrize("event_id", IDS)
def test_an_event_is_found_by_any_id(api: APIClient, event_id: str) -> None:
    assert ingest(api, event(event_id, metadata={"a": 1}), event("not " + event_id[:200])).status_code == 200
    answer = api.get("/events/" + quote(event_id, safe=""))
    assert answer.status_code == 200
    assert (answer.json()["event_id"], answer.json()["metadata"]) == (event_id, {"a": 1})


def test_an_event_is_answered_as_the_contract_writes_it(api: APIClient) -> None:
    metadata = '{"endpoint":"/v1","exact":0.1000000000000000000001,"big":12345678901234567890,"ok":true,"text":"150"}'
    sent = ago(minutes=10)
    raw(api, one(f',"metadata":{metadata},"timestamp":"{sent}"'))
    answer = api.get("/events/a")
    assert answer.json() == {
        "event_id": "a",
        "business_id": "bus_meterbook",
        "customer_id": "cus_abc123",
        "event_name": "n",
        "timestamp": sent.replace("+00:00", "Z"),
        "metadata": json.loads(metadata),
        "voided_at": None,
    }
    for digits in (b"0.1000000000000000000001", b"12345678901234567890"):
        assert digits in answer.content


@pytest.mark.parametrize("event_id", ["unknown", "PLAIN", "plain/", "%00", "ingest", "%ED%A0%80", "x" * 3000])
def test_an_unknown_event_is_404(api: APIClient, event_id: str) -> None:
    ingest(api, event("plain"))
    answer = api.get(f"/events/{event_id}")
    assert (answer.status_code, answer.json()) == (404, {"code": "NOT_FOUND", "message": "Item not found"})


@pytest.fixture
def history(customer: Customer) -> list[str]:
    """Ten events, a day apart, oldest first: even ones Acme's, odd ones Globex's; every third is another name."""
    other = globex(customer_id="cus_other")
    events = [
        EventInput(
            f"evt_{day}",
            other.public_id if day % 2 else customer.public_id,
            "other" if day % 3 == 0 else "api.call",
            at(f"2026-01-{day + 10}T12:00"),
            {"day": day, "tier": "premium" if day > 4 else "free"},
        )
        for day in range(10)
    ]
    store_events(events=events, now=at("2026-01-20"), backfill=True)
    return [event.event_id for event in events]


def listed(api: APIClient, query: str = "") -> list[int]:
    answer = api.get(f"/events?page_size=100&{query}")
    assert answer.status_code == 200
    assert set(answer.json()) == {"items"}
    return [int(item["event_id"].removeprefix("evt_")) for item in answer.json()["items"]]


@pytest.mark.usefixtures("history")
def test_events_are_listed_newest_first_and_narrowed(api: APIClient) -> None:
    premium = call_meter(
        filter={"conjunction": "and", "clauses": [{"key": "tier", "operator": "equals", "value": "premium"}]}
    )
    assert listed(api) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert listed(api, "customer_id=cus_other") == [9, 7, 5, 3, 1]
    assert listed(api, "customer_id=cus_nobody") == []
    assert listed(api, "customer_id=CUS_OTHER") == []
    assert listed(api, "event_name=other") == [9, 6, 3, 0]
    assert listed(api, "event_name=Other") == []
    assert listed(api, "customer_id=cus_other&event_name=other") == [9, 3]
    assert listed(api, f"meter_id={premium.public_id}") == [8, 7, 5]
    assert listed(api, f"meter_id={premium.public_id}&event_name=api.call&customer_id=cus_other") == [7, 5]
    assert listed(api, "customer_id=&event_name=&meter_id=") == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.usefixtures("history")
def test_a_span_of_events_holds_its_start_and_not_its_end(api: APIClient) -> None:
    assert listed(api, "start=2026-01-12T12:00:00Z&end=2026-01-15T12:00:00Z") == [4, 3, 2]
    assert listed(api, "start=2026-01-12T13:00:00%2B01:00&end=2026-01-15T12:00:00.000001Z") == [5, 4, 3, 2]
    assert listed(api, "start=2026-01-18") == [9, 8]
    assert listed(api, "end=2026-01-12T00:00:00") == [1, 0]
    assert listed(api, "start=2026-02-01&end=2026-01-01") == []


@pytest.mark.usefixtures("history")
def test_pages_count_from_zero_and_past_the_end_they_are_empty(api: APIClient) -> None:
    def page(query: str) -> list[str]:
        return [item["event_id"] for item in api.get(f"/events?{query}").json()["items"]]

    assert page("page_size=4") == ["evt_9", "evt_8", "evt_7", "evt_6"]
    assert page("page_size=4&page_number=1") == ["evt_5", "evt_4", "evt_3", "evt_2"]
    assert page("page_size=4&page_number=2") == ["evt_1", "evt_0"]
    assert page("page_size=4&page_number=3") == []
    assert page("page_number=2147483647&page_size=100") == []
    assert len(page("")) == 10


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("page_size=0", 422, "INVALID_QUERY_PARAMS"),
        ("page_size=101", 422, "INVALID_QUERY_PARAMS"),
        ("page_number=-1", 422, "INVALID_QUERY_PARAMS"),
        ("page_number=99999999999999999999", 422, "INVALID_QUERY_PARAMS"),
        ("page_number=%D9%A3", 422, "INVALID_QUERY_PARAMS"),
        ("start=yesterday", 422, "INVALID_QUERY_PARAMS"),
        ("end=2026-02-30", 422, "INVALID_QUERY_PARAMS"),
        ("end=0001-01-01T00:00:00%2B05:00", 422, "INVALID_QUERY_PARAMS"),
        ("customer_id=%00", 422, "INVALID_QUERY_PARAMS"),
        ("event_name=a%00", 422, "INVALID_QUERY_PARAMS"),
        ("meter_id=%00", 422, "INVALID_QUERY_PARAMS"),
        ("meter_id=mtr_nobody", 404, "NOT_FOUND"),
    ],
)
def test_a_wrong_question_is_answered_with_an_error(api: APIClient, query: str, status: int, code: str) -> None:
    answer = api.get(f"/events?{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_meter_and_another_event_name_contradict_each_other(api: APIClient) -> None:
    meter = call_meter()
    answer = api.get(f"/events?meter_id={meter.public_id}&event_name=other")
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST_PARAMETERS")
    assert answer.json()["message"] == f"event_name: the meter {meter.public_id} reads another event name."


def test_a_read_only_key_reads_events(call: Caller) -> None:
    ingest(call(), event())
    reader = call(read_only=True)
    assert reader.get("/events").status_code == reader.get("/events/api_call_1").status_code == 200
