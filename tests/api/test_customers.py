"""/customers: what is stored, what comes back, what is refused."""

import pytest
from django.utils import timezone

from customers.models import Customer, PortalLink
from tests.api.client import Api

pytestmark = pytest.mark.django_db

ACME = {"name": "Acme", "email": "pay@acme.example"}


def test_it_creates_a_customer_and_shows_it_again(api: Api) -> None:
    given = {
        **ACME,
        "phone_number": "+49 30 1",
        "metadata": {"crm": "17", "seats": 3, "score": 0.5, "vip": True},
        "preferred_locale": "de",
    }
    created = api.post("/customers", given)
    assert created.status == 201
    customer_id = created.body["customer_id"]
    assert customer_id.startswith("cus_")
    row = Customer.objects.get()
    assert created.body == {
        "customer_id": row.public_id,
        "business_id": "bus_meterbook",
        "name": "Acme",
        "email": "pay@acme.example",
        "phone_number": "+49 30 1",
        "metadata": {"crm": "17", "seats": 3, "score": created.body["metadata"]["score"], "vip": True},
        "preferred_locale": "de",
        "created_at": row.created_at.isoformat().replace("+00:00", "Z"),
        "blocked_at": None,
        "blocklist_entry_id": None,
    }
    assert str(created.body["metadata"]["score"]) == "0.5"
    assert api.get(f"/customers/{customer_id}").body == created.body


def test_it_takes_an_id_of_the_callers_choice_once(api: Api) -> None:
    assert api.post("/customers", {**ACME, "customer_id": "user:17@eu"}).body["customer_id"] == "user:17@eu"
    again = api.post("/customers", {**ACME, "customer_id": "user:17@eu", "name": "Somebody else"})
    assert (again.status, again.body["code"]) == (409, "CUSTOMER_ID_ALREADY_EXISTS")
    assert again.headers["x-should-retry"] == "false"
    assert [customer.name for customer in Customer.objects.all()] == ["Acme"]
    # Ids differ by case, byte by byte.
    assert api.post("/customers", {**ACME, "customer_id": "User:17@eu"}).status == 201
    assert api.get("/customers/USER:17@eu").status == 404


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "name: This field is required; email: This field is required."),
        ({"name": "Acme"}, "email: This field is required."),
        ({**ACME, "name": ""}, "name: This field may not be blank."),
        ({**ACME, "name": "   "}, "name: This field may not be blank."),
        ({**ACME, "name": 17}, "name: must be a string."),
        ({**ACME, "name": None}, "name: This field may not be null."),
        ({**ACME, "name": "x" * 256}, "name: Ensure this field has no more than 255 characters."),
        ({**ACME, "email": "acme"}, "email: Enter a valid email address."),
        ({**ACME, "email": ["pay@acme.example"]}, "email: Enter a valid email address."),
        ({**ACME, "metadata": [1]}, "metadata: must be an object of strings, numbers and booleans."),
        ({**ACME, "metadata": {"a": None}}, "metadata: the value of 'a' must be a string, a number or a boolean."),
        ({**ACME, "metadata": {"a": {"b": 1}}}, "metadata: the value of 'a' must be a string, a number or a boolean."),
        ({**ACME, "metadata": {"a": "x" * 501}}, "metadata: the value of 'a' may have 500 characters at most."),
        ({**ACME, "metadata": {"": "x"}}, "metadata: the key '' must have 1 to 40 characters."),
        ({**ACME, "metadata": {f"k{n}": n for n in range(51)}}, "metadata: may have 50 pairs at most."),
        ({**ACME, "metadata": {"a": 2**64}}, "metadata: the value of 'a' is too large a number."),
        ({**ACME, "preferred_locale": "not a locale"}, "preferred_locale: must be a language such as en or pt-BR."),
        ({**ACME, "customer_id": 17}, "customer_id: use letters, digits and _ . : @ - only."),
        ({**ACME, "customer_id": "a/b"}, "customer_id: use letters, digits and _ . : @ - only."),
        ({**ACME, "customer_id": ""}, "customer_id: This field may not be blank."),
        ({**ACME, "nmae": "Acme"}, "nmae: is not a field of this request."),
        ({**ACME, "id": 1, "created_at": "2020-01-01T00:00:00Z"}, "id: is not a field of this request; created_at: "
         "is not a field of this request."),
    ],
)  # fmt: skip
def test_it_refuses_and_names_the_field(api: Api, body: object, named: str) -> None:
    answer = api.post("/customers", body)
    assert (answer.status, answer.body["code"], answer.body["message"]) == (422, "INVALID_REQUEST_BODY", named)
    assert not Customer.objects.exists()


