"""The matching engine: batches of commands in, batches of events out.

Deterministic: events and state depend on the commands alone, not on how they are cut into batches. Every command
gets one direct answer (ACCEPTED, AMENDED, CANCELLED, DONE, DUPLICATE or REJECTED with a reason), which carries the
command's `key_low` in `ref`; then come the fills and cancels that it caused, then a TOP event for each side of an
instrument where the best price, or the quantity there, is not what it was before the command. Of a mass cancel and
a kill, the CANCELLED events come first and DONE after them.

What commands mean beyond `records`:

- A NEW always gets an order id, also when it is rejected. LIMIT GTC orders rest; MARKET orders never do, whatever
  their time in force. What an IOC or MARKET order leaves is CANCELLED: NO_LIQUIDITY where it traded nothing,
  COLLAR where a MARKET order stopped short of worse prices, SELF_TRADE, else IMMEDIATE_OR_CANCEL. A FOK order that
  cannot trade whole is CANCELLED with FILL_OR_KILL before it touches anything, own resting orders included.
  POST_ONLY is for LIMIT GTC orders; one that would trade is REJECTED.
- AMEND gives the new price and the new *remaining* quantity; 0 leaves either as it is. Less quantity at the same
  price keeps the order's place and needs no checks. Any other change is checked like a new order (halt, limits,
  collar), loses its place, and may trade (`self_trade` is the AMEND's). An order that is POST_ONLY, or an AMEND
  with that flag, is REJECTED where it would trade, and the order stays as it was. `instrument` and `side` are
  not read: the order knows them; likewise for CANCEL.
- Limits hold on entry. MAX_POSITION counts the position, the account's resting lots on the side of the order, and
  the order. The notional of a MARKET order is taken at the reference price. A collar bounds the aggressive side
  only: a buy may not be priced above, nor a sell below. The reference price is the last trade's, before the first
  trade the middle of the best prices or the only one; without any there is no collar.
- EXEMPT accounts have no limits and no collar; KILL and HALT hold for them too.
- HALT refuses NEW and AMEND (but for less quantity at the same price); cancels go on.
- A command with a key that one of the last `max_keys` commands had changes nothing; it gets DUPLICATE.
- MAX_OPEN_ORDERS and EXEMPT do not read `instrument`. The other limits take ALL_INSTRUMENTS as every instrument
  that is defined by then; so does HALT. COLLAR needs account 0. Limits are below 2**62, collars below 2**37.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.matching import layout as at
from tvops.engine.matching import snapshot
from tvops.engine.matching.batch import apply_batch
from tvops.engine.matching.memory import EventBuffer, fresh_arena
from tvops.engine.matching.views import read_depth, read_orders
from tvops.engine.records import ALL_ACCOUNTS, COMMAND, Limit

MAX_ORDERS = at.SLOT_MASK - 1
_EVENT_ROOM = 1 << 15
_KEPT_ROWS = 1 << 14
"""A batch with more events than that has its memory given back before the next."""

_WORD = np.dtype(np.int64)


class Engine:
    """All books, accounts and limits of a shard.

    ``max_orders`` (at most 2**20 - 2) can rest at a time, of accounts 1 to ``max_accounts`` - 1; the answers to
    the last ``max_keys`` (a power of two) commands with an idempotency key are known. Memory is taken as it is
    used.
    """

    def __init__(self, max_orders: int = 1 << 18, max_accounts: int = 4096, max_keys: int = 1 << 18) -> None:
        if not 1 <= max_orders <= MAX_ORDERS:
            raise ValueError(f"max_orders {max_orders} is not 1 to {MAX_ORDERS}")
        if not 2 <= max_accounts <= 1 << 20:
            raise ValueError(f"max_accounts {max_accounts} is not 2 to {1 << 20}")
        if not (1 <= max_keys <= 1 << 24 and max_keys & (max_keys - 1) == 0):
            raise ValueError(f"max_keys {max_keys} is not a power of two up to {1 << 24}")
        self._sizes = (max_orders, max_accounts, max_keys)
        self._arena = fresh_arena(*self._sizes)
        self._events = EventBuffer(_EVENT_ROOM, at.worst_events(max_orders))
        self._used = 0

    def apply(self, commands: NDArray[Any]) -> NDArray[Any]:
        """Apply rows of COMMAND; give the rows of EVENT, a view that is valid until the next call.

        Bad commands are answered, never raised. Raises TypeError where the rows are not COMMAND, MemoryError where
        a DEFINE needs memory that the system does not give.
        """
        if self._used > _KEPT_ROWS:
            self._events.reuse()
        words = _words_of(commands)
        last = len(words) // at.COMMAND_WORDS
        row = apply_batch(self._arena.words, words, self._events.words, 0, last, 0, self._events.room)
        while row < 0:
            row = self._make_room(~row)
            first = int(self._arena.words[at.H_NEXT])
            row = apply_batch(self._arena.words, words, self._events.words, first, last, row, self._events.room)
        self._used = row
        return self._events.rows[:row]

    def _make_room(self, used: int) -> int:
        """Let a batch go on that stopped with ``used`` rows of events; give that number."""
        need = int(self._arena.words[at.H_NEED])
        if need:
            self._arena.words[at.H_NEED] = 0
            self._arena.grow(need)
        if used > self._events.room:
            self._events.grow(used)
        return used

    @property
    def seq(self) -> int:
        """Sequence number of the last command applied."""
        return int(self._arena.words[at.H_SEQ])

    @property
    def live_orders(self) -> int:
        """How many orders rest."""
        state = self._arena.words
        return int(state[at.H_HIGH] - state[at.H_FREE])

    def depth(self, instrument: int, levels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give the best ``levels`` of bids and asks, int64 (n, 3): price in ticks, quantity in lots, orders."""
        sides = []
        for sell in range(2):
            rows = np.empty((max(0, levels), 3), np.int64)
            count = read_depth(self._arena.words, instrument, sell, rows) if self.is_defined(instrument) else 0
            sides.append(rows[:count])
        return sides[0], sides[1]

    def is_defined(self, instrument: int) -> bool:
        """Say whether the instrument has been defined."""
        return 0 <= instrument < at.MAX_INSTRUMENTS and bool(self._instrument(instrument)[at.I_SIZE])

    def is_halted(self, instrument: int) -> bool:
        """Say whether the instrument takes no new orders."""
        return bool(self._instrument(instrument)[at.I_HALTED])

    def last_price(self, instrument: int) -> int:
        """Give the price of the last trade in ticks; 0: none yet."""
        return int(self._instrument(instrument)[at.I_LAST])

    def is_killed(self, account: int = ALL_ACCOUNTS) -> bool:
        """Say whether the account, or (by default) every account, is refused new orders by its own kill switch."""
        if account == ALL_ACCOUNTS:
            return bool(self._arena.words[at.H_KILLED])
        return bool(self._account(account)[at.A_FLAGS] & at.KILLED)

    def is_exempt(self, account: int) -> bool:
        """Say whether no limits hold for the account."""
        return bool(self._account(account)[at.A_FLAGS] & at.EXEMPT)

    def limit(self, limit: Limit, account: int = 0, instrument: int = 0) -> int:
        """Give the value of a limit that was set for exactly these; 0: none is.

        Args:
            limit: any but EXEMPT.
            account: 0 for the limit of all that have none of their own; COLLAR has no other.
            instrument: not read for MAX_OPEN_ORDERS.
        """
        number = limit - Limit.MAX_ORDER_QUANTITY
        if limit == Limit.MAX_OPEN_ORDERS:
            value = self._account(account)[at.A_OWN_MOST_OPEN] if account else self._arena.words[at.H_MAX_OPEN]
        elif limit == Limit.COLLAR:
            value = self._instrument(instrument)[at.I_COLLAR]
        elif account:
            self._account(account)
            self._instrument(instrument)
            row = instrument * self._sizes[1] + account
            value = self._arena.words[self._arena.words[at.H_OWN_LIMITS] + row * at.LIMIT_WORDS + number]
        else:
            value = self._instrument(instrument)[at.I_LIMITS + number]
        return 0 if value == (at.UNLIMITED_BPS if limit == Limit.COLLAR else at.UNLIMITED) else int(value)

    def open_orders(self, account: int) -> int:
        """How many orders of the account rest."""
        return int(self._account(account)[at.A_OPEN])

    def position(self, account: int, instrument: int) -> int:
        """Give what the account holds in lots; below 0: short."""
        self._account(account)
        self._instrument(instrument)
        first = self._arena.words[at.H_POSITIONS] + (instrument * self._sizes[1] + account) * at.POSITION_WORDS
        return int(self._arena.words[first + at.P_POSITION])

    def orders(self) -> NDArray[np.int64]:
        """Give the live orders, int64 (n, 6): id, account, instrument, Side, price, lots; best price, then age."""
        rows = np.empty((self.live_orders, 3), np.int64)
        read_orders(self._arena.words, rows)
        order_id, leaves, meta = rows.T
        instrument = (meta >> at.META_INSTRUMENT) & (at.MAX_INSTRUMENTS - 1)
        sell = (meta >> at.META_SELL) & 1
        table = self._arena.words[at.HEADER : at.ACCOUNTS].reshape(at.MAX_INSTRUMENTS, at.ROW_WORDS)
        first = at.INSTRUMENT_WORDS + sell * at.SIDE_WORDS
        price = (
            table[instrument, first + at.S_ORIGIN] + (meta & at.MAX_PRICE) * table[instrument, first + at.S_STEP]
        )
        return np.column_stack((order_id, meta >> at.META_ACCOUNT, instrument, 1 + sell, price, leaves))

    def export_state(self) -> bytes:
        """Give the whole state; equal states give equal bytes."""
        return snapshot.export_state(self._arena.words)

    def import_state(self, blob: bytes) -> None:
        """Take the state that `export_state` gave, in place of this one; it goes on with the same events and ids.

        Raises:
            SnapshotError: the bytes are damaged, or do not fit this engine; its state stays as it was.
        """
        self._arena = snapshot.import_state(blob, *self._sizes)

    def digest(self) -> bytes:
        """Give 32 bytes that are equal for equal states."""
        return hashlib.blake2b(self.export_state(), digest_size=32).digest()

    def _instrument(self, instrument: int) -> NDArray[np.int64]:
        if not 0 <= instrument < at.MAX_INSTRUMENTS:
            raise IndexError(f"instrument {instrument} is not 0 to {at.MAX_INSTRUMENTS - 1}")
        first = at.HEADER + instrument * at.ROW_WORDS
        return self._arena.words[first : first + at.INSTRUMENT_WORDS]

    def _account(self, account: int) -> NDArray[np.int64]:
        if not 0 <= account < self._sizes[1]:
            raise IndexError(f"account {account} is not 0 to {self._sizes[1] - 1}")
        first = at.ACCOUNTS + account * at.ACCOUNT_WORDS
        return self._arena.words[first : first + at.ACCOUNT_WORDS]


class _Alias:
    """The memory of a read-only array, for a kernel that only reads it."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self.rows = rows
        self.__array_interface__ = {
            "version": 3,
            "typestr": "<i8",
            "shape": (len(rows) * at.COMMAND_WORDS,),
            "data": (rows.ctypes.data, False),
        }


def _words_of(commands: NDArray[Any]) -> NDArray[np.int64]:
    """See rows of COMMAND as words; copy only where they do not lie in one piece.

    A kernel is compiled once more for a read-only array: there, an alias that is not read-only is made.
    """
    if commands.dtype != COMMAND or commands.ndim != 1:
        raise TypeError(f"commands are {commands.dtype}, {commands.ndim}-dimensional, not rows of COMMAND")
    flags = commands.flags
    if not flags.c_contiguous:
        return commands.copy().view(_WORD)
    words = commands.view(_WORD) if flags.writeable else np.asarray(_Alias(commands))
    return words if words.flags.aligned else words.copy()
