"""Balances, prepaid credit, tax rates and billing profiles in the admin: what is typed is what moves, mistakes are
named, and the pages say what is the case."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing.balances import balance_of, move_balance
from billing.credits import draw, grant_credit, withdraw_grant
from billing.models import Balance, BalanceEntry, BillingProfile, CreditGrant, Invoice, TaxRate
from billing.profiles import profile_of, set_profile
from billing.taxes import create_tax_rate, end_tax_rate
from customers.models import Customer
from tests.admin.house import nothing_changes
from tests.base import acme, globex

D = Decimal
pytestmark = pytest.mark.django_db


def page(root: Client, customer: Customer, tab: str = "money") -> str:
    return root.get(reverse("admin:customers_customer_change", args=[customer.pk]), {"tab": tab}).content.decode()


def adjust(root: Client, customer: Customer, **typed: Any) -> Any:
    form = {"direction": "give", "amount": "10", "currency": "USD", "reason": "goodwill", **typed}
    return root.post(reverse("admin:customers_customer_adjust_balance", args=[customer.pk]), form)


class TestAdjustingABalance:
    @pytest.mark.parametrize(
        ("currency", "typed", "minor"),
        [
            ("USD", "12.5", 1250),
            ("USD", "0.01", 1),
            ("JPY", "500", 500),
            ("KWD", "1.234", 1234),
            ("USD", "1000000000", 100_000_000_000),
        ],
    )
    def test_major_units_become_minor_ones_exactly(self, root: Client, currency: str, typed: str, minor: int) -> None:
        customer = acme()
        answer = adjust(root, customer, amount=typed, currency=currency)
        assert answer.status_code == 302
        assert answer["Location"].endswith("?tab=money")
        assert balance_of(customer=customer, currency=currency) == minor
        entry = BalanceEntry.objects.get()
        assert (entry.kind, entry.reason) == ("adjustment", "goodwill")
        assert entry.author.startswith("root")

    @pytest.mark.parametrize(
        ("typed", "said"),
        [
            ({"amount": "0"}, "Enter an amount above zero."),
            ({"amount": "-1"}, "Enter an amount above zero."),
            ({"amount": "1.005"}, "USD has 2 digits after the point here; this has 3."),
            ({"amount": "0.5", "currency": "JPY"}, "JPY has 0 digits after the point here; this has 1."),
            ({"amount": "1e3"}, "Write the number out"),
            ({"amount": "ten"}, "Enter a number"),
            ({"amount": ""}, "This field is required."),
            ({"reason": " "}, "This field is required."),
            ({"currency": "XXX"}, "Select a valid choice"),
            ({"direction": "take"}, "The balance holds $0.00, so $10.00 cannot be taken from it."),
            ({"amount": "100000000000000000"}, "minor units at most"),
        ],
    )
    def test_a_mistake_is_named_and_nothing_moves(self, root: Client, typed: dict[str, str], said: str) -> None:
        answer = adjust(root, acme(), **typed)
        assert answer.status_code == 200
        assert said in answer.content.decode()
        assert not BalanceEntry.objects.exists()

    def test_a_button_pressed_twice_moves_once(self, root: Client) -> None:
        customer = acme()
        url = reverse("admin:customers_customer_adjust_balance", args=[customer.pk])
        once = root.get(url).context["form"]["once"].value()
        assert once != root.get(url).context["form"]["once"].value()
        for _ in range(2):
            assert adjust(root, customer, once=once).status_code == 302
        assert balance_of(customer=customer, currency="USD") == 1000
        # Gone back to and changed, the same form says something else.
        adjust(root, customer, once=once, amount="5")
        assert balance_of(customer=customer, currency="USD") == 1500  # 10 + 5

    def test_the_balance_has_a_page_with_its_ledger(self, root: Client) -> None:
        customer = acme()
        adjust(root, customer, amount="10")
        balance = Balance.objects.get()
        url = reverse("admin:billing_balance_adjust", args=[balance.pk])
        root.post(url, {"direction": "take", "amount": "2.50", "reason": "paid out"})
        shown = root.get(reverse("admin:billing_balance_change", args=[balance.pk])).content.decode()
        assert "$7.50" in shown  # 10 - 2.50
        assert "+$10.00" in shown
        assert "-$2.50" in shown
        assert "paid out" in shown
        refused = root.post(url, {"direction": "take", "amount": "7.51", "reason": "x"})
        assert "The balance holds $7.50" in refused.content.decode()

    def test_a_long_ledger_has_pages(self, root: Client) -> None:
        customer = acme()
        for number in range(1, 54):
            move_balance(
                customer=customer,
                currency="USD",
                amount=D(number),
                kind="adjustment",
                reason=f"number {number}.",
                now=timezone.now(),
            )
        url = reverse("admin:billing_balance_change", args=[Balance.objects.get().pk])
        first, second = root.get(url).content.decode(), root.get(url, {"page": "1"}).content.decode()
        assert ("number 53." in first, "number 4." in first, "number 3." in first) == (True, True, False)
        assert ("number 3." in second, "number 1." in second, "number 4." in second) == (True, True, False)
        assert ("Older" in first, "Newer" in first, "Older" in second, "Newer" in second) == (True, False, False, True)


class TestTheCustomersPage:
    def test_nothing_held_says_what_to_do(self, root: Client) -> None:
        shown = page(root, acme())
        assert "No prepaid credit" in shown
        assert "Nothing has moved yet." in shown

    def test_it_shows_what_is_held_and_only_this_customers(self, root: Client) -> None:
        customer, other = acme(), globex()
        now = timezone.now()
        adjust(root, customer, amount="12.34", reason="first")
        adjust(root, customer, amount="5", currency="EUR")
        move_balance(customer=other, currency="USD", amount=D(7777), kind="adjustment", now=now)
        grant_credit(customer=customer, name="Yearly", amount=D(5000), currency="USD", now=now)
        gone = grant_credit(customer=customer, name="Gone", amount=D(9000), currency="USD", now=now)
        withdraw_grant(grant=gone, reason="x", now=now)
        grant_credit(customer=other, name="Theirs", amount=D(1), currency="USD", now=now)
        shown = page(root, customer)
        for text in ("$12.34", "€5.00", "Yearly", "$50.00", "Withdrawn", "first"):
            assert text in shown, text
        for text in ("$77.77", "Theirs"):
            assert text not in shown, text


class TestGranting:
    def typed(self, of: Customer, **changes: Any) -> dict[str, Any]:
        return {
            "customer": of.pk,
            "name": "Yearly",
            "amount": "100",
            "currency": "USD",
            "priority": "0",
            "starts_at": "",
            "expires_at": "",
            **changes,
        }

    def test_the_form_grants_what_was_typed(self, root: Client) -> None:
        customer = acme()
        end = (timezone.now() + timedelta(days=365)).strftime("%Y-%m-%dT%H:%M")
        answer = root.post(
            reverse("admin:billing_creditgrant_add"),
            self.typed(customer, amount="99.95", priority="2", expires_at=end),
            follow=True,
        )
        assert "Acme has $99.95 of prepaid credit more." in answer.content.decode()
        made = CreditGrant.objects.get()
        assert (made.amount, made.priority, made.currency) == (D(9995), 2, "USD")
        assert made.author.startswith("root")
        assert made.expires_at is not None

    def test_a_button_pressed_twice_grants_once(self, root: Client) -> None:
        customer, url = acme(), reverse("admin:billing_creditgrant_add")
        page = root.get(url)
        once = page.context["form"]["once"].value()
        assert f'name="once" value="{once}"' in page.content.decode()
        assert once != root.get(url).context["form"]["once"].value()
        for _ in range(2):
            assert root.post(url, self.typed(customer, once=once)).status_code == 302
        assert [made.remaining for made in CreditGrant.objects.all()] == [D(10_000)]
        # Gone back to and changed, or opened anew, it is another grant.
        root.post(url, self.typed(customer, once=once, amount="5"))
        root.post(url, self.typed(customer, once="another"))
        assert sorted(made.remaining for made in CreditGrant.objects.all()) == [D(500), D(10_000), D(10_000)]

    def test_the_customer_is_chosen_already_when_one_comes_from_their_page(self, root: Client) -> None:
        customer = acme()
        shown = root.get(reverse("admin:billing_creditgrant_add"), {"customer": customer.pk}).content.decode()
        assert f'value="{customer.pk}" selected' in shown

    @pytest.mark.parametrize(
        ("typed", "said"),
        [
            ({"amount": "0"}, "Enter an amount above zero."),
            ({"amount": "0.001"}, "USD has 2 digits"),
            ({"name": ""}, "This field is required."),
            ({"expires_at": "2020-01-01T00:00"}, "must expire after it starts"),
            ({"starts_at": "2020-01-01T00:00", "expires_at": "2020-01-02T00:00"}, "would have expired already"),
            ({"priority": "-1"}, "greater than or equal to 0"),
            ({"customer": "999999"}, "Select a valid choice"),
        ],
    )
    def test_a_mistake_is_named_and_nothing_is_granted(self, root: Client, typed: dict[str, str], said: str) -> None:
        answer = root.post(reverse("admin:billing_creditgrant_add"), self.typed(acme(), **typed))
        assert answer.status_code == 200
        assert said in answer.content.decode()
        assert not CreditGrant.objects.exists()

    def test_its_page_says_which_invoice_drew_it(self, root: Client) -> None:
        customer = acme()
        made = grant_credit(customer=customer, name="Yearly", amount=D(5000), currency="USD", now=timezone.now())
        invoice = Invoice.objects.create(
            customer=customer, reason="one_time", currency="USD", customer_name="Acme", customer_email="a@acme.example"
        )
        draw(invoice=invoice, drawn={made.pk: D(1999)}, now=timezone.now())
        shown = root.get(reverse("admin:billing_creditgrant_change", args=[made.pk])).content.decode()
        for text in ("$30.01", "$50.00", "-$19.99", f"/admin/billing/invoice/{invoice.pk}/change/"):  # 50 - 19.99
            assert text in shown, text

    def test_the_lists_tabs_part_what_can_be_drawn_from_the_rest(self, root: Client) -> None:
        customer, now = acme(), timezone.now()
        for name, changes in {
            "usable": {},
            "coming": {"starts_at": now + timedelta(days=1)},
            "expired": {"starts_at": now - timedelta(days=9), "now": now - timedelta(days=9), "expires_at": now},
        }.items():
            terms: Any = {"customer": customer, "name": name, "amount": D(1), "currency": "USD", "now": now, **changes}
            grant_credit(**terms)
        url = reverse("admin:billing_creditgrant_changelist")
        for tab, names in {"": {"usable"}, "coming": {"coming"}, "over": {"expired"}}.items():
            shown = root.get(url, {"status": tab} if tab else {}).context["cl"].result_list
            assert {grant.name for grant in shown} == names, tab


class TestTaxRates:
    def typed(self, **changes: Any) -> dict[str, Any]:
        empty = {"country": "", "region": "", "tax_category": "", "starts_at": "", "ends_at": ""}
        return {"name": "VAT", "percent": "19", **empty, **changes}

    def test_the_form_enters_what_was_typed(self, root: Client) -> None:
        answer = root.post(
            reverse("admin:billing_taxrate_add"),
            self.typed(percent="9.975", country="ca", region="QC", tax_category="saas", starts_at="2026-07-01T00:00"),
        )
        assert answer.status_code == 302
        made = TaxRate.objects.get()
        assert (made.percent, made.country, made.region, made.tax_category) == (D("9.975"), "CA", "QC", "saas")
        assert made.starts_at is not None

    @pytest.mark.parametrize(
        ("typed", "said"),
        [
            ({"percent": "101"}, "less than or equal to 100"),
            ({"percent": "-1"}, "greater than or equal to 0"),
            ({"percent": "1e1"}, "Write the number out"),
            ({"country": "UK"}, "UK is not a country"),
            ({"region": "Bayern"}, "say the country too"),
            ({"starts_at": "2026-07-01T00:00", "ends_at": "2026-07-01T00:00"}, "must end after it starts"),
            ({"country": "DE"}, "is in force at the same time"),
        ],
    )
    def test_a_mistake_is_named_and_nothing_is_entered(self, root: Client, typed: dict[str, str], said: str) -> None:
        create_tax_rate(name="VAT", percent=D(16), country="DE")
        answer = root.post(reverse("admin:billing_taxrate_add"), self.typed(**typed))
        assert answer.status_code == 200
        assert said in answer.content.decode()
        assert TaxRate.objects.count() == 1

    def test_a_rate_is_replaced_without_a_gap_and_ended(self, root: Client) -> None:
        first = create_tax_rate(name="VAT", percent=D(19), country="DE")
        root.post(reverse("admin:billing_taxrate_replace", args=[first.pk]), {"percent": "16", "at": ""})
        first.refresh_from_db()
        second = TaxRate.objects.exclude(pk=first.pk).get()
        assert first.ends_at is not None
        assert (second.percent, second.starts_at) == (D(16), first.ends_at)
        root.post(reverse("admin:billing_taxrate_end", args=[second.pk]), {"at": "2099-01-01T00:00"})
        second.refresh_from_db()
        assert second.ends_at is not None
        refused = root.post(reverse("admin:billing_taxrate_end", args=[first.pk]), {"at": ""})
        assert "has ended already" in refused.content.decode()

    def test_one_that_has_not_begun_is_removed_and_the_list_is_shown(self, root: Client) -> None:
        made = create_tax_rate(name="VAT", percent=D(19), starts_at=timezone.now() + timedelta(days=30))
        answer = root.post(reverse("admin:billing_taxrate_end", args=[made.pk]), {"at": ""}, follow=True)
        assert "had not begun and is removed" in answer.content.decode()
        assert not TaxRate.objects.exists()

    def test_a_rate_is_never_edited(self, root: Client) -> None:
        made = create_tax_rate(name="VAT", percent=D(19))
        with nothing_changes("POST to a rate's page"):
            assert root.post(reverse("admin:billing_taxrate_change", args=[made.pk]), {"percent": 1}).status_code == 405

    def test_the_lists_tabs_part_the_rates_by_time(self, root: Client) -> None:
        now = timezone.now()
        create_tax_rate(name="now", percent=D(1))
        create_tax_rate(name="soon", percent=D(1), starts_at=now + timedelta(days=1))
        end_tax_rate(rate=create_tax_rate(name="over", percent=D(1)), now=now)
        url = reverse("admin:billing_taxrate_changelist")
        for tab, names in {"": {"now"}, "coming": {"soon"}, "ended": {"over"}, "all": {"now", "soon", "over"}}.items():
            shown = root.get(url, {"status": tab} if tab else {}).context["cl"].result_list
            assert {rate.name for rate in shown} == names, tab


class TestTheBillingProfile:
    def post(self, root: Client, customer: Customer, **typed: Any) -> Any:
        return root.post(reverse("admin:customers_customer_billing_profile", args=[customer.pk]), typed)

    def test_it_is_entered_shown_and_taken_back(self, root: Client) -> None:
        customer = acme()
        assert "by the place of the billing address" in page(root, customer, "details")
        self.post(root, customer, tax_exempt="on", exemption_reason="charity", grace_hours="24", needs_approval="on")
        profile = profile_of(customer)
        assert (profile.tax_exempt, profile.exemption_reason, profile.grace_hours) == (True, "charity", 24)
        shown = page(root, customer, "details")
        assert "exempt: charity" in shown
        assert "wait for approval, 24 h after they are made" in shown
        form = root.get(reverse("admin:customers_customer_billing_profile", args=[customer.pk])).content.decode()
        assert 'value="charity"' in form
        assert 'value="24"' in form
        self.post(root, customer)  # every switch off, every field empty
        assert (profile_of(customer).tax_exempt, profile_of(customer).grace_hours) == (False, None)

    @pytest.mark.parametrize(
        ("typed", "said"),
        [
            ({"tax_exempt": "on"}, "say why the customer is exempt"),
            ({"reverse_charge": "on"}, "needs the customer&#x27;s tax id"),
            (
                {"tax_exempt": "on", "exemption_reason": "x", "reverse_charge": "on", "tax_id": "y"},
                "choose one",
            ),
            ({"grace_hours": "9999"}, "less than or equal to 8784"),
        ],
    )
    def test_a_mistake_is_named_and_nothing_is_kept(self, root: Client, typed: dict[str, str], said: str) -> None:
        customer = acme()
        answer = self.post(root, customer, **typed)
        assert answer.status_code == 200
        assert said in answer.content.decode()
        assert not BillingProfile.objects.exists()

    def test_of_one_customer_alone(self, root: Client) -> None:
        customer, other = acme(), globex()
        set_profile(customer=other, tax_id="THEIRS")
        assert "THEIRS" not in page(root, customer, "details")
