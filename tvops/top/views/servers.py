"""Servers: the columns of their table, how their memory is judged, and as lines in the overview."""

from __future__ import annotations

from functools import lru_cache
from math import inf

from tvops.engine.telemetry.document import Server
from tvops.terminal import clean
from tvops.top.lines import DASH, Line, Span, data_size, number, span_of
from tvops.top.model import metrics_of
from tvops.top.scene import Scene
from tvops.top.table import Column, listing

Bounds = tuple[float, float]
"""Target and limit."""


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


def server_lines(scene: Scene, width: int) -> list[Line]:
    """Give all servers."""
    known = [(seen.document, seen.fresh) for seen in scene.seen if seen.document]
    rows = tuple((row, fresh) for document, fresh in known for row in document.servers)
    return list(_table(rows, memory_bounds(scene), width))


@lru_cache(maxsize=8)
def _table(rows: tuple[tuple[Server, bool], ...], bounds: Bounds | None, width: int) -> tuple[Line, ...]:
    """Give the lines; documents come four times a second, and what they say of servers changes once."""
    return tuple(listing(server_columns(bounds), rows, width))
