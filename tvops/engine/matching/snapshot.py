"""The state of an engine as bytes: canonical (equal states, equal bytes), compact, checked.

magic "TVME", version u4, CRC-32 of the rest u4, padding u4, then int64 words:
counts (COUNTS), instruments (10 words each), orders (3), accounts (4), positions (8), keys (4, oldest first),
free slots (one each, the next to be used last)
"""

import struct
import zlib

import numpy as np

from tvops.engine.matching import layout as at
from tvops.engine.matching.layout import Array
from tvops.engine.matching.memory import Arena, fresh_arena
from tvops.engine.matching.views import read_orders, restore

VERSION = 1
_HEAD = struct.Struct("<4sIII")
_MAGIC = b"TVME"
_COPIED = (at.H_SEQ, at.H_ORDERS, at.H_TRADES, at.H_FREE, at.H_HIGH, at.H_KILLED, at.H_MAX_OPEN, at.H_KEYS)
_WIDTHS = (10, 3, 4, 8, 4, 1)  # words a row of instruments, orders, accounts, positions, keys, free slots
_ACCOUNT_STATE = [at.A_OPEN, at.A_OWN_MOST_OPEN, at.A_FLAGS]
_COUNTS = len(_COPIED) + len(_WIDTHS)


class SnapshotError(ValueError):
    """The bytes are no snapshot that this engine can take; the message says why."""


def export_state(state: Array) -> bytes:
    """Write the whole state."""
    max_accounts = int(state[at.H_MAX_ACCOUNTS])
    table = state[at.HEADER : at.ACCOUNTS].reshape(at.MAX_INSTRUMENTS, at.ROW_WORDS)
    defined = np.flatnonzero(table[:, at.I_SIZE])
    instruments = np.column_stack((defined, table[defined, :9]))

    live = int(state[at.H_HIGH] - state[at.H_FREE])
    orders = np.empty((live, 3), np.int64)
    read_orders(state, orders)

    account_rows = _rows(state, at.ACCOUNTS, max_accounts, at.ACCOUNT_WORDS)[:, _ACCOUNT_STATE]
    used = np.flatnonzero(account_rows.any(axis=1))
    accounts = np.column_stack((used, account_rows[used]))

    positions = np.empty((0, _WIDTHS[3]), np.int64)
    for instrument in defined:
        held, limits = _of_instrument(state, int(instrument))
        used = np.flatnonzero(held.any(axis=1) | limits.any(axis=1))
        whose = np.column_stack((np.full(len(used), instrument), used))
        positions = np.concatenate((positions, np.column_stack((whose, held[used], limits[used]))))

    ring = state[state[at.H_RING] :][: state[at.H_MAX_KEYS] * at.KEY_WORDS].reshape(-1, at.KEY_WORDS)
    count = int(state[at.H_KEYS])
    kept = np.arange(max(0, count - len(ring)), count) % len(ring)
    free = state.view(np.int32)[2 * state[at.H_STACK] :][: state[at.H_FREE]]

    sections: list[Array] = [instruments, orders, accounts, positions, ring[kept]]
    sections.append(free.astype(np.int64))
    counts = [int(state[word]) for word in _COPIED] + [len(section) for section in sections]
    body = np.array(counts, np.int64).tobytes() + b"".join(section.tobytes() for section in sections)
    return _HEAD.pack(_MAGIC, VERSION, zlib.crc32(body), 0) + body


def import_state(blob: bytes, max_orders: int, max_accounts: int, max_keys: int) -> Arena:
    """Build the arena of an engine of this size that goes on exactly where the exported one stopped.

    Raises:
        SnapshotError: the blob is damaged, of another version, or of an engine with more orders or accounts.
    """
    counts, sections = _parse(blob)
    instruments, orders, accounts, positions, keys, free = sections
    if counts[_COPIED.index(at.H_HIGH)] > max_orders:
        raise SnapshotError(
            f"snapshot uses {counts[_COPIED.index(at.H_HIGH)]} order slots, max_orders is {max_orders}"
        )
    highest = max(int(accounts[:, 0].max(initial=0)), int(positions[:, 1].max(initial=0)))
    if highest >= max_accounts:
        raise SnapshotError(f"snapshot has account {highest}, max_accounts is {max_accounts}")
    ladders = sum(at.ladder_words(int(size)) for size in instruments[:, 1])
    arena = fresh_arena(max_orders, max_accounts, max_keys, ladders)
    state = arena.words
    restore(state, instruments, orders, keys[-max_keys:], counts[_COPIED.index(at.H_KEYS)])
    state[list(_COPIED)] = counts[: len(_COPIED)]
    account_rows = _rows(state, at.ACCOUNTS, max_accounts, at.ACCOUNT_WORDS)
    account_rows[accounts[:, :1], _ACCOUNT_STATE] = accounts[:, 1:]
    for instrument in instruments[:, 0]:
        held, limits = _of_instrument(state, int(instrument))
        mine = positions[positions[:, 0] == instrument]
        held[mine[:, 1]] = mine[:, 2:5]
        limits[mine[:, 1]] = mine[:, 5:8]
    state.view(np.int32)[2 * state[at.H_STACK] :][: len(free)] = free[:, 0]
    return arena


def _rows(state: Array, first: int, count: int, width: int) -> Array:
    return state[first : first + count * width].reshape(count, width)


def _of_instrument(state: Array, instrument: int) -> tuple[Array, Array]:
    """Position, resting buys and sells of every account in an instrument, and their own limits there."""
    count = int(state[at.H_MAX_ACCOUNTS])
    first = int(state[at.H_POSITIONS]) + instrument * count * at.POSITION_WORDS
    first_limit = int(state[at.H_OWN_LIMITS]) + instrument * count * at.LIMIT_WORDS
    held = _rows(state, first, count, at.POSITION_WORDS)[:, : at.P_MOST]
    return held, _rows(state, first_limit, count, at.LIMIT_WORDS)[:, :3]


def _parse(blob: bytes) -> tuple[list[int], list[Array]]:
    if len(blob) < _HEAD.size + 8 * _COUNTS or len(blob) % 8:
        raise SnapshotError(f"snapshot has {len(blob)} bytes, too few for its head or no whole words")
    magic, version, checksum, _ = _HEAD.unpack_from(blob)
    if magic != _MAGIC or version != VERSION:
        raise SnapshotError(f"snapshot is {magic!r} version {version}, needs {_MAGIC!r} version {VERSION}")
    if zlib.crc32(memoryview(blob)[_HEAD.size :]) != checksum:
        raise SnapshotError("snapshot is damaged: its checksum does not fit")
    words = np.frombuffer(blob, np.int64, offset=_HEAD.size)
    counts = [int(word) for word in words[:_COUNTS]]
    lengths = counts[len(_COPIED) :]
    if (
        len(words) != _COUNTS + sum(n * width for n, width in zip(lengths, _WIDTHS, strict=True))
        or min(lengths) < 0
    ):
        raise SnapshotError("snapshot is damaged: its length does not fit its counts")
    sections = []
    at_word = _COUNTS
    for n, width in zip(lengths, _WIDTHS, strict=True):
        sections.append(words[at_word : at_word + n * width].reshape(n, width).copy())
        at_word += n * width
    return counts, sections
