"""Where everything lies in the arena: one block of zeroed int64 words that holds the whole state of the engine.

    header        HEADER words: counters, limits for all, and where the regions of run-time size begin
    instruments   MAX_INSTRUMENTS rows: INSTRUMENT_WORDS of the instrument, then SIDE_WORDS each of buy and sell
    accounts      max_accounts rows of ACCOUNT_WORDS
    positions     MAX_INSTRUMENTS x max_accounts rows of POSITION_WORDS
    own limits    MAX_INSTRUMENTS x max_accounts rows of LIMIT_WORDS
    nodes         max_orders + 1 order nodes of NODE_WORDS; slot 0 is nobody's
    stack         free slots below the high-water mark, int32
    keys          the idempotency ring, rows of KEY_WORDS, oldest overwritten first
    key table     int32 hash table into the ring (0: empty)
    ladders       appended by DEFINE: for each side its levels (LEVEL_WORDS a tick), then four bitmaps

Both sides are stored ask-like: index 0 is the best price that a side can have (the band's top for buys, its bottom
for sells), so that the better price is the lower index. Zeroed memory is an empty ladder and an unused page costs
nothing. An order's links and a level's ends are int32 slots, read through an int32 view of the same memory.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]


class Words(Protocol):
    """Memory as the parts of the kernels use it: one int64 or int32 at a time, unchecked."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


Halves = Words

MAX_INSTRUMENTS = 64
MAX_PRICE = (1 << 24) - 1
MAX_QUANTITY = 1 << 38
UNLIMITED = 1 << 62
"""What a limit that is not set compares as; positions and open quantities never pass it."""

UNLIMITED_BPS = 1 << 37
"""Collar that is not set: times a price it still fits an int64."""

SLOT_BITS = 20
"""Low bits of an order id: the slot of its node. Above: a counter of all orders ever entered."""

SLOT_MASK = (1 << SLOT_BITS) - 1
NO_LEVEL = 1 << 30
"""Best index of an empty side."""

# header
H_SEQ = 0  # of the last command
H_ORDERS = 2  # counter of the last order id
H_TRADES = 3  # last trade id
H_FREE = 4  # slots on the free stack
H_HIGH = 5  # highest slot ever used
H_KILLED = 6  # 1: every account is killed
H_MAX_OPEN = 7  # limit of open orders of accounts that have none of their own
H_KEYS = 8  # keys ever remembered
H_MAX_ORDERS = 9
H_MAX_ACCOUNTS = 10
H_MAX_KEYS = 11  # power of two
H_POSITIONS = 12  # first word of each region
H_NODES = 13
H_STACK = 14
H_RING = 15
H_TABLE = 16
H_OWN_LIMITS = 21
H_END = 17  # first word behind the last ladder
H_CAPACITY = 20  # words of the arena
H_NEED = 18  # words a DEFINE waits for; 0: none does
H_NEXT = 19  # out: first command of the batch that is not done yet
HEADER = 64

# an instrument
INSTRUMENT_WORDS, SIDE_WORDS, ROW_WORDS = 16, 16, 64
I_SIZE = 0  # ticks of the ladder; 0: not defined
I_LOW = 1  # its lowest tick
I_DIGEST = 2  # of its scale
I_LAST = 3  # price of the last trade; 0: none yet
I_HALTED = 4
I_COLLAR = 5  # basis points
I_LIMITS = 6  # order quantity, order notional, position; for accounts that have none of their own

# a side of an instrument
S_LEVELS = 0  # first word of the levels
S_BITS = 1  # first word of each of the four bitmaps, finest first
S_BEST = 5  # best index; NO_LEVEL: empty
S_ORIGIN = 6  # price of index 0
S_STEP = 7  # price step from one index to the next: -1 for buys, 1 for sells
S_TOP = 8  # index and quantity last told by a TOP event
S_TOP_QUANTITY = 9
S_FIRST = 10  # a limit order that surely passes collar, kill and halt is at this index
S_SPAN = 11  # or at one of so many from it on; 0: it has to be asked

# an account
ACCOUNT_WORDS = 4
A_OPEN = 0  # orders that rest
A_MOST_OPEN = 1  # while fewer rest, another may; 0: it has to be asked
A_OWN_MOST_OPEN = 2  # its own limit; 0: none of its own
A_FLAGS = 3
KILLED, EXEMPT = 1, 2

# an account in an instrument
POSITION_WORDS = 8
P_POSITION = 0  # lots
P_OPEN = 1  # lots that rest: buys, sells
P_MOST = 3  # limits in force on order quantity, order notional, position; quantity 0: they have to be asked
LIMIT_WORDS = 4  # its own limits, as I_LIMITS; 0: none of its own

# a level and an order
LEVEL_WORDS = 2  # int32 head slot, int32 tail slot; lots
NODE_WORDS = 4
N_ID = 0  # 0: free
N_LINKS = 1  # int32 next slot, int32 previous slot; 0: none
N_LEAVES = 2  # lots
N_META = 3  # index 24 bits, sell 1, instrument 6, post-only 1, account 32
META_SELL, META_INSTRUMENT, META_POST_ONLY, META_ACCOUNT = 24, 25, 31, 32

KEY_WORDS = 4  # key_high, key_low, order_id and reason of the answer

ACCOUNTS = HEADER + MAX_INSTRUMENTS * ROW_WORDS

# rows of COMMAND and EVENT as int64 words
COMMAND_WORDS, EVENT_WORDS = 14, 9
C_SEQ, C_TIME, C_ORDER_ID, C_PRICE, C_QUANTITY, C_KEY_HIGH, C_KEY_LOW, C_WHO, C_HOW = range(9)
WHO_INSTRUMENT, WHO_KIND, WHO_SIDE = 32, 48, 56  # where they lie in C_WHO; the account lies below
BYTE, HALF, WORD = 0xFF, 0xFFFF, 0xFFFFFFFF


def ladder_words(size: int) -> int:
    """Words that the two ladders of an instrument with ``size`` ticks take."""
    words = LEVEL_WORDS * size
    for _ in range(4):
        size = (size + 63) >> 6
        words += size
    return 2 * ((words + 7) & ~7)


def fixed_words(max_orders: int, max_accounts: int, max_keys: int) -> dict[int, int]:
    """First words of the regions, by the header word that holds them; each on a cache line."""
    positions = ACCOUNTS + _line(max_accounts * ACCOUNT_WORDS)
    limits = positions + MAX_INSTRUMENTS * max_accounts * POSITION_WORDS
    nodes = limits + MAX_INSTRUMENTS * max_accounts * LIMIT_WORDS
    stack = nodes + _line((max_orders + 1) * NODE_WORDS)
    ring = stack + _line(max_orders // 2 + 1)
    table = ring + _line(max_keys * KEY_WORDS)
    return {
        H_POSITIONS: positions,
        H_OWN_LIMITS: limits,
        H_NODES: nodes,
        H_STACK: stack,
        H_RING: ring,
        H_TABLE: table,
        H_END: table + _line(max_keys),
    }


def _line(words: int) -> int:
    return (words + 7) & ~7


def worst_events(max_orders: int) -> int:
    """Most events that one command can cause: it fills or ends every order, and moves every top."""
    return 2 * max_orders + 2 * MAX_INSTRUMENTS + 4
