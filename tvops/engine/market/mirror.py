"""The mirror: the top of an external book stands in ours as orders, and external trades sweep it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.bus.roles import Bus
from tvops.engine.instruments import MAX_QUANTITY_LOTS, InstrumentTable
from tvops.engine.market.book import Books, BookState
from tvops.engine.market.mirror_kernels import RUN, RUNS, gather_runs, reflect, sweep
from tvops.engine.market.own_orders import NO_SLOT, OwnOrders
from tvops.engine.market.price import PriceService
from tvops.engine.market.quoting import QuotingService
from tvops.engine.records import COMMAND, EVENT, MIRROR_MAKER, MIRROR_TAKER, TRADE, Kind, Side
from tvops.engine.services import Health
from tvops.settings import Settings

LEAST_INTERVAL_MS = 50
"""Time between two looks at the external market, at least."""

MAX_TRADES = 1 << 16
"""Trades between two looks; the oldest of more are let go."""


class Mirror:
    """What the mirror wants in our book. Pure: external books and trades, and own events, give the commands."""

    def __init__(self, table: InstrumentTable, levels: int) -> None:
        """Keep ``levels`` levels a side of every instrument of ``table``."""
        # A level may need a new order while the one that it replaces is not yet known to be gone.
        self.orders = OwnOrders(len(table), 4 * levels, range(MIRROR_MAKER, MIRROR_TAKER + 1))
        self._levels = levels
        self._bands = [(i.price_low, i.price_high) for i in table.all]
        self._targets = np.zeros(self.orders.slots.shape, np.int64)
        self._quoted = np.zeros(len(table), np.bool_)
        self._pause = np.zeros(len(table), np.int64)
        self._runs = np.zeros((len(table), 2, RUNS), RUN)
        self._run_counts = np.zeros((len(table), 2), np.int64)
        self._first_side = np.zeros(len(table), np.int64)
        self._serial = np.zeros(1, np.int64)
        most = 2 * RUNS + 8 * levels + 1
        self._commands = np.zeros(len(table) * most, COMMAND)

    @property
    def quoted(self) -> int:
        """How many instruments have quotes."""
        return int(self._quoted.sum())

    def begin(self) -> None:
        """Start anew, with no order in the book."""
        self.orders.forget()
        self._targets[:] = 0
        self._quoted[:] = False

    def sweep(self, trades: NDArray[Any]) -> NDArray[Any]:
        """Give the commands that let external TRADE rows, in order of time, happen in our book.

        Trades of instruments without quotes are ignored. The COMMAND rows are a view until the next call.
        """
        self._run_counts[:] = 0
        gather_runs(trades, self._runs, self._run_counts, self._first_side)
        count = 0
        for instrument in np.flatnonzero(self._run_counts.any(axis=1) & self._quoted).tolist():
            count = sweep(
                self._commands, count, self.orders.slots, self._targets, instrument, self._runs[instrument],
                self._run_counts[instrument], self._first_side[instrument], self._serial,
            )  # fmt: skip
        return self._commands[:count]

    def reflect(self, books: Books, alive: bool) -> NDArray[Any]:
        """Give the commands that make our orders those of the external books; pulls them where a book is not live.

        ``alive`` false: the feed has ended. The COMMAND rows are a view until the next call.
        """
        count = 0
        for instrument in range(len(books)):
            if not (alive and books.live(instrument)):
                count = self._pull(instrument, count)
            elif self._may_quote(instrument):
                bids, asks = books.levels(instrument, self._levels)
                count = reflect(
                    self._commands, count, self.orders.slots, self._targets, instrument,
                    self._fitting(instrument, bids), self._fitting(instrument, asks),
                )  # fmt: skip
                self._quoted[instrument] = True
        return self._commands[:count]

    def rest_where_halted(self, rounds: int) -> None:
        """Do not quote halted instruments for some rounds, then quote every level anew."""
        halted = self.orders.halted
        self._pause[halted] = rounds
        self._targets[halted] = np.where(self.orders.slots["state"][halted] == 0, 0, self._targets[halted])

    def _may_quote(self, instrument: int) -> bool:
        if self._pause[instrument] > 0:
            self._pause[instrument] -= 1
            return False
        return True

    def _fitting(self, instrument: int, levels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Leave out levels beyond the price band, and cut quantities to what an order may have."""
        low, high = self._bands[instrument]
        np.minimum(levels[:, 1], MAX_QUANTITY_LOTS, out=levels[:, 1])
        fits = (levels[:, 0] >= low) & (levels[:, 0] <= high)
        return levels if fits.all() else levels[fits]

    def _pull(self, instrument: int, count: int) -> int:
        if not self._quoted[instrument]:
            return count
        self._quoted[instrument] = False
        self._targets[instrument] = 0
        self._serial[0] += 1
        row = self._commands[count : count + 1]
        row[:] = np.zeros(1, COMMAND)
        row["kind"], row["account"], row["instrument"] = Kind.MASS_CANCEL, MIRROR_MAKER, instrument
        row["key_low"] = (int(self._serial[0]) << 32) | (instrument << 16) | NO_SLOT
        return count + 1


class MirrorService(QuotingService):
    """Keeps the mirror in our engine: paper traders meet the external market at its prices and quantities."""

    name = "mirror"

    def __init__(self, settings: Settings, bus: Bus, table: InstrumentTable, price_service: PriceService) -> None:
        self._mirror = Mirror(table, settings.mirror_levels)
        self._table = table
        self._price = price_service
        self._trades: list[NDArray[Any]] = []
        self._trade_count = 0
        price_service.on_trades(self._note_trades)
        super().__init__(bus, self._mirror.orders, max(LEAST_INTERVAL_MS, settings.batch_interval_ms) / 1000)

    def health(self) -> Health:
        """Tell whether the engine answers and the external market is in our book."""
        health = super().health()
        if health.state == "ok" and self._mirror.quoted == 0:
            return Health("ok", "no external book is live, nothing is quoted")
        return health

    def stats(self) -> dict[str, float | int | str]:
        """Give commands per second, orders in the book, counts, and how many instruments are quoted."""
        return {**super().stats(), "quoted": self._mirror.quoted}

    def _begin(self) -> None:
        self._mirror.begin()
        self._take_trades()

    def compile(self) -> None:
        """Call every kernel once."""
        rehearsal, books = Mirror(self._table, 1), Books(len(self._table), 1)
        rehearsal.orders.follow(np.zeros(0, EVENT))
        books.states[:] = BookState.LIVE
        rehearsal.reflect(books, True)
        trade = np.zeros(1, TRADE)
        trade["side"], trade["price"], trade["quantity"] = Side.BUY, 1, 1
        rehearsal.sweep(trade)

    async def _round(self) -> None:
        trades = self._take_trades()
        if len(trades) and len(sweeps := self._mirror.sweep(trades)):
            await self._exchange(sweeps)
        feed = self._price.feed.state()
        alive = feed != "ended" and self._price.health().state != "failed"
        await self._exchange(self._mirror.reflect(self._price.books, alive))
        self._mirror.rest_where_halted(round(1 / self._interval))

    def _note_trades(self, rows: NDArray[Any]) -> None:
        self._trades.append(rows)
        self._trade_count += len(rows)
        while self._trade_count > MAX_TRADES:
            self._trade_count -= len(self._trades.pop(0))

    def _take_trades(self) -> NDArray[Any]:
        trades = np.concatenate(self._trades) if self._trades else np.empty(0, TRADE)
        self._trades, self._trade_count = [], 0
        return trades
