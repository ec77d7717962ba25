"""What an incoming order does to the other side of the book."""

from tvops.engine.matching import layout as at
from tvops.engine.matching.book import level_after, next_level, position_of, side_of, vacate
from tvops.engine.matching.layout import Halves, Words
from tvops.engine.matching.standing import note_span
from tvops.engine.matching.words import emit, part, stay_apart, u, who_word, wide
from tvops.engine.records import EventKind, Reason, SelfTrade, Side

_MAKER_FILL, _TAKER_FILL = int(EventKind.MAKER_FILL), int(EventKind.TAKER_FILL)
_CANCELLED, _SELF_TRADE = int(EventKind.CANCELLED), int(Reason.SELF_TRADE)
_CANCEL_RESTING, _CANCEL_INCOMING = int(SelfTrade.CANCEL_RESTING), int(SelfTrade.CANCEL_INCOMING)
_CANCEL_BOTH, _ALLOW = int(SelfTrade.CANCEL_BOTH), int(SelfTrade.ALLOW)
_BUY = int(Side.BUY)


@part
def can_fill(
    state: Words, slots: Halves, row: int, sell: int, limit: int, quantity: int, account: int, self_trade: int
) -> bool:
    """Say whether `sweep` with the same arguments would fill the whole quantity; changes nothing."""
    stay_apart()
    side = side_of(row, 1 - sell)
    nodes = state[u(at.H_NODES)]
    index = state[u(side + at.S_BEST)]
    while index <= limit:
        slot = wide(slots[u(2 * (state[u(side + at.S_LEVELS)] + index * at.LEVEL_WORDS))])
        while slot != 0:
            node = nodes + slot * at.NODE_WORDS
            owner = (state[u(node + at.N_META)] >> at.META_ACCOUNT) & at.WORD
            if owner != account or self_trade == _ALLOW:
                quantity -= state[u(node + at.N_LEAVES)]
                if quantity <= 0:
                    return True
            elif self_trade != _CANCEL_RESTING:
                return False
            slot = wide(slots[u(2 * (node + at.N_LINKS))])
        index = level_after(state, side, index)
    return False


@part
def sweep(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int,
    row: int, instrument: int, sell: int, limit: int, quantity: int, order_id: int, account: int, self_trade: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Trade an incoming order against the other side, best price and oldest order first, up to index ``limit``.

    Gives the next free event row, the lots that are left, and 1 where self-trade prevention ended the order.
    """
    stay_apart()
    side = side_of(row, 1 - sell)
    nodes = state[u(at.H_NODES)]
    positions = position_of(state, instrument, 0)
    stack = 2 * state[u(at.H_STACK)] + state[u(at.H_FREE)]
    trade = state[u(at.H_TRADES)]
    maker_who = who_word(0, instrument, _MAKER_FILL, _BUY + 1 - sell)
    cancel_who = who_word(0, instrument, _CANCELLED, _BUY + 1 - sell)
    taker_who = who_word(account, instrument, _TAKER_FILL, _BUY + sell)
    toward = 1 if sell != 0 else -1  # what a lot traded adds to the makers' positions
    entered, first_trade, last, freed, stopped = quantity, trade, 0, 0, 0
    index = state[u(side + at.S_BEST)]
    while index <= limit and quantity > 0 and stopped == 0:
        level = state[u(side + at.S_LEVELS)] + index * at.LEVEL_WORDS
        price = state[u(side + at.S_ORIGIN)] + index * state[u(side + at.S_STEP)]
        total = state[u(level + 1)]
        slot = wide(slots[u(2 * level)])
        while slot != 0 and quantity > 0:
            node = nodes + slot * at.NODE_WORDS
            maker = (state[u(node + at.N_META)] >> at.META_ACCOUNT) & at.WORD
            leaves = state[u(node + at.N_LEAVES)]
            maker_id = state[u(node + at.N_ID)]
            after = wide(slots[u(2 * (node + at.N_LINKS))])
            gone = leaves
            if maker == account and self_trade != _ALLOW:
                stopped = 1 if self_trade != _CANCEL_RESTING else 0
                if self_trade == _CANCEL_INCOMING:
                    break
                who = cancel_who | maker
                emit(events, row_out, seq, time, maker_id, 0, price, leaves, 0, who, _SELF_TRADE)
                row_out += 1
            else:
                gone = min(quantity, leaves)
                quantity -= gone
                trade += 1
                last = price
                who = maker_who | maker
                emit(events, row_out, seq, time, maker_id, trade, price, gone, leaves - gone, who, 0)
                emit(events, row_out + 1, seq, time, order_id, trade, price, gone, quantity, taker_who, 0)
                row_out += 2
                state[u(positions + maker * at.POSITION_WORDS + at.P_POSITION)] += gone * toward
            total -= gone
            state[u(positions + maker * at.POSITION_WORDS + at.P_OPEN + 1 - sell)] -= gone
            state[u(node + at.N_LEAVES)] = leaves - gone
            if gone != leaves:
                break
            state[u(at.ACCOUNTS + maker * at.ACCOUNT_WORDS + at.A_OPEN)] -= 1
            state[u(node + at.N_ID)] = 0
            slots[u(stack + freed)] = slot
            freed += 1
            slot = after
            if stopped != 0:
                break
        state[u(level + 1)] = total
        slots[u(2 * level)] = slot
        if slot != 0:
            slots[u(2 * (nodes + slot * at.NODE_WORDS + at.N_LINKS) + 1)] = 0
        else:
            slots[u(2 * level + 1)] = 0
            vacate(state, side, index, 1)
            index = next_level(state, side, index)
    state[u(side + at.S_BEST)] = index
    state[u(at.H_FREE)] += freed
    state[u(at.H_TRADES)] = trade
    state[u(positions + account * at.POSITION_WORDS + at.P_POSITION)] -= (entered - quantity) * toward
    if trade != first_trade:
        state[u(row + at.I_LAST)] = last
        note_span(state, row)
    return row_out, quantity, stopped
