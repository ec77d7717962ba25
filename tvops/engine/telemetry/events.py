"""What an operator wants to know of, as it happens: a line each, the newest kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from tvops.engine.services import Health
from tvops.engine.telemetry.document import Event, MetricState, Process, Server
from tvops.engine.telemetry.evaluation import Change

MOST: Final = 256

STALL_MS: Final = 3
"""Lag of the event loop from which on it counts as a stall."""

STALL_SECONDS: Final = 60.0
"""Stalls within this time after one that was told are told together, but for one that is twice as long."""

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

_SEVERITY: Final[dict[MetricState, Literal["info", "warn", "breach"]]] = {
    "ok": "info", "no data": "info", "warn": "warn", "breach": "breach",
}  # fmt: skip


class EventLog:
    """The newest events of a process."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MOST)
        self._seq = 0

    @property
    def count(self) -> int:
        """How many there were so far."""
        return self._seq

    @property
    def newest(self) -> tuple[Event, ...]:
        """The events that are kept, oldest first."""
        return tuple(self._events)

    def add(self, severity: Literal["info", "warn", "breach"], about: str, text: str) -> None:
        """Note that something happened now."""
        self._seq += 1
        self._events.append(Event(self._seq, time.time_ns(), severity, about, text))


class Watch:
    """Compares each second with the one before it and notes what is worth a line."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._health: dict[str, Health] = {}
        self._counts: dict[str, float] = {}
        self._processes: dict[str, Process] = {}
        self._servers: dict[str, Server] = {}
        self._stalls = 0
        self._longest = self._longest_told = 0
        self._stalls_told = float("-inf")

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

    def stall(self, now: float, lag: int, process: str) -> None:
        """Note that the loop stood still for ``lag`` ns, within the last second before ``now`` (s, monotonic)."""
        if lag >= STALL_MS * 1_000_000:
            self._stalls += 1
            self._longest = max(self._longest, lag)
        since = now - self._stalls_told
        if self._stalls and (since >= STALL_SECONDS or self._longest >= 2 * self._longest_told):
            seconds = max(self._stalls, round(min(since, STALL_SECONDS)))
            many = f"in {self._stalls} of {seconds} s, at longest " if self._stalls > 1 else ""
            self._log.add("warn", process, f"the event loop stood still {many}for {self._longest / 1e6:.1f} ms")
            self._longest_told = self._longest
            self._stalls, self._longest, self._stalls_told = 0, 0, now

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
            if _over_budget(process) and not (before is not None and _over_budget(before)):
                shown = f"{_memory(process) / 2**20:.0f} MiB of {process.budget / 2**20:.0f}"
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
            elif server.up and server.uptime < before.uptime:
                self._log.add("warn", about, "was restarted")
            self._servers[server.role] = server


def _memory(process: Process) -> int:
    return process.pss or process.rss


def _over_budget(process: Process) -> bool:
    return 0 < process.budget < _memory(process)
