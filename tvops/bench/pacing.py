"""Sends each request at its time: sleeps until shortly before it, then spins.

`asyncio.sleep` is late by most of a millisecond, because event loops round to milliseconds; a timerfd with a timer
slack of 1 ns wakes some tens of microseconds late, and the rest is spun away. While it spins, the loop still
serves what has come back: each turn polls with a timeout of zero.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

from tvops.bench.samples import Samples
from tvops.engine.kernel_calls import set_timer_slack

MARGIN: Final = 200_000
"""ns before a request is due in which the loop spins; far above what a timer wakes late by."""

BURST: Final = 32
"""Requests that are sent in one turn, when late, before what came back is read again."""

_MONOTONIC, _NONBLOCK_CLOEXEC, _ABSOLUTE = 1, 0o2004000, 1


class _TimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_seconds", ctypes.c_long), ("interval_ns", ctypes.c_long),
        ("seconds", ctypes.c_long), ("ns", ctypes.c_long),
    )  # fmt: skip


class Timer:
    """A timerfd on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        set_timer_slack(1)
        self._file = self._libc.timerfd_create(_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _TimerSpec()
        self._loop = loop
        self._expired = expired
        loop.add_reader(self._file, self._wake)

    def arm(self, at: int) -> None:
        """Expire at a time of the monotonic clock, ns."""
        self._spec.seconds, self._spec.ns = divmod(at, 1_000_000_000)
        self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(self._spec), None)

    def _wake(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return
        self._expired()

    def close(self) -> None:
        """Give the descriptor back."""
        self._loop.remove_reader(self._file)
        os.close(self._file)


class Pacer:
    """Hands the requests of a schedule to a door, each at its time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, samples: Samples, send: Callable[[int], None]) -> None:
        self._loop = loop
        self._samples = samples
        self._send = send
        self._timer = Timer(loop, self._turn)
        self._total = len(samples.intended)
        self.next = 0
        """How many requests have been handed over."""
        self.finished: asyncio.Future[None] = loop.create_future()

    def start(self) -> None:
        """Begin; the first request is sent when it is due."""
        self._turn()

    def stop(self) -> None:
        """Hand no further requests over."""
        if not self.finished.done():
            self.finished.set_result(None)
            self._timer.close()

    def _turn(self) -> None:
        if self.finished.done():
            return
        intended, begun, send = self._samples.intended, self._samples.begun, self._send
        number, total = self.next, min(self.next + BURST, self._total)
        while number < total and intended[number] <= (now := monotonic_ns()):
            begun[number] = now
            send(number)
            number += 1
        self.next = number
        if number == self._total:
            self.stop()
        elif intended[number] - monotonic_ns() > 2 * MARGIN:
            self._timer.arm(intended[number] - MARGIN)
        else:
            self._loop.call_soon(self._turn)
