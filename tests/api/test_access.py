"""Every route with no key, a wrong key, a read-only key and somebody else's ids. A new route without a case fails."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.urls import URLPattern, URLResolver, get_resolver

from billing.models import Payment
from customers.keys import forget_cached_keys, revoke_api_key
from customers.models import ApiKey
from tests.api.client import Api, api, operations
from tests.api.test_products import RECURRING, product
from tests.api.test_subscriptions import make_customer, make_meter, make_product, make_subscription

pytestmark = pytest.mark.django_db

# A request that would be right, for each route of the description. {…} is filled with the ids of what exists.
NEW_METER = {"name": "M", "event_name": "e", "aggregation": {"type": "count"}, "measurement_unit": "calls"}
EVENT = {"event_id": "evt_new", "customer_id": "cus_acme", "event_name": "api.call"}
# Routes for which a key must have the right to backfill.
CHANGES_THE_PAST = {("POST", "/events/void")}
CASES: dict[tuple[str, str], Any] = {
    ("GET", "/customers"): None,
    ("POST", "/customers"): {"name": "New", "email": "new@acme.example"},
    ("GET", "/customers/{customer_id}"): None,
    ("PATCH", "/customers/{customer_id}"): {"name": "Acme Ltd"},
    ("POST", "/customers/{customer_id}/customer-portal/session"): None,
    ("GET", "/customers/{customer_id}/wallets"): None,
    ("GET", "/customers/{customer_id}/wallets/ledger-entries"): None,
    ("POST", "/customers/{customer_id}/wallets/ledger-entries"): {
        "amount": 500,
        "currency": "USD",
        "entry_type": "credit",
    },
    ("GET", "/events"): None,
    ("GET", "/events/{event_id}"): None,
    ("POST", "/events/ingest"): {"events": [EVENT]},
    ("POST", "/events/void"): {
        "start": "2026-01-01T00:00:00Z",
        "end": "2100-01-01T00:00:00Z",
        "event_name": "api.call",
        "reason": "a test",
    },
    ("POST", "/events/{event_id}/void"): {"reason": "a test"},
    ("GET", "/events/{event_id}/verdicts"): None,
    ("GET", "/meters"): None,
    ("POST", "/meters"): NEW_METER,
    ("GET", "/meters/{meter_id}"): None,
    ("PATCH", "/meters/{meter_id}"): {"name": "Requests"},
    ("DELETE", "/meters/{meter_id}"): None,
    ("POST", "/meters/{meter_id}/unarchive"): None,
    ("POST", "/meters/preview"): NEW_METER,
    ("GET", "/meters/{meter_id}/usage"): None,
    ("GET", "/meters/{meter_id}/activity"): None,
    ("GET", "/products"): None,
    ("POST", "/products"): product(RECURRING),
    ("GET", "/products/{product_id}"): None,
    ("PATCH", "/products/{product_id}"): {"name": "Plan"},
    ("DELETE", "/products/{product_id}"): None,
    ("POST", "/products/{product_id}/unarchive"): None,
    ("GET", "/subscriptions"): None,
    ("POST", "/subscriptions"): {"customer": {"customer_id": "cus_acme"}, "product_id": "{product_id}", "quantity": 1},
    ("GET", "/subscriptions/{subscription_id}"): None,
    ("PATCH", "/subscriptions/{subscription_id}"): {"metadata": {"a": "b"}},
    ("GET", "/subscriptions/{subscription_id}/usage-history"): None,
    ("GET", "/subscriptions/{subscription_id}/credit-usage"): None,
    ("GET", "/payments"): None,
    ("GET", "/payments/{payment_id}"): None,
    ("GET", "/payments/{payment_id}/line-items"): None,
    ("GET", "/invoices/payments/{payment_id}"): None,
}
# Routes that anybody may open.
PUBLIC = {"", "openapi.json", "docs"}


@pytest.fixture
def ids(api: Api) -> dict[str, str]:
    """One of everything, Acme's."""
    customer, meter, sold = make_customer(api), make_meter(api), make_product(api)
    subscription = make_subscription(api, product_id=sold)
    api.post("/events/ingest", {"events": [{**EVENT, "event_id": "evt/1 ü"}]})
    return {
        "customer_id": customer,
        "meter_id": meter,
        "product_id": sold,
        "subscription_id": subscription,
        "payment_id": Payment.objects.get().public_id,
        "event_id": "evt%2F1%20%C3%BC",
    }


def filled(body: Any, ids: dict[str, str]) -> Any:
    if isinstance(body, dict):
        return {name: filled(value, ids) for name, value in body.items()}
    return ids.get(body.strip("{}"), body) if isinstance(body, str) else body


