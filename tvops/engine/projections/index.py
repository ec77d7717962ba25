"""A hash index from 128-bit keys to slots: open addressing, linear probing, deletion by shifting back.

The table holds ``slot + 1`` (0: empty), its size is a power of two and at least twice the number of slots. The
keys lie outside, in ``keys[slot]`` (two int64), so that an index costs four bytes an entry. Where a key stands
twice, the slot that was put last is found.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.compiled import kernel

_SPREAD_HIGH = -4417276706812531889  # odd constants of xxHash64 as int64
_SPREAD_LOW = -7046029254386353131


def make_table(slots: int) -> NDArray[np.int32]:
    """Make an empty table for ``slots`` slots."""
    return np.zeros(1 << (2 * slots - 1).bit_length(), np.int32)


@kernel
def _home(high: int, low: int, mask: int) -> int:
    return (((low ^ (high * _SPREAD_HIGH)) * _SPREAD_LOW) >> 29) & mask


@kernel
def find(table: Any, keys: Any, high: int, low: int) -> int:
    """Give the slot of a key, -1 where it is not there."""
    mask = table.shape[0] - 1
    at = _home(high, low, mask)
    while table[at]:
        slot = table[at] - 1
        if keys[slot, 0] == high and keys[slot, 1] == low:
            return int(slot)
        at = (at + 1) & mask
    return -1


@kernel
def put(table: Any, keys: Any, slot: int) -> None:
    """Let the key of ``slot`` lead to it, in the place of whatever slot it led to."""
    mask = table.shape[0] - 1
    high, low = keys[slot, 0], keys[slot, 1]
    at = _home(high, low, mask)
    while table[at]:
        other = table[at] - 1
        if keys[other, 0] == high and keys[other, 1] == low:
            break
        at = (at + 1) & mask
    table[at] = slot + 1


@kernel
def remove(table: Any, keys: Any, slot: int) -> None:
    """Take ``slot`` out, unless its key leads to another slot by now."""
    mask = table.shape[0] - 1
    at = _home(keys[slot, 0], keys[slot, 1], mask)
    while table[at] != slot + 1:
        if not table[at]:
            return
        at = (at + 1) & mask
    hole = at
    while True:
        at = (at + 1) & mask
        if not table[at]:
            break
        other = table[at] - 1
        home = _home(keys[other, 0], keys[other, 1], mask)
        if ((at - home) & mask) >= ((at - hole) & mask):
            table[hole] = table[at]
            hole = at
    table[hole] = 0
