"""The one kernel that applies commands: a fast path for what there is most of, and the way to everything else."""

import numpy as np

from tvops.engine.compiled import kernel
from tvops.engine.matching import layout as at
from tvops.engine.matching.book import (
    account_open,
    free_slot,
    position_of,
    rest,
    side_of,
    take_slot,
    tell_top,
)
from tvops.engine.matching.control import control, control_refusal, ladder_words
from tvops.engine.matching.entry import amend, amend_refusal, cancel, enter, find_order, pack_meta
from tvops.engine.matching.keys import find_key, remember_key
from tvops.engine.matching.layout import Array, Halves, Words
from tvops.engine.matching.risk import crosses, refusal
from tvops.engine.matching.words import emit, part, u, who_word, wide
from tvops.engine.records import EventKind, Flag, Kind, OrderType, Reason, SelfTrade, Side, TimeInForce

_NEW, _AMEND, _CANCEL, _DEFINE = int(Kind.NEW), int(Kind.AMEND), int(Kind.CANCEL), int(Kind.DEFINE)
_ACCEPTED, _REJECTED = int(EventKind.ACCEPTED), int(EventKind.REJECTED)
_TOP, _DUPLICATE = int(EventKind.TOP), int(EventKind.DUPLICATE)
_UNKNOWN_ORDER, _USER = int(Reason.UNKNOWN_ORDER), int(Reason.USER)
_BUY, _POST_ONLY = int(Side.BUY), int(Flag.POST_ONLY)
_PLAIN = int(OrderType.LIMIT) | int(TimeInForce.GTC) << 8
_HOW_MASK = 0xFFFF | (0xFF & ~int(Flag.POST_ONLY)) << 16 | (0xFF & ~int(SelfTrade.ALLOW)) << 24
_BASIS = 10_000


@part
def reply(who: int, kind: int) -> int:
    """Give a command's account, instrument and side with an event's kind."""
    return (who & ~(at.BYTE << 48)) | (kind << 48)


@part
def is_plain(
    state: Words, who: int, how: int, price: int, quantity: int, slot: int, position: int, account: int,
    row: int, side: int, sell: int, index: int,
) -> bool:  # fmt: skip
    """Say whether a NEW is a limit order that surely may rest: one test of all that `refusal` tests in turn.

    Where it says no, `refusal` has the last word.
    """
    held = state[u(position + at.P_POSITION)]
    most_quantity = state[u(position + at.P_LIMITS)]
    most_notional = state[u(position + at.P_LIMITS + 1)]
    most_position = state[u(position + at.P_LIMITS + 2)]
    base = at.ACCOUNTS + account * at.ACCOUNT_WORDS
    most_open = state[u(base + at.A_MAX_OPEN)]
    most_quantity = most_quantity if most_quantity != 0 else state[u(row + at.I_LIMITS)]
    most_notional = most_notional if most_notional != 0 else state[u(row + at.I_LIMITS + 1)]
    most_position = most_position if most_position != 0 else state[u(row + at.I_LIMITS + 2)]
    most_open = most_open if most_open != 0 else state[u(at.H_MAX_OPEN)]
    step = state[u(side + at.S_STEP)]
    reference = state[u(row + at.I_LAST)]
    return bool(
        ((how & _HOW_MASK) == _PLAIN)
        & (u((who >> 32) & at.HALF) < u(at.MAX_INSTRUMENTS))
        & (account != 0)
        & (account == (who & at.WORD))
        & (sell == ((who >> 56) & at.BYTE) - _BUY)
        & (u(quantity - 1) < u(at.MAX_QUANTITY))
        & (u(index) < u(state[u(row + at.I_SIZE)]))
        & (((state[u(base + at.A_FLAGS)] & at.KILLED) | state[u(at.H_KILLED)] | state[u(row + at.I_HALTED)]) == 0)
        & (quantity <= most_quantity)
        & (price * quantity <= most_notional)
        & (state[u(position + at.P_OPEN + sell)] + quantity - step * held <= most_position)
        & (state[u(base + at.A_OPEN)] < most_open)
        & (reference != 0)
        & (step * (reference - price) * _BASIS <= reference * state[u(row + at.I_COLLAR)])
        & (slot <= state[u(at.H_MAX_ORDERS)])
    )


@part
def lacks_memory(state: Words, who: int, size: int) -> bool:
    """Say whether a DEFINE must wait for more memory; H_NEED then tells how many words it takes in all."""
    row = at.HEADER + ((who >> 32) & at.HALF) * at.ROW_WORDS
    end = state[u(at.H_END)] + ladder_words(size)
    if state[u(row + at.I_SIZE)] != 0 or end <= state.size:
        return False
    state[u(at.H_NEED)] = end
    return True


