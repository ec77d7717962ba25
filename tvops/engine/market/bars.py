"""1 s and 1 m bars, made of trades in one kernel call per batch.

- A bar begins with its first trade; a second or minute without a trade has no bar.
- A bar is closed by the first trade behind its end or when the feed is past its end, whichever comes first, and
  does not change afterwards: a trade that comes later than that is counted in `late` and left out.
- Instruments of a feed without trades get bars of their mid prices (rounded down to a tick), with volume 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.records import BAR, TRADE

INTERVALS = (1, 60)
"""Lengths in seconds."""

_SECOND = 1_000_000_000


class Bars:
    """The open bars of all instruments."""

    def __init__(self, count: int) -> None:
        self._open = np.zeros((count, len(INTERVALS)), BAR)  # start 0: none
        self._floor = np.zeros((count, len(INTERVALS)), np.int64)  # end of the last closed bar
        self._changed = np.zeros((count, len(INTERVALS)), np.bool_)
        self._closed: list[NDArray[Any]] = []
        self._open["instrument"] = np.arange(count)[:, None]
        self._open["interval"] = INTERVALS
        self.late = 0
        # compiles now, not at the first data
        _add(np.empty(0, TRADE), self._open, self._floor, self._changed, np.empty(0, BAR))
        self.collect(0)

    def add_trades(self, trades: NDArray[Any]) -> None:
        """Count TRADE rows in; those of quantity 0 only set prices."""
        if not len(trades):
            return
        closed = np.zeros(len(trades) * len(INTERVALS), BAR)
        made, late = _add(trades, self._open, self._floor, self._changed, closed)
        self.late += late
        if made:
            self._closed.append(closed[:made])

    def add_mids(self, ticks: NDArray[Any]) -> None:
        """Count the mid prices of TICK rows in; those without a bid or an ask are left out."""
        both = ticks[(ticks["bid"] > 0) & (ticks["ask"] > 0)]
        rows = np.zeros(len(both), TRADE)
        rows["time"], rows["instrument"] = both["time"], both["instrument"]
        rows["price"] = (both["bid"] + both["ask"]) // 2
        self.add_trades(rows)

    def collect(self, reached: int) -> NDArray[Any]:
        """Give the BAR rows that are new since the last call: closed ones, then open ones that changed.

        Args:
            reached: time (ns) that the feed has reached; bars that end by then are closed.
        """
        rows = np.zeros(self._open.size, BAR)
        made = _collect(self._open, self._floor, self._changed, reached, rows)
        closed, self._closed = self._closed, []
        return np.concatenate([*closed, rows[:made]])


@kernel
def _close(bar: Any, floor: Any, changed: Any, at: int, which: int, out: Any) -> None:
    out[0] = bar
    out[0].closed = 1
    floor[at, which] = bar.start + bar.interval * _SECOND
    changed[at, which] = False
    bar.start = 0


@kernel
def _add(trades: Any, bars: Any, floor: Any, changed: Any, closed: Any) -> tuple[int, int]:
    made, late = 0, 0
    for n in range(trades.shape[0]):
        trade = trades[n]
        at = int(trade.instrument)
        for which in range(bars.shape[1]):
            bar = bars[at, which]
            span = int(bar.interval) * _SECOND
            start = trade.time // span * span
            if start < floor[at, which] or start < bar.start:
                late += which == 0
                continue
            if bar.start and start > bar.start:
                _close(bar, floor, changed, at, which, closed[made:])
                made += 1
            if bar.start == 0:
                bar.start = start
                bar.open = bar.high = bar.low = trade.price
                bar.volume = 0
                bar.trades = 0
            bar.high = max(bar.high, trade.price)
            bar.low = min(bar.low, trade.price)
            bar.close = trade.price
            bar.volume += trade.quantity
            bar.trades += trade.quantity > 0
            changed[at, which] = True
    return made, late


@kernel
def _collect(bars: Any, floor: Any, changed: Any, reached: int, out: Any) -> int:
    made = 0
    for at in range(bars.shape[0]):
        for which in range(bars.shape[1]):
            bar = bars[at, which]
            if bar.start and bar.start + int(bar.interval) * _SECOND <= reached:
                _close(bar, floor, changed, at, which, out[made:])
                made += 1
            elif changed[at, which]:
                out[made] = bar
                made += 1
                changed[at, which] = False
    return made
