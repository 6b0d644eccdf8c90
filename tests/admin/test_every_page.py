"""A walk over every page of the admin: it opens, it changes nothing, it escapes, and it asks who you are."""

from typing import Any

from django.test import Client
from django.urls import reverse

from billing.models import Invoice, InvoiceLine
from tests.admin.house import House, nothing_changes, operator, registered, some

MODELS = [name for name, _, _ in registered()]
SEARCHES = ["acme", "INV-000001", "%'; --", "ünï" * 100]


def _find(name: str) -> tuple[Any, Any]:
    return next((model, model_admin) for found, model, model_admin in registered() if found == name)


def pages_of(name: str, house: House) -> list[str]:
    """Every address of a model that shows something by GET."""
    model, model_admin = _find(name)
    pages = [reverse(f"admin:{name}_changelist")]
    if model_admin.has_add_permission(_Root()):
        pages.append(reverse(f"admin:{name}_add"))
    row = some(model, house)
    if row is not None:
        pages.append(reverse(f"admin:{name}_change", args=[row.pk]))
        pages.append(reverse(f"admin:{name}_history", args=[row.pk]))
        if getattr(model_admin, "edit_form", None):
            pages.append(reverse(f"admin:{name}_edit", args=[row.pk]))
    pages += [
        f"{pages[0]}?{model_admin.list_tab_parameter}={value}" for value, _ in getattr(model_admin, "list_tabs", ())
    ]
    return pages


class _Root:
    class user:
        @staticmethod
        def has_perm(name: str, obj: Any = None) -> bool:
            return True


def _line_pages(house: House) -> list[str]:
    """The events of a metered line, and what a line without any says."""
    pages = []
    for line in InvoiceLine.objects.filter(invoice__customer=house.customer, charge__isnull=False)[:2]:
        address = reverse("admin:billing_invoice_line_events", args=[line.invoice_id, line.pk])
        pages += [address, f"{address}?after=nonsense"]
    assert pages
    return pages


def other_pages(house: House) -> list[str]:
    """Pages that belong to no model's list, form or row."""
    start = reverse("admin:billing_billingrun_start")
    customer = reverse("admin:customers_customer_change", args=[house.customer.pk])
    meter = reverse("admin:meters_meter_change", args=[house.tokens.pk])
    return [
        reverse("admin:index"),
        reverse("admin:billing_ignoredcorrection_pending"),
        start,
        f"{start}?until=&only=",
        f"{start}?until=2026-01-01T00:00&only={house.subscription.pk}",
        f"{start}?until=nonsense&only=x,1,-3",
        f"{start}?until=9999-01-01T00:00&only=",
        reverse("admin:billing_billingrun_progress", args=[house.run.pk]),
        reverse("admin:billing_product_price", args=[house.product.pk]),
        reverse("admin:billing_product_calculate", args=[house.product.pk]),
        reverse("admin:billing_invoice_document", args=[house.open_invoice.pk]),
        reverse("admin:billing_invoice_verify", args=[house.open_invoice.pk]),
        *_line_pages(house),
        *(
            reverse("admin:billing_invoice_change", args=[invoice.pk])
            for invoice in (house.paid_invoice, house.credited_invoice, house.draft)
        ),
        *(
            reverse("admin:billing_invoice_credit_note", args=[invoice.pk])
            for invoice in (house.open_invoice, house.credited_invoice, house.draft)
        ),
        reverse("admin:billing_creditnote_document", args=[house.note.pk]),
        reverse("admin:billing_numberseries_change", args=[house.series.pk]),
        *(f"{customer}?tab={tab}" for tab in ("usage", "subscriptions", "invoices", "money", "details", "nonsense")),
        *(f"{meter}?days={days}" for days in ("7", "90", "-1", "x")),
        *(
            reverse(f"admin:billing_{name}_change", args=[row.pk]) + f"?page={page}"
            for name, row in (("balance", house.balance), ("creditgrant", house.grant))
            for page in ("1", "-1", "x", "99999999999")
        ),
        reverse("admin:billing_creditgrant_add") + f"?customer={house.customer.pk}",
        reverse("admin:meters_event_changelist") + "?event_name=api.call&customer=cus_acme",
        reverse("admin:meters_event_changelist") + "?customer=nobody",
        reverse("admin:meters_event_changelist") + "?q=nothing-like-it",
        reverse("admin:search") + "?s=acme",
    ]


