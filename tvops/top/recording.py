"""Recordings: what was polled, as a compressed file that can be played again.

After the first line come blocks: a header (whether a zstd stream begins here, bytes in the file, bytes unpacked,
ns since 1970) and the bytes that the stream was flushed to. A stream goes on for `KEY_BLOCKS` blocks, since
documents resemble each other; to read a block, those before it in its stream are unpacked. What a crash tore off
is left out.
"""

from __future__ import annotations

import os
import struct
from array import array
from io import FileIO
from pathlib import Path
from typing import Annotated, Final

import msgspec
import zstandard

from tvops.engine.telemetry.document import Telemetry
from tvops.errors import TvopsError, UsageError
from tvops.telemetry_client import Reading, check_document
from tvops.top.addresses import Stack
from tvops.whole_files import append_whole

MAGIC: Final = b"tvops top recording 1\n"
HEADER: Final = struct.Struct("<BIIq")
KEY_BLOCKS: Final = 64
MAX_BLOCK: Final = 16 << 20
MAX_FILE: Final = 1 << 30
MAX_FRAMES: Final = 1 << 21
"""More than a file of that size has: one of a stack that does something takes some 850 bytes."""
MAX_RATIO: Final = 1000
"""How many times its size a recording may unpack to: idle stacks with thousands of sessions come to 330."""
MAX_STACKS: Final = 1024
"""And ports of one stack."""
MAX_GAP_NS: Final = 60_000_000_000
"""Longer ones between two frames are cut to it: top was paused, or a clock was wrong."""
MAX_TIME_NS: Final = 1 << 62  # the year 2116
WINDOW: Final = 8 << 20
PIECE: Final = 256
"""Bytes that are unpacked at a time: a made-up file turns four of them into 128 kB, and is found out by then."""


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """What one poll gave, as it is kept."""

    url: str
    telemetry: Telemetry | None
    error: str
    connected: bool


class _About(msgspec.Struct, frozen=True, array_like=True):
    """The first block: what was watched."""

    stacks: Annotated[
        tuple[tuple[str, Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_STACKS)]], ...],
        msgspec.Meta(min_length=1, max_length=MAX_STACKS),
    ]


class Writer:
    """Writes a recording, readable by its owner only, since sessions name accounts and peers."""

    def __init__(self, path: Path, stacks: tuple[Stack, ...], max_bytes: int = MAX_FILE) -> None:
        """Begin a recording; raise UsageError where the file exists or cannot be written."""
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise UsageError(f"{path}: exists already; name another file to record to") from None
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror})") from None
        self.path = path
        self.full = False
        self._max = max_bytes
        self._file = FileIO(handle, "wb")
        self._times: dict[str, int] = {}
        self._blocks = 0
        self._packer = zstandard.ZstdCompressor(level=3)
        self._stream = self._packer.compressobj()
        self._write(MAGIC)
        self._append(msgspec.msgpack.encode(_About(tuple((s.name, s.urls) for s in stacks))), 0)

    def add(self, reading: Reading, time: int) -> None:
        """Keep what a poll gave at ``time`` (ns since 1970); once the file is full, nothing more.

        Raises:
            TvopsError: the disk is full.
        """
        if self.full:
            return
        if reading.telemetry is not None:
            if self._times.get(reading.url) == reading.telemetry.time:
                return
            self._times[reading.url] = reading.telemetry.time
        frame = Frame(reading.url, reading.telemetry, reading.error, reading.connected)
        self._append(msgspec.msgpack.encode(frame), time)

    def close(self) -> None:
        """End the recording."""
        self._file.close()

    def _append(self, content: bytes, time: int) -> None:
        begins = self._blocks % KEY_BLOCKS == 0
        if begins:
            self._stream = self._packer.compressobj()
        packed = self._stream.compress(content) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        block = HEADER.pack(begins, len(packed), len(content), time) + packed
        fits = self._file.tell() + len(block) <= self._max and self._blocks <= MAX_FRAMES
        if not fits or max(len(packed), len(content)) > MAX_BLOCK:
            self.full = True
            return
        self._write(block)
        self._blocks += 1

    def _write(self, piece: bytes) -> None:
        try:
            append_whole(self._file, piece)
        except OSError as error:
            self.full = True
            self.close()
            if not self._blocks:
                self.path.unlink(missing_ok=True)
            raise TvopsError(f"{self.path}: recording has ended ({error.strerror})") from None


