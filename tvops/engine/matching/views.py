"""Reading the book: depth, the orders in their order, and putting them back."""

from tvops.engine.compiled import kernel
from tvops.engine.matching import layout as at
from tvops.engine.matching.book import level_after, rest, side_of
from tvops.engine.matching.control import define
from tvops.engine.matching.keys import store_key
from tvops.engine.matching.layout import Array
from tvops.engine.matching.words import halves_of, u, wide, words_of


@kernel
def read_depth(arena: Array, instrument: int, sell: int, levels: Array) -> int:
    """Fill rows of ``levels`` (n x 3: price, lots, orders) with the best levels of a side; give their number."""
    state, slots = words_of(arena), halves_of(arena)
    side = side_of(at.HEADER + instrument * at.ROW_WORDS, sell)
    links = state[u(at.H_NODES)] + at.N_LINKS
    count = 0
    index = state[u(side + at.S_BEST)]
    while index != at.NO_LEVEL and count < len(levels):
        level = state[u(side + at.S_LEVELS)] + index * at.LEVEL_WORDS
        orders = 0
        slot = wide(slots[u(2 * level)])
        while slot != 0:
            orders += 1
            slot = wide(slots[u(2 * (links + slot * at.NODE_WORDS))])
        levels[count, 0] = state[u(side + at.S_ORIGIN)] + index * state[u(side + at.S_STEP)]
        levels[count, 1] = state[u(level + 1)]
        levels[count, 2] = orders
        count += 1
        index = level_after(state, side, index)
    return count


@kernel
def read_orders(arena: Array, orders: Array) -> int:
    """Fill rows of ``orders`` (n x 3: id, lots, N_META) with the live orders, by instrument, side, price, age."""
    state, slots = words_of(arena), halves_of(arena)
    nodes = state[u(at.H_NODES)]
    count = 0
    for instrument in range(at.MAX_INSTRUMENTS):
        row = at.HEADER + instrument * at.ROW_WORDS
        if state[u(row + at.I_SIZE)] == 0:
            continue
        for sell in range(2):
            side = side_of(row, sell)
            index = state[u(side + at.S_BEST)]
            while index != at.NO_LEVEL:
                slot = wide(slots[u(2 * (state[u(side + at.S_LEVELS)] + index * at.LEVEL_WORDS))])
                while slot != 0:
                    node = nodes + slot * at.NODE_WORDS
                    orders[count, 0] = state[u(node + at.N_ID)]
                    orders[count, 1] = state[u(node + at.N_LEAVES)]
                    orders[count, 2] = state[u(node + at.N_META)]
                    count += 1
                    slot = wide(slots[u(2 * (node + at.N_LINKS))])
                index = level_after(state, side, index)
    return count


@kernel
def restore(arena: Array, instruments: Array, orders: Array, keys: Array, key_count: int) -> None:
    """Build ladders, orders and key table in a fresh arena from what `read_orders` and the export gave.

    ``instruments``: n x 10 (number, I_SIZE to I_LIMITS + 2); ``keys``: n x 4, oldest first, the last
    of ``key_count`` keys ever remembered.
    """
    state, slots = words_of(arena), halves_of(arena)
    for i in range(len(instruments)):
        number = instruments[i, 0]
        define(state, number, instruments[i, 1 + at.I_LOW], instruments[i, 1 + at.I_SIZE], 0)
        for word in range(9):
            state[u(at.HEADER + number * at.ROW_WORDS + word)] = instruments[i, 1 + word]
    for i in range(len(orders)):
        order_id = orders[i, 0]
        meta = orders[i, 2]
        index = meta & at.MAX_PRICE
        row = at.HEADER + ((meta >> at.META_INSTRUMENT) & (at.MAX_INSTRUMENTS - 1)) * at.ROW_WORDS
        side = side_of(row, (meta >> at.META_SELL) & 1)
        total = rest(state, slots, side, index, order_id & at.SLOT_MASK, order_id, meta, orders[i, 1])
        if index <= state[u(side + at.S_BEST)]:
            state[u(side + at.S_BEST)] = index
            state[u(side + at.S_TOP)] = index
            state[u(side + at.S_TOP_QUANTITY)] = total
    for i in range(len(keys)):
        number = (key_count - len(keys) + i) & (state[u(at.H_MAX_KEYS)] - 1)
        store_key(state, slots, number, keys[i, 0], keys[i, 1], keys[i, 2], keys[i, 3])
