"""A bar a day, as numbers for an inline SVG: no script, prints, and reads aloud."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from billing.money import format_units

# One bar takes this many units of the drawing's width; the drawing is stretched to the page.
STEP = 10
_GAP = 2
HEIGHT = 100
_NICE = tuple(Decimal(n) for n in (1, 2, 4, 5, 6, 8, 10))


@dataclass(frozen=True, slots=True)
class DayValue:
    """One day of a meter. `value` is None where the day says nothing (a peak without events)."""

    day: date
    value: Decimal | None


@dataclass(frozen=True, slots=True)
class Bar:
    x: int
    y: str
    height: str
    label: str
    today: bool


@dataclass(frozen=True, slots=True)
class DayChart:
    """What a template needs to draw the days, and to list them as a table."""

    name: str
    summary: str
    width: int
    bar_width: int
    bars: tuple[Bar, ...]
    baseline: str
    top: str
    middle: str
    days: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]


def day_chart(*, name: str, unit: str, values: Sequence[DayValue], last_day: date, today: date) -> DayChart | None:
    """The chart of the days up to `last_day`, with room for those that are still to come; None without any day."""
    if not values:
        return None
    first_day = values[0].day
    slots = max((last_day - first_day).days + 1, len(values))
    numbers = [value.value for value in values if value.value is not None]
    top = nice_ceiling(max([*numbers, Decimal(0)]))
    floor = -nice_ceiling(-min([*numbers, Decimal(0)])) if any(number < 0 for number in numbers) else Decimal(0)
    bars = []
    for value in values:
        if value.value is None or value.value == 0:
            continue
        high, low = max(value.value, Decimal(0)), min(value.value, Decimal(0))
        bars.append(
            Bar(
                x=(value.day - first_day).days * STEP + _GAP // 2,
                y=_along(top - high, top - floor),
                height=_along(high - low, top - floor),
                label=f"{day_in_words(value.day)}: {format_units(value.value)} {unit}",
                today=value.day == today,
            )
        )
    return DayChart(
        name=name,
        summary=_summary(unit, values, bool(bars)),
        width=slots * STEP,
        bar_width=STEP - _GAP,
        bars=tuple(bars),
        baseline=_along(top, top - floor),
        top=format_units(top),
        middle=format_units((top + floor) / 2),
        days=tuple(day_in_words(first_day + (last_day - first_day) * n // 2) for n in range(3)),
        rows=tuple(
            (day_in_words(value.day), "–" if value.value is None else format_units(value.value))
            for value in reversed(values)
        ),
    )


def nice_ceiling(value: Decimal) -> Decimal:
    """The next round number at or above `value`; 1 where there is nothing above zero."""
    if value <= 0:
        return Decimal(1)
    power = Decimal(1).scaleb(value.adjusted())
    return next(step * power for step in _NICE if step * power >= value)


def percent(part: Decimal, whole: Decimal) -> str:
    """How much of the whole, as an SVG width. For drawing only: cut to two digits."""
    if whole <= 0:
        return "0%"
    share = min(max(part / whole, Decimal(0)), Decimal(1))
    return f"{share * 100:.2f}%"


def day_in_words(day: date) -> str:
    return f"{day.day} {day:%b}"


def _along(distance: Decimal, span: Decimal) -> str:
    return f"{distance / span * HEIGHT:.2f}"


def _summary(unit: str, values: Sequence[DayValue], anything: bool) -> str:
    if not anything:
        return "No usage on these days yet."
    highest = max((value for value in values if value.value is not None), key=lambda value: value.value or 0)
    return f"Highest on {day_in_words(highest.day)}: {format_units(highest.value or Decimal(0))} {unit}."
