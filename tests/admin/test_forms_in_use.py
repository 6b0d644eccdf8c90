"""The forms on objects that are in use: what changes, and what must not."""

from decimal import Decimal

from django.test import Client
from django.urls import reverse

from tests.admin.house import House, nothing_changes, operator
from tests.admin.test_forms import typed


def test_a_new_price_is_asked_for_first_and_leaves_running_subscriptions_alone(house: House, root: Client) -> None:
    url = reverse("admin:billing_product_price", args=[house.product.pk])
    changed = {**typed(root.get(url)), "charges-0-price_per_unit": "0.05"}
    with nothing_changes("the question before a new price"):
        answer = root.post(url, changed)
    text = answer.content.decode()
    assert "Make version 2?" in text
    assert "3 running subscriptions keep the price they were sold at" in " ".join(text.split())
    assert "$0.02 per call after 1,000 free" in text
    assert "$0.05 per call after 1,000 free" in text
    with nothing_changes("a new price without permission"):
        assert operator().post(url, {**changed, "confirm": "1"}).status_code == 403
    assert root.post(url, {**changed, "confirm": "1"}).status_code == 302
    newest = house.product.current_price()
    assert newest.version == 2
    assert [charge.price_per_unit for charge in newest.charges.all()] == [Decimal(5), Decimal("0.001")]
    house.subscription.refresh_from_db()
    assert house.subscription.price.version == 1


def test_only_the_texts_of_a_meter_can_be_edited(house: House, root: Client) -> None:
    url = reverse("admin:meters_meter_edit", args=[house.calls.pk])
    sent = {
        "name": "Requests",
        "measurement_unit": "requests",
        "description": "",
        "event_name": "other",
        "aggregation": "sum",
    }
    assert root.post(url, sent).status_code == 302
    house.calls.refresh_from_db()
    assert (house.calls.name, house.calls.measurement_unit) == ("Requests", "requests")
    assert (house.calls.event_name, house.calls.aggregation) == ("api.call", "count")
    with nothing_changes("editing without permission"):
        assert operator("meters.add_meter").post(url, sent).status_code == 403


def test_a_portal_link_is_shown_by_the_answer_that_made_it_and_opens_that_customers_pages(
    house: House, root: Client
) -> None:
    answer = root.post(reverse("admin:customers_customer_portal_link", args=[house.customer.pk]))
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    url = answer.context["url"]
    assert url in answer.content.decode()
    visitor = Client()
    page = visitor.get("/" + url.split("/", 3)[3], follow=True)
    assert page.status_code == 200
    assert "Acme" in page.content.decode()
    assert url not in root.get(reverse("admin:customers_customer_change", args=[house.customer.pk])).content.decode()
