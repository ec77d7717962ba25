"""What the stream tests share: a service on a free port, a publisher, and a client that follows topics."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect

from tvops.engine.bus.packing import pack
from tvops.engine.bus.roles import Bus
from tvops.engine.bus.stream_writer import StreamWriter
from tvops.engine.instruments import load_instruments
from tvops.engine.records import DTYPES, TICK, TRADE, RecordType
from tvops.engine.stream.frames import FRAME
from tvops.engine.stream.service import StreamService
from tvops.settings import Settings

TABLE = load_instruments()
ANY_PORT: Any = {"market_port": 0}


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on the event loop of the service, with a `bus` on it."""

    wanted = inspect.signature(test).parameters

    def run(role_urls: dict[str, str], **arguments: Any) -> None:
        async def inside() -> None:
            if "role_urls" in wanted:
                arguments["role_urls"] = role_urls
            bus = await Bus.connect(Settings(redis_connect_timeout=30, redis_socket_timeout=30), role_urls)
            try:
                await test(bus=bus, **arguments)
            finally:
                await bus.close()

        uvloop.run(inside())

    functools.update_wrapper(run, test)
    del run.__wrapped__  # type: ignore[attr-defined]
    kept = [p for p in wanted.values() if p.name not in ("bus", "role_urls")]
    urls = inspect.Parameter("role_urls", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = inspect.Signature([*(p.replace(kind=urls.kind) for p in kept), urls])  # type: ignore[attr-defined]
    return run


class Publisher:
    """Writes to the market stream as the price service does."""

    def __init__(self, bus: Bus) -> None:
        self.writer = StreamWriter(bus.market, "rts:{0}", segment_span=10_000_000)
        self.last = 0
        self.trades = 0

    async def publish(self, *batches: tuple[RecordType, NDArray[Any]]) -> None:
        self.last = max(self.last + 1, time.time_ns() // 1000)
        entries = [(self.last, minor, pack(rows, kind)) for minor, (kind, rows) in enumerate(batches)]
        await self.writer.write(entries)

    async def ticks(self, count: int, instrument: int = 0, first: int = 1) -> None:
        """Publish ticks whose bid counts up from ``first``."""
        rows = np.zeros(count, TICK)
        rows["bid"], rows["instrument"] = np.arange(first, first + count), instrument
        await self.publish((RecordType.TICK, rows))

    async def more_trades(self, count: int, instrument: int = 0) -> None:
        """Publish trades whose ids count on."""
        rows = np.zeros(count, TRADE)
        rows["trade_id"] = np.arange(self.trades + 1, self.trades + 1 + count)
        rows["price"], rows["quantity"], rows["side"], rows["instrument"] = 100, 5, 1, instrument
        self.trades += count
        await self.publish((RecordType.TRADE, rows))


@contextlib.asynccontextmanager
async def serving(bus: Bus, health_sources: Any = (), **settings: Any) -> AsyncIterator[StreamService]:
    service = StreamService(Settings(**{**ANY_PORT, **settings}), bus, TABLE, health_sources)
    await service.start()
    try:
        await until(lambda: service.health().state == "ok")
        yield service
    finally:
        await service.stop()


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        await asyncio.sleep(0.005)


class Client:
    """A WebSocket client: control messages, and data messages of both encodings in one form."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.welcome: dict[str, Any] = {}
        self.data: list[dict[str, Any]] = []

    @property
    def last(self) -> dict[str, Any]:
        """The newest data message."""
        return self.data[-1] if self.data else {"seq": -1}

    async def receive(self) -> dict[str, Any] | None:
        """Give the next control message; data messages go to `data` (then: None)."""
        message = await asyncio.wait_for(self.socket.recv(), 60)
        if isinstance(message, bytes):
            self.data += [*frames(message)]
            return None
        decoded: dict[str, Any] = json.loads(message)
        if "op" in decoded:
            return decoded
        self.data.append(decoded)
        return None

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Send a control message and give its answer."""
        return await self.send(json.dumps(request))

    async def send(self, message: str | bytes) -> dict[str, Any]:
        await self.socket.send(message, text=True)
        while (answer := await self.receive()) is None:
            pass
        return answer

    async def follow(self, condition: Callable[[], bool]) -> None:
        """Receive until ``condition`` holds."""
        while not condition():
            await self.receive()

    async def collect(self, count: int) -> list[dict[str, Any]]:
        """Give the next ``count`` data messages."""
        await self.follow(lambda: len(self.data) >= count)
        found, self.data = self.data[:count], self.data[count:]
        return found


def frames(message: bytes) -> list[dict[str, Any]]:
    """Read a binary message as a client writer would, by docs/market-data.md."""
    found, offset = [], 0
    while offset < len(message):
        header = np.frombuffer(message, FRAME, 1, offset)[0]
        assert (header["magic"], header["version"]) == (0x4654, 1)
        dtype = DTYPES[RecordType(int(header["record_type"]))]
        rows = np.frombuffer(message, dtype, int(header["count"]), offset + FRAME.itemsize)
        offset += FRAME.itemsize + rows.nbytes
        flags = int(header["flags"])
        found.append(
            {
                "channel": {3: "trades", 4: "ticks", 5: "book", 6: "bars"}[int(header["record_type"])],
                "symbol": TABLE[int(header["instrument"])].symbol,
                "seq": int(header["sequence"]),
                "epoch": int(header["epoch"]),
                "rows": rows,
            }
            | {name: True for bit, name in ((1, "snapshot"), (2, "conflated"), (4, "gap")) if flags & bit}
            | ({"depth": int(header["depth"])} if header["depth"] else {})
        )
    return found


@contextlib.asynccontextmanager
async def client(service: StreamService, **options: Any) -> AsyncIterator[Client]:
    async with connect(f"ws://127.0.0.1:{service.port}/ws", **options) as socket:
        made = Client(socket)
        made.welcome = json.loads(await socket.recv())
        assert made.welcome["op"] == "welcome"
        yield made
