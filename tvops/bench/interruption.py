"""What a signal does to a run that is under way on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, TypeVar

import uvloop

from tvops.bench.signals import ignore
from tvops.errors import TvopsError
from tvops.signals import handled

TOGETHER_SECONDS: Final = 2.0
"""Signals that come within this time are one: an impatient hand, or a terminal and a shell that send one each."""

T = TypeVar("T")


class NothingYetError(TvopsError):
    """A signal came before there was anything to tell."""


class Interruption:
    """The first signal while something runs on a loop, and one that comes when patience is over.

    Once the first one came, all of them are ignored from the end of what runs until the process ends.
    """

    def __init__(self) -> None:
        self.came = False
        self.end: Callable[[], None] | None = None
        """Is called on the loop by the signal; None: what runs is cancelled."""
        self.hurry: Callable[[], None] | None = None
        """Is called on the loop by a signal that comes `TOGETHER_SECONDS` later, or more; None: it is ignored."""
        self._first = 0.0  # when it came, monotonic s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = False

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on a loop of its own, and give what it returns.

        Raises:
            KeyboardInterrupt: the signal came, and there was no other end to it.
        """
        with handled(self._hear):
            try:
                result = uvloop.run(self._listening(work))
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None
            finally:
                if self.came:
                    ignore()
        if self.came and self.end is None:
            raise KeyboardInterrupt
        return result

    async def _listening(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.came:
            self._tell()
        try:
            return await work()
        finally:
            self._loop = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.came:
            self.came, self._first = True, time.monotonic()
            heard: Callable[[], None] | None = self._tell
        else:
            heard = self.hurry if time.monotonic() - self._first > TOGETHER_SECONDS else None
        if self._loop is not None and heard is not None:
            self._loop.call_soon_threadsafe(heard)

    def _tell(self) -> None:
        if self._told:
            return
        self._told = True
        if self.end is not None:
            self.end()
        elif self._task is not None:
            self._task.cancel()
