"""The latencies of a stage over time: p50, p99 and the largest, as far back as an hour."""

from __future__ import annotations

from typing import Any

from tvops.engine.telemetry.histogram import Counts, percentiles, samples_needed
from tvops.terminal import clean
from tvops.top.charts import LABEL, Plot
from tvops.top.history import largest
from tvops.top.lines import Line, Span, number, span_of, spark, title
from tvops.top.scene import Scene
from tvops.top.table import Column
from tvops.top.views.stages import STAGE_COLUMNS, StageRow, stage_count, stage_table

LIST_ROWS = 5
SLICE_SECONDS = 2.0  # that a point of the chart is of, at least


class History:
    """One stage over time."""

    name, letter = "history", "3"
    columns: tuple[Column[Any], ...] = STAGE_COLUMNS

    def count(self, scene: Scene) -> int:
        """Give the number of stages."""
        return stage_count(scene)

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give the stages around the cursor, and the chart of the one at it."""
        lines, chosen = stage_table(scene, width, LIST_ROWS)
        if chosen is None:
            return lines
        lines.append(())
        return [*lines, *_chart(scene, chosen, width, height - len(lines))][:height]


def _heights(counts: Counts | None, maximum: int) -> tuple[float | None, float | None, float | None]:
    """Give the largest value, p99 and p50, each where there are samples enough."""
    total = 0 if counts is None else int(counts.sum())
    if counts is None or not total:
        return None, None, None
    p99, p50 = percentiles(counts, [99.0, 50.0])
    return (
        float(largest(counts, maximum)),
        float(p99) if total >= samples_needed(99.0) else None,
        float(p50) if total >= samples_needed(50.0) else None,
    )


def _chart(scene: Scene, row: StageRow, width: int, height: int) -> list[Line]:
    inner = width - LABEL - 1
    until = row.seen.until - int(scene.pan * 1e9)
    points = inner * (1 if scene.ascii_only else 2)
    # Seconds are kept: of slices as short as that some would get two and their neighbours none.
    count = min(points, int(scene.zoom / SLICE_SECONDS))
    slices = row.history.columns(until, scene.zoom, count)
    curves: dict[str, list[float | None]] = {"max": [], "p99": [], "p50": []}
    for counts in slices:
        top, p99, p50 = _heights(counts, row.history.maximum)
        curves["max"].append(top)
        curves["p99"].append(p99)
        curves["p50"].append(p50)
    values = [value for curve in curves.values() for value in curve if value is not None]
    end = f"{span_of(scene.pan)} ago" if scene.pan else "now"
    heading = title(clean(row.name), width, f"last {span_of(scene.zoom)}  + - zoom  h l move")
    if not values or height < 6:
        return [heading, (Span("  no samples in this stretch of time", "dim"),)]
    plot = Plot(inner, height - 4, min(values), max(values), scene.ascii_only)
    for name, role in (("max", "dim"), ("p99", "title"), ("p50", "bar")):
        plot.curve([curves[name][place * count // points] for place in range(points)], role)
    counts_line = spark(
        [float(c.sum()) if c is not None else None for c in (slices[x * count // inner] for x in range(inner))],
        inner,
        scene.ascii_only,
    )
    begin = f"-{span_of(scene.zoom + scene.pan)}"
    axis = " " * LABEL + begin + end.rjust(inner - len(begin))
    legend = (
        Span(" " * LABEL),
        Span("max ", "dim"),
        Span("p99 ", "title"),
        Span("p50 ", "bar"),
        Span(f"  bars: samples, {number(row.rate)}/s", "dim"),
    )
    return [
        heading,
        *plot.lines(),
        (Span("samples".rjust(LABEL - 1) + " ", "dim"), Span(counts_line, "bar")),
        (Span(axis, "dim"),),
        legend,
    ]
