"""The way in: what a link opens, for how long, and what of it is left behind."""

import hashlib
import logging
from datetime import timedelta

import pytest
import time_machine
from django.conf import settings
from django.test import Client, override_settings

from customers.errors import DomainError
from customers.models import PortalLink
from customers.portal_links import (
    create_portal_link,
    find_portal_link,
    revoke_portal_link,
    revoke_portal_links,
)
from tests.base import acme, at, globex
from tests.portal.visit import come_in, path_of

pytestmark = pytest.mark.django_db

NOON = "2026-03-10T12:00"


@pytest.fixture(autouse=True)
def _noon() -> object:
    with time_machine.travel(at(NOON), tick=False) as clock:
        yield clock


def token_of(address: str) -> str:
    return address.rpartition("/")[2]


def test_a_link_carries_256_random_bits_and_only_their_hash_is_stored() -> None:
    link, address = create_portal_link(customer=acme(), now=at(NOON))
    token = token_of(address)
    assert len(token) == 43  # 32 bytes, six bits a letter
    assert bytes(PortalLink.objects.get(pk=link.pk).token_hash) == hashlib.sha256(token.encode()).digest()
    assert token_of(create_portal_link(customer=link.customer, now=at(NOON))[1]) != token


def test_a_link_opens_the_pages_and_leaves_a_clean_address() -> None:
    customer = acme()
    _link, address = create_portal_link(customer=customer, now=at(NOON))
    client = Client()
    answer = client.get(path_of(address), follow=True)
    assert answer.redirect_chain == [("/portal/", 302)]
    assert answer.status_code == 200
    assert "Acme" in answer.content.decode()
    assert token_of(address) not in answer.content.decode()
    assert token_of(address) not in str(client.cookies)


def test_the_cookie_is_closed_to_scripts_and_other_sites_and_ends_with_the_link() -> None:
    _link, address = create_portal_link(customer=acme(), now=at(NOON))
    client = Client()
    client.get(path_of(address))
    cookie = client.cookies["portal"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"], cookie["domain"]) == (
        True,
        "Lax",
        "/",
        "",
        "",
    )
    assert cookie["max-age"] == settings.PORTAL_LINK_LIFETIME.total_seconds()


@override_settings(HTTPS=True)
def test_over_tls_the_cookie_is_bound_to_the_host() -> None:
    _link, address = create_portal_link(customer=acme(), now=at(NOON))
    client = Client()
    client.get(path_of(address), secure=True)
    cookie = client.cookies["__Host-portal"]
    assert (cookie["secure"], cookie["path"], cookie["domain"], cookie["httponly"]) == (True, "/", "", True)
    assert client.get("/portal/", secure=True).status_code == 200


def test_a_link_works_until_its_last_moment_and_not_after() -> None:
    link, address = create_portal_link(customer=acme(), now=at(NOON))
    last = link.expires_at
    assert last == at(NOON) + timedelta(hours=24)
    assert find_portal_link(token=token_of(address), now=last - timedelta(microseconds=1)) == link
    assert find_portal_link(token=token_of(address), now=last) is None


@pytest.mark.parametrize("how", ["expired", "revoked"])
def test_a_closed_link_closes_the_browser_that_came_in_through_it(how: str) -> None:
    customer = acme()
    client = come_in(customer, on=NOON)
    assert client.get("/portal/").status_code == 200
    if how == "revoked":
        revoke_portal_link(link=customer.portal_links.get(), now=at(NOON))
        later = at(NOON)
    else:
        later = at(NOON) + timedelta(hours=24)
    with time_machine.travel(later, tick=False):
        answer = client.get("/portal/")
    assert answer.status_code == 403
    assert "This link no longer opens" in answer.content.decode()
    assert "Acme" not in answer.content.decode()


def test_revoking_all_links_of_a_customer_leaves_those_of_others() -> None:
    mine, theirs = acme(), globex()
    create_portal_link(customer=mine, now=at(NOON))
    create_portal_link(customer=mine, now=at(NOON))
    other, address = create_portal_link(customer=theirs, now=at(NOON))
    assert revoke_portal_links(customer=mine, now=at(NOON)) == 2
    assert revoke_portal_links(customer=mine, now=at(NOON)) == 0
    assert find_portal_link(token=token_of(address), now=at(NOON)) == other


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "x" * 5000,
        "../../admin",
        "ünï/code",
        "' OR 1=1--",
        "a b",
    ],
)
def test_an_unknown_link_gets_a_page_that_says_what_to_do(token: str) -> None:
    client = Client()
    answer = client.get(f"/portal/s/{token}", follow=True)
    assert (answer.redirect_chain, answer.status_code) == ([("/portal/closed", 302)], 403)
    assert "What to do:" in answer.content.decode()
    assert "portal" not in client.cookies


