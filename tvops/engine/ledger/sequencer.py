"""The sequencer: gives commands their place, makes them durable in groups, applies them and answers.

While one append is in flight, what arrives gathers; it goes as the next entry, at most `MAX_BATCH` commands. There
is no timer. Nothing is applied, and nobody is answered, before the server has said that the entry is on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tvops.engine.bus.packing import pack
from tvops.engine.ledger.ledger import Ledger
from tvops.engine.ledger.state import TradingState
from tvops.engine.records import COMMAND, EVENT, RecordType
from tvops.engine.services import end_tasks
from tvops.engine.telemetry.recorder import Recorder
from tvops.errors import FencedError, LedgerError

MAX_BATCH = 4096
"""Most commands of one entry, and of one `submit`."""

CAPACITY = 1 << 15
"""Commands that may wait."""

Reply: TypeAlias = Callable[[NDArray[Any]], None]
"""Is given the EVENT rows of its own commands, valid during the call; none if their fate is not known."""

Subscriber: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], None]
"""Is given the COMMAND and the EVENT rows of every batch, valid during the call."""

_NOTHING = np.zeros(0, EVENT)

logger = logging.getLogger(__name__)


class BusyError(LedgerError):
    """No more commands can wait; nothing of what was submitted was taken."""


class _Waiting(NamedTuple):
    rows: int
    reply: Reply | None
    time: int  # ns, monotonic, when it was submitted


class Sequencer:
    """Orders the commands of one shard. Lives in one event loop."""

    def __init__(self, ledger: Ledger, state: TradingState, capacity: int = CAPACITY) -> None:
        """Go on behind ``state``; the ledger has to be open behind the same command."""
        self.batches = 0
        self.commands = 0
        self.events = 0
        self.durable = Recorder()  # submitted to written, per command
        self.matched = Recorder()  # written to matched
        self.answered = Recorder()  # submitted to answered
        self.durable_at = 0  # ns, monotonic, when the batch that is answered now was on disk
        self._ledger = ledger
        self._state = state
        self._rows = np.zeros(max(capacity, MAX_BATCH), COMMAND)
        self._head = self._tail = 0
        self._batch = np.zeros(MAX_BATCH, COMMAND)
        self._waiting: deque[_Waiting] = deque()
        self._in_flight: list[_Waiting] = []
        self._subscribers: list[Subscriber] = []
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def seq(self) -> int:
        """The last command that is durable and applied."""
        return self._state.seq

    @property
    def pending(self) -> int:
        """Commands that wait, without those of the append in flight."""
        return self._tail - self._head

    @property
    def fenced(self) -> bool:
        """Whether another engine has taken over the ledger."""
        return isinstance(self._failure, FencedError)

    @property
    def failure(self) -> str:
        """Why this sequencer has stopped for good; empty: it has not."""
        return str(self._failure) if self._failure else ""

    def start(self) -> None:
        """Begin to append; commands may be submitted before."""
        self._task = asyncio.create_task(self._run(), name="sequencer")

    async def stop(self, seconds: float) -> None:
        """Take no more commands, and give those that wait up to ``seconds`` to become durable and answered."""
        self._closed = True
        if self._task is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            logger.error("%d commands were not written: %s", self.pending, self._ledger.trouble)
        await end_tasks([self._task])
        self._abandon()

    def submit(self, commands: NDArray[Any], reply: Reply | None = None) -> None:
        """Queue COMMAND rows, which are copied; they get `seq` and `time`, in one piece, when they are appended.

        Args:
            commands: 1 to `MAX_BATCH` rows.
            reply: is called once, when they are durable and applied; if the engine stops before that is known,
                with no rows.

        Raises:
            BusyError: too many commands wait.
            LedgerError: the engine has stopped, or is stopping.
            ValueError: no rows, or too many at once.
        """
        if self._closed or self._failure:
            raise LedgerError(self.failure or "the engine is stopping and takes no more commands")
        count = len(commands)
        if not 0 < count <= MAX_BATCH:
            raise ValueError(f"{count} commands at once, 1 to {MAX_BATCH} are taken")
        if self._tail + count > len(self._rows):
            self._move_down(count)
        self._rows[self._tail : self._tail + count] = commands
        self._tail += count
        self._waiting.append(_Waiting(count, reply, time.perf_counter_ns()))
        self._idle.clear()
        self._wake.set()

    async def room(self, count: int) -> None:
        """Wait until ``count`` commands more would be taken."""
        while self.pending + count > len(self._rows) and not (self._closed or self._failure):
            self._room.clear()
            await self._room.wait()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have ``subscriber`` called with every batch, after the replies; give what ends that."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def _move_down(self, count: int) -> None:
        if self.pending + count > len(self._rows):
            why = f": {self._ledger.trouble}" if self._ledger.trouble else ""
            raise BusyError(f"{self.pending} commands wait to be written{why}")
        # numpy handles the overlap
        self._rows[: self.pending] = self._rows[self._head : self._tail]
        self._head, self._tail = 0, self.pending

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._append_and_apply(self._take())
                self._idle.set()
        except Exception as error:
            logger.critical("the engine stops: %s", error, exc_info=not isinstance(error, LedgerError))
            self._failure = error
            self._abandon()

    def _take(self) -> NDArray[Any]:
        """Make the next batch of whole submissions, with seq and time."""
        count = 0
        while self._waiting and count + self._waiting[0].rows <= MAX_BATCH:
            self._in_flight.append(self._waiting.popleft())
            count += self._in_flight[-1].rows
        batch = self._batch[:count]
        batch[:] = self._rows[self._head : self._head + count]
        self._head += count
        if self._head == self._tail:
            self._head = self._tail = 0
        self._room.set()
        first = self._state.seq + 1
        batch["seq"] = np.arange(first, first + count, dtype=np.uint64)
        batch["time"] = max(time.time_ns(), self._state.time)
        return batch

    async def _append_and_apply(self, batch: NDArray[Any]) -> None:
        first = self._state.seq + 1
        await self._ledger.append(first, pack(batch, RecordType.COMMAND))
        durable = self.durable_at = time.perf_counter_ns()
        events = self._state.apply(batch)
        self.matched.record_times(time.perf_counter_ns() - durable, len(batch))
        self.batches += 1
        self.commands += len(batch)
        self.events += len(events)
        self._answer(first, events, durable)
        for subscriber in self._subscribers:
            try:
                subscriber(batch, events)
            except Exception:
                logger.exception("a subscriber of the sequencer failed")

    def _answer(self, first: int, events: NDArray[Any], durable: int) -> None:
        answered, self._in_flight = self._in_flight, []
        ends = np.cumsum([waiting.rows for waiting in answered], dtype=np.uint64) + np.uint64(first)
        bounds = np.searchsorted(events["command_seq"], ends).tolist()
        start = 0
        for waiting, end in zip(answered, bounds, strict=True):
            if waiting.reply is not None:
                _call(waiting.reply, events[start:end])
            start = end
            self.durable.record_times(durable - waiting.time, waiting.rows)
            self.answered.record_times(time.perf_counter_ns() - waiting.time, waiting.rows)

    def _abandon(self) -> None:
        """Tell everybody who still waits that the fate of the commands is not known."""
        abandoned = [*self._in_flight, *self._waiting]
        self._in_flight = []
        self._waiting.clear()
        self._head = self._tail = 0
        for waiting in abandoned:
            if waiting.reply is not None:
                _call(waiting.reply, _NOTHING)
        self._idle.set()
        self._room.set()


def _call(reply: Reply, events: NDArray[Any]) -> None:
    try:
        reply(events)
    except Exception:
        logger.exception("a reply callback failed")
