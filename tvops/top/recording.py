"""Recordings: what was polled, as a compressed file that can be played again.

After the first line come blocks: a header (whether a zstd stream begins here, bytes in the file, bytes unpacked,
ns since 1970) and the bytes that the stream was flushed to. A stream goes on for `KEY_BLOCKS` blocks, since
documents resemble each other; to read a block, those before it in its stream are unpacked. What a crash tore off
is left out.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec
import zstandard

from tvops.engine.telemetry.document import Telemetry
from tvops.errors import TvopsError, UsageError
from tvops.telemetry_client import Reading, check_document
from tvops.top.addresses import Stack

MAGIC: Final = b"tvops top recording 1\n"
HEADER: Final = struct.Struct("<BIIq")
KEY_BLOCKS: Final = 64
MAX_BLOCK: Final = 16 << 20
MAX_FILE: Final = 1 << 30
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

    stacks: tuple[tuple[str, tuple[str, ...]], ...]


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
        self._file: IO[bytes] = os.fdopen(handle, "wb")
        self._times: dict[str, int] = {}
        self._blocks = 0
        self._packer = zstandard.ZstdCompressor(level=3)
        self._stream = self._packer.compressobj()
        self._file.write(MAGIC)
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
        if self._file.tell() + HEADER.size + len(packed) > self._max or len(content) > MAX_BLOCK:
            self.full = True
            return
        try:
            self._file.write(HEADER.pack(begins, len(packed), len(content), time) + packed)
            self._file.flush()
        except OSError as error:
            raise TvopsError(f"{self.path}: recording has ended ({error.strerror})") from None
        self._blocks += 1


class _Block(NamedTuple):
    begins: bool
    offset: int
    packed: int
    size: int
    time: int


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
        if size > MAX_FILE or self._file.read(len(MAGIC)) != MAGIC:
            self._file.close()
            raise UsageError(f"{path}: is no recording of tvops top")
        self._blocks = self._index(size)
        self._at = -1  # the block that the open stream gave last
        self._stream: zstandard.ZstdDecompressionObj | None = None
        try:
            about = msgspec.msgpack.decode(self._read(0), type=_About)
        except (IndexError, ValueError, RecursionError, zstandard.ZstdError):
            self._file.close()
            raise UsageError(f"{path}: is no recording of tvops top, or nothing was recorded") from None
        self.stacks = tuple(Stack(name, urls) for name, urls in about.stacks)
        self._decoder = msgspec.msgpack.Decoder(Frame)
        self.times = [block.time for block in self._blocks[1:]]

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

    def _index(self, size: int) -> list[_Block]:
        blocks: list[_Block] = []
        offset, latest = len(MAGIC), 0
        while offset + HEADER.size <= size:
            self._file.seek(offset)
            begins, packed, unpacked, time = HEADER.unpack(self._file.read(HEADER.size))
            offset += HEADER.size
            if begins > 1 or offset + packed > size or unpacked > MAX_BLOCK or not (blocks or begins):
                break
            latest = max(latest, time)
            blocks.append(_Block(bool(begins), offset, packed, unpacked, latest))
            offset += packed
        return blocks

    def _read(self, number: int) -> bytes:
        """Unpack a block, and those before it that belong to its stream."""
        key = number
        while not self._blocks[key].begins:
            key -= 1
        if self._stream is None or not key <= self._at < number:
            self._stream, self._at = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj(), key - 1
        content = b""
        try:
            while self._at < number:
                self._at += 1
                content = self._unpack(self._stream, self._blocks[self._at])
        except (ValueError, zstandard.ZstdError):
            self._stream = None
            raise
        return content

    def _unpack(self, stream: zstandard.ZstdDecompressionObj, block: _Block) -> bytes:
        self._file.seek(block.offset)
        packed, content = self._file.read(block.packed), bytearray()
        for begin in range(0, len(packed), PIECE):
            content += stream.decompress(packed[begin : begin + PIECE])
            if len(content) > block.size:
                break
        if len(content) != block.size:
            raise ValueError("has another size than it says")
        return bytes(content)
