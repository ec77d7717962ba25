"""The one kernel that applies commands: a fast path for what there is most of, and the way to everything else."""

from tvops.engine.compiled import kernel
from tvops.engine.matching import layout as at
from tvops.engine.matching.book import (
    account_open,
    free_slot,
    position_of,
    put_top,
    rest,
    side_of,
    side_of_meta,
    take_slot,
    who_of_meta,
)
from tvops.engine.matching.control import control, control_refusal, ladder_words
from tvops.engine.matching.entry import amend, amend_refusal, cancel, enter, find_order, pack_meta
from tvops.engine.matching.keys import find_key, remember_key
from tvops.engine.matching.layout import Array, Halves, Words
from tvops.engine.matching.risk import crosses, refusal
from tvops.engine.matching.standing import note_standing
from tvops.engine.matching.words import emit, halves_of, hot, part, prefetch, u, who_word, words_of
from tvops.engine.records import EventKind, Flag, Kind, OrderType, Reason, SelfTrade, Side, TimeInForce

_NEW, _AMEND, _CANCEL, _DEFINE = int(Kind.NEW), int(Kind.AMEND), int(Kind.CANCEL), int(Kind.DEFINE)
_ACCEPTED, _REJECTED = int(EventKind.ACCEPTED), int(EventKind.REJECTED)
_TOP, _DUPLICATE = int(EventKind.TOP), int(EventKind.DUPLICATE)
_UNKNOWN_ORDER, _USER = int(Reason.UNKNOWN_ORDER), int(Reason.USER)
_BUY, _POST_ONLY, _POST_ONLY_FLAG = int(Side.BUY), int(Reason.POST_ONLY), int(Flag.POST_ONLY)
_PLAIN = int(OrderType.LIMIT) | int(TimeInForce.GTC) << 8
_HOW_MASK = 0xFFFF | (0xFF & ~int(Flag.POST_ONLY)) << 16 | (0xFF & ~int(SelfTrade.ALLOW)) << 24
_AHEAD = 16  # commands; a batch that comes from the network or a file is not in the first-level cache
_INSTRUMENT_MASK = (at.HALF & ~(at.MAX_INSTRUMENTS - 1)) << 32


@hot
def reply(who: int, kind: int) -> int:
    """Give a command's account, instrument and side with an event's kind."""
    return (who & ~(at.BYTE << 48)) | (kind << 48)


@hot
def is_plain(
    state: Words, who: int, how: int, price: int, quantity: int, position: int, account: int, side: int, index: int
) -> bool:
    """Say whether a NEW is a limit order that may surely rest: all that `refusal` tests, in one look.

    Where it says no, `refusal` has the last word.
    """
    step = state[u(side + at.S_STEP)]
    base = at.ACCOUNTS + account * at.ACCOUNT_WORDS
    open_now = state[u(position + at.P_OPEN + ((who >> at.WHO_SIDE) & 1 ^ 1))]
    exposed = open_now + quantity - step * state[u(position + at.P_POSITION)]
    return bool(
        ((how & _HOW_MASK) == _PLAIN)
        & ((who & _INSTRUMENT_MASK) == 0)
        & (u((who >> at.WHO_SIDE) - _BUY) < u(2))
        & (u(quantity - 1) < u(state[u(position + at.P_MOST)]))
        & (price * quantity <= state[u(position + at.P_MOST + 1)])
        & (exposed <= state[u(position + at.P_MOST + 2)])
        & (state[u(base + at.A_OPEN)] < state[u(base + at.A_MOST_OPEN)])
        & (u(index - state[u(side + at.S_FIRST)]) < u(state[u(side + at.S_SPAN)]))
    )


@part
def lacks_memory(state: Words, who: int, size: int) -> bool:
    """Say whether a DEFINE must wait for more memory; H_NEED then tells how many words it takes in all."""
    row = at.HEADER + ((who >> 32) & at.HALF) * at.ROW_WORDS
    end = state[u(at.H_END)] + ladder_words(size)
    if state[u(row + at.I_SIZE)] != 0 or end <= state[u(at.H_CAPACITY)]:
        return False
    state[u(at.H_NEED)] = end
    return True


