"""The documented way to keep a Binance book in step: buffer, snapshot, apply, check continuity. No I/O.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams#how-to-manage-a-local-order-book-correctly
https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams/How-to-manage-a-local-order-book-correctly

Update `U` to `u` follows the one before when, on USD-M futures (which send `pu`), `pu` is the `u` before and,
on spot, `U` is the `u` before + 1. The first one after a snapshot must reach over its `lastUpdateId`. For
futures, whose ids have holes, that is `pu <= lastUpdateId < u`, which holds wherever the documented
`U <= lastUpdateId <= u` does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tvops.engine.records import DEPTH, DepthFlag

MAX_BUFFERED_LEVELS = 1 << 16
"""Levels that wait for a snapshot; beyond, the oldest updates go."""

_FIRST, _LAST, _SNAPSHOT = int(DepthFlag.FIRST), int(DepthFlag.LAST), int(DepthFlag.SNAPSHOT)
_GAP = int(DepthFlag.GAP)


@dataclass(frozen=True, slots=True)
class Update:
    """One depthUpdate: `rows` are DEPTH rows that have all but `update` and `flags`."""

    first: int  # U
    last: int  # u
    previous: int  # pu; -1 where there is none (spot)
    rows: NDArray[Any]


class BinanceSync:
    """Makes one instrument's snapshots and updates into numbered DEPTH rows.

    `wants_snapshot` says that only a (new) REST snapshot takes the book on; whoever feeds this gets one.
    """

    def __init__(self, instrument: int) -> None:
        self.instrument = instrument
        self.state: Literal["syncing", "live", "gap"] = "syncing"
        self.gaps = 0  # times that a live book lost continuity
        self.stale = 0  # updates that told nothing new
        self.refused_snapshots = 0  # snapshots that the buffered updates do not connect to
        self._number = 0
        self._last = -1  # u of the last applied update, or lastUpdateId while `_anchored`
        self._anchored = False
        self._buffer: deque[Update] = deque()
        self._buffered = 0

    @property
    def wants_snapshot(self) -> bool:
        """Whether the book waits for a snapshot."""
        return self.state != "live"

    def on_update(self, update: Update, time: int) -> list[NDArray[Any]]:
        """Take a depthUpdate; give the DEPTH rows to pass on, update by update."""
        if self.state != "live":
            self._wait(update)
            return []
        if update.last <= self._last:
            self.stale += 1
            return []
        if not self._follows(update):
            lost = self.lose(time)
            self._wait(update)
            return lost
        return self._advance(update)

    def on_snapshot(self, last_update_id: int, rows: NDArray[Any], time: int) -> list[NDArray[Any]]:
        """Take a REST snapshot (``rows`` as in `Update`); give the rows of it and of the updates behind it."""
        if self.state == "live":
            return []
        while self._buffer and self._buffer[0].last <= last_update_id:
            self._buffered -= len(self._buffer.popleft().rows) + 1
        self._last, self._anchored = last_update_id, True
        if self._buffer and not self._follows(self._buffer[0]):
            self.refused_snapshots += 1
            return []
        self.state = "live"
        out = [self._numbered(_or_empty(rows, self.instrument, time), _SNAPSHOT)]
        for update in self._buffer:
            update.rows["time"] = time
            out += self._advance(update)
        self._forget()
        return out

    def lose(self, time: int) -> list[NDArray[Any]]:
        """Give the book up (an update was lost or unusable) and begin anew; gives the GAP row, if it was live."""
        self._forget()
        if self.state != "live":
            return []
        self.state = "gap"
        self.gaps += 1
        return [self._gap_row(time)]

    def restart(self, time: int) -> list[NDArray[Any]]:
        """Begin anew because the source does: like `lose`, but no loss."""
        live = self.state == "live"
        self._forget()
        self.state = "syncing"
        return [self._gap_row(time)] if live else []

    def _follows(self, update: Update) -> bool:
        if self._anchored:
            start = update.previous if update.previous >= 0 else update.first - 1
            return start <= self._last
        return _connects(self._last, update)

    def _advance(self, update: Update) -> list[NDArray[Any]]:
        self._last, self._anchored = update.last, False
        return [self._numbered(update.rows, 0)] if len(update.rows) else []

    def _wait(self, update: Update) -> None:
        if self._buffer and not _connects(self._buffer[-1].last, update):
            if update.last <= self._buffer[-1].last:
                self.stale += 1
                return
            self._forget()
        self._buffer.append(update)
        self._buffered += len(update.rows) + 1
        while self._buffered > MAX_BUFFERED_LEVELS:
            self._buffered -= len(self._buffer.popleft().rows) + 1

    def _forget(self) -> None:
        self._buffer.clear()
        self._buffered = 0

    def _numbered(self, rows: NDArray[Any], flags: int) -> NDArray[Any]:
        self._number += 1
        rows["update"] = self._number
        rows["flags"] = flags
        rows["flags"][0] |= _FIRST
        rows["flags"][-1] |= _LAST
        return rows

    def _gap_row(self, time: int) -> NDArray[Any]:
        row = _or_empty(np.empty(0, DEPTH), self.instrument, time)
        row["update"] = self._number
        row["flags"] = _GAP | _FIRST | _LAST
        return row


def _connects(last: int, update: Update) -> bool:
    return update.previous == last if update.previous >= 0 else update.first == last + 1


def _or_empty(rows: NDArray[Any], instrument: int, time: int) -> NDArray[Any]:
    """Give ``rows``, or one row without a level where there are none, so that flags have a place."""
    if len(rows):
        return rows
    row = np.zeros(1, DEPTH)
    row["time"], row["instrument"] = time, instrument
    return row
