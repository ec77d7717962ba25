"""Ticks at a constant rate, for load tests: a seeded random walk, not a market."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.feeds.feed import FeedBatch, FeedState
from tvops.engine.instruments import InstrumentTable
from tvops.engine.records import TICK
from tvops.errors import UsageError

MAX_RATE = 200_000
WAKE_NS = 5_000_000
MAX_TICKS = 8192
"""Most ticks of one batch."""


class SyntheticFeed:
    """A `Feed` of exactly ``rate`` ticks a second, over the carried instruments in turn."""

    name = "synthetic"
    has_trades = False

    def __init__(self, table: InstrumentTable, carried: NDArray[np.bool_], rate: int, seed: int = 1) -> None:
        """Walk from the instruments' start prices; the same ``seed`` gives the same walk."""
        self._rate = rate
        self._instruments = np.flatnonzero(carried).astype(np.uint16)
        chosen = [table[int(index)] for index in self._instruments]
        self._bands = np.array([(i.price_low, i.price_high - 1) for i in chosen], np.int64)
        self._bids = np.array([i.sim_price for i in chosen], np.int64)
        self._random = np.array([(seed * 0x9E3779B97F4A7C15 + 1) % (1 << 64)], np.uint64)
        self._sent = 0
        self._behind = 0
        self.make(0, 0)  # compiles now, not at the first data

    def describe(self) -> str:
        """Say what this is."""
        return f"synthetic: {self._rate} random ticks a second, not a market"

    def state(self) -> FeedState:
        """Tell the state: always live."""
        return "live"

    def stats(self) -> dict[str, float | int | str]:
        """Give the rate, what was sent, and how far that is behind the schedule."""
        return {"rate": self._rate, "sent": self._sent, "behind_ms": round(self._behind / 1e6, 1)}

    def resync(self, instrument: int) -> None:
        """Do nothing: there are no books that could be out of step."""

    async def batches(self) -> AsyncIterator[FeedBatch]:
        """Give the ticks that are due every 5 ms; tick k is due k / rate seconds after the start."""
        origin, wall = time.monotonic_ns(), time.time_ns()
        while True:
            now = time.monotonic_ns() - origin
            missing = now * self._rate // 1_000_000_000 - self._sent
            self._behind = missing * 1_000_000_000 // self._rate
            ticks = self.make(min(missing, MAX_TICKS), wall)
            reached = now if missing <= MAX_TICKS else self._sent * 1_000_000_000 // self._rate
            yield FeedBatch(wall + reached, ticks=ticks)
            now = time.monotonic_ns() - origin
            await asyncio.sleep(0 if missing > MAX_TICKS else (WAKE_NS - now % WAKE_NS) / 1e9)

    def make(self, count: int, start: int) -> NDArray[Any]:
        """Give the next ``count`` ticks of a walk that began at ``start`` (ns)."""
        rows = np.zeros(count, TICK)
        _walk(rows, self._instruments, self._bids, self._bands, self._random, self._sent, self._rate, start)
        self._sent += count
        return rows


@kernel
def _walk(
    rows: Any, instruments: Any, bids: Any, bands: Any, random: Any, sent: int, rate: int, start: int
) -> None:
    state = random[0]
    for k in range(rows.shape[0]):
        row = rows[k]
        at = (sent + k) % instruments.shape[0]
        state ^= state << np.uint64(13)  # xorshift64 (Marsaglia 2003)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        bid = bids[at] + np.int64(state % np.uint64(3)) - 1
        bid = min(max(bid, bands[at, 0]), bands[at, 1])
        bids[at] = bid
        row.time = start + (sent + k) * 1_000_000_000 // rate
        row.instrument = instruments[at]
        row.bid = bid
        row.ask = bid + 1
        # the count in the low digits makes every tick differ from the one before
        row.bid_quantity = 1000 * (1 + np.int64((state >> np.uint64(8)) % np.uint64(99))) + (sent + k) % 997
        row.ask_quantity = 1000 * (1 + np.int64((state >> np.uint64(24)) % np.uint64(99)))
    random[0] = state


def parse_rate(text: str) -> int:
    """Read the RATE of `synthetic:RATE`.

    Raises:
        UsageError: it is no whole number of 1 to 200,000.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= MAX_RATE):
        raise UsageError(
            f"feed: synthetic:{text[:40]} needs ticks per second from 1 to {MAX_RATE}, like synthetic:10000"
        )
    return int(text)
