"""What a signal does to a run that is under way on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

import uvloop

from tvops.bench.signals import handled, ignore
from tvops.errors import TvopsError

T = TypeVar("T")


class NothingYetError(TvopsError):
    """A signal came before there was anything to tell."""


class Interruption:
    """The first signal while something runs on a loop; those that follow are ignored until the process ends."""

    def __init__(self) -> None:
        self.came = False
        self.end: Callable[[], None] | None = None
        """Is called on the loop by the signal; None: what runs is cancelled."""
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
        ignore()
        self.came = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self._told:
            return
        self._told = True
        if self.end is not None:
            self.end()
        elif self._task is not None:
            self._task.cancel()