def test_it_opens_every_page_of_a_model_and_changes_nothing(house: House, root: Client) -> None:
    for url in [url for name in MODELS for url in pages_of(name, house)]:
        with nothing_changes(f"GET {url}"):
            answer = root.get(url)
        assert answer.status_code == 200, url


def test_it_opens_every_other_page_and_changes_nothing(house: House, root: Client) -> None:
    for url in other_pages(house):
        with nothing_changes(f"GET {url}"):
            answer = root.get(url)
        assert answer.status_code == 200, url


def test_it_shows_nothing_to_a_stranger_or_to_staff_without_permission(house: House) -> None:
    nobody = operator(views=False)
    for url in [url for name in MODELS for url in pages_of(name, house)]:
        assert Client().get(url).status_code == 302, url
        assert nobody.get(url).status_code in (302, 403), url


def test_it_shows_no_other_page_to_staff_without_permission(house: House) -> None:
    nobody = operator(views=False)
    for url in other_pages(house):
        if url in (reverse("admin:index"), reverse("admin:search") + "?s=acme"):
            assert b"Acme" not in nobody.get(url).content
        else:
            assert nobody.get(url).status_code in (302, 403), url


def test_it_searches_every_list_without_an_error(house: House, root: Client) -> None:
    for name in MODELS:
        if _find(name)[1].search_fields:
            for text in SEARCHES:
                answer = root.get(reverse(f"admin:{name}_changelist"), {"q": text})
                assert answer.status_code == 200, (name, text)


def test_it_answers_an_unknown_row_with_a_message_or_404(house: House, root: Client) -> None:
    for name in MODELS:
        for key in ("999999999", "nonsense"):
            answer = root.get(reverse(f"admin:{name}_change", args=[key]), follow=True)
            assert answer.status_code in (200, 404), (name, key)


def test_it_offers_no_deletion_of_what_billing_stands_on(house: House, root: Client) -> None:
    deletable = {
        name
        for name, _, model_admin in registered()
        if model_admin.has_delete_permission(root.get("/admin/").wsgi_request)
    }
    assert deletable == {
        "auth_user",
        "auth_group",
        "django_celery_beat_periodictask",
        "django_celery_beat_intervalschedule",
        "django_celery_beat_crontabschedule",
    }


def test_every_object_of_the_house_is_registered() -> None:
    names = {name for name, _, _ in registered()}
    assert names >= {
        "customers_customer",
        "customers_apikey",
        "meters_meter",
        "meters_event",
        "billing_product",
        "billing_subscription",
        "billing_invoice",
        "billing_creditnote",
        "billing_numberseries",
        "billing_payment",
        "billing_balance",
        "billing_creditgrant",
        "billing_taxrate",
        "billing_ignoredcorrection",
        "billing_billingrun",
        "django_celery_beat_periodictask",
        "auth_user",
        "auth_group",
    }


def test_the_pdf_is_the_invoice(house: House, root: Client) -> None:
    answer = root.get(reverse("admin:billing_invoice_document", args=[house.open_invoice.pk]))
    assert answer["Content-Type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF-")
    assert "no-store" in answer["Cache-Control"]


def test_an_issued_invoice_is_read_only(house: House, root: Client) -> None:
    url = reverse("admin:billing_invoice_change", args=[house.open_invoice.pk])
    with nothing_changes("POST to an invoice's page"):
        assert root.post(url, {"total": "1"}).status_code == 405
    assert root.post(reverse("admin:billing_invoice_delete", args=[house.open_invoice.pk])).status_code == 403
    assert Invoice.objects.filter(pk=house.open_invoice.pk).exists()


def test_every_admin_list_is_known_to_the_menu(house: House, root: Client) -> None:
    page = root.get(reverse("admin:index")).content.decode()
    hidden = {
        "django_celery_beat_intervalschedule",
        "django_celery_beat_crontabschedule",
        "billing_ignoredcorrection",  # beside what is pending, which is in the menu
    }
    for name, _, _ in registered():
        if name not in hidden:
            assert f'href="{reverse(f"admin:{name}_changelist")}"' in page, name
