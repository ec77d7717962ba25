"""Latency histograms in the layout of HdrHistogram: what is recorded, merged, shown and exported.

Values are int64 nanoseconds from 0 to an hour; each power of two is cut into 128 buckets, so that a value and the
bucket that it falls into differ by less than 1/128 (0.8 %; two significant digits in HdrHistogram's terms,
https://github.com/HdrHistogram/HdrHistogram). Counts are a plain int64 array, so that histograms add up, subtract
(an interval is the difference of two moments) and travel as the buckets that are not empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tvops.engine.telemetry.bounds import Count

Counts = NDArray[np.int64]

MOST: Final = 1 << 53
"""Samples: fewer than this add up without loss, as whole numbers and as doubles."""

SUB_BITS: Final = 8
HALF: Final = 1 << (SUB_BITS - 1)  # buckets of each power of two
HIGHEST: Final = 3_600_000_000_000  # ns; what is longer counts as this
BUCKETS: Final = (HIGHEST.bit_length() - SUB_BITS + 2) * HALF
RELATIVE_ERROR: Final = 1 / HALF

# From `EXACT` on, a bucket is the exponent of the value as a float64 and the first bits of its mantissa.
EXACT: Final = HALF  # values below have a bucket each
MANTISSA_BITS: Final = 52 - (SUB_BITS - 1)  # of a float64, those that a bucket leaves out
EXPONENT: Final = (1023 + SUB_BITS - 2) * HALF  # what the exponent of a float64 is ahead by


def bucket_of(value: int) -> int:
    """Give the bucket that a value in ns falls into; below 0 counts as 0, above `HIGHEST` as that."""
    value = min(max(value, 0), HIGHEST)
    shift = (value | (2 * HALF - 1)).bit_length() - SUB_BITS
    return (shift << (SUB_BITS - 1)) + (value >> shift)


def lowest_of(bucket: int) -> int:
    """Give the smallest value in ns that falls into ``bucket``."""
    shift = max((bucket >> (SUB_BITS - 1)) - 1, 0)
    return (bucket - (shift << (SUB_BITS - 1))) << shift


def highest_of(bucket: int) -> int:
    """Give the largest value in ns that falls into ``bucket``."""
    shift = max((bucket >> (SUB_BITS - 1)) - 1, 0)
    return lowest_of(bucket) + (1 << shift) - 1


HIGHEST_OF: Final = np.array([highest_of(bucket) for bucket in range(BUCKETS)], np.int64)
"""The largest value of each bucket."""

MIDDLE_OF: Final = np.array([(lowest_of(bucket) + highest_of(bucket) + 1) // 2 for bucket in range(BUCKETS)])
"""What stands for the values of each bucket in sums."""

PERCENTS: Final = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999)
"""The percentiles that are shown where there are samples enough."""


def empty() -> Counts:
    """Give counts of nothing."""
    return np.zeros(BUCKETS, np.int64)


def percentiles(counts: Counts, percents: Sequence[float], maximum: int | None = None) -> list[int]:
    """Give the values in ns that so many percent of the samples do not exceed; 0 where there are none.

    Args:
        counts: BUCKETS counts, int64.
        percents: 0 to 100.
        maximum: the largest sample, where it is known exactly.
    """
    total = int(counts.sum())
    if not total:
        return [0] * len(percents)
    cumulated = np.cumsum(counts)
    # A percent as a float may be a hair above what was meant: 99.9 % of 1,000 are 999.
    ranks = [max(1, math.ceil(math.nextafter(percent, 0.0) * total / 100)) for percent in percents]
    values = HIGHEST_OF[np.searchsorted(cumulated, ranks)]
    return [min(int(value), maximum) if maximum is not None else int(value) for value in values]


def shown_percentiles(counts: Counts) -> tuple[float, ...]:
    """Give those of `PERCENTS` that so many samples can tell: beyond each has to be room for at least one."""
    total = int(counts.sum())
    return tuple(percent for percent, needed in _NEEDED.items() if total >= needed)


def samples_needed(percent: float) -> int:
    """Give how many samples it takes to show a percentile (0 to below 100): 99 takes 100, 99.9 takes 1,000."""
    return math.ceil(round(100 / (100 - percent), 6))


_NEEDED: Final = {percent: samples_needed(percent) for percent in PERCENTS}


def sum_of(counts: Counts) -> int:
    """Give the sum of the samples in ns, to within half of `RELATIVE_ERROR`."""
    return int(counts @ MIDDLE_OF)


class Histogram(msgspec.Struct, frozen=True):
    """A histogram on its way: the buckets that are not empty."""

    buckets: bytes  # uint16, ascending
    counts: bytes  # int64
    maximum: Count = 0  # largest sample since the process started, ns
    negative: Count = 0  # samples below 0 (clock skew), which are not among the counts

    def check(self) -> tuple[NDArray[np.uint16], Counts]:
        """Give the buckets that are not empty and their counts; raise ValueError where they cannot be such."""
        where = np.frombuffer(self.buckets, np.uint16)
        counts = np.frombuffer(self.counts, np.int64)
        if len(where) != len(counts) or (len(where) and int(where.max()) >= BUCKETS):
            raise ValueError("is no histogram")
        # As unsigned, a count below 0 is past the bound as well.
        if counts.view(np.uint64).sum(dtype=np.float64) >= MOST:
            raise ValueError("has counts below 0, or more samples than there can be")
        return where, counts

    def unpack(self) -> Counts:
        """Give the counts as an array of all buckets; raise ValueError where they cannot be such."""
        where, counts = self.check()
        unpacked = empty()
        unpacked[where] = counts
        return unpacked


def pack(counts: Counts, maximum: int = 0, negative: int = 0) -> Histogram:
    """Give a histogram as it travels."""
    where = np.flatnonzero(counts)
    return Histogram(where.astype(np.uint16).tobytes(), counts[where].tobytes(), maximum, negative)
