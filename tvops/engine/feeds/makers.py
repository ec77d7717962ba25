"""The makers of the simulated market: ladders of quotes around the value, and what their orders have in common."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvops.engine.compiled import kernel
from tvops.engine.feeds.value import BURST, normal, uniform
from tvops.engine.market.own_orders import FREE, LIVE, SENT, put, tag_of
from tvops.engine.records import SIM_ACCOUNTS, Kind, OrderType, Side, TimeInForce

MAKERS, RUNGS = 4, 8
"""Makers of an instrument, and quotes of each on a side. Their accounts are the first, their slots too."""

EDGE = 0.6  # units from the value to the best quote of the first maker
_SPACING = (1.0, 2.0, 3.0, 6.0)  # units between the quotes of a maker
_SIZE = (0.6, 1.0, 1.8, 5.0)  # usual orders in a quote of a maker
_LEAN, _FULL = 2.0, 40.0  # units that a maker leans at most; usual orders held at which it does
_MOVES = 3  # quotes of a side that a maker moves in a turn, unless many are out of place
_TURN = 0.8  # share of the steps in which a maker has its turn

_FIRST = SIM_ACCOUNTS.start
_NEW, _AMEND = int(Kind.NEW), int(Kind.AMEND)
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_LIMIT, _GTC = int(OrderType.LIMIT), int(TimeInForce.GTC)


@kernel
def rest(
    commands: Any, count: int, slots: Any, instrument: int, slot: int, account: int, side: int, price: int,
    quantity: int,
) -> int:  # fmt: skip
    """Put a quote into a slot: a new order where it is free, a change of its order where it has one."""
    own = slots[instrument, slot]
    kind, order_id = _AMEND, own.order_id
    if own.state == FREE:
        kind, order_id = _NEW, 0
        own.state, own.account, own.side = SENT, account, side
        own.price, own.quantity, own.used = price, quantity, own.used + 1
    tag = tag_of(slots, instrument, slot)
    return put(commands, count, kind, instrument, account, side, price, quantity, tag, order_id, _LIMIT, _GTC)


@kernel
def bounded(market: Any, price: float, side: int) -> int:
    """Round away from the other side, into the bounds of the market."""
    rounded = math.floor(price) if side == _BUY else math.ceil(price)
    return int(min(max(rounded, market.lowest), market.highest))


@kernel
def outside(market: Any, top: Any, price: float, side: int) -> int:
    """Round a price, and keep it from meeting the best price of the other side."""
    rounded = bounded(market, price, side)
    if side == _BUY:
        ask = top[1, 0]
        return int(max(ask - 1, market.lowest)) if 0 < ask <= rounded else rounded
    bid = top[0, 0]
    return int(min(bid + 1, market.highest)) if bid >= rounded else rounded


@kernel
def lots(market: Any, usual_orders: float, random: Any) -> int:
    """Give a log-normal size around ``usual_orders`` usual orders, at least one lot."""
    size = market.lots * usual_orders * math.exp(0.6 * normal(random))
    return int(max(1.0, min(size, 20.0 * market.lots)))


@kernel
def _survey(
    market: Any, quotes: Any, sign: float, fair: float, edge: float, step: float, taken: Any, rank: Any
) -> int:
    """Mark the rungs that are ``taken``, rank the quotes that may move (lowest first), count the misplaced ones.

    In this order: too far in front, no order yet, too far behind, second on its rung.
    """
    out_of_place = 0
    for n in range(RUNGS):
        rank[n] = np.inf
        if quotes[n].state == FREE:
            rank[n] = 0.0
            out_of_place += 1
        elif quotes[n].state == LIVE:
            behind = (sign * (quotes[n].price - fair) / market.unit - edge) / step
            rung = max(math.floor(behind + 0.5), 0)
            if behind < -0.5 - 0.5 / market.unit:
                rank[n] = behind
                out_of_place += 1
            elif rung >= RUNGS:
                rank[n] = 1.0 / behind
                out_of_place += 1
            elif not taken[rung]:
                taken[rung] = True
            elif rung > 1:
                rank[n] = 1.0 + behind
    return out_of_place


@kernel
def _ladder(
    commands: Any, count: int, slots: Any, markets: Any, tops: Any, random: Any, instrument: int, maker: int,
    side: int, fair: float,
) -> int:  # fmt: skip
    """Move quotes of one side of a maker to the rungs that have none, the front first."""
    market = markets[instrument]
    sign = -1.0 if side == _BUY else 1.0
    step = _SPACING[maker]
    edge = EDGE * (1.0 + 0.15 * maker) * (2.5 if market.regime == BURST else 1.0)
    first = (maker * 2 + side - 1) * RUNGS
    quotes = slots[instrument, first : first + RUNGS]
    taken = np.zeros(RUNGS, np.bool_)
    rank = np.empty(RUNGS)
    moves = _MOVES
    if _survey(market, quotes, sign, fair, edge, step, taken, rank) > _MOVES:
        moves = RUNGS
    for rung in range(RUNGS):
        if taken[rung] or moves == 0:
            continue
        n = int(np.argmin(rank))
        if rank[n] == np.inf or (rank[n] > 1.0 and rung > 0):
            continue
        rank[n] = np.inf
        moves -= 1
        away = edge + (rung + 0.5 * (uniform(random) - 0.5) * min(1.0, market.unit - 1.0)) * step
        price = outside(market, tops[instrument], fair + sign * away * market.unit, side)
        quantity = lots(market, _SIZE[maker] * (1.0 + 0.12 * rung), random)
        count = rest(commands, count, slots, instrument, first + n, _FIRST + maker, side, price, quantity)
    return count


@kernel
def make(
    commands: Any, count: int, slots: Any, markets: Any, tops: Any, positions: Any, random: Any, instrument: int,
    activity: float,
) -> int:  # fmt: skip
    """Give every maker whose turn it is a look at its ladders; ``activity`` is the share of the usual turns."""
    market = markets[instrument]
    turn = _TURN * activity
    for maker in range(MAKERS):
        if uniform(random) >= turn:
            continue
        held = positions[maker, instrument] / (market.lots * _FULL * _SIZE[maker])
        fair = market.value - _LEAN * market.unit * min(max(held, -1.0), 1.0)
        for side in (_BUY, _SELL):
            count = _ladder(commands, count, slots, markets, tops, random, instrument, maker, side, fair)
    return count
