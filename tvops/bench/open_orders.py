"""How many orders a load has resting at a time, the limit of an account for them, and those that it left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from tvops.bench.addresses import fetch, fetch_json
from tvops.bench.doors import DOORS
from tvops.bench.plan import Traces
from tvops.bench.result import Check, Operation
from tvops.bench.scenario import Scenario

_REJECTED: Final = "422"
_LIMITS: Final = "/v1/risk/limits"
LEFT_BEHIND: Final = "left_behind"
_ROOM: Final = 1000
"""Requests that may be under way beyond those that rest."""


def open_orders_of(scenario: Scenario) -> int:
    """Give how many orders rest at a time, at most, in all loads together."""
    return sum(
        load.processes * getattr(msgspec.convert(load.options, DOORS[load.door].options_type), "resting", 0)
        for load in scenario.loads
    )


def allow_open_orders(gateway: str, count: int) -> None:
    """Have a stack of our own take so many open orders of an account; raise ServerError where it does not."""
    limits = fetch_json(gateway, _LIMITS)["limits"]
    most = next((limit["max_open_orders"] for limit in limits if limit.get("max_open_orders")), 0)
    if 0 < most < count + _ROOM:
        fetch(gateway, _LIMITS, body=msgspec.json.encode({"max_open_orders": count + _ROOM}))


def rejections_told(operations: Sequence[Operation]) -> tuple[str, ...]:
    """Say what can be done where orders were rejected; nothing where none were."""
    rejected = sum(operation.outcomes.get(_REJECTED, 0) for operation in operations)
    if not rejected:
        return ()
    return (
        f"{rejected:,} requests were rejected by the engine ({_REJECTED}): where the account has too many open "
        "orders, let fewer rest (option resting) or raise its max_open_orders (PUT /v1/risk/limits)",
    )


def left_behind(door: str, left: Traces | None) -> tuple[Check, ...]:
    """Give a check that is not met where a load could not take back what it had sent; nothing where it could."""
    if left is None:
        return ()
    detail = f"{left.count:,} {left.what}"
    return (Check(about=door, figure=LEFT_BEHIND, limit=0, seen=left.count, met=False, detail=detail),)
