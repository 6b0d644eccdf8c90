"""Tax rates: entered and ended, never edited, so that the list says what was in force when."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Q
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import AllValuesCheckboxFilter, ChoicesDropdownFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from billing.models import TaxCategory, TaxRate
from billing.money import plain
from billing.taxes import create_tax_rate, end_tax_rate, replace_tax_rate
from customers.admin.base import CommandForm, PageAdmin, command
from customers.admin.formats import badge, moment
from customers.admin.forms import MajorAmountField, choice, grouped_fields, instant, text, width


def percent_field(label: str = "Percent", *, help_text: str = "") -> Any:
    field = MajorAmountField(
        label=label,
        min_value=Decimal(0),
        max_value=Decimal(100),
        max_digits=20,
        decimal_places=None,
        help_text=help_text,
    )
    field.mb_affix = ""
    return field


class TaxRateForm(CommandForm):
    name = width(text("Name", max_length=50, help_text="Printed on the invoice: VAT, GST, Sales tax."), "mb-half")
    percent = width(percent_field(help_text="Such as 19 or 9.975."), "mb-half")
    country = width(
        text("Country", required=False, max_length=2, help_text="Two letters, such as DE. Empty: everywhere."),
        "mb-third",
    )
    region = width(
        text(
            "State or region",
            required=False,
            max_length=100,
            help_text="As customers' addresses write it, in any case. Empty: the whole country.",
        ),
        "mb-third",
    )
    tax_category = width(
        choice("Product category", [("", "Every category"), *TaxCategory.choices], required=False), "mb-third"
    )
    starts_at = width(instant("From", help_text=""), "mb-half")
    ends_at = width(instant("Until", help_text="Empty: with no end."), "mb-half")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        zone = timezone.get_default_timezone_name()
        self.fields["starts_at"].help_text = f"Invoices issued from then on. Empty: since ever. Time zone: {zone}."

    @property
    def groups(self) -> list[tuple[str, list[Any]]]:
        return grouped_fields(
            self,
            [
                ("Tax", ["name", "percent"]),
                ("What it is on", ["country", "region", "tax_category"]),
                ("When", ["starts_at", "ends_at"]),
            ],
        )


class EndForm(CommandForm):
    at = instant("When", help_text="")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["at"].help_text = f"Empty: now. Time zone: {timezone.get_default_timezone_name()}."


class ReplaceForm(EndForm):
    percent = percent_field("New percentage")
    field_order = ("percent", "at")


def state_of(rate: TaxRate, now: datetime) -> str:
    """One word: "in force", "coming" or "ended"."""
    if rate.ends_at is not None and rate.ends_at <= now:
        return "ended"
    return "coming" if rate.starts_at is not None and rate.starts_at > now else "in force"


def state_badge(rate: TaxRate, now: datetime) -> str:
    word = state_of(rate, now)
    return badge(word, {"in force": "good", "coming": "info"}.get(word, "calm"))


def _ended(now: datetime) -> Q:
    return Q(ends_at__isnull=False, ends_at__lte=now)


def _coming(now: datetime) -> Q:
    return Q(starts_at__gt=now) & ~_ended(now)


def not_ended(rate: TaxRate) -> bool:
    return state_of(rate, timezone.now()) != "ended"


@admin.register(TaxRate)
class TaxRateAdmin(PageAdmin):
    add_form = TaxRateForm
    add_title = "New tax rate"
    add_submit = "Create tax rate"
    page_template = "admin/billing/taxrate/page.html"
    list_display = ("name", "percent_shown", "place", "category", "from_shown", "until_shown", "state")
    list_display_links = ("name",)
    search_fields = ("name", "country", "region")
    list_filter = (("country", AllValuesCheckboxFilter), ("tax_category", ChoicesDropdownFilter))
    list_filter_submit = True
    actions = None
    list_tabs = (("", "In force"), ("coming", "Coming"), ("ended", "Ended"), ("all", "All"))
    actions_detail = ("replace", "end")
    empty_state = (
        "No tax rate",
        "Without one no tax is billed. Enter a rate for each place you owe tax in; rates of one name give way to the "
        "narrower place, different names add up.",
    )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A rate is ended or replaced by commands of its own, never edited."""
        return False

    def has_end_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "change_taxrate")

    def in_tab(self, queryset: Any, value: str) -> Any:
        now = timezone.now()
        return {
            "": queryset.exclude(_ended(now)).exclude(_coming(now)),
            "coming": queryset.filter(_coming(now)),
            "ended": queryset.filter(_ended(now)),
        }.get(value, queryset)

    def tab_counts(self, request: HttpRequest) -> Mapping[str, int]:
        now = timezone.now()
        return TaxRate.objects.aggregate(
            **{
                "": Count("pk", filter=~_ended(now) & ~_coming(now)),
                "coming": Count("pk", filter=_coming(now)),
                "ended": Count("pk", filter=_ended(now)),
                "all": Count("pk"),
            }
        )

    @display(description="Percent", ordering="percent")
    def percent_shown(self, obj: Any) -> str:
        return f"{plain(obj.percent)} %"

    @display(description="Place", ordering="country")
    def place(self, obj: Any) -> str:
        return ", ".join(part for part in (obj.country, obj.region) if part) or "everywhere"

    @display(description="Category", ordering="tax_category")
    def category(self, obj: Any) -> str:
        return str(obj.get_tax_category_display()) if obj.tax_category else "every category"

    @display(description="From", ordering="starts_at")
    def from_shown(self, obj: Any) -> str:
        return moment(obj.starts_at)

    @display(description="Until", ordering="ends_at")
    def until_shown(self, obj: Any) -> str:
        return moment(obj.ends_at)

    @display(description="State")
    def state(self, obj: Any) -> str:
        return state_badge(obj, timezone.now())

    def page_context(self, request: HttpRequest, obj: Any) -> Mapping[str, Any]:
        return {
            "percent": self.percent_shown(obj),
            "place": self.place(obj),
            "category": self.category(obj),
            "state": self.state(obj),
        }

    def create(self, request: HttpRequest, form: Any) -> TaxRate:
        return create_tax_rate(**form.cleaned_data)

    @command(
        title="Change the percentage",
        permission="end",
        icon="percent",
        variant=ActionVariant.PRIMARY,
        explain=lambda rate: (
            f"“{rate}” ends at that moment and the new percentage follows at once. Issued invoices keep theirs."
        ),
        submit="Change it",
        form_class=ReplaceForm,
        available=not_ended,
    )
    def replace(self, request: HttpRequest, obj: TaxRate, form: Any) -> str:
        new = replace_tax_rate(
            rate=obj, percent=form.cleaned_data["percent"], now=timezone.now(), at=form.cleaned_data["at"]
        )
        self.log_addition(request, new, [{"added": {}}])
        messages.success(request, f"“{new}” is entered; the rate before it ends where this one begins.")
        return self.page_url(new)

    @command(
        title="End",
        permission="end",
        icon="event_busy",
        variant=ActionVariant.DANGER,
        explain=lambda rate: [
            f"“{rate}” counts for no invoice that is issued from that moment on; issued ones keep it.",
            "It cannot be taken back: enter a new rate instead. One that has not begun by then is removed.",
        ],
        submit="End it",
        form_class=EndForm,
        available=not_ended,
    )
    def end(self, request: HttpRequest, obj: TaxRate, form: Any) -> str | None:
        end_tax_rate(rate=obj, now=timezone.now(), at=form.cleaned_data["at"])
        if not TaxRate.objects.filter(pk=obj.pk).exists():
            messages.success(request, f"“{obj}” had not begun and is removed.")
            return self.list_url()
        self.log_change(request, obj, f"Ended at {obj.ends_at.isoformat() if obj.ends_at else ''}.")
        messages.success(request, f"“{obj}” ends.")
        return None
