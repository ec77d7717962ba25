"""The times of every request of a generator, and the histograms and columns that they come to."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tvops.bench.result import Operation, Series
from tvops.engine.telemetry.histogram import (
    BUCKETS,
    HALF,
    HIGHEST,
    SUB_BITS,
    Counts,
    Histogram,
    empty,
    pack,
)

Nanoseconds = NDArray[np.int64]

LOST: Final = 1
NOT_CONNECTED: Final = 2
GARBAGE: Final = 3
LABELS: Final = {0: "timeout", LOST: "lost connection", NOT_CONNECTED: "not connected", GARBAGE: "no HTTP"}
"""Outcomes that are no answers; an answer is its status."""


class Window(msgspec.Struct, frozen=True):
    """The time that counts, in ns of the monotonic clock."""

    begin: int
    end: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end - self.begin) / 1e9


class Samples:
    """Times of every request by its number, in memory that is touched only as far as it is used.

    The memory views are what hot code writes to.
    """

    def __init__(self, intended: Nanoseconds) -> None:
        count = len(intended)
        self._intended = intended
        self._begun, self._sent, self._done = (np.zeros(count, np.int64) for _ in range(3))
        self._outcome = np.zeros(count, np.int16)
        self._kind = np.zeros(count, np.uint8)
        self.intended = intended.data
        self.begun = self._begun.data  # when the generator handed it over
        self.sent = self._sent.data  # when it was written to its connection; 0: never
        self.done = self._done.data  # when the answer was there; 0: never
        self.outcome = self._outcome.data  # status, below 0 where that is a failure; 0: no answer
        self.kind = self._kind.data  # which operation

    def operations(
        self, door: str, names: Sequence[str], window: Window, timeout: int, used: int
    ) -> list[Operation]:
        """Give what the first ``used`` requests come to, of those that were meant for ``window``.

        Args:
            door: name of the door.
            names: of its operations, in the order of their numbers.
            window: what is outside of it was warm-up.
            timeout: ns from the intended time after which an answer does not count any more.
            used: how many requests the generator has come to.
        """
        first, last = np.searchsorted(self._intended[:used], [window.begin, window.end])
        part = slice(int(first), int(last))
        kinds = self._kind[part]
        return [
            self._operation(door, name, np.flatnonzero(kinds == kind) + part.start, window, timeout)
            for kind, name in enumerate(names)
            if (kinds == kind).any()
        ]

    def _operation(
        self, door: str, name: str, which: NDArray[np.int64], window: Window, timeout: int
    ) -> Operation:
        intended, sent, done = self._intended[which], self._sent[which], self._done[which]
        outcome = self._outcome[which]
        late = (done == 0) | (done - intended > timeout)
        good = (outcome > 0) & ~late
        response = np.where(good, done - intended, timeout)
        was_sent = sent > 0
        # one that waited long for a connection has a service time all the same
        served = (outcome > 0) & (done - sent <= timeout)
        service = np.where(served, done - sent, timeout)[was_sent]
        second = (intended - window.begin) // 1_000_000_000
        codes = Counter(np.where(late, 0, outcome).tolist())
        return Operation(
            door=door,
            name=name,
            sent=int(was_sent.sum()),
            answered=int(good.sum()),
            errors=int((~good).sum()),
            timeouts=int(late.sum()),
            outcomes={LABELS.get(abs(code), str(abs(code))): count for code, count in sorted(codes.items())},
            rate=float(good.sum() / window.seconds),
            planned_rate=len(which) / window.seconds,
            response=packed(response),
            service=packed(service),
            lateness=packed(self._begun[which] - intended),
            series=series_of(second, response, was_sent, good, int(np.ceil(window.seconds))),
        )


def series_of(
    second: Nanoseconds, response: Nanoseconds, sent: NDArray[np.bool_], good: NDArray[np.bool_], seconds: int
) -> Series:
    """Put samples, which are ordered by time, into columns by second."""
    counts = [np.bincount(second[which], minlength=seconds)[:seconds] for which in (sent, good, ~good)]
    edges = np.searchsorted(second, np.arange(seconds + 1))
    marks = np.zeros((3, seconds), np.int64)
    for n, (begin, end) in enumerate(itertools.pairwise(edges)):
        if end > begin:
            marks[:, n] = np.percentile(response[begin:end], [50, 99, 100], method="inverted_cdf")
    columns = [tuple(column.tolist()) for column in (*counts, *marks)]
    return Series(**dict(zip(Series.__struct_fields__, columns, strict=True)))


def counts_of(values: Nanoseconds) -> Counts:
    """Count values in ns into the buckets of histograms; below 0 counts as 0, above an hour as that."""
    if not len(values):
        return empty()
    values = np.clip(values, 0, HIGHEST)
    _, bits = np.frexp((values | (2 * HALF - 1)).astype(np.float64))
    shifts = bits.astype(np.int64) - SUB_BITS
    return np.bincount((shifts << (SUB_BITS - 1)) + (values >> shifts), minlength=BUCKETS).astype(np.int64)


def packed(values: Nanoseconds) -> Histogram:
    """Give the histogram of values in ns; those below 0 are counted apart."""
    known = values[values >= 0]
    return pack(counts_of(known), int(known.max(initial=0)), len(values) - len(known))


def added(histograms: Sequence[Histogram]) -> Histogram:
    """Give the sum of histograms."""
    total = empty()
    for histogram in histograms:
        total += histogram.unpack()
    return pack(total, max((h.maximum for h in histograms), default=0), sum(h.negative for h in histograms))


def merged(operations: Sequence[Operation]) -> Operation:
    """Put together what several processes found of one operation; percentiles by second are those of the worst."""
    first = operations[0]
    if len(operations) == 1:
        return first
    outcomes: Counter[str] = Counter()
    figures: Counter[str] = Counter()
    for operation in operations:
        outcomes.update(operation.outcomes)
        figures.update(operation.figures)
    return Operation(
        door=first.door,
        name=first.name,
        sent=sum(o.sent for o in operations),
        answered=sum(o.answered for o in operations),
        errors=sum(o.errors for o in operations),
        timeouts=sum(o.timeouts for o in operations),
        outcomes=dict(outcomes),
        rate=sum(o.rate for o in operations),
        planned_rate=sum(o.planned_rate for o in operations),
        response=added([o.response for o in operations]),
        service=added([o.service for o in operations]),
        lateness=added([o.lateness for o in operations]),
        series=_merged_series([o.series for o in operations]),
        figures=dict(figures),
    )


def _merged_series(parts: Sequence[Series]) -> Series:
    columns: Mapping[str, tuple[int, ...]] = {
        name: tuple(
            (sum if name in ("sent", "answered", "errors") else max)(values)
            for values in zip(*(getattr(part, name) for part in parts), strict=False)
        )
        for name in Series.__struct_fields__
    }
    return Series(**columns)
