"""How a budget of time becomes pairs of blocks and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tvops.errors import UsageError
from tvops.statistics import needed_pairs, needed_samples
from tvops.tuning.evidence.probes import Probe

PERCENTILES = (50.0, 99.0)
"""What is told of every probe that has samples enough. Beyond p99 a shared host shows its own noise only."""

MOST_PAIRS = 100
_LEAST_PAIRS = 10
_SAMPLES = (needed_samples(99.0), needed_samples(50.0) * 10)
"""Samples in a block: enough for p99, else enough for a steady p50."""

_SLOWER = 1.15  # that everything is than it was when it was tried out


class Cost(msgspec.Struct, frozen=True):
    """What a probe takes, in seconds."""

    setup: float
    sample: float


class Schedule(msgspec.Struct, frozen=True):
    """What will be done."""

    pairs: int  # for each change and for the control
    least_pairs: int  # with which a verdict is possible
    samples: dict[str, int]  # probe -> samples in a block
    seconds: float  # that it all takes, about

    def percentiles(self, probe: str) -> tuple[float, ...]:
        """Give the percentiles that the samples of a probe allow."""
        return tuple(p for p in PERCENTILES if self.samples[probe] >= needed_samples(p))


def make_schedule(
    probes: Sequence[Probe], costs: Mapping[str, Cost], changes: int, seconds: float, settle: float
) -> Schedule:
    """Give as many pairs as the budget allows, with p99 if it can be had.

    Raises:
        UsageError: the budget is too small for a verdict on so many changes; it says how much it takes.
    """
    for most in _SAMPLES:
        samples = {probe.name: min(most, probe.most_samples) for probe in probes}
        block = _SLOWER * (settle + sum(costs[n].setup + costs[n].sample * count for n, count in samples.items()))
        figures = sum(count >= needed_samples(p) for count in samples.values() for p in PERCENTILES)
        least = max(_LEAST_PAIRS, needed_pairs(changes * figures))
        round_seconds = 2 * block * (changes + 1)
        if least * round_seconds <= seconds:
            pairs = min(MOST_PAIRS, int(seconds / round_seconds))
            return Schedule(pairs, least, samples, pairs * round_seconds)
    raise UsageError(
        f"--seconds {seconds:g}: {changes} change{'s' if changes > 1 else ''} and the control take at least "
        f"{int(least * round_seconds) + 1} s; give more time, or fewer knobs with --only"
    )
