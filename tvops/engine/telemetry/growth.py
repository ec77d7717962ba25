"""Whether a process's memory grows, and whether that is a leak.

Memory goes up and down with every collection and comes in steps from the allocator, so that neither its last value
nor a plain regression says much. What a leak does is to raise the floor, again and again. So the least of each
minute counts, over an hour at most; the slope is Theil and Sen's, the median of the slopes between all pairs
(https://doi.org/10.2307/2285891), which half of the minutes cannot lead astray.
A single step is no leak: in a leak each sixth of the time has its share of the growth. Nor is a sawtooth, whose
least values wander as its period and ours beat: a leak stands out of what memory swings by within a minute, and of
what is left when its trend is taken away.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final

import numpy as np

MINUTE: Final = 60.0
WINDOW: Final = 60
"""Minutes that are looked at."""

WARM_UP: Final = 5
"""Minutes after the first look that do not count: caches and buffers fill."""

SHOWN: Final = 3
"""Minutes from which on there is a slope."""

JUDGED: Final = 12
"""Minutes from which on there is a verdict."""

LEAST_GROWTH: Final = 1 << 20
"""Bytes over the time looked at; what is less is the allocator's graininess."""

_PARTS = 6
_SWINGS = 1.25
_SHARE = 0.4  # of the mean growth from part to part, that each has to have
HOLD: Final = 3
"""Minutes in a row that have to look like a leak."""


class Growth:
    """Follows the memory of one process.

    `slope`: bytes per second, None while too little is known; `leaking`: whether it has looked like a leak for
    some minutes.
    """

    def __init__(self) -> None:
        self.slope: float | None = None
        self.leaking = False
        self._floors: deque[float] = deque(maxlen=WINDOW)
        self._swings: deque[float] = deque(maxlen=WINDOW)
        self._began: float | None = None
        self._minute = 0
        self._least, self._most = float("inf"), 0.0
        self._held = 0

    def add(self, now: float, size: int) -> None:
        """Take in the size in bytes at a time in seconds, of a clock that does not jump."""
        if self._began is None:
            self._began = now
        minute = int((now - self._began) / MINUTE)
        if minute != self._minute:
            if self._minute >= WARM_UP:
                self._close_minute()
            self._minute, self._least, self._most = minute, float("inf"), 0.0
        self._least, self._most = min(self._least, size), max(self._most, size)

    def _close_minute(self) -> None:
        self._floors.append(self._least)
        self._swings.append(self._most - self._least)
        floors = np.array(self._floors)
        if len(floors) < SHOWN:
            return
        per_minute = theil_sen(floors)
        self.slope = per_minute / MINUTE
        least = max(LEAST_GROWTH, _SWINGS * float(np.median(self._swings)), _wandering(floors, per_minute))
        growth = per_minute * (len(floors) - 1)
        suspicious = len(floors) >= JUDGED and growth >= least and _keeps_growing(floors)
        self._held = self._held + 1 if suspicious else 0
        self.leaking = self._held >= HOLD


def theil_sen(values: np.ndarray) -> float:
    """Give the median of the slopes between all pairs of equidistant values, per step."""
    first, second = np.triu_indices(len(values), 1)
    return float(np.median((values[second] - values[first]) / (second - first)))


def _wandering(floors: np.ndarray, per_minute: float) -> float:
    """Give how far the least values lie apart when the trend is taken away."""
    return float(np.ptp(floors - per_minute * np.arange(len(floors))))


def _keeps_growing(floors: np.ndarray) -> bool:
    """Whether each part of the time lies above the one before it, by its share of the growth."""
    levels = [float(np.median(part)) for part in np.array_split(floors, _PARTS)]
    share = _SHARE * (levels[-1] - levels[0]) / (_PARTS - 1)
    return share > 0 and all(after - before >= share for before, after in pairwise(levels))
