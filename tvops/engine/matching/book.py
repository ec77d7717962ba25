"""The book: price levels on a ladder, found through bitmaps, each with its orders in the order they came.

In all kernels: `state` is the arena, `slots` its int32 view; `row` is the first word of an instrument, `side` the
first word of one of its sides, `index` a level of that side (0 is the best possible price), `node` the first word
of an order.
"""

from tvops.engine.matching import layout as at
from tvops.engine.matching.layout import Halves, Words
from tvops.engine.matching.words import emit, hot, lowest_bit, part, stay_apart, u, who_word, wide
from tvops.engine.records import EventKind, Side

_TOP = int(EventKind.TOP)
_BUY = int(Side.BUY)


@hot
def side_of(row: int, sell: int) -> int:
    """First word of the buys (0) or the sells (1) of an instrument."""
    return row + at.INSTRUMENT_WORDS + sell * at.SIDE_WORDS


@hot
def side_of_meta(meta: int) -> int:
    """First word of the side that an order rests on."""
    instrument = (meta >> at.META_INSTRUMENT) & (at.MAX_INSTRUMENTS - 1)
    return side_of(at.HEADER + instrument * at.ROW_WORDS, (meta >> at.META_SELL) & 1)


@hot
def who_of_meta(meta: int, kind: int) -> int:
    """Account, instrument, kind and side of an event about an order."""
    instrument = (meta >> at.META_INSTRUMENT) & (at.MAX_INSTRUMENTS - 1)
    return who_word((meta >> at.META_ACCOUNT) & at.WORD, instrument, kind, _BUY + ((meta >> at.META_SELL) & 1))


@hot
def position_of(state: Words, instrument: int, account: int) -> int:
    """First word of what an account has in an instrument."""
    return state[u(at.H_POSITIONS)] + (instrument * state[u(at.H_MAX_ACCOUNTS)] + account) * at.POSITION_WORDS


@hot
def occupy(state: Words, side: int, index: int) -> None:
    """Set the level's bit in the bitmaps."""
    word = u(state[u(side + at.S_BITS)] + (index >> 6))
    before = state[word]
    state[word] = before | (1 << (index & 63))
    if before == 0:
        for height in range(1, 4):
            index >>= 6
            word = u(state[u(side + at.S_BITS + height)] + (index >> 6))
            state[word] |= 1 << (index & 63)


@hot
def vacate(state: Words, side: int, index: int, empty: int) -> None:
    """Clear the level's bit in the bitmaps where ``empty`` is 1; nothing where it is 0."""
    word = u(state[u(side + at.S_BITS)] + (index >> 6))
    after = state[word] & ~(empty << (index & 63))
    state[word] = after
    if after == 0:
        for height in range(1, 4):
            index >>= 6
            word = u(state[u(side + at.S_BITS + height)] + (index >> 6))
            after = state[word] & ~(1 << (index & 63))
            state[word] = after
            if after != 0:
                break


@part
def next_level(state: Words, side: int, index: int) -> int:
    """Best index of a side whose levels are all behind ``index``; NO_LEVEL where it is empty."""
    leaf = state[u(state[u(side + at.S_BITS)] + (index >> 6))]
    if leaf != 0:
        return (index & ~63) | lowest_bit(leaf)
    top = state[u(state[u(side + at.S_BITS + 3)])]
    if top == 0:
        return at.NO_LEVEL
    found = lowest_bit(top)
    found = (found << 6) | lowest_bit(state[u(state[u(side + at.S_BITS + 2)] + found)])
    found = (found << 6) | lowest_bit(state[u(state[u(side + at.S_BITS + 1)] + found)])
    return (found << 6) | lowest_bit(state[u(state[u(side + at.S_BITS)] + found)])


@part
def level_after(state: Words, side: int, index: int) -> int:
    """Give the next occupied index behind ``index``; NO_LEVEL where there is none."""
    for height in range(4):
        bits = state[u(side + at.S_BITS + height)]
        word = state[u(bits + (index >> 6))] & (-2 << (index & 63))
        if word != 0:
            found = (index & ~63) | lowest_bit(word)
            for below in range(height - 1, -1, -1):
                found = (found << 6) | lowest_bit(state[u(state[u(side + at.S_BITS + below)] + found)])
            return found
        index >>= 6
    return at.NO_LEVEL


