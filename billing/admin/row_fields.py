"""A field of several rows with the same few inputs each: tiers, prices by value, discounts. Blank rows say nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from customers.admin.forms import INPUT, MajorAmountField

# A table that is longer belongs on the API.
MAX_ROWS = 100


class ExactNumberField(MajorAmountField):
    """A number that is no money: a bound, a size, per cent."""

    mb_affix = ""


def exact_number(label: str, *, help_text: str = "", required: bool = False) -> Any:
    return ExactNumberField(
        label=label, required=required, min_value=Decimal(0), max_digits=40, decimal_places=None, help_text=help_text
    )


@dataclass(frozen=True)
class Column:
    """One input of each row. `money` is typed in the major unit and checked against the currency's digits."""

    name: str
    label: str
    kind: str = "number"  # number, money or text
    blank: str = ""

    @property
    def money(self) -> bool:
        return self.kind == "money"

    def clean(self, text: str) -> Any:
        if self.kind == "text":
            return forms.CharField(required=False, max_length=200).clean(text)
        return exact_number(self.label).clean(text)


class RowsWidget(forms.Widget):
    """Rows of inputs, two more than are filled; the page's script adds and removes rows."""

    mb_rows = True

    def __init__(self, columns: Sequence[Column], add: str) -> None:
        super().__init__()
        self.columns = columns
        self.add = add

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        rows: list[Mapping[str, str]] = [*(value or []), {}, {}]
        return format_html(
            '<div class="mb-rows mb-rows-{}" data-rows data-add="{}">'
            '<div class="mb-rowhead" aria-hidden="true">{}</div>{}</div>',
            len(self.columns),
            self.add,
            format_html_join("", "<span>{}</span>", ((column.label,) for column in self.columns)),
            format_html_join(
                "",
                '<div class="mb-rowline" data-row>{}</div>',
                ((self._row(name, row, number),) for number, row in enumerate(rows, start=1)),
            ),
        )

    def _row(self, name: str, row: Mapping[str, str], number: int) -> SafeString:
        return format_html_join(
            "",
            '<input class="{}" name="{}_{}" value="{}" placeholder="{}" aria-label="{}, row {}" autocomplete="off"{}>',
            (
                (
                    INPUT,
                    name,
                    column.name,
                    row.get(column.name) or "",
                    column.blank,
                    column.label,
                    number,
                    "" if column.kind == "text" else SafeString(' inputmode="decimal"'),
                )
                for column in self.columns
            ),
        )

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[dict[str, str]]:
        if not hasattr(data, "getlist"):
            return []
        cells = {column.name: data.getlist(f"{name}_{column.name}") for column in self.columns}
        count = max((len(values) for values in cells.values()), default=0)
        rows = [
            {key: values[index].strip() if index < len(values) else "" for key, values in cells.items()}
            # One more than is allowed, so that a longer table is refused and not cut.
            for index in range(min(count, MAX_ROWS + 3))
        ]
        return [row for row in rows if any(row.values())]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return False


class RowsField(forms.Field):
    """A list with a dict for each row that is not blank; an input left blank is None, or "" where it is text."""

    widget = RowsWidget

    def __init__(self, *, columns: Sequence[Column], add: str, **kwargs: Any) -> None:
        self.columns = columns
        super().__init__(widget=RowsWidget(columns, add), required=False, **kwargs)

    def clean(self, value: Any) -> list[dict[str, Any]]:
        rows, problems = [], []
        if len(value or []) > MAX_ROWS:
            raise ValidationError(f"At most {MAX_ROWS} rows; the API takes more.")
        for number, row in enumerate(value or [], start=1):
            found = {}
            for column in self.columns:
                try:
                    found[column.name] = column.clean(row[column.name])
                except ValidationError as error:
                    problems.append(f"Row {number}, {column.label.lower()}: {' '.join(error.messages)}")
            rows.append(found)
        if problems:
            raise ValidationError(problems)
        return rows

    def has_changed(self, initial: Any, data: Any) -> bool:
        return [_texts(row) for row in initial or []] != [_texts(row) for row in data or []]


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in row.items() if value not in (None, "")}
