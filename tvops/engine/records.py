"""The record layouts: fixed, little-endian, the same in memory, in streams, on the wire and on disk.

Units, everywhere: prices are int64 *ticks* and quantities int64 *lots* of the instrument; times are int64
nanoseconds since the epoch, UTC. Order ids, trade ids and sequence numbers are never reused in a shard.
A change of any layout or code below raises `VERSION`; readers refuse records of another version.
"""

from enum import IntEnum, IntFlag

import numpy as np

VERSION = 1

ALL_INSTRUMENTS = 0xFFFF
"""`instrument` of a command that is meant for every instrument."""

ALL_ACCOUNTS = 0xFFFFFFFF
"""`account` of a command that is meant for every account."""

MIRROR_MAKER, MIRROR_TAKER = 1, 2
"""Accounts of the mirror of an external market."""

SIM_ACCOUNTS = range(10, 90)
"""Accounts of the agents of the simulated market."""

FIRST_USER_ACCOUNT = 100
"""Accounts below are liquidity accounts of tvops itself; the first user account needs no key on loopback."""

CLIENT_ID_SIZE = 36
"""Longest client order id in bytes: a UUID in its usual spelling."""


class Kind(IntEnum):
    """What a command asks for (`COMMAND.kind`)."""

    NEW = 1
    AMEND = 2  # new total price and remaining quantity of `order_id`
    CANCEL = 3
    MASS_CANCEL = 4  # every order of `account`, narrowed by `instrument` and `side` (0: both)
    SET_LIMIT = 5  # `param` is a Limit, `quantity` its value, for `account` and/or `instrument`
    KILL = 6  # `account` (or ALL_ACCOUNTS): `quantity` 1 cancels everything and refuses new orders, 0 lifts it
    HALT = 7  # `instrument`: `quantity` 1 refuses new orders, 0 lifts it
    CLOCK = 8  # time passes (expiries)
    DEFINE = 9  # an instrument comes to be: ladder of `quantity` ticks from `price`; `order_id`: scale digest


class Side(IntEnum):
    """Side of an order, of the aggressor of a trade, of a book level."""

    BUY = 1
    SELL = 2


class OrderType(IntEnum):
    """`COMMAND.order_type`."""

    LIMIT = 1
    MARKET = 2


class TimeInForce(IntEnum):
    """`COMMAND.time_in_force`."""

    GTC = 1
    IOC = 2
    FOK = 3


class Flag(IntFlag):
    """`COMMAND.flags`."""

    POST_ONLY = 1


class SelfTrade(IntEnum):
    """`COMMAND.self_trade`: what happens when an order would trade with its own account."""

    CANCEL_RESTING = 0
    CANCEL_INCOMING = 1
    CANCEL_BOTH = 2
    ALLOW = 3


class Limit(IntEnum):
    """`COMMAND.param` of SET_LIMIT. A value of 0 lifts the limit.

    With `account` 0 a limit holds for every account that has none of its own.
    """

    MAX_ORDER_QUANTITY = 1  # lots; per instrument, optionally per account
    MAX_ORDER_NOTIONAL = 2  # ticks x lots; per instrument, optionally per account
    MAX_POSITION = 3  # lots, long or short, counting open orders; per instrument, optionally per account
    MAX_OPEN_ORDERS = 4  # per account, over all instruments
    COLLAR = 5  # basis points around the reference price; per instrument
    EXEMPT = 6  # per account: 1 = no risk checks and no place in order history (liquidity accounts)


class EventKind(IntEnum):
    """What the engine reports (`EVENT.kind`)."""

    ACCEPTED = 1  # of NEW: price, quantity as taken
    REJECTED = 2  # of any command: reason
    MAKER_FILL = 3
    TAKER_FILL = 4
    CANCELLED = 5  # quantity = what was taken off; reason says why
    AMENDED = 6  # price, leaves are the new ones
    TOP = 7  # best price of `side` changed: price, quantity there (0, 0: the side is empty)
    DUPLICATE = 8  # the command was answered before: order_id and reason of the first answer
    DONE = 9  # of MASS_CANCEL, SET_LIMIT, KILL, HALT, CLOCK, DEFINE: quantity = how many orders it ended


