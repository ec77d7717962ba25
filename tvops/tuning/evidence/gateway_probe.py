"""The engine's own answer: an order over HTTP that goes through ledger and matching and leaves nothing behind."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tvops.errors import UsageError
from tvops.tuning.evidence.probes import ANSWER_SECONDS, Probe, ProbeError, Samples


class OrderAck(Probe):
    """How long an order takes until the gateway says that it is on disk and matched.

    The order buys the smallest quantity at the lowest price that the instrument can have, fill or kill: nobody
    sells there, so it is accepted and cancelled at once. The ledger and the list of orders keep it.
    """

    name = "order_ack"
    most_samples = 200  # each stays in the ledger and in the account's list of orders

    def __init__(self, url: str, api_key: str = "", symbol: str = "") -> None:
        """Take the gateway at ``url``; raise UsageError where that is none."""
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            secure = parts.scheme == "https"
            self._host, self._port = parts.hostname or "127.0.0.1", parts.port or (443 if secure else 80)
        except ValueError as error:
            raise UsageError(f"gateway: is no address such as http://127.0.0.1:8000: {error}") from None
        self._connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._headers = {"Content-Type": "application/json"} | ({"X-API-Key": api_key} if api_key else {})
        self._symbol = symbol
        self._order: dict[str, Any] = {}
        self._connection: http.client.HTTPConnection | None = None
        where = f"{self._host}:{self._port}"
        self.description = f"POST /v1/orders to {where}: fill or kill at the lowest price; durable and matched"
        self.sent = (
            f"orders to {where} ({symbol or 'the first instrument'}): buy the smallest quantity at the lowest "
            "price, fill or kill; each was cancelled at once, and stays in the ledger and the list of orders"
        )

    def simulated(self) -> bool:
        """Tell whether a gateway answers there that trades a simulated market and asks for no key."""
        try:
            self._open()
            config = self._ask("GET", "/v1/config")
        except ProbeError:
            return False
        finally:
            self.close()
        return bool(config.get("simulated")) and not config.get("keys_required")

    def setup(self) -> None:
        """Connect and learn what the order is; raise ProbeError."""
        self._open()
        if not self._order:
            answer = self._ask("GET", "/v1/symbols")
            try:
                found = next((s for s in answer["symbols"] if self._symbol in ("", s["symbol"])), None)
                if found is None:
                    raise ProbeError(f"the gateway has no instrument {self._symbol}".rstrip())
                self._order = {
                    "symbol": found["symbol"], "side": "buy", "order_type": "limit", "time_in_force": "FOK",
                    "quantity": found["lot_size"], "price": found["price_low"],
                }  # fmt: skip
            except (KeyError, TypeError):
                raise ProbeError("what answers there is no tvops gateway") from None

    def _open(self) -> None:
        self._connection = self._connect(self._host, self._port, timeout=ANSWER_SECONDS)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        assert self._connection is not None
        try:
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
            text = response.read(1 << 20)
            answer = json.loads(text) if response.status < 300 else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ProbeError(f"the gateway does not answer: {type(error).__name__}") from None
        if not isinstance(answer, dict):
            raise ProbeError(f"the gateway answers {response.status} to {method} {path}")
        return answer

    def once(self) -> Callable[[], None]:
        """Place the order and read the answer."""
        assert self._connection is not None
        connection, body, headers = self._connection, json.dumps(self._order).encode(), self._headers

        def place() -> None:
            connection.request("POST", "/v1/orders", body, headers)
            response = connection.getresponse()
            response.read()
            if response.status != 201:
                raise ProbeError(f"the gateway answers {response.status} to an order")

        return place

    def sample(self, count: int, seconds: float) -> Samples:
        """Give the times from request to answer."""
        try:
            return super().sample(count, seconds)
        except (OSError, http.client.HTTPException) as error:
            raise ProbeError(f"the gateway does not answer: {type(error).__name__}") from None

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
