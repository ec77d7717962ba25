"""Binary frames and WebSocket messages as bytes, made once and shared by every session that gets them.

A server's WebSocket messages are not masked (RFC 6455, 5.1), so that the same bytes serve any number of sessions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.records import VERSION, RecordType

MAGIC = 0x4654  # "TF"
MAX_FRAME_ROWS = 1024
MAX_MESSAGE_BYTES = 256 * 1024
"""A binary message takes no further frame beyond this; common clients refuse messages over 1 MB."""

FRAME = np.dtype(
    [
        ("magic", "<u2"),
        ("version", "u1"),
        ("record_type", "u1"),  # RecordType
        ("flags", "u1"),  # FrameFlag
        ("depth", "u1"),  # levels of a book of limited depth, else 0
        ("instrument", "<u2"),
        ("count", "<u4"),  # records behind the header
        ("epoch", "<u4"),  # drawn at each start of the service
        ("sequence", "<u8"),  # number of the last record that the frame takes its reader to
        ("sent", "<i8"),  # ns since the epoch
    ]
)
"""Header of a binary frame: 32 bytes; `count` records follow."""

_HEADER = struct.Struct("<HBBBBHIIQq")
assert _HEADER.size == FRAME.itemsize


class FrameFlag(IntFlag):
    """`FRAME.flags`."""

    SNAPSHOT = 1  # the whole present state; the next record is `sequence` + 1
    CONFLATED = 2  # records before those of this frame were left out for this session
    GAP = 4  # records before this frame never reached the service


class Opcode(IntEnum):
    """WebSocket opcodes (RFC 6455, 5.2)."""

    TEXT = 0x1
    BINARY = 0x2
    PING = 0x9
    PONG = 0xA


def binary_frame(
    record_type: RecordType,
    instrument: int,
    rows: NDArray[Any],
    *,
    flags: int,
    depth: int,
    epoch: int,
    sequence: int,
    sent: int,
) -> bytes:
    """Give one binary frame: header and ``rows`` as they are."""
    header = _HEADER.pack(MAGIC, VERSION, record_type, flags, depth, instrument, len(rows), epoch, sequence, sent)
    return header + rows.tobytes()


def message(opcode: Opcode, *parts: bytes) -> bytes:
    """Give one unmasked, unfragmented WebSocket message whose payload is ``parts`` in a row."""
    size = sum(map(len, parts))
    first = 0x80 | opcode
    if size < 126:
        header = bytes((first, size))
    elif size < 1 << 16:
        header = struct.pack(">BBH", first, 126, size)
    else:
        header = struct.pack(">BBQ", first, 127, size)
    return b"".join((header, *parts))


def binary_messages(frames: Iterable[bytes]) -> tuple[bytes, int]:
    """Put binary frames into as few messages as the size limit allows; give their bytes and how many they are."""
    messages: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for frame in frames:
        if parts and size + len(frame) > MAX_MESSAGE_BYTES:
            messages.append(message(Opcode.BINARY, *parts))
            parts, size = [], 0
        parts.append(frame)
        size += len(frame)
    if parts:
        messages.append(message(Opcode.BINARY, *parts))
    return (messages[0] if len(messages) == 1 else b"".join(messages)), len(messages)
