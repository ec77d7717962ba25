"""The overview: targets first, then what the stack does and what it uses."""

from __future__ import annotations

from typing import Any

from tvops.engine.telemetry.document import Metric
from tvops.terminal import clean
from tvops.top.lines import DASH, Line, Span, cut, number, span_of, spark, title
from tvops.top.model import Seen, jitter, metrics_of
from tvops.top.scene import Scene
from tvops.top.table import Column, arrange, body, columns_for, head
from tvops.top.views.processes import process_lines
from tvops.top.views.servers import server_lines
from tvops.top.views.stages import stage_lines
from tvops.top.views.summary import summary

Row = tuple[Seen, Metric]
STATES = {
    "ok": ("● ok", "ok"),
    "warn": ("▲ WARN", "warn"),
    "breach": ("■ BREACH", "breach"),
    "no data": ("  no data", "dim"),
}
RANKS = {"breach": 0, "warn": 1, "no data": 2, "ok": 3}
UNITS = {"1/s": "/s"}
LEAST_DETAILS = 6
"""Lines below which no table of details can stand."""


def state_span(state: str) -> Span:
    """Give a state as word, mark and colour."""
    return Span(*STATES.get(state, (clean(state), "")))


class Overview:
    """Targets, streams, orders, servers, processes and cores."""

    name, letter = "overview", "1"
    columns: tuple[Column[Any], ...] = (
        Column(
            "name",
            "n",
            "metric",
            26,
            lambda row: clean(row[1].name.removeprefix("tv_")),
            lambda row: row[1].name,
            right=False,
        ),
        Column(
            "state",
            "s",
            "state",
            9,
            lambda row: state_span(row[1].state),
            lambda row: RANKS.get(row[1].state, 4),
            right=False,
        ),
        Column("value", "v", "value", 7, lambda row: number(row[1].value), lambda row: row[1].value),
        Column("unit", "u", "", 8, lambda row: Span(_unit(row[1]), "dim"), None, right=False, rank=1),
        Column("target", "a", "target", 6, lambda row: number(row[1].target), lambda row: row[1].target, rank=2),
        Column("limit", "l", "limit", 6, lambda row: number(row[1].limit), lambda row: row[1].limit, rank=7),
        Column("p50", "5", "p50", 7, lambda row: number(row[1].p50), lambda row: row[1].p50, rank=4),
        Column("p99", "9", "p99", 7, lambda row: number(row[1].p99), lambda row: row[1].p99, rank=2),
        Column("p999", "0", "p99.9", 7, lambda row: number(row[1].p999), lambda row: row[1].p999, rank=5),
        Column("max", "x", "max", 7, lambda row: number(row[1].maximum), lambda row: row[1].maximum, rank=4),
        Column(
            "jitter",
            "j",
            "jitter",
            7,
            lambda row: number(jitter(row[1].p50, row[1].p99)),
            lambda row: jitter(row[1].p50, row[1].p99),
            rank=6,
        ),
        Column("n", "c", "n", 7, lambda row: number(row[1].samples or None), lambda row: row[1].samples, rank=6),
        Column("trend", "t", "trend", 0, lambda row: "", None, rank=3),  # drawn once its width is known
    )

    def count(self, scene: Scene) -> int:
        """Give the number of targets."""
        return len(self._rows(scene))

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give the targets table, then as much of the rest as there is room for."""
        rows = self._rows(scene)
        columns = self._columns(scene, width)
        lines = [head(columns, scene.choice)]
        rest = self._rest(scene, rows, width)
        room = max(3, height - len(lines) - len(rest))
        lines += body(columns, rows, min(room, len(rows)), scene.choice, lambda row: not row[0].fresh)
        if not rows:
            lines.append((Span("  no targets known yet", "dim"),))
        lines += rest
        lines += self._details(scene, width, height - len(lines))
        return lines[:height]

    def _columns(self, scene: Scene, width: int) -> list[Column[Row]]:
        columns: list[Column[Row]] = list(self.columns)
        if scene.baseline is not None:
            before = scene.baseline
            columns.insert(
                5,
                Column(
                    "was",
                    "w",
                    "was",
                    7,
                    lambda row: Span(number(before.figure(row[1].name, "value")), "before"),
                    None,
                ),
            )
            columns.insert(
                6,
                Column(
                    "delta",
                    "d",
                    "change",
                    8,
                    lambda row: _change(before.figure(row[1].name, "value"), row[1].value),
                    None,
                ),
            )
        shown = columns_for(columns, width - 2, scene.choice.hidden)
        if shown[-1].key == "trend":
            room = shown[-1].width
            shown[-1] = shown[-1]._replace(text=lambda row: Span(_trend(row, room, scene.ascii_only), "bar"))
        return shown

    def _rows(self, scene: Scene) -> list[Row]:
        return arrange(self.columns, metrics_of(scene.seen), scene.choice)

    def _rest(self, scene: Scene, rows: list[Row], width: int) -> list[Line]:
        lines = [_about(rows, scene.choice.cursor)]
        lines += summary(scene)
        return [cut(line, width) for line in lines]

    def _details(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give stages, processes and servers one by one, where the terminal is high enough."""
        lines: list[Line] = []
        for name, make in (("stages", stage_lines), ("processes", process_lines), ("servers", server_lines)):
            if height - len(lines) < LEAST_DETAILS:
                break
            made = make(scene, width)
            if len(made) > 1 and len(lines) + len(made) + 2 <= height:
                lines += [(), title(name, width), *made]
        return lines


def _unit(metric: Metric) -> str:
    return "" if metric.value is None else UNITS.get(metric.unit, clean(metric.unit))


def _about(rows: list[Row], cursor: int) -> Line:
    """Give what the metric at the cursor is, and since when it is so."""
    if not rows:
        return ()
    seen, metric = rows[max(0, min(cursor, len(rows) - 1))]
    since = f"{metric.state} for {span_of((seen.until - metric.since) / 1e9)}"
    parts = [part for part in (since, clean(metric.detail), clean(metric.text)) if part]
    return (Span(f"   {'; '.join(parts)}", "dim"),)


def _change(before: float | None, now: float | None) -> Span:
    if before is None or now is None:
        return Span(DASH, "dim")
    if before == 0:
        return Span("0" if now == 0 else "new")
    return Span(f"{(now / before - 1) * 100:+.1f} %")


def _trend(row: Row, width: int, ascii_only: bool) -> str:
    seen, metric = row
    values = seen.source.trend(f"metric.{metric.name}", seen.until, width)
    return spark(values, width, ascii_only, max([metric.limit, *values]))  # a full bar is the limit
