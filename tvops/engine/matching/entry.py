"""Entering, amending and cancelling one order."""

from tvops.engine.matching import layout as at
from tvops.engine.matching.book import (
    account_open,
    next_level,
    position_of,
    release,
    rest,
    side_of,
    take_slot,
    tell_tops,
    unlink,
    who_of_meta,
)
from tvops.engine.matching.layout import Halves, Words
from tvops.engine.matching.risk import collar_index, crosses, is_exempt, over_limits, within_collar
from tvops.engine.matching.sweep import can_fill, sweep
from tvops.engine.matching.words import emit, hot, part, stay_apart, u, who_word
from tvops.engine.records import EventKind, Flag, OrderType, Reason, SelfTrade, Side, TimeInForce

_ACCEPTED, _AMENDED, _CANCELLED = int(EventKind.ACCEPTED), int(EventKind.AMENDED), int(EventKind.CANCELLED)
_MARKET, _GTC, _FOK = int(OrderType.MARKET), int(TimeInForce.GTC), int(TimeInForce.FOK)
_POST_ONLY_FLAG, _LAST_SELF_TRADE = int(Flag.POST_ONLY), int(SelfTrade.ALLOW)
_SELF_TRADE, _FILL_OR_KILL = int(Reason.SELF_TRADE), int(Reason.FILL_OR_KILL)
_COLLAR, _NO_LIQUIDITY = int(Reason.COLLAR), int(Reason.NO_LIQUIDITY)
_IMMEDIATE_OR_CANCEL, _POST_ONLY = int(Reason.IMMEDIATE_OR_CANCEL), int(Reason.POST_ONLY)
_BAD_COMMAND, _BAD_QUANTITY, _BAD_PRICE = int(Reason.BAD_COMMAND), int(Reason.BAD_QUANTITY), int(Reason.BAD_PRICE)
_PRICE_BAND, _NOTHING_TO_AMEND = int(Reason.PRICE_BAND), int(Reason.NOTHING_TO_AMEND)
_HALTED = int(Reason.HALTED)
_BUY = int(Side.BUY)


@hot
def pack_meta(account: int, instrument: int, sell: int, post_only: int, index: int) -> int:
    """Pack the fields of N_META."""
    return (
        index
        | (sell << at.META_SELL)
        | (instrument << at.META_INSTRUMENT)
        | (post_only << at.META_POST_ONLY)
        | (account << at.META_ACCOUNT)
    )


@hot
def find_order(state: Words, order_id: int, account: int) -> int:
    """First word of a live order of ``account``, or 0."""
    slot = order_id & at.SLOT_MASK
    slot = slot if slot <= state[u(at.H_HIGH)] else 0
    node = state[u(at.H_NODES)] + slot * at.NODE_WORDS
    owner = (state[u(node + at.N_META)] >> at.META_ACCOUNT) & at.WORD
    return node if (slot != 0) & (state[u(node + at.N_ID)] == order_id) & (owner == account) else 0


@part
def work(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int, order_id: int, sell: int,
    meta: int, limit: int, price: int, quantity: int, self_trade: int, rests: int, market: int,
) -> int:  # fmt: skip
    """Trade an order, then let the rest of it rest or end; give the next free event row.

    An order that may rest (``rests``) has its slot already; it is given back where nothing comes to rest.
    """
    stay_apart()
    instrument = (meta >> at.META_INSTRUMENT) & (at.MAX_INSTRUMENTS - 1)
    account = (meta >> at.META_ACCOUNT) & at.WORD
    row = at.HEADER + instrument * at.ROW_WORDS
    row_out, left, stopped = sweep(
        state, slots, events, row_out, seq, time,
        row, instrument, sell, limit, quantity, order_id, account, self_trade,
    )  # fmt: skip
    slot = order_id & at.SLOT_MASK
    if left > 0 and rests != 0 and stopped == 0:
        side = side_of(row, sell)
        index = meta & at.MAX_PRICE
        rest(state, slots, side, index, slot, order_id, meta, left)
        account_open(state, position_of(state, instrument, account), sell, account, left, 1)
        state[u(side + at.S_BEST)] = min(index, state[u(side + at.S_BEST)])
    else:
        if rests != 0:
            release(state, slots, slot)
        if left > 0:
            if stopped != 0:
                reason = _SELF_TRADE
            elif market != 0 and state[u(side_of(row, 1 - sell) + at.S_BEST)] != at.NO_LEVEL:
                reason = _COLLAR
            else:
                reason = _NO_LIQUIDITY if left == quantity else _IMMEDIATE_OR_CANCEL
            who = who_word(account, instrument, _CANCELLED, _BUY + sell)
            emit(events, row_out, seq, time, order_id, 0, price, left, 0, who, reason)
            row_out += 1
    return tell_tops(state, events, row_out, seq, time, row, instrument)


