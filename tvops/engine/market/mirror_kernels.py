"""Kernels of the mirror: which orders stand for an external book, and what external trades do to them.

Every slot of the mirror's orders has a *target*: the external quantity that its order was made for. What users
take out of the order is not refilled until the external quantity becomes another one; an order that is filled
whole leaves its slot free with the target still set (it is *spent*) and is likewise not renewed before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tvops.engine.compiled import kernel
from tvops.engine.market.own_orders import FREE, LIVE, NO_SLOT, SENT, put, tag_of
from tvops.engine.records import MIRROR_MAKER, MIRROR_TAKER, Kind, OrderType, Side, TimeInForce

RUNS = 16
"""Most prices of a side at which the trades of one interval sweep the book; further ones are merged."""

RUN = np.dtype([("price", "<i8"), ("quantity", "<i8")])
"""External trades of one aggressor side: `quantity` lots in a row at `price` ticks."""

_NEW, _AMEND, _CANCEL = int(Kind.NEW), int(Kind.AMEND), int(Kind.CANCEL)
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_LIMIT = int(OrderType.LIMIT)
_GTC, _IOC = int(TimeInForce.GTC), int(TimeInForce.IOC)


@kernel
def gather_runs(trades: Any, runs: Any, counts: Any, first_side: Any) -> None:
    """Sum TRADE rows up to runs of equal prices.

    Args:
        trades: rows in order of time.
        runs: (instruments, 2, RUNS) of RUN, by aggressor side; written.
        counts: (instruments, 2) int64, how many runs there are; zero before.
        first_side: (instruments,) int64, the side of the first trade.
    """
    for n in range(trades.shape[0]):
        trade = trades[n]
        instrument, side = int(trade.instrument), int(trade.side) - 1
        if instrument >= runs.shape[0] or not 0 <= side <= 1 or trade.price <= 0 or trade.quantity <= 0:
            continue
        if counts[instrument, 0] + counts[instrument, 1] == 0:
            first_side[instrument] = side
        count = counts[instrument, side]
        if count > 0 and (runs[instrument, side, count - 1].price == trade.price or count == RUNS):
            last = runs[instrument, side, count - 1]
            last.quantity += trade.quantity
            last.price = max(last.price, trade.price) if side == 0 else min(last.price, trade.price)
        else:
            runs[instrument, side, count].price = trade.price
            runs[instrument, side, count].quantity = trade.quantity
            counts[instrument, side] = count + 1


@kernel
def _change(commands: Any, count: int, slots: Any, targets: Any, instrument: int, slot: int, quantity: int) -> int:
    """Set the quantity of a live order; 0 cancels it."""
    own = slots[instrument, slot]
    targets[instrument, slot] = quantity
    return put(
        commands, count, _AMEND if quantity else _CANCEL, instrument, own.account, own.side,
        own.price if quantity else 0, quantity, tag_of(slots, instrument, slot), own.order_id, _LIMIT, _GTC,
    )  # fmt: skip


@kernel
def _sweep_side(
    commands: Any, count: int, slots: Any, targets: Any, instrument: int, side: int, runs: Any, serial: Any
) -> int:
    """Let the trades of one aggressor side (0: buys) happen in our book."""
    sign = 1 if side == 0 else -1
    worst = runs[0].price
    for n in range(runs.shape[0]):
        worst = max(worst * sign, runs[n].price * sign) * sign
    for slot in range(slots.shape[1]):
        own = slots[instrument, slot]
        if own.state != LIVE or own.side == side + 1 or own.price * sign >= worst * sign:
            continue
        traded = 0
        for n in range(runs.shape[0]):
            if runs[n].price == own.price:
                traded += runs[n].quantity
        if own.quantity > traded:
            count = _change(commands, count, slots, targets, instrument, slot, traded)
    for n in range(runs.shape[0]):
        serial[0] += 1
        tag = (serial[0] << 32) | (instrument << 16) | NO_SLOT
        count = put(
            commands, count, _NEW, instrument, MIRROR_TAKER, side + 1, runs[n].price, runs[n].quantity, tag, 0,
            _LIMIT, _IOC,
        )  # fmt: skip
    return count


@kernel
def sweep(
    commands: Any, count: int, slots: Any, targets: Any, instrument: int, runs: Any, counts: Any, first_side: int,
    serial: Any,
) -> int:  # fmt: skip
    """Write the commands that let external trades of an instrument happen in our book; give the next count.

    The taker buys or sells what was traded at its price. A quote of ours in front of that price is first cut
    down to what was traded at its own price: the rest was gone before, or the trade had not got past it.

    Args:
        commands, count: zeroed COMMAND rows and the next free one.
        slots: of `OwnOrders`; targets: int64 of the same shape.
        runs, counts: (2, RUNS) and (2,), as `gather_runs` leaves them for the instrument.
        first_side: side whose trades go first.
        serial: (1,) int64 counter of orders that never rest.
    """
    for turn in range(2):
        side = first_side if turn == 0 else 1 - first_side
        if counts[side] > 0:
            count = _sweep_side(
                commands, count, slots, targets, instrument, side, runs[side, : counts[side]], serial
            )
    return count


@kernel
def _find(levels: Any, price: int, sign: int) -> int:
    """Give the row of ``price`` in levels whose ``sign`` x price rises, -1 where it is not there."""
    low, high = 0, levels.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if levels[middle, 0] * sign < price * sign:
            low = middle + 1
        else:
            high = middle
    return low if low < levels.shape[0] and levels[low, 0] == price else -1


@kernel
def _reduce(commands: Any, count: int, slots: Any, targets: Any, instrument: int, bids: Any, asks: Any) -> int:
    """Cancel orders whose level is gone, and forget what was spent there."""
    for slot in range(slots.shape[1]):
        own = slots[instrument, slot]
        if own.state == FREE and targets[instrument, slot] == 0:
            continue
        at = _find(bids, own.price, -1) if own.side == _BUY else _find(asks, own.price, 1)
        if at < 0:
            targets[instrument, slot] = 0
            if own.state == LIVE:
                count = _change(commands, count, slots, targets, instrument, slot, 0)
    return count


@kernel
def _adjust(
    commands: Any, count: int, slots: Any, targets: Any, instrument: int, side: int, levels: Any, stands: Any
) -> int:
    """Amend the orders of levels that have another quantity now; mark in ``stands`` the levels that need none."""
    sign = -1 if side == _BUY else 1
    for slot in range(slots.shape[1]):
        own = slots[instrument, slot]
        target = targets[instrument, slot]
        if own.side != side or target == 0:
            continue
        at = _find(levels, own.price, sign)
        if at < 0:
            continue
        if own.state == FREE and target != levels[at, 1]:
            targets[instrument, slot] = 0
            continue
        stands[at] = True
        if target != levels[at, 1]:
            if own.quantity == levels[at, 1]:
                targets[instrument, slot] = levels[at, 1]
            else:
                count = _change(commands, count, slots, targets, instrument, slot, levels[at, 1])
    return count


@kernel
def _enter(
    commands: Any, count: int, slots: Any, targets: Any, instrument: int, side: int, levels: Any, stands: Any
) -> int:
    """Put new orders on the levels that have none, as far as there are free slots."""
    slot = 0
    for at in range(levels.shape[0]):
        if stands[at]:
            continue
        while slot < slots.shape[1] and (slots[instrument, slot].state != FREE or targets[instrument, slot] != 0):
            slot += 1
        if slot == slots.shape[1]:
            break
        own = slots[instrument, slot]
        own.state, own.account, own.side, own.used = SENT, MIRROR_MAKER, side, own.used + 1
        own.price, own.quantity = levels[at, 0], levels[at, 1]
        targets[instrument, slot] = levels[at, 1]
        tag = tag_of(slots, instrument, slot)
        count = put(
            commands, count, _NEW, instrument, MIRROR_MAKER, side, own.price, own.quantity, tag, 0, _LIMIT, _GTC
        )
    return count


@kernel
def reflect(commands: Any, count: int, slots: Any, targets: Any, instrument: int, bids: Any, asks: Any) -> int:
    """Write the commands that make our orders those of the external levels; give the next count.

    Cancels come first, then amends, then new orders, so that no two orders of the mirror cross.

    Args:
        commands, count: zeroed COMMAND rows and the next free one.
        slots: of `OwnOrders`; targets: int64 of the same shape.
        bids, asks: external levels, int64 (n, 2) of price and lots, best first.
    """
    count = _reduce(commands, count, slots, targets, instrument, bids, asks)
    bids_stand = np.zeros(bids.shape[0], np.bool_)
    asks_stand = np.zeros(asks.shape[0], np.bool_)
    count = _adjust(commands, count, slots, targets, instrument, _BUY, bids, bids_stand)
    count = _adjust(commands, count, slots, targets, instrument, _SELL, asks, asks_stand)
    count = _enter(commands, count, slots, targets, instrument, _BUY, bids, bids_stand)
    return _enter(commands, count, slots, targets, instrument, _SELL, asks, asks_stand)
