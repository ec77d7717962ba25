"""Whether a run may be believed, and whether it kept its targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from tvops.bench.doors import DOORS
from tvops.bench.figures import UNITS, figure_of, latency
from tvops.bench.result import Check, MemorySample, Operation
from tvops.bench.samples import added, merged
from tvops.bench.scenario import Targets
from tvops.engine.telemetry.targets import load_targets
from tvops.errors import UsageError

LATE_AT_LEAST_MS: Final = 1.0
LATE_SHARE: Final = 0.1
"""A run is void where the generator was late by more than this share of the target at p99 (and 1 ms)."""
LISTENING_SHARE: Final = 0.5
"""The same for sessions: one message to hundreds of them arrives at once, and is read one after the other."""

_OPERATORS = {
    "gateway": ("tv_order_execution_latency", "p99_ms"),
    "market": ("tv_tick_stream_latency", "service_p99_ms"),
}
"""The metric that stands for a door, and the figure that is nearest to it. The age of a tick has the batching of
market data in it, which the metric leaves out."""
_FEW_MEMORY_SAMPLES = 8
_AT_LEAST = ("rate_percent",)


def default_targets(doors: Sequence[str]) -> Targets:
    """Give the operators' targets of latency, for doors that have none of their own."""
    wanted = {target.name: target for target in load_targets()}
    chosen: Targets = {}
    for door in doors:
        metric, figure = _OPERATORS.get(DOORS[door].target, ("", ""))
        target = wanted.get(metric)
        if target is not None and target.unit == "ms":
            chosen[door] = {figure: target.target, "error_rate": 0.0}
    return chosen


def void_reason(operations: Sequence[Operation], targets: Targets) -> str:
    """Say why the figures must not be used: there are none, or a generator was late. Empty where they may."""
    if not operations:
        return "nothing was measured: by chance, no request was meant for that time; measure longer"
    for name in dict.fromkeys(operation.door for operation in operations):
        own = [operation for operation in operations if operation.door == name]
        lateness = added([operation.lateness for operation in own])
        seen = latency(lateness, "p99")
        seen_ms = (seen if seen is not None else lateness.maximum) / 1e6
        allowed = allowed_lateness_ms(name, targets)
        if seen_ms > allowed:
            return (
                f"the generator of {name} was late: p99 {seen_ms:.2f} ms, allowed {allowed:.2f} ms; "
                "give it a lower rate, more processes or a quieter machine"
            )
    return ""


def allowed_lateness_ms(door: str, targets: Targets) -> float:
    """Give how late the generator of a door may be at p99, in ms."""
    wanted = [
        figures[figure]
        for about, figures in targets.items()
        for figure in ("p99_ms", "service_p99_ms")
        if about.partition(".")[0] == door and figure in figures
    ]
    share = LATE_SHARE if DOORS[door].paced else LISTENING_SHARE
    return max(LATE_AT_LEAST_MS, share * min(wanted, default=0.0))


def check(targets: Targets, operations: Sequence[Operation], memory: Sequence[MemorySample]) -> tuple[Check, ...]:
    """Hold what was found against the targets; what was not measured is not met."""
    checks = []
    for about, figures in targets.items():
        door, _, name = about.partition(".")
        chosen = [o for o in operations if o.door == door and name in ("", o.name) and not _is_slow(o, name)]
        for figure, limit in figures.items():
            seen = memory_slope(memory) if about == "stack" else _seen(chosen, figure)
            met = seen is not None and (seen >= limit if figure in _AT_LEAST else seen <= limit)
            detail = "" if seen is not None else "too few samples, or not measured"
            checks.append(Check(about=about, figure=figure, limit=limit, seen=seen, met=met, detail=detail))
    return tuple(checks)


def memory_slope(memory: Sequence[MemorySample]) -> float | None:
    """Give by how many MB a minute the memory of the stack grows (least squares); None: too few samples."""
    totals: dict[float, int] = {}
    for sample in memory:
        totals[sample.second] = totals.get(sample.second, 0) + sample.bytes
    if len(totals) < _FEW_MEMORY_SAMPLES:
        return None
    slope, _ = np.polyfit(np.array(list(totals)), np.array(list(totals.values()), np.float64), 1)
    return float(slope) * 60 / 2**20


def drift_percent(operation: Operation) -> float | None:
    """Give by how much the last third of the time is slower than the first: median of the p99 of each second."""
    marks = np.array([mark for mark in operation.series.p99 if mark > 0], np.float64)
    third = len(marks) // 3
    if third < 2:
        return None
    before, after = np.median(marks[:third]), np.median(marks[-third:])
    return float(100 * (after - before) / before)


def _is_slow(operation: Operation, name: str) -> bool:
    """Sessions that are slow on purpose count only where a target names them."""
    return not name and operation.name.startswith("slow_")


def _seen(operations: Sequence[Operation], figure: str) -> float | None:
    if not operations:
        return None
    whole = merged(operations)
    name = figure.removesuffix("_ms")
    if name in UNITS:
        value = figure_of(whole, name)
        return value / 1e6 if value is not None and UNITS[name] == "ns" else value
    if figure == "rate_percent":
        return 100 * whole.rate / whole.planned_rate if whole.planned_rate else None
    if figure == "drift_percent":
        drifts = [drift for operation in operations if (drift := drift_percent(operation)) is not None]
        return max(drifts, default=None)
    if figure in whole.figures:
        return whole.figures[figure]
    raise UsageError(f"{whole.door}: has no figure {figure}")