class Reason(IntEnum):
    """Why a command was refused or an order cancelled (`EVENT.reason`). Stable codes; never renumbered."""

    NONE = 0
    UNKNOWN_INSTRUMENT = 1
    UNKNOWN_ACCOUNT = 2
    UNKNOWN_ORDER = 3  # not live, or another account's
    BAD_SIDE = 4
    BAD_TYPE = 5
    BAD_TIME_IN_FORCE = 6
    BAD_QUANTITY = 7
    BAD_PRICE = 8
    PRICE_BAND = 9  # outside the instrument's ladder
    COLLAR = 10
    MAX_ORDER_QUANTITY = 11
    MAX_ORDER_NOTIONAL = 12
    MAX_POSITION = 13
    MAX_OPEN_ORDERS = 14
    KILLED = 15
    HALTED = 16
    POST_ONLY = 17  # would have traded at once
    NO_LIQUIDITY = 18  # market or IOC order found nothing
    FILL_OR_KILL = 19  # could not be filled whole
    SELF_TRADE = 20
    BOOK_FULL = 21  # no room for another order
    USER = 22  # cancelled on request
    MASS_CANCEL = 23
    IMMEDIATE_OR_CANCEL = 24  # the rest of an IOC or market order
    NOTHING_TO_AMEND = 25
    BAD_COMMAND = 26
    EXISTS = 27  # DEFINE of an instrument that exists with another ladder


class Status(IntEnum):
    """`ORDER.status`."""

    OPEN = 1
    PARTIALLY_FILLED = 2
    FILLED = 3
    CANCELLED = 4
    REJECTED = 5


class DepthFlag(IntFlag):
    """`DEPTH.flags`."""

    SNAPSHOT = 1  # the level belongs to a snapshot: the first one (FIRST) empties the book before
    FIRST = 2  # first record of a snapshot or of one numbered update
    LAST = 4  # last record of a snapshot or of one numbered update
    GAP = 8  # the book is not valid from here on, until the next snapshot


class TickFlag(IntFlag):
    """`TICK.flags`."""

    TRADE = 1  # `last_price` and `last_quantity` are new with this tick
    STALE = 2  # the feed has a gap: prices are the last known ones


class RecordType(IntEnum):
    """Type codes of the records, in packed entries and in frames."""

    COMMAND = 1
    EVENT = 2
    TRADE = 3
    TICK = 4
    DEPTH = 5
    BAR = 6
    ORDER = 7
    POSITION = 8


COMMAND = np.dtype(
    [
        ("seq", "<u8"),  # ledger sequence, dense from 1; given by the sequencer
        ("time", "<i8"),  # when the sequencer took it
        ("order_id", "<i8"),  # AMEND, CANCEL: which order
        ("price", "<i8"),  # ticks; 0 for market orders
        ("quantity", "<i8"),  # lots
        ("key_high", "<u8"),  # idempotency key, high word; 0: the command has none
        ("key_low", "<u8"),  # low word; with key_high 0 a free tag that the first event carries back
        ("account", "<u4"),
        ("instrument", "<u2"),
        ("kind", "u1"),  # Kind
        ("side", "u1"),  # Side
        ("order_type", "u1"),  # OrderType
        ("time_in_force", "u1"),  # TimeInForce
        ("flags", "u1"),  # Flag
        ("self_trade", "u1"),  # SelfTrade
        ("param", "u1"),  # SET_LIMIT: Limit
        ("client_id", f"S{CLIENT_ID_SIZE}"),  # as the client wrote it
        ("reserved", "u1", (7,)),
    ]
)
"""What is written to the ledger: 112 bytes."""

EVENT = np.dtype(
    [
        ("command_seq", "<u8"),  # the command that caused it
        ("time", "<i8"),  # that command's time
        ("order_id", "<i8"),
        ("ref", "<u8"),  # fills: trade id; ACCEPTED, REJECTED, DUPLICATE: the command's key_low
        ("price", "<i8"),  # ticks; of a fill: the maker's price
        ("quantity", "<i8"),  # lots
        ("leaves", "<i8"),  # lots still open afterwards
        ("account", "<u4"),
        ("instrument", "<u2"),
        ("kind", "u1"),  # EventKind
        ("side", "u1"),  # Side of the order
        ("reason", "<u2"),  # Reason
        ("reserved", "u1", (6,)),
    ]
)
"""What the engine says happened: 72 bytes. A trade is two fills, maker first, with one `ref`."""

