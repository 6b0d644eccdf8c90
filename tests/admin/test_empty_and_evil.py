"""The admin with nothing in it, and with names that would do harm on a page that does not escape them."""

from django.test import Client
from django.urls import reverse

from tests.admin.house import EVIL, build_house, registered
from tests.admin.test_every_page import other_pages, pages_of


def test_it_escapes_what_people_and_applications_typed(db: None, root: Client) -> None:
    house = build_house(EVIL)
    for name, _, _ in registered():
        for url in [*pages_of(name, house)]:
            assert EVIL.encode() not in root.get(url).content, url
    for url in other_pages(house):
        answer = root.get(url)
        if answer["Content-Type"].startswith("text/html"):
            assert EVIL.encode() not in answer.content, url


def test_empty_lists_say_what_to_do_next(db: None, root: Client) -> None:
    for name, _, model_admin in registered():
        title, hint = getattr(model_admin, "empty_state", ("", ""))
        if not title or name == "django_celery_beat_periodictask":
            continue
        page = root.get(reverse(f"admin:{name}_changelist")).content.decode()
        assert title in page, name
        assert hint[:40].replace("'", "&#x27;") in page, name
