"""The agents of the simulated market: kernels that decide which commands they send in a step.

    makers      keep ladders of quotes around the value, leaning against what they hold
    arbiters    trade what rests on the wrong side of the value
    followers   buy what rises and sell what falls
    noise       market and limit orders and cancels, in bursts, with moods

Every order a kernel puts down is a COMMAND row; orders that rest have a slot (`own_orders`).
"""

from __future__ import annotations

import math
from typing import Any

from tvops.engine.compiled import kernel
from tvops.engine.feeds.makers import EDGE, MAKERS, RUNGS, bounded, lots, make, outside, rest
from tvops.engine.feeds.value import STEP_SECONDS, move_value, normal, observe, uniform
from tvops.engine.market.own_orders import FREE, LIVE, NO_SLOT, put, tag_of
from tvops.engine.records import SIM_ACCOUNTS, Kind, OrderType, Side, TimeInForce

NOISE_SLOTS = 48
"""Most limit orders of noise traders that rest in an instrument."""

SLOTS = MAKERS * 2 * RUNGS + NOISE_SLOTS
MOST_COMMANDS = MAKERS * 2 * RUNGS + 16
"""Commands that the agents of one instrument can send in a step, at most."""

_FIRST = SIM_ACCOUNTS.start
_ARBITERS, _FOLLOWERS, _NOISE, _END = 4, 8, 16, 56
"""Accounts from the first one on, by role: each role ends where the next begins; makers are first."""

ACCOUNTS = range(_FIRST, _FIRST + _END)

_FULL_ACTIVITY = 8  # instruments up to which all are as busy as they like; more share what these have
_ORDERS_PER_SECOND, _MOST_PER_SECOND = 20.0, 100.0  # of noise traders
_TREND = 5.0  # units between the averages from which on followers act
_HOLD = 20.0  # usual orders that a taker holds at most
_PROTECTION = 25.0  # units behind the best price that an order of a taker goes

_NEW, _AMEND, _CANCEL = int(Kind.NEW), int(Kind.AMEND), int(Kind.CANCEL)
_BUY, _SELL = int(Side.BUY), int(Side.SELL)
_LIMIT, _MARKET = int(OrderType.LIMIT), int(OrderType.MARKET)
_GTC, _IOC = int(TimeInForce.GTC), int(TimeInForce.IOC)


@kernel
def _take(
    commands: Any, count: int, instrument: int, account: int, side: int, price: int, quantity: int, serial: Any
) -> int:
    """Put an order that takes what there is up to ``price`` (0: at any price) and never rests."""
    serial[0] += 1
    tag = (serial[0] << 32) | (instrument << 16) | NO_SLOT
    order_type = _MARKET if price == 0 else _LIMIT
    return put(commands, count, _NEW, instrument, account, side, price, quantity, tag, 0, order_type, _IOC)


@kernel
def _arbitrate(
    commands: Any, count: int, markets: Any, tops: Any, random: Any, instrument: int, serial: Any
) -> int:
    """Take what rests beyond the value, as others who know it would."""
    market = markets[instrument]
    account = _FIRST + _ARBITERS + int(uniform(random) * (_FOLLOWERS - _ARBITERS))
    bid, ask = tops[instrument, 0, 0], tops[instrument, 1, 0]
    slack = EDGE * market.unit
    quantity = int(max(1.0, 8.0 * market.lots))
    if bid > 0 and bid > market.value + slack:
        price = bounded(market, market.value + slack, _SELL)
        count = _take(commands, count, instrument, account, _SELL, price, quantity, serial)
    if ask > 0 and ask < market.value - slack:
        price = bounded(market, market.value - slack, _BUY)
        count = _take(commands, count, instrument, account, _BUY, price, quantity, serial)
    return count


@kernel
def _cross(
    commands: Any, count: int, markets: Any, tops: Any, random: Any, instrument: int, account: int, side: int,
    quantity: int, serial: Any,
) -> int:  # fmt: skip
    """Take from the other side, up to a limit some way behind its best price; sometimes at any price."""
    market = markets[instrument]
    best = tops[instrument, 1 if side == _BUY else 0, 0]
    if best == 0:
        return count
    reach = _PROTECTION * market.unit * (1.0 if side == _BUY else -1.0)
    price = 0 if uniform(random) < 0.3 else bounded(market, best + reach, side)
    return _take(commands, count, instrument, account, side, price, quantity, serial)


