"""Segmented streams against a real server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from redis.asyncio import Redis

from tvops.engine.bus.packing import pack, unpack
from tvops.engine.bus.roles import Bus
from tvops.engine.bus.streams import StreamReader, StreamWriter
from tvops.engine.records import TRADE, RecordType


def blob(number: int) -> bytes:
    rows = np.zeros(1, TRADE)
    rows["trade_id"] = number
    return pack(rows, RecordType.TRADE)


def entry(major: int, minor: int = 0) -> tuple[int, int, bytes]:
    return major, minor, blob(major)


async def drain(reader: StreamReader, block_ms: int = 0) -> list[int]:
    found = []
    while batch := await reader.read(block_ms):
        for major, _, packed in batch:
            assert unpack(packed)[1]["trade_id"][0] == major
            found.append(major)
    return found


async def test_reads_across_segments_in_order(client: Redis) -> None:
    writer = StreamWriter(client, "t:{0}", segment_span=10)
    majors = [1, 2, 9, 10, 11, 35, 36, 1000, 1001]
    assert await writer.write([entry(m) for m in majors]) == len(majors)
    reader = StreamReader(client, "t:{0}", start="oldest")
    assert await drain(reader) == majors
    assert not reader.gap
    assert (writer.writes, writer.repeats, writer.records) == (9, 0, 9)


async def test_reader_wakes_at_a_new_segment(client: Redis) -> None:
    writer = StreamWriter(client, "t:{0}", segment_span=10)
    await writer.write([entry(1)])
    reader = StreamReader(client, "t:{0}", start="now")
    await reader.open()
    waiting = asyncio.create_task(drain(reader, 1000))
    for major in (55, 56, 200, 201, 202, 9000):
        await asyncio.sleep(0.01)
        await writer.write([entry(major)])
    assert await waiting == [55, 56, 200, 201, 202, 9000]
    assert not reader.gap


async def test_repeats_are_counted_not_written(client: Redis) -> None:
    first = StreamWriter(client, "t:{0}", segment_span=10)
    await first.write([entry(m) for m in (1, 2, 15)])
    again = StreamWriter(client, "t:{0}", segment_span=10)
    assert await again.last_id() == (15, 0)
    assert await again.write([entry(m) for m in (2, 15, 16, 31)]) == 2
    assert again.repeats == 2
    assert await first.write([entry(m) for m in (16, 31, 32)]) == 1
    assert first.repeats == 2
    assert await drain(StreamReader(client, "t:{0}", start="oldest")) == [1, 2, 15, 16, 31, 32]


@pytest.mark.parametrize("group", [None, "g"])
async def test_evicted_segments_are_a_gap(client: Redis, group: str | None) -> None:
    writer = StreamWriter(client, "t:{0}", segment_span=10)
    await writer.write([entry(1)])
    reader = StreamReader(client, "t:{0}", start="oldest", group=group)
    assert await drain(reader) == [1]
    await writer.write([entry(m) for m in (2, 12, 25, 39)])
    await client.delete("t:{0}:0", "t:{0}:1")
    assert await drain(reader) + await drain(reader) == [25, 39]
    assert reader.gap


async def test_roles_are_served(bus: Bus) -> None:
    assert {health.state for health in (await bus.health()).values()} == {"ok"}
    assert set(await bus.figures()) == {"ledger", "market", "results"}
