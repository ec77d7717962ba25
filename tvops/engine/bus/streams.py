"""Segmented streams: one stream of packed entries, cut into keys by a fixed span of ids.

    <prefix>:<segment>   entries whose major id // span == segment
    <prefix>:head        "<newest segment> <span>"

An entry has two fields: `p`, the packed rows, and `b`, the id of the entry before it. So a reader knows
for certain whether it missed something, whatever was evicted, expired or lost with a server, and it finds
older segments by following `b`. A writer that opens a segment ends the one before with an entry that has only
the field `n`, the new segment: that wakes readers which wait there. Ids are given by the writer: the
server refuses one that is not above the last, so that a repeat does no harm.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Id: TypeAlias = tuple[int, int]
Entry: TypeAlias = tuple[int, int, bytes]
"""Major id, minor id, packed rows."""

START: Id = (0, 0)
"""Before the first entry of any stream."""


def parse_id(name: bytes) -> Id:
    """Give the id that a server writes as ``<major>-<minor>``."""
    major, _, minor = name.partition(b"-")
    return int(major), int(minor)


async def find_head(client: Any, prefix: str) -> tuple[int, int] | None:
    """Give the newest segment of a stream and the span of its segments; None where there is no stream.

    Raises:
        RedisError: the server is away or refuses.
    """
    head = await client.get(f"{prefix}:head")
    if head is None:
        return None
    segment, _, span = head.partition(b" ")
    return int(segment), int(span)


async def newest_id(client: Any, prefix: str, segment: int) -> Id | None:
    """Give the id of the newest entry of ``segment``; None where there is none, or it was evicted.

    Raises:
        RedisError: the server is away or refuses.
    """
    newest = await client.xrevrange(f"{prefix}:{segment}", count=2)  # the last may be the segment's end
    return next((parse_id(entry) for entry, fields in newest if b"p" in fields), None)
