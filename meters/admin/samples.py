"""What an application would send: the same event as curl and with the SDK, with real names in it."""

import json
from collections.abc import Mapping
from typing import Any

from django.conf import settings


def event_payload(*, event_name: str, metadata: Mapping[str, Any], customer_id: str) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "event_id": "evt_unique_123",
        "customer_id": customer_id,
        "event_name": event_name,
    }
    if metadata:
        payload["metadata"] = dict(metadata)
    return payload


def as_curl(payload: Mapping[str, Any]) -> str:
    body = json.dumps({"events": [payload]}, indent=2, ensure_ascii=False).replace("'", "'\\''")
    return (
        f"curl {settings.BASE_URL}/events/ingest \\\n"
        '  -H "Authorization: Bearer $METERBOOK_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{body}'"
    )


def as_python(payload: Mapping[str, Any]) -> str:
    lines = ",\n        ".join(f"{key!r}: {value!r}" for key, value in payload.items())
    return (
        "from dodopayments import DodoPayments\n\n"
        f'client = DodoPayments(bearer_token=METERBOOK_KEY, base_url="{settings.BASE_URL}")\n'
        "client.usage_events.ingest(events=[\n"
        f"    {{\n        {lines}\n    }}\n"
        "])"
    )


def as_typescript(payload: Mapping[str, Any]) -> str:
    event = json.dumps(payload, indent=2, ensure_ascii=False).replace("\n", "\n  ")
    return (
        "import DodoPayments from 'dodopayments';\n\n"
        f"const client = new DodoPayments({{ bearerToken: METERBOOK_KEY, baseURL: '{settings.BASE_URL}' }});\n"
        "await client.usageEvents.ingest({\n"
        f"  events: [{event}],\n"
        "});"
    )
