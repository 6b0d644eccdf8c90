"""The filters and aggregations mean the same in Python and in SQL, over the oddest values that may be stored."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meters.aggregation import aggregate, count_unique
from meters.filters import FilterGroup, Operator, is_present, parse_filter, read_identity, read_number
from meters.ingestion import EventInput, store_events
from meters.meters import create_meter
from meters.models import Aggregation
from meters.rollups import newest_event_id, roll_meter
from meters.sql import compose, matches, number, present, value
from meters.usage import quantities, quantity
from tests.base import acme, at, globex
from tests.meters.conftest import encode

pytestmark = pytest.mark.django_db

ODD: list[Any] = [
    *["", " ", " 5", "5 ", "5", "05", "5.", ".5", "5.0", "+5", "-5", "--5", "1e5", "1E+5", "1e-5", "1e400", "1e"],
    *["NaN", "Infinity", "-Infinity", "inf", "0x10", "1_000", "1,5", "٣", "５", "½", "5\n", "\n5", "5\t"],
    *["true", "false", "True", "TRUE", "t", "null", "ü", "u\u0308", "☃", "😀", "\u200b5", "\ufeff", "\x01", "\x7f"],
    *["a'b", 'a"b', "a\\b", "\\u0000", "%s", "%", "%%", "{}", "$1", "' OR 1=1--", "*", "_"],
    *[True, False, 0, 1, -1, 5, 100000, 10**30, -(10**300), 2**53 + 1, 9007199254740993],
    *[Decimal("-0.0"), Decimal("0.1"), Decimal("5.0"), Decimal("1E+5"), Decimal("1e-300"), Decimal("5.00000000001")],
    *[Decimal("0E-7"), Decimal("1e307"), 0.1, 1e22, 5e-324, 1.5],
]
KEYS = ["k", "K", "ü", "%s", "a'b", "a b", "", "5"]

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9)
values = st.one_of(
    st.sampled_from(ODD), texts, st.integers(), decimals, st.integers(-9, 9), st.integers(-9, 9).map(str), st.booleans()
)
metadatas = st.one_of(st.none(), st.dictionaries(st.sampled_from(KEYS), values, max_size=4))
# What a filter may compare with: anything but a number that JSON's floats would not keep.
wanted = values.filter(lambda raw: not isinstance(raw, Decimal) or Decimal(repr(float(raw))) == raw).filter(
    lambda raw: not isinstance(raw, float) or raw > 1e-300
)
conditions = st.fixed_dictionaries(
    {"key": st.sampled_from([key for key in KEYS if key]), "operator": st.sampled_from(list(Operator)), "value": wanted}
)


def groups(clauses: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"conjunction": st.sampled_from(["and", "or"]), "clauses": st.lists(clauses, min_size=1, max_size=3)}
    )


filters = groups(st.one_of(conditions, groups(st.one_of(conditions, groups(conditions))))).map(parse_filter)


def tries(count: int) -> settings:
    # The test's transaction is shared by all examples on purpose: they only ask, or roll back to a savepoint.
    allowed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=count, deadline=None, database=None, suppress_health_check=allowed)


def by_database(tree: FilterGroup, key: str, rows: list[dict[str, Any] | None]) -> list[tuple[bool, bool, Any]]:
    """What PostgreSQL makes of each metadata: does it match, is the key there, which number is it."""
    sql = compose(
        "SELECT {}, {}, {} FROM (SELECT nullif(metadata, 'null') AS metadata, place"
        " FROM jsonb_array_elements({}::jsonb) WITH ORDINALITY AS row (metadata, place)) AS meters_event"
        " ORDER BY place",
        matches(tree),
        present(key),
        number(key),
        value(encode(rows).decode()),
    )
    with connection.cursor() as cursor:
        cursor.execute(sql.text, sql.params)
        return cursor.fetchall()


def by_reference(tree: FilterGroup, key: str, rows: list[dict[str, Any] | None]) -> list[tuple[bool, bool, Any]]:
    return [
        (tree.matches(row), is_present(row, key), read_number((row or {}).get(key)))  # the same three, in Python
        for row in rows
    ]


@tries(250)
@given(filters, st.sampled_from(KEYS), st.lists(metadatas, min_size=1, max_size=6))
def test_sql_and_python_agree_on_any_filter_and_any_metadata(
    tree: FilterGroup, key: str, rows: list[dict[str, Any] | None]
) -> None:
    assert by_database(tree, key, rows) == by_reference(tree, key, rows)


@pytest.mark.parametrize("operator", Operator)
def test_sql_and_python_agree_on_every_pair_of_odd_values(operator: Operator) -> None:
    rows = [{"k": raw} for raw in ODD] + [{}, {"other": 5}, None]
    for raw in ODD:
        try:
            tree = parse_filter({"conjunction": "and", "clauses": [{"key": "k", "operator": operator, "value": raw}]})
        except ValueError:
            continue  # refused as a filter, so it never reaches the database
        assert by_database(tree, "k", rows) == by_reference(tree, "k", rows), raw


START, END = at("2026-01-01"), at("2026-02-01")


def by_python(kind: str, oldest_first: list[dict[str, Any] | None]) -> Decimal:
    if kind == Aggregation.UNIQUE:
        return count_unique(read_identity((m or {})["k"]) if is_present(m, "k") else None for m in oldest_first)
    return aggregate(kind, [read_number((metadata or {}).get("k")) for metadata in oldest_first])


@tries(60)
@example([(0, {"k": 1}), (0, {"k": 2}), (0, {"k": "x"})])
@given(st.lists(st.tuples(st.integers(0, 2), metadatas), max_size=8))
def test_sql_and_python_agree_on_every_aggregation(sent: list[tuple[int, dict[str, Any] | None]]) -> None:
    # Few instants, so that many events share one: then the event that was sent later is the later one.
    sent = [
        (minute, {key: raw for key, raw in metadata.items() if key} if metadata else metadata)
        for minute, metadata in sent
    ]
    point = transaction.savepoint()
    customer, other = acme(), globex()
    events = [
        EventInput(f"evt_{index}", customer.public_id, "n", START + timedelta(minutes=minute), metadata)
        for index, (minute, metadata) in enumerate(sent)
    ]
    noise = [
        EventInput("before", customer.public_id, "n", START - timedelta(microseconds=1), {"k": 10**6}),
        EventInput("after", customer.public_id, "n", END, {"k": 10**6}),
        EventInput("named otherwise", customer.public_id, "N", START, {"k": 10**6}),
        EventInput("another's", other.public_id, "n", START, {"k": 10**6}),
    ]
    store_events(events=[*events, *noise], now=END, backfill=True)
    meters = [
        create_meter(name=kind, event_name="n", aggregation=kind, property_key="k", measurement_unit="u", filter=None)
        for kind in Aggregation.values
        if kind != Aggregation.WEIGHTED_SUM  # needs the instants as well: tests/meters/test_rollups.py
    ]
    oldest_first = [metadata for _, metadata in sorted(sent, key=lambda pair: pair[0])]
    expected = {meter.pk: by_python(meter.aggregation, oldest_first) for meter in meters}
    assert quantities(meters=meters, customer=customer, start=START, end=END) == expected
    for meter in meters:
        while roll_meter(meter_id=meter.pk, settled=newest_event_id()):
            pass
        assert quantity(meter=meter, customer=customer, start=START, end=END) == expected[meter.pk]
    transaction.savepoint_rollback(point)
