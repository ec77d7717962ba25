"""How long a process could not run at all: stopped, or its time stolen, throttled, or taken by others.

In the manner of jHiccup (https://www.azul.com/products/components/jhiccup/): a thread of its own has a wake-up due
every millisecond and counts how late each is served. It runs outside the GIL, so that it does not matter what the
process itself does: what delays it would have delayed anything. Each wake-up counts by itself, as a request would
that came at that moment: a pause of 5 ms is five of them, as recordValueWithExpectedInterval of HdrHistogram has
it, and percentiles are parts of the time.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import numpy as np
from numba import types
from numpy.typing import NDArray

from tvops.engine import kernel_calls
from tvops.engine.compiled import kernel
from tvops.engine.telemetry.histogram import HIGHEST, empty
from tvops.engine.telemetry.kernels import bucket
from tvops.engine.telemetry.recorder import Recorder

PERIOD_NS: Final = 1_000_000
"""Between two wake-ups that are due. A pause shows with its length less this at least: one of 5 ms with 4 ms."""

SLACK_NS: Final = 3_000_000
"""How late the kernel may wake the thread, so that it can do so along with others.

A quiet process is woken every fourth millisecond, at some 12 µs each; a busy one when it is awake anyway.
"""

LEAST_NS: Final = 3_500_000
"""From where on a wake-up is late: what the kernel was allowed, and as long as one takes at most."""

_KEPT = 1024  # pauses until they are taken, once a second; there can be 500
_STOP, _PAUSES, _LONGEST = range(3)  # what the thread and the loop tell each other
_MONOTONIC, _ABSOLUTE = 1, 1  # CLOCK_MONOTONIC, TIMER_ABSTIME
_SECOND = 1_000_000_000

_clock_nanosleep: Any = types.ExternalFunction(
    "clock_nanosleep", types.int32(types.int32, types.int32, types.voidptr, types.voidptr)
)
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.voidptr))


class ProcessPauses:
    """Measures the pauses of this process from `LEAST_NS` on, each by itself. For the thread that made it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._shared = np.zeros(3, np.int64)
        self._counts, self._counted = empty(), empty()
        self._pauses = np.zeros((_KEPT, 2), np.int64)
        self._taken = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the caller's thread is the one whose own work is no pause."""
        self._shared[_STOP] = 0
        own = time.pthread_getcpuclockid(threading.get_ident())
        # A daemon, because an end of the process that nobody announced has to wait for nobody: until it is told to
        # stop it touches nothing of the interpreter's.
        self._thread = threading.Thread(target=self._run, args=(own,), name="process pauses", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, within two milliseconds or so."""
        if self._thread is not None:
            self._shared[_STOP] = 1
            self._thread.join()
            self._thread = None

    def take(self) -> NDArray[np.int64]:
        """Record what was measured since the last call; give the pauses, oldest first.

        Returns:
            (n, 2) the newest 1,024 at most: when they ended (monotonic ns), how long they were (ns).
        """
        present = self._counts.copy()
        self._recorder.add(present - self._counted, int(self._shared[_LONGEST]))
        self._counted = present
        newest = int(self._shared[_PAUSES])
        first, self._taken = max(self._taken, newest - _KEPT), newest
        return self._pauses[np.arange(first, newest) % _KEPT]

    def _run(self, own: int) -> None:
        kernel_calls.set_timer_slack(SLACK_NS)
        _look(own, self._shared, self._counts, self._pauses)


@kernel
def _now(clock: int, moment: NDArray[np.int64]) -> int:
    _clock_gettime(clock, moment.ctypes)
    return int(moment[0] * _SECOND + moment[1])


@kernel
def _look(own: int, shared: NDArray[np.int64], counts: NDArray[np.int64], pauses: NDArray[np.int64]) -> None:
    """Wake up every `PERIOD_NS` and count how late, until told to stop.

    Args:
        own: the CPU clock of the thread whose own work is no pause: on a core that both share it delays this one.
        shared: (3,) whether to stop, pauses so far, the longest (ns).
        counts: BUCKETS; the lateness of each wake-up is added.
        pauses: (n, 2) the newest: when they ended, how long they were (ns).
    """
    moment = np.zeros(2, np.int64)  # a struct timespec
    seen, worked = _now(_MONOTONIC, moment), _now(own, moment)
    due = seen
    while shared[_STOP] == 0:
        due += PERIOD_NS
        moment[0], moment[1] = due // _SECOND, due % _SECOND
        _clock_nanosleep(_MONOTONIC, _ABSOLUTE, moment.ctypes, 0)
        now, work = _now(_MONOTONIC, moment), _now(own, moment)
        away = (now - seen) - (work - worked)
        seen, worked = now, work
        due = max(due, now - HIGHEST)
        late = min(now - due, away)
        if late >= LEAST_NS:
            row = pauses[shared[_PAUSES] % len(pauses)]
            row[0], row[1] = now, late
            shared[_LONGEST] = max(shared[_LONGEST], late)
            shared[_PAUSES] += 1
        counts[bucket(late if late >= LEAST_NS else 0)] += 1
        while due + PERIOD_NS <= now:  # those that were due meanwhile
            due += PERIOD_NS
            late = min(now - due, away)
            counts[bucket(late if late >= LEAST_NS else 0)] += 1


def compile_kernels() -> None:
    """Compile what the thread runs, or load it from the cache."""
    _look(0, np.ones(3, np.int64), empty(), np.zeros((1, 2), np.int64))
