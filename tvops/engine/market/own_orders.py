"""The orders that a liquidity account of tvops keeps in our book, as its events tell them.

An order has a fixed *slot* of its instrument. The tag of a NEW names the slot and how often it was used, so
that the answer finds the slot, and a late answer does not find the order that came after.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel
from tvops.engine.records import EVENT, EventKind, Reason, Side

FREE, SENT, LIVE = 0, 1, 2
"""States of a slot: no order; NEW sent, not yet answered; in the book."""

NO_SLOT = 0xFFFF
"""Slot of an order that never rests."""

SLOT = np.dtype(
    [
        ("order_id", "<i8"),
        ("price", "<i8"),  # ticks
        ("quantity", "<i8"),  # lots still open
        ("account", "<u4"),
        ("used", "<u4"),  # how often the slot was taken
        ("side", "u1"),  # Side
        ("state", "u1"),  # FREE, SENT or LIVE
    ]
)

_ACCEPTED, _REJECTED = int(EventKind.ACCEPTED), int(EventKind.REJECTED)
_MAKER_FILL, _TAKER_FILL = int(EventKind.MAKER_FILL), int(EventKind.TAKER_FILL)
_CANCELLED, _AMENDED, _TOP = int(EventKind.CANCELLED), int(EventKind.AMENDED), int(EventKind.TOP)
_UNKNOWN_ORDER, _KILLED, _HALTED = int(Reason.UNKNOWN_ORDER), int(Reason.KILLED), int(Reason.HALTED)
_STRAY = 0  # no event has this kind
_BUY = int(Side.BUY)
_LAST_KIND = int(max(EventKind))


class OwnOrders:
    """The slots of all instruments, the best prices of our book, and what the accounts have traded."""

    def __init__(self, instruments: int, slots: int, accounts: range) -> None:
        """Make ``slots`` free slots for each of ``instruments``; ``accounts`` are the accounts that own them."""
        assert slots < NO_SLOT
        self.accounts = accounts
        self.slots = np.zeros((instruments, slots), SLOT)
        self.tops = np.zeros((instruments, 2, 2), np.int64)  # by side: price, lots; 0, 0: empty or not told yet
        self.positions = np.zeros((len(accounts), instruments), np.int64)  # lots traded so far, net
        self.halted = np.zeros(instruments, np.bool_)  # refused as halted or killed by the last `follow`
        self.counts = np.zeros(_LAST_KIND + 1, np.int64)  # own events by kind, since the beginning

    @property
    def live(self) -> int:
        """How many orders are in the book."""
        return int(np.count_nonzero(self.slots["state"] == LIVE))

    @property
    def strays(self) -> int:
        """How many orders were accepted that no slot was waiting for: an inbox entry was taken twice, say."""
        return int(self.counts[_STRAY])

    def follow(self, events: NDArray[Any]) -> None:
        """Take over EVENT rows: those of the own accounts, and TOP of everybody's book."""
        assert events.dtype == EVENT
        self.halted[:] = False
        _follow(events, self.slots, self.tops, self.positions, self.accounts.start, self.halted, self.counts)

    def forget(self) -> None:
        """Free every slot: the orders are known to be gone."""
        self.slots["state"] = FREE


@kernel
def put(
    commands: Any, count: int, kind: int, instrument: int, account: int, side: int, price: int, quantity: int,
    tag: int, order_id: int, order_type: int, time_in_force: int,
) -> int:  # fmt: skip
    """Write a command into row ``count`` of zeroed COMMAND rows; give the next count."""
    row = commands[count]
    row.kind, row.instrument, row.account, row.side = kind, instrument, account, side
    row.price, row.quantity, row.order_id, row.key_low = price, quantity, order_id, np.uint64(tag)
    row.order_type, row.time_in_force = order_type, time_in_force
    return count + 1


@kernel
def tag_of(slots: Any, instrument: int, slot: int) -> Any:
    """Give the tag of the order that is in ``slot``, as int64."""
    return (np.int64(slots[instrument, slot].used) << 32) | (instrument << 16) | slot


@kernel
def _slot_of_tag(slots: Any, instrument: int, tag: Any) -> int:
    """Give the slot that ``tag`` means, -1 where its order is gone or never had one."""
    slot = tag & 0xFFFF
    if (
        slot >= slots.shape[1]
        or ((tag >> 16) & 0xFFFF) != instrument
        or np.int64(slots[instrument, slot].used) != tag >> 32
        or slots[instrument, slot].state == FREE
    ):
        return -1
    return int(slot)


@kernel
def _slot_of_order(slots: Any, instrument: int, order_id: int) -> int:
    """Give the slot of a live order, -1 where there is none."""
    for slot in range(slots.shape[1]):
        if slots[instrument, slot].order_id == order_id and slots[instrument, slot].state == LIVE:
            return slot
    return -1


@kernel
def _accept(event: Any, slots: Any, instrument: int) -> bool:
    """Put an accepted order into its slot; say whether one was waiting for it."""
    tag = np.int64(event.ref)
    if tag & 0xFFFF == NO_SLOT:
        return True
    slot = _slot_of_tag(slots, instrument, tag)
    if slot < 0 or slots[instrument, slot].state == LIVE:
        return False
    own = slots[instrument, slot]
    own.order_id, own.price, own.quantity, own.state = event.order_id, event.price, event.quantity, LIVE
    return True


@kernel
def _reject(event: Any, slots: Any, instrument: int) -> bool:
    """Free the slot of an order that is not in the book; say whether the instrument or account is stopped."""
    slot = _slot_of_tag(slots, instrument, np.int64(event.ref))
    if slot >= 0 and (slots[instrument, slot].state == SENT or event.reason == _UNKNOWN_ORDER):
        slots[instrument, slot].state = FREE
    return bool(event.reason == _HALTED or event.reason == _KILLED)


@kernel
def _change(event: Any, slots: Any, instrument: int) -> None:
    """Take over what is left of an order, and its price."""
    slot = _slot_of_order(slots, instrument, event.order_id)
    if slot >= 0:
        own = slots[instrument, slot]
        own.quantity = event.leaves
        if event.kind == _AMENDED:
            own.price = event.price
        if event.leaves == 0:
            own.state = FREE


@kernel
def _follow(
    events: Any, slots: Any, tops: Any, positions: Any, first_account: int, halted: Any, counts: Any
) -> None:
    for n in range(events.shape[0]):
        event = events[n]
        kind, instrument = int(event.kind), int(event.instrument)
        if instrument >= slots.shape[0]:
            continue
        if kind == _TOP:
            tops[instrument, event.side - 1, 0] = event.price
            tops[instrument, event.side - 1, 1] = event.quantity
            continue
        account = np.int64(event.account) - first_account
        if account < 0 or account >= positions.shape[0]:
            continue
        counts[kind] += 1
        if kind == _ACCEPTED:
            counts[_STRAY] += not _accept(event, slots, instrument)
        elif kind == _REJECTED:
            halted[instrument] |= _reject(event, slots, instrument)
        elif kind in (_CANCELLED, _AMENDED):
            _change(event, slots, instrument)
        elif kind in (_MAKER_FILL, _TAKER_FILL):
            positions[account, instrument] += event.quantity if event.side == _BUY else -event.quantity
            _change(event, slots, instrument)
