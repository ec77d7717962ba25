"""The doors: ways into a stack. A new one is a class here and one line in `DOORS`; see docs/bench.md."""

from __future__ import annotations

from typing import Final

from tvops.bench.doors.base import Door
from tvops.bench.doors.redis import Redis
from tvops.bench.doors.rest_orders import RestOrders
from tvops.bench.doors.sessions import Sessions
from tvops.bench.doors.websocket_orders import WebsocketOrders

DOORS: Final[dict[str, type[Door]]] = {door.name: door for door in (RestOrders, WebsocketOrders, Sessions, Redis)}
