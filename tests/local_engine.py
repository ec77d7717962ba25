"""A matching engine without I/O for tests of what trades in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.instruments import InstrumentTable
from tvops.engine.matching.engine import Engine
from tvops.engine.records import COMMAND, FIRST_USER_ACCOUNT, Kind, OrderType, Side, TimeInForce

USER = FIRST_USER_ACCOUNT


class LocalEngine:
    """An engine with the instruments of a table defined; gives sequence numbers and times itself."""

    def __init__(self, table: InstrumentTable) -> None:
        self.engine = Engine(1 << 14, 256)
        rows = np.zeros(len(table), COMMAND)
        rows["kind"] = Kind.DEFINE
        for row, instrument in zip(rows, table.all, strict=True):
            row["instrument"], row["price"] = instrument.index, instrument.price_low
            row["quantity"], row["order_id"] = instrument.ladder_ticks, table.scale_digest(instrument.index)
        self.apply(rows)

    def apply(self, commands: NDArray[Any]) -> NDArray[Any]:
        rows = commands.copy()
        rows["seq"] = np.arange(len(rows), dtype=np.uint64) + np.uint64(self.engine.seq + 1)
        rows["time"] = rows["seq"]
        return self.engine.apply(rows).copy()

    def order(
        self, instrument: int, side: Side, quantity: int, price: int = 0, account: int = USER
    ) -> NDArray[Any]:
        """Enter a user's order, a market order without a price; give all events."""
        return self.apply(order(instrument, side, quantity, price, account))

    def best(self, instrument: int) -> tuple[int, int]:
        bids, asks = self.engine.depth(instrument, 1)
        return int(bids[0, 0]), int(asks[0, 0])

    def levels(self, instrument: int) -> list[list[list[int]]]:
        """Give bids and asks as lists of [price, lots]."""
        return [side[:, :2].tolist() for side in self.engine.depth(instrument, 1000)]


def order(instrument: int, side: Side, quantity: int, price: int = 0, account: int = USER) -> NDArray[Any]:
    rows = np.zeros(1, COMMAND)
    rows["kind"], rows["instrument"], rows["account"] = Kind.NEW, instrument, account
    rows["side"], rows["quantity"], rows["price"] = side, quantity, price
    rows["order_type"] = OrderType.LIMIT if price else OrderType.MARKET
    rows["time_in_force"] = TimeInForce.GTC if price else TimeInForce.IOC
    return rows
