"""What to compare with: the figures of a recording, or of the moment at which the user took them."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import msgspec

from tvops.engine.telemetry.document import Metric
from tvops.engine.telemetry.histogram import Counts
from tvops.top.model import Model, Moment, metrics_of, stages_of
from tvops.top.recording import Recording

SAMPLED = 600
"""Frames of a recording that are looked at, at most, evenly spread."""

FIGURES = ("value", "p50", "p99", "p999", "maximum")


class Baseline(msgspec.Struct, frozen=True):
    """The figures from before."""

    name: str
    metrics: dict[str, dict[str, float]]  # metric -> figure -> value
    stages: dict[str, Counts]  # "process stage" -> counts

    def figure(self, metric: str, name: str) -> float | None:
        """Give a figure of a metric; None where there was none."""
        return self.metrics.get(metric, {}).get(name)


def stage_key(process: str, stage: str) -> str:
    """Give the name of a stage among those of all processes."""
    return f"{process} {stage}"


def take_baseline(moment: Moment, stack: int, name: str) -> Baseline:
    """Keep the figures of a moment: metrics as they stand, stages since the last reset."""
    seen = moment.seen(stack)
    metrics = {metric.name: _figures(metric) for _, metric in metrics_of(seen)}
    stages = {
        stage_key(endpoint.document.process if endpoint.document else "", key): history.since_reset.copy()
        for endpoint, key, history in stages_of(seen)
    }
    return Baseline(name, metrics, stages)


def read_baseline(path: Path) -> Baseline:
    """Give medians of the metrics over a recording, and its latencies; raise UsageError where it is none."""
    recording = Recording(path)
    model = Model(recording.stacks)
    values: dict[str, dict[str, list[float]]] = {}
    count = len(recording.times)
    for index in sorted(
        {round(part * (count - 1) / max(1, SAMPLED - 1)) for part in range(SAMPLED)} if count else ()
    ):
        reading = recording.frame(index)
        model.take(reading)
        for metric in reading.telemetry.metrics if reading.telemetry else ():
            for name, value in _figures(metric).items():
                values.setdefault(metric.name, {}).setdefault(name, []).append(value)
    recording.close()
    taken = take_baseline(model.moment(0), 0, path.name)
    medians = {key: {name: median(found) for name, found in figures.items()} for key, figures in values.items()}
    return Baseline(path.name, medians, taken.stages)


def _figures(metric: Metric) -> dict[str, float]:
    found = {name: getattr(metric, name) for name in FIGURES}
    return {name: value for name, value in found.items() if value is not None}
