"""The documented book sync of Binance, spot and futures, and the frame parser."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.captures import Market, recorded
from tvops.engine.feeds.binance import BinanceParser
from tvops.engine.feeds.sync import MAX_BUFFERED_LEVELS, BinanceSync, Update
from tvops.engine.instruments import load_instruments
from tvops.engine.market.book import Books
from tvops.engine.records import DEPTH, DepthFlag

TABLE = load_instruments()


def rows(count: int = 1) -> Any:
    out = np.zeros(count, DEPTH)
    out["price"], out["side"] = np.arange(1, count + 1), 1
    return out


def update(first: int, last: int, previous: int = -1) -> Update:
    return Update(first, last, previous, rows())


def numbers(parts: list[Any]) -> list[tuple[int, int]]:
    return [(int(part["update"][0]), int(part["flags"][0]) & ~6) for part in parts]


SNAPSHOT, GAP = int(DepthFlag.SNAPSHOT), int(DepthFlag.GAP)


@pytest.mark.parametrize("futures", [False, True])
def test_buffered_updates_follow_the_snapshot(futures: bool) -> None:
    sync = BinanceSync(0)
    run = [(5, 8, 4), (9, 12, 8), (13, 15, 12)]
    for first, last, previous in run:
        assert sync.on_update(update(first, last, previous if futures else -1), 1) == []
    assert sync.wants_snapshot
    assert numbers(sync.on_snapshot(10, rows(), 2)) == [(1, SNAPSHOT), (2, 0), (3, 0)]
    assert not sync.wants_snapshot
    assert numbers(sync.on_update(update(16, 17, 15 if futures else -1), 3)) == [(4, 0)]
    assert sync.on_update(update(16, 17, 15 if futures else -1), 3) == []
    assert sync.stale == 1


@pytest.mark.parametrize("futures", [False, True])
def test_a_lost_update_is_a_gap_until_the_next_snapshot(futures: bool) -> None:
    sync = BinanceSync(0)
    sync.on_snapshot(10, rows(), 1)
    assert numbers(sync.on_update(update(11, 12, 10 if futures else -1), 1)) == [(2, 0)]
    assert numbers(sync.on_update(update(15, 16, 14 if futures else -1), 2)) == [(2, GAP)]
    assert (sync.state, sync.gaps, sync.wants_snapshot) == ("gap", 1, True)
    assert sync.on_update(update(17, 18, 16 if futures else -1), 3) == []
    assert sync.on_snapshot(9, rows(), 4) == []
    assert sync.refused_snapshots == 1
    assert numbers(sync.on_snapshot(15, rows(), 4)) == [(3, SNAPSHOT), (4, 0), (5, 0)]
    assert sync.state == "live"


def test_futures_snapshot_between_two_updates() -> None:
    sync = BinanceSync(0)
    sync.on_update(update(5, 8, 4), 1)
    sync.on_update(update(12, 14, 8), 1)
    assert numbers(sync.on_snapshot(10, rows(), 2)) == [(1, SNAPSHOT), (2, 0)]


def test_a_hole_in_the_buffer_makes_what_is_before_it_useless() -> None:
    sync = BinanceSync(0)
    sync.on_update(update(5, 8), 1)
    sync.on_update(update(12, 14), 1)
    assert sync.on_snapshot(6, rows(), 2) == []
    assert numbers(sync.on_snapshot(12, rows(), 2)) == [(1, SNAPSHOT), (2, 0)]


def test_the_buffer_is_bounded() -> None:
    sync = BinanceSync(0)
    for n in range(200):
        sync.on_update(Update(n + 1, n + 1, -1, rows(1000)), 1)
    assert sync._buffered <= MAX_BUFFERED_LEVELS
    assert sync.on_snapshot(3, rows(), 2) == []
    assert len(sync.on_snapshot(190, rows(), 2)) == 11


def test_empty_updates_and_snapshots() -> None:
    sync = BinanceSync(3)
    first = sync.on_snapshot(10, rows(0), 1)[0]
    assert first[["price", "instrument", "flags"]].tolist() == [(0, 3, 7)]
    assert sync.on_update(Update(11, 11, -1, rows(0)), 2) == []
    assert numbers(sync.on_update(update(12, 12), 2)) == [(2, 0)]


def lines_of(raw: list[bytes]) -> list[tuple[int, bytes]]:
    return [(int(line.partition(b" ")[0]), line.partition(b" ")[2]) for line in raw]


def run(lines: list[bytes], chunk: int = 7) -> tuple[BinanceParser, Books, int]:
    """Parse lines; give the parser, the books, and the number of DEPTH rows with GAP."""
    parser, books, gaps = BinanceParser(TABLE, TABLE.by_feed("binance")), Books(len(TABLE)), 0
    frames = lines_of(lines)
    for start in range(0, len(frames), chunk):
        batch = parser.parse(frames[start : start + chunk], 0)
        books.apply(batch.depth)
        gaps += int((batch.depth["flags"] & DepthFlag.GAP > 0).sum())
        assert not books.crossed.any()
    return parser, books, gaps


def same(books: Books, index: int, market: Market) -> bool:
    bids, asks = books.levels(index, 999)
    return dict(bids.tolist()) == market.bids and dict(asks.tolist()) == market.asks


@pytest.mark.parametrize("futures", [False, True])
def test_book_of_a_made_capture(futures: bool) -> None:
    market = Market(futures=futures)
    parser, books, gaps = run(market.lines(200))
    assert (parser.state(), gaps) == ("live", 0)
    assert same(books, 0, market)
    assert books.live(0)


@pytest.mark.parametrize("futures", [False, True])
@pytest.mark.parametrize("damage", ["lost", "garbled", "inexact", "negative"])
def test_a_gap_heals_at_the_next_snapshot(futures: bool, damage: str) -> None:
    market = Market(futures=futures)
    lines = market.lines(20)
    bad = market.update()
    broken = {
        "lost": [],
        "garbled": [bad[:-20] + b"\n"],
        "inexact": [bad.replace(b'"b":[', b'"b":[["1.001","1"],').replace(b"],]", b"]]")],
        "negative": [bad.replace(b'"a":[', b'"a":[["-1","1"],').replace(b"],]", b"]]")],
    }[damage]
    lines += [*broken, market.update(), market.update(), market.ticker()]
    parser, books, gaps = run(lines)
    assert (parser.state(), gaps, parser.wants_snapshot()) == ("gap", 1, ["BTCUSDT"])
    assert not books.live(0)
    lines += [market.snapshot(), market.update(), market.update()]
    parser, books, gaps = run(lines)
    assert (parser.state(), gaps, parser.wants_snapshot()) == ("live", 1, [])
    assert same(books, 0, market)


def test_several_symbols_in_one_capture() -> None:
    markets = [Market("BTCUSDT"), Market("ETHUSDT", futures=False, seed=2, middle=250_000)]
    lines = []
    for market in markets:
        lines += [market.update(), market.ticker(), market.update()]
    for market in reversed(markets):
        lines += [market.snapshot(), market.update()]
    for _ in range(20):
        lines += [market.update() for market in markets]
    parser, books, _ = run(lines)
    assert parser.state() == "live"
    assert parser.counts["unattributed"] == 0
    # ETH lots are 0.0001: the lots of its book are a tenth, cut down
    markets[1].bids = {price: lots // 10 for price, lots in markets[1].bids.items() if lots >= 10}
    markets[1].asks = {price: lots // 10 for price, lots in markets[1].asks.items() if lots >= 10}
    assert [same(books, i, market) for i, market in enumerate(markets)] == [True, True]


def test_frames_become_ticks_and_trades() -> None:
    market = Market()
    parser = BinanceParser(TABLE, TABLE.by_feed("binance"))
    aggregate = market.stream("aggTrade", {"a": 9, "p": "1", "q": "1", "m": False})
    lines = [market.ticker(), market.trade(7), market.trade(8, buyer_is_maker=True), aggregate]
    batch = parser.parse(lines_of(lines), 5)
    bid, ask = max(market.bids), min(market.asks)
    assert batch.ticks[["bid", "ask", "instrument"]].tolist() == [(bid, ask, 0)]
    assert batch.trades[["price", "quantity", "side", "trade_id"]].tolist() == [(ask, 7, 1, 1), (bid, 8, 2, 2)]
    assert batch.time == 5
    assert parser.counts["ignored"] == 1


GARBAGE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe{}",
    b'{"stream":"\xff@trade","data":{}}',
    b'{"stream":"btcusdt@trade","data":{"t":1,"p":"NaN","q":"1"}}',
    b'{"stream":"btcusdt@trade","data":{"t":1,"p":"-5","q":"1"}}',
    b'{"stream":"btcusdt@trade","data":{"t":1,"p":"5","q":"0"}}',
    b'{"stream":"btcusdt@trade","data":{"t":-3,"p":"5","q":"1"}}',
    b'{"stream":"btcusdt@trade","data":{"t":99999999999999999999,"p":"5","q":"1"}}',
    b'{"stream":"btcusdt@trade","data":{"p":5,"q":1,"t":1}}',
    b'{"stream":"btcusdt@trade","data":{}}',
    b'{"stream":"btcusdt@trade","data":[]}',
    b'{"stream":5,"data":{}}',
    b'{"stream":"btcusdt@bookTicker","data":{"b":"6","B":"1","a":"5","A":"1"}}',
    b'{"stream":"btcusdt@bookTicker","data":{"b":[],"B":"1","a":"5","A":"1"}}',
    b'{"stream":"btcusdt@depth","data":{"U":5,"u":3,"b":[],"a":[]}}',
    b'{"stream":"btcusdt@depth","data":{"U":"5","u":6,"b":[],"a":[]}}',
    b'{"stream":"btcusdt@depth","data":{"U":5,"u":6,"b":{},"a":[]}}',
    b'{"stream":"btcusdt@depth","data":{"U":5,"u":6}}',
    b'{"stream":"btcusdt@depth20","data":{"lastUpdateId":5,"bids":[],"asks":[]}}',
    b'{"stream":"nousdt@trade","data":{"t":1,"p":"5","q":"1"}}',
    b'{"stream":"@@@","data":{}}',
    b'{"lastUpdateId":7,"bids":"x","asks":[]}',
    b'{"lastUpdateId":7,"bids":[["5","1"]],"asks":[],"symbol":"NOUSDT"}',
    b'{"lastUpdateId":-7,"bids":[],"asks":[]}',
    b"[" * 100_000,
]


def test_garbage_is_counted_and_skipped() -> None:
    parser = BinanceParser(TABLE, TABLE.by_feed("binance"))
    for frame in GARBAGE:
        batch = parser.parse([(1, frame)], 1)
        assert not len(batch.trades) + len(batch.ticks) + len(batch.depth), frame
    counted = sum(parser.counts[name] for name in ("malformed", "inexact", "crossed", "ignored", "unattributed"))
    assert counted >= len(GARBAGE) - 1
    market = Market()
    batch = parser.parse(lines_of([market.ticker(), market.trade()]), 1)
    assert (len(batch.ticks), len(batch.trades)) == (1, 1)


def test_memory_of_stream_names_is_bounded() -> None:
    parser = BinanceParser(TABLE, TABLE.by_feed("binance"))
    parser.parse([(1, b'{"stream":"x%d@trade","data":{}}' % n) for n in range(5000)], 1)
    assert len(parser._routes) <= 1024


CAPTURES = ["usdm_btcusdt_20240808.gz", "spot_btcusdt_20240808.gz"]


class Rebuild:
    """The documented procedure once more, with dictionaries and Decimal; `skip_buffer` leaves a step out."""

    def __init__(self, skip_buffer: bool = False) -> None:
        self.skip_buffer = skip_buffer
        self.books: dict[str, dict[int, int]] = {"b": {}, "a": {}}
        self.buffer: list[dict[str, Any]] = []
        self.synced = False
        self.crossed = 0

    def take(self, frame: bytes) -> None:
        message = json.loads(frame)
        if "lastUpdateId" in message:
            self.load(message)
        elif "@depth" in message["stream"]:
            if self.synced:
                self.apply(message["data"])
            elif not self.skip_buffer:
                self.buffer.append(message["data"])

    def load(self, message: dict[str, Any]) -> None:
        self.synced = True
        self.apply({"b": message["bids"], "a": message["asks"]})
        for data in self.buffer:
            if data["u"] > message["lastUpdateId"]:
                self.apply(data)

    def apply(self, data: dict[str, Any]) -> None:
        for side in "ba":
            for price, quantity in data[side]:
                ticks, lots = int(Decimal(price) * 100), int(Decimal(quantity) * 100_000)
                self.books[side].pop(ticks, None)
                if lots:
                    self.books[side][ticks] = lots
        self.crossed += max(self.books["b"]) >= min(self.books["a"])


def lines_with_depth(path: Path) -> list[bytes]:
    """Read a capture without its tickers, which take most of the time of a slow rebuild."""
    with gzip.open(path) as file:
        return [line for line in file if b"@bookTicker" not in line[:60]]


@pytest.mark.parametrize("name", CAPTURES)
def test_recorded_book_equals_an_independent_rebuild(name: str) -> None:
    frames = lines_of(lines_with_depth(recorded(name)))[:9000]
    parser, books, rebuild = BinanceParser(TABLE, TABLE.by_feed("binance")), Books(len(TABLE)), Rebuild()
    cuts = {500, 1500, 4000, 7000, len(frames)}
    checked = 0
    for n, frame in enumerate(frames, 1):
        rebuild.take(frame[1])
        if n in cuts:
            books.apply(parser.parse(frames[checked:n], 0).depth)
            checked = n
            bids, asks = books.levels(0, 99_999)
            assert dict(bids.tolist()) == rebuild.books["b"]
            assert dict(asks.tolist()) == rebuild.books["a"]
            assert books.live(0)
    assert (rebuild.crossed, books.crossed[0], books.gaps[0]) == (0, 0, 0)


@pytest.mark.parametrize("name", CAPTURES)
def test_recorded_book_never_crosses(name: str) -> None:
    with gzip.open(recorded(name)) as file:
        lines = file.readlines()
    parser, books, gaps = run(lines, chunk=500)
    assert (parser.state(), gaps, books.crossed[0], books.live(0)) == ("live", 0, 0, True)
    assert parser.counts["malformed"] + parser.counts["inexact"] == 0


def test_without_the_buffered_updates_the_spot_book_crosses() -> None:
    rebuild = Rebuild(skip_buffer=True)
    for _, frame in lines_of(lines_with_depth(recorded(CAPTURES[1])))[:3000]:
        rebuild.take(frame)
    assert rebuild.crossed > 100
