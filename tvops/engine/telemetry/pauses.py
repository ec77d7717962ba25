"""Pauses of a process as stages: how late its event loop is, and how long its garbage collections take."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from typing import NamedTuple

from tvops.engine.telemetry.recorder import Recorder

INTERVAL_MS = 25
"""Between two looks at the loop.

A stall shows with its length less the time until the next look was due: one of this length always shows, a longer
one by all but this. Each look wakes an idle process, for some 50 µs.
"""

NOTED_NS = 5_000_000
"""A lag of so much is kept by itself."""

SETTLED_NS = 20_000_000
"""How old a lag has to be to be given: by then a pause of the process that explains it is known too."""

_INTERVAL_NS = INTERVAL_MS * 1_000_000
_KEPT = 1000  # lags until they are taken


class Pause(NamedTuple):
    """A time during which something stood still: when it ended (monotonic ns), and how long it was (ns)."""

    end: int
    length: int


class LoopLag:
    """Measures how late a timer of the running loop is called, to within the 1 ms of the loop's clock."""

    def __init__(self, recorder: Recorder) -> None:
        self._record = recorder.record
        self._lags: deque[Pause] = deque(maxlen=_KEPT)
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

    def take(self, now: int) -> list[Pause]:
        """Give the lags from `NOTED_NS` on that were not given yet and are `SETTLED_NS` old at ``now`` (ns)."""
        settled = []
        while self._lags and self._lags[0].end <= now - SETTLED_NS:
            settled.append(self._lags.popleft())
        return settled

    def _arm(self, now: int) -> None:
        self._due = now + _INTERVAL_NS
        self._timer = self._loop.call_later(INTERVAL_MS / 1000, self._look)

    def _look(self) -> None:
        now = time.monotonic_ns()
        lag = max(0, now - self._due)  # the loop's clock may be early
        self._record(lag)
        if lag >= NOTED_NS:
            self._lags.append(Pause(now, lag))
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
