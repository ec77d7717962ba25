"""What readers see of each book: its best levels, told as numbered updates and snapshots.

The rules of the published DEPTH rows:

- A delta (FIRST to LAST) has number `update` = the number before + 1; a level that leaves the best `depth`
  ones is removed (quantity 0), one that comes in is added.
- A snapshot has the number of the state that it shows: of the last delta, or the next number when the state
  is new (the first one, after a gap). An empty book is one row with price and quantity 0.
- A GAP row has the last number, price and quantity 0; from there the book is not valid until a snapshot.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.market.book import Books, BookState
from tvops.engine.records import DEPTH, DepthFlag

_FIRST, _LAST = int(DepthFlag.FIRST), int(DepthFlag.LAST)
_SNAPSHOT, _GAP = int(DepthFlag.SNAPSHOT), int(DepthFlag.GAP)
_LIVE = int(BookState.LIVE)


class Windows:
    """The published part of all books."""

    def __init__(self, depths: NDArray[np.int64]) -> None:
        """Show the best ``depths[i]`` levels a side of instrument i."""
        count, deepest = len(depths), int(depths.max())
        self._depths = depths
        self._prices = np.zeros((count, 2, deepest), np.int64)
        self._lots = np.zeros((count, 2, deepest), np.int64)
        self._sizes = np.zeros((count, 2), np.int64)
        self._valid = np.zeros(count, np.bool_)  # readers have a valid book
        self._numbers = np.zeros(count, np.uint64)
        self._rows = np.zeros(int(depths.sum()) * 6 + count, DEPTH)
        nothing = np.zeros(count, np.bool_)
        self.publish(Books(count, 1), nothing, nothing, 0)  # compiles now, not at the first data

    def publish(
        self, books: Books, changed: NDArray[np.bool_], snapshots: NDArray[np.bool_], time: int
    ) -> NDArray[Any]:
        """Give the DEPTH rows that bring readers from what was published before to the present books.

        Books that are not LIVE are told as a gap, once. A book in the middle of an update is left for later.

        Args:
            books: the present books.
            changed: which books may differ from what was published.
            snapshots: of which books readers get a snapshot as well.
            time: of the rows, ns.
        """
        made = _publish(
            books.keys, books.lots, books.sizes, books.states, books.applying, changed, snapshots, self._depths,
            self._prices, self._lots, self._sizes, self._valid, self._numbers, time, self._rows,
        )  # fmt: skip
        return self._rows[:made].copy()


@kernel
def _put(row: Any, instrument: int, side: int, price: int, lots: int, flags: int) -> None:
    row.instrument = instrument
    row.side = side + 1 if price else 0
    row.price = price
    row.quantity = lots
    row.flags = flags


@kernel
def _price(keys: Any, size: int, side: int, n: int) -> int:
    """Give the price of level ``n`` from the best."""
    key: int = keys[size - 1 - n]
    return -key if side else key


@kernel
def _diff(
    instrument: int, side: int, keys: Any, lots: Any, size: int, depth: int, prices: Any, shown: Any,
    shown_size: int, out: Any,
) -> int:  # fmt: skip
    """Write the rows between the shown levels of a side and the present ones; both are best first."""
    count = min(size, depth)
    i, j, made = 0, 0, 0
    while i < shown_size or j < count:
        price = _price(keys, size, side, j) if j < count else 0
        order = 0  # -1: the shown level comes first, 1: the present one
        if j == count:
            order = -1
        elif i == shown_size:
            order = 1
        elif prices[i] != price:
            order = -1 if (prices[i] > price) == (side == 0) else 1
        if order < 0:
            _put(out[made], instrument, side, prices[i], 0, 0)
            made += 1
        elif order > 0 or shown[i] != lots[size - 1 - j]:
            _put(out[made], instrument, side, price, lots[size - 1 - j], 0)
            made += 1
        i += order <= 0
        j += order >= 0
    return made


@kernel
def _show(side: int, keys: Any, lots: Any, size: int, depth: int, prices: Any, shown: Any) -> int:
    count = min(size, depth)
    for n in range(count):
        prices[n] = _price(keys, size, side, n)
        shown[n] = lots[size - 1 - n]
    return count


@kernel
def _stamp(rows: Any, count: int, time: int, update: Any, flags: int) -> None:
    for n in range(count):
        rows[n].time = time
        rows[n].update = update
        rows[n].flags = flags
    rows[0].flags |= _FIRST
    rows[count - 1].flags |= _LAST


@kernel
def _snapshot(book: int, prices: Any, shown: Any, sizes: Any, out: Any) -> int:
    """Write every shown level of a book, or one row that stands for an empty book."""
    count = 0
    for side in range(2):
        for n in range(sizes[side]):
            _put(out[count], book, side, prices[side, n], shown[side, n], 0)
            count += 1
    if count == 0:
        _put(out[0], book, 0, 0, 0, 0)
        count = 1
    return count


@kernel
def _bring(
    book: int, keys: Any, lots: Any, sizes: Any, depth: int, prices: Any, shown: Any, shown_sizes: Any, out: Any
) -> int:
    """Show the present levels of a book; give how many rows say what differs from those shown before."""
    count = 0
    for side in range(2):
        size = sizes[side]
        count += _diff(
            book, side, keys[side], lots[side], size, depth, prices[side], shown[side], shown_sizes[side],
            out[count:],
        )  # fmt: skip
        shown_sizes[side] = _show(side, keys[side], lots[side], size, depth, prices[side], shown[side])
    return count


@kernel
def _publish(
    keys: Any, lots: Any, sizes: Any, states: Any, applying: Any, changed: Any, snapshots: Any, depths: Any,
    prices: Any, shown: Any, shown_sizes: Any, valid: Any, numbers: Any, time: int, out: Any,
) -> int:  # fmt: skip
    made = 0
    for book in range(states.shape[0]):
        fresh = not valid[book]
        if states[book] != _LIVE:
            if not fresh:
                valid[book] = False
                _put(out[made], book, 0, 0, 0, 0)
                _stamp(out[made:], 1, time, numbers[book], _GAP)
                made += 1
            continue
        if applying[book] or not (changed[book] or snapshots[book] or fresh):
            continue
        if fresh:
            shown_sizes[book, :] = 0
        count = _bring(
            book, keys[book], lots[book], sizes[book], depths[book], prices[book], shown[book],
            shown_sizes[book], out[made:],
        )  # fmt: skip
        numbers[book] += np.uint64(fresh or count > 0)
        valid[book] = True
        if count and not fresh:
            _stamp(out[made:], count, time, numbers[book], 0)
            made += count
        if fresh or snapshots[book]:
            count = _snapshot(book, prices[book], shown[book], shown_sizes[book], out[made:])
            _stamp(out[made:], count, time, numbers[book], _SNAPSHOT)
            made += count
    return made
