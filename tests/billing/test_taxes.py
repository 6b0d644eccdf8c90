"""Which taxes a customer pays: place and category, time, and why there is none."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase as HypothesisTestCase

from billing.models import TaxRate
from billing.profiles import set_profile
from billing.taxes import (
    TaxRateEnded,
    TaxRateInvalid,
    TaxRateOverlaps,
    create_tax_rate,
    end_tax_rate,
    replace_tax_rate,
    tax_for,
)
from customers.models import Customer
from tests.base import acme, at, globex
from tests.billing.rivals import together

D = Decimal
NOW = at("2026-03-10T12:00")


def rate(name: str, percent: str, **changes: Any) -> TaxRate:
    return create_tax_rate(**{"name": name, "percent": D(percent), **changes})


def taxes(
    address: dict[str, Any], *, customer: Customer | None = None, tax_category: str = "saas"
) -> tuple[list[Any], str]:
    """What is decided, as ([(name, percent), …], reason)."""
    decision = tax_for(customer=customer or acme(), address=address, tax_category=tax_category, now=NOW)
    return [(tax.name, tax.percent) for tax in decision.taxes], decision.reason


@pytest.mark.django_db
class TestWhichRate:
    @pytest.fixture(autouse=True)
    def rates(self) -> None:
        rate("VAT", "10")
        rate("VAT", "5", tax_category="e_book")
        rate("VAT", "19", country="DE")
        rate("VAT", "7", country="DE", tax_category="e_book")
        rate("VAT", "8.5", country="ES")
        rate("VAT", "3", country="ES", region="Canarias")
        rate("VAT", "4", country="ES", tax_category="e_book")

    @pytest.mark.parametrize(
        ("address", "tax_category", "percent", "reason"),
        [
            ({"country": "FR"}, "saas", "10", "VAT everywhere"),
            ({}, "saas", "10", "VAT everywhere"),
            ({"country": "FR"}, "e_book", "5", "VAT everywhere, E-book"),
            ({"country": "DE"}, "saas", "19", "VAT for DE"),
            ({"country": "DE"}, "e_book", "7", "VAT for DE, E-book"),
            ({"country": "DE", "state": "Bayern"}, "saas", "19", "VAT for DE"),
            ({"country": "ES"}, "saas", "8.5", "VAT for ES"),
            ({"country": "ES", "state": "Canarias"}, "saas", "3", "VAT for ES, Canarias"),
            # The place goes before the category: the region's rate is for everything sold there.
            ({"country": "ES", "state": "Canarias"}, "e_book", "3", "VAT for ES, Canarias"),
            ({"country": "ES"}, "e_book", "4", "VAT for ES, E-book"),
            # The region of another country is no region of this one.
            ({"country": "DE", "state": "Canarias"}, "saas", "19", "VAT for DE"),
            ({"state": "Canarias"}, "saas", "10", "VAT everywhere"),
        ],
    )
    def test_the_narrowest_by_place_then_by_category(
        self, address: dict[str, str], tax_category: str, percent: str, reason: str
    ) -> None:
        assert taxes(address, tax_category=tax_category) == ([("VAT", D(percent))], reason)

    @pytest.mark.parametrize(
        "address",
        [
            {"country": "es", "state": "canarias"},
            {"country": " Es ", "state": " CANARIAS "},
        ],
    )
    def test_capitals_and_spaces_around_do_not_matter(self, address: dict[str, str]) -> None:
        assert taxes(address) == ([("VAT", D(3))], "VAT for ES, Canarias")

    @pytest.mark.parametrize(
        "address",
        [
            {"country": None},
            {"country": 49},
            {"country": ["DE"]},
            {"country": "DEU"},
            {"country": "Germany", "state": {"a": 1}},
        ],
    )
    def test_an_address_may_hold_anything(self, address: dict[str, Any]) -> None:
        assert taxes(address) == ([("VAT", D(10))], "VAT everywhere")


@pytest.mark.django_db
class TestSeveralTaxes:
    def test_different_names_add_up(self) -> None:
        rate("QST", "9.975", country="CA", region="QC")
        rate("GST", "5", country="CA")
        rate("HST", "13", country="CA", region="ON")
        assert taxes({"country": "CA", "state": "QC"}) == (
            [("GST", D(5)), ("QST", D("9.975"))],
            "GST for CA; QST for CA, QC",
        )
        assert taxes({"country": "CA", "state": "ON"}) == (
            [("GST", D(5)), ("HST", D(13))],
            "GST for CA; HST for CA, ON",
        )
        assert taxes({"country": "CA", "state": "AB"}) == ([("GST", D(5))], "GST for CA")

    def test_a_zero_rate_is_a_rate(self) -> None:
        rate("VAT", "19", country="DE")
        rate("VAT", "0", country="DE", tax_category="e_book")
        assert taxes({"country": "DE"}, tax_category="e_book") == ([("VAT", D(0))], "VAT for DE, E-book")

    def test_one_name_in_two_spellings_is_one_tax(self) -> None:
        rate("VAT", "10")
        rate("vat", "19", country="DE")
        assert taxes({"country": "DE"}) == ([("vat", D(19))], "vat for DE")


@pytest.mark.django_db
class TestNoTax:
    def test_without_a_rate_it_says_for_where(self) -> None:
        rate("VAT", "19", country="DE")
        assert taxes({"country": "fr"}) == ([], "No tax rate for FR")
        assert taxes({}) == ([], "No tax rate: the address has no country")

    def test_an_exempt_customer_pays_none_and_the_line_says_why(self) -> None:
        rate("VAT", "19")
        customer = acme()
        set_profile(customer=customer, tax_exempt=True, exemption_reason="charity")
        assert taxes({"country": "DE"}, customer=customer) == ([], "Exempt: charity")
        # Nobody else is.
        assert taxes({"country": "DE"}, customer=globex()) == ([("VAT", D(19))], "VAT everywhere")
        set_profile(customer=customer, tax_exempt=False)
        assert taxes({"country": "DE"}, customer=customer) == ([("VAT", D(19))], "VAT everywhere")

    def test_a_reverse_charge_names_the_tax_id(self) -> None:
        rate("VAT", "19")
        customer = acme()
        set_profile(customer=customer, reverse_charge=True, tax_id=" FR12345678901 ")
        assert taxes({"country": "FR"}, customer=customer) == ([], "Reverse charge, tax id FR12345678901")

    def test_a_tax_id_alone_changes_nothing(self) -> None:
        rate("VAT", "19")
        customer = acme()
        set_profile(customer=customer, tax_id="DE123")
        assert taxes({"country": "DE"}, customer=customer) == ([("VAT", D(19))], "VAT everywhere")


@pytest.mark.django_db
class TestInTime:
    @pytest.mark.parametrize(
        ("now", "percent"),
        [
            ("2026-06-30T23:59:59.999999", "19"),
            ("2026-07-01", "16"),  # the end is out, the start is in
            ("2026-12-31T23:59:59", "16"),
            ("2027-01-01", "19.5"),
        ],
    )
    def test_each_invoice_gets_the_rate_of_its_instant(self, now: str, percent: str) -> None:
        first = rate("VAT", "19", country="DE")
        end_tax_rate(rate=first, now=NOW, at=at("2026-07-01"))
        rate("VAT", "16", country="DE", starts_at=at("2026-07-01"), ends_at=at("2027-01-01"))
        rate("VAT", "19.5", country="DE", starts_at=at("2027-01-01"))
        decision = tax_for(customer=acme(), address={"country": "DE"}, tax_category="saas", now=at(now))
        assert [tax.percent for tax in decision.taxes] == [D(percent)]

    def test_a_wider_rate_takes_over_where_the_narrower_ended(self) -> None:
        rate("VAT", "10")
        narrow = rate("VAT", "19", country="DE")
        end_tax_rate(rate=narrow, now=NOW)
        assert taxes({"country": "DE"}) == ([("VAT", D(10))], "VAT everywhere")


@pytest.mark.django_db
class TestEntering:
    def test_what_is_entered_is_tidied(self) -> None:
        made = rate("  Sales   tax ", "8.875", country="us", region=" New  York ")
        assert (made.name, made.country, made.region) == ("Sales tax", "US", "New York")
        assert str(made) == "Sales tax 8.875 %, US, New York"

    @pytest.mark.parametrize(
        ("changes", "begins"),
        [
            ({"name": " "}, "name: "),
            ({"name": "n" * 51}, "name: "),
            ({"percent": D("-0.01")}, "percent: "),
            ({"percent": D("100.01")}, "percent: "),
            ({"percent": D("NaN")}, "percent: "),
            ({"percent": D("1." + "1" * 30)}, "percent: "),
            ({"country": "UK"}, "country: UK is not"),
            ({"country": "EU"}, "country: EU is not"),
            ({"country": "DEU"}, "country: "),
            ({"region": "Bayern"}, "region: say the country too."),
            ({"country": "DE", "region": "r" * 101}, "region: "),
            ({"tax_category": "tea"}, "tax_category: "),
            ({"starts_at": NOW, "ends_at": NOW}, "ends_at: "),
        ],
    )
    def test_nonsense_is_refused_by_field(self, changes: dict[str, Any], begins: str) -> None:
        with pytest.raises(TaxRateInvalid) as refused:
            create_tax_rate(**{"name": "VAT", "percent": D(19), **changes})
        assert refused.value.message.startswith(begins)
        assert not TaxRate.objects.exists()

    @pytest.mark.parametrize("percent", ["0", "100"])
    def test_all_and_nothing_are_percentages(self, percent: str) -> None:
        assert rate("VAT", percent).percent == D(percent)

    @pytest.mark.parametrize(
        ("starts", "ends", "overlaps"),
        [
            (None, None, True),
            (None, "2026-02-01", False),  # ends where the other begins
            (None, "2026-02-02", True),
            ("2026-02-15", "2026-02-16", True),
            ("2026-02-28", None, True),
            ("2026-03-01", None, False),  # begins where the other ends
            ("2026-01-01", "2026-04-01", True),
        ],
    )
    def test_two_of_one_name_place_and_category_are_never_in_force_together(
        self, starts: str | None, ends: str | None, overlaps: bool
    ) -> None:
        rate("VAT", "19", country="DE", starts_at=at("2026-02-01"), ends_at=at("2026-03-01"))
        changes = {
            "country": "de",
            "starts_at": at(starts) if starts else None,
            "ends_at": at(ends) if ends else None,
        }
        if overlaps:
            with pytest.raises(TaxRateOverlaps, match="2026-03-01 00:00 UTC"):
                rate("vat", "16", **changes)
        else:
            rate("vat", "16", **changes)
        # Another name, place or category is another matter.
        rate("GST", "16", **changes)
        rate("VAT", "16", **{**changes, "country": "FR"})
        rate("VAT", "16", tax_category="saas", **changes)


@pytest.mark.django_db
class TestEnding:
    def test_a_rate_ends_now_or_later_never_before(self) -> None:
        made = rate("VAT", "19")
        with pytest.raises(TaxRateInvalid, match="in the past"):
            end_tax_rate(rate=made, now=NOW, at=at("2026-03-10T11:59:59"))
        end_tax_rate(rate=made, now=NOW, at=at("2026-12-31"))
        assert made.ends_at == at("2026-12-31")
        end_tax_rate(rate=made, now=NOW, at=at("2026-06-30"))  # an end ahead may come nearer
        assert made.ends_at == at("2026-06-30")
        with pytest.raises(TaxRateInvalid, match="not later"):
            end_tax_rate(rate=made, now=NOW, at=at("2026-07-30"))
        end_tax_rate(rate=made, now=NOW)
        with pytest.raises(TaxRateEnded):
            end_tax_rate(rate=made, now=NOW)
        assert TaxRate.objects.get().ends_at == NOW

    def test_one_that_has_not_begun_is_removed(self) -> None:
        made = rate("VAT", "19", starts_at=at("2026-07-01"))
        end_tax_rate(rate=made, now=NOW)
        assert not TaxRate.objects.exists()

    def test_one_that_has_not_begun_can_be_given_an_end(self) -> None:
        made = rate("VAT", "19", starts_at=at("2026-07-01"))
        end_tax_rate(rate=made, now=NOW, at=at("2026-08-01"))
        assert (made.starts_at, made.ends_at) == (at("2026-07-01"), at("2026-08-01"))


@pytest.mark.django_db
class TestReplacing:
    def test_another_percentage_follows_without_a_gap(self) -> None:
        first = rate("VAT", "19", country="DE", region="Bayern", tax_category="saas", ends_at=at("2027-01-01"))
        second = replace_tax_rate(rate=first, percent=D(16), now=NOW, at=at("2026-07-01"))
        first.refresh_from_db()
        assert (first.percent, first.ends_at) == (D(19), at("2026-07-01"))
        assert (second.name, second.country, second.region, second.tax_category) == ("VAT", "DE", "Bayern", "saas")
        assert (second.percent, second.starts_at, second.ends_at) == (D(16), at("2026-07-01"), at("2027-01-01"))

    def test_a_wrong_percentage_leaves_the_rate_as_it_was(self) -> None:
        first = rate("VAT", "19")
        with pytest.raises(TaxRateInvalid, match="percent"):
            replace_tax_rate(rate=first, percent=D(101), now=NOW)
        assert TaxRate.objects.get().ends_at is None

    def test_one_that_has_not_begun_gives_way_whole(self) -> None:
        first = rate("VAT", "19", starts_at=at("2026-07-01"))
        replace_tax_rate(rate=first, percent=D(16), now=NOW, at=at("2026-06-01"))
        only = TaxRate.objects.get()
        assert (only.percent, only.starts_at, only.ends_at) == (D(16), at("2026-06-01"), None)


PLACES = [("", ""), ("DE", ""), ("DE", "Bayern"), ("FR", "")]


class TestAgainstThePlainRule(HypothesisTestCase):
    @given(
        entered=st.lists(
            st.tuples(
                st.sampled_from(["VAT", "GST"]), st.sampled_from(PLACES), st.sampled_from(["", "saas", "e_book"])
            ),
            unique=True,
            max_size=10,
        ),
        place=st.sampled_from([*PLACES, ("DE", "Hessen")]),
        tax_category=st.sampled_from(["saas", "e_book", "edtech"]),
    )
    @settings(max_examples=80, deadline=None)
    def test_of_each_name_the_first_that_is_found_from_narrow_to_wide(
        self, entered: list[tuple[str, tuple[str, str], str]], place: tuple[str, str], tax_category: str
    ) -> None:
        percents = {row: D(number + 1) for number, row in enumerate(entered)}
        for (name, (country, region), category), percent in percents.items():
            rate(name, str(percent), country=country, region=region, tax_category=category)
        country, region = place
        # Looked for in this order; the first found is the one.
        order = [
            (where, category)
            for where in dict.fromkeys([(country, region), (country, ""), ("", "")])
            for category in (tax_category, "")
        ]
        expected = []
        for name in ("GST", "VAT"):
            found = [percents[name, *step] for step in order if (name, *step) in percents]
            expected += [(name, found[0])] if found else []
        assert taxes({"country": country, "state": region}, tax_category=tax_category)[0] == expected


@pytest.mark.django_db(transaction=True)
def test_two_operators_at_once_enter_one_rate() -> None:
    results = together(*[lambda: rate("VAT", "19", country="DE")] * 3)
    assert sorted(type(result).__name__ for result in results) == ["TaxRate", "TaxRateOverlaps", "TaxRateOverlaps"]
    assert TaxRate.objects.count() == 1
