"""When requests are meant to be sent: rates over time, with constant or Poisson arrivals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tvops.errors import UsageError

MAX_REQUESTS: Final = 10_000_000
"""Of one generator: every request keeps its times until the end of the run."""

Rate = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stretch of time over which the rate stays, or goes in a straight line from one value to another."""

    seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)]
    rate: Rate  # per second
    to: Rate | None = None  # rate at the end; None: it stays

    @property
    def requests(self) -> float:
        """How many requests are meant for this stretch."""
        return self.seconds * (self.rate + (self.rate if self.to is None else self.to)) / 2


def arrivals(phases: Sequence[Phase], seed: int | None = None, share: float = 0.0) -> NDArray[np.int64]:
    """Give the times at which requests are meant to be sent, in ns from the beginning, ascending.

    Arrivals of an even rate are put through the inverse of the rate's integral, so that ramps are exact.

    Args:
        phases: one behind the other.
        seed: of a Poisson process; None: evenly spaced by the rate.
        share: of the first interval that passes before the first of evenly spaced ones (0 to below 1), so that
            several processes take turns.

    Raises:
        UsageError: more than `MAX_REQUESTS`.
    """
    total = sum(phase.requests for phase in phases)
    if total > MAX_REQUESTS:
        raise UsageError(f"{total:,.0f} requests are more than a run can hold ({MAX_REQUESTS:,}); shorten it")
    return _inverse(phases, _even(total, share) if seed is None else _poisson(total, seed))


def _even(total: float, share: float) -> NDArray[np.float64]:
    return share + np.arange(max(0, int(np.ceil(total - share - 1e-9))), dtype=np.float64)


def _poisson(total: float, seed: int) -> NDArray[np.float64]:
    """Give the arrivals of a Poisson process of rate 1 up to ``total``."""
    chance = np.random.default_rng(seed)
    count = int(total + 10 * np.sqrt(total) + 20)  # ten standard deviations above what is expected
    units = np.cumsum(chance.exponential(size=count))
    return units[units < total]


def _inverse(phases: Sequence[Phase], units: NDArray[np.float64]) -> NDArray[np.int64]:
    begins = np.cumsum([0.0] + [phase.seconds for phase in phases])
    reached = np.cumsum([0.0] + [phase.requests for phase in phases])
    first = np.array([phase.rate for phase in phases])
    last = np.array([phase.rate if phase.to is None else phase.to for phase in phases])
    slopes = (last - first) / np.diff(begins)
    where = np.clip(np.searchsorted(reached, units, "right") - 1, 0, len(phases) - 1)
    rest = units - reached[where]
    root = np.sqrt(np.maximum(first[where] ** 2 + 2 * slopes[where] * rest, 0))
    divisor = first[where] + root
    within = np.divide(2 * rest, divisor, out=np.zeros_like(rest), where=divisor > 0)
    return np.asarray((begins[where] + within) * 1e9, np.int64)