def contents() -> dict[str, list[Any]]:
    """Every row of every table, with the transaction that wrote it."""
    found = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT x.xmin::text, x::text FROM "{table}" x ORDER BY 2')  # noqa: S608
            found[table] = cursor.fetchall()
    return found


def test_every_described_route_has_a_case_and_every_case_a_route() -> None:
    assert set(operations()) == set(CASES)


def test_every_api_route_is_described() -> None:
    def routes(resolver: URLResolver, prefix: str = "") -> list[str]:
        found = []
        for pattern in resolver.url_patterns:
            text = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                found += routes(pattern, text)
            elif isinstance(pattern, URLPattern):
                found.append(text)
        return found

    described = {path.lstrip("/") for _, path in operations()}
    for route in routes(get_resolver()):
        if route.startswith(("admin/", "portal/", "static/")) or route in PUBLIC:
            continue
        plain = re.sub(r"<\w+:(\w+)>", r"{\1}", route)
        assert plain in described, f"{route} is not described"


@pytest.mark.parametrize(("method", "path"), list(CASES), ids=lambda value: value)
class TestEveryRoute:
    def test_it_needs_a_key(self, ids: dict[str, str], method: str, path: str) -> None:
        before = contents()
        for key in (None, "mk_wrong", "mk_aaaaaaaaaa_" + "a" * 43, "ü", "mk_\x00"):
            answer = Api(key).call(method, path.format(**ids), filled(CASES[method, path], ids))
            assert (answer.status, answer.body["code"]) == (401, "UNAUTHORIZED")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert contents() == before

    def test_a_revoked_key_is_no_key(self, api: Api, ids: dict[str, str], method: str, path: str) -> None:
        other = Api(api.key)
        key = ApiKey.objects.get()
        revoke_api_key(key=key, now=datetime.now(UTC))
        forget_cached_keys()  # what the commit does, in a test that never commits
        assert other.call(method, path.format(**ids), filled(CASES[method, path], ids)).status == 401

    def test_a_read_only_key_reads_and_never_writes(self, ids: dict[str, str], method: str, path: str) -> None:
        reader = api(read_only=True)
        before = contents()
        answer = reader.call(method, path.format(**ids), filled(CASES[method, path], ids))
        if method == "GET":
            assert answer.status == 200
        else:
            assert (answer.status, answer.body["code"]) == (403, "FORBIDDEN")
        assert contents() == before

    def test_it_works_with_a_key(self, ids: dict[str, str], method: str, path: str) -> None:
        ordinary, may_backfill = api(), api(backfill=True)
        before = contents()
        caller = ordinary
        if (method, path) in CHANGES_THE_PAST:
            refused = ordinary.call(method, path.format(**ids), filled(CASES[method, path], ids))
            assert (refused.status, refused.body["code"], contents()) == (403, "FORBIDDEN", before)
            caller = may_backfill
        answer = caller.call(method, path.format(**ids), filled(CASES[method, path], ids))
        assert 200 <= answer.status < 300
        if method == "GET":
            assert contents() == before, "a GET changed something"

    def test_what_does_not_exist_is_not_found(self, api: Api, ids: dict[str, str], method: str, path: str) -> None:
        if "{" not in path:
            return
        before = contents()
        for other in ids.values():
            if f"/{other}" in path.format(**ids):
                continue
            # The id of a thing of another kind is nobody's id here.
            elsewhere = path.format(**dict.fromkeys(ids, other))
            answer = api.call(method, elsewhere, filled(CASES[method, path], ids))
            assert (answer.status, answer.body["code"]) == (404, "NOT_FOUND"), elsewhere
        assert contents() == before


def test_lists_narrowed_to_one_customer_never_show_anothers(api: Api, ids: dict[str, str]) -> None:
    make_customer(api, "cus_globex")
    make_subscription(api, product_id=ids["product_id"], customer={"customer_id": "cus_globex"})
    event = {**EVENT, "event_id": "evt_globex", "customer_id": "cus_globex"}
    api.post("/events/ingest", {"events": [event]})
    for path in ("/events", "/subscriptions", "/payments"):
        everything = api.get(path).body["items"]
        for customer in ("cus_acme", "cus_globex"):
            items = api.get(f"{path}?customer_id={customer}").body["items"]
            owners = {item.get("customer_id") or item["customer"]["customer_id"] for item in items}
            assert (owners, len(items), len(everything)) == ({customer}, 1, 2), path


def test_a_key_in_another_place_is_no_key(api: Api) -> None:
    stranger = Api(None)
    assert stranger.get(f"/customers?api_key={api.key}").status == 401
    for header in (f"Basic {api.key}", f"{api.key}", "Bearer", f"Bearer {api.key} x"):
        response = stranger._client.get("/customers", headers={"Authorization": header})
        assert response.status_code == 401
    assert stranger._client.get("/customers", headers={"Authorization": f"bearer  {api.key} "}).status_code == 200
