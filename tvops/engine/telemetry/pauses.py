"""Pauses of a process as stages: how late its event loop is, and how long its garbage collections take."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque

from tvops.engine.telemetry.recorder import Recorder

INTERVAL_MS = 5
"""Between two looks at the loop.

A stall shows with its length less the time until the next look was due: one of this length always shows, a longer
one by all but this. Each look wakes an idle process, for some 30 µs.
"""

_INTERVAL_NS = INTERVAL_MS * 1_000_000


class LoopLag:
    """Measures how late a timer of the running loop is called. Its resolution is that of the loop's clock, 1 ms.

    `worst` is the longest lag in ns since it was last taken with `take`.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._record = recorder.record
        self._worst = 0
        self._due = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; has to be called in the loop."""
        self._loop = asyncio.get_running_loop()
        self._arm(time.monotonic_ns())

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self) -> int:
        """Give the longest lag in ns since the last call."""
        worst, self._worst = self._worst, 0
        return worst

    def _arm(self, now: int) -> None:
        self._due = now + _INTERVAL_NS
        self._timer = self._loop.call_later(INTERVAL_MS / 1000, self._look)

    def _look(self) -> None:
        now = time.monotonic_ns()
        lag = max(0, now - self._due)  # the loop's clock may be early
        self._record(lag)
        if lag > self._worst:
            self._worst = lag
        self._arm(now)


class CollectionPauses:
    """Measures the garbage collections of this process, whichever thread has them run."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._begun = 0
        self._pauses: deque[int] = deque(maxlen=10_000)

    def start(self) -> None:
        """Begin."""
        gc.callbacks.append(self._note)

    def stop(self) -> None:
        """End."""
        if self._note in gc.callbacks:
            gc.callbacks.remove(self._note)

    def flush(self) -> None:
        """Record what was measured since the last call; from the recorder's own thread."""
        while self._pauses:
            self._recorder.record(self._pauses.popleft())

    def _note(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.monotonic_ns()
        elif self._begun:
            self._pauses.append(time.monotonic_ns() - self._begun)
            self._begun = 0
