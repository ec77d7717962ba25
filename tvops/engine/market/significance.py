"""The significance filter: which changes of the top of a book become a published TICK."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.records import TICK, TRADE, TickFlag

_TRADE, _STALE = int(TickFlag.TRADE), int(TickFlag.STALE)


class TickFilter:
    """Merges tops and trades by time and keeps what is significant.

    A tick is published when a trade came, when the best bid or ask moved by at least the instrument's
    `significance` since the last published tick, or, where that is 0, at any change of price or quantity.
    """

    def __init__(self, significance: NDArray[np.int64]) -> None:
        """Filter instruments 0, 1, ... by their ``significance`` in ticks."""
        count = len(significance)
        self._significance = significance
        self._latest = np.zeros(count, TICK)  # what is known
        self._shown = np.zeros(count, TICK)  # what was last published
        self.stale = np.zeros(count, np.bool_)
        self.has_ticker = np.zeros(count, np.bool_)
        """Instruments with a top-of-book source: for them, tops of the book make no ticks."""
        # compiles now, not at the first data
        self.select(np.empty(0, TICK), np.empty(0, TICK), np.empty(0, TRADE))

    def select(self, ticks: NDArray[Any], tops: NDArray[Any], trades: NDArray[Any]) -> NDArray[Any]:
        """Give the TICK rows to publish.

        Args:
            ticks: TICK rows of a top-of-book source, in order of time.
            tops: TICK rows derived from books, in order of time.
            trades: TRADE rows, in order of time.
        """
        self.has_ticker[ticks["instrument"]] = True
        out = np.zeros(len(ticks) + len(tops) + len(trades), TICK)
        made = _select(
            ticks, tops, trades, self.has_ticker, self.stale, self._significance, self._latest, self._shown, out
        )
        return out[:made]

    def mark(self, instruments: NDArray[np.int64], stale: bool, time: int) -> NDArray[Any]:
        """Set whether prices are stale; gives a TICK of every instrument that it changes and that has prices."""
        changed = instruments[self.stale[instruments] != stale]
        self.stale[changed] = stale
        rows: NDArray[Any] = self._latest[changed].copy()
        rows["time"] = time
        rows["flags"] = _STALE if stale else 0
        return rows[(rows["bid"] > 0) | (rows["ask"] > 0) | (rows["last_price"] > 0)]


@kernel
def _significant(latest: Any, shown: Any, least: int) -> bool:
    if least > 0:
        return bool(abs(latest.bid - shown.bid) >= least or abs(latest.ask - shown.ask) >= least)
    return bool(
        latest.bid != shown.bid
        or latest.ask != shown.ask
        or latest.bid_quantity != shown.bid_quantity
        or latest.ask_quantity != shown.ask_quantity
    )


@kernel
def _next(ticks: Any, tops: Any, trades: Any, i: int, j: int, k: int) -> int:
    """Give which of the three has the earliest row; a trade goes before a top of the same time."""
    which, best = -1, 0
    if k < trades.shape[0]:
        which, best = 2, trades[k].time
    if i < ticks.shape[0] and (which < 0 or ticks[i].time < best):
        which, best = 0, ticks[i].time
    if j < tops.shape[0] and (which < 0 or tops[j].time < best):
        which = 1
    return which


@kernel
def _select(
    ticks: Any, tops: Any, trades: Any, has_ticker: Any, stale: Any, significance: Any, latest: Any, shown: Any,
    out: Any,
) -> int:  # fmt: skip
    made, i, j, k = 0, 0, 0, 0
    while True:
        which = _next(ticks, tops, trades, i, j, k)
        if which < 0:
            return made
        if which == 2:
            trade = trades[k]
            k += 1
            at = int(trade.instrument)
            now = latest[at]
            now.time, now.last_price, now.last_quantity = trade.time, trade.price, trade.quantity
            now.side = trade.side
            publish = True
        else:
            top = ticks[i] if which == 0 else tops[j]
            i += which == 0
            j += which == 1
            at = int(top.instrument)
            if which == 1 and has_ticker[at]:
                continue
            now = latest[at]
            now.time, now.bid, now.ask = top.time, top.bid, top.ask
            now.bid_quantity, now.ask_quantity = top.bid_quantity, top.ask_quantity
            publish = _significant(now, shown[at], significance[at])
        if publish:
            now.instrument = at
            now.flags = (_TRADE if which == 2 else 0) | (_STALE if stale[at] else 0)
            shown[at] = now
            out[made] = now
            made += 1
