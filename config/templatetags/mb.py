"""The admin templates' filters and chart tags; all work is done in customers/admin."""

from typing import Any

from django import template

register = template.Library()


def _format(name: str) -> Any:
    """A function of customers.admin.formats, found when it is first called.

    Django reads the tag libraries while Unfold's own admin module is still loading; an import of ours here would come
    back to it half made.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        from customers.admin import formats

        return getattr(formats, name)(*args, **kwargs)

    return call


register.filter("grouped", _format("grouped"))
register.filter("moment", _format("moment"))
register.filter("day", _format("day"))
register.filter("ago", _format("ago"))
register.simple_tag(_format("money"), name="money")
register.simple_tag(_format("unit_price"), name="unit_price")
register.simple_tag(_format("quantity"), name="quantity")
register.simple_tag(_format("span"), name="span")
register.simple_tag(_format("badge"), name="badge")
register.simple_tag(_format("money_totals"), name="money_totals")


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
    from customers.admin import formats

    return formats.TONES.get(status, "calm")
