"""Why an order is refused: what is wrong with it, and the limits of its account and instrument.

The order of the checks is part of the engine's behaviour: the first that fails names the reason.
"""

from tvops.engine.matching import layout as at
from tvops.engine.matching.book import free_slot, position_of, side_of
from tvops.engine.matching.layout import Halves, Words
from tvops.engine.matching.standing import limit_of, open_limit_of
from tvops.engine.matching.words import hot, part, stay_apart, u
from tvops.engine.records import Flag, OrderType, Reason, SelfTrade, TimeInForce

_LIMIT, _MARKET = int(OrderType.LIMIT), int(OrderType.MARKET)
_GTC, _FOK, _POST_ONLY_FLAG = int(TimeInForce.GTC), int(TimeInForce.FOK), int(Flag.POST_ONLY)
_LAST_SELF_TRADE = int(SelfTrade.ALLOW)
_UNKNOWN_INSTRUMENT, _UNKNOWN_ACCOUNT = int(Reason.UNKNOWN_INSTRUMENT), int(Reason.UNKNOWN_ACCOUNT)
_BAD_SIDE, _BAD_TYPE, _BAD_TIME_IN_FORCE = (
    int(Reason.BAD_SIDE),
    int(Reason.BAD_TYPE),
    int(Reason.BAD_TIME_IN_FORCE),
)
_BAD_COMMAND, _BAD_QUANTITY, _BAD_PRICE = int(Reason.BAD_COMMAND), int(Reason.BAD_QUANTITY), int(Reason.BAD_PRICE)
_PRICE_BAND, _KILLED, _HALTED = int(Reason.PRICE_BAND), int(Reason.KILLED), int(Reason.HALTED)
_MAX_QUANTITY, _MAX_NOTIONAL = int(Reason.MAX_ORDER_QUANTITY), int(Reason.MAX_ORDER_NOTIONAL)
_MAX_POSITION, _MAX_OPEN = int(Reason.MAX_POSITION), int(Reason.MAX_OPEN_ORDERS)
_COLLAR, _POST_ONLY, _BOOK_FULL = int(Reason.COLLAR), int(Reason.POST_ONLY), int(Reason.BOOK_FULL)
_BASIS = 10_000


@part
def reference_price(state: Words, row: int) -> int:
    """Price that collars stand around: the last trade; before it the middle of the book, or its one side; or 0."""
    last = state[u(row + at.I_LAST)]
    if last != 0:
        return last
    prices = 0
    sides = 0
    for sell in range(2):
        side = side_of(row, sell)
        best = state[u(side + at.S_BEST)]
        if best != at.NO_LEVEL:
            prices += state[u(side + at.S_ORIGIN)] + best * state[u(side + at.S_STEP)]
            sides += 1
    return prices // sides if sides != 0 else 0


@part
def within_collar(state: Words, row: int, sell: int, price: int) -> bool:
    """Say whether a buy is not too far above, or a sell not too far below, the reference price."""
    reference = reference_price(state, row)
    if reference == 0:
        return True
    beyond = reference - price if sell != 0 else price - reference
    return beyond * _BASIS <= reference * state[u(row + at.I_COLLAR)]


@part
def collar_index(state: Words, row: int, sell: int, account: int) -> int:
    """Give the last index of the other side that a market order may trade at; -1: none."""
    size = state[u(row + at.I_SIZE)]
    reference = reference_price(state, row)
    if reference == 0 or is_exempt(state, account):
        return size - 1
    room = reference * state[u(row + at.I_COLLAR)] // _BASIS
    side = side_of(row, 1 - sell)
    origin = state[u(side + at.S_ORIGIN)]
    index = origin - (reference - room) if sell != 0 else reference + room - origin
    return min(max(index, -1), size - 1)


@part
def is_exempt(state: Words, account: int) -> bool:
    """Say whether no limits hold for the account."""
    return (state[u(at.ACCOUNTS + account * at.ACCOUNT_WORDS + at.A_FLAGS)] & at.EXEMPT) != 0


@part
def is_killed(state: Words, account: int) -> bool:
    """Say whether the account may not enter orders."""
    flags = state[u(at.ACCOUNTS + account * at.ACCOUNT_WORDS + at.A_FLAGS)]
    return ((flags & at.KILLED) | state[u(at.H_KILLED)]) != 0


