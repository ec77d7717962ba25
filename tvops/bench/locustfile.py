"""A locustfile for those who have Locust: orders and figures over HTTP, each order with an id of its own.

    pip install locust
    locust -f "$(tvops bench locustfile)" --host http://127.0.0.1:8000

It runs inside Locust and imports nothing of tvops: copy it to any machine. Locust's users wait for
each answer (a closed loop): its percentiles leave out what was never sent while the stack stalled. `tvops bench`
sends by the clock.

$TVOPS_API_KEY is the key, $TVOPS_SYMBOL the instrument (ETH-USDT), $TVOPS_PRICE a price below its market (100).
"""

from __future__ import annotations

import os
import uuid
from typing import Any

from locust import HttpUser, between, task  # type: ignore[import-not-found,unused-ignore]


class Trader(HttpUser):  # type: ignore[misc,unused-ignore]
    """Places orders that rest far below the market, takes each back, and looks at the figures now and then."""

    wait_time = between(0.05, 0.2)

    def on_start(self) -> None:
        """Take the key, and a name that no other user has."""
        self.name = uuid.uuid4().hex[:12]
        self.count = 0
        if key := os.environ.get("TVOPS_API_KEY"):
            self.client.headers["X-API-Key"] = key

    @task(10)
    def place_and_cancel(self) -> None:
        """Place an order and take it back."""
        self.count += 1
        order = {
            "symbol": os.environ.get("TVOPS_SYMBOL", "ETH-USDT"), "side": "buy", "order_type": "limit",
            "price": os.environ.get("TVOPS_PRICE", "100"), "quantity": "0.01",
            "client_order_id": f"locust-{self.name}-{self.count}",
        }  # fmt: skip
        placed: dict[str, Any] = {}
        with self.client.post("/v1/orders", json=order, name="new", catch_response=True) as answer:
            if answer.status_code != 201:
                answer.failure(f"{answer.status_code}: {answer.text[:200]}")
                return
            placed = answer.json()
        self.client.delete(f"/v1/orders/{placed['order_id']}", name="cancel")

    @task(1)
    def look_at_figures(self) -> None:
        """Read the figures of the gateway."""
        self.client.get("/stats", name="stats")