@part
def enter(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int, ref: int,
    order_id: int, who: int, how: int, price: int, quantity: int,
) -> int:  # fmt: skip
    """Take on an order that `refusal` let pass, of any type; give the next free event row."""
    stay_apart()
    account = who & at.WORD
    instrument = (who >> 32) & at.HALF
    sell = ((who >> 56) & at.BYTE) - 1
    row = at.HEADER + instrument * at.ROW_WORDS
    market = 1 if (how & at.BYTE) == _MARKET else 0
    time_in_force = (how >> 8) & at.BYTE
    post_only = (how >> 16) & _POST_ONLY_FLAG
    self_trade = (how >> 24) & at.BYTE
    event_who = who_word(account, instrument, _ACCEPTED, _BUY + sell)
    emit(events, row_out, seq, time, order_id, ref, price, quantity, quantity, event_who, 0)
    row_out += 1
    index = 0
    if market != 0:
        limit = collar_index(state, row, sell, account)
    else:
        side = side_of(row, sell)
        index = (price - state[u(side + at.S_ORIGIN)]) * state[u(side + at.S_STEP)]
        limit = state[u(row + at.I_SIZE)] - 1 - index
    if time_in_force == _FOK and not can_fill(state, slots, row, sell, limit, quantity, account, self_trade):
        event_who = who_word(account, instrument, _CANCELLED, _BUY + sell)
        emit(events, row_out, seq, time, order_id, 0, price, quantity, 0, event_who, _FILL_OR_KILL)
        return row_out + 1
    rests = 1 if market == 0 and time_in_force == _GTC else 0
    if rests != 0:
        take_slot(state, state[u(at.H_FREE)])
    meta = pack_meta(account, instrument, sell, post_only, index)
    return work(
        state, slots, events, row_out, seq, time, order_id, sell,
        meta, limit, price, quantity, self_trade, rests, market,
    )  # fmt: skip


@hot
def take_off(state: Words, slots: Halves, node: int, meta: int, side: int, quantity: int) -> None:
    """Take an order out of the book and out of its account's counts, keeping its slot."""
    sell = (meta >> at.META_SELL) & 1
    instrument = (meta >> at.META_INSTRUMENT) & (at.MAX_INSTRUMENTS - 1)
    account = (meta >> at.META_ACCOUNT) & at.WORD
    index = meta & at.MAX_PRICE
    left = unlink(state, slots, side, index, node, quantity)
    account_open(state, position_of(state, instrument, account), sell, account, -quantity, -1)
    if left == 0 and index == state[u(side + at.S_BEST)]:
        state[u(side + at.S_BEST)] = next_level(state, side, index)


@hot
def cancel(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int, ref: int,
    node: int, meta: int, side: int, reason: int,
) -> int:  # fmt: skip
    """End a live order; give the next free event row. The TOP event is the caller's."""
    order_id = state[u(node + at.N_ID)]
    quantity = state[u(node + at.N_LEAVES)]
    price = state[u(side + at.S_ORIGIN)] + (meta & at.MAX_PRICE) * state[u(side + at.S_STEP)]
    emit(events, row_out, seq, time, order_id, ref, price, quantity, 0, who_of_meta(meta, _CANCELLED), reason)
    take_off(state, slots, node, meta, side, quantity)
    release(state, slots, order_id & at.SLOT_MASK)
    return row_out + 1


