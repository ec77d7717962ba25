"""The ledger: one stream of packed COMMAND batches, appended durably, in order, by one engine.

The id of an entry is ``<first seq>-0``. The server refuses an id that is not above the last one, so that of
two engines on one ledger the second to append is refused. The stream's length is asked for with every append:
together with the last id that tells when somebody else wrote to the ledger or took something away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tvops.engine.bus.packing import PackingError, VersionError, unpack
from tvops.engine.records import RecordType
from tvops.errors import FencedError, LedgerError, RefusedError

FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.01, 0.5
_AWAY = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)
_NOT_ABOVE_THE_LAST = "equal or smaller than the target stream"
_CHUNK = 64  # entries that are read or copied in one call

logger = logging.getLogger(__name__)


class DamageError(LedgerError):
    """An entry of the ledger is not what was appended, or one is missing before it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it lies in the stream."""

    name: bytes  # the stream id
    fields: dict[bytes, bytes]

    def commands(self, expected: int) -> NDArray[Any]:
        """Give the COMMAND rows, read-only, the first of which has to have seq ``expected``.

        Raises:
            DamageError: the entry is damaged, or not the one that starts there.
            RefusedError: another version of tvops wrote it.
        """
        if self.name != b"%d-0" % expected:
            raise DamageError(f"entry {self.name.decode()} follows where seq {expected} should")
        try:
            record_type, rows = unpack(self.fields[b"p"])
        except VersionError as error:
            raise RefusedError(
                f"ledger entry {self.name.decode()}: {error}; run the version that wrote it"
            ) from None
        except (KeyError, PackingError) as error:
            raise DamageError(f"entry {self.name.decode()}: {error}") from None
        if record_type != RecordType.COMMAND or not len(rows):
            raise DamageError(f"entry {self.name.decode()}: holds no commands")
        if not np.array_equal(rows["seq"], np.arange(expected, expected + len(rows), dtype=np.uint64)):
            raise DamageError(f"entry {self.name.decode()}: its sequence numbers are not {expected} and following")
        return rows


class Ledger:
    """The ledger of one shard on the server of the ledger role. One `append` at a time."""

    def __init__(self, client: Redis, shard: int = 0) -> None:
        self.key = f"ledger:{{{shard}}}"
        self.trouble = ""
        """Why appends do not get through at present; empty: they do."""
        self.trouble_since = 0.0
        """Monotonic time at which `trouble` began."""
        self.entries = 0
        """Entries that the stream has."""
        self._client = client
        self._connection: AbstractConnection | None = None
        self._lock = asyncio.Lock()
        self._last = 0  # first seq of the last entry; 0: the ledger is empty
        self._doubt = True  # whether the stream may differ from `_last` and `entries`

    async def open(self, last: int) -> None:
        """Stand behind the entry that starts with seq ``last`` (0: behind none), as recovery found it.

        Raises:
            FencedError: there are entries behind it: another engine appends.
            LedgerError: it is not there, or the server does not answer.
        """
        self._last, self._doubt = last, True
        async with self._lock:
            try:
                await self._resolve(0, b"")
            except (*_AWAY, RedisError) as error:
                raise LedgerError(f"{self.key}: cannot be opened: {error}") from None

    async def append(self, first: int, blob: bytes) -> None:
        """Append a packed batch whose first command is ``first``; return when the server has it on disk.

        While the server is away or cannot write, this tries again, after a look at whether the last attempt got
        through; `trouble` tells why.

        Raises:
            FencedError: another engine has appended.
            LedgerError: the stream has lost entries.
        """
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                async with self._lock:
                    await self._attempt(first, blob)
            except (*_AWAY, RedisError) as error:
                if not self.trouble:
                    logger.error("%s: append fails, commands wait: %s", self.key, error)
                    self.trouble_since = time.monotonic()
                self.trouble = str(error) or type(error).__name__
            else:
                if self.trouble:
                    logger.warning("%s: appends get through again", self.key)
                self.trouble = ""
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_RETRY_SECONDS)

    async def read(self, start: int) -> list[Entry]:
        """Give the next entries from the one that starts with seq ``start`` on, [] at the end.

        Raises:
            LedgerError: the server does not answer.
        """
        try:
            found = await self._client.xrange(self.key, min=f"{start}-0", count=_CHUNK)
        except RedisError as error:
            raise LedgerError(f"{self.key}: cannot be read: {error}") from None
        return _entries(found)

    async def first_and_last(self) -> tuple[Entry | None, Entry | None]:
        """Give the oldest and the newest entry.

        Raises:
            LedgerError: the server does not answer.
        """
        try:
            ends = (await self._client.xrange(self.key, count=1), await self._client.xrevrange(self.key, count=1))
        except RedisError as error:
            raise LedgerError(f"{self.key}: cannot be read: {error}") from None
        first, last = (_entries(end) for end in ends)
        return (first[0], last[0]) if first and last else (None, None)

    async def trim(self, first: int) -> None:
        """Drop the entries before the one that starts with seq ``first``.

        Raises:
            RedisError: the server is away or refuses.
        """
        async with self._lock:
            try:
                self.entries -= await self._client.xtrim(self.key, minid=f"{first}-0", approximate=False)
            except RedisError:
                self._doubt = True
                raise

    async def cut(self, seq: int) -> str:
        """Put the entries from seq ``seq`` on aside; give the key of the stream that then has them.

        What stays is copied and the two streams change places at once, so that a stop half-way does no harm.

        Raises:
            LedgerError: the server does not answer or has no room.
        """
        rest = f"{self.key}:rest"
        try:
            aside = await self._free_name(f"{self.key}:cut:{seq}")
            await self._client.delete(rest)
            kept = await self._copy_until(seq, rest)
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.rename(self.key, aside)
                if kept:
                    pipe.rename(rest, self.key)
                    pipe.xtrim(aside, minid=f"{seq}-0", approximate=False)
                await pipe.execute()
        except RedisError as error:
            raise LedgerError(
                f"{self.key}: damaged from seq {seq} on, and that cannot be put aside: {error}"
            ) from None
        return aside

    async def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
            await self._client.connection_pool.release(self._connection)
            self._connection = None

    async def _attempt(self, first: int, blob: bytes) -> None:
        if self._doubt and await self._resolve(first, blob):
            return
        name = f"{first}-0"
        create = () if self._last == 0 else ("NOMKSTREAM",)
        answers = await self._call(("XADD", self.key, *create, name, "p", blob), ("XLEN", self.key))
        added, length = answers
        if isinstance(added, ResponseError) and _NOT_ABOVE_THE_LAST in str(added):
            if await self._resolve(first, blob):
                return
            raise FencedError(f"{self.key}: refused seq {first} although nothing is there: another engine writes")
        if isinstance(added, Exception):
            raise added
        if added is None:
            raise LedgerError(f"{self.key}: is gone from the server; restore the server's files and start again")
        if length != self.entries + 1:
            raise LedgerError(
                f"{self.key}: has {length} entries instead of {self.entries + 1}: somebody else changed it; "
                "restore the server's files and start again"
            )
        self._last, self.entries = first, length

    async def _resolve(self, first: int, blob: bytes) -> bool:
        """Look where the stream ends; tell whether it ends with the entry that is in flight."""
        newest, length = await self._call(("XREVRANGE", self.key, "+", "-", "COUNT", 1), ("XLEN", self.key))
        for answer in (newest, length):
            if isinstance(answer, Exception):
                raise answer
        name, fields = newest[0] if newest else (b"0-0", [])
        landed = bool(first) and name == b"%d-0" % first and list(fields) == [b"p", blob]
        if landed:
            self._last = first
        elif name != b"%d-0" % self._last:
            self._explain(name)
        self.entries, self._doubt = length, False
        return landed

    def _explain(self, name: bytes) -> None:
        last, found = f"{self._last}-0", name.decode()
        if int(name.split(b"-")[0]) > self._last:
            raise FencedError(
                f"{self.key}: ends with entry {found} instead of {last}: another engine appends to it"
            )
        raise LedgerError(
            f"{self.key}: ends with entry {found} instead of {last}: entries are lost; "
            "restore the server's files and start again"
        )

    async def _call(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands on the ledger's own connection and give the answers, errors of the server among them."""
        pool = self._client.connection_pool
        try:
            if self._connection is None:
                self._connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            elif not self._connection.is_connected:
                await self._connection.connect()  # type: ignore[no-untyped-call]
            await self._connection.send_packed_command(self._connection.pack_commands(commands))
            answers: list[Any] = []
            for _ in commands:
                try:
                    answers.append(await self._connection.read_response())
                except ResponseError as error:
                    answers.append(error)
        except BaseException:
            self._doubt = True
            if self._connection is not None:
                await self._connection.disconnect(nowait=True)
            raise
        return answers

    async def _free_name(self, name: str) -> str:
        number = 1
        while await self._client.exists(free := name if number == 1 else f"{name}:{number}"):
            number += 1
        return free

    async def _copy_until(self, seq: int, target: str) -> int:
        """Copy the entries before seq ``seq`` to the stream ``target``; give how many."""
        start, copied = "-", 0
        while found := _entries(await self._client.xrange(self.key, min=start, max=f"({seq}-0", count=_CHUNK)):
            async with self._client.pipeline(transaction=False) as pipe:
                for entry in found:
                    fields = [part for field in entry.fields.items() for part in field]
                    pipe.execute_command("XADD", target, entry.name, *fields)
                await pipe.execute()
            copied += len(found)
            start = f"({found[-1].name.decode()}"
        return copied


def _entries(found: Any) -> list[Entry]:
    return [Entry(name, fields) for name, fields in found]
