"""How the admin shows values: amounts with their currency, exact quantities, instants in the billing time zone."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from billing.money import format_amount, format_unit_price

DASH = "–"


def grouped(number: Decimal | int | str | None) -> str:
    """Every digit, thousands apart, no exponent: 13,107,200,000 or 0.00025."""
    if number is None or number == "":
        return DASH
    text = format(Decimal(number), ",f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def quantity(number: Decimal | int | str | None, unit: str = "") -> str:
    return f"{grouped(number)} {unit}".strip()


def money(minor: Decimal | int | str | None, currency: str) -> str:
    """An amount in minor units, for people: $30.00."""
    return DASH if minor is None else format_amount(Decimal(minor), currency)


def money_change(minor: Decimal, currency: str) -> str:
    """A change of an amount, with its sign: +$5.00 or -$12.30."""
    return f"{'+' if minor > 0 else ''}{money(minor, currency)}"


def money_list(totals: Mapping[str, Decimal]) -> str:
    """The same in one line: "$137.40, €20.00"."""
    return ", ".join(money(totals[c], c) for c in sorted(totals)) or "nothing"


def unit_price(minor: Decimal | int | str | None, currency: str) -> str:
    """A price per unit with all its digits: $0.001; a dash where there is no single one."""
    return DASH if minor is None else format_unit_price(Decimal(minor), currency)


def money_totals(totals: Mapping[str, Decimal]) -> SafeString:
    """One amount a currency, each on its own line; a dash when there is none."""
    if not totals:
        return SafeString(DASH)
    return format_html_join("", '<span class="mb-line">{}</span>', ((money(totals[c], c),) for c in sorted(totals)))


def moment(instant: datetime | None) -> SafeString:
    """Date and time in the billing time zone; UTC on hover."""
    if instant is None:
        return SafeString(DASH)
    local = timezone.localtime(instant)
    return format_html(
        '<time class="mb-time" datetime="{}" title="{}">{}</time>',
        instant.astimezone(UTC).isoformat(),
        f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        date_format(local, "j M Y, H:i"),
    )


def as_sent(value: object) -> str:
    """A metadata value as an application sends it: true, not True."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def day(value: datetime | date | None) -> str:
    if value is None:
        return DASH
    return date_format(timezone.localtime(value) if isinstance(value, datetime) else value, "j M Y")


def span(start: datetime | None, end: datetime | None) -> SafeString:
    """A half-open span of time. Whole days are shown as days, the last one included."""
    if start is None or end is None:
        return SafeString(DASH)
    first, last = timezone.localtime(start), timezone.localtime(end)
    title = f"{start.astimezone(UTC):%Y-%m-%d %H:%M} to {end.astimezone(UTC):%Y-%m-%d %H:%M} UTC, end not included"
    if first.time() == last.time():
        shown = f"{date_format(first, 'j M Y')} – {date_format(last, 'j M Y')}"
    else:
        shown = f"{date_format(first, 'j M Y, H:i')} – {date_format(last, 'j M Y, H:i')}"
    return format_html('<span class="mb-time" title="{}">{}</span>', title, shown)


def ago(instant: datetime | None, now: datetime | None = None) -> SafeString:
    """How long since (or until), in one unit; the instant on hover."""
    if instant is None:
        return SafeString("never")
    seconds = int(((now or timezone.now()) - instant).total_seconds())
    words = "in {}" if seconds < 0 else "{} ago"
    seconds = abs(seconds)
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            text = words.format(f"{seconds // size} {name}")
            break
    else:
        text = "just now" if words.startswith("{}") else "in a moment"
    return format_html(
        '<time class="mb-time" datetime="{}" title="{}">{}</time>',
        instant.astimezone(UTC).isoformat(),
        f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        text,
    )


# A status is a word and a colour, never a colour alone.
TONES = {
    "draft": "calm",
    "issued": "info",
    "paid": "good",
    "void": "calm",
    "overdue": "bad",
    "active": "good",
    "pending": "info",
    "on_hold": "warn",
    "paused": "warn",
    "past_due": "warn",
    "cancelled": "calm",
    "expired": "calm",
    "failed": "bad",
    "parked": "bad",
    "archived": "calm",
    "revoked": "calm",
    "succeeded": "good",
    "processing": "info",
    "closed": "good",
    "nothing": "calm",
    "running": "info",
    "finished": "good",
}


def badge(word: Any, tone: str = "") -> SafeString:
    text = str(word)
    tone = tone or TONES.get(text.lower().replace(" ", "_"), "calm")
    shown = text.replace("_", " ")
    return format_html('<span class="mb-badge mb-{}">{}</span>', tone, shown[:1].upper() + shown[1:])


def link(url: str, text: Any) -> SafeString:
    return format_html('<a class="mb-link" href="{}">{}</a>', url, text)
