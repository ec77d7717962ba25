"""The market data service: bus in, WebSocket sessions out, and what it tells about itself."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import numpy as np
from picows import WSCloseCode

from tvops.engine.bus.packing import pack
from tvops.engine.bus.roles import Bus
from tvops.engine.gateway.auth import KeyRing
from tvops.engine.instruments import InstrumentTable
from tvops.engine.records import DTYPES
from tvops.engine.services import Health, Service, end_tasks
from tvops.engine.socket_tuning import SocketOptions
from tvops.engine.stream.encoder import Encoder
from tvops.engine.stream.figures import Figures
from tvops.engine.stream.head import HttpError, Request, presented_key
from tvops.engine.stream.history import Channel
from tvops.engine.stream.http import Answer, Front, Route
from tvops.engine.stream.hub import Hub
from tvops.engine.stream.intake import Intake
from tvops.engine.stream.protocol import Catalogue
from tvops.engine.stream.relay import Relay
from tvops.engine.stream.session_views import described, listed
from tvops.engine.stream.sessions import Session
from tvops.engine.telemetry import document, exposition, proc_files
from tvops.engine.telemetry.recorder import milliseconds
from tvops.engine.telemetry.service import TelemetryService
from tvops.errors import HeldError, UsageError
from tvops.settings import Settings

SWEEP_SECONDS = 1.0
STOP_SECONDS = 0.7

logger = logging.getLogger(__name__)


class StreamService:
    """Serves market data on `market_port`; see docs/market-data.md."""

    name = "stream"

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        table: InstrumentTable,
        health_sources: Sequence[Service] = (),
        options: SocketOptions | None = None,
        telemetry: TelemetryService | None = None,
    ) -> None:
        """Serve the instruments of ``table`` as ``settings`` say.

        Args:
            settings: where to listen, limits.
            bus: the market role is read; the ledger role only for API keys.
            table: the instruments.
            health_sources: services of the same process whose health `/health` tells as well.
            options: of the listener and its connections; by default those of every profile.
            telemetry: of this process, for `/telemetry` and `/metrics`; by default one of this service only.
        """
        self._settings, self._bus = settings, bus
        if telemetry is None:
            telemetry = TelemetryService("market", settings)
            telemetry.watch((*health_sources, self), self.listed_sessions)
        self._telemetry = telemetry
        self._health_sources = tuple(health_sources)
        self.epoch = secrets.randbits(32) or 1
        self._intake = Intake(len(table))
        self._catalogue = Catalogue(table, settings.symbols, self._intake.topics)
        self._encoder = Encoder(table.all, self.epoch)
        self._figures = Figures()
        self._hub = Hub(
            self._intake,
            self._encoder,
            self._catalogue,
            buffer_bytes=settings.session_buffer_kb * 1024,
            threshold=settings.slow_client_threshold,
            history_load=self._telemetry.stages.add("history_load"),
        )
        self._relay = Relay(bus.market, self._intake, self._hub, self._figures)
        self._telemetry.stages.adopt("publish_to_send", self._figures.latencies)
        routes = {
            "/health": Route(self._answer_health, open=True),
            "/stats": Route(lambda _: _json(self.stats())),
            "/clients": Route(lambda _: _json(self.clients())),
            "/telemetry": Route(self._answer_telemetry),
            "/metrics": Route(self._answer_metrics),
        }
        self._options = options or SocketOptions("stream")
        self._front = Front(settings, routes, self._admits, self._open_session, self._options)
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: Health | None = None
        self._keys: KeyRing | None = None

    @property
    def port(self) -> int:
        """The port that the service listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen, and read the market stream from its oldest entry on.

        Raises:
            HeldError: the port is taken.
            ServerError: API keys are needed and cannot be read.
            UsageError: the host is not an address of this machine.
        """
        settings, loop = self._settings, asyncio.get_running_loop()
        if settings.keys_required:
            keys = KeyRing(self._bus.ledger)
            await keys.load()
            self._hub.keys = self._keys = keys
            self._tasks.append(loop.create_task(keys.keep_loaded()))
        try:
            self._server = await loop.create_server(
                self._front, settings.host, settings.market_port, backlog=1024, reuse_address=True,
                start_serving=False,
            )  # fmt: skip
            for listener in self._server.sockets:
                self._options.prepare(listener)
            await self._server.start_serving()
        except OSError as error:
            raise _listen_error(settings, error) from None
        self._tasks += [loop.create_task(self._relay.run()), loop.create_task(self._sweep())]
        for task in self._tasks:
            task.add_done_callback(self._on_end)

    async def stop(self) -> None:
        """Say goodbye to every session and let go of the port, within a second."""
        await end_tasks(self._tasks)
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._front.pending):
            connection.abort()
        sessions = self._hub.sessions
        for session in list(sessions.values()):
            session.close(WSCloseCode.GOING_AWAY, "the service stops")
        deadline = time.monotonic() + STOP_SECONDS
        while sessions and time.monotonic() < deadline:  # noqa: ASYNC110 (ends by the deadline as well)
            await asyncio.sleep(0.01)
        for session in list(sessions.values()):
            session.abort()
        await asyncio.sleep(0)

    def health(self) -> Health:
        """Tell whether market data comes in and goes out."""
        return self._failure or self._relay.health

    def stats(self) -> dict[str, float | int | str]:
        """Give the figures of `/stats`; of latencies only where there were some."""
        intake, hub, figures = self._intake, self._hub, self._figures
        latency = figures.latency
        return {
            "active_connections": len(hub.sessions),
            "total_messages": intake.records,
            "batches_sent": figures.batches,
            "avg_batch_size": round(figures.batched / figures.batches, 2) if figures.batches else 0.0,
            "pending_batch": figures.pending,
            "clients_dropped": hub.dropped,
            "conflations": hub.conflations,
            "sessions_refused": self._front.refused,
            "messages_sent": hub.messages + sum(s.messages_sent for s in hub.sessions.values()),
            "ticks_per_s": round(figures.ticks_per_second, 1),
            **milliseconds(latency, {"latency_p50_ms": 50, "latency_p99_ms": 99, "latency_max_ms": 100}),
            "clock_skews": latency.negative,
            "gaps": intake.gaps,
            "damaged_entries": intake.damaged,
            "unsent_bytes": sum(s.unsent_bytes for s in hub.sessions.values()),
            "memory_mb": round(proc_files.resident(os.getpid()) / 2**20, 1),
            "epoch": self.epoch,
        }

    def clients(self) -> list[dict[str, Any]]:
        """Give one object per session."""
        now = self._hub.now()
        return [described(session, now) for session in self._hub.sessions.values()]

    def listed_sessions(self) -> list[document.Session]:
        """Give the sessions as telemetry lists them."""
        now = self._hub.now()
        return [listed(session, now) for session in self._hub.sessions.values()]

    def compile(self) -> None:
        """Have the kernels ready before the first record comes."""
        intake = Intake(len(self._catalogue.instruments))
        intake.take([pack(np.zeros(1, dtype), record_type) for record_type, dtype in DTYPES.items()])
        topic = intake.topics.find(Channel.TICKS, 0)
        self._encoder.texts(intake.state(topic, 1), sent=0)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """Tell of a task that failed: without it the service does not do what it is for."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the market data service failed", exc_info=error)
            self._failure = Health("failed", f"{type(error).__name__}: {error}")

    async def _sweep(self) -> None:
        """Do once a second what time asks for."""
        every = self._settings.stats_interval_seconds
        logged = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._hub.sweep()
            now = time.monotonic()
            self._figures.tick(self._intake.ticks, now)
            if now - logged >= every:
                logged = now
                self._log_figures()
                self._figures.rotate()

    def _log_figures(self) -> None:
        stats = self.stats()
        logger.info(
            "%s sessions, %s ticks/s, %s batches of %s records, p50 %s ms, p99 %s ms, %s conflations, %s dropped",
            stats["active_connections"], stats["ticks_per_s"], stats["batches_sent"], stats["avg_batch_size"],
            stats.get("latency_p50_ms", "-"), stats.get("latency_p99_ms", "-"), stats["conflations"],
            stats["clients_dropped"],
        )  # fmt: skip

    # The port

    def _admits(self, key: str | None) -> bool:
        keys = self._hub.keys
        return keys is None or (key is not None and keys.account(key) is not None)

    def _admin(self, key: str | None) -> bool:
        """Tell whether ``key``, which was let in, may see what is not for everybody."""
        if self._keys is None:
            return True
        principal = self._keys.find(key or "")
        return principal is not None and principal.admin

    def _open_session(self, peer: str, key: str | None) -> Session:
        if len(self._hub.sessions) >= self._settings.max_sessions:
            text = f"there are {self._settings.max_sessions} sessions already; try again later"
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, text, Retry_After="5")
        return self._hub.session(peer, key)

    def _answer_telemetry(self, request: Request) -> Answer:
        body, kind = self._telemetry.encoded(
            request.headers.get("accept", ""), self._admin(presented_key(request))
        )
        return Answer(body, content_type=kind)

    def _answer_metrics(self, request: Request) -> Answer:
        body, kind = exposition.answer(self._telemetry.document(), request.headers.get("accept", ""))
        return Answer(body, content_type=kind)

    def _answer_health(self, _: Request) -> Answer:
        services = {service.name: service.health() for service in (*self._health_sources, self)}
        states = [health.state for health in services.values()]
        state = next((s for s in ("failed", "starting", "degraded") if s in states), "ok")
        status = HTTPStatus.OK if state == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
        shown = {name: {"state": health.state, "detail": health.detail} for name, health in services.items()}
        return Answer(msgspec.json.encode({"status": state, "services": shown}), status)


def _json(value: Any) -> Answer:
    return Answer(msgspec.json.encode(value))


def _listen_error(settings: Settings, error: OSError) -> HeldError | UsageError:
    place = f"{settings.host}:{settings.market_port}"
    if error.errno == errno.EADDRINUSE or "in use" in str(error):
        return HeldError(f"market_port: {place} is in use by another program; give another --market-port")
    return UsageError(f"host: cannot listen on {place}: {error.strerror or error}")
