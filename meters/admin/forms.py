"""The meter's form: what it counts, with a filter builder, and a test event."""

import json
import re
import secrets
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from billing.models import Subscription
from customers.admin.base import CommandForm
from customers.admin.forms import choice, grouped_fields, long_text, pairs, search_choice, switch, text, width
from customers.errors import DomainError
from customers.models import Customer
from meters.filters import Operator
from meters.meters import read_filter
from meters.models import CARRIED, Aggregation

OPERATORS = [
    (Operator.EQUALS, "is"),
    (Operator.NOT_EQUALS, "is not"),
    (Operator.GREATER_THAN, "is greater than"),
    (Operator.GREATER_THAN_OR_EQUALS, "is at least"),
    (Operator.LESS_THAN, "is less than"),
    (Operator.LESS_THAN_OR_EQUALS, "is at most"),
    (Operator.CONTAINS, "contains"),
    (Operator.DOES_NOT_CONTAIN, "does not contain"),
]
# As far as a JSON number is the same number to everybody.
_PLAIN_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,14})", re.ASCII)


class FilterBuilder(forms.Textarea):
    """A text area holding the filter as JSON; the page's script turns it into groups and conditions."""

    def __init__(self) -> None:
        super().__init__(attrs={"class": "mb-input mb-code", "rows": 6, "data-filter-builder": ""})


class FilterField(forms.CharField):
    """The filter tree, or None for "every event of this name"."""

    widget = FilterBuilder

    def clean(self, value: Any) -> Any:
        shown = super().clean(value)
        if not shown.strip():
            return None
        try:
            tree = json.loads(shown)
        except ValueError as error:
            raise ValidationError("The filter could not be read.") from error
        if isinstance(tree, dict) and tree.get("clauses") == []:
            return None
        try:
            return read_filter(_typed(tree)).as_json()
        except DomainError as error:
            raise ValidationError(_in_words(error.message)) from error


def _typed(node: Any) -> Any:
    """Give conditions typed by hand the JSON type that they read as. It changes nothing about what they match: a
    filter compares "5" and 5 alike."""
    if isinstance(node, dict) and isinstance(node.get("clauses"), list):
        return {**node, "clauses": [_typed(clause) for clause in node["clauses"]]}
    if isinstance(node, dict) and isinstance(node.get("value"), str):
        value = node["value"]
        if value in ("true", "false"):
            return {**node, "value": value == "true"}
        if _PLAIN_INTEGER.fullmatch(value):
            return {**node, "value": int(value)}
    return node


def _in_words(message: str) -> str:
    """`filter.clauses[1].key: …` as a person counts: "Condition 2: …"."""
    numbers = re.findall(r"clauses\[(\d+)\]", message.split(":")[0])
    if not numbers:
        return message
    place = ", ".join(str(int(n) + 1) for n in numbers)
    return f"Condition {place}: {message.partition(': ')[2]}"