@hot
def answer_new(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int, ref: int,
    who: int, how: int, price: int, quantity: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Carry out a NEW; give the next free event row, a Reason where it is refused, and its order id."""
    instrument = (who >> 32) & (at.MAX_INSTRUMENTS - 1)
    account = who & at.WORD
    account = account if account < state[u(at.H_MAX_ACCOUNTS)] else 0
    sell = ((who >> at.WHO_SIDE) & 1) ^ 1
    row = at.HEADER + instrument * at.ROW_WORDS
    side = side_of(row, sell)
    position = position_of(state, instrument, account)
    index = (price - state[u(side + at.S_ORIGIN)]) * state[u(side + at.S_STEP)]
    free = state[u(at.H_FREE)]
    slot = free_slot(state, slots, free)
    counter = state[u(at.H_ORDERS)] + 1
    state[u(at.H_ORDERS)] = counter
    order_id = (counter << at.SLOT_BITS) | slot
    plain = is_plain(state, who, how, price, quantity, position, account, side, index)
    if not (plain and slot <= state[u(at.H_MAX_ORDERS)]):
        reason = refusal(state, slots, who, how, price, quantity)
        if reason == 0:
            note_standing(state, instrument, account)
            row_out = enter(state, slots, events, row_out, seq, time, ref, order_id, who, how, price, quantity)
        return row_out, reason, order_id
    post_only = (how >> 16) & _POST_ONLY_FLAG
    if crosses(state, row, sell, index):
        if post_only != 0:
            return row_out, _POST_ONLY, order_id
        row_out = enter(state, slots, events, row_out, seq, time, ref, order_id, who, how, price, quantity)
        return row_out, 0, order_id
    emit(events, row_out, seq, time, order_id, ref, price, quantity, quantity, reply(who, _ACCEPTED), 0)
    row_out += 1
    take_slot(state, free)
    meta = pack_meta(account, instrument, sell, post_only, index)
    rest(state, slots, side, index, slot, order_id, meta, quantity)
    account_open(state, position, sell, account, quantity, 1)
    if index <= state[u(side + at.S_BEST)]:
        state[u(side + at.S_BEST)] = index
        row_out = put_top(state, events, row_out, seq, time, side, who_word(0, instrument, _TOP, _BUY + sell))
    return row_out, 0, order_id


@hot
def answer_change(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int, ref: int,
    order_id: int, who: int, how: int, price: int, quantity: int,
) -> tuple[int, int]:  # fmt: skip
    """Carry out a CANCEL or an AMEND; give the next free event row, and a Reason where it is refused."""
    node = find_order(state, order_id, who & at.WORD)
    if node == 0:
        return row_out, _UNKNOWN_ORDER
    if (who >> at.WHO_KIND) & at.BYTE == _CANCEL:
        meta = state[u(node + at.N_META)]
        side = side_of_meta(meta)
        best = state[u(side + at.S_BEST)]
        row_out = cancel(state, slots, events, row_out, seq, time, ref, node, meta, side, _USER)
        if meta & at.MAX_PRICE == best:
            row_out = put_top(state, events, row_out, seq, time, side, who_of_meta(meta & at.WORD, _TOP))
        return row_out, 0
    reason = amend_refusal(state, node, how, price, quantity)
    if reason == 0:
        row_out = amend(state, slots, events, row_out, seq, time, ref, node, how, price, quantity)
    return row_out, reason


@kernel
def apply_batch(
    arena: Array, batch: Array, buffer: Array, first: int, last: int, row_out: int, room: int
) -> int:  # fmt: skip
    """Apply commands ``first`` to ``last`` - 1, rows of COMMAND as words; write rows of EVENT from ``row_out`` on.

    Returns the row behind the last event; its complement where it left early, and then H_NEXT says at which
    command: the events had passed row ``room`` (behind which the buffer has `worst_events` more), or a DEFINE
    needs H_NEED words of memory.
    """
    state, slots = words_of(arena), halves_of(arena)
    commands, events = words_of(batch), words_of(buffer)
    number = first
    while number < last and row_out <= room:
        c = number * at.COMMAND_WORDS
        prefetch(commands, c + _AHEAD * at.COMMAND_WORDS)
        prefetch(commands, c + _AHEAD * at.COMMAND_WORDS + 8)
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
    if number != first:
        state[u(at.H_SEQ)] = commands[u((number - 1) * at.COMMAND_WORDS + at.C_SEQ)]
    state[u(at.H_NEXT)] = number
    return row_out if number == last else ~row_out
