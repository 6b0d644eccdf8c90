"""Drafts: grace, hold, approve, issue early, follow the usage; one invoice for several subscriptions; made anew."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.balances import balance_of
from billing.credits import grant_credit
from billing.cycles import (
    close_subscription,
    issue_due_drafts,
    issue_now,
    preview_subscription,
    refresh_draft,
    regenerate_invoice,
    start_run,
    work_run,
)
from billing.invoices import (
    InvoiceHeld,
    InvoiceNotDraft,
    InvoiceNotPayable,
    InvoiceNotVoidable,
    approve_invoice,
    hold_invoice,
    issue_draft,
    mark_paid,
    mark_uncollectible,
    release_invoice,
    void_invoice,
)
from billing.models import Invoice, InvoiceLine, Subscription
from billing.profiles import set_profile
from billing.taxes import create_tax_rate
from customers.errors import DomainError
from customers.models import Customer
from meters.voids import Selection, void_events
from tests.base import acme, at, call_meter, invoices_of, lines_of, send, subscribed, usage_product

D = Decimal
pytestmark = pytest.mark.django_db


def close(subscription: Subscription, on: str) -> list[Invoice]:
    return close_subscription(subscription_id=subscription.pk, until=at(on), now=at(on))


def sold(customer: Customer, *, fee: int = 0, price: str = "2", free: int = 0, **changes: Any) -> Subscription:
    return subscribed(customer, usage_product((call_meter(**changes), price, free), fee=fee, name="P"), on="2026-01-01")


def issue_all(on: str) -> int:
    return issue_due_drafts(clock=lambda: at(on))


def test_an_invoice_stays_a_draft_for_its_grace_and_follows_the_usage_until_then() -> None:
    customer = acme()
    set_profile(customer=customer, grace_hours=48)
    subscription = sold(customer, fee=100)
    send(customer, 5, on="2026-01-10")
    (draft,) = close(subscription, "2026-02-01T01:00")
    assert (draft.status, draft.number, draft.issue_at) == ("draft", None, at("2026-02-03T01:00"))
    assert lines_of(draft) == [("fee", "P", D(1), D(100)), ("usage", "API calls", D(5), D(10))]
    send(customer, 3, on="2026-01-11", received="2026-02-02")
    assert close(subscription, "2026-02-02T12:00") == []
    assert issue_all("2026-02-03T00:59:59") == 0
    assert issue_all("2026-02-03T01:00") == 1
    draft.refresh_from_db()
    # fee 1.00 + 8 x 0.02
    assert lines_of(draft) == [("fee", "P", D(1), D(100)), ("usage", "API calls", D(8), D(16))]
    assert (draft.status, draft.total, draft.issued_at) == ("issued", D(116), at("2026-02-03T01:00"))
    assert draft.number == "INV-000002"
    assert issue_all("2026-02-04") == 0
    # and nothing of it is an adjustment on the next
    (march,) = close(subscription, "2026-03-05")
    assert [line[0] for line in lines_of(march)] == ["fee", "usage"]


def test_the_grace_of_the_settings_is_the_default(settings: Any) -> None:
    settings.INVOICE_GRACE = timedelta(hours=1)
    subscription = sold(acme())
    (draft,) = close(subscription, "2026-02-01T01:00")
    assert (draft.status, draft.issue_at) == ("draft", at("2026-02-01T02:00"))


def test_a_draft_can_be_issued_before_its_time_with_the_usage_of_that_moment() -> None:
    customer = acme()
    set_profile(customer=customer, grace_hours=48)
    subscription = sold(customer)
    (draft,) = close(subscription, "2026-02-01T01:00")
    send(customer, 3, on="2026-01-11", received="2026-02-01T02:00")
    issue_now(invoice=draft, now=at("2026-02-01T03:00"))
    assert (draft.status, draft.total, draft.issued_at) == ("issued", D(6), at("2026-02-01T03:00"))
    with pytest.raises(InvoiceNotDraft):
        issue_now(invoice=draft, now=at("2026-02-01T04:00"))


def test_a_held_draft_waits_until_it_is_released() -> None:
    customer = acme()
    set_profile(customer=customer, grace_hours=1)
    subscription = sold(customer)
    send(customer, 1, on="2026-01-02")
    (draft,) = close(subscription, "2026-02-01T01:00")
    with pytest.raises(DomainError, match="Say why"):
        hold_invoice(invoice=draft, reason=" ", now=at("2026-02-01T01:10"))
    hold_invoice(invoice=draft, reason="Looks high", now=at("2026-02-01T01:10"))
    assert (draft.held_at, draft.hold_reason) == (at("2026-02-01T01:10"), "Looks high")
    assert issue_all("2026-02-10") == 0
    with pytest.raises(InvoiceHeld, match="Looks high"):
        issue_now(invoice=draft, now=at("2026-02-10"))
    release_invoice(invoice=draft, now=at("2026-02-11"))
    assert issue_all("2026-02-11") == 1
    draft.refresh_from_db()
    assert (draft.status, draft.total) == ("issued", D(2))


def test_where_invoices_need_approval_none_is_issued_without_it() -> None:
    customer = acme()
    set_profile(customer=customer, needs_approval=True)
    subscription = sold(customer)
    send(customer, 1, on="2026-01-02")
    (draft,) = close(subscription, "2026-02-01T01:00")
    assert (draft.status, draft.hold_reason) == ("draft", "Waits for approval.")
    assert issue_all("2026-02-10") == 0
    approve_invoice(invoice=draft, by="Ada", now=at("2026-02-11"))
    assert (draft.approved_by, draft.approved_at, draft.held_at) == ("Ada", at("2026-02-11"), None)
    assert issue_all("2026-02-11") == 1
    draft.refresh_from_db()
    assert draft.status == "issued"
    with pytest.raises(InvoiceNotDraft, match="no draft any more"):
        approve_invoice(invoice=draft, by="Ada", now=at("2026-02-12"))


def test_a_draft_can_be_made_anew_at_any_time() -> None:
    customer = acme()
    set_profile(customer=customer, grace_hours=48)
    subscription = sold(customer)
    send(customer, 2, on="2026-01-02")
    (draft,) = close(subscription, "2026-02-01T01:00")
    assert draft.total == D(4)
    send(customer, 2, on="2026-01-03", received="2026-02-01T05:00")
    refresh_draft(invoice=draft, now=at("2026-02-01T06:00"))
    refresh_draft(invoice=draft, now=at("2026-02-01T06:00"))
    assert (draft.status, draft.total, lines_of(draft)) == ("draft", D(8), [("usage", "API calls", D(4), D(8))])


def test_a_draft_that_cannot_be_issued_is_held_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    customer = acme()
    set_profile(customer=customer, grace_hours=1)
    first, second = sold(customer), sold(customer, name="Other", event_name="other")
    close(first, "2026-02-01T01:00")
    close(second, "2026-02-01T01:00")
    broken = Invoice.objects.get(subscription=first)
    InvoiceLine.objects.filter(invoice=broken).delete()
    from billing import cycles

    settled = cycles.settle_draft

    def fails(*, invoice: Invoice, now: Any) -> Any:
        if invoice.pk == broken.pk:
            raise DomainError("The tax office is closed.")
        return settled(invoice=invoice, now=now)

    monkeypatch.setattr(cycles, "settle_draft", fails)
    assert issue_all("2026-02-02") == 1
    broken.refresh_from_db()
    assert (broken.status, broken.hold_reason) == ("draft", "The tax office is closed.")
    assert Invoice.objects.get(subscription=second).status == "paid"


def test_several_subscriptions_of_a_customer_share_one_invoice() -> None:
    customer = acme()
    set_profile(customer=customer, combine_invoices=True)
    first = sold(customer)
    second = subscribed(
        customer, usage_product((call_meter(name="Other", event_name="other"), "5", 0), name="Q"), on="2026-01-01"
    )
    send(customer, 3, on="2026-01-10")
    send(customer, 4, on="2026-01-10", name="other")
    run = start_run(trigger="command", until=at("2026-02-01T01:00"), now=at("2026-02-01T01:00"))
    assert work_run(run=run, clock=lambda: at("2026-02-01T01:00")) == 2
    (invoice,) = Invoice.objects.all()
    # 3 x 0.02 + 4 x 0.05
    assert lines_of(invoice) == [("usage", "API calls", D(3), D(6)), ("usage", "Other", D(4), D(20))]
    assert [line.subscription for line in invoice.lines.order_by("position")] == [first, second]
    assert (invoice.status, invoice.subscription, invoice.total, invoice.number) == (
        "issued",
        None,
        D(26),
        "INV-000001",
    )
    assert (invoice.payment.amount, invoice.payment.subscription) == (D(26), None)
    again = start_run(trigger="command", until=at("2026-02-01T01:00"), now=at("2026-02-01T02:00"))
    assert work_run(run=again, clock=lambda: at("2026-02-01T02:00")) == 0
    assert Invoice.objects.count() == 1


def test_a_shared_invoice_goes_where_its_subscriptions_are_billed_and_is_taxed_there() -> None:
    customer = acme()  # has no address of their own, as customers that applications make
    set_profile(customer=customer, combine_invoices=True)
    create_tax_rate(name="VAT", percent=D(19), country="DE", starts_at=at("2026-01-01"))
    for place, (name, country) in enumerate([("one", "DE"), ("two", "DE"), ("three", "FR")]):
        product = usage_product((call_meter(name=name, event_name=name), "100", 0), name=name)
        subscribed(customer, product, on="2026-01-01", billing_address={"country": country})
        send(customer, place + 1, on="2026-01-10", name=name)
    run = start_run(trigger="command", until=at("2026-02-01T01:00"), now=at("2026-02-01T01:00"))
    assert work_run(run=run, clock=lambda: at("2026-02-01T01:00")) == 3
    german, french = Invoice.objects.order_by("pk")
    # 100 + 200, and 19 % of each; no rate for France. One invoice has one address.
    assert (german.customer_address, french.customer_address) == ({"country": "DE"}, {"country": "FR"})
    assert (german.lines.count(), german.tax, german.total) == (2, D(57), D(357))
    assert (french.lines.count(), french.tax, french.total) == (1, D(0), D(300))
    again = regenerate_invoice(invoice=german, reason="wrong", now=at("2026-02-03"))
    assert (again.customer_address, again.tax, again.total) == ({"country": "DE"}, D(57), D(357))


def test_what_is_combined_waits_for_the_run_and_a_killed_run_is_finished_by_the_next_tick() -> None:
    customer = acme()
    set_profile(customer=customer, combine_invoices=True)
    sold(customer)
    sold(customer, name="Other", event_name="other")
    run = start_run(trigger="command", until=at("2026-02-01T01:00"), now=at("2026-02-01T01:00"))
    assert work_run(run=run, clock=lambda: at("2026-02-01T01:00"), limit=1) == 1
    assert issue_all("2026-02-01T01:10") == 0
    assert Invoice.objects.get().lines.count() == 1
    assert work_run(run=run, clock=lambda: at("2026-02-01T02:00")) == 1
    invoice = Invoice.objects.get()
    assert (invoice.status, invoice.lines.count()) == ("paid", 2)


# -- void, and made anew ------------------------------------------------------------------------------------


def test_a_void_invoice_is_made_anew_by_the_usage_of_today() -> None:
    customer = acme()
    subscription = sold(customer, fee=100)
    send(customer, 5, on="2026-01-10")
    (wrong,) = close(subscription, "2026-02-01T01:00")
    assert wrong.total == D(110)
    void_events(
        where=Selection(start=at("2026-01-01"), end=at("2026-01-31"), customer=customer),
        reason="a test",
        author="Ada",
        now=at("2026-02-02"),
    )
    send(customer, 2, on="2026-01-11", received="2026-02-02T01:00")
    anew = regenerate_invoice(invoice=wrong, reason="Test events", now=at("2026-02-03"))
    assert (wrong.status, wrong.void_reason) == ("void", "Test events")
    assert set(wrong.lines.values_list("live", "counts")) == {(False, False)}
    assert (anew.replaces, anew.status, anew.number) == (wrong, "issued", "INV-000003")
    # the fee of February again, and 2 x 0.02
    assert lines_of(anew) == [("fee", "P", D(1), D(100)), ("usage", "API calls", D(2), D(4))]
    assert (anew.period_start, anew.period_end, anew.reason) == (wrong.period_start, wrong.period_end, "cycle")
    # twice is once: nothing is left to adjust or to bill
    assert close(subscription, "2026-02-10") == []
    (march,) = close(subscription, "2026-03-01T01:00")
    assert lines_of(march) == [("fee", "P", D(1), D(100)), ("usage", "API calls", D(0), D(0))]
    with pytest.raises(InvoiceNotVoidable):
        regenerate_invoice(invoice=wrong, reason="again", now=at("2026-03-02"))


def test_the_first_fee_can_be_made_anew_too() -> None:
    subscription = sold(acme(), fee=100)
    (start,) = invoices_of(subscription)
    anew = regenerate_invoice(invoice=start, reason="wrong address", now=at("2026-01-02"))
    assert (anew.reason, lines_of(anew)) == ("start", [("fee", "P", D(1), D(100))])
    assert [invoice.status for invoice in invoices_of(subscription)] == ["void", "issued"]


def test_an_adjustment_on_a_void_invoice_is_made_anew_with_it() -> None:
    customer = acme()
    subscription = sold(customer)
    send(customer, 5, on="2026-01-10")
    close(subscription, "2026-02-01T01:00")
    send(customer, 1, on="2026-01-11", received="2026-02-05")
    (february,) = close(subscription, "2026-03-01T01:00")
    assert lines_of(february) == [
        ("usage", "API calls", D(0), D(0)),
        ("adjustment", "API calls, adjustment", D(1), D(2)),
    ]
    send(customer, 1, on="2026-01-12", received="2026-03-02")
    anew = regenerate_invoice(invoice=february, reason="one more came", now=at("2026-03-03"))
    assert sorted(lines_of(anew)) == [
        ("adjustment", "API calls, adjustment", D(2), D(4)),
        ("usage", "API calls", D(0), D(0)),
    ]
    (march,) = close(subscription, "2026-04-01T01:00")
    assert lines_of(march) == [("usage", "API calls", D(0), D(0))]


def test_giving_up_keeps_it_billed_and_it_can_still_be_paid() -> None:
    customer = acme()
    subscription = sold(customer)
    send(customer, 5, on="2026-01-10")
    (invoice,) = close(subscription, "2026-02-01T01:00")
    with pytest.raises(DomainError, match="Say why"):
        mark_uncollectible(invoice=invoice, reason="", now=at("2026-05-01"))
    mark_uncollectible(invoice=invoice, reason="insolvent", now=at("2026-05-01"))
    assert (invoice.status, invoice.uncollectible_reason) == ("uncollectible", "insolvent")
    invoice.payment.refresh_from_db()
    assert invoice.payment.status == "failed"
    with pytest.raises(InvoiceNotPayable):
        mark_uncollectible(invoice=invoice, reason="again", now=at("2026-05-02"))
    mark_paid(invoice=invoice, now=at("2026-06-01"))
    assert (invoice.status, invoice.paid_at) == ("paid", at("2026-06-01"))
    invoice.payment.refresh_from_db()
    assert invoice.payment.status == "succeeded"


# -- credit, tax, balance -----------------------------------------------------------------------------------


def test_credit_comes_before_tax_and_the_balance_pays_last() -> None:
    customer = acme(billing_address={"country": "DE"})
    create_tax_rate(name="VAT", percent=D(19), country="DE")
    grant_credit(customer=customer, name="Welcome", amount=D(300), currency="USD", now=at("2026-01-01"))
    subscription = sold(customer, price="100")
    send(customer, 10, on="2026-01-10")
    (first,) = close(subscription, "2026-02-01T01:00")
    # 10.00 - 3.00 credit = 7.00, and 19 % of it: 1.33
    assert (first.subtotal, first.credit, first.tax, first.total, first.due) == (
        D(1000),
        D(300),
        D(133),
        D(833),
        D(833),
    )
    line = first.lines.get()
    assert (line.amount, line.credit, line.tax, line.total) == (D(1000), D(300), D(133), D(833))
    assert [(tax["name"], tax["percent"], tax["amount"]) for tax in line.taxes] == [("VAT", "19", "133")]
    assert "DE" in line.tax_reason
    # all of it void: the credit is there again, and the next invoice draws it
    void_invoice(invoice=first, reason="wrong", now=at("2026-02-02"))
    send(customer, 1, on="2026-02-10")
    (second,) = close(subscription, "2026-03-01T01:00")
    assert (second.subtotal, second.credit, second.tax, second.due, second.status) == (
        D(100),
        D(100),
        D(0),
        D(0),
        "paid",
    )


def test_an_invoice_below_zero_goes_onto_the_balance_and_the_next_is_paid_from_it() -> None:
    customer = acme()
    subscription = sold(customer)
    send(customer, 50, on="2026-01-10")
    close(subscription, "2026-02-01T01:00")
    void_events(
        where=Selection(start=at("2026-01-01"), end=at("2026-01-31"), customer=customer),
        reason="a test",
        author="Ada",
        now=at("2026-02-02"),
    )
    send(customer, 10, on="2026-02-10")
    (february,) = close(subscription, "2026-03-01T01:00")
    # 10 x 0.02 of February - 50 x 0.02 of January
    assert lines_of(february) == [
        ("usage", "API calls", D(10), D(20)),
        ("adjustment", "API calls, adjustment", D(-50), D(-100)),
    ]
    assert (february.total, february.balance, february.due, february.status) == (D(-80), D(-80), D(0), "paid")
    assert balance_of(customer=customer, currency="USD") == D(80)
    send(customer, 60, on="2026-03-10")
    (march,) = close(subscription, "2026-04-01T01:00")
    assert (march.total, march.balance, march.due) == (D(120), D(80), D(40))
    assert march.payment.amount == D(40)
    assert balance_of(customer=customer, currency="USD") == D(0)
    void_invoice(invoice=march, reason="wrong", now=at("2026-04-02"))
    assert balance_of(customer=customer, currency="USD") == D(80)


def test_a_preview_shows_what_is_issued_and_draws_nothing() -> None:
    customer = acme()
    grant_credit(customer=customer, name="Welcome", amount=D(3), currency="USD", now=at("2026-01-01"))
    subscription = sold(customer)
    send(customer, 5, on="2026-01-10")
    now = at("2026-02-01T01:00")
    (shown,) = preview_subscription(subscription_id=subscription.pk, until=now, now=now)
    assert (shown.total, Invoice.objects.count()) == (D(10), 0)
    (invoice,) = close(subscription, "2026-02-01T01:00")
    assert (invoice.credit, invoice.due) == (D(3), D(7))


def test_issuing_twice_is_refused() -> None:
    customer = acme()
    set_profile(customer=customer, grace_hours=1)
    subscription = sold(customer)
    (draft,) = close(subscription, "2026-02-01T01:00")
    issue_draft(invoice=draft, now=at("2026-02-01T02:00"))
    with pytest.raises(InvoiceNotDraft):
        issue_draft(invoice=draft, now=at("2026-02-01T03:00"))
