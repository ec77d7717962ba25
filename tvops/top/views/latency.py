"""Latencies by stage: percentiles of a window; histogram and percentile curve of the stage at the cursor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvops.engine.telemetry.histogram import HIGHEST_OF, Counts, lowest_of, percentiles
from tvops.terminal import clean
from tvops.top.charts import LABEL, Plot, bars
from tvops.top.lines import Line, Span, beside, duration, number, span_of, title
from tvops.top.scene import Scene
from tvops.top.table import Column
from tvops.top.views.stages import STAGE_COLUMNS, StageRow, stage_count, stage_table

TICKS = ((0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99"))


class Latency:
    """Percentiles of every stage; histogram and curve of one."""

    name, letter = "latency", "2"
    columns: tuple[Column[Any], ...] = STAGE_COLUMNS

    def count(self, scene: Scene) -> int:
        """Give the number of stages."""
        return stage_count(scene)

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give the table above, the charts below."""
        of = f"last {span_of(scene.window)}" if scene.window else "since reset"
        table, chosen = stage_table(scene, width, max(3, (height - 4) // 2))
        lines = [title("stages", width, of), *table]
        if chosen is None:
            return lines
        lines.append(())
        return [*lines, *_charts(scene, chosen, width, height - len(lines))][:height]


def _charts(scene: Scene, row: StageRow, width: int, height: int) -> list[Line]:
    if height < 5:
        return []
    if not row.total:
        text = f"  {clean(row.history.text)}: no samples in this window"
        return [title(clean(row.name), width), (Span(text, "dim"),)]
    before = scene.baseline.stages.get(row.key) if scene.baseline else None
    left = (width - 2) // 2
    histogram = _histogram(row.counts, left, height, scene.ascii_only)
    curve = _curve(row, before, width - left - 2, height, scene.ascii_only)
    return beside(histogram, curve, left)


def _histogram(counts: Counts, width: int, height: int, ascii_only: bool) -> list[Line]:
    """Give how many samples there are of each length, on a logarithmic scale."""
    where = np.flatnonzero(counts)
    low = math.log10(max(1, lowest_of(int(where[0]))))
    high = max(math.log10(max(1, int(HIGHEST_OF[where[-1]]))), low + 0.3)
    inner = width - 2
    # A bucket that a column's edge cuts counts on both sides, by its share: columns would differ else.
    cumulated = np.interp(np.logspace(low, high, inner + 1), HIGHEST_OF + 1, np.cumsum(counts))
    heights = np.diff(cumulated, prepend=0.0)[1:]
    heights[0] += cumulated[0]
    lines: list[Line] = [title("histogram", width, f"n {number(int(counts.sum()))}")]
    lines += [(Span(" "), Span(text, "bar")) for text in bars(heights.tolist(), height - 2, ascii_only)]
    lines.append((Span(_scale(low, high, inner), "dim"),))
    return lines


def _scale(low: float, high: float, width: int) -> str:
    """Give the line below a histogram: latencies at its begin, middle and end."""
    first, middle, last = (duration(10**value) for value in (low, (low + high) / 2, high))
    line = f" {first}".ljust(max(0, width // 2 - len(middle) // 2)) + middle
    return line.ljust(max(len(line) + 1, width + 1 - len(last))) + last


def _curve(row: StageRow, before: Counts | None, width: int, height: int, ascii_only: bool) -> list[Line]:
    """Give the latency of each percentile; each nine takes the same room."""
    inner = width - LABEL
    nines = max(1.0, min(5.0, math.log10(row.total)))
    parts = [1 - 10 ** -(nines * index / max(1, inner * 2 - 1)) for index in range(inner * 2)]
    percents = [100 * part for part in parts]
    now = percentiles(row.counts, percents, row.maximum)
    was = percentiles(before, percents) if before is not None and int(before.sum()) else []
    low, high = max(1, min([*now, *was])), max([*now, *was])
    plot = Plot(inner, height - 2, low, high, ascii_only)
    step = inner * 2 // plot.points
    plot.curve([float(value) for value in was[::step]], "before")
    plot.curve([float(value) for value in now[::step]], "bar")
    marks = [" "] * (inner + 6)
    for part, text in TICKS:
        place = round(-math.log10(1 - part) / nines * (inner - 1)) if part else 0
        if place + len(text) <= inner and "".join(marks[max(0, place - 1) : place + len(text)]).strip() == "":
            marks[place : place + len(text)] = list(text)
    note = "percentile, dim: baseline" if was else "percentile"
    return [title(clean(row.name), width, note), *plot.lines(), (Span(" " * LABEL + "".join(marks), "dim"),)]
