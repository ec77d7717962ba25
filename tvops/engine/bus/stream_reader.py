"""Reads a segmented stream (streams.py)."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tvops.engine.bus.streams import START, Entry, Id, find_head, newest_id, parse_id

logger = logging.getLogger(__name__)

_MAX_STEPS_BACK = 4096  # segments that a reader looks back for the oldest one
_POLL_SECONDS = 0.02  # while there is no stream yet
_BLOCK_MARGIN_MS = 300  # servers look for reads whose time is up only ten times a second
_RETRY_SECONDS = 0.1  # between attempts on a server that is away


class StreamReader:
    """One reader of a segmented stream, in order, from a start position on. One `read` at a time.

    `gap` becomes true when entries were lost before they were read; the caller sets it back. `entries` and
    `failures` count what was read and how often the server was away.
    """

    def __init__(
        self,
        client: Redis,
        prefix: str,
        *,
        start: Literal["now", "oldest"] | Id,
        group: str | None = None,
        count: int = 256,
    ) -> None:
        """Read ``prefix`` through ``client``.

        Args:
            client: of the role that the stream belongs to.
            prefix: as its writer has it.
            start: "now": what comes after `open`; "oldest": the oldest entry that is there; an id: what
                follows it, with `gap` if some of that is gone.
            group: keep the position on the server, in a consumer group of this name for this one reader, which
                goes on there (not at ``start``) after a restart. Once the segment of that position is gone,
                the group is like a new one.
            count: most entries of one `read`.
        """
        self._client: Any = client
        self._prefix = prefix
        self._start = start
        self._group = group
        self._count = count
        self._segment: int | None = None
        self._joined: int | None = None
        self._position: Id | None = None
        self._opened = False
        self._away = False
        self._gone = False
        self._max_block = _longest_block(client)
        self.gap = False
        self.entries = 0
        self.failures = 0

    @property
    def position(self) -> Id | None:
        """The id after which reading goes on; None: not known before the first entry."""
        return self._position

    async def open(self) -> None:
        """Fix the start position now; otherwise the first `read` does it.

        Raises:
            RedisError: the server is away or refuses.
        """
        if self._opened:
            return
        if not isinstance(self._start, str):
            self._position = self._start
        elif self._start == "now":
            self._position = await self._newest()
        if self._group:
            await self._resume()
        self._opened = True

    async def read(self, block_ms: int) -> list[Entry]:
        """Give the next entries, [] where none came for about ``block_ms`` (0: look once) or the server is away.

        Raises:
            RedisError: the server refuses (rights, a key of another type).
        """
        block = min(block_ms, self._max_block)
        try:
            await self.open()
            located = self._segment is not None or await self._locate()
            self._away = False
            if not located:
                return await self._wait_for_stream(block)
            found = await self._read_segment(block)
            if not found and await self._goes_on_elsewhere() and await self._locate():
                found = await self._read_segment(0)
            return found
        except (RedisConnectionError, RedisTimeoutError) as error:
            if not self._away:
                logger.warning("%s: no server, reading goes on when it is back: %s", self._prefix, error)
            self._away = True
            self.failures += 1
            self._segment = self._joined = None
            await asyncio.sleep(min(_RETRY_SECONDS, block / 1000))
            return []

    async def _wait_for_stream(self, block: int) -> list[Entry]:
        end = time.monotonic() + block / 1000
        while time.monotonic() < end:
            await asyncio.sleep(_POLL_SECONDS)
            if await self._locate():
                return await self._read_segment(0)
        return []

    async def _read_segment(self, block: int) -> list[Entry]:
        """Read on in the present segment, or in the next one if there is nothing but its end."""
        found: list[Entry] = []
        for _ in range(_MAX_STEPS_BACK):
            raw = await self._fetch(block)
            ended = self._take(raw, found)
            if ended is not None:
                self._segment = ended
            if found or ended is None:
                break
        self.entries += len(found)
        return found

    def _take(self, raw: list[tuple[bytes, dict[bytes, bytes]]], found: list[Entry]) -> int | None:
        """Move the position over ``raw``; give the next segment if this one ends."""
        for name, fields in raw:
            if b"n" in fields:
                return int(fields[b"n"])
            entry, before = parse_id(name), parse_id(fields[b"b"])
            if self._position is not None:
                if entry <= self._position:
                    continue
                if before > self._position or before == START < self._position:
                    self.gap = True
            self._position = entry
            found.append((*entry, fields[b"p"]))
        return None

    async def _fetch(self, block: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        key = f"{self._prefix}:{self._segment}"
        wait = block or None
        if self._group is None:
            major, minor = self._position or START
            answer = await self._client.xread({key: f"{major}-{minor}"}, count=self._count, block=wait)
        else:
            if self._joined != self._segment:
                await self._join()
            try:
                answer = await self._client.xreadgroup(
                    self._group, self._group, {key: ">"}, count=self._count, block=wait, noack=True
                )
            except ResponseError as error:
                if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    raise
                self._segment = self._joined = None  # evicted, perhaps written anew: look where it goes on
                return []
        return _rows(answer)

    async def _goes_on_elsewhere(self) -> bool:
        """After silence: whether the segment is gone, and with it what points to the next one."""
        if self._segment is None:
            return True
        head = await find_head(self._client, self._prefix)
        if head is None:
            if not await self._client.exists(f"{self._prefix}:{self._segment}"):
                self._lost()
            return False
        return head[0] != self._segment

    def _lost(self) -> None:
        """The stream is gone, with whatever was not read of it."""
        self._segment = None
        if not self._gone and self._position is not None and self._position > START:
            self.gap = self._gone = True

    async def _locate(self) -> bool:
        """Find the segment to read on in: the oldest one that may hold something behind the position."""
        head = await find_head(self._client, self._prefix)
        if head is None:
            self._lost()
            return False
        segment, span = head
        oldest = None
        for _ in range(_MAX_STEPS_BACK):
            first = await self._client.xrange(f"{self._prefix}:{segment}", count=1)
            if not first:
                break
            oldest = segment
            fields = first[0][1]
            before = parse_id(fields[b"b"]) if b"b" in fields else START
            if before == START or before[0] // span >= segment:
                break
            if self._position is not None and before <= self._position:
                break
            segment = before[0] // span
        if oldest is None:
            return False
        self._segment = oldest
        self._gone = False
        return True

    async def _resume(self) -> None:
        """Take the position that the group has in the newest segment that knows it."""
        head = await find_head(self._client, self._prefix)
        if head is None:
            return
        segment, span = head
        for _ in range(_MAX_STEPS_BACK):
            key = f"{self._prefix}:{segment}"
            first = await self._client.xrange(key, count=1)
            if not first or b"b" not in first[0][1]:
                return
            for group in await self._client.xinfo_groups(key):
                if group["name"] == str(self._group).encode():
                    delivered = parse_id(group["last-delivered-id"])
                    self._position = delivered if delivered > START else parse_id(first[0][1][b"b"])
                    self._segment = segment
                    return
            before = parse_id(first[0][1][b"b"])
            if before == START or before[0] // span >= segment:
                return
            segment = before[0] // span

    async def _join(self) -> None:
        major, minor = self._position or START
        try:
            await self._client.xgroup_create(f"{self._prefix}:{self._segment}", self._group, f"{major}-{minor}")
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP") and "requires the key to exist" not in str(error):
                raise
        self._joined = self._segment

    async def _newest(self) -> Id | None:
        """Give the newest id; None where the entry that has it was evicted."""
        head = await find_head(self._client, self._prefix)
        return START if head is None else await newest_id(self._client, self._prefix, head[0])


def _rows(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Give the entries of the one key of an XREAD answer (a list with RESP2, a mapping with RESP3)."""
    if not answer:
        return []
    if isinstance(answer, dict):
        (value,) = answer.values()
        return list(value[0])
    return list(answer[0][1])


def _longest_block(client: Redis) -> int:
    """Give how many ms a read may block so that its answer comes before the socket's time is up."""
    timeout = client.connection_pool.connection_kwargs.get("socket_timeout")
    return max(1, int(timeout * 1000) - _BLOCK_MARGIN_MS) if timeout else 5000
