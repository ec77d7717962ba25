"""What happened when: latencies as differences of cumulative histograms, figures as values over time. Bounded."""

from __future__ import annotations

import bisect
from collections import deque
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tvops.engine.telemetry.histogram import HIGHEST_OF, Counts, Histogram, empty

BIN_NS: Final = 1_000_000_000
KEPT_BINS: Final = 3600
_NOWHERE: Final = np.zeros(0, np.intp)
_NOTHING: Final = np.zeros(0, np.int64)


class Bin(NamedTuple):
    """The samples of one stretch of time, as the buckets that are not empty."""

    begin: int  # ns since 1970
    end: int
    where: NDArray[np.intp]
    counts: Counts
    total: int  # number of samples


class StageHistory:
    """The latencies of one stage: second by second, and all together since the last reset."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.since_reset: Counts = empty()
        self.bins: deque[Bin] = deque(maxlen=KEPT_BINS)
        self.maximum = 0
        self.negative = 0
        self._packed: Histogram | None = None
        self._last: Counts | None = None
        self._time = 0
        self._base: Counts | None = None  # the counts at the begin of the newest bin, while it goes on

    @property
    def all_counts(self) -> Counts:
        """The counts since the process started."""
        return empty() if self._last is None else self._last

    def add(self, time: int, histogram: Histogram) -> None:
        """Take the cumulative histogram of a document; raise ValueError where it is none.

        What had been counted before the first document is not of this history. Counts that went down are of
        another process, which has counted from zero.
        """
        if histogram == self._packed:
            self._append_nothing(time)
            return
        counts = histogram.unpack()
        self._packed, self.maximum, self.negative = histogram, histogram.maximum, histogram.negative
        if self._last is None:
            self._last, self._time = counts, time
            return
        difference = counts - self._last
        if int(difference.min()) < 0:
            self._last, self._base, difference = empty(), None, counts
        self.since_reset += difference
        self._append(counts, time)
        self._last, self._time = counts, time

    def restarted(self, time: int) -> None:
        """Count from zero: the process is another one since ``time``."""
        self._packed, self._last, self._time = None, empty(), time
        self._base = None

    def close_bin(self) -> None:
        """Begin another bin with the next document, so that what there is stays as it is."""
        self._base = None

    def reset(self) -> None:
        """Forget what was counted."""
        self.since_reset = empty()
        self.bins.clear()
        self._base = None

    def window(self, until: int, seconds: float) -> Counts:
        """Give the counts of the ``seconds`` before ``until`` (ns since 1970)."""
        counts = empty()
        for kept in reversed(self.bins):
            if kept.end > until:
                continue
            if kept.end <= until - seconds * 1e9:
                break
            counts[kept.where] += kept.counts
        return counts

    def columns(self, until: int, seconds: float, count: int) -> list[Counts | None]:
        """Give ``count`` slices of the ``seconds`` before ``until``, oldest first; None where nothing is known."""
        slices: list[Counts | None] = [None] * count
        begin, width = until - int(seconds * 1e9), seconds * 1e9 / count
        for kept in self.bins:
            if kept.end > until or kept.end <= begin:
                continue
            first = max(0, int((kept.begin - begin) / width))
            last = min(count - 1, int((kept.end - 1 - begin) / width))
            for index in range(first, last + 1):
                filled = slices[index]
                if filled is None:
                    filled = slices[index] = empty()
                if index == last:
                    filled[kept.where] += kept.counts
        return slices

    def rate(self, until: int, seconds: float) -> float | None:
        """Give the samples per second in the window; None where nothing is known of it."""
        begin, end, total, after = 0, 0, 0, until - seconds * 1e9
        for kept in reversed(self.bins):
            if kept.end > until:
                continue
            if kept.end <= after:
                break
            begin, end, total = kept.begin, end or kept.end, total + kept.total
        return total / ((end - begin) / 1e9) if end > begin else None

    def _append(self, counts: Counts, time: int) -> None:
        """Have the newest bin go on to ``time``, when the counts are these, or begin another one."""
        if self._base is not None and self._goes_on(time):
            begin = self.bins.pop().begin
        else:
            begin, self._base = min(self._time, time), self.all_counts
        difference = counts - self._base
        where = np.flatnonzero(difference)
        counted = difference[where]
        self.bins.append(Bin(begin, time, where, counted, int(counted.sum())))

    def _append_nothing(self, time: int) -> None:
        if self._base is not None and self._goes_on(time):
            self.bins.append(self.bins.pop()._replace(end=time))
        else:
            self._base = self.all_counts
            self.bins.append(Bin(self._time, time, _NOWHERE, _NOTHING, 0))
        self._time = time

    def _goes_on(self, time: int) -> bool:
        return bool(self.bins) and time - self.bins[-1].begin <= BIN_NS


def largest(counts: Counts, maximum: int) -> int:
    """Give the largest value that was counted, by its bucket and the exact ``maximum`` that is known."""
    where = np.flatnonzero(counts)
    return min(int(HIGHEST_OF[where[-1]]), maximum or int(HIGHEST_OF[-1])) if len(where) else 0


class Series:
    """The values of one figure over time, one a second at most."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._values: list[float] = []

    def add(self, time: int, value: float) -> None:
        """Take a value of ``time`` (ns since 1970); within a second of the last one the newer one counts."""
        if self._times and time - self._times[-1] < BIN_NS // 2:
            self._values[-1] = value
            return
        self._times.append(time)
        self._values.append(value)
        if len(self._times) > 2 * KEPT_BINS:
            del self._times[:KEPT_BINS], self._values[:KEPT_BINS]

    def last(self, until: int, count: int) -> list[float]:
        """Give the last ``count`` values up to ``until``, oldest first."""
        end = bisect.bisect_right(self._times, until)
        return self._values[max(0, end - count) : end]

    def columns(self, until: int, seconds: float, count: int) -> list[float | None]:
        """Give the largest value in each of ``count`` slices of the ``seconds`` before ``until``, oldest first."""
        slices: list[float | None] = [None] * count
        begin, width = until - int(seconds * 1e9), seconds * 1e9 / count
        for index in range(bisect.bisect_right(self._times, begin), bisect.bisect_right(self._times, until)):
            place = min(count - 1, int((self._times[index] - begin) / width))
            old, value = slices[place], self._values[index]
            slices[place] = value if old is None else max(old, value)
        return slices