@part
def answer_new(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int, ref: int,
    who: int, how: int, price: int, quantity: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Carry out a NEW; give the next free event row, a Reason where it is refused, and its order id."""
    instrument = (who >> 32) & (at.MAX_INSTRUMENTS - 1)
    account = who & at.WORD
    account = account if account < state[u(at.H_MAX_ACCOUNTS)] else 0
    sell = ((who >> 56) - _BUY) & 1
    row = at.HEADER + instrument * at.ROW_WORDS
    side = side_of(row, sell)
    position = position_of(state, instrument, account)
    index = (price - state[u(side + at.S_ORIGIN)]) * state[u(side + at.S_STEP)]
    slot = wide(free_slot(state, slots))
    counter = state[u(at.H_ORDERS)] + 1
    state[u(at.H_ORDERS)] = counter
    order_id = (counter << at.SLOT_BITS) | slot
    plain = is_plain(state, who, how, price, quantity, slot, position, account, row, side, sell, index)
    if plain and not crosses(state, row, sell, index):
        emit(events, row_out, seq, time, order_id, ref, price, quantity, quantity, reply(who, _ACCEPTED), 0)
        row_out += 1
        take_slot(state)
        meta = pack_meta(account, instrument, sell, (how >> 16) & _POST_ONLY, index)
        total = rest(state, slots, side, index, slot, order_id, meta, quantity)
        account_open(state, position, sell, account, quantity, 1)
        if index <= state[u(side + at.S_BEST)]:
            state[u(side + at.S_BEST)] = index
            state[u(side + at.S_TOP)] = index
            state[u(side + at.S_TOP_QUANTITY)] = total
            top = who_word(0, instrument, _TOP, _BUY + sell)
            emit(events, row_out, seq, time, 0, 0, price, total, 0, top, 0)
            row_out += 1
        return row_out, 0, order_id
    reason = refusal(state, slots, who, how, price, quantity)
    if reason == 0:
        row_out = enter(state, slots, events, row_out, seq, time, ref, order_id, who, how, price, quantity)
    return row_out, reason, order_id


@part
def answer_change(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int, ref: int,
    order_id: int, who: int, how: int, price: int, quantity: int,
) -> tuple[int, int]:  # fmt: skip
    """Carry out a CANCEL or an AMEND; give the next free event row, and a Reason where it is refused."""
    node = find_order(state, order_id, who & at.WORD)
    if node == 0:
        return row_out, _UNKNOWN_ORDER
    if (who >> 48) & at.BYTE == _CANCEL:
        meta = state[u(node + at.N_META)]
        sell = (meta >> at.META_SELL) & 1
        instrument = (meta >> at.META_INSTRUMENT) & (at.MAX_INSTRUMENTS - 1)
        side = side_of(at.HEADER + instrument * at.ROW_WORDS, sell)
        row_out = cancel(state, slots, events, row_out, seq, time, ref, node, _USER)
        if meta & at.MAX_PRICE <= state[u(side + at.S_BEST)]:
            top = who_word(0, instrument, _TOP, _BUY + sell)
            row_out = tell_top(state, events, row_out, seq, time, side, top)
        return row_out, 0
    reason = amend_refusal(state, node, how, price, quantity)
    if reason == 0:
        row_out = amend(state, slots, events, row_out, seq, time, ref, node, how, price, quantity)
    return row_out, reason


@kernel
def apply_batch(
    state: Array, commands: Array, events: Array, first: int, last: int, row_out: int, room: int
) -> int:  # fmt: skip
    """Apply commands ``first`` to ``last`` - 1, rows of COMMAND as words; write rows of EVENT from ``row_out`` on.

    Returns the row behind the last event. H_NEXT tells how far it came: it leaves early where the events pass row
    ``room`` (behind which the buffer has `worst_events` more) and where a DEFINE needs more memory (H_NEED words).
    """
    slots = state.view(np.int32)
    number = first
    while number < last and row_out <= room:
        c = number * at.COMMAND_WORDS
        who = commands[u(c + at.C_WHO)]
        how = commands[u(c + at.C_HOW)]
        kind = (who >> 48) & at.BYTE
        seq = commands[u(c + at.C_SEQ)]
        time = commands[u(c + at.C_TIME)]
        order_id = commands[u(c + at.C_ORDER_ID)]
        price = commands[u(c + at.C_PRICE)]
        quantity = commands[u(c + at.C_QUANTITY)]
        key_high = commands[u(c + at.C_KEY_HIGH)]
        ref = commands[u(c + at.C_KEY_LOW)]
        answer = find_key(state, slots, key_high, ref) if key_high != 0 else 0
        reason = 0
        if answer != 0:
            first_id, first_reason = state[u(answer + 2)], state[u(answer + 3)]
            emit(events, row_out, seq, time, first_id, ref, 0, 0, 0, reply(who, _DUPLICATE), first_reason)
            row_out += 1
        elif kind == _NEW:
            row_out, reason, order_id = answer_new(
                state, slots, events, row_out, seq, time, ref, who, how, price, quantity
            )
        elif kind == _CANCEL or kind == _AMEND:  # noqa: SIM109
            row_out, reason = answer_change(
                state, slots, events, row_out, seq, time, ref, order_id, who, how, price, quantity
            )
        else:
            reason = control_refusal(state, who, how, price, quantity, order_id)
            if reason == 0:
                if kind == _DEFINE and lacks_memory(state, who, quantity):
                    break
                row_out = control(
                    state, slots, events, row_out, seq, time, ref, who, how, price, quantity, order_id
                )
        if reason != 0:
            emit(events, row_out, seq, time, order_id, ref, price, quantity, 0, reply(who, _REJECTED), reason)
            row_out += 1
        if key_high != 0 and answer == 0:
            remember_key(state, slots, key_high, ref, order_id if kind <= _CANCEL else 0, reason)
        number += 1
        state[u(at.H_SEQ)] = seq
    state[u(at.H_NEXT)] = number
    return row_out
