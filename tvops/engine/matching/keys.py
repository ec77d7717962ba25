"""Idempotency keys: the answers of the last commands that had one, found by a 128-bit key.

A ring of the last H_MAX_KEYS answers, oldest overwritten first, and an open-addressing table into it at most half
full, which closes the gap of a removed entry by moving later ones up (Knuth, TAOCP vol. 3, 6.4, algorithm R).
"""

from tvops.engine.matching import layout as at
from tvops.engine.matching.layout import Halves, Words
from tvops.engine.matching.words import part, stay_apart, u


@part
def home_of(key_high: int, key_low: int, mask: int) -> int:
    """Place of a key in the table where nothing is in the way."""
    mixed = key_high * 0x1E3779B97F4A7C15 ^ key_low * 0x2545F4914F6CDD1D
    mixed ^= (mixed >> 32) & at.WORD
    mixed *= 0x1E3779B97F4A7C15
    return (mixed >> 36) & mask


@part
def find_key(state: Words, slots: Halves, key_high: int, key_low: int) -> int:
    """First word of the answer that was given under a key, or 0."""
    stay_apart()
    table = 2 * state[u(at.H_TABLE)]
    ring = state[u(at.H_RING)]
    mask = 2 * state[u(at.H_MAX_KEYS)] - 1
    place = home_of(key_high, key_low, mask)
    while slots[u(table + place)] != 0:
        entry = ring + (slots[u(table + place)] - 1) * at.KEY_WORDS
        if state[u(entry)] == key_high and state[u(entry + 1)] == key_low:
            return entry
        place = (place + 1) & mask
    return 0


@part
def forget_key(state: Words, slots: Halves, number: int) -> None:
    """Take entry ``number`` of the ring out of the table."""
    table = 2 * state[u(at.H_TABLE)]
    ring = state[u(at.H_RING)]
    mask = 2 * state[u(at.H_MAX_KEYS)] - 1
    entry = ring + number * at.KEY_WORDS
    gap = home_of(state[u(entry)], state[u(entry + 1)], mask)
    while slots[u(table + gap)] != number + 1:
        gap = (gap + 1) & mask
    place = gap
    while True:
        place = (place + 1) & mask
        other = slots[u(table + place)]
        if other == 0:
            break
        entry = ring + (other - 1) * at.KEY_WORDS
        home = home_of(state[u(entry)], state[u(entry + 1)], mask)
        if (place - home) & mask >= (place - gap) & mask:
            slots[u(table + gap)] = other
            gap = place
    slots[u(table + gap)] = 0


@part
def store_key(
    state: Words, slots: Halves, number: int, key_high: int, key_low: int, order_id: int, reason: int
) -> None:  # fmt: skip
    """Write entry ``number`` of the ring, which is in use no more, and enter it into the table."""
    table = 2 * state[u(at.H_TABLE)]
    mask = 2 * state[u(at.H_MAX_KEYS)] - 1
    entry = state[u(at.H_RING)] + number * at.KEY_WORDS
    state[u(entry)] = key_high
    state[u(entry + 1)] = key_low
    state[u(entry + 2)] = order_id
    state[u(entry + 3)] = reason
    place = home_of(key_high, key_low, mask)
    while slots[u(table + place)] != 0:
        place = (place + 1) & mask
    slots[u(table + place)] = number + 1


@part
def remember_key(state: Words, slots: Halves, key_high: int, key_low: int, order_id: int, reason: int) -> None:
    """Note the answer to a command, in place of the oldest one where the ring is full."""
    stay_apart()
    size = state[u(at.H_MAX_KEYS)]
    count = state[u(at.H_KEYS)]
    number = count & (size - 1)
    if count >= size:
        forget_key(state, slots, number)
    store_key(state, slots, number, key_high, key_low, order_id, reason)
    state[u(at.H_KEYS)] = count + 1
