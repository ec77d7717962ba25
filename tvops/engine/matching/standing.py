"""What is surely allowed, kept where the fast path finds it in one look.

The limits in force of an account in an instrument, how many more orders may rest, and the indices within the
collar are worked out when a command needs them and forgotten when something that they stand on changes. A zero
always means "ask": then `risk.refusal` decides, and the answer is noted here. Nothing here is state of its own.
"""

from tvops.engine.matching import layout as at
from tvops.engine.matching.book import position_of, side_of
from tvops.engine.matching.layout import Words
from tvops.engine.matching.words import part, stay_apart, u

_BASIS = 10_000


@part
def own_limits_of(state: Words, instrument: int, account: int) -> int:
    """First word of the account's own limits in an instrument."""
    number = instrument * state[u(at.H_MAX_ACCOUNTS)] + account
    return state[u(at.H_OWN_LIMITS)] + number * at.LIMIT_WORDS


@part
def limit_of(state: Words, instrument: int, account: int, number: int) -> int:
    """Give limit 0 (order quantity), 1 (notional) or 2 (position): the account's own or the one for all."""
    own = state[u(own_limits_of(state, instrument, account) + number)]
    return own if own != 0 else state[u(at.HEADER + instrument * at.ROW_WORDS + at.I_LIMITS + number)]


@part
def open_limit_of(state: Words, account: int) -> int:
    """Give how many orders of the account may rest: its own limit or the one for all."""
    own = state[u(at.ACCOUNTS + account * at.ACCOUNT_WORDS + at.A_OWN_MOST_OPEN)]
    return own if own != 0 else state[u(at.H_MAX_OPEN)]


@part
def note_span(state: Words, row: int) -> None:
    """Note which indices are within the collar around the last trade; none where orders are not taken at all."""
    last = state[u(row + at.I_LAST)]
    size = state[u(row + at.I_SIZE)]
    room = last * state[u(row + at.I_COLLAR)] // _BASIS
    taken = last != 0 and state[u(row + at.I_HALTED)] == 0 and state[u(at.H_KILLED)] == 0
    for sell in range(2):
        side = side_of(row, sell)
        step = state[u(side + at.S_STEP)]
        first = max((last - step * room - state[u(side + at.S_ORIGIN)]) * step, 0)
        state[u(side + at.S_FIRST)] = first
        state[u(side + at.S_SPAN)] = max(size - first, 0) if taken else 0


@part
def note_standing(state: Words, instrument: int, account: int) -> None:
    """Note the limits in force for an account that may trade."""
    stay_apart()
    base = at.ACCOUNTS + account * at.ACCOUNT_WORDS
    flags = state[u(base + at.A_FLAGS)]
    most = position_of(state, instrument, account) + at.P_MOST
    if flags & at.EXEMPT:
        state[u(base + at.A_MOST_OPEN)] = at.UNLIMITED
        state[u(most)] = at.MAX_QUANTITY
        state[u(most + 1)] = at.UNLIMITED
        state[u(most + 2)] = at.UNLIMITED
    else:
        state[u(base + at.A_MOST_OPEN)] = open_limit_of(state, account)
        state[u(most)] = min(limit_of(state, instrument, account, 0), at.MAX_QUANTITY)
        state[u(most + 1)] = limit_of(state, instrument, account, 1)
        state[u(most + 2)] = limit_of(state, instrument, account, 2)
    note_span(state, at.HEADER + instrument * at.ROW_WORDS)


@part
def forget_spans(state: Words) -> None:
    """Forget the collars' indices: a halt, a kill switch or a collar has changed."""
    for instrument in range(at.MAX_INSTRUMENTS):
        for sell in range(2):
            state[u(side_of(at.HEADER + instrument * at.ROW_WORDS, sell) + at.S_SPAN)] = 0


@part
def forget_account(state: Words, account: int) -> None:
    """Forget the limits in force of an account."""
    state[u(at.ACCOUNTS + account * at.ACCOUNT_WORDS + at.A_MOST_OPEN)] = 0
    for instrument in range(at.MAX_INSTRUMENTS):
        most = u(position_of(state, instrument, account) + at.P_MOST)
        if state[most] != 0:
            state[most] = 0


@part
def forget_accounts(state: Words) -> None:
    """Forget the limits in force of every account: a limit for all has changed."""
    for account in range(state[u(at.H_MAX_ACCOUNTS)]):
        if state[u(at.ACCOUNTS + account * at.ACCOUNT_WORDS + at.A_MOST_OPEN)] != 0:
            forget_account(state, account)
