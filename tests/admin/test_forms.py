"""The forms: major units become minor ones exactly, filters are read as they were built, mistakes are named."""

import json
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from billing.admin.row_fields import RowsField
from billing.models import Charge, Price, Product
from customers.models import Customer
from meters.models import Meter
from tests.admin.house import nothing_changes
from tests.base import call_meter

LARGEST = 2**63 - 1


def product_form(meter: Meter | None, **changes: Any) -> dict[str, Any]:
    """What the browser sends for a usage-based product."""
    form: dict[str, Any] = {
        "name": "API Service",
        "tax_category": "saas",
        "description": "",
        "type": "usage_based_price",
        "currency": "USD",
        "fixed_amount": "0",
        "payment_frequency_count": "1",
        "payment_frequency_interval": "Month",
        "subscription_period_count": "20",
        "subscription_period_interval": "Year",
        "trial_period_days": "0",
        "charges-TOTAL_FORMS": "1",
        "charges-INITIAL_FORMS": "0",
        "charges-0-meter": meter.pk if meter else "",
        "charges-0-price_per_unit": "0.001",
        "charges-0-free_threshold": "1000",
    }
    return {**form, **changes}


def post_product(root: Client, **changes: Any) -> Any:
    meter = Meter.objects.first() or call_meter()
    return root.post(reverse("admin:billing_product_add"), product_form(meter, **changes))


@pytest.mark.parametrize(
    ("currency", "typed", "minor"),
    [
        ("USD", "0.001", "0.1"),
        ("USD", "0.00001", "0.001"),
        ("USD", "0.02", "2"),
        ("USD", ".5", "50"),
        ("USD", "999.99999999999999", "99999.999999999999"),
        ("USD", "0.00000000000001", "0.000000000001"),
        ("JPY", "0.5", "0.5"),
        ("JPY", "99999.999999999999", "99999.999999999999"),
        ("KWD", "0.001", "1"),
        ("KWD", "0.0000005", "0.0005"),
    ],
)
def test_a_price_per_unit_is_typed_in_the_major_unit(
    currency: str, typed: str, minor: str, db: None, root: Client
) -> None:
    answer = post_product(root, currency=currency, **{"charges-0-price_per_unit": typed})
    assert answer.status_code == 302, answer.content.decode()[-3000:]
    charge = Charge.objects.get()
    assert charge.price_per_unit == Decimal(minor)
    assert charge.price.currency == currency


@pytest.mark.parametrize(
    ("currency", "typed"),
    [
        ("USD", "0"),
        ("USD", "-1"),
        ("USD", "1e5"),
        ("USD", "1E-5"),
        ("USD", "NaN"),
        ("USD", "Infinity"),
        ("USD", "1,000"),
        ("USD", "1_000"),
        ("USD", "٣"),
        ("USD", ""),
        ("USD", "$1"),
        ("USD", "1000"),
        ("USD", "0.000000000000001"),
        ("JPY", "100000"),
        ("JPY", "0.0000000000001"),
        ("KWD", "100"),
        ("USD", "9" * 100),
    ],
)
def test_a_price_per_unit_that_does_not_fit_is_refused_beside_its_field(
    currency: str, typed: str, db: None, root: Client
) -> None:
    answer = post_product(root, currency=currency, **{"charges-0-price_per_unit": typed})
    assert answer.status_code == 200
    assert 'id="id_charges-0-price_per_unit_error"' in answer.content.decode()
    assert not Product.objects.exists()


@pytest.mark.parametrize(
    ("currency", "typed", "minor"),
    [
        ("USD", "49", "4900"),
        ("USD", "49.00", "4900"),
        ("USD", "0", "0"),
        ("JPY", "500", "500"),
        ("KWD", "1.234", "1234"),
    ],
)
def test_a_fee_is_typed_in_the_major_unit(currency: str, typed: str, minor: str, db: None, root: Client) -> None:
    assert post_product(root, currency=currency, fixed_amount=typed).status_code == 302
    assert Price.objects.get().fixed_amount == Decimal(minor)


