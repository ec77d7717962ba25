"""What the stack says of itself before, during and after a run: figures, and the memory of its processes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from time import monotonic_ns
from typing import Final

from tvops.bench.addresses import fetch_json
from tvops.bench.result import MemorySample
from tvops.daemon_thread import aside
from tvops.engine.telemetry.document import Telemetry
from tvops.engine.telemetry.histogram import percentiles
from tvops.errors import ServerError
from tvops.telemetry_client import TelemetryClient
from tvops.terminal import clean

_LARGEST: Final = 2.0**63
"""What is larger is no figure, and no result holds it."""


class StackWatch:
    """Polls the ports of a stack once a second."""

    def __init__(self, urls: Sequence[str], api_key: str) -> None:
        self._client = TelemetryClient(urls, api_key)
        self._urls = urls
        self._api_key = api_key
        self.memory: list[tuple[int, str, int]] = []
        """When (ns of the monotonic clock), process, bytes."""
        self.busiest = 0.0
        """Most that a process of the stack used, percent of a core, averaged over the run."""
        self._busy: dict[str, list[float]] = {}

    async def figures(self) -> dict[str, float]:
        """Give the figures of /stats and the latencies of every stage; empty where the stack does not answer."""
        found: dict[str, float] = {}
        for reading in await self._client.poll():
            if reading.telemetry is not None:
                found.update(_summary(reading.telemetry))
        for url in () if found else self._urls:
            with contextlib.suppress(ServerError):
                answer = await aside("stats", fetch_json, url, "/stats", self._api_key)
                found.update(numbers_of(f"{url.rpartition(':')[2]}", answer))
        return found

    async def look(self) -> None:
        """Note memory and load of the processes, as far as the stack tells them."""
        for reading in await self._client.poll():
            for process in reading.telemetry.processes if reading.telemetry else ():
                self.memory.append((monotonic_ns(), clean(process.name), process.memory))
                self._busy.setdefault(process.name, []).append(process.cpu_percent)
        means = [sum(values) / len(values) for values in self._busy.values()]
        self.busiest = max(means, default=0.0)

    def forget(self) -> None:
        """Begin anew."""
        self.memory.clear()
        self._busy.clear()

    def samples(self, begin: int) -> tuple[MemorySample, ...]:
        """Give what was noted since ``begin`` (ns of the monotonic clock), by full seconds."""
        return tuple(
            MemorySample(second=float(round((when - begin) / 1e9)), process=process, bytes=size)
            for when, process, size in self.memory
            if when >= begin
        )

    async def __aenter__(self) -> StackWatch:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()


def _summary(telemetry: Telemetry) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, stage in telemetry.stages.items():
        counts = stage.histogram.unpack()
        key = f"{telemetry.process}.stage.{name}"
        found[f"{key}.samples"] = float(counts.sum())
        if counts.any():
            marks = percentiles(counts, [50, 99], stage.histogram.maximum or None)
            found |= {
                f"{key}.p50_ns": marks[0],
                f"{key}.p99_ns": marks[1],
                f"{key}.max_ns": stage.histogram.maximum,
            }
    for service, figures in telemetry.stats.items():
        found |= numbers_of(f"{telemetry.process}.{service}", figures)
    return found


def numbers_of(prefix: str, figures: object) -> dict[str, float]:
    """Give the figures of an object as ``prefix.name``, as far as a result can hold what a stack may say."""
    if not isinstance(figures, dict):
        return {}
    return {
        clean(f"{prefix}.{name}"): float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    }
