"""The admin templates' filters and chart tags; all work is done in customers/admin."""

from typing import Any

from django import template

register = template.Library()


def _format(name: str, *values: Any, **named: Any) -> Any:
    """Call a function of customers.admin.formats.

    It is imported when it is first needed: Django reads the tag libraries while Unfold's own admin module is still
    loading, and an import of ours at that moment would come back to it half made.
    """
    from customers.admin import formats

    return getattr(formats, name)(*values, **named)


def _filter(name: str) -> None:
    def call(value: Any) -> Any:
        return _format(name, value)

    register.filter(name, call)


def _tag(name: str) -> None:
    def call(*values: Any, **named: Any) -> Any:
        return _format(name, *values, **named)

    register.simple_tag(call, name=name)


for _name in ("grouped", "moment", "day", "ago", "as_sent"):
    _filter(_name)
for _name in ("money", "unit_price", "quantity", "span", "badge", "money_totals", "money_list", "money_change"):
    _tag(_name)


@register.inclusion_tag("admin/components/chart.html")
def chart(chart: Any) -> dict[str, Any]:
    """A chart made by customers.admin.charts, with its table of numbers."""
    return {"chart": chart}


@register.inclusion_tag("admin/components/bars.html")
def bars(bars: Any) -> dict[str, Any]:
    """A ranked list with a bar behind each number."""
    return {"bars": bars}


@register.filter
def get(mapping: Any, key: Any) -> Any:
    """An entry of a mapping by a key that is itself a variable."""
    return mapping.get(key) if mapping else None


@register.filter
def tone(status: str) -> str:
    """The colour of a status, for a badge whose word is not the status itself."""

    from customers.admin.formats import TONES

    return TONES.get(status, "calm")
