"""What is known of the stacks that are watched. No screen, no socket and no clock: times come with each call.

Documents are cumulative, so a missed one loses nothing: what is shown are differences between them. `Model.moment`
is what the screens draw. While frozen it stays as it was, and documents are taken in all the same.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from tvops.engine.telemetry.document import Event, Metric, Telemetry
from tvops.telemetry_client import Reading
from tvops.top.addresses import Stack
from tvops.top.history import Series, StageHistory

STALE_NS = 3_000_000_000
RATE_NS = 900_000_000  # rates are of about a second, however often documents come
KEPT_EVENTS = 1000
KEPT_STAGES = 512
KEPT_SERIES = 2048
"""Those that were told of least lately go first: a process that restarts leaves one behind with every pid."""
LOCAL = -1
"""Sequence number of events that top itself has seen."""

Figures = dict[str, float | int | str]
Kept = TypeVar("Kept")


class Seen(msgspec.Struct, frozen=True):
    """One endpoint at one moment."""

    source: Source
    document: Telemetry | None
    age: int  # ns since the last document came
    error: str

    @property
    def state(self) -> str:
        """connecting, live, stale, or lost."""
        if self.error:
            return "lost"
        if self.document is None:
            return "connecting"
        return "stale" if self.age > STALE_NS else "live"

    @property
    def fresh(self) -> bool:
        """Whether what the document says is of now."""
        return self.document is not None and self.age <= STALE_NS

    @property
    def until(self) -> int:
        """The end of what is known, ns since 1970."""
        return self.document.time if self.document else 0

    def figures(self, service: str) -> Figures:
        """Give the figures of a service; empty where there are none."""
        return self.document.stats.get(service, {}) if self.document else {}


class Moment(msgspec.Struct, frozen=True):
    """Everything at one moment, by stack."""

    now: int  # monotonic ns
    stacks: tuple[tuple[Stack, tuple[Seen, ...]], ...]
    time: int  # ns since 1970, of the newest document

    def seen(self, stack: int) -> tuple[Seen, ...]:
        """Give the endpoints of a stack."""
        return self.stacks[stack][1]


class Source:
    """One endpoint: its last document, and what came before."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.document: Telemetry | None = None
        self.received = 0
        self.error = ""
        self.stages: dict[str, StageHistory] = {}
        self.series: dict[str, Series] = {}
        self.events: list[Event] = []
        self._rated: Telemetry | None = None
        self._newest = LOCAL

    def take(self, reading: Reading) -> None:
        """Take what a poll gave."""
        if reading.telemetry is None:
            if not self.error and self.document is not None:
                self._tell("warn", f"connection lost: {reading.error}", self.document.time)
            self.error = reading.error
            return
        document = reading.telemetry
        previous, was_lost = self.document, self.error
        self.error = ""
        if previous is not None and _same(previous, document):
            if document.time > previous.time:
                self._advance(document, reading.received)
            return
        if previous is not None:
            self._tell("warn", f"{document.process} has restarted (process {document.pid})", document.time)
            self._rated, self._newest = None, LOCAL
            for stage in self.stages.values():
                stage.restarted(document.started)
        elif was_lost:
            self._tell("info", "connected", document.time)
        self._advance(document, reading.received)

    def _advance(self, document: Telemetry, received: int) -> None:
        for name, stage in document.stages.items():
            history = self.stages.pop(name, None) or StageHistory(stage.text)
            history.add(document.time, stage.histogram)
            _keep_latest(self.stages, name, history, KEPT_STAGES)
        for metric in document.metrics:
            value = metric.value if metric.p99 is None else metric.p99
            if value is not None:
                self._series(f"metric.{metric.name}", document.time, value)
        if document.host is not None:
            self._series("host.busy", document.time, sum(document.host.cores) / max(1, len(document.host.cores)))
        for process in document.processes:
            self._series(f"cpu.{process.name}.{process.pid}", document.time, process.cpu_percent)
        self._rates(document)
        self.events += [event for event in document.events if event.seq > self._newest]
        self._newest = max([self._newest, *(event.seq for event in document.events)])
        del self.events[:-KEPT_EVENTS]
        self.document, self.received = document, received

    def _rates(self, document: Telemetry) -> None:
        """Keep how fast every whole number among the figures went up, as ``rate.SERVICE.NAME``."""
        before = self._rated
        if before is None or document.time - before.time < RATE_NS:
            self._rated = before or document
            return
        self._rated = document
        seconds = (document.time - before.time) / 1e9
        for service, figures in document.stats.items():
            old = before.stats.get(service, {})
            for name, value in figures.items():
                last = old.get(name)
                if isinstance(value, int) and isinstance(last, int) and value >= last:
                    self._series(f"rate.{service}.{name}", document.time, (value - last) / seconds)

    def rate(self, until: int, service: str, name: str) -> float | None:
        """Give how fast a figure goes up, per second; None where that is not known."""
        values = self.trend(f"rate.{service}.{name}", until, 1)
        return values[-1] if values else None

    def trend(self, name: str, until: int, count: int) -> list[float]:
        """Give the last values of a series, oldest first."""
        return self.series[name].last(until, count) if name in self.series else []

    def reset(self) -> None:
        """Forget what came before the last document."""
        self.series.clear()
        for stage in self.stages.values():
            stage.reset()

    def _series(self, name: str, time: int, value: float) -> None:
        series = self.series.pop(name, None) or Series()
        series.add(time, value)
        _keep_latest(self.series, name, series, KEPT_SERIES)

    def _tell(self, severity: Literal["info", "warn"], text: str, time: int) -> None:
        about = self.url.partition("://")[2]
        self.events.append(Event(LOCAL, time, severity, about, text))


