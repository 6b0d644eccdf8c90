from decimal import Decimal

import pytest

from meters.aggregation import aggregate

D = Decimal
BIG, SMALL = D(10) ** 307, D(10) ** -340


@pytest.mark.parametrize(
    ("kind", "values", "quantity"),
    [
        ("count", [], D(0)),
        ("count", [None, D(5), None], D(3)),
        ("sum", [], D(0)),
        ("sum", [None], D(0)),
        ("sum", [D(1073741824), None, D(536870912)], D(1610612736)),
        ("sum", [D("0.1"), D("0.2")], D("0.3")),
        ("sum", [D(-5), D(2)], D(-3)),
        ("sum", [BIG, SMALL, -BIG], SMALL),
        ("max", [], D(0)),
        ("max", [D(15), D(23), D(18)], D(23)),
        ("max", [D(-7), D(-2)], D(-2)),
        ("max", [None], D(0)),
        ("last", [], D(0)),
        ("last", [D(9), D(5368709120)], D(5368709120)),
        ("last", [D(9), D(4), None], D(4)),
    ],
)
def test_values_become_one_quantity(kind: str, values: list[Decimal | None], quantity: Decimal) -> None:
    assert aggregate(kind, values) == quantity


def test_an_unknown_aggregation_is_an_error() -> None:
    with pytest.raises(ValueError, match="average"):
        aggregate("average", [D(1)])