@pytest.mark.parametrize(
    ("currency", "typed"), [("USD", "0.005"), ("JPY", "0.5"), ("KWD", "0.0001"), ("USD", "-1"), ("USD", "1e9")]
)
def test_a_fee_with_too_many_digits_is_refused(currency: str, typed: str, db: None, root: Client) -> None:
    answer = post_product(root, currency=currency, fixed_amount=typed)
    assert answer.status_code == 200
    assert 'id="id_fixed_amount_error"' in answer.content.decode()
    assert not Product.objects.exists()


@pytest.mark.parametrize("threshold", [0, 1, 13_107_200_000, LARGEST])
def test_a_free_threshold_has_64_bits(threshold: int, db: None, root: Client) -> None:
    assert post_product(root, **{"charges-0-free_threshold": str(threshold)}).status_code == 302
    assert Charge.objects.get().free_threshold == threshold


@pytest.mark.parametrize("threshold", ["-1", str(LARGEST + 1), "1.5", "many"])
def test_a_free_threshold_outside_them_is_refused(threshold: str, db: None, root: Client) -> None:
    assert post_product(root, **{"charges-0-free_threshold": threshold}).status_code == 200
    assert not Product.objects.exists()


def test_ten_meters_fit_and_eleven_do_not(db: None, root: Client) -> None:
    meters = [call_meter(name=f"m{n}", event_name=f"e{n}") for n in range(11)]

    def rows(count: int) -> dict[str, Any]:
        found: dict[str, Any] = {"charges-TOTAL_FORMS": str(count)}
        for n in range(count):
            found |= {
                f"charges-{n}-meter": meters[n].pk,
                f"charges-{n}-price_per_unit": "0.01",
                f"charges-{n}-free_threshold": str(n),
            }
        return found

    assert post_product(root, **rows(11)).status_code == 200
    assert not Product.objects.exists()
    assert post_product(root, **rows(10)).status_code == 302
    assert [(c.meter, c.free_threshold) for c in Charge.objects.order_by("position")] == [
        (meters[n], n) for n in range(10)
    ]


def test_a_meter_cannot_be_chosen_twice_nor_an_archived_one_at_all(db: None, root: Client) -> None:
    meter = call_meter()
    twice = {
        "charges-TOTAL_FORMS": "2",
        "charges-1-meter": meter.pk,
        "charges-1-price_per_unit": "1",
        "charges-1-free_threshold": "0",
    }
    answer = post_product(root, **twice)
    assert "“API calls” is chosen twice" in answer.content.decode()
    root.post(reverse("admin:meters_meter_archive", args=[meter.pk]))
    assert post_product(root).status_code == 200
    assert not Product.objects.exists()


def test_a_usage_price_needs_a_meter_and_a_recurring_one_ignores_the_rows(db: None, root: Client) -> None:
    answer = post_product(
        root, **{"charges-0-meter": "", "charges-0-price_per_unit": "", "charges-0-free_threshold": ""}
    )
    assert answer.status_code == 200
    assert not Product.objects.exists()
    assert post_product(root, type="recurring_price", fixed_amount="10").status_code == 302
    assert Price.objects.get().charges.count() == 0


def test_a_one_time_price_needs_no_period(db: None, root: Client) -> None:
    answer = post_product(
        root, type="one_time_price", fixed_amount="200", payment_frequency_count="", subscription_period_count=""
    )
    assert answer.status_code == 302
    price = Price.objects.get()
    assert (price.type, price.fixed_amount) == ("one_time_price", Decimal(20000))
    assert price.payment_frequency_count is None
    assert post_product(root, type="one_time_price", fixed_amount="").status_code == 200


# -- a new version of a price ------------------------------------------------------------------------------------


