"""What a feed is: batches of depth, trades and ticks from one source of market data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tvops.engine.instruments import InstrumentTable
from tvops.engine.records import DEPTH, TICK, TRADE
from tvops.errors import UsageError

FeedState = Literal["syncing", "live", "gap", "ended"]
"""`syncing`: no book yet; `gap`: at least one book lost continuity; `ended`: nothing more will come."""


def no_depth() -> NDArray[Any]:
    """Give an empty array of DEPTH rows."""
    return np.empty(0, DEPTH)


def no_trades() -> NDArray[Any]:
    """Give an empty array of TRADE rows."""
    return np.empty(0, TRADE)


def no_ticks() -> NDArray[Any]:
    """Give an empty array of TICK rows."""
    return np.empty(0, TICK)


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """What a feed has to say at one moment; each array is in order of time and owned by the receiver.

    `depth`: absolute levels, each update (FIRST to LAST) whole. The first update of a book is a snapshot;
    `update` is dense per instrument from there on, and a snapshot may come at any time. A GAP row (price and
    quantity 0) makes the book invalid until the next snapshot.
    `ticks`: rows of a top-of-book source; only time, instrument, bid, ask and their quantities are set. For an
    instrument that never has any, ticks are derived from the top of its book.
    """

    time: int  # ns; nothing earlier than this will come any more
    depth: NDArray[Any] = field(default_factory=no_depth)
    trades: NDArray[Any] = field(default_factory=no_trades)
    ticks: NDArray[Any] = field(default_factory=no_ticks)


class Feed(Protocol):
    """A source of market data."""

    name: str
    has_trades: bool
    """Whether bars are made of trades; otherwise they are made of mid prices."""

    def describe(self) -> str:
        """Say in a few words what the data are (and whether they are simulated)."""

    def state(self) -> FeedState:
        """Tell the present state; never blocks."""

    def stats(self) -> dict[str, float | int | str]:
        """Give the counters of the feed; never blocks."""

    def resync(self, instrument: int) -> None:
        """Start the book of ``instrument`` over: what came of it so far was inconsistent."""

    def batches(self) -> AsyncIterator[FeedBatch]:
        """Give batches at the pace of the source until it ends; called once."""


def carried(symbols: tuple[str, ...], table: InstrumentTable) -> NDArray[np.bool_]:
    """Give, per instrument, whether market data carries it; no ``symbols`` means all.

    Raises:
        UsageError: names a symbol that the table does not have.
    """
    mask = np.full(len(table), not symbols)
    for symbol in symbols:
        if symbol not in table.by_symbol:
            known = ", ".join(table.by_symbol)
            raise UsageError(f"symbols: there is no instrument {symbol!r}; the instruments file has {known}")
        mask[table.by_symbol[symbol].index] = True
    return mask
