"""Charts as plain SVG made on the server: no script is needed to see, print or test them.

A chart is drawn on a canvas of 1000 by 100 that the page stretches; words stand beside it as HTML, so they keep
their size on a phone. Each carries its numbers as a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from django.utils.formats import date_format

from customers.admin.formats import grouped

WIDTH = Decimal(1000)
HEIGHT = Decimal(100)


@dataclass(frozen=True)
class Series:
    """`kind` is "bar", "line" or "dotted"; `tone` a colour of the style sheet."""

    name: str
    values: Sequence[Decimal]
    kind: str = "line"
    tone: str = "1"


@dataclass(frozen=True)
class Tick:
    label: str
    # From the bottom or the left, in per cent.
    at: str


@dataclass(frozen=True)
class Drawn:
    """One series as SVG wants it."""

    name: str
    kind: str
    tone: str
    points: str = ""
    bars: Sequence[dict[str, str]] = ()


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    labels: Sequence[str]
    series: Sequence[Drawn]
    y_ticks: Sequence[Tick]
    x_ticks: Sequence[Tick]
    summary: str
    rows: Sequence[tuple[str, Sequence[str]]]
    empty: bool = False
    names: Sequence[str] = field(default_factory=list)


def short(number: Decimal) -> str:
    """A tick's label in at most five characters: 1.5k, 20M."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return grouped((number / size).normalize()) + letter
    return grouped(number.normalize())


def round_top(top: Decimal) -> Decimal:
    """The round number at or above: 1, 2, 2.5 or 5 times a power of ten."""
    if top <= 0:
        return Decimal(1)
    power = Decimal(10) ** (top.adjusted())
    for step in (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(4), Decimal(5), Decimal(8), Decimal(10)):
        if top <= step * power:
            return step * power
    return Decimal(10) * power


def _at(part: Decimal, whole: Decimal) -> str:
    return format((part / whole).quantize(Decimal("0.00001")), "f") if whole else "0"


def svg_number(value: Decimal) -> str:
    return format(value.quantize(Decimal("0.01")), "f")


def time_chart(
    *, title: str, days: Sequence[date], series: Sequence[Series], unit: str, whole_numbers: bool = False
) -> Chart:
    """Values by day. The first series that is a line or bar is what the summary speaks of."""
    count = max(len(days), 1)
    # Quantities may have hundreds of digits; a picture needs a few.
    shown = [[Decimal(format(v, ".6g")) if v else Decimal(0) for v in s.values] for s in series]
    top = round_top(max((max(values, default=Decimal(0)) for values in shown), default=Decimal(0)))
    if whole_numbers and top < 4:
        top = Decimal(4)
    column = WIDTH / count
    drawn: list[Drawn] = []
    bar_series = [s for s in series if s.kind == "bar"]
    for one, values in zip(series, shown, strict=True):
        heights = [HEIGHT * max(v, Decimal(0)) / top for v in values]
        if one.kind == "bar":
            place = bar_series.index(one)
            each = column * Decimal("0.72") / len(bar_series)
            left = column * Decimal("0.14") + each * place
            drawn.append(
                Drawn(
                    one.name,
                    one.kind,
                    one.tone,
                    bars=[
                        {
                            "x": svg_number(column * i + left),
                            "y": svg_number(HEIGHT - h),
                            "w": svg_number(each),
                            "h": svg_number(h),
                        }
                        for i, h in enumerate(heights)
                        if h
                    ],
                )
            )
        else:
            drawn.append(
                Drawn(
                    one.name,
                    one.kind,
                    one.tone,
                    points=" ".join(
                        f"{svg_number(column * i + column / 2)},{svg_number(HEIGHT - h)}" for i, h in enumerate(heights)
                    ),
                )
            )
    labels = [date_format(day, "j M") for day in days]
    every = max(1, -(-len(days) // 6))
    main = series[0] if series else None
    if main is None or not any(any(s.values) for s in series):
        summary = f"{title}: nothing yet."
    else:
        highest = max(range(len(main.values)), key=lambda i: main.values[i])
        summary = (
            f"{title}, {labels[0]} to {labels[-1]}: highest {grouped(main.values[highest])} {unit} "
            f"on {labels[highest]}, latest {grouped(main.values[-1])} {unit}."
        )
    return Chart(
        title=title,
        unit=unit,
        labels=labels,
        series=drawn,
        y_ticks=[Tick(short(top * n / 4), str(n * 25)) for n in (0, 1, 2, 3, 4)]
        if not (whole_numbers and top % 4)
        else [Tick(short(top * n / 2), str(n * 50)) for n in (0, 1, 2)],
        x_ticks=[
            Tick(labels[i], svg_number(Decimal(100) * (2 * i + 1) / (2 * count))) for i in range(0, len(days), every)
        ],
        summary=summary,
        rows=[(date_format(day, "j M Y"), [grouped(s.values[i]) for s in series]) for i, day in enumerate(days)],
        empty=not any(any(s.values) for s in series),
        names=[s.name for s in series],
    )


@dataclass(frozen=True)
class Bar:
    label: str
    value: str
    per_cent: str
    url: str = ""
    note: str = ""


@dataclass(frozen=True)
class Bars:
    caption: str
    label_head: str
    value_head: str
    bars: Sequence[Bar]
    note_head: str = ""
    empty: str = "Nothing yet."


def ranked(
    *,
    caption: str,
    label_head: str,
    value_head: str,
    rows: Sequence[tuple[str, Decimal, str]],
    unit: str = "",
    notes: Sequence[str] = (),
    note_head: str = "",
    shown: Sequence[str] = (),
    empty: str = "Nothing yet.",
) -> Bars:
    """Rows of (label, number, address), each with a bar against the largest. `shown` replaces the numbers' text."""
    largest = max((abs(value) for _, value, _ in rows), default=Decimal(0))
    return Bars(
        caption=caption,
        label_head=label_head,
        value_head=value_head,
        note_head=note_head,
        empty=empty,
        bars=[
            Bar(
                label=label,
                value=shown[i] if shown else f"{grouped(value)} {unit}".strip(),
                per_cent=format((100 * abs(value) / largest).quantize(Decimal("0.1")), "f") if largest else "0",
                url=url,
                note=notes[i] if notes else "",
            )
            for i, (label, value, url) in enumerate(rows)
        ],
    )


def sparkline(values: Sequence[Decimal | int]) -> str:
    """The points of a line on a canvas of 100 by 24."""
    numbers = [Decimal(v) for v in values]
    top = max(numbers, default=Decimal(0)) or Decimal(1)
    step = Decimal(100) / max(len(numbers) - 1, 1)
    return " ".join(f"{svg_number(step * i)},{svg_number(22 - 20 * v / top)}" for i, v in enumerate(numbers))
