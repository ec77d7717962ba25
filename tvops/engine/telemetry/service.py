"""The telemetry of a worker process: put together once a second, given to whoever asks."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import msgspec
import psutil

import tvops
from tvops.engine.services import Health, Service
from tvops.engine.telemetry.document import Telemetry
from tvops.engine.telemetry.stages import Stages
from tvops.settings import Settings

MSGPACK = "application/msgpack"
JSON = "application/json"


class TelemetryService:
    """Knows how one process does."""

    name = "telemetry"

    def __init__(self, process: str, settings: Settings) -> None:
        """Tell of the worker ``process``; what it hosts comes with `watch`."""
        self.stages = Stages()
        self._process = process
        self._settings = settings
        self._services: tuple[Service, ...] = ()
        self._started = int(psutil.Process().create_time() * 1e9)

    def watch(self, services: Sequence[Service]) -> None:
        """Tell of these services."""
        self._services = tuple(services)

    async def start(self) -> None:
        """Begin to sample."""

    async def stop(self) -> None:
        """End that."""

    def health(self) -> Health:
        """Tell that telemetry is there."""
        return Health("ok")

    def stats(self) -> dict[str, float | int | str]:
        """Give nothing."""
        return {}

    def document(self) -> Telemetry:
        """Give the telemetry of this moment."""
        health = {service.name: service.health() for service in self._services}
        return Telemetry(
            process=self._process,
            version=tvops.__version__,
            pid=os.getpid(),
            started=self._started,
            time=time.time_ns(),
            health={name: (state.state, state.detail) for name, state in health.items()},
            stats={service.name: service.stats() for service in self._services},
            stages=self.stages.packed(),
            metrics=(),
            events=(),
            profile=self._settings.profile,
        )

    def encoded(self, accept: str) -> tuple[bytes, str]:
        """Give the document and its type: MessagePack where ``accept`` (the header) names it, else JSON."""
        if MSGPACK in accept.lower():
            return msgspec.msgpack.encode(self.document()), MSGPACK
        return msgspec.json.encode(self.document()), JSON
