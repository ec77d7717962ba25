"""Two saved runs side by side, and what a single pair of runs can say: less than it seems."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from tvops.bench.conditions import Condition, Outcome, check
from tvops.bench.figures import COMPARED, UNITS, Unit, figure_of
from tvops.bench.result import Operation, Result, Series
from tvops.statistics import Values, block_bootstrap
from tvops.terminal import clean
from tvops.tuning.fingerprint import Fingerprint

SCHEMA = 1
LEAST_SECONDS = 10
"""Seconds of a run below which its per-second values say nothing of their spread."""

CAVEAT = (
    "One run of each: the interval holds the noise from second to second, not what differs from run to run "
    "(placement of processes, the host's other guests). `tvops bench ab` interleaves runs and can tell."
)

_SEED = 1
_PER_SECOND = {"p50": "p50", "p99": "p99", "max": "maximum", "rate": "answered", "errors": "errors"}


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two runs."""

    source: str  # name or path, as it was given
    name: str  # of the scenario
    version: str
    started: int  # ns since 1970
    seconds: float
    host: str  # digest of the fingerprint; empty: none was taken
    verdict: str


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one operation in both runs; ns where the unit says so."""

    operation: str
    figure: str
    unit: Unit
    before: float | None  # None: too few samples
    after: float | None
    difference: float | None
    percent: float | None  # of before; None: that is 0, or there is no difference
    low: float | None = None  # of the 95 % interval around the difference of the per-second means
    high: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the seconds of the two runs differ by more than they vary."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What comes of `tvops bench compare`."""

    schema: int = SCHEMA
    before: Side
    after: Side
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]
    caveat: str = CAVEAT
    conditions: tuple[Outcome, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a condition of --fail-if is met."""
        return any(outcome.met for outcome in self.conditions)


def compare(
    before: Result, after: Result, sources: tuple[str, str] = ("A", "B"), conditions: Sequence[Condition] = ()
) -> Compared:
    """Compare two runs, operation by operation.

    Raises:
        UsageError: a condition names an operation that neither has.
    """
    lines = [
        line
        for operation in before.operations
        if (other := after.operation(operation.key)) is not None
        for line in _lines(operation, other)
    ]
    return Compared(
        before=_side(before, sources[0]),
        after=_side(after, sources[1]),
        lines=tuple(lines),
        warnings=tuple(_warnings(before, after)),
        conditions=tuple(check(conditions, before, after)),
    )


def _side(result: Result, source: str) -> Side:
    return Side(
        source=clean(source), name=result.name, version=result.version, started=result.started,
        seconds=result.seconds, verdict=result.verdict,
        host=clean(result.fingerprint.digest) if result.fingerprint else "",
    )  # fmt: skip


def _lines(before: Operation, after: Operation) -> list[Line]:
    lines = []
    for figure in COMPARED:
        old, new = figure_of(before, figure), figure_of(after, figure)
        if old is None and new is None:
            continue
        difference = None if old is None or new is None else new - old
        low, high = _interval(before.series, after.series, figure)
        lines.append(
            Line(
                operation=before.key, figure=figure, unit=UNITS[figure], before=old, after=new,
                difference=difference, percent=100 * difference / old if old and difference is not None else None,
                low=low, high=high,
            )
        )  # fmt: skip
    return lines


def _interval(before: Series, after: Series, figure: str) -> tuple[float | None, float | None]:
    if figure not in _PER_SECOND:
        return None, None
    old, new = (_per_second(series, figure) for series in (before, after))
    if min(len(old), len(new)) < LEAST_SECONDS:
        return None, None
    return block_bootstrap(old, new, _SEED)


def _per_second(series: Series, figure: str) -> Values:
    values = np.array(getattr(series, _PER_SECOND[figure]), np.float64)
    if UNITS[figure] == "ns":
        # Seconds in which nothing was sent have no latency.
        values = values[np.array(series.sent, np.int64) > 0]
    return values


def _warnings(before: Result, after: Result) -> list[str]:
    warnings = []
    if before.scenario != after.scenario:
        warnings.append(f"the runs are not of one scenario or not with the same load ({_changed(before, after)})")
    if before.loop != after.loop:
        warnings.append(f"A is a {before.loop} loop, B a {after.loop} one: their latencies mean different things")
    if before.partial or after.partial:
        warnings += [f"{side} is not whole: {r.partial}" for side, r in (("A", before), ("B", after)) if r.partial]
    keys = [{operation.key for operation in result.operations} for result in (before, after)]
    for side, only in (("A", keys[0] - keys[1]), ("B", keys[1] - keys[0])):
        if only:
            warnings.append(f"only {side} has {', '.join(sorted(only))}")
    return warnings + _host_warnings(before.fingerprint, after.fingerprint)


def _changed(before: Result, after: Result) -> str:
    names = sorted(
        name
        for name in before.scenario.keys() | after.scenario.keys()
        if before.scenario.get(name) != after.scenario.get(name)
    )
    return f"differs in {', '.join(names)}"


def _host_warnings(before: Fingerprint | None, after: Fingerprint | None) -> list[str]:
    if before is None or after is None:
        return ["a run has no fingerprint of its host: whether the two can be compared is not known"]
    if before.digest == after.digest:
        return []
    old, new = msgspec.structs.asdict(before), msgspec.structs.asdict(after)
    differing = [name for name in old if name != "digest" and old[name] != new[name]]
    if before.host != after.host or before.cpu != after.cpu or before.cpus != after.cpus:
        return [f"the runs are of different hosts ({', '.join(differing)} differ): do not compare their figures"]
    told = [f"{name}: {old[name]} → {new[name]}" if isinstance(old[name], str) else name for name in differing]
    return [clean(f"the host changed between the runs ({'; '.join(told)})")]
