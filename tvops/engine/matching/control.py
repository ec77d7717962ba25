"""Commands that are not about one order: mass cancels, limits, kill switches, halts, instruments."""

from tvops.engine.matching import layout as at
from tvops.engine.matching.book import side_of, side_of_meta, tell_tops
from tvops.engine.matching.entry import cancel
from tvops.engine.matching.layout import Halves, Words
from tvops.engine.matching.standing import forget_account, forget_accounts, forget_spans, own_limits_of
from tvops.engine.matching.words import emit, part, stay_apart, u
from tvops.engine.records import ALL_ACCOUNTS, ALL_INSTRUMENTS, EventKind, Kind, Limit, Reason

_MASS_CANCEL, _SET_LIMIT, _KILL = int(Kind.MASS_CANCEL), int(Kind.SET_LIMIT), int(Kind.KILL)
_HALT, _CLOCK, _DEFINE = int(Kind.HALT), int(Kind.CLOCK), int(Kind.DEFINE)
_DONE = int(EventKind.DONE)
_MAX_OPEN_ORDERS, _COLLAR, _EXEMPT = int(Limit.MAX_OPEN_ORDERS), int(Limit.COLLAR), int(Limit.EXEMPT)
_MAX_ORDER_QUANTITY, _MAX_POSITION = int(Limit.MAX_ORDER_QUANTITY), int(Limit.MAX_POSITION)
_UNKNOWN_INSTRUMENT, _UNKNOWN_ACCOUNT = int(Reason.UNKNOWN_INSTRUMENT), int(Reason.UNKNOWN_ACCOUNT)
_BAD_SIDE, _BAD_QUANTITY, _BAD_PRICE = int(Reason.BAD_SIDE), int(Reason.BAD_QUANTITY), int(Reason.BAD_PRICE)
_BAD_COMMAND, _EXISTS = int(Reason.BAD_COMMAND), int(Reason.EXISTS)
_MASS_CANCELLED, _KILLED = int(Reason.MASS_CANCEL), int(Reason.KILLED)


ladder_words = part(at.ladder_words)


@part
def is_instrument(state: Words, instrument: int) -> bool:
    """Say whether the instrument is defined."""
    return instrument < at.MAX_INSTRUMENTS and state[u(at.HEADER + instrument * at.ROW_WORDS)] != 0


@part
def is_account(state: Words, account: int) -> bool:
    """Say whether there can be such an account."""
    return 1 <= account < state[u(at.H_MAX_ACCOUNTS)]


@part
def control_refusal(state: Words, who: int, how: int, price: int, quantity: int, digest: int) -> int:
    """Give the Reason why a command of one of the kinds here is refused, or 0."""
    stay_apart()
    kind = (who >> 48) & at.BYTE
    account = who & at.WORD
    instrument = (who >> 32) & at.HALF
    if kind == _CLOCK:
        return 0
    if not _MASS_CANCEL <= kind <= _DEFINE:
        return _BAD_COMMAND
    if kind == _DEFINE:
        return define_refusal(state, instrument, price, quantity, digest)
    if kind == _SET_LIMIT:
        return limit_refusal(state, account, instrument, (how >> 32) & at.BYTE, quantity)
    if kind != _KILL and instrument != ALL_INSTRUMENTS and not is_instrument(state, instrument):
        return _UNKNOWN_INSTRUMENT
    if kind != _HALT and account != ALL_ACCOUNTS and not is_account(state, account):
        return _UNKNOWN_ACCOUNT
    if kind == _MASS_CANCEL:
        return _BAD_SIDE if (who >> 56) & at.BYTE > 2 else 0
    return _BAD_QUANTITY if not 0 <= quantity <= 1 else 0


@part
def limit_refusal(state: Words, account: int, instrument: int, limit: int, value: int) -> int:
    """Give the Reason why a SET_LIMIT is refused, or 0."""
    if not _MAX_ORDER_QUANTITY <= limit <= _EXEMPT:
        return _BAD_COMMAND
    per_instrument = limit != _MAX_OPEN_ORDERS and limit != _EXEMPT
    if per_instrument and instrument != ALL_INSTRUMENTS and not is_instrument(state, instrument):
        return _UNKNOWN_INSTRUMENT
    if limit == _COLLAR:
        if account != 0:
            return _UNKNOWN_ACCOUNT
    elif not is_account(state, account) and (account != 0 or limit == _EXEMPT):
        return _UNKNOWN_ACCOUNT
    most = at.UNLIMITED - 1
    if limit == _EXEMPT:
        most = 1
    elif limit == _COLLAR:
        most = at.UNLIMITED_BPS - 1
    return _BAD_QUANTITY if not 0 <= value <= most else 0


