from decimal import Decimal
from typing import Any

import pytest

from meters.filters import Clause, FilterError, FilterGroup, Operator, parse_filter, read_number, read_text


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, "0"),
        (-3, "-3"),
        (10**40, str(10**40)),
        (Decimal("0.10"), "0.10"),
        (0.1, "0.1"),
        ("1700", "1700"),
        ("-1.5", "-1.5"),
        ("+5", "5"),
        ("5.", "5"),
        (".5", "0.5"),
        ("007", "7"),
        ("1e5", "1e5"),
        ("1E-12", "1e-12"),
        ("-0", "-0"),
        (True, None),
        (False, None),
        (None, None),
        ("", None),
        (" 5", None),
        ("5 ", None),
        ("5\n", None),
        ("1,5", None),
        ("1_000", None),
        ("0x10", None),
        ("NaN", None),
        ("Infinity", None),
        ("-inf", None),
        ("1e400", None),
        ("1e", None),
        (".", None),
        ("٣", None),
        ("５", None),
        (float("nan"), None),
        (Decimal("Infinity"), None),
        ([], None),
    ],
)
def test_it_reads_numbers_and_nothing_else_as_a_number(value: Any, number: str | None) -> None:
    read = read_number(value)
    assert read == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("abc", "abc"),
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (Decimal("1E+5"), "100000"),
        (Decimal("1.50"), "1.50"),
        (Decimal("-0.0"), "0.0"),
        (Decimal("1E-7"), "0.0000001"),
    ],
)
def test_it_writes_a_value_as_plain_text(value: Any, text: str) -> None:
    assert read_text(value) == text


MISSING: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("metadata", "operator", "wanted", "matches"),
    [
        # As numbers, when both sides read as numbers.
        ({"k": 5}, "equals", 5, True),
        ({"k": "5"}, "equals", 5, True),
        ({"k": 5}, "equals", "5", True),
        ({"k": "5.0"}, "equals", "5", True),
        ({"k": "1e2"}, "equals", 100, True),
        ({"k": -0.0}, "equals", 0, True),
        ({"k": " 5"}, "equals", 5, False),
        ({"k": "5"}, "not_equals", 5, False),
        ({"k": "6"}, "not_equals", 5, True),
        # As booleans, when both read as booleans; true is not 1.
        ({"k": True}, "equals", True, True),
        ({"k": "true"}, "equals", True, True),
        ({"k": True}, "equals", "true", True),
        ({"k": "True"}, "equals", True, False),
        ({"k": True}, "equals", 1, False),
        ({"k": 1}, "equals", True, False),
        ({"k": True}, "not_equals", 1, True),
        ({"k": False}, "not_equals", True, True),
        # Else as text, case-sensitively.
        ({"k": "premium"}, "equals", "premium", True),
        ({"k": "Premium"}, "equals", "premium", False),
        ({"k": ""}, "equals", "", True),
        ({"k": "ü"}, "equals", "u\u0308", False),
        ({"k": "٣"}, "equals", 3, False),
        ({"k": "٣"}, "not_equals", 3, True),
        # Greater and less compare numbers only.
        ({"k": 6}, "greater_than", 5, True),
        ({"k": 5}, "greater_than", 5, False),
        ({"k": "10"}, "greater_than", "9", True),
        ({"k": 5}, "greater_than_or_equals", 5, True),
        ({"k": 4}, "greater_than_or_equals", 5, False),
        ({"k": 4}, "less_than", 5, True),
        ({"k": 5}, "less_than", 5, False),
        ({"k": 5}, "less_than_or_equals", 5, True),
        ({"k": 6}, "less_than_or_equals", 5, False),
        ({"k": "b"}, "greater_than", "a", False),
        ({"k": True}, "greater_than", 0, False),
        ({"k": "x"}, "less_than", 5, False),
        # Contains compares text.
        ({"k": "/v1/users"}, "contains", "users", True),
        ({"k": "/v1/users"}, "contains", "Users", False),
        ({"k": 404}, "contains", 40, True),
        ({"k": "abc"}, "contains", "", True),
        ({"k": "abc"}, "does_not_contain", "d", True),
        ({"k": "abc"}, "does_not_contain", "b", False),
        # A missing key never matches.
        *[(MISSING, operator, 5, False) for operator in Operator],
        *[({"K": 5}, operator, 5, False) for operator in Operator],
        *[(None, operator, 5, False) for operator in Operator],
    ],
)
def test_a_condition_matches(metadata: dict[str, Any] | None, operator: str, wanted: Any, matches: bool) -> None:
    tree = parse_filter({"conjunction": "and", "clauses": [{"key": "k", "operator": operator, "value": wanted}]})
    assert tree.matches(metadata) is matches
    assert (tree.explain(metadata) == "") is matches


def condition(key: str, value: Any, operator: str = "equals") -> dict[str, Any]:
    return {"key": key, "operator": operator, "value": value}


def both(*clauses: Any) -> dict[str, Any]:
    return {"conjunction": "and", "clauses": list(clauses)}