@hot
def rest(
    state: Words, slots: Halves, side: int, index: int, slot: int, order_id: int, meta: int, quantity: int
) -> int:
    """Put an order behind all others of its level; give the lots that the level then has."""
    level = state[u(side + at.S_LEVELS)] + index * at.LEVEL_WORDS
    nodes = state[u(at.H_NODES)]
    node = nodes + slot * at.NODE_WORDS
    tail = slots[u(2 * level + 1)]
    # The link that leads to the new order: that of the last order or, in an empty level, the level's own head.
    before = 2 * (nodes + tail * at.NODE_WORDS + at.N_LINKS) if tail != 0 else 2 * level
    slots[u(before)] = slot
    slots[u(2 * level + 1)] = slot
    slots[u(2 * (node + at.N_LINKS))] = 0
    slots[u(2 * (node + at.N_LINKS) + 1)] = tail
    state[u(node + at.N_ID)] = order_id
    state[u(node + at.N_LEAVES)] = quantity
    state[u(node + at.N_META)] = meta
    total = state[u(level + 1)] + quantity
    state[u(level + 1)] = total
    occupy(state, side, index)
    return total


@hot
def unlink(state: Words, slots: Halves, side: int, index: int, node: int, quantity: int) -> int:
    """Take an order of ``quantity`` out of its level, leaving its node as it is; give what the level has left."""
    level = state[u(side + at.S_LEVELS)] + index * at.LEVEL_WORDS
    links = state[u(at.H_NODES)] + at.N_LINKS
    after = slots[u(2 * (node + at.N_LINKS))]
    before = slots[u(2 * (node + at.N_LINKS) + 1)]
    from_before = 2 * (links + before * at.NODE_WORDS) if before != 0 else 2 * level
    from_after = 2 * (links + after * at.NODE_WORDS) + 1 if after != 0 else 2 * level + 1
    slots[u(from_before)] = after
    slots[u(from_after)] = before
    total = state[u(level + 1)] - quantity
    state[u(level + 1)] = total
    vacate(state, side, index, 1 if total == 0 else 0)
    return total


@hot
def release(state: Words, slots: Halves, slot: int) -> None:
    """Give an order's slot back; its id is known no more."""
    state[u(state[u(at.H_NODES)] + slot * at.NODE_WORDS + at.N_ID)] = 0
    free = state[u(at.H_FREE)]
    slots[u(2 * state[u(at.H_STACK)] + free)] = slot
    state[u(at.H_FREE)] = free + 1


@hot
def free_slot(state: Words, slots: Halves, free: int) -> int:
    """Give the slot that the next order to rest will get; ``free``: H_FREE. May be one too high: full."""
    return wide(slots[u(2 * state[u(at.H_STACK)] + free - 1)]) if free != 0 else state[u(at.H_HIGH)] + 1


@hot
def take_slot(state: Words, free: int) -> None:
    """Take the slot that `free_slot` gave."""
    if free != 0:
        state[u(at.H_FREE)] = free - 1
    else:
        state[u(at.H_HIGH)] += 1


@hot
def account_open(state: Words, position: int, sell: int, account: int, quantity: int, orders: int) -> None:
    """Count resting lots and orders of an account up or down."""
    state[u(position + at.P_OPEN + sell)] += quantity
    state[u(at.ACCOUNTS + account * at.ACCOUNT_WORDS + at.A_OPEN)] += orders


@hot
def put_top(state: Words, events: Words, row_out: int, seq: int, time: int, side: int, who: int) -> int:
    """Write the TOP event of a side; give the next free event row."""
    best = state[u(side + at.S_BEST)]
    price = 0
    quantity = 0
    if best != at.NO_LEVEL:
        price = state[u(side + at.S_ORIGIN)] + best * state[u(side + at.S_STEP)]
        quantity = state[u(state[u(side + at.S_LEVELS)] + best * at.LEVEL_WORDS + 1)]
    state[u(side + at.S_TOP)] = best
    state[u(side + at.S_TOP_QUANTITY)] = quantity
    emit(events, row_out, seq, time, 0, 0, price, quantity, 0, who, 0)
    return row_out + 1


@part
def tell_tops(state: Words, events: Words, row_out: int, seq: int, time: int, row: int, instrument: int) -> int:
    """Write a TOP event for each side, buys first, whose best price, or lots there, are not those last told."""
    stay_apart()
    for sell in range(2):
        side = side_of(row, sell)
        best = state[u(side + at.S_BEST)]
        quantity = 0
        if best != at.NO_LEVEL:
            quantity = state[u(state[u(side + at.S_LEVELS)] + best * at.LEVEL_WORDS + 1)]
        if best != state[u(side + at.S_TOP)] or quantity != state[u(side + at.S_TOP_QUANTITY)]:
            who = who_word(0, instrument, _TOP, _BUY + sell)
            row_out = put_top(state, events, row_out, seq, time, side, who)
    return row_out
