"""A against B by interleaved runs: pairs in random order, and an A/A control that says what noise is.

Half of the control comes first, the rest between the pairs, so that it sees the noise of the whole time. A pair
with a void run is dropped and measured again at the end, until more were dropped than there should be pairs. The
statistics are those of `tvops.statistics`, corrected over all figures.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np

import tvops
from tvops.bench.figures import UNITS, Unit, figure_of, lower_is_better
from tvops.bench.result import Result
from tvops.bench.samples import added
from tvops.engine.telemetry.histogram import Histogram
from tvops.errors import UsageError
from tvops.statistics import ALPHA, Comparison, Judgement, judge, least_p, noise_floor
from tvops.statistics import compare as compare_pairs
from tvops.tuning.fingerprint import Fingerprint

SCHEMA: Final = 1
LEAST_PAIRS: Final = 6
"""With fewer pairs no difference, however large, has a p-value below 0.05."""

SideName = Literal["a", "b"]
Measure = Callable[[SideName], Result]
Verdict = Literal["better", "worse", "no measurable difference"]
Pair = tuple[Result, Result]

_VERDICTS: Final[dict[str, Verdict]] = {
    "helps": "better",
    "hurts": "worse",
    "no measurable effect": "no measurable difference",
}
_OPEN: Final = ("p50", "p90", "p99", "error_rate")
_CLOSED: Final = ("p50", "p99", "rate", "error_rate")


class AbFigure(msgspec.Struct, frozen=True, kw_only=True):
    """What came out for one figure of one operation; ns where the unit says so."""

    operation: str
    figure: str
    unit: Unit
    before: float  # median of A
    after: float  # median of B
    difference: float  # trimmed mean of B - A over the pairs
    low: float  # of its 95 % interval
    high: float
    p: float  # signed-rank test, corrected for all figures
    floor: float  # what A/A differed by, at most
    detectable: float  # smallest difference that would have been found with a chance of 80 %
    verdict: Verdict

    def percent(self, value: float) -> float | None:
        """Give a difference in percent of A; None where that is 0."""
        return 100 * value / self.before if self.before else None


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """All samples of one operation, put together."""

    operation: str
    before: Histogram
    after: Histogram


class Ab(msgspec.Struct, frozen=True, kw_only=True):
    """The whole experiment."""

    schema: int = SCHEMA
    version: str = tvops.__version__
    started: int  # ns since 1970
    seconds: float  # that it took
    seed: int
    a: str  # what A is
    b: str
    scenario: dict[str, Any]
    fingerprint: Fingerprint | None
    pairs: int  # that count
    control_pairs: int
    dropped: tuple[str, ...]  # why pairs were dropped
    figures: tuple[AbFigure, ...]
    curves: tuple[Curves, ...]
    void: str = ""
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict | Literal["void"]:
        """Give worse where any figure got worse, else better where any did."""
        if self.void:
            return "void"
        found = {figure.verdict for figure in self.figures}
        return next((verdict for verdict in ("worse", "better") if verdict in found), "no measurable difference")


class Experiment:
    """Measures pairs; `control` and `pairs` fill up as it goes."""

    def __init__(self, measure: Measure, count: int, seed: int, tell: Callable[[str], None]) -> None:
        """Prepare; raise UsageError where there are too few pairs for any verdict."""
        if count < LEAST_PAIRS:
            raise UsageError(
                f"pairs: {count} are too few for any verdict; give {LEAST_PAIRS} or more, better 10 to 20"
            )
        self.control: list[Pair] = []
        self.pairs: list[Pair] = []
        self.dropped: list[str] = []
        self._measure, self._count, self._tell = measure, count, tell
        self._random = random.Random(seed)  # noqa: S311 - no secret hangs on it

    def run(self) -> None:
        """Measure the control and all pairs; those that were void once more, as long as it is not most of them."""
        first = self._count - self._count // 2
        for _ in range(first):
            self._control()
        for number in range(self._count):
            self._comparison()
            if number % 2:
                self._control()
        while min(len(self.control), len(self.pairs)) < self._count and not self._hopeless:
            (self._control if len(self.control) < len(self.pairs) else self._comparison)()

    @property
    def _hopeless(self) -> bool:
        return len(self.dropped) > self._count

    def _control(self) -> None:
        self._pair(self.control, f"A/A {len(self.control) + 1}/{self._count}", ("a", "a"))

    def _comparison(self) -> None:
        self._pair(self.pairs, f"A/B {len(self.pairs) + 1}/{self._count}", ("a", "b"))

    def _pair(self, pairs: list[Pair], text: str, sides: tuple[SideName, SideName]) -> None:
        if self._hopeless:
            return
        self._tell(text)
        order = self._random.sample((0, 1), 2)
        taken = {which: self._measure(sides[which]) for which in order}
        if wrong := next((result.void or result.partial for result in taken.values() if _unfit(result)), ""):
            self.dropped.append(f"{text}: {wrong}")
        else:
            pairs.append((taken[0], taken[1]))


def _unfit(result: Result) -> bool:
    return bool(result.void or result.partial)


def run_ab(
    measure: Measure, labels: tuple[str, str], pairs: int, seed: int, tell: Callable[[str], None] = lambda _: None
) -> Ab:
    """Measure and conclude.

    Args:
        measure: runs one side once.
        labels: what A and B are, for the report.
        pairs: of the control and of the comparison, each.
        seed: of the order and of the intervals.
        tell: is told before each pair.

    Raises:
        UsageError: too few pairs.
    """
    started, begun = time.time_ns(), time.monotonic()
    experiment = Experiment(measure, pairs, seed, tell)
    experiment.run()
    taken, control = experiment.pairs, experiment.control
    void = ""
    if min(len(taken), len(control)) < LEAST_PAIRS:
        void = (
            f"{len(experiment.dropped)} pairs were void; {len(taken)} that count and {len(control)} of the "
            f"control are too few: {experiment.dropped[0]}"
        )
    figures = [] if void else _figures(taken, control, seed)
    some = taken[0][0] if taken else None
    return Ab(
        started=started, seconds=time.monotonic() - begun, seed=seed, a=labels[0], b=labels[1],
        scenario=some.scenario if some else {}, fingerprint=some.fingerprint if some else None,
        pairs=len(taken), control_pairs=len(control), dropped=tuple(experiment.dropped), figures=tuple(figures),
        curves=tuple(_curves(taken)), void=void, notes=tuple(_notes(figures, len(taken))),
    )  # fmt: skip


def _figures(pairs: Sequence[Pair], control: Sequence[Pair], seed: int) -> list[AbFigure]:
    names: list[tuple[str, str]] = []
    comparisons: list[Comparison] = []
    floors: list[float] = []
    for key, figure in _measured(pairs):
        # Where more is better, everything is turned round, so that less is better for all.
        sign = 1.0 if lower_is_better(figure) else -1.0
        both = [_columns(part, key, figure) for part in (pairs, control)]
        if both[0] is None or both[1] is None or not np.ptp(np.concatenate([*both[0], *both[1]])):
            continue
        (before, after), (one, other) = both[0], both[1]
        names.append((key, figure))
        comparisons.append(compare_pairs(sign * before, sign * after, seed))
        floors.append(noise_floor(compare_pairs(one, other, seed)))
    return [
        _figure(key, figure, comparison, judgement)
        for (key, figure), comparison, judgement in zip(
            names, comparisons, judge(comparisons, floors), strict=True
        )
    ]


def _measured(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    first = pairs[0][0]
    figures = _CLOSED if first.loop == "closed" else _OPEN
    return [(operation.key, figure) for operation in first.operations for figure in figures]


def _columns(pairs: Sequence[Pair], key: str, figure: str) -> list[np.ndarray[Any, np.dtype[np.float64]]] | None:
    """Give a figure of all first and all second runs; None where one of them does not have it."""
    rows = []
    for pair in pairs:
        operations = [result.operation(key) for result in pair]
        values = [None if operation is None else figure_of(operation, figure) for operation in operations]
        if any(value is None for value in values):
            return None
        rows.append(values)
    return list(np.array(rows, np.float64).T)


def _figure(key: str, figure: str, comparison: Comparison, judgement: Judgement) -> AbFigure:
    ends = [comparison.low, comparison.high]
    before, after, difference = comparison.before, comparison.after, comparison.difference
    if not lower_is_better(figure):
        before, after, difference, ends = -before, -after, -difference, [-ends[1], -ends[0]]
    return AbFigure(
        operation=key, figure=figure, unit=UNITS[figure], before=before, after=after, difference=difference,
        low=ends[0], high=ends[1], p=judgement.p_corrected, floor=judgement.floor,
        detectable=judgement.detectable, verdict=_VERDICTS[judgement.verdict],
    )  # fmt: skip


def _curves(pairs: Sequence[Pair]) -> list[Curves]:
    if not pairs:
        return []
    curves = []
    for operation in pairs[0][0].operations:
        sides: list[Histogram] = []
        for which in (0, 1):
            found = [pair[which].operation(operation.key) for pair in pairs]
            sides.append(added([one.response for one in found if one is not None]))
        curves.append(Curves(operation=operation.key, before=sides[0], after=sides[1]))
    return curves


def _notes(figures: Sequence[AbFigure], pairs: int) -> list[str]:
    if figures and least_p(pairs) * len(figures) >= ALPHA:
        return [
            f"{pairs} pairs are too few for a verdict on one of {len(figures)} figures, however large the "
            "difference; give more pairs"
        ]
    return []
