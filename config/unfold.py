"""The admin's look: title, colours, menu, and the start page's data."""

from typing import Any

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Meterbook",
    "SITE_HEADER": "Meterbook",
    "SITE_SYMBOL": "speed",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
}