def test_unknown_expired_and_revoked_links_cannot_be_told_apart() -> None:
    customer = acme()
    pages = []
    revoked, first = create_portal_link(customer=customer, now=at(NOON))
    revoke_portal_link(link=revoked, now=at(NOON))
    _old, second = create_portal_link(customer=customer, now=at(NOON) - timedelta(days=2))
    for path in (path_of(first), path_of(second), "/portal/s/unknown"):
        answer = Client().get(path, follow=True)
        pages.append((answer.status_code, answer.redirect_chain, answer.content))
    assert pages[0] == pages[1] == pages[2]


def test_no_token_reaches_a_log_or_a_referrer(caplog: pytest.LogCaptureFixture) -> None:
    customer = acme()
    good = create_portal_link(customer=customer, now=at(NOON))[1]
    expired = create_portal_link(customer=customer, now=at(NOON) - timedelta(days=2))[1]
    with caplog.at_level(logging.DEBUG):
        for address in (good, expired):
            for path in (path_of(address), path_of(address) + "/"):
                answer = Client().get(path)
                assert answer.status_code == 302
                assert answer["Referrer-Policy"] == "no-referrer"
                assert token_of(address) not in answer["Location"]
                posted = Client(enforce_csrf_checks=True).post(path)
                assert (posted.status_code, posted["Location"]) == (302, "/portal/closed")
    for record in caplog.records:
        assert token_of(good) not in record.getMessage()
        assert token_of(expired) not in record.getMessage()


@pytest.mark.parametrize("value", ["", "1", "1:x:y", "null", "eyJhIjoxfQ", "\x7f"])
def test_a_forged_cookie_opens_nothing(value: str) -> None:
    come_in(acme(), on=NOON)
    client = Client()
    client.cookies["portal"] = value
    assert client.get("/portal/").status_code == 403


def test_every_page_is_strict_about_scripts_frames_and_caches() -> None:
    customer = acme()
    client = come_in(customer, on=NOON)
    for path in ("/portal/", "/portal/invoices/", "/portal/nothing-here", "/portal/closed", "/portal/s/unknown"):
        answer = client.get(path)
        assert answer["Content-Security-Policy"].startswith("default-src 'self';"), path
        assert "frame-ancestors 'none'" in answer["Content-Security-Policy"]
        assert "unsafe" not in answer["Content-Security-Policy"]
        assert answer["Cache-Control"] == "no-store", path
        assert answer["Referrer-Policy"] == ("no-referrer" if "/s/" in path else "same-origin"), path


def test_signing_out_needs_a_post_and_forgets_the_browser() -> None:
    client = come_in(acme(), on=NOON)
    assert client.get("/portal/leave").status_code == 405
    assert client.get("/portal/").status_code == 200
    answer = client.post("/portal/leave")
    assert (answer.status_code, "You are signed out" in answer.content.decode()) == (200, True)
    assert client.get("/portal/").status_code == 403


def test_signing_out_from_another_site_is_refused() -> None:
    client = come_in(acme(), on=NOON, client=Client(enforce_csrf_checks=True))
    assert client.post("/portal/leave").status_code == 403
    assert client.get("/portal/").status_code == 200


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "data:text/html,x", "//elsewhere.example", "ftp://a.example", "x", "https://" + "a" * 3000],
)
def test_a_return_address_must_be_an_ordinary_web_address(url: str) -> None:
    with pytest.raises(DomainError, match="return_url"):
        create_portal_link(customer=acme(), now=at(NOON), return_url=url)
    assert not PortalLink.objects.exists()


def test_the_way_back_is_offered_where_the_application_named_it() -> None:
    client = come_in(acme(), on=NOON, return_url="https://app.example/billing?a=1&b=2")
    page = client.get("/portal/").content.decode()
    assert 'href="https://app.example/billing?a=1&amp;b=2"' in page
