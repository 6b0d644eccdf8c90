"""The documentation says what the code does: every code, every ignored field, and a page that needs nobody else."""

import json
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client

from billing.api import serializers as billing
from customers.api import serializers as customers
from customers.api.fields import Request
from meters.api import serializers as meters
from tests.api.client import operations, schema

PAGE = (Path(settings.BASE_DIR) / "docs" / "api.md").read_text()
# Raised where only the admin and commands can meet them.
ADMIN_ONLY = {
    "INVOICE_NOT_PAYABLE",
    "INVOICE_NOT_VOIDABLE",
    "INVOICE_NOT_CREDITABLE",
    "INVOICE_NOT_DRAFT",
    "INVOICE_HELD",
    "NUMBER_SERIES_IN_USE",
    "INGESTION_BUSY",
    "USAGE_NOT_PROVED",
    "API_KEY_ALREADY_REVOKED",
    "NOT_ACCEPTABLE",
    "ARCHIVE_REFUSED",
    "IMPORT_FAILED",
    "VOIDED",
}


def test_every_error_code_is_documented() -> None:
    found: set[str] = set()
    for folder in ("customers", "meters", "billing", "config"):
        for path in (Path(settings.BASE_DIR) / folder).rglob("*.py"):
            # The codes of a PricingInvalid are words within, and never an answer's code.
            if {"migrations", "admin", "portal", "up", "pricing"} & set(path.parts):
                continue
            found |= set(re.findall(r'\b(?:default_)?code\s*=\s*"([A-Z_]{5,})"', path.read_text()))
            found |= set(re.findall(r'json_error\(\s*\d+,\s*"([A-Z_]+)"', path.read_text()))
    assert {"CUSTOMER_ID_ALREADY_EXISTS", "INTERNAL_SERVER_ERROR", "METER_IS_DELETED"} <= found
    assert {code for code in found - ADMIN_ONLY if f"`{code}`" not in PAGE} == set()


def test_every_field_that_is_ignored_or_refused_is_documented() -> None:
    bodies = {
        body
        for module in (billing, customers, meters)
        for body in vars(module).values()
        if isinstance(body, type) and issubclass(body, Request)
    }
    assert len(bodies) > 10
    families = ("credit_entitlement", "license_key", "meter_units_per_credit")  # named in words
    names = set().union(*(body.harmless | body.unsupported for body in bodies))
    names -= {"name", "description", "measurement_unit"}
    assert {name for name in names if not name.startswith(families) and f"`{name}`" not in PAGE} == set()


def test_the_description_is_valid_and_made_without_a_warning(tmp_path: Path) -> None:
    target = tmp_path / "openapi.json"
    call_command("spectacular", format="openapi-json", file=str(target), validate=True, fail_on_warn=True)
    assert json.loads(target.read_text())["info"]["title"] == "Meterbook"


def test_every_operation_says_what_it_does_and_what_can_go_wrong() -> None:
    for method, path in operations():
        operation = schema()["paths"][path][method.lower()]
        assert operation["summary"], path
        assert operation["security"] == [{"bearerKey": []}]
        assert {"401", "503"} < set(operation["responses"]), path
        assert ("404" in operation["responses"]) >= ("{" in path), path


@pytest.mark.django_db
def test_the_page_and_the_schema_are_served_by_us_alone(client: Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.content.decode())
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith("/"), address
    assert "<script>" not in page.content.decode(), "an inline script needs a weaker content policy"
    script = client.get("/docs?script=").content.decode()
    assert "validatorUrl" in script
    assert not re.findall(r"https?://", script)
    served = client.get("/openapi.json")
    assert (served.status_code, served.json()["openapi"]) == (200, "3.1.0")
    assert served.json()["paths"].keys() == schema()["paths"].keys()