@kernel
def _chase(
    commands: Any, count: int, markets: Any, tops: Any, positions: Any, random: Any, instrument: int, serial: Any
) -> int:
    """Let one follower, and one arbiter, act on the trend or give back what it holds."""
    market = markets[instrument]
    trend = (market.fast - market.slow) / (market.unit * _TREND)
    if uniform(random) < 0.06 * min(abs(trend), 3.0):
        which = _FOLLOWERS + int(uniform(random) * (_NOISE - _FOLLOWERS))
        side = _BUY if trend > 0 else _SELL
        held = positions[which, instrument] / market.lots * (1.0 if side == _BUY else -1.0)
        if held < _HOLD and abs(trend) > 1.0:
            count = _cross(
                commands, count, markets, tops, random, instrument, _FIRST + which, side,
                lots(market, 0.5, random), serial,
            )  # fmt: skip
    if uniform(random) < 0.04:
        which = _ARBITERS + int(uniform(random) * (_NOISE - _ARBITERS))
        held = positions[which, instrument]
        if abs(held) > market.lots and trend * held <= 0.0:
            side = _SELL if held > 0 else _BUY
            quantity = min(abs(held), lots(market, 1.0, random))
            count = _cross(
                commands, count, markets, tops, random, instrument, _FIRST + which, side, quantity, serial
            )
    return count


@kernel
def _place_noise(
    commands: Any, count: int, slots: Any, markets: Any, tops: Any, random: Any, instrument: int, account: int,
    side: int,
) -> int:  # fmt: skip
    """Rest a limit order near the best price, now and then inside the spread; or cancel one."""
    market = markets[instrument]
    first = MAKERS * 2 * RUNGS
    slot = first + int(uniform(random) * NOISE_SLOTS)
    own = slots[instrument, slot]
    if own.state == LIVE:
        return put(
            commands, count, _CANCEL, instrument, own.account, own.side, 0, 0,
            tag_of(slots, instrument, slot), own.order_id, _LIMIT, _GTC,
        )  # fmt: skip
    if own.state != FREE:
        return count
    sign = -1.0 if side == _BUY else 1.0
    best = tops[instrument, side - 1, 0]
    away = -4.0 * market.unit * math.log(1.0 - uniform(random)) - 1.5
    start = best if best > 0 else market.value + sign * market.unit
    price = outside(market, tops[instrument], start + sign * away, side)
    return rest(commands, count, slots, instrument, slot, account, side, price, lots(market, 0.4, random))


@kernel
def _stir(
    commands: Any, count: int, slots: Any, markets: Any, tops: Any, positions: Any, random: Any, instrument: int,
    serial: Any, activity: float,
) -> int:  # fmt: skip
    """Let noise traders trade: more of them while it is exciting, on the side of their mood."""
    market = markets[instrument]
    rate = min(_ORDERS_PER_SECOND * (1.0 + market.excitement), _MOST_PER_SECOND)
    due = rate * STEP_SECONDS * activity
    while uniform(random) < due:
        due -= 1.0
        which = _NOISE + int(uniform(random) * (_END - _NOISE))
        held = positions[which, instrument] / (market.lots * 10.0)
        lean = 0.3 * math.tanh(market.sentiment) + 0.03 * (market.value - market.middle) / market.unit - 0.3 * held
        side = _BUY if uniform(random) < 0.5 + min(max(lean, -0.45), 0.45) else _SELL
        if uniform(random) < 0.42:
            count = _cross(
                commands, count, markets, tops, random, instrument, _FIRST + which, side,
                lots(market, 0.15, random), serial,
            )  # fmt: skip
            market.excitement += 0.02
        else:
            count = _place_noise(commands, count, slots, markets, tops, random, instrument, _FIRST + which, side)
    return count


@kernel
def decide(
    commands: Any, slots: Any, markets: Any, tops: Any, positions: Any, last_held: Any, halted: Any, random: Any,
    serial: Any,
) -> int:  # fmt: skip
    """Let one step pass for all instruments and give how many commands the agents send.

    Args:
        commands: (n * MOST_COMMANDS,) zeroed COMMAND rows; the first ones are written.
        slots, tops, positions, halted: of `OwnOrders`, with `SLOTS` slots and `ACCOUNTS`.
        markets: (n,) of MARKET.
        last_held: (n,) int64, what all agents together held at the last step; kept here.
        random: (1,) uint64 state of the generator.
        serial: (1,) int64 counter of the orders that never rest.
    """
    count = 0
    shared = normal(random)
    activity = min(1.0, _FULL_ACTIVITY / markets.shape[0])
    for instrument in range(markets.shape[0]):
        market = markets[instrument]
        held = positions[:, instrument].sum()
        move_value(market, shared, float(last_held[instrument] - held), random)
        last_held[instrument] = held
        observe(market, tops[instrument, 0, 0], tops[instrument, 1, 0], random)
        if halted[instrument]:
            market.pause = int(1.0 / STEP_SECONDS)
        if market.pause > 0:
            market.pause -= 1
            continue
        count = make(commands, count, slots, markets, tops, positions, random, instrument, activity)
        count = _arbitrate(commands, count, markets, tops, random, instrument, serial)
        count = _chase(commands, count, markets, tops, positions, random, instrument, serial)
        count = _stir(commands, count, slots, markets, tops, positions, random, instrument, serial, activity)
    return count
