"""Segmented streams against a list: whatever is evicted, lost or restarted, order and `gap` are right."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from tvops.engine.bus.packing import pack
from tvops.engine.bus.stream_reader import StreamReader
from tvops.engine.bus.stream_writer import StreamWriter
from tvops.engine.bus.streams import Id
from tvops.engine.records import TRADE, RecordType

SPAN = 4
BLOB = pack(np.zeros(1, TRADE), RecordType.TRADE)

STEPS = st.one_of(
    st.tuples(st.just("write"), st.lists(st.integers(0, 9), min_size=1, max_size=6)),
    st.tuples(st.just("repeat"), st.integers(1, 5)),
    st.tuples(st.just("read"), st.just(0)),
    st.tuples(st.just("evict"), st.integers(0, 8)),
    st.tuples(st.just("lose everything"), st.just(0)),
    st.tuples(st.just("evict head"), st.just(0)),
    st.tuples(st.just("restart writer"), st.just(0)),
    st.tuples(st.just("restart reader"), st.just(0)),
)


class Run:
    """A writer, a reader and what was written."""

    def __init__(self, client: Redis, group: str | None) -> None:
        self.client, self.group = client, group
        self.written: list[Id] = []
        self.lossy = False
        self.next_read = 0  # index in `written` that a reader without gaps sees next
        self.writer = self.new_writer()
        self.reader = StreamReader(client, "m:{0}", start="oldest", group=group, count=3)

    def new_writer(self) -> StreamWriter:
        return StreamWriter(self.client, "m:{0}", segment_span=SPAN)

    async def step(self, name: str, value: Any) -> None:
        last = self.written[-1] if self.written else (1, 0)
        if name == "write":
            ids = []
            for jump in value:
                last = (last[0] + jump, 0) if jump else (last[0], last[1] + 1)
                ids.append(last)
            assert await self.writer.write([(*i, BLOB) for i in ids]) == len(ids)
            self.written += ids
        elif name == "repeat" and not self.lossy:
            assert await self.writer.write([(*i, BLOB) for i in self.written[-value:]]) == 0
        elif name == "read":
            await self.read()
        elif name == "evict" and self.written:
            await self.client.delete(f"m:{{0}}:{max(0, last[0] // SPAN - value)}")
            self.lossy = True
        elif name == "evict head":
            await self.client.delete("m:{0}:head")
            self.lossy = True
        elif name == "lose everything":
            await self.client.flushall()
            self.lossy = True
        elif name == "restart writer":
            self.writer = self.new_writer()
        elif name == "restart reader":
            start = self.written[self.next_read - 1] if self.next_read else "oldest"
            self.reader = StreamReader(self.client, "m:{0}", start=start, group=self.group, count=3)

    async def read(self) -> None:
        for major, minor, _ in await self.reader.read(0):
            index = self.written.index((major, minor))
            assert index >= self.next_read
            assert index == self.next_read or self.reader.gap or (self.next_read == 0 and self.lossy)
            self.next_read = index + 1
        if self.reader.gap:
            assert self.lossy
            self.reader.gap = False

    async def drain(self) -> None:
        for _ in range(len(self.written) + 5):
            await self.read()


async def check(url: str, group: str | None, steps: list[tuple[str, Any]]) -> None:
    client = Redis.from_url(url, protocol=2)
    await client.flushall()
    run = Run(client, group)
    try:
        for step in steps:
            await run.step(*step)
        await run.drain()
        if not run.lossy:
            assert run.next_read == len(run.written)
        await run.step("write", [1])
        await run.drain()
        assert run.next_read == len(run.written)
    finally:
        await client.aclose()


@settings(max_examples=75)
@given(st.lists(STEPS, max_size=30))
def test_a_reader_sees_all_in_order_or_knows_of_the_gap(valkey: Any, steps: list[tuple[str, Any]]) -> None:
    asyncio.run(check(valkey.url, None, steps))


@settings(max_examples=75)
@given(st.lists(STEPS, max_size=30))
def test_a_group_sees_all_in_order_or_knows_of_the_gap(valkey: Any, steps: list[tuple[str, Any]]) -> None:
    asyncio.run(check(valkey.url, "g", steps))