def test_it_lists_every_wrong_field_and_sums_up_the_rest(api: Api) -> None:
    answer = api.post("/customers", {"name": 1, "email": 2, "phone_number": 3, "metadata": 4})
    assert [error["field"] for error in answer.body["errors"]] == ["name", "email", "phone_number", "metadata"]
    assert answer.body["message"].endswith("phone_number: must be a string; and 1 more.")


def test_it_changes_only_what_was_sent(api: Api) -> None:
    made = api.post("/customers", {**ACME, "phone_number": "1", "metadata": {"a": "b"}, "preferred_locale": "de"}).body
    path = f"/customers/{made['customer_id']}"
    assert api.patch(path, {"name": "Acme Ltd"}).body == {**made, "name": "Acme Ltd"}
    assert api.patch(path, {}).body == {**made, "name": "Acme Ltd"}
    # Null leaves what a customer must have, and removes what it need not have.
    cleared = api.patch(path, {"name": None, "email": None, "phone_number": None, "preferred_locale": None})
    assert cleared.body == {**made, "name": "Acme Ltd", "phone_number": None, "preferred_locale": None}
    assert api.patch(path, {"metadata": {}}).body["metadata"] == {}
    assert api.patch(path, {"customer_id": "cus_other"}).status == 422
    assert api.patch("/customers/nobody", {"name": "x"}).status == 404


def test_lists_are_newest_first_and_filtered(api: Api) -> None:
    def ids(query: str) -> list[str]:
        return [item["customer_id"] for item in api.get(f"/customers?{query}").body["items"]]

    for name, email in [("Acme", "Pay@Acme.example"), ("ACME Labs", "labs@acme.example"), ("100%", "p@globex.example")]:
        api.post("/customers", {"name": name, "email": email, "customer_id": name.replace(" ", "_").replace("%", "p")})
    assert ids("") == ["100p", "ACME_Labs", "Acme"]
    assert ids("name=acme") == ["ACME_Labs", "Acme"]
    assert ids("name=%25") == ["100p"]
    assert ids("name=_cme") == []
    assert ids("email=pay@acme.EXAMPLE") == ["Acme"]
    assert ids("email=acme.example") == []
    second = Customer.objects.get(public_id="ACME_Labs").created_at.isoformat().replace("+", "%2B")
    assert ids(f"created_at_gte={second}") == ["100p", "ACME_Labs"]
    assert ids(f"created_at_lte={second}") == ["ACME_Labs", "Acme"]
    assert ids("page_size=2") == ["100p", "ACME_Labs"]
    assert ids("page_size=2&page_number=1") == ["Acme"]
    assert ids("page_size=2&page_number=2") == []
    assert ids("page_number=2147483647") == []
    assert ids("unknown=1") == ["100p", "ACME_Labs", "Acme"]


@pytest.mark.parametrize(
    "query",
    [
        "page_size=0",
        "page_size=101",
        "page_size=ten",
        "page_size=-1",
        "page_size=1e1",
        "page_size=%D9%A3",
        "page_number=-1",
        "page_number=2147483648",
        "page_number=99999999999999999999999",
        "name=%00",
        "email=a%00b",
        "created_at_gte=yesterday",
        "created_at_gte=2026-13-01",
        "created_at_lte=2026-01-01T25:00:00Z",
        "created_at_lte=0001-01-01T00:00:00%2B14:00",
    ],
)
def test_odd_queries_are_refused(api: Api, query: str) -> None:
    answer = api.get(f"/customers?{query}")
    assert (answer.status, answer.body["code"]) == (422, "INVALID_QUERY_PARAMS")
    assert query.split("=")[0] in answer.body["message"]


def test_a_portal_session_is_a_link_for_this_customer(api: Api) -> None:
    acme = api.post("/customers", ACME).body["customer_id"]
    path = f"/customers/{acme}/customer-portal/session"
    answer = api.post(f"{path}?return_url=https://shop.example/account&send_email=false")
    assert answer.status == 200
    link = PortalLink.objects.get()
    assert link.customer.public_id == acme
    assert link.return_url == "https://shop.example/account"
    assert link.is_valid(now=timezone.now())
    assert answer.body["link"].startswith("http://localhost:8000/portal/")
    for query, status in [("send_email=true", 422), ("send_email=perhaps", 422), ("return_url=javascript:x", 400)]:
        assert api.post(f"{path}?{query}").status == status
    assert api.post("/customers/nobody/customer-portal/session").status == 404
    assert PortalLink.objects.count() == 1
