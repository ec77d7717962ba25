"""Stages with their percentiles: the table of the views of latencies, and as lines in the overview."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tvops.engine.telemetry.histogram import Counts, percentiles, shown_percentiles
from tvops.terminal import clean
from tvops.top.baseline import Baseline, stage_key
from tvops.top.history import StageHistory, largest
from tvops.top.lines import DASH, Line, Span, duration, number
from tvops.top.model import Seen, jitter, stages_of
from tvops.top.scene import Scene
from tvops.top.table import Column, arrange, body, columns_for, head, listing


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


STAGE_COLUMNS: Final = stage_columns(None)


def stage_count(scene: Scene) -> int:
    """Give how many stages the filter lets through."""
    return len(arrange(STAGE_COLUMNS, stage_rows(scene), scene.choice))


def stage_table(scene: Scene, width: int, most: int) -> tuple[list[Line], StageRow | None]:
    """Give the table of the stages, ``most`` of them, and the stage at the cursor; None where there is none."""
    columns = columns_for(stage_columns(scene.baseline), width - 2, scene.choice.hidden)
    rows = arrange(columns, stage_rows(scene), scene.choice)
    titles = head(columns, scene.choice)
    if not rows:
        return [titles, (Span("  nothing is measured yet", "dim"),)], None
    lines = body(columns, rows, min(most, len(rows)), scene.choice, lambda row: not row.seen.fresh)
    return [titles, *lines], rows[min(scene.choice.cursor, len(rows) - 1)]


def stage_lines(scene: Scene, width: int) -> list[Line]:
    """Give all stages with their percentiles."""
    return listing(stage_columns(scene.baseline), [(row, row.seen.fresh) for row in stage_rows(scene)], width)
