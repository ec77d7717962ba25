"""Stages, processes and servers as lines: in the overview where there is room, and in views of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple

from tvops.engine.telemetry.document import Process, Server
from tvops.engine.telemetry.histogram import Counts, percentiles, shown_percentiles
from tvops.terminal import clean
from tvops.top.baseline import Baseline, stage_key
from tvops.top.history import StageHistory, largest
from tvops.top.lines import DASH, Line, Span, data_size, duration, number, span_of
from tvops.top.model import Seen, jitter, metrics_of, stages_of
from tvops.top.scene import Scene
from tvops.top.table import Choice, Column, body, columns_for, head

NO_CURSOR = Choice(cursor=-1)
Bounds = tuple[float, float]
"""Target and limit."""


class StageRow(NamedTuple):
    """One stage with what was counted in the window, as far as the samples can tell."""

    seen: Seen
    name: str
    history: StageHistory
    counts: Counts
    total: int
    rate: float | None
    maximum: int | None
    percent: dict[float, int]

    @property
    def key(self) -> str:
        """The name of the stage among those of all processes."""
        return stage_key(self.seen.document.process if self.seen.document else "", self.name)


def stage_rows(scene: Scene, wanted: Callable[[str], bool] = lambda name: True) -> list[StageRow]:
    """Give the stages of the stack whose names are ``wanted``, over the window that is chosen."""
    rows = []
    for seen, name, history in stages_of(scene.seen):
        if not wanted(name):
            continue
        counts = history.window(seen.until, scene.window) if scene.window else _since_reset(history, seen)
        total, maximum, percent = int(counts.sum()), None, {}
        if total:
            shown = shown_percentiles(counts)
            maximum = largest(counts, history.maximum)
            percent = dict(zip(shown, percentiles(counts, shown, maximum), strict=True))
        rate = history.rate(seen.until, scene.window or 3600.0)
        rows.append(StageRow(seen, name, history, counts, total, rate, maximum, percent))
    return rows


def _since_reset(history: StageHistory, seen: Seen) -> Counts:
    return (
        history.since_reset
        if history.bins and history.bins[-1].end <= seen.until
        else history.window(seen.until, 3600.0)
    )


def stage_columns(baseline: Baseline | None) -> tuple[Column[StageRow], ...]:
    """Give the columns of the stages; with a baseline also those from before."""
    columns: list[Column[StageRow]] = [
        Column("name", "n", "stage", 26, lambda row: clean(row.name), lambda row: row.name, right=False),
        Column(
            "process",
            "p",
            "process",
            8,
            lambda row: Span(clean(row.seen.document.process if row.seen.document else ""), "dim"),
            None,
            right=False,
            rank=3,
        ),
        Column("rate", "r", "per s", 7, lambda row: number(row.rate), lambda row: row.rate, rank=4),
        Column(
            "p50", "5", "p50", 7, lambda row: duration(row.percent.get(50.0)), lambda row: row.percent.get(50.0)
        ),
        Column(
            "p99", "9", "p99", 7, lambda row: duration(row.percent.get(99.0)), lambda row: row.percent.get(99.0)
        ),
        Column(
            "p999",
            "0",
            "p99.9",
            7,
            lambda row: duration(row.percent.get(99.9)),
            lambda row: row.percent.get(99.9),
            rank=1,
        ),
        Column("max", "x", "max", 7, lambda row: duration(row.maximum), lambda row: row.maximum),
        Column(
            "jitter",
            "j",
            "jitter",
            7,
            lambda row: duration(jitter(row.percent.get(50.0), row.percent.get(99.0))),
            lambda row: jitter(row.percent.get(50.0), row.percent.get(99.0)),
            rank=3,
        ),
        Column("n", "c", "n", 7, lambda row: number(row.total or None), lambda row: row.total, rank=1),
        Column(
            "text",
            "t",
            "from → to",
            0,
            lambda row: Span(clean(row.history.text), "dim"),
            None,
            right=False,
            rank=5,
        ),
    ]
    if baseline is not None:
        columns.insert(
            4, Column("was50", "b", "p50 was", 7, lambda row: _before(baseline, row, 50.0), None, rank=2)
        )
        columns.insert(
            6, Column("was99", "w", "p99 was", 7, lambda row: _before(baseline, row, 99.0), None, rank=2)
        )
    return tuple(columns)


def _before(baseline: Baseline, row: StageRow, percent: float) -> Span:
    counts = baseline.stages.get(row.key)
    if counts is None or percent not in shown_percentiles(counts):
        return Span(DASH, "dim")
    return Span(duration(percentiles(counts, [percent])[0]), "before")


PROCESS_COLUMNS: tuple[Column[Process], ...] = (
    Column("name", "n", "process", 20, lambda row: clean(row.name), lambda row: row.name, right=False),
    Column("pid", "i", "pid", 7, lambda row: str(row.pid), lambda row: row.pid, rank=1),
    Column("cpu", "c", "cpu", 6, lambda row: f"{row.cpu_percent:.1f}%", lambda row: row.cpu_percent),
    Column(
        "rss",
        "m",
        "rss",
        8,
        lambda row: Span(data_size(row.rss), "warn" if row.over_budget and not row.pss else ""),
        lambda row: row.rss,
    ),
    Column(
        "pss",
        "s",
        "pss",
        8,
        lambda row: Span(data_size(row.pss or None), "warn" if row.over_budget else ""),
        lambda row: row.pss,
        rank=2,
    ),
    Column("budget", "b", "budget", 8, lambda row: data_size(row.budget or None), lambda row: row.budget, rank=2),
    Column("growth", "g", "growth", 15, lambda row: _growth(row), lambda row: row.slope, rank=1),
    Column("threads", "t", "threads", 7, lambda row: str(row.threads), lambda row: row.threads, rank=4),
    Column("fds", "f", "files", 6, lambda row: str(row.descriptors), lambda row: row.descriptors, rank=3),
    Column(
        "switches",
        "w",
        "forced sw.",
        10,
        lambda row: number(row.involuntary_switches),
        lambda row: row.involuntary_switches,
        rank=4,
    ),
    Column("faults", "a", "faults", 7, lambda row: number(row.major_faults), lambda row: row.major_faults, rank=5),
)


def _growth(process: Process) -> Span:
    if process.slope is None:
        return Span(DASH, "dim")
    sign = "-" if process.slope < 0 else "+"
    text = f"{sign}{data_size(abs(process.slope) * 3600)}/h"
    return Span(f"LEAK {text}" if process.leaking else text, "warn" if process.leaking else "")


def memory_bounds(scene: Scene) -> Bounds | None:
    """Give target and limit of `tv_redis_memory`, percent of maxmemory; None where no port tells of them."""
    return next(
        ((row.target, row.limit) for _, row in metrics_of(scene.seen) if row.name == "tv_redis_memory"), None
    )


def memory_share(server: Server, bounds: Bounds | None) -> Span:
    """Give how much of its memory a server uses, with a mark where that is over target (▲) or limit (■).

    Those that evict are full by design and have no mark.
    """
    if not server.limit or not server.up:
        return Span(DASH, "dim")
    percent = 100 * server.used / server.limit
    target, limit = bounds if bounds and server.policy == "noeviction" else (inf, inf)
    mark, role = ("■ ", "breach") if percent > limit else ("▲ ", "warn") if percent > target else ("", "")
    return Span(f"{mark}{percent:.0f}%", role)


@lru_cache(maxsize=8)
def server_columns(bounds: Bounds | None) -> tuple[Column[Server], ...]:
    """Give the columns of the servers; a share of memory is judged by its ``bounds``."""
    return (
        Column("role", "n", "server", 10, lambda row: clean(row.role), lambda row: row.role, right=False),
        Column(
            "up",
            "s",
            "state",
            6,
            lambda row: Span("up", "ok") if row.up else Span("DOWN", "breach"),
            lambda row: row.up,
            right=False,
        ),
        Column("used", "m", "memory", 8, lambda row: _if_told(row, data_size(row.used)), lambda row: row.used),
        Column(
            "limit",
            "l",
            "of",
            8,
            lambda row: data_size(row.limit) if row.limit else "no limit" if row.told else DASH,
            lambda row: row.limit,
        ),
        Column(
            "share",
            "h",
            "",
            6,
            lambda row: memory_share(row, bounds),
            lambda row: row.used / row.limit if row.limit else None,
        ),
        Column(
            "commands", "c", "cmd/s", 7, lambda row: _if_told(row, number(row.commands)), lambda row: row.commands
        ),
        Column(
            "clients",
            "k",
            "clients",
            7,
            lambda row: _if_told(row, number(row.clients)),
            lambda row: row.clients,
            rank=2,
        ),
        Column(
            "evicted",
            "e",
            "evicted",
            7,
            lambda row: Span(_if_told(row, number(row.evicted)), "warn" if row.evicted else ""),
            lambda row: row.evicted,
            rank=1,
        ),
        Column(
            "expired",
            "x",
            "expired",
            7,
            lambda row: _if_told(row, number(row.expired)),
            lambda row: row.expired,
            rank=3,
        ),
        Column(
            "uptime",
            "u",
            "up for",
            13,
            lambda row: span_of(row.uptime) if row.up else DASH,
            lambda row: row.uptime,
            rank=4,
        ),
        Column(
            "policy",
            "p",
            "eviction",
            14,
            lambda row: Span(clean(row.policy) or DASH, "dim"),
            lambda row: row.policy,
            right=False,
            rank=4,
        ),
        Column(
            "address", "a", "address", 0, lambda row: Span(clean(row.address), "dim"), None, right=False, rank=5
        ),
    )


def _if_told(server: Server, text: str) -> str:
    return text if server.up and server.told else DASH


def stage_lines(scene: Scene, width: int) -> list[Line]:
    """Give all stages with their percentiles."""
    return _lines(stage_columns(scene.baseline), stage_rows(scene), width, lambda row: not row.seen.fresh)


def process_lines(scene: Scene, width: int) -> Sequence[Line]:
    """Give all processes."""
    known = [(seen.document, seen.fresh) for seen in scene.seen if seen.document]
    return _process_table(tuple((row, fresh) for document, fresh in known for row in document.processes), width)


def server_lines(scene: Scene, width: int) -> Sequence[Line]:
    """Give all servers."""
    known = [(seen.document, seen.fresh) for seen in scene.seen if seen.document]
    rows = tuple((row, fresh) for document, fresh in known for row in document.servers)
    return _server_table(rows, memory_bounds(scene), width)


# Documents come four times a second, and what they say of processes and servers changes once: lines are kept.


@lru_cache(maxsize=8)
def _process_table(rows: tuple[tuple[Process, bool], ...], width: int) -> tuple[Line, ...]:
    return _resource_lines(PROCESS_COLUMNS, rows, width)


@lru_cache(maxsize=8)
def _server_table(rows: tuple[tuple[Server, bool], ...], bounds: Bounds | None, width: int) -> tuple[Line, ...]:
    return _resource_lines(server_columns(bounds), rows, width)


def _resource_lines(
    columns: tuple[Column[Any], ...], rows: tuple[tuple[Any, bool], ...], width: int
) -> tuple[Line, ...]:
    stale = {id(row) for row, fresh in rows if not fresh}
    return tuple(_lines(columns, [row for row, _ in rows], width, lambda row: id(row) in stale))


def _lines(columns: tuple[Column[Any], ...], rows: list[Any], width: int, dim: Any) -> list[Line]:
    if not rows:
        return []
    shown = columns_for(columns, width - 2, frozenset())
    return [head(shown, NO_CURSOR), *body(shown, rows, len(rows), NO_CURSOR, dim, cursor=False)]
