"""Records latencies of one stage: a hot path appends to a buffer, a kernel counts full buffers."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tvops.engine.telemetry import kernels
from tvops.engine.telemetry.histogram import Counts, Histogram, empty, pack, percentiles

ENOUGH: Final = 100
"""Samples that a new window needs before it is shown."""

_SIZE: Final = 1024  # of the buffer: a call of the kernel costs as much as some ten records


class Recorder:
    """Latencies of one stage since the process started. For the thread that made it only.

    Values below 0 (clock skew) are counted apart, those above `histogram.HIGHEST` count as that.
    """

    __slots__ = (
        "_buffer", "_counts", "_maximum", "_negative", "_packed", "_times", "_times_array", "_used", "_values"
    )  # fmt: skip

    def __init__(self) -> None:
        self._buffer = array("q", bytes(8 * _SIZE))
        self._times = array("q", [1]) * _SIZE
        # The same memory for the kernel: to store into an array of Python's takes half the time.
        self._values: NDArray[np.int64] = np.frombuffer(self._buffer, np.int64)
        self._times_array: NDArray[np.int64] = np.frombuffer(self._times, np.int64)
        self._used = 0
        self._counts = empty()
        self._maximum = self._negative = 0
        self._packed: Histogram | None = None  # where nothing has been counted since

    def record(self, nanoseconds: int) -> None:
        """Record a latency."""
        # The end of the buffer is what tells that it is full: a comparison would cost every record some ns.
        try:
            self._buffer[self._used] = nanoseconds
            self._used += 1
        except IndexError:
            self._flush()
            self.record(nanoseconds)

    def record_times(self, nanoseconds: int, times: int) -> None:
        """Record a latency that ``times`` things had together."""
        try:
            self._buffer[self._used] = nanoseconds
            self._times[self._used] = times
            self._used += 1
        except IndexError:
            self._flush()
            self.record_times(nanoseconds, times)

    def record_many(self, nanoseconds: NDArray[np.int64]) -> None:
        """Record many latencies at once."""
        self._count(nanoseconds, np.ones(len(nanoseconds), np.int64))

    def add(self, counts: Counts, maximum: int) -> None:
        """Add latencies that were counted elsewhere, the longest of which is ``maximum`` ns."""
        self._counts += counts
        self._maximum = max(self._maximum, maximum)
        self._packed = None

    def counts(self) -> Counts:
        """Give the counts of every latency so far: what this recorder goes on with, so do not modify it."""
        self._flush()
        return self._counts

    @property
    def maximum(self) -> int:
        """The largest latency so far, ns."""
        self._flush()
        return self._maximum

    @property
    def negative(self) -> int:
        """How many values were below 0."""
        self._flush()
        return self._negative

    @property
    def total(self) -> int:
        """How many latencies there are, those below 0 left out."""
        return int(self.counts().sum())

    def percentile(self, percent: float) -> int:
        """Give the latency in ns that so many percent of all so far do not exceed; 0 where there are none."""
        return percentiles(self.counts(), [percent], self._maximum)[0]

    def packed(self) -> Histogram:
        """Give the latencies so far as they travel."""
        self._flush()
        if self._packed is None:
            self._packed = pack(self._counts, self._maximum, self._negative)
        return self._packed

    def _flush(self) -> None:
        if used := self._used:
            self._count(self._values[:used], self._times_array[:used])
            self._times_array[:used] = 1
            self._used = 0

    def _count(self, values: NDArray[np.int64], times: NDArray[np.int64]) -> None:
        maximum, negative = kernels.count(values, times, self._counts)
        self._maximum = max(self._maximum, maximum)
        self._negative += negative
        self._packed = None


class Window:
    """The latencies of a recorder since the last `rotate`; those of the window before while this one is young.

    The counts of a window are the difference of two moments of its recorder.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._begin, self._skewed = recorder.counts().copy(), recorder.negative
        self._last, self._last_skewed = empty(), 0

    def counts(self) -> Counts:
        """Give the counts of the window that has something to say."""
        return self._shown()[0]

    @property
    def negative(self) -> int:
        """How many values of that window were below 0."""
        return self._shown()[1]

    def percentile(self, percent: float) -> int:
        """Give the latency in ns that so many percent of that window do not exceed; 0 where there are none."""
        return percentiles(self.counts(), [percent], self._recorder.maximum)[0]

    @property
    def maximum(self) -> int:
        """The largest latency of that window in ns, to within `histogram.RELATIVE_ERROR`."""
        return self.percentile(100)

    def rotate(self) -> None:
        """Begin a new window."""
        self._last, self._last_skewed = self._present()
        self._begin, self._skewed = self._recorder.counts().copy(), self._recorder.negative

    def _present(self) -> tuple[Counts, int]:
        return self._recorder.counts() - self._begin, self._recorder.negative - self._skewed

    def _shown(self) -> tuple[Counts, int]:
        present = self._present()
        enough = int(present[0].sum()) >= ENOUGH
        return present if enough or not self._last.any() else (self._last, self._last_skewed)


def milliseconds(source: Recorder | Window, percents: Mapping[str, float]) -> dict[str, float]:
    """Give percentiles in ms, each by the name that ``percents`` has for it; none where there are no latencies."""
    counts = source.counts()
    if not counts.any():
        return {}
    values = percentiles(counts, list(percents.values()), source.maximum)
    return {name: round(value / 1e6, 3) for name, value in zip(percents, values, strict=True)}
