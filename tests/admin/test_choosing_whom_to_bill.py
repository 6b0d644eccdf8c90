"""Whom a run bills: those who were chosen, or nobody where the choice is not understood; never everybody instead."""

import pytest
from django.test import Client
from django.urls import reverse

from billing.admin.runs import MOST_CHOSEN
from billing.models import BillingRun, Subscription
from tests.admin.house import House, nothing_changes

CANNOT_READ = "in a way that cannot be read"
ODD_CHOICES = [
    ("a word", "x", CANNOT_READ),
    ("a word beside a number", "1,x", CANNOT_READ),
    ("below zero", "-3", CANNOT_READ),
    ("an empty place", "1,,2", CANNOT_READ),
    ("a comma only", ",", CANNOT_READ),
    ("spaces", " 1", CANNOT_READ),
    ("digits of another script", "١", CANNOT_READ),
    ("more digits than a row has", "9" * 19, CANNOT_READ),
    ("nobody we know", "999999999", "1 cannot be found"),
    ("too many", ",".join(map(str, range(1, MOST_CHOSEN + 2))), "You chose 501 subscriptions; at most 500"),
]


@pytest.mark.parametrize(("only", "said"), [case[1:] for case in ODD_CHOICES], ids=[case[0] for case in ODD_CHOICES])
def test_it_bills_nobody_when_the_choice_is_not_understood(house: House, root: Client, only: str, said: str) -> None:
    url = reverse("admin:billing_billingrun_start")
    asked = {"until": "2027-01-01T00:00", "only": only}
    with nothing_changes(f"only={only}"):
        for answer in (root.get(url, asked), root.post(url, asked), root.get(url, {"only": only})):
            page = answer.content.decode()
            assert answer.status_code == 200
            assert "Nobody was billed." in page
            assert said in page
            assert "Dry run" not in page.split("Nobody was billed.")[1]


def test_it_bills_those_who_were_chosen(house: House, root: Client) -> None:
    page = root.get(reverse("admin:billing_billingrun_start"), {"only": str(house.subscription.pk)}).content.decode()
    assert f"1 chosen: {house.subscription}" in page
    before = BillingRun.objects.count()
    sent = {"until": "2026-01-01T00:00", "only": str(house.subscription.pk)}
    assert root.post(reverse("admin:billing_billingrun_start"), sent).status_code == 302
    assert BillingRun.objects.count() == before + 1


def test_the_list_refuses_to_choose_more_than_a_run_takes(house: House, root: Client) -> None:
    one = house.subscription
    Subscription.objects.bulk_create(
        Subscription(
            public_id=f"sub_many_{number}",
            customer=one.customer,
            price=one.price,
            status=one.status,
            started_at=one.started_at,
            anchor=one.anchor,
            expires_at=one.expires_at,
            time_zone=one.time_zone,
        )
        for number in range(MOST_CHOSEN)
    )
    url = reverse("admin:billing_subscription_changelist")
    selected = {"action": "run_billing", "_selected_action": [one.pk], "select_across": "1", "index": "0"}
    answer = root.post(f"{url}?status=all", selected, follow=True)
    assert "at most 500 can be chosen by hand" in answer.content.decode()
    assert "billingrun" not in answer.redirect_chain[-1][0]


def test_a_runs_invoices_say_whose_they_are(house: House, root: Client) -> None:
    page = root.get(reverse("admin:billing_billingrun_change", args=[house.run.pk])).content.decode()
    customer = reverse("admin:customers_customer_change", args=[house.customer.pk])
    assert f'<a href="{customer}">{house.customer.name}</a>' in page