@part
def amend_refusal(state: Words, node: int, how: int, price: int, quantity: int) -> int:
    """Give the Reason why an AMEND of a live order is refused, or 0; ``price``, ``quantity`` 0: as they are."""
    stay_apart()
    meta = state[u(node + at.N_META)]
    instrument = (meta >> at.META_INSTRUMENT) & (at.MAX_INSTRUMENTS - 1)
    account = (meta >> at.META_ACCOUNT) & at.WORD
    sell = (meta >> at.META_SELL) & 1
    row = at.HEADER + instrument * at.ROW_WORDS
    side = side_of(row, sell)
    if (how >> 16) & at.BYTE > _POST_ONLY_FLAG or (how >> 24) & at.BYTE > _LAST_SELF_TRADE:
        return _BAD_COMMAND
    if not 0 <= quantity <= at.MAX_QUANTITY:
        return _BAD_QUANTITY
    if not 0 <= price <= at.MAX_PRICE:
        return _BAD_PRICE
    leaves = state[u(node + at.N_LEAVES)]
    if quantity == 0:
        quantity = leaves
    index = meta & at.MAX_PRICE
    if price != 0:
        index = (price - state[u(side + at.S_ORIGIN)]) * state[u(side + at.S_STEP)]
        if not 0 <= index < state[u(row + at.I_SIZE)]:
            return _PRICE_BAND
    if index == meta & at.MAX_PRICE and quantity <= leaves:
        return _NOTHING_TO_AMEND if quantity == leaves else 0
    if state[u(row + at.I_HALTED)] != 0:
        return _HALTED
    price = state[u(side + at.S_ORIGIN)] + index * state[u(side + at.S_STEP)]
    open_now = state[u(position_of(state, instrument, account) + at.P_OPEN + sell)] - leaves
    reason = over_limits(state, instrument, account, sell, price, quantity, open_now)
    if reason != 0:
        return reason
    if not is_exempt(state, account) and not within_collar(state, row, sell, price):
        return _COLLAR
    post_only = ((meta >> at.META_POST_ONLY) | (how >> 16)) & _POST_ONLY_FLAG
    return _POST_ONLY if post_only != 0 and crosses(state, row, sell, index) else 0


@part
def amend(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int, ref: int,
    node: int, how: int, price: int, quantity: int,
) -> int:  # fmt: skip
    """Change a live order that `amend_refusal` let pass; give the next free event row.

    Less quantity at the same price keeps the order's place in its level. Anything else takes it out and enters it
    anew under its id: it may trade, and rests behind the orders that are there.
    """
    stay_apart()
    meta = state[u(node + at.N_META)]
    order_id = state[u(node + at.N_ID)]
    instrument = (meta >> at.META_INSTRUMENT) & (at.MAX_INSTRUMENTS - 1)
    account = (meta >> at.META_ACCOUNT) & at.WORD
    sell = (meta >> at.META_SELL) & 1
    row = at.HEADER + instrument * at.ROW_WORDS
    side = side_of(row, sell)
    leaves = state[u(node + at.N_LEAVES)]
    index = meta & at.MAX_PRICE
    if price != 0:
        index = (price - state[u(side + at.S_ORIGIN)]) * state[u(side + at.S_STEP)]
    if quantity == 0:
        quantity = leaves
    price = state[u(side + at.S_ORIGIN)] + index * state[u(side + at.S_STEP)]
    who = who_word(account, instrument, _AMENDED, _BUY + sell)
    emit(events, row_out, seq, time, order_id, ref, price, quantity, quantity, who, 0)
    row_out += 1
    post_only = ((meta >> at.META_POST_ONLY) | (how >> 16)) & _POST_ONLY_FLAG
    if index == meta & at.MAX_PRICE and quantity < leaves:
        state[u(node + at.N_LEAVES)] = quantity
        state[u(state[u(side + at.S_LEVELS)] + index * at.LEVEL_WORDS + 1)] += quantity - leaves
        account_open(state, position_of(state, instrument, account), sell, account, quantity - leaves, 0)
        return tell_tops(state, events, row_out, seq, time, row, instrument)
    take_off(state, slots, node, meta, side, leaves)
    meta = pack_meta(account, instrument, sell, post_only, index)
    limit = state[u(row + at.I_SIZE)] - 1 - index
    self_trade = (how >> 24) & at.BYTE
    return work(
        state, slots, events, row_out, seq, time, order_id, sell, meta, limit, price, quantity, self_trade, 1, 0
    )
