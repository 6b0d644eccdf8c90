from typing import Any

import pytest
from rest_framework.test import APIClient

from meters.models import Meter
from tests.base import call_meter
from tests.meters.conftest import Caller

pytestmark = pytest.mark.django_db

TOKENS: dict[str, Any] = {
    "name": "AI tokens",
    "event_name": "ai.tokens",
    "measurement_unit": "tokens",
    "aggregation": {"type": "sum", "key": "tokens"},
}
RULE = {
    "conjunction": "or",
    "clauses": [
        {"key": "tier", "operator": "equals", "value": "premium"},
        {"conjunction": "and", "clauses": [{"key": "ms", "operator": "less_than", "value": 2.5}]},
    ],
}


@pytest.fixture
def api(call: Caller) -> APIClient:
    return call()


def post(api: APIClient, **changes: Any) -> Any:
    return api.post("/meters", {**TOKENS, **changes}, format="json")


def test_a_meter_is_created_and_read_back_as_the_contract_writes_it(api: APIClient) -> None:
    answer = post(api, description="All models", filter=RULE)
    assert answer.status_code == 201
    made = answer.json()
    row = Meter.objects.get()
    assert made == {
        "id": row.public_id,
        "business_id": "bus_meterbook",
        "name": "AI tokens",
        "description": "All models",
        "event_name": "ai.tokens",
        "measurement_unit": "tokens",
        "aggregation": {"type": "sum", "key": "tokens"},
        "filter": RULE,
        "group_by": [],
        "carry_forward": False,
        "created_at": row.created_at.isoformat().replace("+00:00", "Z"),
        "updated_at": row.updated_at.isoformat().replace("+00:00", "Z"),
    }
    assert api.get(f"/meters/{made['id']}").json() == made
    assert api.get("/meters").json() == {"items": [made]}


@pytest.mark.parametrize(
    ("aggregation", "answered"),
    [
        ({"type": "count"}, {"type": "count", "key": None}),
        ({"type": "count", "key": None}, {"type": "count", "key": None}),
        ({"type": "count", "key": "tokens"}, {"type": "count", "key": None}),
        ({"type": "max", "key": " k "}, {"type": "max", "key": " k "}),
        ({"type": "last", "key": "b"}, {"type": "last", "key": "b"}),
    ],
)
def test_every_aggregation_is_taken(api: APIClient, aggregation: Any, answered: Any) -> None:
    answer = post(api, aggregation=aggregation, description=None, filter=None)
    assert (answer.status_code, answer.json()["aggregation"]) == (201, answered)
    assert (answer.json()["description"], answer.json()["filter"]) == (None, None)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"name": ""}, "name"),
        ({"event_name": ""}, "event_name"),
        ({"event_name": ["a"]}, "event_name"),
        ({"measurement_unit": "x" * 101}, "measurement_unit"),
        ({"aggregation": None}, "aggregation"),
        ({"aggregation": "sum"}, "aggregation"),
        ({"aggregation": {}}, "aggregation.type"),
        ({"aggregation": {"type": "average", "key": "a"}}, "aggregation.type"),
        ({"aggregation": {"type": "sum"}}, "aggregation.key"),
        ({"aggregation": {"type": "sum", "key": ""}}, "aggregation.key"),
        ({"aggregation": {"type": "sum", "key": 5}}, "aggregation.key"),
        ({"aggregation": {"type": "sum", "key": "k" * 101}}, "aggregation.key"),
        ({"filter": "x"}, "filter"),
        ({"filter": {"conjunction": "and", "clauses": []}}, "filter.clauses"),
        ({"filter": {"conjunction": "and", "clauses": [{"key": "a", "operator": "like", "value": 1}]}}, "filter."),
        ({"filter": {"conjunction": "and", "clauses": [{"key": "a", "operator": "equals"}]}}, "filter."),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_meter_is_422_and_names_the_field(api: APIClient, changes: dict[str, Any], field: str) -> None:
    answer = post(api, **changes)
    assert answer.status_code == 422
    assert answer.json()["code"] == "INVALID_REQUEST_BODY"
    assert answer.json()["message"].startswith(field)
    assert not Meter.objects.exists()


def test_a_meter_can_be_renamed(api: APIClient) -> None:
    made = post(api, description="old", filter=RULE).json()
    answer = api.patch(
        f"/meters/{made['id']}", {"name": "New", "description": None, "measurement_unit": "k"}, format="json"
    )
    assert answer.status_code == 200
    changed = answer.json()
    assert changed["updated_at"] > made["updated_at"]
    assert changed == {
        **made,
        "name": "New",
        "description": None,
        "measurement_unit": "k",
        "updated_at": changed["updated_at"],
    }
    assert api.get(f"/meters/{made['id']}").json() == changed


@pytest.mark.parametrize("field", ["event_name", "aggregation", "filter"])
def test_what_a_meter_counts_cannot_be_changed(api: APIClient, field: str) -> None:
    made = post(api, filter=RULE).json()
    answer = api.patch(f"/meters/{made['id']}", {"name": "New", field: made[field]}, format="json")
    assert answer.status_code == 422
    assert answer.json()["message"] == (
        f"{field}: cannot be changed, because invoices were computed with it; make a new meter instead."
    )
    assert api.get(f"/meters/{made['id']}").json() == made


