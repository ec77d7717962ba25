"""The price service: a feed in, books, ticks, trades and bars out to `rts:{0}`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from tvops.engine.bus.roles import Bus
from tvops.engine.bus.stream_writer import StreamWriter
from tvops.engine.feeds.feed import Feed, FeedBatch, FeedState
from tvops.engine.feeds.select import make_feed
from tvops.engine.instruments import InstrumentTable
from tvops.engine.market.bars import Bars
from tvops.engine.market.book import Books, BookState
from tvops.engine.market.publisher import Publisher
from tvops.engine.market.significance import TickFilter
from tvops.engine.market.window import Windows
from tvops.engine.records import RecordType
from tvops.engine.services import Health, end_tasks
from tvops.engine.telemetry.stages import Stages
from tvops.errors import ServerError
from tvops.settings import Settings

RTS_PREFIX = "rts:{0}"
SNAPSHOT_SECONDS = 5.0
"""Time between two published snapshots of each book."""

SYNC_SECONDS = 10.0
"""From here on a feed that is still syncing counts as degraded."""

logger = logging.getLogger(__name__)

TradesCallback = Callable[[NDArray[Any]], None]
BooksCallback = Callable[[NDArray[np.int64]], None]

__all__ = ["PriceService", "make_feed"]


class PriceService:
    """Runs a feed, keeps its books, and publishes what is significant."""

    name = "price"

    def __init__(
        self, settings: Settings, bus: Bus, table: InstrumentTable, feed: Feed, stages: Stages | None = None
    ) -> None:
        """Publish ``feed`` to the market role of ``bus``; latencies go to ``stages``."""
        self.feed = feed
        self.books = Books(len(table))
        self._filter = TickFilter(np.array([i.significance for i in table.all], np.int64))
        self._bars = Bars(len(table))
        self._windows = Windows(np.array([i.depth for i in table.all], np.int64))
        writer = StreamWriter(bus.market, RTS_PREFIX, segment_span=settings.segment_seconds * 1_000_000)
        self.publisher = Publisher(writer, settings.batch_interval_ms, settings.max_batch_size)
        if stages is not None:
            stages.adopt("feed_to_publish", self.publisher.waiting)
        self._stats_interval = settings.stats_interval_seconds
        self._changed = np.zeros(len(table), np.bool_)
        self._reached = 0
        self._snapshots_due = 0.0
        self._trade_callbacks: list[TradesCallback] = []
        self._book_callbacks: list[BooksCallback] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._failure = ""
        self._syncing_since = time.monotonic()
        self._ticks = self._trades = self._depth = 0
        self._rate = 0.0

    def on_trades(self, callback: TradesCallback) -> None:
        """Have ``callback`` called with the TRADE rows of each batch of the feed."""
        self._trade_callbacks.append(callback)

    def on_books(self, callback: BooksCallback) -> None:
        """Have ``callback`` called with the instruments (indices) whose book a batch of the feed changed."""
        self._book_callbacks.append(callback)

    async def start(self) -> None:
        """Begin to publish.

        Raises:
            ServerError: the market server does not answer.
        """
        try:
            await self.publisher.open()
        except (RedisError, OSError) as error:
            raise ServerError(f"market server: {error}") from None
        logger.info("feed: %s", self.feed.describe())
        for work in (self._consume(), self.publisher.run(self._gather), self._report()):
            task = asyncio.create_task(work)
            task.add_done_callback(self._note_end)
            self._tasks.append(task)

    async def stop(self) -> None:
        """Stop publishing."""
        await end_tasks(self._tasks)
        self._tasks.clear()

    def health(self) -> Health:
        """Tell whether prices are live, and which feed they come from."""
        state, told = self._feed_state(), self.feed.describe()
        if self._failure:
            return Health("failed", f"{told}: {self._failure}")
        if not self._tasks:
            return Health("starting", told)
        if self.publisher.down:
            return Health("degraded", f"{told}: the market server is away")
        if state == "gap":
            return Health("degraded", f"{told}: a book has a gap and waits for a snapshot")
        if state == "ended":
            return Health("degraded", f"{told}: ended; prices are the last known ones")
        if state == "syncing" and time.monotonic() - self._syncing_since > SYNC_SECONDS:
            return Health("degraded", f"{told}: a book still waits for its first snapshot")
        return Health("ok", f"{told}: {state}")

    def stats(self) -> dict[str, float | int | str]:
        """Give the figures of the feed, the books and what was published."""
        writer = self.publisher.writer
        return {
            "feed": self.feed.name,
            "feed_state": self._feed_state(),
            "ticks": self._ticks,
            "trades": self._trades,
            "depth_records": self._depth,
            "ticks_per_s": round(self._rate, 1),
            "gaps": int(self.books.gaps.sum()),
            "crossed": int(self.books.crossed.sum()),
            "levels_dropped": int(self.books.dropped.sum()),
            "late_trades": self._bars.late,
            "messages": writer.records,
            "writes": writer.writes,
            "batches": self.publisher.batches,
            "avg_batch_size": round(writer.records / max(1, self.publisher.batches), 1),
            "compression_ratio": _ratio(writer.raw_bytes, writer.packed_bytes),
            "dropped": self.publisher.dropped,
            "write_failures": self.publisher.failures,
            **{f"feed_{name}": value for name, value in self.feed.stats().items()},
        }

    def _feed_state(self) -> FeedState:
        state = self.feed.state()
        if state == "live" and (self.books.states == BookState.GAP).any():
            return "gap"
        return state

    async def _consume(self) -> None:
        async for batch in self.feed.batches():
            self._take(batch)
        self._mark_stale(np.arange(len(self.books)), True, time.time_ns())
        logger.warning("feed: %s has ended; prices are the last known ones", self.feed.describe())

    def _take(self, batch: FeedBatch) -> None:
        """Bring everything up to date with a batch; the rows are published by the publisher's own pace."""
        received = time.monotonic_ns()
        before = self.books.states == BookState.LIVE
        tops = self.books.apply(batch.depth)
        now = self.books.states == BookState.LIVE
        ticks = self._filter.select(batch.ticks, tops, batch.trades)
        self._publish(RecordType.TRADE, batch.trades, received)
        self._publish(RecordType.TICK, ticks, received)
        self._depth += len(batch.depth)
        if (before != now).any():
            self._note_states(np.flatnonzero(before & ~now), np.flatnonzero(now & ~before), batch.time)
        if self.feed.has_trades:
            self._bars.add_trades(batch.trades)
        else:
            self._bars.add_mids(ticks)
        self._reached = max(self._reached, batch.time)
        self._changed |= self.books.changed
        self._tell(batch.trades)

    def _note_states(self, lost: NDArray[np.int64], found: NDArray[np.int64], time_ns: int) -> None:
        for instrument in lost.tolist():
            self.feed.resync(instrument)
        self._mark_stale(lost, True, time_ns)
        self._mark_stale(found, False, time_ns)
        self._syncing_since = time.monotonic()

    def _mark_stale(self, instruments: NDArray[np.int64], stale: bool, time_ns: int) -> None:
        self._publish(RecordType.TICK, self._filter.mark(instruments, stale, time_ns))

    def _publish(self, record_type: RecordType, rows: NDArray[Any], received: int | None = None) -> None:
        self.publisher.add(record_type, rows, received)
        self._ticks += len(rows) if record_type == RecordType.TICK else 0
        self._trades += len(rows) if record_type == RecordType.TRADE else 0

    def _tell(self, trades: NDArray[Any]) -> None:
        if self._book_callbacks and self.books.changed.any():
            changed = np.flatnonzero(self.books.changed)
            for books_callback in self._book_callbacks:
                books_callback(changed)
        if self._trade_callbacks and len(trades):
            for trades_callback in self._trade_callbacks:
                trades_callback(trades)

    def _gather(self, recovered: bool) -> None:
        """Add the depth and the bars of one batch interval."""
        now = time.time_ns()
        due = recovered or time.monotonic() >= self._snapshots_due
        if due:
            self._snapshots_due = time.monotonic() + SNAPSHOT_SECONDS
        snapshots = np.full(len(self.books), due)
        rows = self._windows.publish(self.books, self._changed, snapshots, now)
        self._changed &= self.books.applying
        self.publisher.add(RecordType.DEPTH, rows)
        reached = now if self.feed.state() == "ended" else self._reached
        self.publisher.add(RecordType.BAR, self._bars.collect(reached))

    async def _report(self) -> None:
        """Keep the tick rate, and log one line every interval."""
        writer, seen, messages, writes = self.publisher.writer, self._ticks, 0, 0
        begun = told = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            self._rate, seen, begun = (self._ticks - seen) / (now - begun), self._ticks, now
            if now - told >= self._stats_interval:
                logger.info(
                    "price: %d messages in %d writes in %.0f s, compression %.2f:1, feed %s, %d gaps, %d dropped",
                    writer.records - messages, writer.writes - writes, now - told,
                    _ratio(writer.raw_bytes, writer.packed_bytes), self._feed_state(),
                    int(self.books.gaps.sum()), self.publisher.dropped,
                )  # fmt: skip
                told, messages, writes = now, writer.records, writer.writes

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = f"{type(error).__name__}: {error}"
            logger.error("price service: a part of it failed", exc_info=error)


def _ratio(raw: int, packed: int) -> float:
    return round(raw / packed, 2) if packed else 1.0
