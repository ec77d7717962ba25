"""The order table: the state of every user order that is live, and of the last ones that are not.

A pure function of the ledger: the same commands and events give the same table, in batches of any size.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.ledger.idempotency import client_key
from tvops.engine.projections import order_kernels as k
from tvops.engine.projections.executions import Executions
from tvops.engine.projections.index import find, make_table
from tvops.engine.projections.positions import Positions
from tvops.engine.records import COMMAND, EVENT, ORDER, POSITION, Status
from tvops.errors import LedgerError

_ALL = sum(1 << status for status in Status)
_NEWEST = (1 << 63) - 1
_SLACK = 8192  # free slots beyond the history, before the table has to grow
_HEADER = struct.Struct("<6q")  # rows, client keys, closed, positions, executions, placed


@dataclass(frozen=True, slots=True)
class Captured:
    """A copy of the table at one moment, from which `pack_state` makes bytes in any thread."""

    rows: NDArray[Any]
    client_keys: NDArray[np.int64]
    closed: NDArray[np.int32]
    placed: int
    positions: NDArray[Any]
    executions: NDArray[Any]


class OrderTable:
    """Orders, executions and positions of user accounts."""

    def __init__(self, history: int, max_accounts: int = 4096) -> None:
        """Make an empty table that keeps the last ``history`` closed orders; live ones are always kept."""
        capacity = history + _SLACK
        self._rows = np.zeros(capacity, ORDER)
        self._order_keys = np.zeros((capacity, 2), np.int64)
        self._client_keys = np.zeros((capacity, 2), np.int64)
        self._links = np.zeros((capacity, 2), np.int32)
        self._free = np.arange(capacity - 1, -1, -1, dtype=np.int32)
        self._marks = np.zeros(capacity, np.uint8)
        self._changed = np.zeros(capacity, np.int32)
        self._order_table, self._client_table = make_table(capacity), make_table(capacity)
        self._newest = np.zeros(max_accounts, np.int32)
        self._open = np.zeros(max_accounts, np.int32)
        self._closed = np.zeros(history, np.int32)
        self._counters = np.zeros(k.COUNTERS, np.int64)
        self._counters[k.FREE] = capacity
        self._capture = np.zeros(0, ORDER)
        self._positions = Positions(max_accounts)
        self._executions = Executions()

    def apply(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        """Take in a batch: COMMAND rows, `seq` dense, and the EVENT rows that the engine made of them."""
        assert commands.dtype == COMMAND
        assert events.dtype == EVENT
        if not len(commands):
            return
        while self._counters[k.FREE] < len(commands):
            self._grow()
        k.apply_events(
            commands, events, self._rows, self._order_keys, self._client_keys, self._order_table,
            self._client_table, self._links, self._newest, self._open, self._closed, self._free, self._marks,
            self._changed, self._counters,
        )  # fmt: skip
        self._positions.apply(events)
        self._executions.apply(events)

    def row(self, order_id: int) -> np.void | None:
        """Give a copy of the ORDER row of ``order_id``, None where it is not listed (any more)."""
        return self._copy(find(self._order_table, self._order_keys, order_id, 0)) if order_id > 0 else None

    def by_client_id(self, account: int, client_id: bytes | str) -> np.void | None:
        """Give a copy of the ORDER row of the order that ``account`` named ``client_id``, or None."""
        high, low = np.array(client_key(account, client_id), np.uint64).view(np.int64).tolist()
        return self._copy(find(self._client_table, self._client_keys, high, low))

    def select(
        self,
        account: int,
        status: Collection[int] | None = None,
        instrument: int | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> NDArray[Any]:
        """Give up to ``limit`` orders of ``account`` as ORDER rows, newest first.

        Args:
            account: whose orders.
            status: `Status` values that are wanted; None: all.
            instrument: its index; None: all.
            limit: most rows.
            before: only orders that are older than this order id.
        """
        if not 0 <= account < len(self._newest):
            return np.zeros(0, ORDER)
        start, bound = int(self._newest[account]), _NEWEST
        if before is not None:
            slot = find(self._order_table, self._order_keys, before, 0)
            if slot >= 0 and self._rows["account"][slot] == account:
                start = int(self._links[slot, k.OLDER])
            else:
                bound = before
        wanted = _ALL if status is None else sum(1 << int(value) for value in set(status))
        found = np.empty(min(limit, len(self._rows)), np.int64)
        count = k.select_slots(
            self._rows, self._links, start, bound, wanted, -1 if instrument is None else instrument, found
        )
        selected: NDArray[Any] = self._rows[found[:count]]
        return selected

    def open_count(self, account: int) -> int:
        """Give how many live orders ``account`` has."""
        return int(self._open[account]) if 0 <= account < len(self._open) else 0

    def executions(self, account: int, instrument: int | None = None, limit: int = 100) -> NDArray[Any]:
        """Give up to ``limit`` fills of ``account`` as EVENT rows, newest first."""
        return self._executions.select(account, instrument, limit)

    def positions(self, account: int) -> NDArray[Any]:
        """Give the POSITION rows of ``account``, one for each instrument that it ever traded."""
        return self._positions.of(account)

    @property
    def live(self) -> int:
        """Live orders of all user accounts."""
        return int(self._open.sum())

    @property
    def placed(self) -> int:
        """User orders ever listed, the rejected ones counted."""
        return int(self._counters[k.PLACED])

    @property
    def changes(self) -> int:
        """How many rows `take_changed` would give."""
        return int(self._counters[k.CHANGED])

    def take_changed(self) -> tuple[NDArray[Any], NDArray[Any], bool]:
        """Give the ORDER and POSITION rows that changed since the last call, and whether rows were missed.

        A row is missed where it was evicted from the history before it was taken.
        """
        slots = self._changed[: self._counters[k.CHANGED]]
        rows = self._rows[slots]
        self._marks[slots] = 0
        missed = bool(self._counters[k.LOST])
        self._counters[k.CHANGED] = self._counters[k.LOST] = 0
        return rows[rows["status"] != 0], self._positions.take_changed(), missed

    def live_rows(self) -> NDArray[Any]:
        """Give the ORDER rows of all live orders, in no order."""
        status = self._rows["status"]
        live: NDArray[Any] = self._rows[(status == Status.OPEN) | (status == Status.PARTIALLY_FILLED)]
        return live

    def all_positions(self) -> NDArray[Any]:
        """Give the POSITION rows of all accounts."""
        return self._positions.export()

    def capture(self) -> Captured:
        """Copy the table's state; quick, so that it may be done between two batches. Valid until the next call."""
        end = len(self._rows) - int((self._rows["status"][::-1] != 0).argmax())
        if len(self._capture) < end:
            # kept for the next time: fresh pages cost more than the copy
            self._capture = np.zeros(len(self._rows), ORDER)
        rows = self._capture[:end]
        rows[:] = self._rows[:end]
        order = (self._counters[k.CLOSED_FIRST] + np.arange(self._counters[k.CLOSED])) % len(self._closed)
        return Captured(
            rows=rows,
            client_keys=self._client_keys[:end].copy(),
            closed=self._closed[order],
            placed=self.placed,
            positions=self._positions.export(),
            executions=self._executions.export(),
        )

    def restore(self, blob: bytes) -> None:
        """Stand as `pack_state` described it; only for an empty table.

        Where this table keeps a shorter history than that one did, the oldest closed orders are let go.

        Raises:
            LedgerError: the blob has another size than it says.
        """
        state = unpack_state(blob)
        excess = max(0, len(state.closed) - len(self._closed))
        kept = np.ones(len(state.rows), np.bool_)
        kept[state.closed[:excess]] = False
        closed = (np.cumsum(kept) - 1)[state.closed[excess:]]
        count = int(np.count_nonzero(kept))
        while len(self._rows) < count + _SLACK:
            self._grow()
        self._rows[:count], self._client_keys[:count] = state.rows[kept], state.client_keys[kept]
        self._order_keys[:count, 0] = self._rows["order_id"][:count]
        self._closed[: len(closed)] = closed
        capacity = len(self._rows)
        self._free[: capacity - count] = np.arange(capacity - 1, count - 1, -1)
        self._counters[k.FREE], self._counters[k.CLOSED] = capacity - count, len(closed)
        self._counters[k.PLACED] = state.placed
        k.relink(self._rows, self._links, self._newest, self._open, count)
        self._reindex()
        self._positions.restore(state.positions)
        self._executions.restore(state.executions)

    def digest(self) -> bytes:
        """Give a digest of everything that the table tells; equal for equal histories."""
        return hashlib.blake2b(pack_state(self.capture()), digest_size=16).digest()

    def _copy(self, slot: int) -> np.void | None:
        if slot < 0:
            return None
        row: np.void = self._rows[slot].copy()
        return row

    def _grow(self) -> None:
        """Make room for half as many orders more; slots stay, so that links and lists hold."""
        old = len(self._rows)
        new = old + max(_SLACK, old // 2)
        for name in ("_rows", "_order_keys", "_client_keys", "_links", "_marks", "_changed", "_free"):
            array = getattr(self, name)
            grown = np.zeros((new, *array.shape[1:]), array.dtype)
            grown[:old] = array
            setattr(self, name, grown)
        free = int(self._counters[k.FREE])
        self._free[free : free + new - old] = np.arange(new - 1, old - 1, -1)
        self._counters[k.FREE] += new - old
        self._order_table, self._client_table = make_table(new), make_table(new)
        self._reindex()

    def _reindex(self) -> None:
        """Enter every row into the empty indexes, oldest first: of two orders with one key the newer is found."""
        used = np.flatnonzero(self._rows["status"])
        used = used[np.argsort(self._rows["seq"][used])]
        k.reindex(used, self._order_keys, self._client_keys, self._order_table, self._client_table)


def pack_state(captured: Captured) -> bytes:
    """Make bytes of a captured table, the same for the same history: rows in the order of their creation."""
    used = np.flatnonzero(captured.rows["status"])
    used = used[np.argsort(captured.rows["seq"][used])]
    place = np.zeros(len(captured.rows), np.int32)
    place[used] = np.arange(len(used))
    rows, keys, closed = captured.rows[used], captured.client_keys[used], place[captured.closed]
    parts: tuple[NDArray[Any], ...] = (rows, keys, closed, captured.positions, captured.executions)
    header = _HEADER.pack(*(len(part) for part in parts), captured.placed)
    return b"".join((header, *(np.ascontiguousarray(part).data for part in parts)))


def unpack_state(blob: bytes) -> Captured:
    """Give back what `pack_state` packed, as read-only views.

    Raises:
        LedgerError: the blob has another size than it says.
    """
    if len(blob) < _HEADER.size:
        raise LedgerError(f"order table of {len(blob)} bytes in a snapshot: too short")
    *counts, placed = _HEADER.unpack_from(blob)
    types = (ORDER, np.dtype((np.int64, 2)), np.dtype(np.int32), POSITION, EVENT)
    sizes = [dtype.itemsize * count for dtype, count in zip(types, counts, strict=True)]
    if min(counts) < 0 or len(blob) != _HEADER.size + sum(sizes):
        raise LedgerError(
            f"order table of {len(blob)} bytes in a snapshot: says it has {_HEADER.size + sum(sizes)}"
        )
    parts, at = [], _HEADER.size
    for dtype, count, size in zip(types, counts, sizes, strict=True):
        parts.append(np.frombuffer(blob, dtype, count, at))
        at += size
    rows, client_keys, closed, positions, executions = parts
    return Captured(rows, client_keys, closed, placed, positions, executions)
