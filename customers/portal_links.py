"""Signed, expiring links into a customer's own pages: made, looked up, revoked.

A link carries 256 random bits. The row keeps their SHA-256 only: a copy of the database opens nobody's pages.
"""

import hashlib
import secrets
from datetime import datetime

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.urls import reverse

from customers.errors import DomainError
from customers.models import Customer, PortalLink

_TOKEN_BYTES = 32
_LONGEST_RETURN_URL = 2000
# Nothing but http(s): the address becomes a link on the customer's page, where javascript: would be code.
_check_return_url = URLValidator(schemes=["http", "https"])


class InvalidReturnUrl(DomainError):
    """The address to come back to is not one a browser may be sent to."""


def create_portal_link(*, customer: Customer, now: datetime, return_url: str = "") -> tuple[PortalLink, str]:
    """A fresh link of this customer and its address. The address is known here and never again."""
    if return_url:
        _refuse_odd_return_url(return_url)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    link = PortalLink.objects.create(
        customer=customer,
        token_hash=_digest(token),
        return_url=return_url,
        expires_at=now + settings.PORTAL_LINK_LIFETIME,
    )
    return link, settings.BASE_URL + reverse("portal:enter", kwargs={"token": token})


def find_portal_link(*, token: str, now: datetime) -> PortalLink | None:
    """The link that this token opens; None where it is unknown, revoked or past its time."""
    link = PortalLink.objects.select_related("customer").filter(token_hash=_digest(token)).first()
    return link if link is not None and link.is_valid(now=now) else None


def find_open_link(*, link_id: int, now: datetime) -> PortalLink | None:
    """The link behind a browser's session, read anew on each page so that revoking works at once."""
    link = PortalLink.objects.select_related("customer").filter(pk=link_id).first()
    return link if link is not None and link.is_valid(now=now) else None


def revoke_portal_link(*, link: PortalLink, now: datetime) -> None:
    """Close the link and every browser that came in through it. Closing it twice keeps the first instant."""
    PortalLink.objects.filter(pk=link.pk, revoked_at__isnull=True).update(revoked_at=now)
    link.refresh_from_db(fields=["revoked_at"])


def revoke_portal_links(*, customer: Customer, now: datetime) -> int:
    """Close every open link of this customer; how many there were."""
    return PortalLink.objects.filter(customer=customer, revoked_at__isnull=True, expires_at__gt=now).update(
        revoked_at=now
    )


def _refuse_odd_return_url(return_url: str) -> None:
    if len(return_url) > _LONGEST_RETURN_URL:
        raise InvalidReturnUrl(f"return_url may have {_LONGEST_RETURN_URL} characters at most.")
    try:
        _check_return_url(return_url)
    except ValidationError as error:
        raise InvalidReturnUrl("return_url must be an address that begins with http:// or https://.") from error


def _digest(token: str) -> bytes:
    # A presented token may hold any text at all, lone surrogates included.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
