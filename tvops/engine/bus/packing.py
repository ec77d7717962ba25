"""Packed entries: record rows in one checksummed, usually compressed, blob.

A blob is a 24-byte little-endian header and a payload:

    magic         2 bytes  ``TV``
    record type   u1       `RecordType`
    flags         u1       `LZ4`, `TRANSPOSED`
    version       u2       `records.VERSION`
    item size     u2       bytes of one row
    count         u4       rows
    length        u4       bytes of the payload
    checksum      u4       CRC-32 of the header (with this field 0) and the payload
    extra         u4       free for the payload's owner

Before compression the bytes are transposed (all first bytes of the rows, then all second bytes, ...):
neighbours in the payload then differ little. Rows that do not get smaller are stored as they are.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import lz4.block
import numpy as np
from numpy.typing import NDArray

from tvops.engine.records import DTYPES, VERSION, RecordType
from tvops.errors import TvopsError

MAX_ROWS = 1 << 16
"""Most rows of one blob."""

MAX_BYTES = 16 << 20
"""Largest payload, and largest size of the rows of one blob in memory."""

LZ4, TRANSPOSED = 1, 2
"""Header flags: the payload is an lz4 block; its bytes are transposed."""

_HEADER = struct.Struct("<2sBBHHIIII")
_MAGIC = b"TV"
_SMALLEST = 64  # bytes below which lz4 does not pay
_CHECKSUM_AT = 16


class PackingError(TvopsError):
    """A blob is damaged, of another version or no packed entry at all; or rows cannot be packed."""


class VersionError(PackingError):
    """A blob is whole, but of another version of the records."""


def pack(rows: NDArray[Any], record_type: RecordType, compress: bool = True, extra: int = 0) -> bytes:
    """Pack rows of the dtype of ``record_type`` into one blob.

    Args:
        rows: (n,) of `DTYPES[record_type]`, n up to `MAX_ROWS`.
        compress: try lz4; what does not get smaller is stored plain.
        extra: u4 for the caller's own use, see `extra_of`.

    Raises:
        PackingError: too many rows, or rows of another dtype.
    """
    dtype = DTYPES[record_type]
    count = len(rows)
    if rows.dtype != dtype or rows.ndim != 1:
        raise PackingError(f"rows of {rows.dtype.itemsize} bytes, {rows.ndim}-d, are no {record_type.name} rows")
    if count > MAX_ROWS:
        raise PackingError(f"{count} rows are more than the {MAX_ROWS} of one entry")
    size = dtype.itemsize
    payload, flags = None, 0
    if compress and count * size >= _SMALLEST:
        columns = np.ascontiguousarray(rows).view(np.uint8).reshape(count, size).T
        packed = lz4.block.compress(columns.tobytes(), store_size=False)
        if len(packed) < count * size:
            payload, flags = packed, LZ4 | TRANSPOSED
    if payload is None:
        payload = rows.tobytes()
    header = _HEADER.pack(_MAGIC, record_type, flags, VERSION, size, count, len(payload), 0, extra)
    checksum = zlib.crc32(payload, zlib.crc32(header))
    return b"".join((header[:_CHECKSUM_AT], checksum.to_bytes(4, "little"), header[_CHECKSUM_AT + 4 :], payload))


def unpack(blob: bytes) -> tuple[RecordType, NDArray[Any]]:
    """Give the record type and the rows of a blob, read-only; without a copy where the blob is not compressed.

    numba compiles a kernel once more for read-only arrays: copy the rows before a kernel that others call
    with writable ones.

    Raises:
        PackingError: the blob is damaged in any way or too large.
        VersionError: it is of another version.
    """
    if len(blob) < _HEADER.size:
        raise PackingError(f"a blob of {len(blob)} bytes is no packed entry")
    magic, code, flags, version, size, count, length, checksum, _ = _HEADER.unpack_from(blob)
    if magic != _MAGIC:
        raise PackingError("not a packed entry: the magic is wrong")
    if length != len(blob) - _HEADER.size or length > MAX_BYTES:
        raise PackingError(f"packed entry: {len(blob) - _HEADER.size} bytes of payload, the header says {length}")
    payload = memoryview(blob)[_HEADER.size :]
    if checksum != zlib.crc32(payload, zlib.crc32(_without_checksum(blob))):
        raise PackingError("packed entry: wrong checksum")
    if version != VERSION:
        raise VersionError(f"packed entry: version {version}, this is version {VERSION}")
    if code not in _TYPES or DTYPES[_TYPES[code]].itemsize != size or flags not in (0, LZ4, LZ4 | TRANSPOSED):
        raise PackingError(f"packed entry: record type {code} of {size} bytes with flags {flags} is unknown")
    if count > MAX_ROWS or count * size > MAX_BYTES:
        raise PackingError(f"packed entry: {count} rows of {size} bytes are too many")
    record_type = _TYPES[code]
    raw = _decompress(payload, count * size) if flags & LZ4 else payload
    if len(raw) != count * size:
        raise PackingError(f"packed entry: {len(raw)} bytes for {count} rows of {size}")
    data = np.frombuffer(raw, np.uint8)
    if flags & TRANSPOSED:
        data = np.ascontiguousarray(data.reshape(size, count).T).reshape(-1)
    rows = data.view(DTYPES[record_type])
    rows.flags.writeable = False
    return record_type, rows


def extra_of(blob: bytes) -> int:
    """Give the u4 that the packer put into the header of a blob that `unpack` accepts."""
    return int(_HEADER.unpack_from(blob)[8])


def raw_size(blob: bytes) -> tuple[int, int]:
    """Give rows and bytes before compression of a blob that `pack` made, without unpacking it."""
    header = _HEADER.unpack_from(blob)
    return header[5], header[5] * header[4]


_TYPES = {int(record_type): record_type for record_type in DTYPES}


def _without_checksum(blob: bytes) -> bytes:
    return b"".join((blob[:_CHECKSUM_AT], b"\0\0\0\0", blob[_CHECKSUM_AT + 4 : _HEADER.size]))


def _decompress(payload: memoryview, size: int) -> bytes:
    try:
        # the size bounds what lz4 writes, whatever the block claims
        return bytes(lz4.block.decompress(payload, uncompressed_size=size))
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise PackingError(f"packed entry: {error}") from None
