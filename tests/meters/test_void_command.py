"""`manage.py void_events`: the effect first, then the act, and one sentence for what cannot be."""

import json
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from customers.models import Customer
from meters.models import EventVoid
from tests.base import acme, send, subscribed, token_meter, usage_product

pytestmark = pytest.mark.django_db
SPAN = ("--start", "2026-01-01", "--end", "2026-02-01T00:00:00Z")
BAD = json.dumps({"conjunction": "and", "clauses": [{"key": "bad", "operator": "equals", "value": True}]})


def command(*args: str) -> list[str]:
    said = StringIO()
    call_command("void_events", *args, stdout=said)
    return said.getvalue().splitlines()


def story() -> Customer:
    customer = acme(customer_id="cus_a")
    subscribed(customer, usage_product((token_meter(), "2", 100)), on="2026-01-01")
    send(customer, on="2026-01-10", name="token.usage", metadata={"tokens": 150})
    send(customer, on="2026-01-20", name="token.usage", metadata={"tokens": 1250, "bad": True})
    send(customer, on="2026-02-01", name="token.usage", metadata={"tokens": 7, "bad": True})
    return customer


def test_a_dry_run_shows_units_and_money_and_the_act_does_what_it_said() -> None:
    story()
    chosen = (*SPAN, "--customer", "cus_a", "--event-name", "token.usage", "--filter", BAD)
    assert command(*chosen, "--dry-run") == [
        "Acme, Tokens: 1,400 to 150 tokens",
        "Acme, Tokens, 2026-01-01 to 2026-02-01: -$25.00",
        "Dry run: 1 event of 1 customer would be voided, a change of -$25.00. Nothing was changed.",
    ]
    assert not EventVoid.objects.exists()
    assert command(*chosen, "--reason", "broken release") == [
        "Acme, Tokens: 1,400 to 150 tokens",
        "1 event of 1 customer voided.",
    ]
    void = EventVoid.objects.get()
    assert (void.reason, void.timestamp, void.operator) == ("broken release", datetime(2026, 1, 20, tzinfo=UTC), None)
    assert void.author.endswith("command)")
    assert command(*chosen, "--dry-run") == [
        "Dry run: 0 events of 0 customers would be voided, a change of no money. Nothing was changed."
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((*SPAN, "--event-name", "token.usage"), "reason"),
        ((*SPAN, "--reason", "r"), "Name an event name"),
        ((*SPAN, "--reason", "r", "--customer", "cus_nobody"), "not found"),
        ((*SPAN, "--reason", "r", "--meter", "mtr_nobody"), "not found"),
        ((*SPAN, "--reason", "r", "--filter", "{"), "not JSON"),
        ((*SPAN, "--reason", "r", "--filter", "[]"), "filter"),
        (("--start", "soon", "--end", "2026-02-01", "--customer", "cus_a"), "--start 'soon'"),
        (("--start", "2026-02-30", "--end", "2026-02-01", "--customer", "cus_a"), "--start '2026-02-30'"),
        (("--start", "2026-02-01", "--end", "2026-01-01", "--customer", "cus_a", "--dry-run"), "end"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(args: tuple[str, ...], said: str) -> None:
    story()
    with pytest.raises(CommandError, match=said):
        command(*args)
    assert not EventVoid.objects.exists()
