"""A client of the REST API as an application sees it: JSON in, JSON out, and only the expected status will do."""

from datetime import timedelta
from io import StringIO
from typing import Any
from urllib.parse import quote

import msgspec
from django.core.management import call_command
from django.test import Client
from django.utils.dateparse import parse_datetime

from customers.keys import create_api_key

MONTHLY = {
    "payment_frequency_count": 1,
    "payment_frequency_interval": "Month",
    "subscription_period_count": 20,
    "subscription_period_interval": "Year",
}


class Api:
    """`api.post("/meters", {...})` answers the decoded JSON of a 2xx."""

    def __init__(self) -> None:
        _, self.key = create_api_key(name="scenario")
        self._client = Client(headers={"authorization": f"Bearer {self.key}"})
        self._sent = 0

    def _answer(self, response: Any, expect: int | None) -> Any:
        wanted = range(200, 300) if expect is None else [expect]
        assert response.status_code in wanted, f"{response.status_code}: {response.content[:500]!r}"
        return msgspec.json.decode(response.content) if response.content else None

    def get(self, path: str, expect: int | None = None, **query: Any) -> Any:
        return self._answer(self._client.get(path, query), expect)

    def post(self, path: str, body: Any = None, expect: int | None = None) -> Any:
        data = msgspec.json.encode(body if body is not None else {})
        return self._answer(self._client.post(path, data, content_type="application/json"), expect)

    def patch(self, path: str, body: Any, expect: int | None = None) -> Any:
        data = msgspec.json.encode(body)
        return self._answer(self._client.patch(path, data, content_type="application/json"), expect)

    # -- the words of a story ------------------------------------------------------------------------------

    def customer(self, name: str = "Acme") -> str:
        return str(self.post("/customers", {"name": name, "email": "pay@acme.example"})["customer_id"])

    def meter(self, aggregation: str = "count", key: str | None = None, event_name: str = "api.call") -> str:
        return str(
            self.post(
                "/meters",
                {
                    "name": event_name,
                    "event_name": event_name,
                    "measurement_unit": "units",
                    "aggregation": {"type": aggregation, "key": key} if key else {"type": aggregation},
                },
            )["id"]
        )

    def usage_product(self, *meters: dict[str, Any], fixed_price: int = 0, currency: str = "USD") -> str:
        price = {
            "type": "usage_based_price",
            "currency": currency,
            "fixed_price": fixed_price,
            "discount": 0,
            "purchasing_power_parity": False,
            "meters": list(meters),
            **MONTHLY,
        }
        body = {"name": "Product", "tax_category": "saas", "price": price}
        return str(self.post("/products", body)["product_id"])

    def subscribe(self, customer: str, product: str, quantity: int = 1) -> str:
        body = {
            "billing": {"country": "US"},
            "customer": {"customer_id": customer},
            "product_id": product,
            "quantity": quantity,
        }
        return str(self.post("/subscriptions", body)["subscription_id"])

    def ingest(self, customer: str, *metadata: dict[str, Any] | None, event_name: str = "api.call") -> int:
        """One event now for each metadata, in batches of a thousand."""
        count = 0
        for first in range(0, len(metadata), 1000):
            events = []
            for values in metadata[first : first + 1000]:
                self._sent += 1
                events.append(
                    {
                        "event_id": f"evt_{self._sent}",
                        "customer_id": customer,
                        "event_name": event_name,
                        "metadata": values,
                    }
                )
            count += self.post("/events/ingest", {"events": events})["ingested_count"]
        return count

    def close(self, subscription: str) -> dict[str, Any]:
        """Close the running period as an operator would, early, and answer the payment that came of it."""
        ends = parse_datetime(self.get(f"/subscriptions/{quote(subscription)}")["next_billing_date"])
        assert ends is not None
        known = {p["payment_id"] for p in self.get("/payments", subscription_id=subscription)["items"]}
        call_command("close_cycles", "--until", (ends + timedelta(hours=1)).isoformat(), stdout=StringIO())
        (payment,) = [
            p for p in self.get("/payments", subscription_id=subscription)["items"] if p["payment_id"] not in known
        ]
        return dict(self.get(f"/payments/{payment['payment_id']}"))

    def lines(self, payment: dict[str, Any]) -> list[int]:
        """The amounts of the payment's lines, in the order they are printed."""
        items = self.get(f"/payments/{payment['payment_id']}/line-items")["items"]
        return [item["amount"] for item in items]
