"""Takes market data off the bus: keeps the state that sessions start from and says what is new per topic."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tvops.engine.bus.packing import PackingError, unpack
from tvops.engine.market.book import Books
from tvops.engine.records import DEPTH, DepthFlag, RecordType, Side
from tvops.engine.stream.frames import FrameFlag
from tvops.engine.stream.history import BAR_CAPACITY, DEPTHS, Bars, Channel, Topic, Topics, split

BOOK_CAPACITY = 2048
CONFLATED_TRADES = 512
CONFLATED_BARS = 300
"""How much of the past a conflated session is given, at most."""

_RECORD_TYPES = (RecordType.TICK, RecordType.TRADE, RecordType.DEPTH, RecordType.BAR)
_NOT_DELTA = int(DepthFlag.SNAPSHOT | DepthFlag.GAP)
_NO_DEPTH: NDArray[Any] = np.empty(0, DEPTH)

logger = logging.getLogger(__name__)


class Update(NamedTuple):
    """What one topic has new."""

    topic: Topic
    rows: NDArray[Any]
    sequence: int  # number of the last of the rows
    flags: int = 0  # FrameFlag
    missed: int = 0  # records before the rows that were left out (CONFLATED)


class Intake:
    """The market as the stream tells it: books, bars, and every topic's newest records."""

    def __init__(self, instruments: int) -> None:
        self.topics = Topics(instruments)
        self.books = Books(instruments, BOOK_CAPACITY)
        self.bars = {
            (instrument, interval): Bars(capacity)
            for instrument in range(instruments)
            for interval, capacity in BAR_CAPACITY.items()
        }
        self.records = self.ticks = self.damaged = self.gaps = 0
        self._instruments = instruments
        self._times = [0] * instruments  # ns, of the newest book update
        self._unfinished = [_NO_DEPTH] * instruments  # rows of a book update whose last row is still to come

    def take(self, blobs: Iterable[bytes]) -> list[Update]:
        """Apply packed entries in order; give what is new, ticks, trades, book and bars, each in order."""
        gathered: dict[RecordType, list[NDArray[Any]]] = {record_type: [] for record_type in _RECORD_TYPES}
        updates: list[Update] = []
        for blob in blobs:
            try:
                record_type, rows = unpack(blob)
            except PackingError as error:
                if not self.damaged:
                    logger.error("an entry of the market stream cannot be read and is left out: %s", error)
                self.damaged += 1
                updates += self._take_gathered(gathered)
                updates += self.interrupt()
                continue
            if record_type in gathered:
                gathered[record_type].append(rows)
                self.records += len(rows)
        return updates + self._take_gathered(gathered)

    def interrupt(self) -> list[Update]:
        """Note that entries were lost: books wait for their next snapshot, and every topic tells of the gap."""
        self.gaps += 1
        for topic in self.topics.all:
            if topic.channel is not Channel.BOOK:
                topic.interrupt()
        live = [n for n in range(self._instruments) if self.books.live(n)]
        gaps = np.zeros(len(live), DEPTH)
        gaps["instrument"], gaps["flags"] = live, DepthFlag.GAP
        self.books.apply(gaps)
        return [update for instrument in live for update in self._invalidate(instrument)]

    def state(self, topic: Topic, history: int) -> Update:
        """Tell the present state of ``topic`` to somebody who knows nothing, with ``history`` trades or bars."""
        flags = int(FrameFlag.SNAPSHOT)
        if topic.channel is Channel.TICKS:
            rows = topic.ring.newest(1)
        elif topic.channel is Channel.TRADES:
            rows = topic.ring.newest(history)
        elif topic.channel is Channel.BARS:
            rows = self.bars[topic.instrument, topic.interval].newest(history)
        elif self.books.live(topic.instrument):
            rows = self._levels(topic.instrument, topic.depth or BOOK_CAPACITY)
        else:
            rows, flags = _NO_DEPTH, int(FrameFlag.GAP)
        return Update(topic, rows, topic.ring.sequence, flags)

    def missed(self, topic: Topic, sequence: int) -> Update | None:
        """Tell every record after number ``sequence``; None where they are not all here any more."""
        if topic.channel is Channel.BOOK and (topic.depth or not self.books.live(topic.instrument)):
            return None
        rows = topic.ring.since(sequence)
        return None if rows is None else Update(topic, rows, topic.ring.sequence)

    def conflated(self, topic: Topic, sequence: int) -> Update:
        """Bring somebody who knows everything up to number ``sequence`` to the newest state, in few records."""
        if topic.channel is Channel.BOOK:
            update = self.state(topic, 0)
        else:
            rows = topic.ring.since(sequence)
            if topic.channel is Channel.TICKS:
                rows = topic.ring.newest(1)
            elif topic.channel is Channel.TRADES:
                rows = topic.ring.newest(CONFLATED_TRADES) if rows is None else rows[-CONFLATED_TRADES:]
            elif rows is None:
                rows = self.bars[topic.instrument, topic.interval].newest(CONFLATED_BARS)
            else:
                _, last = np.unique(rows["start"][::-1], return_index=True)
                rows = rows[::-1][last]
            flags = int(FrameFlag.GAP) if topic.interrupted_at > sequence else 0
            update = Update(topic, rows, topic.ring.sequence, flags)
        missed = update.sequence - sequence - (0 if update.flags & FrameFlag.SNAPSHOT else len(update.rows))
        if missed <= 0:
            return update
        return update._replace(flags=update.flags | FrameFlag.CONFLATED, missed=missed)

    def _take_gathered(self, gathered: dict[RecordType, list[NDArray[Any]]]) -> list[Update]:
        updates: list[Update] = []
        for record_type, batches in gathered.items():
            if batches:
                rows = np.concatenate(batches) if len(batches) > 1 else batches[0]
                updates.extend(self._take_rows(record_type, rows))
                batches.clear()
        return updates

    def _take_rows(self, record_type: RecordType, rows: NDArray[Any]) -> Iterable[Update]:
        if record_type is RecordType.DEPTH:
            return self._take_depth(rows)
        if record_type is RecordType.BAR:
            return self._take_bars(rows)
        channel = Channel.TRADES if record_type is RecordType.TRADE else Channel.TICKS
        if channel is Channel.TICKS:
            self.ticks += len(rows)
        return [
            _extend(self.topics.find(channel, instrument), own)
            for instrument, own in split(rows, self._instruments)
        ]

    def _take_bars(self, rows: NDArray[Any]) -> list[Update]:
        updates = []
        for interval in BAR_CAPACITY:
            for instrument, own in split(rows[rows["interval"] == interval], self._instruments):
                self.bars[instrument, interval].take(own)
                updates.append(_extend(self.topics.find(Channel.BARS, instrument, interval), own))
        return updates

    def _take_depth(self, rows: NDArray[Any]) -> list[Update]:
        updates, gaps = self.books.updates.copy(), self.books.gaps.copy()
        live_before = [self.books.live(n) for n in range(self._instruments)]
        # a copy, because the kernel is compiled for writable rows
        self.books.apply(rows.copy())
        made: list[Update] = []
        for instrument, own in split(rows, self._instruments):
            topic = self.topics.find(Channel.BOOK, instrument)
            self._times[instrument] = int(own["time"][-1])
            if not self.books.live(instrument):
                made += self._invalidate(instrument) if live_before[instrument] else []
                continue
            unbroken = live_before[instrument] and gaps[instrument] == self.books.gaps[instrument]
            deltas = self._deltas(instrument, own, int(updates[instrument])) if unbroken else None
            if deltas is None:
                self._unfinished[instrument] = _NO_DEPTH
                made.append(self._restart(topic))
            elif len(deltas):
                made.append(_extend(topic, deltas))
            made += self._limited(instrument)
        return made

    def _deltas(self, instrument: int, rows: NDArray[Any], before: int) -> NDArray[Any] | None:
        """Give the rows of the applied updates after number ``before``; None where they are not all here."""
        after = int(self.books.updates[instrument])
        rows = rows[rows["flags"] & _NOT_DELTA == 0]
        rows = np.concatenate((self._unfinished[instrument], rows))
        rows = rows[rows["update"] > before]
        finished = rows["update"] <= after
        self._unfinished[instrument] = rows[~finished]
        rows = rows[finished]
        ends = int(np.count_nonzero(rows["flags"] & DepthFlag.LAST))
        return rows if ends == after - before else None

    def _restart(self, topic: Topic) -> Update:
        """Start the numbering of a book's deltas over with a snapshot."""
        flags = int(FrameFlag.SNAPSHOT)
        if topic.ring.sequence:
            flags |= FrameFlag.GAP
        topic.ring.interrupt()
        return Update(topic, self._levels(topic.instrument, BOOK_CAPACITY), topic.ring.sequence, flags)

    def _invalidate(self, instrument: int) -> list[Update]:
        """Tell that the book holds no more until its next snapshot."""
        self._unfinished[instrument] = _NO_DEPTH
        made = []
        for depth in (0, *DEPTHS):
            topic = self.topics.find(Channel.BOOK, instrument, depth=depth)
            topic.ring.interrupt()
            made.append(Update(topic, _NO_DEPTH, topic.ring.sequence, int(FrameFlag.GAP)))
        return made

    def _limited(self, instrument: int) -> list[Update]:
        """Give the books of limited depth that somebody wants and that are not as they were."""
        made = []
        for depth in DEPTHS:
            topic = self.topics.find(Channel.BOOK, instrument, depth=depth)
            if not any(topic.subscribers):
                topic.shown = b""
                continue
            rows = self._levels(instrument, depth)
            shown = rows["price"].tobytes() + rows["quantity"].tobytes() + rows["side"].tobytes()
            if shown != topic.shown:
                topic.shown = shown
                topic.ring.interrupt()
                made.append(Update(topic, rows, topic.ring.sequence, int(FrameFlag.SNAPSHOT)))
        return made

    def _levels(self, instrument: int, depth: int) -> NDArray[Any]:
        """Give the best levels as the DEPTH rows of a snapshot, bids first, best first."""
        bids, asks = self.books.levels(instrument, depth)
        rows = np.zeros(len(bids) + len(asks), DEPTH)
        rows["price"][: len(bids)], rows["quantity"][: len(bids)] = bids[:, 0], bids[:, 1]
        rows["price"][len(bids) :], rows["quantity"][len(bids) :] = asks[:, 0], asks[:, 1]
        rows["side"][: len(bids)], rows["side"][len(bids) :] = Side.BUY, Side.SELL
        rows["time"], rows["update"] = self._times[instrument], self.books.updates[instrument]
        rows["instrument"], rows["flags"] = instrument, DepthFlag.SNAPSHOT
        if len(rows):
            rows["flags"][0] |= DepthFlag.FIRST
            rows["flags"][-1] |= DepthFlag.LAST
        return rows


def _extend(topic: Topic, rows: NDArray[Any]) -> Update:
    """Number ``rows`` in their topic."""
    topic.ring.append(rows)
    flags, topic.interrupted = int(FrameFlag.GAP) if topic.interrupted else 0, False
    return Update(topic, rows, topic.ring.sequence, flags)
