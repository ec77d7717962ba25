"""Publishes the engine's own market to `own:{0}`: trades, and books as snapshots and numbered changes."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from tvops.engine.compiled import kernel
from tvops.engine.instruments import InstrumentTable
from tvops.engine.ledger.state import TradingState
from tvops.engine.market.publisher import Publisher
from tvops.engine.records import DEPTH, FIRST_USER_ACCOUNT, TRADE, DepthFlag, EventKind, RecordType, Side

SNAPSHOT_SECONDS = 2.0
_RETRY_SECONDS = 0.5
_MAKER_FILL, _TAKER_FILL = int(EventKind.MAKER_FILL), int(EventKind.TAKER_FILL)
_BUY, _SELL = int(Side.BUY), int(Side.SELL)

logger = logging.getLogger(__name__)


class OwnMarketPublisher:
    """Notes trades and changed books of every batch; `run` writes every batch interval."""

    def __init__(self, publisher: Publisher, state: TradingState, table: InstrumentTable) -> None:
        self._publisher = publisher
        self._state = state
        self._levels = [instrument.depth for instrument in table.all]
        deepest = max(self._levels)
        self._told = np.zeros((len(table), 2, deepest, 2), np.int64)  # price, lots as last published
        self._sizes = np.zeros((len(table), 2), np.int64)
        # Counting from the milliseconds of now keeps update numbers rising over restarts.
        self._updates = np.full(len(table), time.time_ns() // 1_000_000, np.uint64)
        self._changed = np.zeros(len(table), np.bool_)
        self._trades = np.zeros(4096, TRADE)
        self._rows = np.zeros(4 * deepest, DEPTH)
        self._snapshot_due = 0.0

    @property
    def trouble(self) -> str:
        """Why nothing is published at present; empty: it is."""
        return "the market server does not take the own market" if self._publisher.down else ""

    def add(self, events: NDArray[Any]) -> int:
        """Take the trades of a batch and note which books it changed; give how many are trades of users."""
        if len(events) > len(self._trades):
            self._trades = np.zeros(2 * len(events), TRADE)
        count, of_users = note_events(events, self._trades, self._changed)
        if count:
            self._publisher.add(RecordType.TRADE, self._trades[:count].copy())
        return of_users

    async def run(self) -> None:
        """Write for ever."""
        while True:
            try:
                await self._publisher.open()
                break
            except (RedisError, OSError) as error:
                logger.warning("the own market cannot be published, trying again: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)
        await self._publisher.run(self.gather)

    def gather(self, whole: bool) -> None:
        """Give the publisher what changed in the books, or every book as it is."""
        now = time.monotonic()
        if whole or now >= self._snapshot_due:
            self._snapshot_due = now + SNAPSHOT_SECONDS
            for instrument in range(len(self._levels)):
                self._sizes[instrument] = 0
                self._add(instrument, True)
        else:
            for instrument in np.flatnonzero(self._changed).tolist():
                self._add(instrument, False)
        self._changed[:] = False

    def _add(self, instrument: int, snapshot: bool) -> None:
        bids, asks = self._state.engine.depth(instrument, self._levels[instrument])
        rows = self._rows
        told, sizes = self._told[instrument], self._sizes[instrument]
        middle = diff_side(bids, told[0], sizes, 0, rows, 0)
        count = diff_side(asks, told[1], sizes, 1, rows, middle)
        if snapshot:
            count = max(count, 1)  # an empty book is one row without a price
            if middle == 0 and not len(asks):
                rows[:1] = np.zeros(1, DEPTH)
        if not count:
            return
        self._updates[instrument] += np.uint64(1)
        made = rows[:count].copy()
        made["time"], made["update"], made["instrument"] = time.time_ns(), self._updates[instrument], instrument
        made["flags"] = DepthFlag.SNAPSHOT if snapshot else 0
        made["flags"][0] |= DepthFlag.FIRST
        made["flags"][-1] |= DepthFlag.LAST
        self._publisher.add(RecordType.DEPTH, made)


@kernel
def note_events(events: Any, trades: Any, changed: Any) -> tuple[int, int]:
    """Write a TRADE row for every trade and mark the instruments of all events.

    Give how many trades there are, and how many of them have a user account on either side.
    """
    count = of_users = 0
    maker = 0
    for n in range(events.shape[0]):
        event = events[n]
        instrument = int(event.instrument)
        if instrument < changed.shape[0]:
            changed[instrument] = True
        if event.kind == _MAKER_FILL:
            maker = int(event.account)
        elif event.kind == _TAKER_FILL:
            trade = trades[count]
            trade.time = event.time
            trade.trade_id = event.ref
            trade.price = event.price
            trade.quantity = event.quantity
            trade.instrument = event.instrument
            trade.side = event.side
            count += 1
            of_users += max(maker, int(event.account)) >= FIRST_USER_ACCOUNT
    return count, of_users


@kernel
def diff_side(levels: Any, told: Any, sizes: Any, side: int, rows: Any, at: int) -> int:
    """Write what turns ``told`` into ``levels`` as DEPTH rows (side, price, quantity), and make it so.

    Args:
        levels: (n, 3) price, lots, orders; best first.
        told: (most, 2) price, lots; best first.
        sizes: (2,) how many levels of ``told`` count; this side's is set.
        side: 0 bids, 1 asks.
        rows: DEPTH rows, with room for all levels of both.
        at: the first row to write.

    Returns:
        The row behind the last one written.
    """
    sign = 1 if side else -1
    old, new = 0, 0
    while old < sizes[side] or new < levels.shape[0]:
        price = quantity = 0
        if new == levels.shape[0] or (old < sizes[side] and sign * told[old, 0] < sign * levels[new, 0]):
            price = told[old, 0]
            old += 1
        else:
            price, quantity = levels[new, 0], levels[new, 1]
            if old < sizes[side] and told[old, 0] == price:
                if told[old, 1] == quantity:
                    price = 0
                old += 1
            new += 1
        if price:
            rows[at].side = _SELL if side else _BUY
            rows[at].price = price
            rows[at].quantity = quantity
            at += 1
    for n in range(levels.shape[0]):
        told[n, 0] = levels[n, 0]
        told[n, 1] = levels[n, 1]
    sizes[side] = levels.shape[0]
    return at
