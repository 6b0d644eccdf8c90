"""The admin's look: title, colours, menu, and where the start page's data comes from.

Settings import this file, so nothing here touches a model; what needs one is named by its dotted path.
"""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy


def _may(permission: str) -> Callable[[HttpRequest], bool]:
    def check(request: HttpRequest) -> bool:
        return bool(request.user.has_perm(permission))

    return check


def _item(title: str, icon: str, model: str, *, badge: str = "", page: str = "changelist") -> dict[str, Any]:
    """A menu entry for a model's list or other page, shown to who may see it. `model` is "app.model"."""
    app, name = model.split(".")
    entry: dict[str, Any] = {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{name}_{page}"),
        "permission": _may(f"{app}.view_{name}"),
    }
    if badge:
        entry["badge"] = badge
        entry["badge_variant"] = "danger"
        entry["badge_style"] = "solid"
    return entry


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Meterbook",
    "SITE_HEADER": "Meterbook",
    "SITE_SUBHEADER": "Usage billing",
    "SITE_SYMBOL": "speed",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("portal/icon.svg")},
    ],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "config.dashboard.start_page",
    "STYLES": [lambda request: static("admin-meterbook.css")],
    "SCRIPTS": [lambda request: static("admin-meterbook.js")],
    "BORDER_RADIUS": "8px",
    "COMMAND": {"search_models": True, "show_history": False},
    "COLORS": {
        # A quiet teal: money is read all day, and red and green are taken by "overdue" and "paid".
        "primary": {
            "50": "oklch(98.4% .014 180.72)",
            "100": "oklch(95.3% .051 180.801)",
            "200": "oklch(91% .096 180.426)",
            "300": "oklch(85.5% .138 181.071)",
            "400": "oklch(77.7% .152 181.912)",
            "500": "oklch(64% .118 184.704)",
            "600": "oklch(51.1% .096 186.391)",
            "700": "oklch(43.7% .078 188.216)",
            "800": "oklch(38.6% .063 188.416)",
            "900": "oklch(33.6% .054 190)",
            "950": "oklch(27.7% .046 192.524)",
        },
    },
    "SIDEBAR": {
        "show_search": False,
        "command_search": True,
        "show_all_applications": False,
        "navigation": [
            {
                "items": [{"title": "Start", "icon": "home", "link": reverse_lazy("admin:index")}],
            },
            {
                "title": "Metering",
                "separator": True,
                "items": [
                    _item("Meters", "speed", "meters.meter"),
                    _item("Events", "receipt_long", "meters.event"),
                    _item("Imports", "upload_file", "meters.eventimport"),
                    _item("Comparisons", "fact_check", "meters.reconciliation"),
                ],
            },
            {
                "title": "Catalog and customers",
                "separator": True,
                "items": [
                    _item("Products", "sell", "billing.product"),
                    _item("Customers", "group", "customers.customer"),
                    _item(
                        "Subscriptions",
                        "autorenew",
                        "billing.subscription",
                        badge="config.dashboard.parked_badge",
                    ),
                ],
            },
            {
                "title": "Billing",
                "separator": True,
                "items": [
                    _item("Invoices", "description", "billing.invoice", badge="config.dashboard.overdue_badge"),
                    _item("Credit notes", "undo", "billing.creditnote"),
                    _item("Payments", "payments", "billing.payment"),
                    _item("Balances", "account_balance_wallet", "billing.balance"),
                    _item("Prepaid credit", "savings", "billing.creditgrant"),
                    _item("Tax rates", "percent", "billing.taxrate"),
                    _item("Corrections", "difference", "billing.ignoredcorrection", page="pending"),
                    _item("Billing runs", "play_circle", "billing.billingrun"),
                    _item("Schedules", "schedule", "django_celery_beat.periodictask"),
                    {
                        **_item("Number series", "tag", "billing.numberseries"),
                        # It has no permissions of its own.
                        "permission": _may("billing.view_invoice"),
                    },
                ],
            },
            {
                "title": "Access",
                "separator": True,
                "items": [
                    _item("API keys", "key", "customers.apikey"),
                    _item("Operators", "person", "auth.user"),
                    _item("Groups", "shield_person", "auth.group"),
                ],
            },
        ],
    },
}