def typed(answer: Any) -> dict[str, Any]:
    """What the form of an answer would send if nothing were changed."""
    form = answer.context["form"]
    sent = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    sent |= {"charges-TOTAL_FORMS": len(form.rows.forms), "charges-INITIAL_FORMS": len(form.rows.forms)}
    for n, row in enumerate(form.rows.forms):
        for name, field in row.fields.items():
            shown = row.get_initial_for_field(field, name)
            if isinstance(field, RowsField):
                for column in field.columns:
                    sent[f"charges-{n}-{name}_{column.name}"] = [line.get(column.name, "") for line in shown or []]
            else:
                sent[f"charges-{n}-{name}"] = shown
    return {name: value for name, value in sent.items() if value not in (None, False)}


def test_a_price_is_shown_for_editing_as_it_was_typed_and_saving_it_unchanged_makes_no_version(
    db: None, root: Client
) -> None:
    post_product(root, fixed_amount="49", **{"charges-0-price_per_unit": "0.00001"})
    url = reverse("admin:billing_product_price", args=[Product.objects.get().pk])
    page = root.get(url)
    assert page.context["form"].initial["fixed_amount"] == "49"
    assert page.context["form"].rows.forms[0].initial["price_per_unit"] == "0.00001"
    with nothing_changes("saving a price unchanged"):
        answer = root.post(url, {**typed(page), "confirm": "1"})
    assert "Nothing differs from the current price." in answer.content.decode()


# -- meters --------------------------------------------------------------------------------------------------------


def post_meter(root: Client, **changes: Any) -> Any:
    form = {
        "name": "API Requests",
        "event_name": "api.call",
        "aggregation": "count",
        "property_key": "",
        "measurement_unit": "calls",
        "description": "",
        "filter": "",
    }
    return root.post(reverse("admin:meters_meter_add"), {**form, **changes})


def test_the_filter_builder_keeps_groups_and_gives_values_their_type(db: None, root: Client) -> None:
    built = {
        "conjunction": "and",
        "clauses": [
            {"key": "tier", "operator": "equals", "value": "premium"},
            {"key": "retries", "operator": "less_than", "value": "3"},
            {"key": "big", "operator": "equals", "value": "12345678901234567890"},
            {
                "conjunction": "or",
                "clauses": [
                    {"key": "cached", "operator": "not_equals", "value": "true"},
                    {"conjunction": "and", "clauses": [{"key": "path", "operator": "contains", "value": "/v1"}]},
                ],
            },
        ],
    }
    assert post_meter(root, filter=json.dumps(built)).status_code == 302
    assert Meter.objects.get().filter == {
        "conjunction": "and",
        "clauses": [
            {"key": "tier", "operator": "equals", "value": "premium"},
            {"key": "retries", "operator": "less_than", "value": 3},
            {"key": "big", "operator": "equals", "value": "12345678901234567890"},
            {
                "conjunction": "or",
                "clauses": [
                    {"key": "cached", "operator": "not_equals", "value": True},
                    {"conjunction": "and", "clauses": [{"key": "path", "operator": "contains", "value": "/v1"}]},
                ],
            },
        ],
    }


@pytest.mark.parametrize(
    ("built", "said"),
    [
        ("{", "could not be read"),
        ("[]", "must be an object"),
        ('{"conjunction": "and", "clauses": [{"key": "", "operator": "equals", "value": "x"}]}', "Condition 1:"),
        (
            '{"conjunction": "or", "clauses": [{"key": "a", "operator": "equals", "value": "x"},'
            ' {"conjunction": "and", "clauses": [{"key": "b", "operator": "like", "value": "x"}]}]}',
            "Condition 2, 1:",
        ),
        (
            '{"conjunction": "and", "clauses": [{"key": "a", "operator": "greater_than", "value": "x"}]}',
            "could never match",
        ),
    ],
)
def test_a_filter_that_cannot_be_used_is_refused_where_it_is_wrong(
    built: str, said: str, db: None, root: Client
) -> None:
    answer = post_meter(root, filter=built)
    assert answer.status_code == 200
    assert said in answer.content.decode()
    assert not Meter.objects.exists()


