"""Latency histograms: int64 nanoseconds into log-linear buckets, percentiles out.

Each power of two is cut into 32 buckets, so that a percentile is at most 1/32 (3.2 %) above the sample that
it stands for (the scheme of HdrHistogram, http://hdrhistogram.org).
"""

from __future__ import annotations

from collections.abc import Iterator

SUB_BITS = 5
_SUB = 1 << SUB_BITS
_BUCKETS = (64 - SUB_BITS) * _SUB


def _bucket(value: int) -> int:
    if value < _SUB:
        return value
    shift = value.bit_length() - SUB_BITS - 1
    return (shift << SUB_BITS) + (value >> shift)


def _upper(bucket: int) -> int:
    """Give the largest value that falls into ``bucket``."""
    if bucket < 2 * _SUB:
        return bucket
    shift = (bucket >> SUB_BITS) - 1
    return ((bucket - (shift << SUB_BITS) + 1) << shift) - 1


class LatencyHistogram:
    """Counts of latencies of one stage. Negative values (clock skew) count as `negative`, never as fast."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts = [0] * _BUCKETS
        self.count = 0
        self.negative = 0
        self.maximum = 0

    def record(self, nanoseconds: int, times: int = 1) -> None:
        """Count a latency ``times`` times."""
        if nanoseconds < 0:
            self.negative += times
            return
        self.counts[_bucket(nanoseconds)] += times
        self.count += times
        if nanoseconds > self.maximum:
            self.maximum = nanoseconds

    def percentile(self, percent: float) -> int:
        """Give the latency in ns that ``percent`` of the samples do not exceed; 0 where there are none."""
        rank = max(1, -int(-self.count * percent // 100))
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= rank:
                return min(_upper(bucket), self.maximum)
        return 0

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Give the buckets that hold samples: the largest latency in ns of each, and how many."""
        for bucket, count in enumerate(self.counts):
            if count:
                yield min(_upper(bucket), self.maximum), count

    def reset(self) -> None:
        """Forget every sample."""
        self.counts = [0] * _BUCKETS
        self.count = self.negative = self.maximum = 0