def test_an_archived_meter_is_in_the_other_list_until_it_comes_back(api: APIClient) -> None:
    kept, gone = post(api).json(), post(api, name="Old").json()
    answer = api.delete(f"/meters/{gone['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    for query in ("", "?archived=false"):
        assert [item["id"] for item in api.get(f"/meters{query}").json()["items"]] == [kept["id"]]
    assert [item["id"] for item in api.get("/meters?archived=true").json()["items"]] == [gone["id"]]
    assert api.get(f"/meters/{gone['id']}").status_code == 200
    answer = api.post(f"/meters/{gone['id']}/unarchive")
    assert (answer.status_code, answer.content) == (200, b"")
    assert [item["id"] for item in api.get("/meters").json()["items"]] == [gone["id"], kept["id"]]


def test_meters_come_newest_first_in_pages_from_zero(api: APIClient) -> None:
    made = [call_meter(name=str(number)).public_id for number in range(5)]
    pages = [api.get(f"/meters?page_size=2&page_number={number}").json()["items"] for number in range(4)]
    assert [[item["id"] for item in page] for page in pages] == [made[:2:-1], made[2:0:-1], made[:1], []]


@pytest.mark.parametrize(
    "query", ["page_size=0", "page_size=101", "page_size=x", "page_number=-1", "page_number=1.5", "archived=maybe"]
)
def test_a_wrong_query_is_422(api: APIClient, query: str) -> None:
    answer = api.get(f"/meters?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_QUERY_PARAMS")
    assert answer.json()["message"].startswith(query.split("=")[0])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/meters/mtr_nobody"),
        ("patch", "/meters/mtr_nobody"),
        ("delete", "/meters/mtr_nobody"),
        ("post", "/meters/mtr_nobody/unarchive"),
        ("get", "/meters/%00"),
        ("get", "/meters/a%2Fb"),
        ("get", "/meters/"),
    ],
)
def test_an_unknown_meter_is_404(api: APIClient, method: str, path: str) -> None:
    answer = getattr(api, method)(path, {}, format="json") if method == "patch" else getattr(api, method)(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


def test_a_read_only_key_reads(call: Caller) -> None:
    made = call_meter()
    reader = call(read_only=True)
    assert reader.get("/meters").status_code == 200
    assert reader.get(f"/meters/{made.public_id}").status_code == 200
    for answer in (
        post(reader),
        reader.patch(f"/meters/{made.public_id}", {"name": "x"}, format="json"),
        reader.delete(f"/meters/{made.public_id}"),
        reader.post(f"/meters/{made.public_id}/unarchive"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert [(row.name, row.archived_at) for row in Meter.objects.all()] == [("API calls", None)]


def test_without_a_key_nothing_is_told() -> None:
    for path in ("/meters", "/meters/mtr_nobody", "/events", "/events/x"):
        answer = APIClient().get(path)
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    ("aggregation", "extras"),
    [
        ("unique", {}),
        ("min", {"group_by": []}),
        ("avg", {"group_by": ["model"], "carry_forward": False}),
        ("last", {"carry_forward": True}),
        ("weighted_sum", {"group_by": ["model", "region", " a,b "], "carry_forward": True}),
    ],
)
def test_what_goes_beyond_the_contract_is_kept_and_answered(
    api: APIClient, aggregation: str, extras: dict[str, Any]
) -> None:
    answer = post(api, aggregation={"type": aggregation, "key": "tokens"}, **extras)
    assert answer.status_code == 201, answer.json()
    made = answer.json()
    assert made["aggregation"] == {"type": aggregation, "key": "tokens"}
    assert made["group_by"] == extras.get("group_by", [])
    assert made["carry_forward"] is extras.get("carry_forward", False)
    assert api.get(f"/meters/{made['id']}").json() == made


@pytest.mark.parametrize(
    "changes",
    [
        {"group_by": ["a", "b", "c", "d"]},
        {"group_by": ["a", "a"]},
        {"group_by": [""]},
        {"group_by": ["x" * 101]},
        {"group_by": "a"},
        {"group_by": [5]},
        {"group_by": None},
        {"carry_forward": True},
        {"carry_forward": "true"},
        {"aggregation": {"type": "median", "key": "v"}},
        {"aggregation": {"type": "unique"}},
    ],
)
def test_what_goes_beyond_the_contract_is_checked(api: APIClient, changes: dict[str, Any]) -> None:
    answer = post(api, **changes)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST_BODY")
    assert not Meter.objects.exists()


@pytest.mark.parametrize("field", ["group_by", "carry_forward"])
def test_groups_and_carrying_never_change(api: APIClient, field: str) -> None:
    meter = call_meter()
    answer = api.patch(f"/meters/{meter.public_id}", {field: [] if field == "group_by" else False}, format="json")
    assert answer.status_code == 422
    assert "make a new meter" in answer.json()["message"]
