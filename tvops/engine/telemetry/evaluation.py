"""From samples to states: the value of each metric over its window, and what that has been for long enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tvops.engine.telemetry.document import Metric, MetricState
from tvops.engine.telemetry.histogram import Counts, percentiles
from tvops.engine.telemetry.recorder import Recorder
from tvops.engine.telemetry.stages import Stages
from tvops.engine.telemetry.targets import PERCENTS, UNITS, Statistic, Target

MOST_SLOTS = 10
"""A window of latencies moves on in so many steps at most."""

ENOUGH = {"p50": 1, "p99": 100, "p999": 1000}
"""Samples that a percentile needs to mean something."""

BY_CHANCE = 0.05
"""How probable one sample beyond a percentile may be, where all is well, for it to be told as a breach.

Of up to 5 samples each tells of a p99, and the maximum stands for it. Among 6 to 99 one beyond is to be expected
now and then, and the second largest stands for it, as it does among 100.
"""


class Change(NamedTuple):
    """A metric came into another state."""

    metric: Metric
    before: MetricState


class Judge:
    """The state of one metric. A level has to hold for a minimum duration to become the state.

    Two switches, one for the target and one for the limit: each turns when the value has been on its other side
    all the time for `seconds`. The first value after there were none counts as ok until then.
    """

    def __init__(self, seconds: float) -> None:
        self.state: MetricState = "no data"
        self._seconds = seconds
        self._switches = (_Switch(seconds), _Switch(seconds))
        self._missing_since: float | None = None

    def update(self, now: float, level: MetricState) -> MetricState:
        """Take the level of the value at monotonic time ``now`` (s); give the state."""
        if level == "no data":
            if self._missing_since is None:
                self._missing_since = now
            if now - self._missing_since >= self._seconds:
                self.state = "no data"
                self._switches = (_Switch(self._seconds), _Switch(self._seconds))
            return self.state
        self._missing_since = None
        over_target = self._switches[0].update(now, level != "ok")
        over_limit = self._switches[1].update(now, level == "breach")
        self.state = "breach" if over_limit else "warn" if over_target else "ok"
        return self.state


class _Switch:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._on = False
        self._since: float | None = None  # when the input began to differ

    def update(self, now: float, wanted: bool) -> bool:
        if wanted == self._on:
            self._since = None
        else:
            if self._since is None:
                self._since = now
            if now - self._since >= self._seconds:
                self._on, self._since = wanted, None
        return self._on


class _Summary(NamedTuple):
    """What a window holds, in the unit of its metric."""

    value: float | None
    samples: int = 0
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    maximum: float | None = None
    detail: str = ""


class _LatencyWindow:
    """The latencies of a stage in the last seconds: the difference of two moments of its recorder."""

    def __init__(self, target: Target) -> None:
        self._target = target
        slots = min(MOST_SLOTS, target.window_seconds)
        self._step = target.window_seconds / slots
        self._moments: deque[Counts] = deque(maxlen=slots)
        self._due = float("-inf")
        self._recorder: Recorder | None = None

    def summary(self, now: float, recorder: Recorder | None) -> _Summary:
        if recorder is None:
            return _Summary(None, detail="this process does not have the stage yet")
        if recorder is not self._recorder:
            self._recorder, self._due = recorder, float("-inf")
            self._moments.clear()
        counts = recorder.counts()
        whole = len(self._moments) == self._moments.maxlen
        inside = counts - self._moments[0] if whole else counts
        if now >= self._due:
            self._moments.append(counts.copy())
            self._due = now + self._step - 0.5  # a sample a second is not on the dot
        return self._summarised(inside, recorder.maximum)

    def _summarised(self, counts: Counts, maximum: int) -> _Summary:
        samples = int(counts.sum())
        if not samples:
            return _Summary(None, detail=f"nothing in the last {self._target.window_seconds} s")
        unit = UNITS[self._target.unit]
        judged, detail = _judged(self._target.statistic, samples)
        percents = [judged, 50, 99, 99.9, 100]
        value, p50, p99, p999, most = (value / unit for value in percentiles(counts, percents, maximum))
        return _Summary(
            value=value,
            samples=samples,
            p50=p50,
            p99=p99 if samples >= ENOUGH["p99"] else None,
            p999=p999 if samples >= ENOUGH["p999"] else None,
            maximum=most,
            detail=detail,
        )


def _judged(wanted: Statistic, samples: int) -> tuple[float, str]:
    """Give the percentile that stands for a statistic, and what to say where it is another."""
    percent = PERCENTS.get(wanted, 100.0)
    if samples >= ENOUGH.get(wanted, 1):
        return percent, ""
    few = f"{samples} sample{' is' if samples == 1 else 's are'} too few for {wanted}"
    if 1 - (percent / 100) ** samples <= BY_CHANCE:
        return 100.0, f"the maximum: {few}"
    return 100 * (samples - 1) / samples, f"the second largest: {few}"


class _FigureWindow:
    """The values of a figure in the last seconds."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._values: deque[tuple[float, float]] = deque(maxlen=target.window_seconds + 1)

    def summary(self, now: float, figures: Mapping[str, float]) -> _Summary:
        value = next((figures[name] for name in self._target.figures if name in figures), None)
        if value is not None:
            self._values.append((now, float(value)))
        while self._values and now - self._values[0][0] >= self._target.window_seconds:
            self._values.popleft()
        if not self._values:
            return _Summary(None, detail="it is not measured yet")
        values = [value for _, value in self._values]
        most = max(values)
        shown = most if self._target.statistic == "max" else float(np.mean(values))
        return _Summary(shown, samples=len(values), maximum=most)


class Evaluator:
    """Judges the metrics that one process measures, once a second."""

    def __init__(self, targets: Sequence[Target], stages: Stages) -> None:
        """Judge ``targets`` by the figures that come with each update and by ``stages``."""
        self._stages = stages
        self._rows = [_Row(target) for target in targets]
        self.metrics: tuple[Metric, ...] = ()

    def update(self, now: float, time_ns: int, figures: Mapping[str, float]) -> list[Change]:
        """Bring `metrics` up to date; give those whose state changed.

        Args:
            now: monotonic time, s.
            time_ns: the same moment, ns since 1970.
            figures: ``SERVICE.NAME`` -> value, as far as known.
        """
        changes = []
        for row in self._rows:
            before = row.judge.state
            row.update(now, time_ns, row.summary(now, figures, self._stages))
            if row.judge.state != before:
                changes.append(Change(row.metric, before))
        self.metrics = tuple(row.metric for row in self._rows)
        return changes


class _Row:
    def __init__(self, target: Target) -> None:
        self._target = target
        self._latencies = _LatencyWindow(target) if target.stage else None
        self._values = _FigureWindow(target)
        self._since = 0
        self.judge = Judge(target.for_seconds)
        self.metric: Metric

    def summary(self, now: float, figures: Mapping[str, float], stages: Stages) -> _Summary:
        if self._latencies is not None:
            return self._latencies.summary(now, stages.get(self._target.stage))
        return self._values.summary(now, figures)

    def update(self, now: float, time_ns: int, summary: _Summary) -> None:
        target, before = self._target, self.judge.state
        state = self.judge.update(now, target.level(summary.value))
        if state != before or not self._since:
            self._since = time_ns
        self.metric = Metric(
            name=target.name,
            text=target.text,
            unit=target.unit,
            target=target.target,
            limit=target.limit,
            state=state,
            since=self._since,
            **summary._asdict(),
        )
