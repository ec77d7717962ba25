"""Segmented streams against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from tvops.engine.bus.packing import pack, unpack
from tvops.engine.bus.roles import Bus
from tvops.engine.bus.stream_reader import StreamReader
from tvops.engine.bus.stream_writer import StreamWriter
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
    found: list[int] = []

    async def read() -> None:
        while 9000 not in found:
            found.extend(major for major, _, _ in await reader.read(1000))

    waiting = asyncio.create_task(read())
    for major in (55, 56, 200, 201, 202, 9000):
        await asyncio.sleep(0.01)
        await writer.write([entry(major)])
    await waiting
    assert found == [55, 56, 200, 201, 202, 9000]
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


async def test_memory_pressure_takes_the_oldest_segments(client: Redis) -> None:
    """Servers tell ages apart by their own clock of seconds, so the old ones have to be older by one of it."""
    writer = StreamWriter(client, "t:{0}", segment_span=10)
    noise = np.random.default_rng(1).integers(0, 1 << 60, 1000).astype(np.int64)
    rows = np.zeros(1000, TRADE)
    rows["time"] = rows["price"] = noise
    packed = pack(rows, RecordType.TRADE)
    reader = StreamReader(client, "t:{0}", start="now")
    await reader.open()
    limits = {"maxmemory": 0, "maxmemory-policy": "noeviction", "maxmemory-samples": 5}
    try:
        for major in range(1, 200):
            await writer.write([(major, 0, packed)])
        while await client.object("IDLETIME", "t:{0}:19") < 1:  # type: ignore[misc]
            await asyncio.sleep(0.05)
        await client.config_set("maxmemory-policy", "allkeys-lru")
        await client.config_set("maxmemory-samples", 64)  # looks at all keys, not at some by chance
        await client.config_set("maxmemory", (await client.info("memory"))["used_memory"])
        for major in range(200, 300):
            await writer.write([(major, 0, packed)])
        found = [major for major, _, _ in await reader.read(0)]
        while batch := await reader.read(0):
            found += [major for major, _, _ in batch]
    finally:
        for key, value in limits.items():
            await client.config_set(key, value)
    assert reader.gap
    assert found == list(range(found[0], 300))
    assert found[0] <= 200, "of the newer ones none is gone"


@pytest.mark.parametrize("group", [None, "g"])
async def test_a_reader_survives_the_server(
    start_server: Callable[..., Any], group: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server()
    client = Redis.from_url(server.url, protocol=2, retry=Retry(NoBackoff(), 0))
    writer = StreamWriter(client, "t:{0}", segment_span=10)
    reader = StreamReader(client, "t:{0}", start="oldest", group=group)
    await writer.write([entry(1)])
    assert await drain(reader) == [1]
    server.kill()
    for _ in range(3):
        assert await reader.read(10) == []
    with pytest.raises(RedisError):
        await writer.write([entry(2)])
    server.start()
    assert await reader.read(0) == []
    assert reader.gap
    reader.gap = False
    assert await writer.write([entry(2), entry(15)]) == 2
    assert await drain(reader) == [2, 15]
    assert not reader.gap, "the writer went on where the reader was"
    server.kill()
    server.start()
    assert await reader.read(0) == []
    await StreamWriter(client, "t:{0}", segment_span=10).write([entry(16)])
    while not (found := await drain(reader)):
        pass
    assert found == [16]
    assert reader.gap
    assert 1 <= caplog.text.count("no server") <= 2
    await client.aclose()


async def test_a_group_goes_on_where_it_was(client: Redis) -> None:
    writer = StreamWriter(client, "t:{0}", segment_span=10)
    await writer.write([entry(m) for m in (1, 2, 15)])
    first = StreamReader(client, "t:{0}", start="now", group="g")
    await first.open()
    await writer.write([entry(m) for m in (16, 17, 25)])
    assert await drain(first) == [16, 17, 25]
    await writer.write([entry(m) for m in (26, 99)])
    second = StreamReader(client, "t:{0}", start="now", group="g")
    assert await drain(second) == [26, 99]
    assert not second.gap


@pytest.mark.parametrize("start", [(0, 0), (2, 0), (2, 5), (14, 0), (15, 0), (30, 0)])
async def test_reads_from_an_id(client: Redis, start: tuple[int, int]) -> None:
    majors = [1, 2, 15, 16, 31]
    await StreamWriter(client, "t:{0}", segment_span=10).write([entry(m) for m in majors])
    reader = StreamReader(client, "t:{0}", start=start)
    assert await drain(reader) == [m for m in majors if (m, 0) > start]
    assert not reader.gap


async def test_an_id_whose_successors_are_gone_is_a_gap(client: Redis) -> None:
    await StreamWriter(client, "t:{0}", segment_span=10).write([entry(m) for m in (1, 15, 31)])
    await client.delete("t:{0}:1")
    reader = StreamReader(client, "t:{0}", start=(1, 0))
    assert await drain(reader) == [31]
    assert reader.gap


async def test_now_before_the_stream_exists_misses_nothing(client: Redis) -> None:
    reader = StreamReader(client, "t:{0}", start="now")
    await reader.open()
    assert await reader.read(0) == []
    waiting = asyncio.create_task(reader.read(60_000))
    await asyncio.sleep(0.01)
    await StreamWriter(client, "t:{0}", segment_span=10).write([entry(m) for m in (1, 15)])
    assert [major for major, _, _ in await waiting + await reader.read(0)] == [1, 15]
    assert not reader.gap


async def test_segments_expire_and_old_ones_are_dropped(client: Redis) -> None:
    writer = StreamWriter(client, "t:{0}", segment_span=10, ttl_seconds=100, keep_segments=2)
    await writer.write([entry(m) for m in (1, 11, 21, 31)])
    assert sorted(await client.keys("t*")) == [b"t:{0}:2", b"t:{0}:3", b"t:{0}:head"]
    assert 90 < await client.ttl("t:{0}:3") <= 100
    await client.persist("t:{0}:3")
    await writer.write([entry(32)])
    assert await client.ttl("t:{0}:3") > 90
    await StreamWriter(client, "t:{0}", segment_span=10, keep_segments=2).write([entry(999)])
    assert sorted(await client.keys("t*")) == [b"t:{0}:99", b"t:{0}:head"]


async def test_a_block_longer_than_the_socket_timeout_is_shortened(valkey: Any) -> None:
    client = Redis.from_url(valkey.url, protocol=2, socket_timeout=0.6)
    await StreamWriter(client, "t:{0}", segment_span=10).write([entry(1)])
    reader = StreamReader(client, "t:{0}", start="now")
    for _ in range(5):
        assert await reader.read(60_000) == []
    assert reader.failures < 5  # a machine that stands still may cost some, a block that is too long all
    await client.aclose()


async def test_other_refusals_than_repeats_are_errors(client: Redis) -> None:
    await client.set("t:{0}:0", b"no stream")
    writer = StreamWriter(client, "t:{0}", segment_span=10)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await writer.write([entry(1), entry(11)])
    assert (writer.writes, writer.repeats, await writer.last_id()) == (0, 0, (0, 0))
    await client.delete("t:{0}:0")
    assert await writer.write([entry(1), entry(11)]) == 1, "the second one arrived before"


async def test_entries_are_counted(client: Redis) -> None:
    writer = StreamWriter(client, "t:{0}", segment_span=10)
    packed = pack(np.zeros(50, TRADE), RecordType.TRADE)
    await writer.write([(1, 0, packed), (2, 0, packed)])
    assert (writer.records, writer.raw_bytes, writer.packed_bytes) == (100, 4000, 2 * len(packed))
