"""The newest executions of user accounts: a ring of fill events."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.records import EVENT, FIRST_USER_ACCOUNT, EventKind

CAPACITY = 1 << 16
_MAKER_FILL, _TAKER_FILL = int(EventKind.MAKER_FILL), int(EventKind.TAKER_FILL)


class Executions:
    """The last ``capacity`` fills of user accounts, over all of them; a pure function of the events."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._ring = np.zeros(capacity, EVENT)
        self._total = 0

    def apply(self, events: NDArray[Any]) -> None:
        """Take in the fills of a batch of EVENT rows."""
        self._total = _collect(events, self._ring, self._total)

    def select(self, account: int, instrument: int | None, limit: int) -> NDArray[Any]:
        """Give up to ``limit`` fills of ``account`` as EVENT rows, newest first."""
        found = np.empty(min(limit, len(self._ring)), np.int64)
        wanted = -1 if instrument is None else instrument
        count = _select(self._ring, self._total, account, wanted, found)
        return self._ring[found[:count]]

    def export(self) -> NDArray[Any]:
        """Give the fills, oldest first."""
        if self._total <= len(self._ring):
            return self._ring[: self._total].copy()
        oldest = self._total % len(self._ring)
        return np.concatenate((self._ring[oldest:], self._ring[:oldest]))

    def restore(self, rows: NDArray[Any]) -> None:
        """Stand as `export` described it, as far as the capacity goes; only for a fresh one."""
        kept = rows[-len(self._ring) :]
        self._ring[: len(kept)] = kept
        self._total = len(kept)


@kernel
def _collect(events: Any, ring: Any, total: int) -> int:
    for n in range(events.shape[0]):
        event = events[n]
        if (event.kind == _MAKER_FILL or event.kind == _TAKER_FILL) and event.account >= FIRST_USER_ACCOUNT:
            ring[total % ring.shape[0]] = event
            total += 1
    return total


@kernel
def _select(ring: Any, total: int, account: int, instrument: int, found: Any) -> int:
    count = 0
    for n in range(total - 1, max(-1, total - 1 - ring.shape[0]), -1):
        if count == found.shape[0]:
            break
        slot = n % ring.shape[0]
        row = ring[slot]
        if row.account == account and (instrument < 0 or row.instrument == instrument):
            found[count] = slot
            count += 1
    return count
