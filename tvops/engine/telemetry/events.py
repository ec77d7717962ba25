"""What an operator wants to know of, as it happens: a line each, the newest kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from heapq import merge
from operator import attrgetter
from typing import Final, Literal

from tvops.engine.services import Health
from tvops.engine.telemetry.document import Event, MetricState, Process, Server
from tvops.engine.telemetry.evaluation import Change

Severity = Literal["info", "warn", "breach"]

MOST: Final = 256
"""How many events are kept."""

MOST_OFTEN: Final = 64
"""How many of those are kept that a noisy host makes all the time."""

COUNTED: Final = {
    "price.gaps": "a book of the feed lost its continuity",
    "price.dropped": "records of the feed were dropped, because the market server was away",
    "price.write_failures": "market data could not be written",
    "stream.gaps": "market data was lost before it could be read",
    "stream.damaged_entries": "an entry of the market stream could not be read",
    "stream.clients_dropped": "a session was closed for being too slow",
    "gateway.timeouts_total": "a command was not answered in time",
    "gateway.sessions_dropped": "a session was closed for not reading",
    "engine.results_dropped": "events were dropped, because the results server was away",
    "engine.inbox_damaged": "commands of the simulated or mirrored market could not be read",
}
"""Figures that count something gone wrong, and what."""

_SEVERITY: Final[dict[MetricState, Severity]] = {
    "ok": "info", "no data": "info", "warn": "warn", "breach": "breach",
}  # fmt: skip


class EventLog:
    """The newest events of a process."""

    def __init__(self) -> None:
        self._rare: deque[Event] = deque(maxlen=MOST - MOST_OFTEN)
        self._often: deque[Event] = deque(maxlen=MOST_OFTEN)
        self._newest: tuple[Event, ...] = ()
        self._seq = 0

    @property
    def count(self) -> int:
        """How many there were so far."""
        return self._seq

    @property
    def newest(self) -> tuple[Event, ...]:
        """The events that are kept, in the order in which they were noted."""
        return self._newest

    def add(
        self, severity: Severity, about: str, text: str, moment: int | None = None, often: bool = False
    ) -> None:
        """Note that something happened.

        Args:
            severity: info, warn, breach.
            about: a metric, a process, a role.
            text: what happened.
            moment: when, ns since 1970; None: now.
            often: of a kind that must not displace others: only `MOST_OFTEN` of them are kept.
        """
        self._seq += 1
        event = Event(self._seq, time.time_ns() if moment is None else moment, severity, about, text)
        (self._often if often else self._rare).append(event)
        self._newest = tuple(merge(self._rare, self._often, key=attrgetter("seq")))


class Watch:
    """Compares each second with the one before it and notes what is worth a line."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._health: dict[str, Health] = {}
        self._counts: dict[str, float] = {}
        self._processes: dict[str, Process] = {}
        self._servers: dict[str, Server] = {}

    def metrics(self, changes: Sequence[Change]) -> None:
        """Note metrics that came into another state."""
        for metric, before in changes:
            if {before, metric.state} == {"ok", "no data"}:  # somebody came or went
                continue
            shown = "no data" if metric.value is None else f"{metric.value:.3g} {metric.unit}"
            bounds = f"target {metric.target:g}, limit {metric.limit:g}"
            self._log.add(_SEVERITY[metric.state], metric.name, f"{before} → {metric.state}: {shown} ({bounds})")

    def services(self, health: Mapping[str, Health]) -> None:
        """Note services whose state changed."""
        for name, now in health.items():
            before = self._health.get(name)
            if before is not None and before.state != now.state:
                detail = f": {now.detail}" if now.detail else ""
                self._log.add("info" if now.state == "ok" else "warn", name, f"{now.state}{detail}")
        self._health = dict(health)

    def figures(self, figures: Mapping[str, float]) -> None:
        """Note counters of what went wrong that rose."""
        for name, text in COUNTED.items():
            if name not in figures:
                continue
            risen = figures[name] - self._counts.get(name, 0)
            self._counts[name] = figures[name]
            if risen > 0:
                times = f" ({risen:g} times)" if risen > 1 else ""
                self._log.add("warn", name.partition(".")[0], f"{text}{times}")

    def processes(self, found: Sequence[Process]) -> None:
        """Note processes that came, went, or take more and more memory."""
        now = {process.name: process for process in found}
        for name, process in now.items():
            before = self._processes.get(name)
            if before is not None and before.pid != process.pid:
                self._log.add("warn", name, f"process {before.pid} is gone, {process.pid} has taken its place")
            elif self._processes and before is None:
                self._log.add("info", name, f"process {process.pid} has come")
            if process.leaking and not (before is not None and before.leaking):
                rate = f" by {process.slope * 3600 / 2**20:.1f} MiB an hour" if process.slope is not None else ""
                self._log.add("warn", name, f"its memory grows{rate}")
            if process.over_budget and not (before is not None and before.over_budget):
                shown = f"{process.memory / 2**20:.0f} MiB of {process.budget / 2**20:.0f}"
                self._log.add("warn", name, f"takes more memory than it should: {shown}")
        for name in self._processes.keys() - now.keys():
            self._log.add("warn", name, f"process {self._processes[name].pid} is gone")
        self._processes = now

    def servers(self, found: Sequence[Server]) -> None:
        """Note servers that went, came back, or were restarted in between."""
        for server in found:
            before = self._servers.get(server.role)
            about = f"{server.role} server"
            if before is None:
                if not server.up:
                    self._log.add("breach", about, f"does not answer at {server.address}")
            elif before.up and not server.up:
                self._log.add("breach", about, f"does not answer any more at {server.address}")
            elif server.up and not before.up:
                self._log.add("info", about, "answers again")
            elif server.told and before.told and server.up and server.uptime < before.uptime:
                self._log.add("warn", about, "was restarted")
            self._servers[server.role] = server
