"""L2 books of all instruments: sorted levels in numpy arrays, kept up to date by one kernel call per batch.

A side is an ascending array of keys with the best level last, so that an insertion near the top moves few
levels. The key of a bid is its price, the key of an ask its negated price.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.records import DEPTH, TICK, DepthFlag, Side

BID, ASK = 0, 1
"""Row of a side in the arrays: `Side` less 1."""

_FIRST, _LAST, _GAP = int(DepthFlag.FIRST), int(DepthFlag.LAST), int(DepthFlag.GAP)
_SNAPSHOT, _SELL = int(DepthFlag.SNAPSHOT), int(Side.SELL)


class BookState(IntEnum):
    """State of the book of an instrument."""

    SYNCING = 0  # no snapshot yet
    LIVE = 1
    GAP = 2  # continuity was lost: the levels are the last known ones, until the next snapshot


class Books:
    """The L2 books of all instruments, by instrument index. Prices in ticks, quantities in lots."""

    def __init__(self, count: int, capacity: int = 8192) -> None:
        """Make ``count`` empty books that keep the best ``capacity`` levels a side."""
        self.capacity = capacity
        self.keys = np.zeros((count, 2, capacity), np.int64)
        self.lots = np.zeros((count, 2, capacity), np.int64)
        self.sizes = np.zeros((count, 2), np.int64)
        self.states = np.zeros(count, np.int64)  # BookState
        self.updates = np.zeros(count, np.uint64)  # number of the last whole update
        self.applying = np.zeros(count, np.bool_)  # inside FIRST..LAST
        self.tops = np.zeros((count, 4), np.int64)  # bid, its lots, ask, its lots, as of `updates`
        self.changed = np.zeros(count, np.bool_)  # changed by the last `apply`
        self.gaps = np.zeros(count, np.int64)  # times that continuity was lost
        self.crossed = np.zeros(count, np.int64)  # times that an update made bid >= ask
        self.dropped = np.zeros(count, np.int64)  # levels beyond the capacity that were let go
        self._ticks = np.zeros(1024, TICK)
        self.apply(np.empty(0, DEPTH))  # compiles now, not at the first data

    def __len__(self) -> int:
        return len(self.states)

    def apply(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Apply DEPTH rows and give a TICK row for every update that changed the top of a book.

        An update whose number does not follow, or that crosses the book, puts the book into the state GAP;
        from there only a snapshot takes it back. Rows of unknown instruments are ignored. The TICK rows are a
        view that is valid until the next call.
        """
        assert rows.dtype == DEPTH
        if len(self._ticks) < len(rows):
            self._ticks = np.zeros(2 * len(rows), TICK)
        self.changed[:] = False
        made = _apply(
            rows, self.keys, self.lots, self.sizes, self.states, self.updates, self.applying, self.tops,
            self.changed, self.gaps, self.crossed, self.dropped, self._ticks,
        )  # fmt: skip
        return self._ticks[:made]

    def live(self, instrument: int) -> bool:
        """Tell whether the book is complete and in step with its source."""
        return bool(self.states[instrument] == BookState.LIVE)

    def top(self, instrument: int) -> tuple[int, int, int, int]:
        """Give bid, bid lots, ask, ask lots; 0 and 0 for an empty side."""
        bid, bid_lots, ask, ask_lots = self.tops[instrument].tolist()
        return bid, bid_lots, ask, ask_lots

    def levels(self, instrument: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give copies of the best ``count`` bids and asks: int64 (n, 2) of price and lots, best first."""
        return self._side(instrument, BID, count), self._side(instrument, ASK, count)

    def _side(self, instrument: int, side: int, count: int) -> NDArray[np.int64]:
        size = int(self.sizes[instrument, side])
        start = max(0, size - count)
        out = np.empty((size - start, 2), np.int64)
        keys = self.keys[instrument, side, start:size][::-1]
        out[:, 0] = keys if side == BID else -keys
        out[:, 1] = self.lots[instrument, side, start:size][::-1]
        return out


@kernel
def _set_level(keys: Any, lots: Any, size: int, key: int, quantity: int) -> tuple[int, int]:
    """Set one level of a side; give its new size and how many levels fell off its far end."""
    low, high = 0, size
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    found = low < size and keys[low] == key
    if quantity <= 0:
        if found:
            for at in range(low, size - 1):
                keys[at] = keys[at + 1]
                lots[at] = lots[at + 1]
            size -= 1
        return size, 0
    if found:
        lots[low] = quantity
        return size, 0
    if size == keys.shape[0]:
        if low == 0:
            return size, 1
        for at in range(low - 1):
            keys[at] = keys[at + 1]
            lots[at] = lots[at + 1]
        keys[low - 1] = key
        lots[low - 1] = quantity
        return size, 1
    for at in range(size, low, -1):
        keys[at] = keys[at - 1]
        lots[at] = lots[at - 1]
    keys[low] = key
    lots[low] = quantity
    return size + 1, 0


@kernel
def _begin(
    row: Any, book: int, sizes: Any, states: Any, updates: Any, applying: Any, changed: Any, gaps: Any
) -> None:
    """Decide at the first row of an update whether it is applied."""
    applying[book] = False
    if row.flags & _GAP:
        if states[book] == 1:
            gaps[book] += 1
            states[book] = 2
            changed[book] = True
    elif row.flags & _SNAPSHOT:
        sizes[book, 0] = 0
        sizes[book, 1] = 0
        applying[book] = True
    elif states[book] == 1 and row.update > updates[book]:
        if row.update == updates[book] + np.uint64(1):
            applying[book] = True
        else:
            gaps[book] += 1
            states[book] = 2
            changed[book] = True


@kernel
def _finish(row: Any, keys: Any, lots: Any, sizes: Any, tops: Any, tick: Any) -> int:
    """Give 2 where the book crosses, 1 where its top changed (`tick` and `tops` are set), else 0."""
    bid, bid_lots, ask, ask_lots = 0, 0, 0, 0
    if sizes[0]:
        bid, bid_lots = keys[0, sizes[0] - 1], lots[0, sizes[0] - 1]
    if sizes[1]:
        ask, ask_lots = -keys[1, sizes[1] - 1], lots[1, sizes[1] - 1]
    if sizes[0] and sizes[1] and bid >= ask:
        return 2
    if bid == tops[0] and bid_lots == tops[1] and ask == tops[2] and ask_lots == tops[3]:
        return 0
    tops[0], tops[1], tops[2], tops[3] = bid, bid_lots, ask, ask_lots
    tick.time = row.time
    tick.bid, tick.bid_quantity, tick.ask, tick.ask_quantity = bid, bid_lots, ask, ask_lots
    tick.instrument = row.instrument
    return 1


@kernel
def _apply(
    rows: Any, keys: Any, lots: Any, sizes: Any, states: Any, updates: Any, applying: Any, tops: Any,
    changed: Any, gaps: Any, crossed: Any, dropped: Any, ticks: Any,
) -> int:  # fmt: skip
    made = 0
    for n in range(rows.shape[0]):
        row = rows[n]
        book = int(row.instrument)
        if book >= states.shape[0]:
            continue
        if row.flags & _FIRST or row.flags & _GAP:
            _begin(row, book, sizes, states, updates, applying, changed, gaps)
        if not applying[book]:
            continue
        if row.price > 0:
            side = 1 if row.side == _SELL else 0
            key = -row.price if side else row.price
            size, lost = _set_level(keys[book, side], lots[book, side], sizes[book, side], key, row.quantity)
            sizes[book, side] = size
            dropped[book] += lost
        if row.flags & _LAST:
            applying[book] = False
            changed[book] = True
            updates[book] = row.update
            result = _finish(row, keys[book], lots[book], sizes[book], tops[book], ticks[made])
            states[book] = 1
            if result == 2:
                crossed[book] += 1
                gaps[book] += 1
                states[book] = 2
            made += result == 1
    return made