@part
def define_refusal(state: Words, instrument: int, low: int, size: int, digest: int) -> int:
    """Give the Reason why a DEFINE is refused, or 0."""
    if instrument >= at.MAX_INSTRUMENTS:
        return _UNKNOWN_INSTRUMENT
    if not 1 <= low <= at.MAX_PRICE:
        return _BAD_PRICE
    if not 1 <= size <= at.MAX_PRICE - low + 1:
        return _BAD_QUANTITY
    row = at.HEADER + instrument * at.ROW_WORDS
    if state[u(row + at.I_SIZE)] == 0:
        return 0
    same = (
        state[u(row + at.I_SIZE)] == size
        and state[u(row + at.I_LOW)] == low
        and state[u(row + at.I_DIGEST)] == digest
    )
    return 0 if same else _EXISTS


@part
def control(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int, ref: int,
    who: int, how: int, price: int, quantity: int, digest: int,
) -> int:  # fmt: skip
    """Carry out a command that `control_refusal` let pass; give the next free event row."""
    stay_apart()
    kind = (who >> 48) & at.BYTE
    account = who & at.WORD
    instrument = (who >> 32) & at.HALF
    first_row = row_out
    if kind == _SET_LIMIT:
        set_limit(state, account, instrument, (how >> 32) & at.BYTE, quantity)
    elif kind == _MASS_CANCEL:
        side = (who >> 56) & at.BYTE
        row_out = cancel_all(state, slots, events, row_out, seq, time, account, instrument, side, _MASS_CANCELLED)
    elif kind == _KILL:
        kill(state, account, quantity)
        if quantity == 1:
            row_out = cancel_all(state, slots, events, row_out, seq, time, account, ALL_INSTRUMENTS, 0, _KILLED)
    elif kind == _HALT:
        for one in range(at.MAX_INSTRUMENTS):
            row = at.HEADER + one * at.ROW_WORDS
            if state[u(row)] != 0 and (one == instrument or instrument == ALL_INSTRUMENTS):
                state[u(row + at.I_HALTED)] = quantity
        forget_spans(state)
    elif kind == _DEFINE and state[u(at.HEADER + instrument * at.ROW_WORDS)] == 0:
        define(state, instrument, price, quantity, digest)
    done = (who & ~(at.BYTE << 48)) | (_DONE << 48)
    ended = row_out - first_row
    emit(events, row_out, seq, time, 0, ref, 0, ended, 0, done, 0)
    row_out += 1
    if ended != 0:
        for one in range(at.MAX_INSTRUMENTS):
            row = at.HEADER + one * at.ROW_WORDS
            if state[u(row)] != 0:
                row_out = tell_tops(state, events, row_out, seq, time, row, one)
    return row_out


@part
def cancel_all(
    state: Words, slots: Halves, events: Words, row_out: int, seq: int, time: int,
    account: int, instrument: int, side: int, reason: int,
) -> int:  # fmt: skip
    """End every order of the account(s), narrowed by instrument and side, in the order of their slots."""
    stay_apart()
    mask = 0
    wanted = 0
    left = at.SLOT_MASK
    if account != ALL_ACCOUNTS:
        mask |= at.WORD << at.META_ACCOUNT
        wanted |= account << at.META_ACCOUNT
        left = state[u(at.ACCOUNTS + account * at.ACCOUNT_WORDS + at.A_OPEN)]
    if instrument != ALL_INSTRUMENTS:
        mask |= (at.MAX_INSTRUMENTS - 1) << at.META_INSTRUMENT
        wanted |= instrument << at.META_INSTRUMENT
    if side != 0:
        mask |= 1 << at.META_SELL
        wanted |= (side - 1) << at.META_SELL
    nodes = state[u(at.H_NODES)]
    account_mask = mask & (at.WORD << at.META_ACCOUNT)
    node = nodes
    end = nodes + state[u(at.H_HIGH)] * at.NODE_WORDS
    while node < end and left > 0:
        node += at.NODE_WORDS
        differs = state[u(node + at.N_META)] ^ wanted
        if differs & account_mask == 0 and state[u(node + at.N_ID)] != 0:
            left -= 1
            if differs & mask == 0:
                meta = state[u(node + at.N_META)]
                row_out = cancel(
                    state, slots, events, row_out, seq, time, 0, node, meta, side_of_meta(meta), reason
                )
    return row_out


