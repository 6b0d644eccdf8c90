"""A draft that several subscriptions share is issued or made anew while a run still adds to it: real connections."""

import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections

from billing import cycles
from billing.credits import lock_holdings
from billing.models import Invoice
from billing.profiles import set_profile
from tests.base import acme, at, call_meter, lines_of, send, subscribed, usage_product

pytestmark = pytest.mark.django_db(transaction=True)
D = Decimal


@pytest.mark.parametrize("what", [cycles.issue_now, cycles.refresh_draft])
def test_a_line_that_joins_meanwhile_stays(what: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's click has looked whose lines there are, and before it has locked the money the run adds others."""
    customer, now = acme(), at("2026-02-01T01:00")
    set_profile(customer=customer, combine_invoices=True, grace_hours=24)
    for name, price in (("calls", "10"), ("jobs", "100")):
        meter = call_meter(name=name, event_name=name)
        subscribed(customer, usage_product((meter, price, 0), name=name), on="2026-01-01")
        send(customer, 3, on="2026-01-10", name=name)
    run = cycles.start_run(trigger="command", until=now, now=now)
    assert cycles.work_run(run=run, clock=lambda: now, limit=1) == 1
    draft = Invoice.objects.get()
    rival: list[threading.Thread] = []

    def close_the_other() -> None:
        try:
            cycles.work_run(run=run, clock=lambda: now)
        finally:
            connections.close_all()

    def after_the_other(**money: Any) -> None:
        if not rival:
            rival.append(threading.Thread(target=close_the_other))
            rival[0].start()
            rival[0].join(30)
        lock_holdings(**money)

    monkeypatch.setattr(cycles, "lock_holdings", after_the_other)
    what(invoice=draft, now=now)
    draft.refresh_from_db()
    assert sorted(lines_of(draft)) == [("usage", "calls", D(3), D(30)), ("usage", "jobs", D(3), D(300))]
    assert (draft.subtotal, draft.total) == (D(330), D(330))
    assert Invoice.objects.count() == 1
    assert draft.status == ("issued" if what is cycles.issue_now else "draft")
