"""The Valkey and Redis servers: memory against its limit, evictions, latency events and the slow log."""

from __future__ import annotations

from typing import Any

from tvops.engine.telemetry.document import Server
from tvops.terminal import clean
from tvops.top.lines import DASH, Line, Span, clock, data_size, duration, gauge, number, title
from tvops.top.model import Seen
from tvops.top.scene import Scene
from tvops.top.table import Column, arrange, body, columns_for, head, page
from tvops.top.views.servers import Bounds, memory_bounds, memory_share, server_columns
from tvops.top.views.stages import stage_rows

SLOW_SHOWN = 12
ROUND_TRIP = "redis_round_trip_"
ANY_WIDTH = 80
"""How many lines there are does not depend on it."""


ABOVE = 2
"""Lines above the first server."""


class Servers:
    """Every server of the stack, and what it found slow."""

    name, letter = "redis", "7"
    columns: tuple[Column[Any], ...] = server_columns(None)

    def count(self, scene: Scene) -> int:
        """Give the number of lines that the cursor goes through: the servers, and all that stands below them."""
        rows, lines = _lines(scene, ANY_WIDTH)
        return len(lines) - ABOVE if rows else 0

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give the table, memory as bars, round trips, latency events and the slow log, around the cursor."""
        rows, lines = _lines(scene, width)
        cursor = scene.choice.cursor
        return page(lines, ABOVE + cursor, cursor >= len(rows) > 0, height)


def _lines(scene: Scene, width: int) -> tuple[list[Server], list[Line]]:
    """Give the servers that the filter lets through, and the whole view of them."""
    pairs, bounds = _servers(scene), memory_bounds(scene)
    columns = columns_for(server_columns(bounds), width - 2, scene.choice.hidden)
    rows = arrange(columns, [server for _, server in pairs], scene.choice)
    lines = [title("servers", width), head(columns, scene.choice)]
    if not rows:
        return rows, [*lines, (Span("  no servers are told of", "dim"),)]
    stale = any(not seen.fresh for seen, _ in pairs)
    lines += body(columns, rows, len(rows), scene.choice, lambda row: stale)
    lines += [(), title("memory against maxmemory", width)]
    lines += [_memory(server, bounds, width, scene.ascii_only, stale) for server in rows]
    lines += _round_trips(scene, width)
    lines += [(), title("latency events", width), *_latency(rows)]
    lines += [(), title("slow log", width), *_slow(rows, width)]
    return rows, lines


def _servers(scene: Scene) -> list[tuple[Seen, Server]]:
    return [(seen, server) for seen in scene.seen if seen.document for server in seen.document.servers]


def _memory(server: Server, bounds: Bounds | None, width: int, ascii_only: bool, stale: bool) -> Line:
    label = Span(f"  {clean(server.role):<10}", "head")
    if not server.up:
        return (label, Span("DOWN", "breach"))
    if not server.told:
        return (label, Span("not told: the server refuses INFO", "dim"))
    if not server.limit:
        return (label, Span(f"{data_size(server.used)}, no limit", "dim"))
    share = memory_share(server, bounds)
    bar = gauge(server.used / server.limit, max(10, min(60, width - 36)), ascii_only)
    return (
        label,
        Span("▕" if not ascii_only else "[", "dim"),
        Span(bar, "dim" if stale else share.role or "bar"),
        Span("▏" if not ascii_only else "]", "dim"),
        Span(f"{share.text:>6}", "dim" if stale else share.role),
        Span(f" of {data_size(server.limit)}"),
    )


def _process(seen: Seen) -> str:
    return clean(seen.document.process) if seen.document else ""


def _round_trips(scene: Scene, width: int) -> list[Line]:
    rows = [row for row in stage_rows(scene, lambda name: name.startswith(ROUND_TRIP)) if row.total]
    if not rows:
        return []
    made: list[Line] = [(), title("round trips", width)]
    for row in rows:
        role = row.name.removeprefix(ROUND_TRIP)
        figures = (("p50", row.percent.get(50.0)), ("p99", row.percent.get(99.0)), ("max", row.maximum))
        text = " ".join(f"{name} {duration(value):<8}" for name, value in figures) + f" {number(row.rate)}/s"
        made.append(
            (
                Span(f"  {clean(role):<10}", "head"),
                Span(f"from {_process(row.seen):<8}", "dim"),
                Span(text, "" if row.seen.fresh else "dim"),
            )
        )
    return made


def _latency(servers: list[Server]) -> list[Line]:
    rows = [(server.role, *event) for server in servers for event in server.latency]
    if not rows:
        thresholds = {server.latency_threshold for server in servers if server.up}
        unknown = DASH if None in thresholds or not thresholds else "none"
        off = "not watched: latency-monitor-threshold is 0"
        return [(Span(f"  {off if thresholds == {0} else unknown}", "dim"),)]
    return [
        (
            Span(f"  {clean(role):<10}", "head"),
            Span(f"{clean(event):<22}"),
            Span(f"latest {latest} ms, worst {worst} ms"),
        )
        for role, event, latest, worst in rows
    ]


def _slow(servers: list[Server], width: int) -> list[Line]:
    rows = sorted(
        ((at, us, server.role, command) for server in servers for at, us, command in server.slow), reverse=True
    )
    if not rows:
        return [(Span("  none", "dim"),)]
    return [
        (
            Span(f"  {clean(role):<10}", "head"),
            Span(f"{clock(at * 10**9)}  "),
            Span(f"{duration(us * 1000):>8}  "),
            Span(clean(command)[: max(0, width - 34)], "dim"),
        )
        for at, us, role, command in rows[:SLOW_SHOWN]
    ]
