"""Pauses of a process and stalls of its event loop as events: one by one while they are few, else together."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tvops.engine.telemetry.events import EventLog
from tvops.engine.telemetry.pauses import Pause

STALL_NS: Final = 5_000_000
"""From where on a stall of the event loop is told, without the time that the process could not run anyway."""

BURST: Final = 20
"""Lines that may follow one another at once."""

LINE_SECONDS: Final = 30.0
"""Time after which there may be another line."""

TOGETHER_SECONDS: Final = 10.0
"""Those that had no line by themselves are told together, so long after the first of them."""


class Stalls:
    """Tells of what stood still in a process; of the same thing once."""

    def __init__(self, log: EventLog, process: str) -> None:
        self._process = _Lines(log, process, "could not run")
        self._loop = _Lines(log, process, "the event loop stood still")
        self._before = np.zeros((0, 2), np.int64)

    def tell(self, now: float, pauses: NDArray[np.int64], lags: Iterable[Pause]) -> None:
        """Tell of the last second.

        Args:
            now: s, monotonic.
            pauses: (n, 2) of the process: end (monotonic ns), length (ns).
            lags: of its event loop, some of which may be of the second before.
        """
        self._process.tell(now, (Pause(*map(int, row)) for row in pauses))
        around = np.concatenate((self._before, pauses))
        own = (Pause(lag.end, lag.length - _common(lag, around)) for lag in lags)
        self._loop.tell(now, (stall for stall in own if stall.length >= STALL_NS))
        self._before = pauses


def _common(lag: Pause, pauses: NDArray[np.int64]) -> int:
    """Give for how much of ``lag`` the process could not run, ns."""
    ends, lengths = pauses.T
    parts = np.minimum(ends, lag.end) - np.maximum(ends - lengths, lag.end - lag.length)
    return int(np.maximum(parts, 0).sum())


def _since_1970() -> int:
    """Give what to add to a monotonic time, ns. Whoever is held up between the two clocks reads them again."""
    while True:
        before, now, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if after - before < 1_000_000:
            return now - after


class _Lines:
    """The lines about one kind of stall: a bucket of `BURST`, and one for all that found it empty."""

    def __init__(self, log: EventLog, about: str, what: str) -> None:
        self._log, self._about, self._what = log, about, what
        self._left, self._filled = float(BURST), float("-inf")
        self._longest_told = 0
        self._untold: list[Pause] = []
        self._untold_since = 0.0

    def tell(self, now: float, stalls: Iterable[Pause]) -> None:
        self._left = min(BURST, self._left + (now - self._filled) / LINE_SECONDS)
        self._filled = now
        for stall in stalls:
            if self._left >= 1 or stall.length >= 2 * self._longest_told:
                self._left = max(0.0, self._left - 1)
                self._longest_told = max(self._longest_told, stall.length)
                self._add_one(stall)
            else:
                self._untold_since = self._untold_since if self._untold else now
                self._untold.append(stall)
        if self._untold and now - self._untold_since >= TOGETHER_SECONDS:
            self._add_together(now - self._untold_since)

    def _add_one(self, stall: Pause) -> None:
        end = stall.end + _since_1970()
        clock = datetime.fromtimestamp(end / 1e9, UTC).isoformat(timespec="milliseconds")[11:23]
        self._add(f"{self._what} for {stall.length / 1e6:.1f} ms, until {clock} UTC", end)

    def _add_together(self, seconds: float) -> None:
        lengths = [stall.length / 1e6 for stall in self._untold]
        times = f"{len(lengths)} times more in {seconds:.0f} s" if len(lengths) > 1 else "once more"
        self._add(f"{self._what} {times}: {sum(lengths):.1f} ms in all, at longest {max(lengths):.1f} ms")
        self._longest_told = max(stall.length for stall in self._untold)
        self._untold.clear()

    def _add(self, text: str, moment: int | None = None) -> None:
        self._log.add("warn", self._about, text, moment, often=True)
