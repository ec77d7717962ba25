"""Snapshots of the whole trading state: compressed, checksummed, written in small steps, two of them kept.

A blob is a header and a body:

    magic      4 bytes  ``TVSN``
    version    u2       `records.VERSION`
    unused     2 bytes
    seq        u8       last command that the state has in it
    time       i8       that command's time
    digest     16 bytes BLAKE2b-128 of the header up to here and the body

The body is a MessagePack map of the name of a part -> its size and its lz4 block.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import lz4.block
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tvops.engine.records import VERSION
from tvops.errors import LedgerError, RefusedError

KEPT = 2
"""How many good snapshots are kept; the ledger goes back to the oldest of them."""

MAX_BYTES = 1 << 30
"""Largest part before compression."""

_STEP = 1 << 18  # bytes that one command writes: an append waits for no more than that
_HEADER = struct.Struct("<4sHxxQq")
_MAGIC = b"TVSN"
_DIGEST_SIZE = 16
_START = _HEADER.size + _DIGEST_SIZE
_DECODER = msgspec.msgpack.Decoder(dict[str, tuple[int, bytes]])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after command ``seq``, in named parts, each compressed by itself."""

    seq: int
    time: int  # ns, of that command
    blocks: dict[str, tuple[int, bytes]]  # name -> size, lz4 block

    @classmethod
    def of(cls, seq: int, time: int, parts: Iterable[tuple[str, bytes]]) -> Snapshot:
        """Compress ``parts`` one after the other, without the GIL for most of the time."""
        return cls(seq, time, {name: (len(raw), lz4.block.compress(raw, store_size=False)) for name, raw in parts})

    def part(self, name: str) -> bytes:
        """Give a part as it was.

        Raises:
            LedgerError: there is none of that name, or it is damaged.
        """
        size, block = self.blocks.get(name, (0, b""))
        if not 0 < size <= MAX_BYTES:
            raise LedgerError(f"snapshot of seq {self.seq}: part {name} has {size} bytes")
        try:
            return bytes(lz4.block.decompress(block, uncompressed_size=size))
        except lz4.block.LZ4BlockError as error:
            raise LedgerError(f"snapshot of seq {self.seq}: part {name}: {error}") from None

    def encode(self) -> bytes:
        """Make the blob."""
        body = msgspec.msgpack.encode(self.blocks)
        header = _HEADER.pack(_MAGIC, VERSION, self.seq, self.time)
        return b"".join((header, _digest(header, body), body))

    @classmethod
    def decode(cls, blob: bytes) -> Snapshot:
        """Read a blob.

        Raises:
            LedgerError: it is damaged.
            RefusedError: another version of tvops wrote it.
        """
        if len(blob) < _START:
            raise LedgerError(f"{len(blob)} bytes are too few")
        header, body = blob[: _HEADER.size], blob[_START:]
        magic, version, seq, time = _HEADER.unpack(header)
        if magic != _MAGIC or blob[_HEADER.size : _START] != _digest(header, body):
            raise LedgerError("the checksum is wrong")
        if version != VERSION:
            raise RefusedError(f"a snapshot of version {version}, this is {VERSION}: run the one that wrote it")
        try:
            return cls(seq, time, _DECODER.decode(body))
        except msgspec.DecodeError as error:
            raise LedgerError(str(error)) from None


def _digest(header: bytes, body: bytes) -> bytes:
    digest = hashlib.blake2b(header, digest_size=_DIGEST_SIZE)
    digest.update(body)
    return digest.digest()


class SnapshotStore:
    """The snapshots of one shard on the server of the ledger role."""

    def __init__(self, client: Redis, shard: int = 0) -> None:
        self._client = client
        self._prefix = f"ledger:{{{shard}}}:snapshot:"

    def key(self, seq: int) -> str:
        """Give the key of the snapshot after command ``seq``."""
        return f"{self._prefix}{seq}"

    async def seqs(self) -> list[int]:
        """Give the seqs of the snapshots that are there, newest first.

        Raises:
            LedgerError: the server does not answer.
        """
        try:
            names = [name async for name in self._client.scan_iter(match=f"{self._prefix}*", count=1000)]
        except RedisError as error:
            raise LedgerError(f"snapshots cannot be listed: {error}") from None
        endings = {name.decode().removeprefix(self._prefix) for name in names}
        return sorted((int(ending) for ending in endings if ending.isdecimal()), reverse=True)

    async def read(self, seq: int) -> Snapshot:
        """Read the snapshot after command ``seq``.

        Raises:
            LedgerError: it is damaged, or the server does not answer; names it.
            RefusedError: another version of tvops wrote it.
        """
        try:
            blob: Any = await self._client.get(self.key(seq))
        except RedisError as error:
            raise LedgerError(f"{self.key(seq)}: cannot be read: {error}") from None
        try:
            snapshot = Snapshot.decode(blob or b"")
        except (LedgerError, RefusedError) as error:
            raise type(error)(f"{self.key(seq)}: {error}") from None
        if snapshot.seq != seq:
            raise LedgerError(f"{self.key(seq)}: is the snapshot of seq {snapshot.seq}")
        return snapshot

    async def write(self, seq: int, blob: bytes) -> None:
        """Write an encoded snapshot, in steps; it takes its name when it is whole.

        Raises:
            RedisError: the server is away or has no room.
        """
        draft = f"{self._prefix}draft"
        await self._client.unlink(draft)
        try:
            for start in range(0, len(blob), _STEP):
                await self._client.append(draft, blob[start : start + _STEP])
            await self._client.rename(draft, self.key(seq))
        except RedisError:
            with contextlib.suppress(RedisError):
                await self._client.unlink(draft)
            raise

    async def keep(self, seqs: list[int]) -> None:
        """Drop every snapshot but those of ``seqs``.

        Raises:
            RedisError: the server is away or refuses.
        """
        for seq in await self.seqs():
            if seq not in seqs:
                await self._client.unlink(self.key(seq))
