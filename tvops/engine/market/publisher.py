"""Writes market data to its stream: batches of rows, several packed entries a round trip."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from tvops.engine.bus.packing import pack
from tvops.engine.bus.stream_writer import StreamWriter
from tvops.engine.bus.streams import Entry
from tvops.engine.records import DepthFlag, RecordType
from tvops.engine.telemetry.recorder import Recorder

MAX_PENDING = 16_384
"""Ticks and trades that wait while the server is away; further ones are dropped and counted."""

MAX_ENTRY_ROWS = 4096
"""Most rows of an entry of depth or bars."""

_PACED = (RecordType.TICK, RecordType.TRADE)
"""What comes at the feed's pace; the rest is made once per batch interval."""

_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.05, 1.0

logger = logging.getLogger(__name__)


class Publisher:
    """Gathers rows and writes them every batch interval, or as soon as there are enough for an entry.

    Ids are (publish time in µs, 0), strictly rising. While the server is away the entries at hand are tried
    again; the rows behind them wait up to `MAX_PENDING`.
    """

    def __init__(self, writer: StreamWriter, interval_ms: int, max_rows: int) -> None:
        """Write with ``writer``, after ``interval_ms`` or ``max_rows`` ticks and trades, whichever comes first."""
        self.writer = writer
        self.down = False
        self.failures = 0  # failed attempts to write
        self.dropped = 0  # rows
        self.batches = 0  # round trips
        self.waiting = Recorder()  # batches of ticks and trades: received to made an entry
        self._interval = interval_ms / 1000
        self._max_rows = max_rows
        self._pending: dict[RecordType, list[NDArray[Any]]] = {t: [] for t in RecordType}
        self._waiting = 0
        self._received: list[int] = []  # monotonic ns, when what is pending came
        self._wake = asyncio.Event()
        self._last_id = 0
        self._recovered = False

    async def open(self) -> None:
        """Find out where the stream ends.

        Raises:
            RedisError: the server is away or refuses.
        """
        self._last_id = (await self.writer.last_id())[0]

    def add(self, record_type: RecordType, rows: NDArray[Any], received: int | None = None) -> None:
        """Take rows, which belong to the publisher from now on.

        Args:
            record_type: of the rows.
            rows: as they go to the stream.
            received: when they came, monotonic ns; None: that is not measured.
        """
        if not len(rows):
            return
        if record_type in _PACED:
            if self._waiting + len(rows) > MAX_PENDING:
                self.dropped += len(rows)
                return
            self._waiting += len(rows)
            if received is not None:
                self._received.append(received)
            if self._waiting >= self._max_rows:
                self._wake.set()
        self._pending[record_type].append(rows)

    async def run(self, gather: Callable[[bool], None]) -> None:
        """Write for ever.

        Args:
            gather: called every batch interval, just before a write, to add what is made only then; its
                argument says that readers may have lost everything and need snapshots.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + self._interval
        while True:
            timer = loop.call_at(due, self._wake.set)
            await self._wake.wait()
            timer.cancel()
            self._wake.clear()
            now = loop.time()
            if now >= due:
                due = max(due + self._interval, now)
                recovered, self._recovered = self._recovered, False
                gather(recovered)
            entries = list(self._entries())
            if entries:
                await self._write(entries)

    async def _write(self, entries: list[Entry]) -> None:
        delay = _RETRY_SECONDS
        while True:
            try:
                await self.writer.write(entries)
                break
            except (RedisError, OSError) as error:
                self.failures += 1
                if not self.down:
                    logger.warning("market data cannot be published, trying again: %s", error)
                self.down = self._recovered = True
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_RETRY_SECONDS)
        self.batches += 1
        if self.down:
            self.down = False
            logger.info("market data are published again; %d records were dropped so far", self.dropped)

    def _entries(self) -> Iterator[Entry]:
        """Take everything that is pending, as packed entries with rising ids."""
        self._waiting = 0
        if self._received:
            self.waiting.record_many(time.monotonic_ns() - np.array(self._received, np.int64))
            self._received.clear()
        for record_type, gathered in self._pending.items():
            if not gathered:
                continue
            rows = np.concatenate(gathered) if len(gathered) > 1 else gathered[0]
            gathered.clear()
            for part in self._parts(record_type, rows):
                self._last_id = max(self._last_id + 1, time.time_ns() // 1000)
                yield self._last_id, 0, pack(part, record_type)

    def _parts(self, record_type: RecordType, rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
        most = self._max_rows if record_type in _PACED else MAX_ENTRY_ROWS
        start = 0
        while len(rows) - start > most:
            end = start + most
            if record_type == RecordType.DEPTH:
                # an update is never cut; its LAST may lie beyond the limit
                last = np.flatnonzero(rows["flags"][start:] & DepthFlag.LAST) + start + 1
                whole = last[last <= end]
                end = int(whole[-1] if len(whole) else last[0])
            yield rows[start:end]
            start = end
        if start < len(rows):
            yield rows[start:]