class MeterForm(CommandForm):
    name = width(text("Name", attrs={"placeholder": "API Requests"}), "mb-half")
    measurement_unit = width(
        text("Unit", max_length=100, attrs={"placeholder": "calls"}, help_text="A label: calls, tokens, GB."),
        "mb-half",
    )
    description = long_text("Description", rows=2, help_text="For your colleagues and, on request, your customers.")
    event_name = width(
        text(
            "Event name",
            attrs={"placeholder": "api.call", "autocapitalize": "off", "spellcheck": "false"},
            help_text="Exactly what your application sends as event_name. Upper and lower case differ.",
        ),
        "mb-half",
    )
    aggregation = width(
        choice("Aggregation", Aggregation.choices, help_text="How the events of a period become one quantity."),
        "mb-half",
    )
    property_key = text(
        "Over property",
        required=False,
        max_length=100,
        attrs={"placeholder": "tokens", "autocapitalize": "off", "spellcheck": "false"},
        help_text="The metadata key whose value is added up, compared or taken. Not needed for Count.",
    )
    carry_forward = switch(
        "Carry the value forward",
        help_text="Last and Weighted sum only: a period begins with the value that held before it, instead of with 0.",
    )
    group_by = text(
        "Read by",
        required=False,
        max_length=302,
        attrs={"placeholder": "model, region", "autocapitalize": "off", "spellcheck": "false"},
        help_text="Up to three metadata keys, with commas, by whose values usage can be read apart. Usually none.",
    )
    filter = FilterField(label="Only count events that match", required=False)

    @property
    def groups(self) -> list[tuple[str, list[Any]]]:
        return grouped_fields(
            self,
            [
                ("What it is called", ["name", "measurement_unit", "description"]),
                ("What it counts", ["event_name", "aggregation", "property_key", "carry_forward", "group_by"]),
                ("Filter", ["filter"]),
            ],
        )

    def clean(self) -> dict[str, Any] | None:
        values = super().clean()
        if values and values.get("aggregation") not in (None, Aggregation.COUNT) and not values.get("property_key"):
            self.add_error("property_key", "Say which metadata key holds the value, for example tokens.")
        if values and values.get("aggregation") == Aggregation.COUNT:
            values["property_key"] = ""
        if values and values.get("carry_forward") and values.get("aggregation") not in CARRIED:
            self.add_error("carry_forward", "Only Last and Weighted sum carry a value into the next period.")
        return values

    def definition(self) -> dict[str, Any]:
        """As `create_meter` and `build_meter` take it."""
        names = ("event_name", "aggregation", "property_key", "filter", "carry_forward")
        return {
            **{name: self.cleaned_data[name] for name in names},
            "group_by": [key.strip() for key in self.cleaned_data["group_by"].split(",") if key.strip()],
        }


class MeterTrialForm(MeterForm):
    """The same before it has a name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].required = False
        self.fields["measurement_unit"].required = False


class MeterTextsForm(CommandForm):
    """What may change about a meter: what people read."""

    name = width(text("Name"), "mb-half")
    measurement_unit = width(text("Unit", max_length=100, help_text="A label; no quantity is converted."), "mb-half")
    description = long_text("Description")

    def __init__(self, data: Any = None, *, request: Any, obj: Any = None, **kwargs: Any) -> None:
        kwargs["initial"] = {
            "name": obj.name,
            "measurement_unit": obj.measurement_unit,
            "description": obj.description,
        }
        super().__init__(data, request=request, obj=obj, **kwargs)


class TestEventForm(CommandForm):
    customer = search_choice(
        "Customer",
        Subscription._meta.get_field("customer"),
        Customer.objects.all(),
        help_text="Whose usage it adds to.",
    )
    metadata = pairs("Metadata", help_text="What the meter's filter and property look at.")
    event_id = text("Event id", max_length=255, help_text="Each id counts once, for ever.")

    def __init__(self, data: Any = None, *, request: Any, obj: Any = None, **kwargs: Any) -> None:
        kwargs["initial"] = {"event_id": f"test_{secrets.token_hex(6)}", "metadata": sample_metadata(obj)}
        super().__init__(data, request=request, obj=obj, **kwargs)
        self.fields["metadata"].initial = {}


def sample_metadata(meter: Any) -> dict[str, Any]:
    """Metadata that the meter would count: what its filter asks for, and a value for its property."""
    sample: dict[str, Any] = {}
    _fill(meter.filter, sample)
    if meter.property_key:
        sample.setdefault(meter.property_key, 1500 if meter.aggregation == Aggregation.SUM else 42)
    return sample


def _fill(node: Any, sample: dict[str, Any]) -> None:
    """The first way through the tree: all clauses of an `and`, the first of an `or`."""
    if not isinstance(node, dict):
        return
    if "clauses" in node:
        for clause in node["clauses"] if node.get("conjunction") == "and" else node["clauses"][:1]:
            _fill(clause, sample)
        return
    key, operator, value = str(node.get("key")), node.get("operator"), node.get("value")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if operator in (Operator.GREATER_THAN,) and is_number:
        value = value + 1  # type: ignore[operator]
    elif operator in (Operator.LESS_THAN,) and is_number:
        value = value - 1  # type: ignore[operator]
    elif operator in (Operator.NOT_EQUALS, Operator.DOES_NOT_CONTAIN):
        value = f"not {value}"
    sample.setdefault(key, value)
