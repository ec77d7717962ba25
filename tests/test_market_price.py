"""The price service on a real server: what readers of rts:{0} get, restarts, the end of a feed, our own market."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.captures import Market
from tests.conftest import Valkey
from tests.test_market_book import Model, reader_takes
from tvops.engine.bus.packing import pack, unpack
from tvops.engine.bus.roles import Bus
from tvops.engine.bus.stream_reader import StreamReader
from tvops.engine.bus.stream_writer import StreamWriter
from tvops.engine.feeds.feed import Feed, FeedBatch
from tvops.engine.feeds.own import OwnFeed
from tvops.engine.feeds.select import make_feed
from tvops.engine.instruments import load_instruments
from tvops.engine.market.book import BookState
from tvops.engine.market.price import PriceService
from tvops.engine.market.publisher import MAX_PENDING, Publisher
from tvops.engine.records import DEPTH, DTYPES, TICK, TRADE, DepthFlag, RecordType, TickFlag
from tvops.settings import Settings

TABLE = load_instruments()
SNAPSHOT, FIRST, LAST, GAP = DepthFlag.SNAPSHOT, DepthFlag.FIRST, DepthFlag.LAST, DepthFlag.GAP


class Consumer:
    """Follows the published stream as any reader would."""

    def __init__(self, bus: Bus, start: Any = "oldest") -> None:
        self.reader = StreamReader(bus.market, "rts:{0}", start=start)
        self.books = [Model() for _ in TABLE.all]
        self.rows: dict[RecordType, list[Any]] = {record_type: [] for record_type in RecordType}
        self.ids: list[int] = []

    async def read(self) -> None:
        for major, _, blob in await self.reader.read(20):
            record_type, rows = unpack(blob)
            self.ids.append(major)
            self.rows[record_type].append(rows)
            if record_type == RecordType.DEPTH:
                reader_takes(rows, self.books)

    async def until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not done():
                await self.read()

    def all(self, record_type: RecordType) -> Any:
        """Give all rows of a type; one empty row where there are none."""
        return np.concatenate(self.rows[record_type] or [np.zeros(1, DTYPES[record_type])])


Starter = Callable[..., Awaitable[PriceService]]


@pytest_asyncio.fixture
async def start(bus: Bus) -> AsyncIterator[Starter]:
    started: list[PriceService] = []

    async def begin(given: Feed | None = None, /, **settings: Any) -> PriceService:
        chosen = Settings(batch_interval_ms=5, **settings)
        service = PriceService(chosen, bus, TABLE, given or make_feed(chosen, TABLE, bus))
        started.append(service)
        await service.start()
        return service

    yield begin
    for service in started:
        await service.stop()


def shown(book: dict[int, int], depth: int, best: int) -> list[list[int]]:
    return [list(level) for level in sorted(book.items(), reverse=best > 0)[:depth]]


async def test_readers_rebuild_the_visible_book(bus: Bus, start: Starter, tmp_path: Path) -> None:
    market = Market()
    lines = market.lines(150)
    market.update()  # lost: a gap until the snapshot
    lines += [market.update(), *(market.ticker() for _ in range(60)), market.snapshot()]
    for _ in range(50):
        lines += [market.update(), market.trade()]
    (tmp_path / "c").write_bytes(b"".join(lines))
    consumer = Consumer(bus)
    price = await start(feed=f"replay:{tmp_path / 'c'}", speed=2)
    changed, trades = [], []
    price.on_books(lambda books: changed.append(books.tolist()))
    price.on_trades(lambda rows: trades.append(len(rows)))
    await consumer.until(lambda: price.feed.state() == "ended")
    await consumer.until(lambda: bool(consumer.all(RecordType.TICK)["flags"][-1:] & TickFlag.STALE))
    count = TABLE[0].depth
    visible = (shown(market.bids, count, 1), shown(market.asks, count, -1))
    await consumer.until(lambda: consumer.books[0].levels(999) == visible)
    assert price.books.gaps[0] == 1
    depth_rows = consumer.all(RecordType.DEPTH)
    assert (depth_rows["flags"] & GAP > 0).sum() <= 1  # a busy machine may heal it between two writes
    ticks = consumer.all(RecordType.TICK)
    assert ((ticks["bid"] < ticks["ask"]) | (ticks["ask"] == 0)).all()
    assert {0, TickFlag.TRADE, TickFlag.STALE} <= set(ticks["flags"].tolist())
    public = consumer.all(RecordType.TRADE)
    assert len(public) == (ticks["flags"] & TickFlag.TRADE > 0).sum() == sum(trades) == market.trade_id
    assert [0] in changed
    assert consumer.ids == sorted(set(consumer.ids))
    await consumer.until(
        lambda: sum(bar["closed"] for bar in consumer.all(RecordType.BAR) if bar["interval"] == 1) > 0
    )
    closed = {
        (int(b["start"])): int(b["volume"])
        for b in consumer.all(RecordType.BAR)
        if b["interval"] == 1 and b["closed"]
    }
    assert sum(closed.values()) <= public["quantity"].sum()
    health = price.health()
    assert (health.state, "ended" in health.detail, "c" in health.detail) == ("degraded", True, True)
    stats = price.stats()
    assert (stats["feed"], stats["feed_state"], stats["gaps"], stats["crossed"]) == ("replay", "ended", 1, 0)
    assert stats["messages"] >= len(depth_rows)


async def test_synthetic_feed_makes_ticks_and_bars(bus: Bus, start: Starter) -> None:
    consumer = Consumer(bus)
    price = await start(feed="synthetic:1000", symbols=("SOL-USDT", "BTC-USDT"))
    await consumer.until(lambda: sum(map(len, consumer.rows[RecordType.TICK])) > 500)
    ticks = consumer.all(RecordType.TICK)
    assert set(ticks["instrument"].tolist()) == {0, 2}
    assert (np.diff(ticks["time"]) == 1_000_000).all()
    assert max(map(len, consumer.rows[RecordType.TICK])) <= 100
    await consumer.until(lambda: bool(consumer.rows[RecordType.BAR]))
    assert price.health().state == "ok"


class Scripted:
    """A feed of batches that the test gives."""

    name, has_trades = "scripted", True

    def __init__(self) -> None:
        self.queue: asyncio.Queue[FeedBatch] = asyncio.Queue()
        self.resyncs: list[int] = []

    def describe(self) -> str:
        return "scripted"

    def state(self) -> Any:
        return "live"

    def stats(self) -> dict[str, float | int | str]:
        return {}

    def resync(self, instrument: int) -> None:
        self.resyncs.append(instrument)

    async def batches(self) -> AsyncIterator[FeedBatch]:
        while True:
            yield await self.queue.get()


def depth(update: int, flags: int, *levels: tuple[int, int, int]) -> FeedBatch:
    rows = np.zeros(len(levels), DEPTH)
    rows["side"], rows["price"], rows["quantity"] = np.array(levels).T
    rows["update"], rows["flags"], rows["time"] = update, flags, update
    rows["flags"][0] |= FIRST
    rows["flags"][-1] |= LAST
    return FeedBatch(update, depth=rows)


async def test_a_crossing_update_is_a_visible_gap_and_asks_for_a_resync(bus: Bus, start: Starter) -> None:
    feed, consumer = Scripted(), Consumer(bus)
    price = await start(feed)
    feed.queue.put_nowait(depth(1, SNAPSHOT, (1, 10, 5), (2, 12, 5)))
    await consumer.until(lambda: consumer.books[0].state == BookState.LIVE)
    feed.queue.put_nowait(depth(2, 0, (1, 13, 5)))
    await consumer.until(lambda: consumer.books[0].state == BookState.GAP)
    assert feed.resyncs == [0]
    assert (price.health().state, price.stats()["feed_state"]) == ("degraded", "gap")
    feed.queue.put_nowait(depth(9, SNAPSHOT, (1, 10, 7), (2, 12, 5)))
    await consumer.until(lambda: consumer.books[0].state == BookState.LIVE)
    await consumer.until(lambda: consumer.all(RecordType.TICK)["flags"].tolist()[-1] == 0)
    assert TickFlag.STALE in consumer.all(RecordType.TICK)["flags"]
    assert consumer.books[0].levels(9) == ([[10, 7]], [[12, 5]])
    assert price.health().state == "ok"


async def test_late_readers_get_snapshots(bus: Bus, start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvops.engine.market.price.SNAPSHOT_SECONDS", 0.05)
    feed, early = Scripted(), Consumer(bus)
    await start(feed)
    feed.queue.put_nowait(depth(1, SNAPSHOT, (1, 10, 5), (2, 12, 5)))
    feed.queue.put_nowait(depth(2, 0, (1, 9, 5)))
    await early.until(lambda: len(early.books[0].levels(9)[0]) == 2)
    late = Consumer(bus, start="now")
    late.books[0].update = early.books[0].update
    await late.until(lambda: late.books[0].state == BookState.LIVE)
    assert late.books[0].levels(9) == early.books[0].levels(9)


async def test_a_failing_callback_is_told(bus: Bus, start: Starter) -> None:
    feed = Scripted()
    price = await start(feed)
    price.on_books(lambda books: 1 // 0)
    feed.queue.put_nowait(depth(1, SNAPSHOT, (1, 10, 5)))
    async with asyncio.timeout(60):
        while price.health().state != "failed":
            await asyncio.sleep(0.01)
    assert "ZeroDivisionError" in price.health().detail


async def test_survives_a_restart_of_the_market_server(valkey: Valkey, role_urls: dict[str, str]) -> None:
    bus = await Bus.connect(Settings(), {**role_urls, "market": valkey.url})
    feed = Scripted()
    price = PriceService(Settings(batch_interval_ms=5), bus, TABLE, feed)
    await price.start()
    try:
        feed.queue.put_nowait(depth(1, SNAPSHOT, (1, 10, 5), (2, 12, 5)))
        consumer = Consumer(bus)
        await consumer.until(lambda: consumer.books[0].state == BookState.LIVE)
        valkey.kill()
        feed.queue.put_nowait(depth(2, 0, (1, 9, 5)))
        trades = np.zeros(MAX_PENDING, TRADE)
        trades["price"], trades["time"], trades["quantity"] = 10, 10**18, 1
        async with asyncio.timeout(60):
            while not price.publisher.down:
                await asyncio.sleep(0.01)
        assert price.health().state == "degraded"
        feed.queue.put_nowait(FeedBatch(10**18, trades=trades))
        feed.queue.put_nowait(FeedBatch(10**18, trades=trades))
        async with asyncio.timeout(60):
            while not price.publisher.dropped:
                await asyncio.sleep(0.01)
        valkey.start()
        fresh = Consumer(bus)
        fresh.books[0].update = consumer.books[0].update
        await fresh.until(lambda: fresh.books[0].levels(9)[0] == [[10, 5], [9, 5]])
        await fresh.until(lambda: price.health().state == "ok")  # readers may hear of a write before its writer
    finally:
        if valkey.process and valkey.process.poll() is not None:
            valkey.start()
        await price.stop()
        await bus.close()


async def test_entries_of_depth_never_cut_an_update(client: Redis) -> None:
    publisher = Publisher(StreamWriter(client, "x:{0}", segment_span=10**7), 5, 100)
    rows = np.concatenate([depth(n, 0, *[(1, 1 + k, 1) for k in range(1500)]).depth for n in range(9)])
    publisher.add(RecordType.DEPTH, rows)
    publisher.add(RecordType.TICK, np.zeros(250, TICK))
    entries = [(major, *unpack(blob)) for major, _, blob in publisher._entries()]
    assert [len(part) for _, kind, part in entries if kind == RecordType.TICK] == [100, 100, 50]
    parts = [part for _, kind, part in entries if kind == RecordType.DEPTH]
    assert [len(part) for part in parts] == [3000, 3000, 3000, 3000, 1500]
    assert all(part["flags"][0] & FIRST and part["flags"][-1] & LAST for part in parts)
    ids = [major for major, _, _ in entries]
    assert ids == sorted(set(ids))


async def test_our_own_market_is_a_feed(bus: Bus, start: Starter) -> None:
    writer = StreamWriter(bus.market, "own:{0}", segment_span=10**7)
    mask = np.zeros(len(TABLE), bool)
    mask[0] = True
    feed, consumer = OwnFeed(bus, TABLE, mask, name="sim"), Consumer(bus)
    price = await start(feed)
    async with asyncio.timeout(60):
        while not feed._reader.position:  # it knows what "now" is
            await asyncio.sleep(0.01)
    number = 0

    async def write(*parts: tuple[RecordType, Any]) -> None:
        nonlocal number
        number += 10
        await writer.write([(number + n, 0, pack(rows, kind)) for n, (kind, rows) in enumerate(parts)])

    trade = np.zeros(2, TRADE)
    trade["price"], trade["quantity"], trade["instrument"], trade["time"] = 11, 3, (0, 1), 10**18
    other = depth(1, SNAPSHOT, (1, 10, 5)).depth
    other["instrument"] = 3
    await write((RecordType.DEPTH, depth(5, SNAPSHOT, (1, 10, 5), (2, 12, 5)).depth), (RecordType.DEPTH, other))
    await write((RecordType.TRADE, trade), (RecordType.DEPTH, depth(6, 0, (1, 11, 1)).depth))
    await consumer.until(lambda: consumer.books[0].levels(1)[0] == [[11, 1]])
    assert (feed.state(), price.health().state) == ("live", "ok")
    assert consumer.all(RecordType.TRADE)["instrument"].tolist() == [0]
    ticks = consumer.all(RecordType.TICK)
    assert set(ticks["instrument"].tolist()) == {0}
    assert {(10, 12), (11, 12)} <= set(ticks[["bid", "ask"]].tolist())
    await writer.write([(number + 9, 0, b"garbage that is no packed entry")])
    await consumer.until(lambda: consumer.books[0].state == BookState.GAP)
    assert (feed.state(), feed.stats()["damaged_entries"]) == ("gap", 1)
    await write((RecordType.DEPTH, depth(9, SNAPSHOT, (1, 8, 5), (2, 12, 5)).depth))
    await consumer.until(lambda: consumer.books[0].levels(1)[0] == [[8, 5]])
    assert feed.state() == "live"