class Model:
    """The endpoints that are watched, and the moment that is shown."""

    def __init__(self, stacks: tuple[Stack, ...]) -> None:
        self.stacks = stacks
        self.sources = {url: Source(url) for stack in stacks for url in stack.urls}
        self.window_seconds = 10.0
        self.frozen: Moment | None = None

    def take(self, reading: Reading) -> None:
        """Take what a poll gave."""
        if reading.url in self.sources:
            self.sources[reading.url].take(reading)

    def moment(self, now: int) -> Moment:
        """Give what is to be shown at ``now`` (monotonic ns)."""
        return self.frozen or self._present(now)

    def freeze(self, now: int) -> None:
        """Keep showing what is shown at ``now``, or show the present again."""
        if self.frozen is not None:
            self.frozen = None
            return
        for source in self.sources.values():
            for stage in source.stages.values():
                stage.close_bin()
        self.frozen = self._present(now)

    def reset(self) -> None:
        """Forget everything but the last documents, and show the present."""
        self.frozen = None
        for source in self.sources.values():
            source.reset()

    def _present(self, now: int) -> Moment:
        stacks = tuple(
            (stack, tuple(_seen(self.sources[url], now) for url in stack.urls)) for stack in self.stacks
        )
        times = [source.document.time for source in self.sources.values() if source.document]
        return Moment(now, stacks, max(times, default=0))


def metrics_of(seen: tuple[Seen, ...]) -> list[tuple[Seen, Metric]]:
    """Give the metrics of a stack: each once, where several processes measure it the worst of them."""
    rows: dict[str, tuple[Seen, Metric]] = {}
    for endpoint in seen:
        for metric in endpoint.document.metrics if endpoint.document else ():
            if metric.name not in rows or _badness(metric) > _badness(rows[metric.name][1]):
                rows[metric.name] = (endpoint, metric)
    return list(rows.values())


def _badness(metric: Metric) -> tuple[int, float]:
    return ("no data", "ok", "warn", "breach").index(metric.state), metric.value or 0.0


def stages_of(seen: tuple[Seen, ...]) -> list[tuple[Seen, str, StageHistory]]:
    """Give the stages of a stack, in the order of its documents."""
    return [
        (endpoint, name, endpoint.source.stages[name])
        for endpoint in seen
        if endpoint.document
        for name in endpoint.document.stages
        if name in endpoint.source.stages
    ]


def jitter(p50: float | None, p99: float | None) -> float | None:
    """Give how far the tail lies from the middle: p99 - p50."""
    return None if p50 is None or p99 is None else p99 - p50


def _seen(source: Source, now: int) -> Seen:
    return Seen(source, source.document, now - source.received if source.document else 0, source.error)


def _keep_latest(kept: dict[str, Kept], name: str, value: Kept, most: int) -> None:
    """Put ``value`` behind all others, and let go of the first of more than ``most``."""
    kept[name] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


def _same(one: Telemetry, other: Telemetry) -> bool:
    return (one.pid, one.started) == (other.pid, other.started)
