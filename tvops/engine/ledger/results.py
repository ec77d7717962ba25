"""Publishes every event to `rtrs:{0}`, and after a restart what the stream lacks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from tvops.engine.bus.packing import pack
from tvops.engine.bus.stream_writer import StreamWriter
from tvops.engine.bus.streams import START, Entry, Id
from tvops.engine.records import EVENT, RecordType

CAPACITY = 1 << 16
"""Events that may wait for the server; further ones are dropped, counted, and told to readers as a gap."""

MAX_ENTRY = 8192
"""Most events of an entry."""

_PACE_SECONDS = 0.002  # from one write to the next: single orders would cost a round trip each
_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.05, 1.0

logger = logging.getLogger(__name__)


class ResultsPublisher:
    """Copies the events of every batch; `run` writes.

    Entry ids are (last command seq, 0); where the events of one command fill several entries, the minor id counts.
    """

    def __init__(self, writer: StreamWriter, capacity: int = CAPACITY) -> None:
        self.trouble = ""
        self.dropped = 0  # events
        self._writer = writer
        self._gathered = np.zeros(capacity, EVENT)
        self._spare = np.zeros(capacity, EVENT)
        self._count = 0
        self._dropped_to = 0  # last command seq that was dropped behind what is gathered; 0: none was
        self._last: Id = START
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def open(self, seq: int) -> Id:
        """Find the end of the stream; events up to there are passed over from now on.

        Args:
            seq: the command after which events will come; readers see a gap if the stream ends before it.

        Returns:
            The last id of the stream.

        Raises:
            RedisError: the server is away or refuses.
        """
        self._last = await self._writer.last_id()
        if self._last[0] < seq:
            await self._writer.skip((seq, 0))
        return self._last

    def add(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        """Take the events of a batch that the stream does not have."""
        if int(commands["seq"][0]) <= self._last[0]:
            events = events[events["command_seq"] > self._last[0]]
        count = len(events)
        if not count:
            return
        if self._dropped_to or self._count + count > len(self._gathered):
            self._dropped_to = int(events["command_seq"][-1])
            self.dropped += count
            return
        self._gathered[self._count : self._count + count] = events
        self._count += count
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Write for ever; while one write is under way the next gathers."""
        due = 0.0
        while True:
            await self._wake.wait()
            await asyncio.sleep(due - time.monotonic())
            due = time.monotonic() + _PACE_SECONDS
            self._wake.clear()
            self._gathered, self._spare = self._spare, self._gathered
            rows, self._count = self._spare[: self._count], 0
            dropped_to, self._dropped_to = self._dropped_to, 0
            await self._write(list(self._entries(rows)), dropped_to)
            if not self._count:
                self._idle.set()

    async def flush(self) -> None:
        """Wait until everything that was added is written."""
        await self._idle.wait()

    def _entries(self, rows: NDArray[Any]) -> Iterator[Entry]:
        seqs = rows["command_seq"]
        start = 0
        while start < len(rows):
            end = min(len(rows), start + MAX_ENTRY)
            if end < len(rows):
                # the events of a command stay together where they fit
                boundary = int(np.searchsorted(seqs, seqs[end]))
                end = boundary if boundary > start else end
            last = int(seqs[end - 1])
            self._last = (last, self._last[1] + 1 if last == self._last[0] else 0)
            yield (*self._last, pack(rows[start:end], RecordType.EVENT))
            start = end

    async def _write(self, entries: list[Entry], dropped_to: int) -> None:
        delay = _RETRY_SECONDS
        while True:
            try:
                await self._writer.write(entries)
                if dropped_to:
                    await self._writer.skip((dropped_to, 0))
                break
            except (RedisError, OSError) as error:
                if not self.trouble:
                    logger.warning("results cannot be published, trying again: %s", error)
                self.trouble = str(error)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_RETRY_SECONDS)
        if self.trouble:
            self.trouble = ""
            logger.info("results are published again; %d events were dropped so far", self.dropped)
