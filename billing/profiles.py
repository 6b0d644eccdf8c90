"""How one customer is billed, where it differs from everybody: tax, review of drafts, combined invoices, series."""

from typing import Any

from django.db import transaction

from billing.models import BillingProfile, NumberSeries
from customers.errors import DomainError
from customers.models import Customer

# A draft that waits longer than a year is a typing error.
MOST_GRACE_HOURS = 366 * 24
_FIELDS = {
    "tax_exempt",
    "exemption_reason",
    "reverse_charge",
    "tax_id",
    "grace_hours",
    "needs_approval",
    "combine_invoices",
    "series",
}
_TEXTS = {"exemption_reason": 255, "tax_id": 100}


class ProfileInvalid(DomainError):
    pass


def profile_of(customer: Customer) -> BillingProfile:
    """The customer's profile; one that is not saved and changes nothing where none was entered."""
    stored = BillingProfile.objects.filter(customer=customer).select_related("series").first()
    return stored if stored is not None else BillingProfile(customer=customer)


@transaction.atomic
def set_profile(*, customer: Customer, **fields: Any) -> BillingProfile:
    """Change the given fields and keep the others; `ProfileInvalid` names the field that is wrong.

    Invoices that are issued keep what they were issued with.
    """
    if unknown := set(fields) - _FIELDS:
        raise TypeError(f"not fields of a billing profile: {sorted(unknown)}")
    # The customer's row stands for the profile's, which may not be there yet.
    Customer.objects.select_for_update().get(pk=customer.pk)
    profile = profile_of(customer)
    for name, value in fields.items():
        setattr(profile, name, value.strip() if name in _TEXTS else value)
    _check(profile)
    profile.save()
    return profile


def _check(profile: BillingProfile) -> None:
    for name, longest in _TEXTS.items():
        if len(getattr(profile, name)) > longest:
            raise ProfileInvalid(f"{name}: may have {longest} characters at most.")
    if profile.tax_exempt and profile.reverse_charge:
        raise ProfileInvalid("A customer is either exempt from tax or accounts for it by reverse charge: choose one.")
    if profile.tax_exempt and not profile.exemption_reason:
        raise ProfileInvalid("exemption_reason: say why the customer is exempt from tax; it is printed on the invoice.")
    if profile.reverse_charge and not profile.tax_id:
        raise ProfileInvalid("tax_id: a reverse charge needs the customer's tax id; it is printed on the invoice.")
    hours = profile.grace_hours
    if hours is not None and not 0 <= hours <= MOST_GRACE_HOURS:
        raise ProfileInvalid(f"grace_hours: use 0 to {MOST_GRACE_HOURS} hours.")
    if profile.series_id is not None and not NumberSeries.objects.filter(pk=profile.series_id).exists():
        raise ProfileInvalid("series: there is no such number series.")
