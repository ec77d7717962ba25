"""Binance market data, spot and USD-M futures: combined-stream frames in, a `FeedBatch` out. No I/O.

A replay and a live connection share this. Streams: `<symbol>@depth[@<speed>]`, `<symbol>@bookTicker`,
`<symbol>@trade` and `<symbol>@aggTrade` (only the one that is seen first for a symbol: they tell the same
trades). REST depth snapshots have no stream; they may carry their symbol as `"symbol"`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import IntEnum
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from tvops.engine.feeds.feed import FeedBatch, FeedState, no_depth, no_ticks, no_trades
from tvops.engine.feeds.levels import LevelParser, PieceStatus
from tvops.engine.feeds.sync import BinanceSync, Update
from tvops.engine.instruments import Instrument, InstrumentTable
from tvops.engine.records import DEPTH, TICK, TRADE, Side

Frame: TypeAlias = tuple[int, bytes]
"""When it was received (ns) and the frame as it came."""

_MAX_ROUTES = 1024  # stream names that are remembered, so that garbage cannot fill the memory
_NEAR = 0.05  # how far a snapshot's best bid may be from the last known price, to belong to an instrument

_Id = Annotated[int, msgspec.Meta(ge=-1, lt=1 << 62)]
_ABSENT = Raw(b"")


class _Data(msgspec.Struct, gc=False):
    """The fields that are read, of all kinds of events; a kind has some of them."""

    first: _Id = msgspec.field(name="U", default=-1)
    last: _Id = msgspec.field(name="u", default=-1)
    previous: _Id = msgspec.field(name="pu", default=-1)
    b: Raw = _ABSENT
    a: Raw = _ABSENT
    bid_quantity: Raw = msgspec.field(name="B", default=_ABSENT)
    ask_quantity: Raw = msgspec.field(name="A", default=_ABSENT)
    t: _Id = -1
    p: Raw = _ABSENT
    q: Raw = _ABSENT
    m: bool = False


class _Frame(msgspec.Struct, gc=False):
    stream: str = ""
    data: _Data | None = None
    last_update_id: _Id = msgspec.field(name="lastUpdateId", default=-1)
    bids: Raw = _ABSENT
    asks: Raw = _ABSENT
    symbol: str = ""


class _Kind(IntEnum):
    """What a stream carries."""

    IGNORED = 0
    DEPTH = 1
    TICKER = 2
    TRADE = 3
    AGGREGATE = 4


_KINDS = {
    "depth": _Kind.DEPTH,
    "bookTicker": _Kind.TICKER,
    "trade": _Kind.TRADE,
    "aggTrade": _Kind.AGGREGATE,
}


class _Gathered:
    """Frames of one batch between decoding and parsing of their numbers."""

    def __init__(self) -> None:
        self.pieces: list[bytes | Raw] = []
        self.instruments: list[int] = []  # of each piece
        self.updates: list[tuple[int, int, _Data]] = []  # time, first of two pieces, event
        self.ticks: list[tuple[int, int]] = []  # time, piece
        self.trades: list[tuple[int, int, int, int]] = []  # time, piece, trade id, side


class BinanceParser:
    """Turns frames into batches and keeps the books of all symbols in step.

    `counts` has what was taken and what was skipped and why: `frames`, `malformed` (not JSON, or not of the
    expected types), `inexact` (a price that is no multiple
    of the tick), `crossed` (bookTicker), `ignored` (streams that
    are not carried), `snapshots`, `unattributed` (snapshots of which it is not known whose they are).
    """

    def __init__(self, table: InstrumentTable, instruments: dict[str, Instrument]) -> None:
        """Parse for ``instruments``, by their name at the exchange."""
        self._decoder = msgspec.json.Decoder(_Frame)
        self._levels = LevelParser(table)
        self._instruments = instruments
        self._routes: dict[str, tuple[_Kind, int]] = {}
        self._trade_kinds: dict[int, _Kind] = {}
        self._last_prices = np.zeros(len(table), np.int64)
        self.syncs: dict[int, BinanceSync] = {}
        self.counts: Counter[str] = Counter()

    def parse(self, frames: Iterable[Frame], time: int) -> FeedBatch:
        """Take ``frames``, in order of their time; ``time`` becomes the batch's."""
        depth: list[NDArray[Any]] = []
        ticks: list[NDArray[Any]] = []
        trades: list[NDArray[Any]] = []
        gathered = _Gathered()
        for received, raw in frames:
            self.counts["frames"] += 1
            try:
                frame = self._decoder.decode(raw)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self.counts["malformed"] += 1
                continue
            if frame.data is not None:
                self._gather(gathered, received, frame.stream, frame.data)
            elif frame.last_update_id >= 0:
                self._finish(gathered, depth, ticks, trades)
                gathered = _Gathered()
                depth += self._snapshot(frame, received)
            else:
                self.counts["ignored"] += 1
        self._finish(gathered, depth, ticks, trades)
        return FeedBatch(
            time,
            depth=np.concatenate(depth) if depth else no_depth(),
            trades=np.concatenate(trades) if trades else no_trades(),
            ticks=np.concatenate(ticks) if ticks else no_ticks(),
        )

    @property
    def cut_quantities(self) -> int:
        """How many quantities were cut down to whole lots."""
        return self._levels.cut

    def wants_snapshot(self) -> list[str]:
        """Give the symbols whose book only a REST snapshot takes on."""
        names = {instrument.index: name for name, instrument in self._instruments.items()}
        return [names[index] for index, sync in self.syncs.items() if sync.wants_snapshot]

    def resync(self, instrument: int, time: int) -> list[NDArray[Any]]:
        """Give the book of ``instrument`` up and begin it anew; gives the GAP row, if it was live."""
        sync = self.syncs.get(instrument)
        return sync.lose(time) if sync else []

    def restart(self, time: int) -> FeedBatch:
        """Begin anew because the source does (a capture from its start, a new connection)."""
        rows = [row for sync in self.syncs.values() for row in sync.restart(time)]
        self._trade_kinds.clear()
        return FeedBatch(time, depth=np.concatenate(rows) if rows else no_depth())

    def state(self) -> FeedState:
        """Tell the worst state of the books seen so far; without any book, whether anything came."""
        states = {sync.state for sync in self.syncs.values()}
        if not states:
            return "live" if self.counts["frames"] else "syncing"
        if "gap" in states:
            return "gap"
        return "live" if states == {"live"} else "syncing"

    def _route(self, stream: str) -> tuple[_Kind, int]:
        route = self._routes.get(stream)
        if route is None:
            symbol, _, rest = stream.partition("@")
            kind = _KINDS.get(rest.partition("@")[0], _Kind.IGNORED)
            instrument = self._instruments.get(symbol.upper())
            route = (kind, instrument.index) if instrument else (_Kind.IGNORED, 0)
            if len(self._routes) < _MAX_ROUTES:
                self._routes[stream] = route
        return route

    def _gather(self, gathered: _Gathered, time: int, stream: str, data: _Data) -> None:
        kind, instrument = self._route(stream)
        pieces = gathered.pieces
        if kind == _Kind.TICKER:
            gathered.ticks.append((time, len(pieces)))
            pieces.append(b"[[%b,%b],[%b,%b]]" % (data.b, data.bid_quantity, data.a, data.ask_quantity))
            gathered.instruments.append(instrument)
        elif kind in (_Kind.TRADE, _Kind.AGGREGATE):
            if self._trade_kinds.setdefault(instrument, kind) != kind:
                self.counts["ignored"] += 1
                return
            number = data.t if kind == _Kind.TRADE else _integer(data.a)
            gathered.trades.append((time, len(pieces), number, Side.SELL if data.m else Side.BUY))
            pieces.append(b"[[%b,%b]]" % (data.p, data.q))
            gathered.instruments.append(instrument)
        elif kind == _Kind.DEPTH:
            gathered.updates.append((time, len(pieces), data))
            pieces += (data.b, data.a)
            gathered.instruments += (instrument, instrument)
        else:
            self.counts["ignored"] += 1

    def _finish(
        self,
        gathered: _Gathered,
        depth: list[NDArray[Any]],
        ticks: list[NDArray[Any]],
        trades: list[NDArray[Any]],
    ) -> None:
        if not gathered.pieces:
            return
        bounds, status = self._levels.parse(gathered.pieces, gathered.instruments)
        instruments = np.array(gathered.instruments, np.uint16)
        if gathered.ticks:
            ticks.append(self._tick_rows(gathered, instruments, bounds, status))
        if gathered.trades:
            trades.append(self._trade_rows(gathered, instruments, bounds, status))
        for time, piece, data in gathered.updates:
            depth += self._update(time, piece, data, gathered.instruments[piece], bounds, status)

    def _tick_rows(
        self, gathered: _Gathered, instruments: NDArray[Any], bounds: NDArray[Any], status: NDArray[Any]
    ) -> NDArray[Any]:
        times, pieces = np.array(gathered.ticks, np.int64).T
        good = self._good(status[pieces])
        times, pieces = times[good], pieces[good]
        at = bounds[pieces]
        prices, lots = self._levels.prices, self._levels.lots
        rows = np.zeros(len(pieces), TICK)
        rows["time"], rows["instrument"] = times, instruments[pieces]
        rows["bid"], rows["bid_quantity"] = prices[at], lots[at]
        rows["ask"], rows["ask_quantity"] = prices[at + 1], lots[at + 1]
        crossed = (rows["bid"] >= rows["ask"]) & (rows["ask"] > 0)
        if crossed.any():
            self.counts["crossed"] += int(crossed.sum())
            rows = rows[~crossed]
        self._last_prices[rows["instrument"]] = rows["bid"]
        return rows

    def _trade_rows(
        self, gathered: _Gathered, instruments: NDArray[Any], bounds: NDArray[Any], status: NDArray[Any]
    ) -> NDArray[Any]:
        times, pieces, numbers, sides = np.array(gathered.trades, np.int64).T
        good = self._good(status[pieces], numbers >= 0)
        times, pieces, numbers, sides = times[good], pieces[good], numbers[good], sides[good]
        at = bounds[pieces]
        rows = np.zeros(len(pieces), TRADE)
        rows["time"], rows["instrument"] = times, instruments[pieces]
        rows["trade_id"], rows["side"] = numbers, sides
        rows["price"], rows["quantity"] = self._levels.prices[at], self._levels.lots[at]
        empty = (rows["price"] == 0) | (rows["quantity"] == 0)
        if empty.any():
            self.counts["malformed"] += int(empty.sum())
            rows = rows[~empty]
        self._last_prices[rows["instrument"]] = rows["price"]
        return rows

    def _good(self, status: NDArray[Any], sound: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        good: NDArray[np.bool_] = status == PieceStatus.OK
        if sound is not None:
            good &= sound
        if not good.all():
            inexact = int((status == PieceStatus.INEXACT).sum())
            self.counts["inexact"] += inexact
            self.counts["malformed"] += len(good) - int(good.sum()) - inexact
        return good

    def _update(
        self, time: int, piece: int, data: _Data, instrument: int, bounds: NDArray[Any], status: NDArray[Any]
    ) -> list[NDArray[Any]]:
        sync = self.syncs.get(instrument)
        if sync is None:
            sync = self.syncs[instrument] = BinanceSync(instrument)
        rows = self._depth_rows(time, piece, instrument, bounds, status)
        if rows is None or not 0 <= data.first <= data.last:
            if rows is not None:
                self.counts["malformed"] += 1
            return sync.lose(time)
        return sync.on_update(Update(data.first, data.last, data.previous, rows), time)

    def _depth_rows(
        self, time: int, piece: int, instrument: int, bounds: NDArray[Any], status: NDArray[Any]
    ) -> NDArray[Any] | None:
        """Give the levels of the two pieces at ``piece`` (bids, asks); None where they are refused."""
        start, middle, end = bounds[piece : piece + 3].tolist()
        prices = self._levels.prices[start:end]
        bad = status[piece : piece + 2].max()
        if bad != PieceStatus.OK or (prices == 0).any():
            self.counts["inexact" if bad == PieceStatus.INEXACT else "malformed"] += 1
            return None
        rows = np.zeros(end - start, DEPTH)
        rows["time"], rows["instrument"] = time, instrument
        rows["price"], rows["quantity"] = prices, self._levels.lots[start:end]
        rows["side"][: middle - start], rows["side"][middle - start :] = Side.BUY, Side.SELL
        return rows

    def _snapshot(self, frame: _Frame, time: int) -> list[NDArray[Any]]:
        instrument = self._whose(frame)
        sync = None if instrument is None else self.syncs.get(instrument)
        if instrument is None or sync is None:
            self.counts["unattributed"] += 1
            return []
        bounds, status = self._levels.parse([frame.bids, frame.asks], [instrument, instrument])
        rows = self._depth_rows(time, 0, instrument, bounds, status)
        if rows is None:
            return []
        self.counts["snapshots"] += 1
        return sync.on_snapshot(frame.last_update_id, rows, time)

    def _whose(self, frame: _Frame) -> int | None:
        """Give the instrument that a snapshot is of: a REST answer itself does not say it."""
        if frame.symbol:
            named = self._instruments.get(frame.symbol.upper())
            return named.index if named else None
        if len(self.syncs) == 1 and len(self._routed()) == 1:
            return next(iter(self.syncs))
        waiting = [index for index, sync in self.syncs.items() if sync.wants_snapshot]
        distances = {index: self._distance(frame, index) for index in waiting}
        nearest = min(distances, key=distances.__getitem__, default=None)
        return nearest if nearest is not None and distances[nearest] < _NEAR else None

    def _routed(self) -> set[int]:
        return {index for kind, index in self._routes.values() if kind == _Kind.DEPTH}

    def _distance(self, frame: _Frame, instrument: int) -> float:
        """Give how far the best bid of a snapshot is from the last known price, as a fraction of it."""
        bounds, status = self._levels.parse([frame.bids], [instrument])
        known = int(self._last_prices[instrument])
        if status[0] != PieceStatus.OK or bounds[1] == 0 or not known:
            return 1.0
        return abs(int(self._levels.prices[0]) - known) / known


def _integer(raw: Raw) -> int:
    """Read the id of an aggTrade, -1 where it is none."""
    digits = bytes(raw)
    return int(digits) if digits.isdigit() and len(digits) < 19 else -1