def either(*clauses: Any) -> dict[str, Any]:
    return {"conjunction": "or", "clauses": list(clauses)}


@pytest.mark.parametrize(
    ("raw", "metadata", "matches"),
    [
        (both(condition("tier", "premium"), condition("status", "success")), {"tier": "premium"}, False),
        (
            both(condition("tier", "premium"), condition("status", "success")),
            {"tier": "premium", "status": "success"},
            True,
        ),
        (either(condition("a", 1), condition("b", 2)), {"b": 2}, True),
        (either(condition("a", 1), condition("b", 2)), {}, False),
        # A list may mix conditions and nested filters, three levels deep.
        (both(condition("a", 1), either(condition("b", 2), both(condition("c", 3)))), {"a": 1, "c": 3}, True),
        (both(condition("a", 1), either(condition("b", 2), both(condition("c", 3)))), {"c": 3}, False),
    ],
)
def test_groups_combine_conditions(raw: dict[str, Any], metadata: dict[str, Any], matches: bool) -> None:
    assert parse_filter(raw).matches(metadata) is matches


def test_it_explains_in_words_why_an_event_is_left_out() -> None:
    tree = parse_filter(both(condition("tier", "premium"), condition("ms", 10, "less_than"), condition("x", 1)))
    assert tree.explain({"tier": "free", "ms": "slow"}) == (
        "tier is “free” and is not “premium”, and ms is “slow”, which is not a number, and x is missing"
    )
    assert tree.explain({"tier": "premium", "ms": 3, "x": "1"}) == ""


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (None, "filter:"),
        ([], "filter:"),
        ("x", "filter:"),
        ({}, "filter.conjunction:"),
        ({"conjunction": "AND", "clauses": [condition("a", 1)]}, "filter.conjunction:"),
        ({"conjunction": ["and"], "clauses": [condition("a", 1)]}, "filter.conjunction:"),
        ({"conjunction": "and"}, "filter.clauses:"),
        ({"conjunction": "and", "clauses": []}, "filter.clauses:"),
        ({"conjunction": "and", "clauses": {}}, "filter.clauses:"),
        (both(*[condition("a", 1)] * 11), "filter.clauses:"),
        (both(both(both(both(condition("a", 1))))), "filter.clauses[0].clauses[0].clauses[0]:"),
        ({**both(condition("a", 1)), "extra": 1}, "filter:"),
        (both(condition("a", 1), 5), "filter.clauses[1]:"),
        (both(condition("", 1)), "filter.clauses[0].key:"),
        (both(condition("k" * 101, 1)), "filter.clauses[0].key:"),
        (both({"operator": "equals", "value": 1}), "filter.clauses[0].key:"),
        (both({**condition("a", 1), "key": 5}), "filter.clauses[0].key:"),
        (both(condition("a", 1, "is")), "filter.clauses[0].operator:"),
        (both(condition("a", 1, "EQUALS")), "filter.clauses[0].operator:"),
        (both({**condition("a", 1), "operator": None}), "filter.clauses[0].operator:"),
        (both({**condition("a", 1), "operator": ["equals"]}), "filter.clauses[0].operator:"),
        (both(condition("a", None)), "filter.clauses[0].value:"),
        (both({"key": "a", "operator": "equals"}), "filter.clauses[0].value:"),
        (both(condition("a", [1])), "filter.clauses[0].value:"),
        (both(condition("a", "x" * 501)), "filter.clauses[0].value:"),
        (both(condition("a", "x\0")), "filter.clauses[0].value:"),
        (both(condition("a", Decimal("1e400"))), "filter.clauses[0].value:"),
        (both(condition("a", float("nan"))), "filter.clauses[0].value:"),
        (both(condition("a", Decimal("0.12345678901234567890"))), "filter.clauses[0].value:"),
        (both(condition("a\ud800", 1)), "filter.clauses[0].key:"),
        (both(condition("ok", 1), either(condition("b", {}))), "filter.clauses[1].clauses[0].value:"),
    ],
)
def test_it_refuses_a_wrong_filter_and_names_the_place(raw: Any, place: str) -> None:
    with pytest.raises(FilterError) as refused:
        parse_filter(raw)
    assert str(refused.value).startswith(place)


def test_the_limits_themselves_are_allowed() -> None:
    raw = both(both(both(*[condition("k" * 100, "x" * 500)] * 10)))
    assert len(parse_filter(raw).conditions()) == 10


def test_a_filter_is_written_back_as_it_was_read() -> None:
    raw = either(condition("a", 1), both(condition("b", 0.25, "less_than"), condition("c", True)), condition("d", "5"))
    tree = parse_filter(raw)
    assert tree.as_json() == raw
    assert parse_filter(tree.as_json()) == tree
    assert tree == FilterGroup(
        "or",
        (
            Clause("a", Operator.EQUALS, Decimal(1)),
            FilterGroup(
                "and",
                (Clause("b", Operator.LESS_THAN, Decimal("0.25")), Clause("c", Operator.EQUALS, True)),
            ),
            Clause("d", Operator.EQUALS, "5"),
        ),
    )
