"""Decimal strings of exchange frames into exact ticks and lots, many frames in one kernel call.

A *piece* is a JSON array of levels as exchanges write them, `[["58710.20","0.014"],...]`: price and quantity as
quoted plain decimals. A piece with a price that is no whole number of ticks, or a value that is negative, too
large, or not a plain decimal, is refused as a whole. Quantities below a lot cannot be traded, but exchanges do
show some (spot BTCUSDT: 25.42618900 at a lot of 0.00001): they are cut down to whole lots and counted in
`LevelParser.cut`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.instruments import InstrumentTable

MAX_UNITS = 1 << 53
"""Ticks and lots from here on are refused: a double, which browsers have, still holds them exactly."""

_LARGEST = 10**17  # before another digit is taken in, so that an int64 holds the value
_TOO_LARGE = (1 << 63) - 1


class PieceStatus(IntEnum):
    """What became of a piece."""

    OK = 0
    MALFORMED = 1  # not an array of pairs of quoted plain decimals
    INEXACT = 2  # a price is no multiple of the tick size, or a value is too large


class LevelParser:
    """Parses pieces by the tick and lot sizes of their instruments. The results live until the next call."""

    def __init__(self, table: InstrumentTable) -> None:
        self._scales = np.array(
            [(i.price.places, i.price.units, i.quantity.places, i.quantity.units) for i in table.all], np.int64
        )
        self.prices = np.empty(4096, np.int64)
        self.lots = np.empty(4096, np.int64)
        self.cut = 0
        self.parse([b"[]"], [0])  # compiles now, not at the first data

    def parse(
        self, pieces: Sequence[bytes | Raw], instruments: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Parse ``pieces`` into `prices` (ticks) and `lots`.

        Returns:
            bounds, (n + 1): the levels of piece k are ``bounds[k]:bounds[k + 1]``, none if it was refused;
            status, (n): a `PieceStatus` each.
        """
        count = len(pieces)
        data = np.frombuffer(b"".join(pieces), np.uint8)
        ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, count))
        most = len(data) // 6 + 1  # a level has at least two quoted digits
        if len(self.prices) < most:
            self.prices, self.lots = np.empty(2 * most, np.int64), np.empty(2 * most, np.int64)
        bounds, status = np.zeros(count + 1, np.int64), np.zeros(count, np.uint8)
        which = np.array(instruments, np.int64)
        self.cut += _parse(data, ends, which, self._scales, self.prices, self.lots, bounds, status)
        return bounds, status


@kernel
def _number(data: Any, at: int, end: int, places: int, units: int) -> tuple[int, int, bool]:
    """Parse a quoted decimal at ``at``.

    Returns:
        its whole steps (-1: malformed, -2: too large), where it ends, and whether it is exactly that.
    """
    if at >= end or data[at] != 34:
        return -1, at, False
    at += 1
    value, digits, fraction, point, exact = 0, 0, 0, False, True
    while at < end and data[at] != 34:
        digit = int(data[at]) - 48
        at += 1
        if digit == -2 and not point and digits:
            point = True
            digits = 0
            continue
        if digit < 0 or digit > 9:
            return -1, at, False
        digits += 1
        if point and fraction >= places:
            exact = exact and digit == 0
            continue
        fraction += point
        value = value * 10 + digit if value < _LARGEST else _TOO_LARGE
    if at >= end or not digits:
        return -1, at, False
    while fraction < places:
        value = value * 10 if value < _LARGEST else _TOO_LARGE
        fraction += 1
    if value == _TOO_LARGE or value // units >= MAX_UNITS:
        return -2, at + 1, False
    return value // units, at + 1, exact and value % units == 0


@kernel
def _piece(data: Any, at: int, end: int, scale: Any, prices: Any, lots: Any, filled: int) -> tuple[int, int, int]:
    """Parse one piece; give how many levels are filled then, a `PieceStatus`, and the quantities cut down."""
    cut = 0
    if end - at < 2 or data[at] != 91 or data[end - 1] != 93:
        return filled, 1, cut
    at += 1
    if at == end - 1:
        return filled, 0, cut
    while True:
        if data[at] != 91:
            return filled, 1, cut
        price, at, exact = _number(data, at + 1, end, scale[0], scale[1])
        if price == -1 or at >= end or data[at] != 44:
            return filled, 1, cut
        quantity, at, whole = _number(data, at + 1, end, scale[2], scale[3])
        if quantity == -1 or at + 1 >= end or data[at] != 93:
            return filled, 1, cut
        if not exact or quantity == -2:
            return filled, 2, cut
        cut += not whole
        prices[filled] = price
        lots[filled] = quantity
        filled += 1
        at += 1
        if at == end - 1:
            return filled, 0, cut
        if data[at] != 44:
            return filled, 1, cut
        at += 1


@kernel
def _parse(
    data: Any, ends: Any, instruments: Any, scales: Any, prices: Any, lots: Any, bounds: Any, status: Any
) -> int:
    start, total = 0, 0
    for k in range(ends.shape[0]):
        filled, code, cut = _piece(data, start, ends[k], scales[instruments[k]], prices, lots, bounds[k])
        status[k] = code
        bounds[k + 1] = bounds[k] if code else filled
        total += cut
        start = ends[k]
    return total
