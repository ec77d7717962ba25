"""What a door is: a class with a name, options and a way to send (or to listen); see docs/bench.md."""

from __future__ import annotations

import asyncio
import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from time import monotonic, monotonic_ns
from typing import Any, ClassVar

import msgspec

from tvops.bench.plan import Plan, Traces
from tvops.bench.result import Operation
from tvops.bench.samples import NOT_CONNECTED, Samples, Window
from tvops.errors import ServerError

_RECONNECT_SECONDS = 0.2
_POLL_SECONDS = 0.002
_STOPPED_SECONDS = 7.0
"""For `close` once somebody wants it to end: less than it takes until the process is killed (`STOP_SECONDS`)."""


async def come_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until ``condition`` holds, at most so long; tell whether it does."""
    deadline = monotonic_ns() + int(seconds * 1e9)
    while not condition():  # answers come at high rates: an event for each would cost more than to look
        if monotonic_ns() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


class Door(ABC):
    """A way into the stack. One instance lives in each generator process."""

    name: ClassVar[str]
    """As scenarios and results call it."""
    target: ClassVar[str]
    """Which address it takes: gateway, market or redis."""
    options_type: ClassVar[type[msgspec.Struct]]
    """What may stand under ``options`` in a scenario."""
    paced: ClassVar[bool] = True
    """Whether it sends by a schedule (`RequestDoor`), or listens."""

    def __init__(self, plan: Plan, options: Any) -> None:
        self.plan = plan
        self.options = options
        self.api_key = os.environ.get("TVOPS_API_KEY", "")
        self.left: Traces | None = None
        """What `close` could not take back."""
        self.close_by = inf
        """When `close` has to be over, s of the monotonic clock."""

    def hurry(self) -> None:
        """Leave `close` a few seconds from now: better to tell what is left than to be killed."""
        self.close_by = monotonic() + _STOPPED_SECONDS

    @property
    def traces(self) -> Traces | None:
        """What of it may stay in the stack, at most, where this process ends without `close`."""
        return None

    @abstractmethod
    async def open(self) -> None:
        """Connect; raise TvopsError where that is not possible."""

    async def begin(self, window: Window) -> None:  # noqa: B027  (few doors need it)
        """Note when the measured time is."""

    @abstractmethod
    async def close(self) -> None:
        """Take back what was left in the stack, and disconnect; what cannot be taken back is told in ``left``."""

    @abstractmethod
    def operations(self, window: Window) -> list[Operation]:
        """Give what was found in the window."""

    @abstractmethod
    def progress(self) -> tuple[int, int, int]:
        """Give how many requests were sent, answered with success, and failed so far."""


class RequestDoor(Door):
    """A door that sends requests by their number; each is settled once. A lost connection is made again."""

    operation_names: ClassVar[tuple[str, ...]]
    """By the number that `send` notes in ``samples.kind``."""

    def __init__(self, plan: Plan, options: Any, samples: Samples) -> None:
        super().__init__(plan, options)
        self.samples = samples
        self.used = 0  # how many requests the generator has come to, by its own count
        self.answered = 0
        self.failed = 0
        self.settled_one: Callable[[], None] | None = None  # of a closed loop
        self.closing = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    @abstractmethod
    def places(self) -> int:
        """How many requests a closed loop has under way."""

    @abstractmethod
    async def connect(self) -> None:
        """Make one connection; raise OSError or ServerError where that fails."""

    @abstractmethod
    def send(self, number: int) -> None:
        """Send a request at once, or as soon as a connection is free; never waits and never raises."""

    def settle(self, number: int, outcome: int, good: bool) -> None:
        """Note how a request ended; answers that come too late are told apart afterwards."""
        samples = self.samples
        samples.done[number] = monotonic_ns()
        samples.outcome[number] = outcome if good else -outcome
        if good:
            self.answered += 1
        else:
            self.failed += 1
        if self.settled_one is not None:
            self.settled_one()

    def refuse(self, number: int) -> None:
        """Note that there is no connection to send a request by; a closed loop goes on a little later."""
        again, self.settled_one = self.settled_one, None
        self.settle(number, NOT_CONNECTED, False)
        self.settled_one = again
        if again is not None:
            asyncio.get_running_loop().call_later(_RECONNECT_SECONDS, again)

    def connect_again(self) -> None:
        """Make up for a connection that was lost, as soon as that is possible."""
        if not self.closing:
            task = asyncio.get_running_loop().create_task(self._connect_again())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect_again(self) -> None:
        connected = False
        while not connected and not self.closing:
            await asyncio.sleep(_RECONNECT_SECONDS)
            with contextlib.suppress(OSError, ServerError):
                await self.connect()
                connected = True

    def stop_connecting(self) -> None:
        """Make no further connections."""
        self.closing = True
        for task in self._tasks:
            task.cancel()

    @property
    def pending(self) -> int:
        """How many requests have not been settled."""
        return self.used - self.answered - self.failed

    def operations(self, window: Window) -> list[Operation]:
        """Give what the requests came to that were meant for the window."""
        timeout = int(self.plan.load.timeout * 1e9)
        return self.samples.operations(self.name, self.operation_names, window, timeout, self.used)

    def progress(self) -> tuple[int, int, int]:
        """Give how many requests were sent, answered with success, and failed so far."""
        return self.used, self.answered, self.failed
