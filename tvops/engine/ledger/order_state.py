"""Publishes the state of user orders and positions: changes to `rtss:{0}`, what is to hashes.

`state:{0}:orders` has order id -> ORDER row (its bytes) of every live order, and of an ended one until the sync
after the one that told its end; `state:{0}:positions:<account>` has instrument index -> POSITION row. A sync is
one transaction. The hashes are a projection: they are written anew at a start, after the server was away, and
when they turn out to be incomplete.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tvops.engine.bus.packing import pack
from tvops.engine.bus.stream_writer import StreamWriter
from tvops.engine.bus.streams import Entry
from tvops.engine.ledger.state import TradingState
from tvops.engine.records import FIRST_USER_ACCOUNT, RecordType, Status
from tvops.engine.telemetry.recorder import Recorder

ORDERS, POSITIONS = "state:{0}:orders", "state:{0}:positions:"
MAX_CHANGES = 128
"""Changed orders after which a sync does not wait any longer: larger ones hold the event loop up for over 1 ms."""

_CHUNK = 1024  # rows of one entry, fields of one HSET
_RETRY_SECONDS = 0.5
_CHECK_SECONDS = 10.0

logger = logging.getLogger(__name__)


class OrderStatePublisher:
    """Syncs every ``interval`` seconds or ``trades`` trades, whichever comes first, if anything changed."""

    def __init__(
        self, client: Redis, writer: StreamWriter, state: TradingState, interval: float, trades: int
    ) -> None:
        self.trouble = ""
        self.syncs = 0
        self.latency = Recorder()
        self._client: Any = client
        self._writer = writer
        self._state = state
        self._interval = interval
        self._trades = trades
        self._seen = 0  # trades since the last sync
        self._due = asyncio.Event()
        self._ended: list[int] = []  # orders whose end the last sync told
        self._accounts: set[int] = set()  # with a hash of positions
        self._whole = True  # whether the hashes have to be written anew
        self._checked = 0.0

    def note(self, trades: int) -> None:
        """Count the trades of users in a batch; called after every batch."""
        self._seen += trades
        if self._seen >= self._trades or self._state.orders.changes >= MAX_CHANGES:
            self._due.set()

    async def run(self) -> None:
        """Sync for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._due.wait()
            self._due.clear()
            self._seen = 0
            await self.sync()

    async def sync(self) -> None:
        """Write what changed since the last sync; while the server is away, try until it is back."""
        begun = time.perf_counter_ns()
        orders, positions, missed = self._state.orders.take_changed()
        positions = positions[positions["account"] >= FIRST_USER_ACCOUNT]
        self._whole |= missed
        nothing = not len(orders) and not len(positions) and not self._ended
        if nothing and not await self._incomplete(self._state.orders.live):
            return
        entries = list(self._entries(orders, positions))
        commands = list(self._hash_commands(orders, positions))
        while True:
            try:
                if self._whole:
                    await self._write_whole()
                await self._writer.write(entries, commands)
                break
            except (RedisError, OSError) as error:
                if not self.trouble:
                    logger.warning("order state cannot be published, trying again: %s", error)
                self.trouble = str(error)
                self._whole = True
            await asyncio.sleep(_RETRY_SECONDS)
        self._ended = orders["order_id"][orders["status"] >= Status.FILLED].tolist()
        self.trouble = ""
        self.syncs += 1
        self.latency.record(time.perf_counter_ns() - begun)

    def _entries(self, orders: NDArray[Any], positions: NDArray[Any]) -> Iterator[Entry]:
        minor = 0
        for rows, record_type in ((orders, RecordType.ORDER), (positions, RecordType.POSITION)):
            for start in range(0, len(rows), _CHUNK):
                yield self._state.seq, minor, pack(rows[start : start + _CHUNK], record_type)
                minor += 1

    def _hash_commands(self, orders: NDArray[Any], positions: NDArray[Any]) -> Iterator[tuple[Any, ...]]:
        gone = sorted(set(self._ended) - set(orders["order_id"].tolist()))
        for start in range(0, len(gone), _CHUNK):
            yield ("HDEL", ORDERS, *gone[start : start + _CHUNK])
        listed = orders[orders["status"] != Status.REJECTED]
        for start in range(0, len(listed), _CHUNK):
            yield ("HSET", ORDERS, *_fields(listed[start : start + _CHUNK], "order_id"))
        for account in np.unique(positions["account"]).tolist():
            own = positions[positions["account"] == account]
            self._accounts.add(account)
            yield ("HSET", f"{POSITIONS}{account}", *_fields(own, "instrument"))

    async def _write_whole(self) -> None:
        """Write the hashes anew, in steps that do not hold the server up."""
        keys = [key async for key in self._client.scan_iter(match="state:{0}:*", count=1000)]
        if keys:
            await self._client.unlink(*keys)
        positions = self._state.orders.all_positions()
        positions = positions[positions["account"] >= FIRST_USER_ACCOUNT]
        self._ended = []
        for command in self._hash_commands(self._state.orders.live_rows(), positions):
            await self._client.execute_command(*command)
        self._whole = False

    async def _incomplete(self, live: int) -> bool:
        """Look now and then whether the server evicted a hash; ``live`` orders should be there."""
        now = time.monotonic()
        if self._whole or now - self._checked < _CHECK_SECONDS:
            return self._whole
        self._checked = now
        with contextlib.suppress(RedisError, OSError):
            held = await self._client.hlen(ORDERS)
            there = await self._client.exists(*(f"{POSITIONS}{account}" for account in self._accounts), ORDERS)
            expected = len(self._accounts) + (1 if held else 0)
            self._whole = held != live or there != expected
        return self._whole


def _fields(rows: NDArray[Any], name: str) -> Iterator[Any]:
    """Give field and value for every row, in turn."""
    data, size = rows.tobytes(), rows.dtype.itemsize
    for n, field in enumerate(rows[name].tolist()):
        yield field
        yield data[n * size : (n + 1) * size]
