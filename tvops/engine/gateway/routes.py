"""The route table: one list that requests are matched against and OpenAPI is generated from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvops.engine.gateway import schemas
from tvops.engine.gateway.calls import Answer, Call
from tvops.engine.gateway.problems import refuse

BODY_LIMIT = 64 * 1024
BATCH_BODY_LIMIT = 1024 * 1024

Handler = Callable[[Call], Answer | None]
"""Answers a call at once, or gives None and answers it later."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API."""

    method: str
    path: str  # "{name}" at its end stands for a variable part
    handler: str  # name of the method of `Api`
    summary: str
    response: Any  # type of the answer's body
    status: int = 200
    body: Any = None  # type of the request's body
    query: type = schemas.NoQuery
    problems: tuple[str, ...] = ()  # codes that belong to this operation, beyond those that all have
    public: bool = False  # needs no key
    negotiated: bool = False  # the Accept header chooses the encoding
    admin: bool = False
    body_limit: int = BODY_LIMIT


_NUMBERS = ("symbol_not_found", "invalid_price", "invalid_quantity")
_COMMAND = ("rate_limited", "busy", "ledger_unavailable", "shutting_down", "fate_unknown")
_CHANGE = ("order_not_found", "order_not_open", *_COMMAND)

ROUTES = (
    Route("POST", "/v1/orders", "place", "Place an order", schemas.PlacedOrder, 201, schemas.PlaceOrder,
          problems=(*_NUMBERS, *_COMMAND)),
    Route("POST", "/v1/orders/batch", "place_batch", f"Place up to {schemas.MAX_BATCH} orders at once",
          schemas.BatchResult, body=list[schemas.PlaceOrder], problems=(*_NUMBERS, *_COMMAND),
          body_limit=BATCH_BODY_LIMIT),
    Route("GET", "/v1/orders", "list_orders", "List orders, newest first", schemas.OrderList,
          query=schemas.OrdersQuery, problems=("symbol_not_found",)),
    Route("DELETE", "/v1/orders", "mass_cancel", "Cancel all orders, narrowed by symbol and side",
          schemas.MassCancelResult, query=schemas.CancelQuery, problems=("symbol_not_found", *_COMMAND)),
    Route("GET", "/v1/orders/{id}", "get_order", "Get an order", schemas.Order, problems=("order_not_found",)),
    Route("PATCH", "/v1/orders/{id}", "amend", "Change price and/or total quantity of an order", schemas.Order,
          body=schemas.AmendOrder, problems=("invalid_price", "invalid_quantity", *_CHANGE)),
    Route("DELETE", "/v1/orders/{id}", "cancel", "Cancel an order", schemas.Order, problems=_CHANGE),
    Route("GET", "/v1/positions", "positions", "Get the positions", schemas.PositionList),
    Route("GET", "/v1/executions", "executions", "List executions, newest first", schemas.ExecutionList,
          query=schemas.ExecutionsQuery, problems=("symbol_not_found",)),
    Route("GET", "/v1/book/{symbol}", "book", "Get the levels of our book", schemas.Book, query=schemas.BookQuery,
          problems=("symbol_not_found",)),
    Route("GET", "/v1/symbols", "symbols", "List what can be traded", schemas.SymbolList, public=True),
    Route("GET", "/v1/config", "config", "Get what the page needs", schemas.PageConfig, public=True),
    Route("GET", "/v1/risk/limits", "limits", "List the limits that were set", schemas.RiskLimitList,
          query=schemas.LimitsQuery, admin=True),
    Route("PUT", "/v1/risk/limits", "set_limits", "Set limits; 0 lifts one", schemas.CommandResult,
          body=schemas.RiskLimits, admin=True, problems=(*_NUMBERS, *_COMMAND)),
    Route("POST", "/v1/risk/kill", "kill", "Stop trading of an account, or of all; or lift that",
          schemas.CommandResult, body=schemas.KillSwitch, admin=True, problems=_COMMAND),
    Route("POST", "/v1/risk/halt", "halt", "Halt trading of an instrument, or lift that", schemas.CommandResult,
          body=schemas.Halt, admin=True, problems=("symbol_not_found", *_COMMAND)),
    Route("GET", "/health", "health", "Get the state of every part; 503 where it is not ok", schemas.HealthReport,
          public=True),
    Route("GET", "/stats", "stats", "Get the figures", dict[str, float | int | str]),
    Route("GET", "/metrics", "metrics", "Get the figures for Prometheus, as OpenMetrics where Accept asks for it",
          str, negotiated=True),
    Route("GET", "/telemetry", "telemetry", "Get the telemetry, as MessagePack where Accept asks for it",
          dict[str, Any], negotiated=True),
    Route("GET", "/openapi.json", "openapi", "Get this description", dict[str, Any], public=True),
)  # fmt: skip
"""Every operation of the API."""


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self._exact: dict[bytes, dict[bytes, Route]] = {}
        self._prefixes: dict[bytes, dict[bytes, Route]] = {}
        for route in routes:
            stem, variable, _ = route.path.partition("{")
            paths = self._prefixes if variable else self._exact
            paths.setdefault(stem.encode(), {})[route.method.encode()] = route

    def match(self, method: bytes, path: bytes) -> tuple[Route | None, bytes]:
        """Give the route and the variable part of the path; None where the path is none of the API.

        Raises:
            ProblemError: the path is the API's but not with this method, or nothing is there.
        """
        parameter = b""
        methods = self._exact.get(path)
        if methods is None:
            stem, slash, parameter = path.rpartition(b"/")
            methods = self._prefixes.get(stem + slash) if parameter else None
        if methods is None:
            if path.startswith(b"/v1/"):
                raise refuse("not_found", "there is no such address; see /docs")
            return None, b""
        route = methods.get(b"GET" if method == b"HEAD" else method)
        if route is None:
            allowed = ", ".join(sorted(name.decode() for name in methods))
            raise refuse("method_not_allowed", f"this address takes {allowed}")
        return route, parameter
