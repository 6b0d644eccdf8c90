"""Who is visiting: the link's token is exchanged once for a cookie, and every page asks for it.

The cookie holds the signed number of the link's row, never the token, and the row is read on each request: an
expired or revoked link closes at once every browser that came in through it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any

from django.conf import settings
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import render
from django.utils import timezone

from customers.models import Customer, PortalLink
from customers.portal_links import find_open_link

_SALT = "customers.portal"
_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a customer to their own pages."""

    link: PortalLink
    customer: Customer
    now: datetime


def cookie_name() -> str:
    """The `__Host-` prefix makes browsers refuse the cookie from another host or without TLS."""
    return "__Host-portal" if settings.HTTPS else "portal"


def let_in(response: HttpResponse, *, link: PortalLink, now: datetime) -> None:
    """Remember the link in this browser until it expires."""
    response.set_cookie(
        cookie_name(),
        signing.dumps(link.pk, salt=_SALT),
        max_age=link.expires_at - now,
        path="/",
        secure=settings.HTTPS,
        httponly=True,
        samesite="Lax",
    )


def show_out(response: HttpResponse) -> None:
    """Forget the link in this browser."""
    response.set_cookie(cookie_name(), "", max_age=0, path="/", secure=settings.HTTPS, httponly=True, samesite="Lax")


def portal_page(
    view: Callable[..., HttpResponse], *, methods: tuple[str, ...] = ("GET", "HEAD")
) -> Callable[..., HttpResponse]:
    """A page for the customer behind the cookie: friendly without one, and friendly about what is not theirs."""

    @wraps(view)
    def page(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method not in methods:
            return guarded(HttpResponseNotAllowed(methods))
        visit = _visit(request)
        if visit is None:
            return no_access(request)
        try:
            response = view(request, visit, *args, **kwargs)
        except Http404:
            response = render(
                request, "portal/not_found.html", {"visit": visit, "brand": settings.SELLER_NAME}, status=404
            )
        return guarded(response)

    return page


def no_access(request: HttpRequest) -> HttpResponse:
    """What somebody without a valid link sees. It says the same whether the link is unknown, expired or revoked."""
    response = render(request, "portal/no_access.html", {"seller_email": settings.SELLER_EMAIL}, status=403)
    return guarded(response)


def guarded(response: HttpResponse) -> HttpResponse:
    """Nothing from elsewhere runs on a customer's page, nothing of it is kept, and no address of it leaks."""
    response["Content-Security-Policy"] = _POLICY
    # Not "no-referrer": with it a browser posts our own forms with `Origin: null`, which is refused as forged.
    response["Referrer-Policy"] = "same-origin"
    response["Cache-Control"] = "no-store"
    response["X-Robots-Tag"] = "noindex"
    return response


def _visit(request: HttpRequest) -> Visit | None:
    now = timezone.now()
    try:
        link_id = signing.loads(request.COOKIES.get(cookie_name(), ""), salt=_SALT)
    except signing.BadSignature:
        return None
    link = find_open_link(link_id=link_id, now=now)
    return None if link is None else Visit(link, link.customer, now)
