"""Fields and small forms that several admin pages use."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from babel import Locale
from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.widgets import (
    INPUT_CLASSES,
    SELECT_CLASSES,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from billing.money import is_currency, minor_digits, plain
from customers.admin.formats import as_sent

INPUT = " ".join(INPUT_CLASSES)
SELECT = " ".join(SELECT_CLASSES)

# The currencies an operator most likely means come first.
COMMON_CURRENCIES = ("USD", "EUR", "GBP", "INR", "JPY", "CAD", "AUD", "CHF", "BRL", "SGD", "KWD")
MAX_METADATA_PAIRS = 50
FIRST_YEAR, LAST_YEAR = 1900, 9000


def width(field: Any, css: str) -> Any:
    """Let a field take a part of the form's row: mb-half, mb-third, mb-quarter."""
    field.mb_width = css
    return field


def text(label: str, *, required: bool = True, help_text: str = "", max_length: int = 255, **kw: Any) -> Any:
    attrs = kw.pop("attrs", {})
    return forms.CharField(
        label=label,
        required=required,
        help_text=help_text,
        max_length=max_length,
        widget=UnfoldAdminTextInputWidget(attrs=attrs),
        **kw,
    )


def long_text(label: str, *, required: bool = False, help_text: str = "", rows: int = 3, **kw: Any) -> Any:
    return forms.CharField(
        label=label,
        required=required,
        help_text=help_text,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": rows}),
        **kw,
    )


def choice(label: str, choices: Any, *, required: bool = True, help_text: str = "", **kw: Any) -> Any:
    return forms.ChoiceField(
        label=label,
        choices=choices,
        required=required,
        help_text=help_text,
        widget=UnfoldAdminSelectWidget(attrs=kw.pop("attrs", None)),
        **kw,
    )


def switch(label: str, *, help_text: str = "", **kw: Any) -> Any:
    return forms.BooleanField(
        label=label, required=False, help_text=help_text, widget=UnfoldBooleanSwitchWidget(), **kw
    )


def whole_number(
    label: str,
    *,
    least: int = 0,
    most: int | None = None,
    required: bool = True,
    help_text: str = "",
    **kw: Any,
) -> Any:
    attrs: dict[str, Any] = {"class": INPUT, "inputmode": "numeric", **kw.pop("attrs", {})}
    return forms.IntegerField(
        label=label,
        min_value=least,
        max_value=most,
        required=required,
        help_text=help_text,
        widget=forms.NumberInput(attrs=attrs),
        **kw,
    )


class InstantWidget(forms.DateTimeInput):
    input_type = "datetime-local"

    def __init__(self) -> None:
        super().__init__(attrs={"class": INPUT, "step": "1"}, format="%Y-%m-%dT%H:%M:%S")


class InstantField(forms.DateTimeField):
    """A moment, typed in the billing time zone; an ISO 8601 text with an offset is understood too."""

    widget = InstantWidget

    def prepare_value(self, value: Any) -> Any:
        return timezone.localtime(value) if isinstance(value, datetime) and timezone.is_aware(value) else value

    def clean(self, value: Any) -> Any:
        found = super().clean(value)
        # Outside these years calendar arithmetic ends.
        if found is not None and not FIRST_YEAR <= found.year <= LAST_YEAR:
            raise ValidationError(f"Choose a moment between the years {FIRST_YEAR} and {LAST_YEAR}.")
        return found


def instant(label: str, *, required: bool = False, help_text: str = "", **kw: Any) -> Any:
    zone = timezone.get_default_timezone_name()
    return InstantField(label=label, required=required, help_text=help_text or f"Time zone: {zone}.", **kw)


class ExactDecimalInput(forms.TextInput):
    """A number as text: a browser's number field would turn it into a float and drop digits."""

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        super().__init__(attrs={"class": INPUT, "inputmode": "decimal", "autocomplete": "off", **(attrs or {})})


class MajorAmountField(forms.DecimalField):
    """An amount typed in the currency's major unit: dollars, not cents. Exact; no exponent, NaN or infinity."""

    widget = ExactDecimalInput
    mb_affix = "USD"

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and value.strip().lower().lstrip("+-")[:1] not in (*"0123456789.,", ""):
            raise ValidationError("Enter a number such as 49 or 0.001.")
        if isinstance(value, str) and "e" in value.lower():
            raise ValidationError("Write the number out, such as 0.00001.")
        return super().to_python(value)


def check_major_digits(amount: Decimal | None, currency: str, *, digits: int) -> str | None:
    """Why an amount does not fit the currency's digits, or None. `digits` more than the currency's are allowed."""
    if amount is None:
        return None
    places = len(plain(amount).partition(".")[2])
    allowed = minor_digits(currency) + digits
    if places > allowed:
        return f"{currency} has {allowed} digits after the point here; this has {places}."
    return None


