"""The market that tvops itself makes: trades and depth of its engine, read back from `own:{0}`."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.bus.packing import PackingError, unpack
from tvops.engine.bus.roles import Bus
from tvops.engine.bus.stream_reader import StreamReader
from tvops.engine.bus.streams import Entry
from tvops.engine.feeds.feed import FeedBatch, FeedState, no_depth, no_trades
from tvops.engine.instruments import InstrumentTable
from tvops.engine.records import DEPTH, DepthFlag, RecordType

OWN_PREFIX = "own:{0}"
BLOCK_MS = 100
SETTLE_NS = 500_000_000
"""How long after its time a record of the engine may still arrive."""

logger = logging.getLogger(__name__)


class OwnFeed:
    """A `Feed` of our own engine's trades and books."""

    has_trades = True

    def __init__(self, bus: Bus, table: InstrumentTable, carried: NDArray[np.bool_], name: str = "own") -> None:
        """Read from now on; a book begins with the engine's next snapshot of it."""
        self.name = name
        self._reader = StreamReader(bus.market, OWN_PREFIX, start="now")
        self._carried = carried
        self._symbols = len(table)
        self._synced = np.zeros(len(table), np.bool_)
        self._lost = np.zeros(len(table), np.bool_)
        self._gap_rows: list[NDArray[Any]] = []
        self._gaps = self._damaged = 0
        self._time = 0

    def describe(self) -> str:
        """Say what this is."""
        if self.name == "sim":
            return "simulated market: agents that trade with each other through the engine"
        return "the engine's own market"

    def state(self) -> FeedState:
        """Tell the worst state of the carried books."""
        if self._lost.any():
            return "gap"
        return "live" if self._synced[self._carried].all() else "syncing"

    def stats(self) -> dict[str, float | int | str]:
        """Give what was read and lost."""
        return {
            "entries": self._reader.entries,
            "stream_gaps": self._gaps,
            "damaged_entries": self._damaged,
            "read_failures": self._reader.failures,
        }

    def resync(self, instrument: int) -> None:
        """Wait for the engine's next snapshot of ``instrument``."""
        self._lose(np.array([instrument]))

    async def batches(self) -> AsyncIterator[FeedBatch]:
        """Give what the engine publishes; an empty batch every 100 ms where it is silent."""
        while True:
            yield self._batch(await self._reader.read(BLOCK_MS))

    def _batch(self, entries: list[Entry]) -> FeedBatch:
        if self._reader.gap:
            self._reader.gap = False
            self._gaps += 1
            self._lose(np.flatnonzero(self._synced))
        depth: list[NDArray[Any]] = self._gap_rows
        trades: list[NDArray[Any]] = []
        self._gap_rows = []
        for _, _, blob in entries:
            try:
                record_type, rows = unpack(blob)
            except PackingError as error:
                self._refuse(error)
                depth += self._gap_rows
                self._gap_rows = []
                continue
            if record_type in (RecordType.TRADE, RecordType.DEPTH) and len(rows):
                rows = rows[self._known(rows["instrument"])]
                (trades if record_type == RecordType.TRADE else depth).append(rows)
        # concatenate copies: unpacked rows are read-only, for which kernels would be compiled once more
        batch_depth = np.concatenate(depth) if depth else no_depth()
        batch_trades = np.concatenate(trades) if trades else no_trades()
        self._note(batch_depth)
        self._time = max(self._time, time.time_ns() - SETTLE_NS)
        return FeedBatch(self._time, batch_depth, batch_trades)

    def _known(self, instruments: NDArray[np.uint16]) -> NDArray[np.bool_]:
        known = instruments < self._symbols
        known[known] = self._carried[instruments[known]]
        return known

    def _note(self, depth: NDArray[Any]) -> None:
        fresh = depth["instrument"][(depth["flags"] & DepthFlag.SNAPSHOT) != 0]
        self._synced[fresh] = True
        self._lost[fresh] = False

    def _refuse(self, error: PackingError) -> None:
        self._damaged += 1
        if self._damaged == 1:
            logger.warning("%s: an entry cannot be read: %s", OWN_PREFIX, error)
        self._lose(np.flatnonzero(self._synced))

    def _lose(self, instruments: NDArray[Any]) -> None:
        rows = np.zeros(len(instruments), DEPTH)
        rows["time"], rows["instrument"] = time.time_ns(), instruments
        rows["flags"] = DepthFlag.GAP | DepthFlag.FIRST | DepthFlag.LAST
        self._gap_rows.append(rows)
        self._synced[instruments] = False
        self._lost[instruments] = True
