"""The functions behind /customers and the admin's form."""

from typing import Any

import pytest

from customers.customers import (
    CustomerIdTaken,
    CustomerInvalid,
    CustomerNotFound,
    create_customer,
    get_customer,
    update_customer,
)
from customers.models import Customer

pytestmark = pytest.mark.django_db


def test_it_makes_an_id_unless_it_is_given_one() -> None:
    made = create_customer(name=" Acme ", email=" pay@acme.example ")
    assert (made.name, made.email, made.public_id[:4], len(made.public_id)) == ("Acme", "pay@acme.example", "cus_", 24)
    assert get_customer(customer_id=made.public_id) == made
    given = create_customer(name="Acme", email="pay@acme.example", customer_id="a.b:c@d-e_F")
    assert get_customer(customer_id="a.b:c@d-e_F") == given


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": " "}, "name: must not be empty"),
        ({"name": "x" * 256}, "name: may have 255 characters"),
        ({"email": "acme"}, "email: must be an e-mail address"),
        ({"email": f"{'x' * 250}@acme.example"}, "email: may have 254 characters"),
        ({"phone_number": "1" * 51}, "phone_number: may have 50 characters"),
        ({"customer_id": "a b"}, "customer_id: use 1 to 100 letters"),
        ({"customer_id": ""}, "customer_id: use 1 to 100 letters"),
        ({"customer_id": "a\n"}, "customer_id: use 1 to 100 letters"),
        ({"customer_id": "x" * 101}, "customer_id: use 1 to 100 letters"),
    ],
)
def test_it_refuses_what_the_row_could_not_hold(values: dict[str, Any], said: str) -> None:
    with pytest.raises(CustomerInvalid, match=said):
        create_customer(**{"name": "Acme", "email": "pay@acme.example", **values})
    assert not Customer.objects.exists()


def test_an_id_is_taken_once_and_the_transaction_goes_on() -> None:
    create_customer(name="Acme", email="pay@acme.example", customer_id="cus_1")
    with pytest.raises(CustomerIdTaken):
        create_customer(name="Globex", email="pay@globex.example", customer_id="cus_1")
    assert create_customer(name="Globex", email="pay@globex.example", customer_id="cus_2").pk
    assert Customer.objects.get(public_id="cus_1").name == "Acme"


def test_a_change_touches_its_fields_only() -> None:
    acme = create_customer(name="Acme", email="pay@acme.example", metadata={"a": 1})
    stale = Customer.objects.get(pk=acme.pk)
    update_customer(customer=acme, name="Acme Ltd", billing_address={"country": "DE"})
    update_customer(customer=stale, email="new@acme.example")  # somebody else's older copy
    row = Customer.objects.get(pk=acme.pk)
    assert (row.name, row.email, row.metadata, row.billing_address) == (
        "Acme Ltd",
        "new@acme.example",
        {"a": 1},
        {"country": "DE"},
    )
    with pytest.raises(CustomerInvalid):
        update_customer(customer=acme, email="no")
    with pytest.raises(TypeError, match="public_id"):
        update_customer(customer=acme, public_id="cus_other")


@pytest.mark.parametrize("customer_id", ["", "nobody", "a\x00b", "\x00"])
def test_an_unknown_id_is_not_found(customer_id: str) -> None:
    with pytest.raises(CustomerNotFound):
        get_customer(customer_id=customer_id)