@part
def kill(state: Words, account: int, on: int) -> None:
    """Refuse the account's new orders, or every account's, or refuse them no more."""
    if account == ALL_ACCOUNTS:
        state[u(at.H_KILLED)] = on
        forget_spans(state)
    else:
        set_flag(state, account, at.KILLED, on)


@part
def set_flag(state: Words, account: int, flag: int, on: int) -> None:
    """Set or clear a flag of an account."""
    flags = u(at.ACCOUNTS + account * at.ACCOUNT_WORDS + at.A_FLAGS)
    state[flags] = (state[flags] & ~flag) | (flag if on != 0 else 0)
    forget_account(state, account)


@part
def set_limit(state: Words, account: int, instrument: int, limit: int, value: int) -> None:
    """Set a limit of an account, or the one of all that have none of their own (account 0)."""
    if limit == _EXEMPT:
        set_flag(state, account, at.EXEMPT, value)
    elif limit == _MAX_OPEN_ORDERS and account != 0:
        state[u(at.ACCOUNTS + account * at.ACCOUNT_WORDS + at.A_OWN_MOST_OPEN)] = value
        forget_account(state, account)
    elif limit == _MAX_OPEN_ORDERS:
        state[u(at.H_MAX_OPEN)] = value if value != 0 else at.UNLIMITED
        forget_accounts(state)
    else:
        for one in range(at.MAX_INSTRUMENTS):
            row = at.HEADER + one * at.ROW_WORDS
            if state[u(row)] != 0 and (one == instrument or instrument == ALL_INSTRUMENTS):
                set_instrument_limit(state, account, one, limit, value)


@part
def set_instrument_limit(state: Words, account: int, instrument: int, limit: int, value: int) -> None:
    """Set a limit that is per instrument."""
    row = at.HEADER + instrument * at.ROW_WORDS
    number = limit - _MAX_ORDER_QUANTITY
    if limit == _COLLAR:
        state[u(row + at.I_COLLAR)] = value if value != 0 else at.UNLIMITED_BPS
        forget_spans(state)
    elif account != 0:
        state[u(own_limits_of(state, instrument, account) + number)] = value
        forget_account(state, account)
    else:
        state[u(row + at.I_LIMITS + number)] = value if value != 0 else at.UNLIMITED
        forget_accounts(state)


@part
def define(state: Words, instrument: int, low: int, size: int, digest: int) -> None:
    """Set up an instrument on the zeroed words behind the last ladder."""
    row = at.HEADER + instrument * at.ROW_WORDS
    state[u(row + at.I_SIZE)] = size
    state[u(row + at.I_LOW)] = low
    state[u(row + at.I_DIGEST)] = digest
    state[u(row + at.I_COLLAR)] = at.UNLIMITED_BPS
    for number in range(3):
        state[u(row + at.I_LIMITS + number)] = at.UNLIMITED
    first = state[u(at.H_END)]
    for sell in range(2):
        side = side_of(row, sell)
        state[u(side + at.S_LEVELS)] = first
        words = at.LEVEL_WORDS * size
        bits = size
        for height in range(4):
            state[u(side + at.S_BITS + height)] = first + words
            bits = (bits + 63) >> 6
            words += bits
        first += (words + 7) & ~7
        state[u(side + at.S_BEST)] = at.NO_LEVEL
        state[u(side + at.S_TOP)] = at.NO_LEVEL
        state[u(side + at.S_ORIGIN)] = low if sell != 0 else low + size - 1
        state[u(side + at.S_STEP)] = 1 if sell != 0 else -1
    state[u(at.H_END)] = first
