"""Money on the start page and on a customer's: what documents ask for by now, and nothing twice."""

from datetime import timedelta
from decimal import Decimal

import pytest

from billing.balances import move_balance
from billing.credit_notes import credit_invoice, owed
from billing.cycles import start_run, work_run
from billing.invoices import charge_once, hold_invoice, mark_paid, mark_uncollectible, void_invoice
from billing.models import BillingRun, Invoice
from billing.products import PriceTerms, create_product
from billing.profiles import set_profile
from billing.reports import customer_balance, money_now, run_results
from billing.taxes import create_tax_rate
from customers.models import Customer
from tests.base import acme, at, call_meter, globex, send, subscribed, usage_product

pytestmark = pytest.mark.django_db
D = Decimal
NOW = at("2026-03-20T12:00")


def charged(customer: Customer, amount: int, on: str, currency: str = "USD") -> Invoice:
    terms = PriceTerms(type="one_time_price", currency=currency, fixed_amount=D(amount))
    return charge_once(customer=customer, product=create_product(name="Setup", terms=terms), now=at(on))


def run(until: str) -> BillingRun:
    instant = at(until)
    found = start_run(trigger="command", until=instant, now=instant)
    work_run(run=found, clock=lambda: instant)
    return found


def test_what_is_open_is_what_is_still_asked_for() -> None:
    customer = acme(billing_address={"country": "DE"})
    create_tax_rate(name="VAT", percent=D(20), country="DE")
    move_balance(customer=customer, currency="USD", amount=D(300), kind="adjustment", reason="gift", now=NOW)
    late = charged(customer, 1000, "2026-02-20")  # 1000 + 200 tax - 300 of the balance = 900
    new = charged(customer, 500, "2026-03-18")  # 500 + 100
    credit_invoice(invoice=late, amount=D(240), reason="rebate", now=at("2026-03-19"))  # 900 - 240 = 660
    assert (owed(late), owed(new)) == (D(660), D(600))
    figures = money_now(now=NOW, time_zone="UTC")
    assert (figures.unpaid, figures.unpaid_count) == ({"USD": D(1260)}, 2)  # 660 + 600
    assert (figures.overdue, figures.overdue_count) == ({"USD": D(660)}, 1)
    mine = customer_balance(customer=customer, now=NOW)
    assert (mine.open, mine.overdue, mine.paid, mine.uncollectible) == ({"USD": D(1260)}, {"USD": D(660)}, {}, {})
    mark_paid(invoice=late, now=NOW)
    mine = customer_balance(customer=customer, now=NOW)
    assert (mine.open, mine.overdue, mine.paid) == ({"USD": D(600)}, {}, {"USD": D(660)})  # 300 were held already


def test_a_credit_note_takes_off_the_month_it_was_given_in() -> None:
    customer = acme()
    february = charged(customer, 1000, "2026-02-20")
    charged(customer, 500, "2026-03-10")
    credit_invoice(invoice=february, amount=D(300), reason="rebate", now=at("2026-03-19"))
    figures = money_now(now=NOW, time_zone="UTC")
    assert figures.invoiced_last_month == {"USD": D(1000)}
    assert figures.invoiced_this_month == {"USD": D(200)}  # 500 - 300


def test_a_note_that_went_onto_the_balance_takes_nothing_off_what_is_open() -> None:
    customer = acme()
    paid = charged(customer, 1000, "2026-03-01")
    mark_paid(invoice=paid, now=at("2026-03-02"))
    credit_invoice(invoice=paid, amount=D(400), reason="rebate", now=at("2026-03-03"))  # 400 to the balance
    charged(customer, 500, "2026-03-10")  # of it the balance pays 400
    figures = money_now(now=NOW, time_zone="UTC")
    assert figures.unpaid == {"USD": D(100)}
    assert figures.invoiced_this_month == {"USD": D(1100)}  # 1000 - 400 + 500
    assert customer_balance(customer=customer, now=NOW).paid == {"USD": D(1000)}


def test_given_up_invoices_stay_invoiced_and_stand_apart() -> None:
    customer, other = acme(), globex()
    given_up, void = charged(customer, 1000, "2026-03-01"), charged(customer, 70, "2026-03-01", "JPY")
    charged(other, 30, "2026-03-01")
    mark_uncollectible(invoice=given_up, reason="bankrupt", now=at("2026-03-15"))
    void_invoice(invoice=void, reason="twice", now=NOW)
    credit_invoice(invoice=given_up, amount=D(100), reason="rebate", now=at("2026-03-16"))
    figures = money_now(now=NOW, time_zone="UTC")
    assert figures.invoiced_this_month == {"USD": D(930)}  # 1000 - 100 + 30
    assert (figures.unpaid, figures.unpaid_count) == ({"USD": D(30)}, 1)
    assert (figures.uncollectible, figures.uncollectible_count) == ({"USD": D(900)}, 1)
    mine = customer_balance(customer=customer, now=NOW)
    assert (mine.open, mine.uncollectible, mine.paid) == ({}, {"USD": D(900)}, {})


def test_drafts_are_not_invoiced_and_a_run_says_how_many_it_left() -> None:
    customer, other = acme(), globex()
    product = usage_product((call_meter(), "2", 0))
    set_profile(customer=customer, needs_approval=True)
    for who in (customer, other):
        subscribed(who, product, on="2026-02-01")
        send(who, 100, on="2026-02-10")
    made = run("2026-03-01T01:00")
    (result,) = run_results(runs=[made])
    assert (result.due, result.closed) == (2, 2)
    assert (result.invoices, result.totals) == (1, {"USD": D(200)})
    assert (result.drafts, result.draft_totals) == (1, {"USD": D(200)})
    figures = money_now(now=NOW, time_zone="UTC")
    assert figures.invoiced_this_month == {"USD": D(200)}
    assert figures.unpaid == {"USD": D(200)}
    assert (figures.drafts, figures.draft_count, figures.held_count) == ({"USD": D(200)}, 1, 1)


def test_what_a_run_issued_and_somebody_made_void_is_not_its_result() -> None:
    customer = acme()
    subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-02-01")
    send(customer, 100, on="2026-02-10")
    made = run("2026-03-01T01:00")
    void_invoice(invoice=made.invoices.get(), reason="wrong", now=NOW)
    (result,) = run_results(runs=[made])
    assert (result.invoices, result.totals, result.drafts) == (0, {}, 0)


def test_combined_subscriptions_are_one_invoice_of_the_run() -> None:
    customer = acme()
    set_profile(customer=customer, combine_invoices=True)
    product = usage_product((call_meter(), "2", 0))
    for _ in range(2):
        subscribed(customer, product, on="2026-02-01")
    send(customer, 100, on="2026-02-10")
    (result,) = run_results(runs=[run("2026-03-01T01:00")])
    assert (result.due, result.closed, result.invoices, result.drafts) == (2, 2, 1, 0)
    assert result.totals == {"USD": D(400)}  # 100 x 2 cents, twice


def test_a_held_draft_counts_until_it_is_let_go() -> None:
    customer = acme()
    set_profile(customer=customer, grace_hours=48)
    subscribed(customer, usage_product((call_meter(), "2", 0)), on="2026-02-01")
    made = run("2026-03-01T01:00")
    draft = made.invoices.get()
    assert money_now(now=NOW, time_zone="UTC").held_count == 0
    hold_invoice(invoice=draft, reason="look at it", now=NOW - timedelta(days=19))
    figures = money_now(now=NOW, time_zone="UTC")
    assert (figures.draft_count, figures.held_count, figures.drafts) == (1, 1, {})  # nothing was used