class Recording:
    """Reads a recording."""

    def __init__(self, path: Path) -> None:
        """Open ``path`` and index it; raise UsageError where it is no recording."""
        self.path = path
        try:
            self._file = path.open("rb")
            size = path.stat().st_size
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
        # Of every block but the first, which is no frame: when it was polled, ns since 1970, and never backwards.
        self.times = array("q")
        self._offsets = array("q")
        self._keys = array("q")  # the block with which its stream begins
        self._at = -1  # the block that the open stream gave last
        self._broken = (-1, -1)  # first block of a stream, and the one from which on it is damaged
        self._stream: zstandard.ZstdDecompressionObj | None = None
        self._decoder = msgspec.msgpack.Decoder(Frame)
        try:
            self.stacks = self._open(size)
        except UsageError:
            self._file.close()
            raise

    def frame(self, number: int) -> Reading:
        """Give a frame (0 up to the length of ``times``); a damaged one is told as an error of its reading."""
        try:
            frame = self._decoder.decode(self._read(number + 1))
            if frame.telemetry is not None:
                check_document(frame.telemetry)
        except (ValueError, RecursionError, zstandard.ZstdError):
            return Reading("", None, "the recording is damaged here", 0, False)
        return Reading(frame.url, frame.telemetry, frame.error, self.times[number], frame.connected)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _open(self, size: int) -> tuple[Stack, ...]:
        """Index the file; give what was watched. Raise UsageError where it is no recording."""
        if size > MAX_FILE or self._file.read(len(MAGIC)) != MAGIC:
            raise UsageError(f"{self.path}: is no recording of tvops top")
        self._index(size)
        try:
            about = msgspec.msgpack.decode(self._read(0), type=_About)
        except (IndexError, ValueError, RecursionError, zstandard.ZstdError):
            raise UsageError(f"{self.path}: is no recording of tvops top, or nothing was recorded") from None
        return tuple(Stack(name, urls) for name, urls in about.stacks)

    def _index(self, size: int) -> None:
        """Find the blocks, up to where a crash tore one off; refuse a file that would take all memory or time."""
        offset, key, unpacked, clock = len(MAGIC), 0, 0, 0
        while offset + HEADER.size <= size:
            self._file.seek(offset)
            begins, packed, content, time = HEADER.unpack(self._file.read(HEADER.size))
            number = len(self._offsets)
            key = number if begins else key
            end = offset + HEADER.size + packed
            if begins > 1 or (not number and not begins) or number - key >= KEY_BLOCKS:
                break
            if not (0 < packed <= MAX_BLOCK and 0 < content <= MAX_BLOCK and end <= size):
                break
            unpacked += content
            if number > MAX_FRAMES or unpacked > MAX_BLOCK + MAX_RATIO * size:
                raise UsageError(f"{self.path}: unpacks to more than a recording of tvops top may")
            self._offsets.append(offset)
            self._keys.append(key)
            if number:
                self.times.append(self._moment(time - clock, time))
            offset, clock = end, time

    def _moment(self, since_last: int, time: int) -> int:
        """Give when a frame was polled: by one wrong time, those that come after are not moved."""
        if not self.times:
            return max(0, min(MAX_TIME_NS, time))
        return self.times[-1] + max(0, min(MAX_GAP_NS, since_last))

    def _read(self, number: int) -> bytes:
        """Unpack a block, and those before it that belong to its stream."""
        key = self._keys[number]
        if key == self._broken[0] and number >= self._broken[1]:
            raise ValueError("comes after a damaged block")
        if self._stream is None or not key <= self._at < number:
            self._stream, self._at = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj(), key - 1
        content = b""
        try:
            while self._at < number:
                self._at += 1
                content = self._unpack(self._stream, self._offsets[self._at])
        except (ValueError, zstandard.ZstdError):
            self._stream, self._broken = None, (key, self._at)
            raise
        return content

    def _unpack(self, stream: zstandard.ZstdDecompressionObj, offset: int) -> bytes:
        self._file.seek(offset)
        _, size, unpacked, _ = HEADER.unpack(self._file.read(HEADER.size))
        packed, content = self._file.read(size), bytearray()
        for begin in range(0, len(packed), PIECE):
            content += stream.decompress(packed[begin : begin + PIECE])
            if len(content) > unpacked:
                break
        if len(content) != unpacked:
            raise ValueError("has another size than it says")
        return bytes(content)
