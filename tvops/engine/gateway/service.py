"""The gateway service: orders in over HTTP and WebSocket, answers and private events out, and the page."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tvops.engine.bus.roles import Bus
from tvops.engine.gateway.api import Api
from tvops.engine.gateway.auth import KeyRing
from tvops.engine.gateway.entry import OrderEntry
from tvops.engine.gateway.guard import Guard
from tvops.engine.gateway.limits import RateLimiter
from tvops.engine.gateway.pages import build_pages
from tvops.engine.gateway.private import PrivateStreams
from tvops.engine.gateway.schemas import HealthReport, PartHealth
from tvops.engine.gateway.server import Gateway, HttpServer
from tvops.engine.gateway.sessions import Sessions
from tvops.engine.services import Health, State, end_tasks
from tvops.engine.socket_tuning import SocketOptions
from tvops.engine.telemetry import document, proc_files
from tvops.engine.telemetry.recorder import milliseconds
from tvops.engine.telemetry.service import TelemetryService
from tvops.settings import Settings

if TYPE_CHECKING:
    from tvops.engine.ledger.service import EngineService

SWEEP_SECONDS = 0.1
DRAIN_SECONDS = 2.0
_WORST_FIRST: tuple[State, ...] = ("failed", "starting", "degraded", "ok")

logger = logging.getLogger(__name__)


class GatewayService:
    """Serves the gateway port; see docs/gateway.md."""

    name = "gateway"

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        engine: EngineService,
        options: SocketOptions | None = None,
        telemetry: TelemetryService | None = None,
    ) -> None:
        """Take orders for ``engine`` as ``settings`` say.

        Args:
            settings: where to listen, who may, limits.
            bus: the ledger role holds the API keys; every role is watched for `/health`.
            engine: has to be started before this service.
            options: of the listener and its connections; by default those of every profile.
            telemetry: of this process, for `/telemetry` and `/metrics`; by default one of this service only.
        """
        self._settings = settings
        self._bus = bus
        self._engine = engine
        self._options = options or SocketOptions("gateway")
        if telemetry is None:
            telemetry = TelemetryService("engine", settings)
            telemetry.watch((engine, self), self.listed_sessions)
        self._telemetry = telemetry
        self._keys = KeyRing(bus.ledger)
        self._tasks: list[asyncio.Task[None]] = []
        self._unsubscribe: Callable[[], None] | None = None
        self._servers: dict[str, Health] = {}
        self._server: HttpServer | None = None
        self._state: State = "starting"
        self._orders_per_second = self._most_per_second = 0.0

    async def start(self) -> None:
        """Listen, and take orders from now on.

        Raises:
            HeldError: the port is taken.
            ServerError: API keys cannot be read.
            UsageError: the host is no address of this machine.
        """
        settings, engine = self._settings, self._engine
        await self._keys.load()
        self._entry = OrderEntry(engine, RateLimiter(settings.rate_limit))
        self._api = Api(settings, engine, self._entry, self._report, self.stats, self._telemetry)
        guard = Guard(settings, self._keys)
        streams = PrivateStreams(engine.table, engine.orders, self._api.positions_of)
        self._sessions = Sessions(
            guard,
            self._keys,
            self._entry,
            streams,
            max_sessions=settings.max_sessions,
            buffer_bytes=settings.session_buffer_kb * 1024,
        )
        self._gateway = Gateway(guard, self._sessions, self._api, self._options)
        self._servers = await self._bus.health()
        self._server = HttpServer(self._gateway, build_pages(settings.market_port))
        await self._server.start(settings)
        self._unsubscribe = engine.sequencer.subscribe(streams.publish)
        self._entry.open = True
        self._telemetry.stages.adopt("gateway_to_durable", self._entry.durable_latency)
        self._telemetry.stages.adopt("submit_to_reply", self._entry.engine_latency)
        self._telemetry.stages.adopt("gateway_to_reply", self._entry.latency)
        self._state = "ok"
        create = asyncio.get_running_loop().create_task
        self._tasks = [create(self._sweep()), create(self._watch()), create(self._keys.keep_loaded())]

    async def stop(self) -> None:
        """Take no more orders, answer those that wait (for two seconds at most), and close every connection."""
        self._state = "failed"
        if self._server is None:
            return
        self._entry.open = False
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._entry.waiting and time.monotonic() < deadline:  # noqa: ASYNC110 (ends by the deadline as well)
            await asyncio.sleep(0.01)
        self._sessions.close_all()
        await end_tasks(self._tasks)
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        await self._server.stop()

    def health(self) -> Health:
        """Tell whether orders are taken."""
        if self._state != "ok" or self._server is None:
            return Health(self._state, "" if self._state == "ok" else "the gateway does not take orders")
        if not self._server.running:
            return Health("failed", "the HTTP server has ended")
        return Health("ok")

    def stats(self) -> dict[str, float | int | str]:
        """Give the figures of `/stats`; of latencies only where there were some."""
        if self._server is None:
            return {}
        entry, sessions = self._entry, self._sessions
        return {
            "orders_total": entry.orders,
            "orders_per_s": round(self._orders_per_second, 1),
            "most_orders_per_s": round(self._most_per_second, 1),
            "waiting": entry.waiting,
            "timeouts_total": entry.timeouts,
            "late_answers": entry.late,
            "requests_total": self._server.requests,
            "connections": len(self._server.connections),
            "sessions": len(sessions.open),
            "most_sessions": max(sessions.most, len(sessions.open)),
            "sessions_dropped": sessions.dropped,
            **milliseconds(entry.recent, {"reply_p50_ms": 50, "reply_p99_ms": 99, "reply_max_ms": 100}),
            **milliseconds(entry.engine_latency, {"engine_p99_ms": 99}),
            "memory_mb": round(proc_files.resident(os.getpid()) / 2**20, 1),
            "epoch": sessions.streams.epoch,
            **{f"engine.{name}": value for name, value in self._engine.stats().items()},
        }

    def listed_sessions(self) -> list[document.Session]:
        """Give the WebSocket sessions as telemetry lists them."""
        return self._sessions.listed() if self._server is not None else []

    def _report(self) -> HealthReport:
        parts = {"gateway": self.health(), "engine": self._engine.health()}
        parts |= {f"{name} server": health for name, health in self._servers.items()}
        states = [health.state for health in parts.values()]
        status = next(state for state in _WORST_FIRST if state in states)
        return HealthReport(status, {name: PartHealth(h.state, h.detail) for name, h in parts.items()})

    async def _sweep(self) -> None:
        """Do what time asks for."""
        assert self._server is not None
        every = round(1 / SWEEP_SECONDS)
        rotate = max(1, round(self._settings.stats_interval_seconds / SWEEP_SECONDS))
        turn, counted, begun = 0, 0, time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            turn += 1
            self._entry.expire(time.monotonic_ns())
            if turn % rotate == 0:
                self._entry.recent.rotate()
            if turn % every:
                continue
            now = time.monotonic()
            self._orders_per_second = (self._entry.orders - counted) / (now - begun)
            self._most_per_second = max(self._most_per_second, self._orders_per_second)
            counted, begun = self._entry.orders, now
            self._gateway.refresh()
            self._sessions.sweep(now)
            for connection in self._server.connections:
                connection.check_time(now)

    async def _watch(self) -> None:
        """Ask the servers for a sign of life, once a second."""
        while True:
            await asyncio.sleep(1)
            self._servers = await self._bus.health()
