"""Packed entries: what goes in comes out, and nothing damaged ever does."""

from __future__ import annotations

import lz4.block
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvops.engine.bus import packing
from tvops.engine.bus.packing import MAX_ROWS, PackingError, extra_of, pack, raw_size, unpack
from tvops.engine.records import COMMAND, DTYPES, TICK, TRADE, VERSION, RecordType

TYPES = st.sampled_from(list(RecordType))


def rows_of(record_type: RecordType, count: int, seed: int) -> NDArray[np.void]:
    """Give rows whose bytes are partly random, partly equal, as real ones are."""
    size = DTYPES[record_type].itemsize
    data = np.random.default_rng(seed).integers(0, 256, (count, size), np.uint8)
    data[:, seed % size :] = 7
    return data.reshape(-1).view(DTYPES[record_type])


@given(TYPES, st.integers(0, 300), st.integers(0, 1000), st.booleans(), st.integers(0, 2**32 - 1))
def test_roundtrip(record_type: RecordType, count: int, seed: int, compress: bool, extra: int) -> None:
    rows = rows_of(record_type, count, seed)
    blob = pack(rows, record_type, compress, extra)
    found, back = unpack(blob)
    assert found is record_type
    assert back.dtype == rows.dtype
    assert back.tobytes() == rows.tobytes()
    assert not back.flags.writeable
    assert extra_of(blob) == extra
    assert raw_size(blob) == (count, rows.nbytes)
    assert len(blob) <= rows.nbytes + 24


@given(TYPES, st.integers(0, 40), st.integers(0, 1000), st.booleans(), st.data())
def test_any_flipped_bit_is_noticed(
    record_type: RecordType, count: int, seed: int, compress: bool, data: st.DataObject
) -> None:
    blob = bytearray(pack(rows_of(record_type, count, seed), record_type, compress))
    bit = data.draw(st.integers(0, len(blob) * 8 - 1))
    blob[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PackingError):
        unpack(bytes(blob))


@given(st.binary(max_size=200), st.integers(0, 64))
def test_cut_lengthened_and_random_bytes_are_refused(noise: bytes, cut: int) -> None:
    blob = pack(rows_of(RecordType.TICK, 3, 1), RecordType.TICK)
    for bad in (noise, b"TV" + noise, blob[: len(blob) - 1 - cut], blob + noise + b"x"):
        with pytest.raises(PackingError):
            unpack(bad)


def forged(payload: bytes, **header: int) -> bytes:
    """Give a blob with a right checksum and whatever else in the header."""
    values = {"code": RecordType.TRADE, "flags": 3, "version": VERSION, "size": TRADE.itemsize, "count": 1}
    values |= {"length": len(payload), **header}
    fields = [values[name] for name in ("code", "flags", "version", "size", "count", "length")]
    head = packing._HEADER.pack(b"TV", *fields, 0, 0)
    return packing._HEADER.pack(b"TV", *fields, packing.zlib.crc32(payload, packing.zlib.crc32(head)), 0) + payload


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (forged(lz4.block.compress(bytes(1 << 26), store_size=False)), "packed entry: "),  # a bomb
        (forged(lz4.block.compress(bytes(39), store_size=False)), "39 bytes for 1 rows of 40"),
        (forged(b"\xff" * 50), "packed entry: "),
        (forged(b"", count=0xFFFFFFFF), "too many"),
        (forged(bytes(40), flags=0, count=2), "40 bytes for 2 rows"),
        (forged(bytes(40), flags=8), "unknown"),
        (forged(bytes(40), flags=0, version=VERSION + 1), f"version {VERSION + 1}"),
        (forged(bytes(40), flags=0, code=200), "record type 200"),
        (forged(bytes(64), flags=0, size=64), "of 64 bytes"),
    ],
)
def test_a_blob_with_a_right_checksum_is_not_trusted(blob: bytes, reason: str) -> None:
    with pytest.raises(PackingError, match=reason):
        unpack(blob)


def test_what_cannot_be_packed_is_an_error() -> None:
    with pytest.raises(PackingError, match="no TICK rows"):
        pack(np.zeros(1, TRADE), RecordType.TICK)
    with pytest.raises(PackingError, match="no TICK rows"):
        pack(np.zeros((2, 2), TICK), RecordType.TICK)
    with pytest.raises(PackingError, match="more than"):
        pack(np.zeros(MAX_ROWS + 1, TRADE), RecordType.TRADE)
    assert len(unpack(pack(np.zeros(MAX_ROWS, COMMAND), RecordType.COMMAND))[1]) == MAX_ROWS


def test_rows_need_not_lie_together() -> None:
    rows = rows_of(RecordType.TICK, 20, 5)
    assert unpack(pack(rows[::2], RecordType.TICK))[1].tobytes() == rows[::2].tobytes()


def test_plain_rows_are_not_copied() -> None:
    blob = pack(rows_of(RecordType.TICK, 4, 2), RecordType.TICK, compress=False)
    _, rows = unpack(blob)
    assert np.shares_memory(rows, np.frombuffer(blob, np.uint8))
