"""What the service remembers: topics with their numbers and newest records, bars, and split batches."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.records import BAR, DEPTH, TICK, TRADE, RecordType

INTERVALS = {"1s": 1, "1m": 60}
"""Bar intervals in seconds by their name in the protocol."""

BAR_CAPACITY = {1: 3600, 60: 1440}
"""How many bars of an interval (seconds) are kept."""

DEPTHS = (5, 10, 20, 50)
"""Depths that a book can be limited to."""

RING_ROWS = 4096
BAR_RING_ROWS = 1024


class Channel(StrEnum):
    """What can be subscribed to."""

    TICKS = "ticks"
    TRADES = "trades"
    BOOK = "book"
    BARS = "bars"


class Encoding(IntEnum):
    """How a session wants a topic."""

    JSON = 0
    BINARY = 1


RECORD_TYPES = {
    Channel.TICKS: RecordType.TICK,
    Channel.TRADES: RecordType.TRADE,
    Channel.BOOK: RecordType.DEPTH,
    Channel.BARS: RecordType.BAR,
}
_DTYPES = {Channel.TICKS: TICK, Channel.TRADES: TRADE, Channel.BOOK: DEPTH, Channel.BARS: BAR}


class Ring:
    """The newest records of a topic, numbered without holes."""

    def __init__(self, dtype: np.dtype[Any], capacity: int) -> None:
        self.sequence = 0  # number of the newest record
        self.floor = 0  # records above this number are all here
        self._rows = np.zeros(capacity, dtype)
        self._written = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Number and keep ``rows``."""
        capacity, count = len(self._rows), len(rows)
        kept = rows[-capacity:]
        start = (self._written + count - len(kept)) % capacity
        head = min(len(kept), capacity - start)
        self._rows[start : start + head] = kept[:head]
        self._rows[: len(kept) - head] = kept[head:]
        self._written += count
        self.sequence += count
        self.floor = max(self.floor, self.sequence - capacity)

    def interrupt(self) -> None:
        """Use up one number for what was never received: nothing before it can be resumed from."""
        self.sequence += 1
        self.floor = self.sequence

    def newest(self, count: int) -> NDArray[Any]:
        """Give copies of the newest ``count`` records, or of as many as there are, oldest first."""
        capacity = len(self._rows)
        count = min(count, self._written, capacity)
        start = (self._written - count) % capacity
        tail = self._rows[start : start + count]
        return np.concatenate((tail, self._rows[: count - len(tail)]))

    def since(self, sequence: int) -> NDArray[Any] | None:
        """Give the records after number ``sequence``; None where they are not all here."""
        if not self.floor <= sequence <= self.sequence:
            return None
        return self.newest(self.sequence - sequence)


class Bars:
    """The newest bars of one instrument and interval, the open one last."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._rows = np.zeros(capacity + capacity // 8 + 1, BAR)
        self._end = 0

    def take(self, rows: NDArray[Any]) -> None:
        """Put each bar in the place of the one with its start, or behind the last one."""
        starts = self._rows["start"]
        for row in rows:
            start, end = row["start"], self._end
            if end and start <= starts[end - 1]:
                at = int(np.searchsorted(starts[:end], start))
                if starts[at] == start:
                    self._rows[at] = row
                continue
            if end == len(self._rows):
                keep = self.capacity - 1
                self._rows[:keep] = self._rows[end - keep : end].copy()
                end = keep
            self._rows[end] = row
            self._end = end + 1

    def newest(self, count: int) -> NDArray[Any]:
        """Give copies of the newest ``count`` bars, or of as many as are kept, oldest first."""
        count = min(count, self.capacity)
        return self._rows[max(0, self._end - count) : self._end].copy()


class Topic:
    """One numbered line of records that sessions subscribe to."""

    def __init__(self, number: int, channel: Channel, instrument: int, interval: int = 0, depth: int = 0) -> None:
        self.number = number
        self.channel = channel
        self.instrument = instrument
        self.interval = interval  # seconds; bars only
        self.depth = depth  # levels a side; 0: all, as deltas
        self.record_type = RECORD_TYPES[channel]
        rows = 1 if depth else BAR_RING_ROWS if channel is Channel.BARS else RING_ROWS
        self.ring = Ring(_DTYPES[channel], rows)
        self.subscribers = [0, 0]  # by Encoding
        self.shown = b""  # book of limited depth: what was last sent
        self.interrupted = False  # the next records come after a gap
        self.interrupted_at = 0  # number that stands for the newest gap

    @property
    def interval_name(self) -> str:
        """The interval as the protocol names it."""
        return next(name for name, seconds in INTERVALS.items() if seconds == self.interval)

    @property
    def name(self) -> tuple[Channel, int, int, int]:
        """Channel, instrument, interval, depth."""
        return self.channel, self.instrument, self.interval, self.depth

    def interrupt(self) -> None:
        """Note that records were lost on their way here."""
        if self.ring.sequence:
            self.ring.interrupt()
            self.interrupted, self.interrupted_at = True, self.ring.sequence


class Topics:
    """All topics of the instruments."""

    def __init__(self, instruments: int) -> None:
        self.all: list[Topic] = []
        self._by_name: dict[tuple[Channel, int, int, int], Topic] = {}
        for instrument in range(instruments):
            self._add(Channel.TICKS, instrument)
            self._add(Channel.TRADES, instrument)
            for depth in (0, *DEPTHS):
                self._add(Channel.BOOK, instrument, depth=depth)
            for interval in INTERVALS.values():
                self._add(Channel.BARS, instrument, interval=interval)

    def _add(self, channel: Channel, instrument: int, interval: int = 0, depth: int = 0) -> None:
        topic = Topic(len(self.all), channel, instrument, interval, depth)
        self.all.append(topic)
        self._by_name[topic.name] = topic

    def find(self, channel: Channel, instrument: int, interval: int = 0, depth: int = 0) -> Topic:
        """Give the topic of that name."""
        return self._by_name[channel, instrument, interval, depth]


def split(rows: NDArray[Any], instruments: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Give the rows of each instrument below ``instruments``, their order kept; drops the others."""
    numbers = rows["instrument"]
    if not len(rows):
        return
    if (numbers == numbers[0]).all():
        if numbers[0] < instruments:
            yield int(numbers[0]), rows
        return
    order = np.argsort(numbers, kind="stable")
    rows, numbers = rows[order], numbers[order]
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(rows)]
    for start, end in pairwise(bounds):
        if numbers[start] < instruments:
            yield int(numbers[start]), rows[start:end]
