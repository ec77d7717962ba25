"""Writes a segmented stream (streams.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tvops.engine.bus.packing import raw_size
from tvops.engine.bus.streams import START, Entry, Id, find_head, newest_id


class StreamWriter:
    """The one writer of a segmented stream. One `write` at a time.

    Counts `writes` (entries taken), `repeats` (entries refused because they were there), and of those taken
    `records`, `raw_bytes`, `packed_bytes`.
    """

    def __init__(
        self,
        client: Redis,
        prefix: str,
        *,
        segment_span: int,
        ttl_seconds: int | None = None,
        keep_segments: int | None = None,
    ) -> None:
        """Write to ``prefix`` through ``client``.

        Args:
            client: of the role that the stream belongs to.
            prefix: with the shard as hash tag, like ``rtrs:{0}``: all keys are then in one cluster slot.
            segment_span: how many major ids a segment spans.
            ttl_seconds: segments go that long after their last entry; by default never.
            keep_segments: segments that many spans behind the newest are deleted; by default none is.
        """
        self._client: Any = client  # redis-py's types allow str and None where only bytes come
        self._prefix = prefix
        self._span = segment_span
        self._ttl = ttl_seconds
        self._keep = keep_segments
        self._segment: int | None = None
        self._last: Id = START
        self._found = False
        self.writes = self.repeats = self.records = self.raw_bytes = self.packed_bytes = 0

    async def last_id(self) -> Id:
        """Give the id of the newest entry, (0, 0) where there is none. Entries have to be above it.

        Raises:
            RedisError: the server is away or refuses.
        """
        if not self._found:
            await self._find_head()
        return self._last

    async def skip(self, last: Id) -> None:
        """Note that entries up to id ``last`` were never written: readers see a gap there.

        Raises:
            RedisError: the server is away or refuses.
        """
        self._last = max(last, await self.last_id())

    async def write(self, entries: list[Entry], together: Sequence[tuple[Any, ...]] = ()) -> int:
        """Append entries, ids rising, in one round trip; give how many of them were new.

        What is not above the last id is a repeat: counted, not written. After an error it is unknown which
        entries arrived: write the same ones again. Commands in ``together``, on keys of the same cluster slot, are
        executed in one transaction with the entries.

        Raises:
            RedisError: the server is away, or refused for another reason than a repeat.
        """
        if not self._found:
            await self._find_head()
        fresh, last = [], self._last
        for entry in entries:
            if entry[:2] > last:
                fresh.append(entry)
                last = entry[:2]
        self.repeats += len(entries) - len(fresh)
        return await self._append(fresh, together) if fresh or together else 0

    async def _append(self, entries: list[Entry], together: Sequence[tuple[Any, ...]]) -> int:
        commands = self._commands(entries) if entries else []
        commands += [(None, command) for command in together]
        async with self._client.pipeline(transaction=bool(together)) as pipe:
            for _, command in commands:
                pipe.execute_command(*command)
            answers = await pipe.execute(raise_on_error=False)
        new = 0
        for (entry, _), answer in zip(commands, answers, strict=True):
            repeat = _is_repeat(answer)
            if isinstance(answer, Exception) and not repeat:
                raise answer
            if entry is None:
                continue
            self._last, self._segment = entry[:2], entry[0] // self._span
            if repeat:
                self.repeats += 1
            else:
                new += 1
                self._count(entry[2])
        return new

    def _commands(self, entries: list[Entry]) -> list[tuple[Entry | None, tuple[Any, ...]]]:
        """Give the commands that append ``entries``, each with the entry that it appends, if any."""
        commands: list[tuple[Entry | None, tuple[Any, ...]]] = []
        before, segment = self._last, self._segment
        for entry in entries:
            major, minor, blob = entry
            opened = major // self._span
            if opened != segment and segment is not None:
                commands += [(None, command) for command in self._leave(segment, opened, before)]
            segment = opened
            name, last = f"{major}-{minor}", f"{before[0]}-{before[1]}"
            commands.append((entry, ("XADD", self._key(segment), name, "p", blob, "b", last)))
            before = (major, minor)
        if self._ttl:
            for touched in dict.fromkeys(entry[0] // self._span for entry in entries):
                commands.append((None, ("EXPIRE", self._key(touched), self._ttl)))
        commands.append((None, ("SET", f"{self._prefix}:head", f"{segment} {self._span}")))
        return commands

    def _leave(self, old: int, opened: int, last: Id) -> list[tuple[Any, ...]]:
        """Give the commands that end segment ``old`` and drop those too far behind ``opened``."""
        commands: list[tuple[Any, ...]] = [
            ("XADD", self._key(old), "NOMKSTREAM", f"{last[0]}-{last[1] + 1}", "n", opened)
        ]
        if self._keep:
            gone = range(old - self._keep + 1, min(old, opened - self._keep) + 1)
            if gone:
                commands.append(("UNLINK", *(self._key(segment) for segment in gone)))
        return commands

    def _key(self, segment: int) -> str:
        return f"{self._prefix}:{segment}"

    def _count(self, blob: bytes) -> None:
        rows, size = raw_size(blob)
        self.writes += 1
        self.records += rows
        self.raw_bytes += size
        self.packed_bytes += len(blob)

    async def _find_head(self) -> None:
        head = await find_head(self._client, self._prefix)
        if head is not None:
            self._segment, _ = head
            self._last = await newest_id(self._client, self._prefix, self._segment) or START
        self._found = True


def _is_repeat(answer: Any) -> bool:
    return isinstance(answer, ResponseError) and "equal or smaller than the target stream" in str(answer)
