"""How one customer is billed: defaults without a row, checks that name the field."""

from typing import Any

import pytest

from billing.models import BillingProfile, NumberSeries
from billing.profiles import MOST_GRACE_HOURS, ProfileInvalid, profile_of, set_profile
from tests.base import acme, globex
from tests.billing.rivals import together


@pytest.mark.django_db
class TestProfiles:
    def test_a_customer_without_one_is_billed_like_everybody(self) -> None:
        profile = profile_of(acme())
        assert profile.pk is None
        assert (profile.tax_exempt, profile.reverse_charge, profile.grace_hours) == (False, False, None)
        assert (profile.needs_approval, profile.combine_invoices, profile.series) == (False, False, None)
        assert not BillingProfile.objects.exists()

    def test_given_fields_change_and_the_others_stay(self) -> None:
        customer = acme()
        series = NumberSeries.objects.create(name="export", prefix="EX-")
        set_profile(customer=customer, grace_hours=48, needs_approval=True)
        set_profile(customer=customer, series=series, combine_invoices=True, tax_id=" DE1 ")
        profile = profile_of(customer)
        assert (profile.grace_hours, profile.needs_approval, profile.combine_invoices) == (48, True, True)
        assert (profile.series, profile.tax_id) == (series, "DE1")
        set_profile(customer=customer, grace_hours=None, series=None)
        assert (profile_of(customer).grace_hours, profile_of(customer).series) == (None, None)
        assert BillingProfile.objects.count() == 1
        assert profile_of(globex()).pk is None

    @pytest.mark.parametrize(
        ("fields", "begins"),
        [
            ({"tax_exempt": True}, "exemption_reason: "),
            ({"tax_exempt": True, "exemption_reason": "  "}, "exemption_reason: "),
            ({"exemption_reason": "r" * 256}, "exemption_reason: "),
            ({"reverse_charge": True}, "tax_id: "),
            ({"tax_id": "t" * 101}, "tax_id: "),
            (
                {"tax_exempt": True, "exemption_reason": "x", "reverse_charge": True, "tax_id": "DE1"},
                "A customer is either exempt",
            ),
            ({"grace_hours": -1}, "grace_hours: "),
            ({"grace_hours": MOST_GRACE_HOURS + 1}, "grace_hours: "),
            ({"series": NumberSeries(pk=10**6, name="gone")}, "series: "),
        ],
    )
    def test_nonsense_is_refused_by_field_and_nothing_is_kept(self, fields: dict[str, Any], begins: str) -> None:
        with pytest.raises(ProfileInvalid) as refused:
            set_profile(customer=acme(), **fields)
        assert refused.value.message.startswith(begins)
        assert not BillingProfile.objects.exists()

    @pytest.mark.parametrize("hours", [0, MOST_GRACE_HOURS])
    def test_no_grace_and_the_longest(self, hours: int) -> None:
        assert set_profile(customer=acme(), grace_hours=hours).grace_hours == hours

    def test_a_misspelt_field_is_a_programming_error(self) -> None:
        with pytest.raises(TypeError, match="grace"):
            set_profile(customer=acme(), grace=1)


@pytest.mark.django_db(transaction=True)
def test_two_operators_at_once_lose_nothing_of_each_other() -> None:
    customer = acme()
    results = together(
        lambda: set_profile(customer=customer, grace_hours=5),
        lambda: set_profile(customer=customer, needs_approval=True),
    )
    assert [type(result) for result in results] == [BillingProfile] * 2
    assert (profile_of(customer).grace_hours, profile_of(customer).needs_approval) == (5, True)