@part
def over_limits(
    state: Words, instrument: int, account: int, sell: int, price: int, quantity: int, open_now: int
) -> int:
    """Give the Reason of the size limit that an order breaks, or 0; ``open_now``: lots on its side without it."""
    position = position_of(state, instrument, account)
    exempt = is_exempt(state, account)
    if not exempt:
        if quantity > limit_of(state, instrument, account, 0):
            return _MAX_QUANTITY
        if price * quantity > limit_of(state, instrument, account, 1):
            return _MAX_NOTIONAL
    held = state[u(position + at.P_POSITION)]
    most = at.UNLIMITED if exempt else limit_of(state, instrument, account, 2)
    if open_now + quantity + (-held if sell != 0 else held) > most:
        return _MAX_POSITION
    return 0


@hot
def crosses(state: Words, row: int, sell: int, index: int) -> bool:
    """Say whether an order at ``index`` of its side would trade."""
    return state[u(side_of(row, 1 - sell) + at.S_BEST)] <= state[u(row + at.I_SIZE)] - 1 - index


@part
def malformed(state: Words, who: int, how: int, price: int, quantity: int) -> int:
    """Give the Reason why the fields of a NEW make no order, or 0."""
    instrument = (who >> 32) & at.HALF
    if instrument >= at.MAX_INSTRUMENTS or state[u(at.HEADER + instrument * at.ROW_WORDS)] == 0:
        return _UNKNOWN_INSTRUMENT
    account = who & at.WORD
    if account == 0 or account >= state[u(at.H_MAX_ACCOUNTS)]:
        return _UNKNOWN_ACCOUNT
    if not 1 <= (who >> 56) & at.BYTE <= 2:
        return _BAD_SIDE
    order_type = how & at.BYTE
    flags = (how >> 16) & at.BYTE
    if order_type != _LIMIT and (order_type != _MARKET or flags & _POST_ONLY_FLAG):
        return _BAD_TYPE
    time_in_force = (how >> 8) & at.BYTE
    if not _GTC <= time_in_force <= _FOK or (flags & _POST_ONLY_FLAG and time_in_force != _GTC):
        return _BAD_TIME_IN_FORCE
    if flags > _POST_ONLY_FLAG or (how >> 24) & at.BYTE > _LAST_SELF_TRADE:
        return _BAD_COMMAND
    if not 1 <= quantity <= at.MAX_QUANTITY:
        return _BAD_QUANTITY
    if order_type == _MARKET:
        return _BAD_PRICE if price != 0 else 0
    if not 1 <= price <= at.MAX_PRICE:
        return _BAD_PRICE
    row = at.HEADER + instrument * at.ROW_WORDS
    offset = price - state[u(row + at.I_LOW)]
    return _PRICE_BAND if not 0 <= offset < state[u(row + at.I_SIZE)] else 0


@part
def refusal(state: Words, slots: Halves, who: int, how: int, price: int, quantity: int) -> int:
    """Give the Reason why a NEW is refused, or 0: form, kill, halt, limits, collar, post-only, room in turn."""
    stay_apart()
    reason = malformed(state, who, how, price, quantity)
    if reason != 0:
        return reason
    account = who & at.WORD
    instrument = (who >> 32) & at.HALF
    row = at.HEADER + instrument * at.ROW_WORDS
    sell = ((who >> 56) & at.BYTE) - 1
    limit = (how & at.BYTE) == _LIMIT
    rests = limit and ((how >> 8) & at.BYTE) == _GTC
    if is_killed(state, account):
        return _KILLED
    if state[u(row + at.I_HALTED)] != 0:
        return _HALTED
    position = position_of(state, instrument, account)
    price_at_risk = price if limit else reference_price(state, row)
    open_now = state[u(position + at.P_OPEN + sell)]
    reason = over_limits(state, instrument, account, sell, price_at_risk, quantity, open_now)
    if reason != 0:
        return reason
    if not is_exempt(state, account):
        if rests and state[u(at.ACCOUNTS + account * at.ACCOUNT_WORDS + at.A_OPEN)] >= open_limit_of(
            state, account
        ):
            return _MAX_OPEN
        if limit and not within_collar(state, row, sell, price):
            return _COLLAR
    if rests:
        side = side_of(row, sell)
        index = (price - state[u(side + at.S_ORIGIN)]) * state[u(side + at.S_STEP)]
        if (how >> 16) & _POST_ONLY_FLAG and crosses(state, row, sell, index):
            return _POST_ONLY
        if free_slot(state, slots, state[u(at.H_FREE)]) > state[u(at.H_MAX_ORDERS)]:
            return _BOOK_FULL
    return 0
