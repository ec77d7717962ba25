"""Polls the endpoints on a thread of its own, each at its own pace: a dead one delays no other.

What comes of it waits in a bounded queue. An endpoint that fails is asked again after one second, two, then five.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from tvops.http_endpoint import Endpoint, EndpointError
from tvops.telemetry_client import Reading, TelemetryClient
from tvops.terminal import clean
from tvops.top.scene import BookReading, Depth

PATIENCE = 2.0
WAITS = (1.0, 2.0, 5.0)
BOOK_SECONDS = 0.5
MAX_BOOK_BYTES = 1 << 20
KEPT = 4096

T = TypeVar("T")


class Sampler:
    """The thread that polls."""

    def __init__(self, urls: Sequence[str], api_key: str, hertz: float) -> None:
        """Poll ``urls`` so many times a second; raise UsageError where one cannot be asked."""
        self.readings: deque[Reading] = deque(maxlen=KEPT)
        self.book = BookReading()
        self.wanted: tuple[str, str] | None = None  # gateway and symbol of the book that is shown
        self.paused = False
        self._clients = [TelemetryClient([url], api_key, PATIENCE) for url in urls]
        self._gateways = {url: Endpoint(url, api_key) for url in urls}  # for books; each connects when it is asked
        self._seconds = 1 / hertz
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to poll."""
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait for that."""
        if self._thread.is_alive():
            while self._end is None or self._loop is None:
                time.sleep(0.001)
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        tasks = [asyncio.create_task(self._poll(client)) for client in self._clients]
        tasks.append(asyncio.create_task(self._poll_book()))
        await self._end.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients:
            await client.close()
        for gateway in self._gateways.values():
            gateway.disconnect()

    async def _poll(self, client: TelemetryClient) -> None:
        failures, due = 0, time.monotonic()
        while True:
            if not self.paused:
                for reading in await client.poll():
                    failures = 0 if reading.telemetry is not None else failures + 1
                    self.readings.append(reading)
            due = max(due + self._seconds, time.monotonic())
            wait = WAITS[min(failures, len(WAITS)) - 1] if failures else due - time.monotonic()
            await asyncio.sleep(max(0.01, wait))

    async def _poll_book(self) -> None:
        while True:
            wanted = self.wanted
            if wanted is not None and not self.paused:
                gateway, symbol = wanted
                self.book = await read_book(self._gateways[gateway], symbol, self.book)
            await asyncio.sleep(BOOK_SECONDS)


async def read_book(gateway: Endpoint, symbol: str, before: BookReading) -> BookReading:
    """Ask a gateway for a book; whatever goes wrong is told in what comes of it.

    Args:
        gateway: whom to ask; each of two questions at most may take `PATIENCE`.
        symbol: whose book; empty: that of the first instrument.
        before: what was known: its list of instruments is not asked for again.
    """
    try:
        symbols = before.symbols or (await _ask(gateway, "/v1/symbols", _Listing)).names()
        symbol = symbol or (symbols[0] if symbols else "")
        if not symbol:
            return msgspec.structs.replace(before, error="the gateway has no instruments")
        depth = await _ask(gateway, f"/v1/book/{quote(symbol, safe='')}?depth=50", Depth)
        return BookReading(symbols, depth, "", time.monotonic_ns())
    except EndpointError as failure:
        return msgspec.structs.replace(before, error=f"the gateway gives no book: {failure}")


async def _ask(gateway: Endpoint, path: str, kind: type[T]) -> T:
    content = await gateway.fetch(path, "application/json", MAX_BOOK_BYTES, PATIENCE)
    try:
        return msgspec.json.decode(content.body, type=kind, strict=False)
    except (ValueError, RecursionError) as failure:
        raise EndpointError(clean(str(failure))[:100]) from None


class _Named(msgspec.Struct):
    symbol: str


class _Listing(msgspec.Struct):
    symbols: list[_Named]

    def names(self) -> tuple[str, ...]:
        return tuple(entry.symbol for entry in self.symbols)
