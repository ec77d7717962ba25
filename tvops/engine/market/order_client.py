"""Order entry for the liquidity accounts of tvops: commands into the inbox, their fate from the results."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from tvops.engine.bus.packing import PackingError, pack, unpack
from tvops.engine.bus.roles import Bus
from tvops.engine.bus.stream_reader import StreamReader
from tvops.engine.bus.streams import Entry
from tvops.engine.records import ALL_INSTRUMENTS, COMMAND, EVENT, EventKind, Kind, RecordType

INBOX = "inbox:{0}"
RESULTS = "rtrs:{0}"
INBOX_ENTRIES = 10_000
"""Commands that nobody takes are let go behind that many entries."""

MAX_BATCH = 1024
"""Most commands of one inbox entry; more go as several."""

_ANSWERS = np.zeros(int(max(EventKind)) + 1, np.bool_)
_ANSWERS[
    [
        EventKind.ACCEPTED,
        EventKind.REJECTED,
        EventKind.CANCELLED,
        EventKind.AMENDED,
        EventKind.DUPLICATE,
        EventKind.DONE,
    ]
] = True


class UnansweredError(Exception):
    """It is not known what became of commands, or events were missed: the caller has to start afresh."""


class OrderClient:
    """Sends commands of some accounts in batches and waits for what the engine says to each batch.

    The engine takes the commands of an inbox entry in their order, so that the answer to the last one says that
    all of them are answered. Counts `sent` commands.
    """

    def __init__(self, bus: Bus, accounts: range, wait_seconds: float = 2.0) -> None:
        """Trade for ``accounts``; commands not answered within ``wait_seconds`` count as unanswered."""
        self._bus = bus
        self._accounts = accounts
        self._wait = wait_seconds
        self._reader = StreamReader(bus.results, RESULTS, start="now")
        self._resets = 0
        self.sent = 0

    async def step(self, commands: NDArray[Any]) -> NDArray[Any]:
        """Send COMMAND rows and give the events up to the answers to all of them.

        Args:
            commands: rows with `key_high` 0 and a tag in `key_low`; no other command without an answer has the
                tag of the last one. No rows: just look what has happened.

        Returns:
            EVENT rows in their order since the last call: those of the own accounts, and TOP of every book.

        Raises:
            UnansweredError: the engine or a server was away, or events were missed. Call `reset` then.
        """
        return await self._exchange(commands, self._wait)

    async def reset(self, wait_seconds: float | None = None) -> NDArray[Any]:
        """Cancel every order of the accounts and forget what came before; give the events of that.

        Raises:
            UnansweredError: as `step`; call it again.
        """
        self._resets += 1
        commands = np.zeros(len(self._accounts), COMMAND)
        commands["kind"] = Kind.MASS_CANCEL
        commands["account"] = self._accounts
        commands["instrument"] = ALL_INSTRUMENTS
        # The highest bit keeps these tags apart from those of orders, the count those of one reset from another's.
        commands["key_low"] = (1 << 63) | (self._resets << 16) | np.arange(len(commands), dtype=np.uint64)
        self._reader.gap = False
        return await self._exchange(commands, wait_seconds or self._wait)

    async def _exchange(self, commands: NDArray[Any], wait_seconds: float) -> NDArray[Any]:
        deadline = time.monotonic() + wait_seconds
        try:
            await self._reader.open()
            for start in range(0, len(commands), MAX_BATCH):
                blob = pack(commands[start : start + MAX_BATCH], RecordType.COMMAND)
                await self._bus.market.xadd(INBOX, {"p": blob}, maxlen=INBOX_ENTRIES, approximate=True)
            self.sent += len(commands)
            if not len(commands):
                return await self._look()
            return await self._wait_for(int(commands[-1]["key_low"]), deadline)
        except RedisError as error:
            raise UnansweredError(f"a server does not answer: {error}") from error
        except PackingError as error:
            raise UnansweredError(f"a result is damaged: {error}") from error

    async def _look(self) -> NDArray[Any]:
        """Give the events that are there."""
        found = []
        while entries := await self._read(0):
            found += [events for entry in entries for events in self._of_interest(entry)]
        return np.concatenate(found) if found else np.empty(0, EVENT)

    async def _wait_for(self, tag: int, deadline: float) -> NDArray[Any]:
        """Give the events up to the entry that has the answer to the command with ``tag``."""
        found: list[NDArray[Any]] = []
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise UnansweredError("the engine does not answer")
            for entry in await self._read(max(1, int(left * 1000))):
                found += self._of_interest(entry)
            if any(_answers(events, tag) for events in found):
                return np.concatenate(found)

    async def _read(self, block_ms: int) -> list[Entry]:
        entries = await self._reader.read(block_ms)
        if self._reader.gap:
            raise UnansweredError("events were lost before they were read")
        return entries

    def _of_interest(self, entry: Entry) -> list[NDArray[Any]]:
        record_type, rows = unpack(entry[2])
        if record_type != RecordType.EVENT:
            return []
        accounts = rows["account"]
        ours = (accounts >= self._accounts.start) & (accounts < self._accounts.stop)
        return [rows[ours | (rows["kind"] == EventKind.TOP)]]


def _answers(events: NDArray[Any], tag: int) -> bool:
    return bool(np.any((events["ref"] == np.uint64(tag)) & _ANSWERS[events["kind"]]))
