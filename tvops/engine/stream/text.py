"""JSON messages of the data channels: one kernel writes the rows of every channel straight into bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.instruments import Instrument
from tvops.engine.records import Side, TickFlag
from tvops.engine.stream.frames import FrameFlag
from tvops.engine.stream.history import Channel, Topic

_NUMBER_BYTES = 44  # longest number of a column: 19 digits, places beyond them, sign, point, quotes


class Write(IntEnum):
    """How a column is written."""

    DECIMAL = 0  # a quoted decimal with the places of the instrument
    OPTIONAL = 1  # the same, null for 0
    INTEGER = 2
    SIDE = 3  # "buy", "sell" or null
    BOOLEAN = 4


class Column(NamedTuple):
    """One member of a JSON row: its name, where it comes from, and how it is written."""

    name: str
    field: str
    write: Write
    scale: str = ""  # "price", "quantity" or "" (whole numbers)
    mask: int = 0  # BOOLEAN: bits of `field` that make it true


_COLUMNS = {
    Channel.TICKS: (
        Column("time", "time", Write.INTEGER),
        Column("bid", "bid", Write.OPTIONAL, "price"),
        Column("bid_quantity", "bid_quantity", Write.OPTIONAL, "quantity"),
        Column("ask", "ask", Write.OPTIONAL, "price"),
        Column("ask_quantity", "ask_quantity", Write.OPTIONAL, "quantity"),
        Column("last_price", "last_price", Write.OPTIONAL, "price"),
        Column("last_quantity", "last_quantity", Write.OPTIONAL, "quantity"),
        Column("side", "side", Write.SIDE),
        Column("trade", "flags", Write.BOOLEAN, mask=TickFlag.TRADE),
        Column("stale", "flags", Write.BOOLEAN, mask=TickFlag.STALE),
    ),
    Channel.TRADES: (
        Column("time", "time", Write.INTEGER),
        Column("trade_id", "trade_id", Write.DECIMAL),
        Column("price", "price", Write.DECIMAL, "price"),
        Column("quantity", "quantity", Write.DECIMAL, "quantity"),
        Column("side", "side", Write.SIDE),
    ),
    Channel.BARS: (
        Column("start", "start", Write.INTEGER),
        Column("open", "open", Write.DECIMAL, "price"),
        Column("high", "high", Write.DECIMAL, "price"),
        Column("low", "low", Write.DECIMAL, "price"),
        Column("close", "close", Write.DECIMAL, "price"),
        Column("volume", "volume", Write.DECIMAL, "quantity"),
        Column("trades", "trades", Write.INTEGER),
        Column("closed", "closed", Write.BOOLEAN, mask=1),
    ),
}
_LEVEL = (Column("", "price", Write.DECIMAL, "price"), Column("", "quantity", Write.DECIMAL, "quantity"))
_WORDS = np.frombuffer(b'nulltruefalse"buy""sell"', np.uint8)


@dataclass(frozen=True, slots=True)
class _Layout:
    """The columns of one channel for one instrument, as the kernel wants them."""

    columns: tuple[Column, ...]
    writes: NDArray[np.int64]
    units: NDArray[np.int64]
    places: NDArray[np.int64]
    literals: NDArray[np.uint8]
    ends: NDArray[np.int64]


def _layout(columns: tuple[Column, ...], instrument: Instrument) -> _Layout:
    named = bool(columns[0].name)
    texts = [f'{"{" if not n else ","}"{c.name}":' if named else ",["[not n] for n, c in enumerate(columns)]
    texts.append("}" if named else "]")
    steps = {"price": instrument.price, "quantity": instrument.quantity}
    scales = [(steps[c.scale].units, steps[c.scale].places) if c.scale else (1, 0) for c in columns]
    return _Layout(
        columns,
        np.array([c.write for c in columns], np.int64),
        np.array([units for units, _ in scales], np.int64),
        np.array([places for _, places in scales], np.int64),
        np.frombuffer("".join(texts).encode(), np.uint8),
        np.cumsum([len(text) for text in texts]).astype(np.int64),
    )


@kernel
def _copy(out: Any, at: int, source: Any, start: int, end: int) -> int:
    for n in range(start, end):
        out[at] = source[n]
        at += 1
    return at


@kernel
def _write_number(out: Any, at: int, value: int, places: int) -> int:
    """Write ``value`` x 10**-places in decimal; give the place behind it."""
    if value < 0:
        out[at] = 45  # -
        at += 1
        value = -value
    start, digits = at, 0
    while value or digits <= places:
        if places and digits == places:
            out[at] = 46  # .
            at += 1
        out[at] = 48 + value % 10
        value //= 10
        at += 1
        digits += 1
    low, high = start, at - 1
    while low < high:
        out[low], out[high] = out[high], out[low]
        low += 1
        high -= 1
    return at


@kernel
def _write_rows(
    values: Any, writes: Any, units: Any, places: Any, literals: Any, ends: Any, words: Any, out: Any
) -> int:
    at, width = 0, values.shape[1]
    for row in range(values.shape[0]):
        if row:
            out[at] = 44  # ,
            at += 1
        start = 0
        for column in range(width):
            at = _copy(out, at, literals, start, ends[column])
            start = ends[column]
            value, write = values[row, column], writes[column]
            if write == 2:
                at = _write_number(out, at, value, 0)
            elif write == 4:
                at = _copy(out, at, words, 4, 8) if value else _copy(out, at, words, 8, 13)
            elif write == 3:
                first, last = (13, 18) if value == 1 else (18, 24) if value == 2 else (0, 4)
                at = _copy(out, at, words, first, last)
            elif write == 1 and value == 0:
                at = _copy(out, at, words, 0, 4)
            else:
                out[at] = 34  # "
                at = _write_number(out, at + 1, value * units[column], places[column])
                out[at] = 34
                at += 1
        at = _copy(out, at, literals, start, ends[width])
    return at


class TextWriter:
    """Writes the JSON data messages of all instruments."""

    def __init__(self, instruments: list[Instrument], epoch: int) -> None:
        self.epoch = epoch
        self._instruments = instruments
        self._layouts: dict[tuple[tuple[Column, ...], int], _Layout] = {}
        self._out = np.empty(1 << 16, np.uint8)

    def message(
        self, topic: Topic, rows: NDArray[Any], *, flags: int, sequence: int, sent: int, missed: int = 0
    ) -> bytes:
        """Give the JSON text of one data message; see docs/market-data.md."""
        symbol = self._instruments[topic.instrument].symbol
        parts = [f'{{"channel":"{topic.channel}","symbol":"{symbol}"']
        if topic.interval:
            parts.append(f',"interval":"{topic.interval_name}"')
        if topic.depth:
            parts.append(f',"depth":{topic.depth}')
        parts.append(f',"epoch":{self.epoch},"seq":{sequence},"sent":{sent}')
        if flags & FrameFlag.SNAPSHOT:
            parts.append(',"snapshot":true')
        if flags & FrameFlag.CONFLATED:
            parts.append(f',"conflated":true,"missed":{missed}')
        if flags & FrameFlag.GAP:
            parts.append(',"gap":true')
        if topic.channel is Channel.BOOK:
            parts.append(self._levels(topic, rows))
        else:
            parts.append(f',"rows":[{self._rows(_COLUMNS[topic.channel], topic.instrument, rows)}]}}')
        return "".join(parts).encode()

    def _levels(self, topic: Topic, rows: NDArray[Any]) -> str:
        time, update = (int(rows["time"][-1]), int(rows["update"][-1])) if len(rows) else (0, 0)
        levels = rows[rows["price"] > 0]
        bids = self._rows(_LEVEL, topic.instrument, levels[levels["side"] == Side.BUY])
        asks = self._rows(_LEVEL, topic.instrument, levels[levels["side"] == Side.SELL])
        return f',"count":{len(rows)},"time":{time},"update":{update},"bids":[{bids}],"asks":[{asks}]}}'

    def _rows(self, columns: tuple[Column, ...], instrument: int, rows: NDArray[Any]) -> str:
        if not len(rows):
            return ""
        layout = self._layouts.get((columns, instrument))
        if layout is None:
            layout = _layout(columns, self._instruments[instrument])
            self._layouts[columns, instrument] = layout
        values = np.empty((len(rows), len(columns)), np.int64)
        for n, column in enumerate(columns):
            values[:, n] = rows[column.field] & column.mask if column.mask else rows[column.field]
        needed = len(rows) * (len(layout.literals) + 1 + _NUMBER_BYTES * len(columns))
        if len(self._out) < needed:
            self._out = np.empty(needed, np.uint8)
        size = _write_rows(
            values, layout.writes, layout.units, layout.places, layout.literals, layout.ends, _WORDS, self._out
        )
        return self._out[:size].tobytes().decode("ascii")