TRADE = np.dtype(
    [
        ("time", "<i8"),
        ("trade_id", "<u8"),
        ("price", "<i8"),  # ticks
        ("quantity", "<i8"),  # lots
        ("instrument", "<u2"),
        ("side", "u1"),  # Side of the aggressor
        ("flags", "u1"),
        ("reserved", "<u4"),
    ]
)
"""A public trade: 40 bytes."""

TICK = np.dtype(
    [
        ("time", "<i8"),
        ("bid", "<i8"),  # ticks; 0: none
        ("ask", "<i8"),  # ticks; 0: none
        ("bid_quantity", "<i8"),  # lots
        ("ask_quantity", "<i8"),  # lots
        ("last_price", "<i8"),  # ticks of the last trade; 0: none yet
        ("last_quantity", "<i8"),  # lots
        ("instrument", "<u2"),
        ("flags", "u1"),  # TickFlag
        ("side", "u1"),  # aggressor Side of the last trade
        ("reserved", "<u4"),
    ]
)
"""Top of book and last trade: 64 bytes."""

DEPTH = np.dtype(
    [
        ("time", "<i8"),
        ("update", "<u8"),  # number of the update of this book; dense per instrument
        ("price", "<i8"),  # ticks
        ("quantity", "<i8"),  # lots now at that price; 0 removes the level
        ("instrument", "<u2"),
        ("side", "u1"),  # Side
        ("flags", "u1"),  # DepthFlag
        ("reserved", "<u4"),
    ]
)
"""One level of an L2 book, absolute: 40 bytes."""

BAR = np.dtype(
    [
        ("start", "<i8"),  # ns, multiple of the interval
        ("open", "<i8"),  # ticks
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("volume", "<i8"),  # lots
        ("trades", "<u4"),
        ("interval", "<u2"),  # seconds
        ("instrument", "<u2"),
        ("closed", "u1"),  # 1: will not change any more
        ("reserved", "u1", (7,)),
    ]
)
"""An OHLCV bar: 64 bytes."""

ORDER = np.dtype(
    [
        ("order_id", "<i8"),
        ("price", "<i8"),  # ticks
        ("quantity", "<i8"),  # lots: filled + open (+ what was cancelled)
        ("filled", "<i8"),  # lots
        ("notional", "<i8"),  # sum of fill price x fill quantity, ticks x lots
        ("created", "<i8"),
        ("updated", "<i8"),
        ("seq", "<u8"),  # the command that made it
        ("update_seq", "<u8"),  # the command that last changed it
        ("account", "<u4"),
        ("instrument", "<u2"),
        ("reason", "<u2"),  # Reason of the rejection or cancellation
        ("side", "u1"),
        ("order_type", "u1"),
        ("time_in_force", "u1"),
        ("flags", "u1"),
        ("status", "u1"),  # Status
        ("client_id", f"S{CLIENT_ID_SIZE}"),
        ("reserved", "u1", (7,)),
    ]
)
"""State of an order, a projection of the ledger: 128 bytes."""

POSITION = np.dtype(
    [
        ("account", "<u4"),
        ("instrument", "<u2"),
        ("reserved", "<u2"),
        ("quantity", "<i8"),  # lots, negative: short
        ("cost", "<i8"),  # ticks x lots paid for what is held, signed like quantity
        ("realized", "<i8"),  # ticks x lots of profit taken
    ]
)
"""Position of an account in an instrument: 32 bytes."""

DTYPES = {
    RecordType.COMMAND: COMMAND,
    RecordType.EVENT: EVENT,
    RecordType.TRADE: TRADE,
    RecordType.TICK: TICK,
    RecordType.DEPTH: DEPTH,
    RecordType.BAR: BAR,
    RecordType.ORDER: ORDER,
    RecordType.POSITION: POSITION,
}
"""The dtype of each record type."""