def currency_choices() -> list[tuple[str, str]]:
    """Every currency in use, the common ones first."""
    names = {str(code): str(name) for code, name in Locale("en").currencies.items()}
    common = [(code, f"{code} – {names.get(code, code)}") for code in COMMON_CURRENCIES]
    rest = sorted(code for code in names if code not in COMMON_CURRENCIES and is_currency(code))
    return [*common, *((code, f"{code} – {names[code]}") for code in rest)]


class PairsWidget(forms.Widget):
    """Key and value rows for a flat object; two empty rows wait for more."""

    mb_rows = True

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        pairs: Iterable[tuple[str, str]] = value or []
        rows = [*pairs, ("", ""), ("", "")]
        return format_html(
            '<div class="mb-stack" style="gap: .5rem">{}</div>',
            format_html_join(
                "",
                '<div class="mb-row" style="flex-wrap: nowrap"><input class="{}" name="{}_key" value="{}" '
                'placeholder="key" maxlength="100" aria-label="Key {}"><input class="{}" name="{}_value" '
                'value="{}" placeholder="value" maxlength="500" aria-label="Value {}"></div>',
                ((INPUT, name, key, n, INPUT, name, shown, n) for n, (key, shown) in enumerate(rows, start=1)),
            ),
        )

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[tuple[str, str]]:
        if not hasattr(data, "getlist"):
            return []
        keys, values = data.getlist(f"{name}_key"), data.getlist(f"{name}_value")
        return [(k, v) for k, v in zip(keys, values, strict=False) if k or v]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return False


class PairsField(forms.Field):
    """Metadata: up to 50 pairs of text. Values that were numbers or booleans stay so while their text is unchanged."""

    widget = PairsWidget

    def prepare_value(self, value: Any) -> Any:
        return [(k, as_sent(v)) for k, v in value.items()] if isinstance(value, dict) else value

    def clean(self, value: Any) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        before = self.initial if isinstance(self.initial, dict) else {}
        for key, shown in value or []:
            if not key:
                raise ValidationError(f"The value “{shown}” has no key.")
            if key in pairs:
                raise ValidationError(f"The key “{key}” appears twice.")
            if "\x00" in key + shown:
                raise ValidationError("A null character is not allowed.")
            pairs[key] = before[key] if key in before and as_sent(before[key]) == shown else shown
        if len(pairs) > MAX_METADATA_PAIRS:
            raise ValidationError(f"At most {MAX_METADATA_PAIRS} pairs.")
        return pairs


def pairs(label: str = "Metadata", help_text: str = "") -> PairsField:
    return PairsField(
        label=label,
        required=False,
        help_text=help_text or "Anything of your own to find it by; shown to nobody but you and your application.",
    )


def model_choice(label: str, queryset: Any, *, required: bool = True, help_text: str = "", **kw: Any) -> Any:
    return forms.ModelChoiceField(
        label=label,
        queryset=queryset,
        required=required,
        help_text=help_text,
        empty_label=kw.pop("empty_label", "Choose…"),
        widget=UnfoldAdminSelectWidget(),
        **kw,
    )


def grouped_fields(form: forms.Form, groups: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, list[Any]]]:
    """A form's fields under legends, as form_page.html shows them."""
    return [(legend, [form[name] for name in names if name in form.fields]) for legend, names in groups]


class SearchSelect(AutocompleteSelect):
    """Django's searching select; a chosen value that can be no key is shown as nothing chosen."""

    def build_attrs(self, base_attrs: Any, extra_attrs: Any = None) -> Any:
        # Django empties the placeholder, and with it what a screen reader calls the field.
        attrs = super().build_attrs(base_attrs, extra_attrs)
        return {**attrs, "data-placeholder": self.attrs.get("data-placeholder", "")}

    def optgroups(self, name: str, value: Any, attrs: Any = None) -> Any:
        return super().optgroups(name, [v for v in value if str(v).isascii() and str(v).isdigit()], attrs)


def search_choice(label: str, foreign_key: Any, queryset: Any, *, help_text: str = "", **kw: Any) -> Any:
    """A choice of one model's rows that searches on the server: ten thousand customers do not fill the page.

    `foreign_key` is any field that points at the model; its admin's search and view permission apply.
    """
    return forms.ModelChoiceField(
        label=label,
        queryset=queryset,
        help_text=help_text,
        widget=SearchSelect(foreign_key, admin.site, attrs={"data-placeholder": "Type a name or an id"}),
        **kw,
    )