def test_a_meter_without_a_filter_counts_every_event(db: None, root: Client) -> None:
    assert post_meter(root, filter='{"conjunction": "and", "clauses": []}').status_code == 302
    assert Meter.objects.get().filter is None


def test_every_aggregation_but_count_needs_its_property(db: None, root: Client) -> None:
    for aggregation in ("sum", "max", "last"):
        answer = post_meter(root, aggregation=aggregation)
        assert 'id="id_property_key_error"' in answer.content.decode(), aggregation
    assert post_meter(root, aggregation="sum", property_key="tokens").status_code == 302
    assert post_meter(root, aggregation="count", property_key="left over").status_code == 302
    assert sorted(Meter.objects.values_list("aggregation", "property_key")) == [("count", ""), ("sum", "tokens")]


# -- customers and keys ----------------------------------------------------------------------------------------------


def test_a_customer_is_created_with_an_id_of_ones_own_and_edited(db: None, root: Client) -> None:
    add = reverse("admin:customers_customer_add")
    sent = {
        "name": "Acme",
        "email": "pay@acme.example",
        "customer_id": "cus_abc123",
        "country": "de",
        "city": "Berlin",
        "metadata_key": ["plan", ""],
        "metadata_value": ["pro", ""],
    }
    assert root.post(add, sent).status_code == 302
    customer = Customer.objects.get()
    assert customer.public_id == "cus_abc123"
    assert customer.billing_address == {"city": "Berlin", "country": "DE"}
    assert customer.metadata == {"plan": "pro"}
    again = root.post(add, sent)
    assert "There is a customer with the id cus_abc123 already." in again.content.decode()
    Customer.objects.update(metadata={"plan": "pro", "seats": 5, "vip": True})
    edit = reverse("admin:customers_customer_edit", args=[customer.pk])
    changed = {
        **sent,
        "name": "Acme Ltd",
        "metadata_key": ["plan", "seats", "vip"],
        "metadata_value": ["pro", "5", "true"],
    }
    assert root.post(edit, changed).status_code == 302
    customer.refresh_from_db()
    assert (customer.name, customer.public_id) == ("Acme Ltd", "cus_abc123")
    # What was a number stays one while its text is untouched.
    assert customer.metadata == {"plan": "pro", "seats": 5, "vip": True}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "   "),
        ("email", "nobody"),
        ("customer_id", "a b"),
        ("customer_id", "x" * 101),
        ("name", "a\0b"),
    ],
)
def test_a_customer_that_is_not_right_is_refused(field: str, value: str, db: None, root: Client) -> None:
    sent = {"name": "Acme", "email": "pay@acme.example", "customer_id": "", field: value}
    answer = root.post(reverse("admin:customers_customer_add"), sent)
    assert answer.status_code == 200
    assert not Customer.objects.exists()


def test_an_api_key_is_shown_by_the_answer_that_made_it_and_never_again(db: None, root: Client) -> None:
    answer = root.post(reverse("admin:customers_apikey_add"), {"name": "shop", "read_only": "", "backfill": "on"})
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    key = answer.context["full_key"]
    assert key.startswith("mk_")
    assert key in answer.content.decode()
    row = answer.context["obj"]
    assert (row.name, row.read_only, row.backfill) == ("shop", False, True)
    secret = key.rsplit("_", 1)[1]
    for url in (
        reverse("admin:customers_apikey_changelist"),
        reverse("admin:customers_apikey_change", args=[row.pk]),
        reverse("admin:customers_apikey_history", args=[row.pk]),
        reverse("admin:index"),
    ):
        assert secret not in root.get(url).content.decode(), url
