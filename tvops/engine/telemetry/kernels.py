"""The kernels that count latencies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.telemetry.histogram import EXACT, EXPONENT, HIGHEST, MANTISSA_BITS, Counts, empty


@kernel
def bucket(value: int) -> int:
    """Give the bucket that a value from 0 to `HIGHEST` ns falls into, as `histogram.bucket_of` does.

    It is taken from the bits of the value as a float64: its exponent and the first bits of its mantissa.
    """
    if value < EXACT:
        return value
    return int((np.float64(value).view(np.int64) >> MANTISSA_BITS) - EXPONENT)


@kernel
def count(values: NDArray[np.int64], times: NDArray[np.int64], counts: Counts) -> tuple[int, int]:
    """Add each of ``values`` (ns) to ``counts``, so many ``times``; give the largest, and how many are below 0.

    Those below 0 are not added, and those above `HIGHEST` count as that.
    """
    maximum = negative = 0
    for n in range(len(values)):
        value = values[n]
        if value < 0:
            negative += times[n]
            continue
        clamped = min(value, HIGHEST)
        maximum = max(maximum, clamped)
        counts[bucket(clamped)] += times[n]
    return maximum, negative


def compile_kernels() -> None:
    """Compile the kernels, or load them from the cache, so that no request waits for that."""
    count(np.zeros(1, np.int64), np.ones(1, np.int64), empty())
