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
from urllib.parse import quote, urlsplit

import httptools
import msgspec

from tvops.telemetry_client import Reading, TelemetryClient
from tvops.top.scene import BookReading, Depth

PATIENCE = 2.0
WAITS = (1.0, 2.0, 5.0)
BOOK_SECONDS = 0.5
MAX_BOOK_BYTES = 1 << 20
KEPT = 4096


class Sampler:
    """The thread that polls."""

    def __init__(self, urls: Sequence[str], api_key: str, hertz: float) -> None:
        """Poll ``urls`` so many times a second; raise UsageError where one cannot be asked."""
        self.readings: deque[Reading] = deque(maxlen=KEPT)
        self.book = BookReading()
        self.wanted: tuple[str, str] | None = None  # gateway and symbol of the book that is shown
        self.paused = False
        self._clients = [TelemetryClient([url], api_key, PATIENCE) for url in urls]
        self._api_key = api_key
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
                self.book = await read_book(*wanted, self._api_key, self.book)
            await asyncio.sleep(BOOK_SECONDS)


async def read_book(gateway: str, symbol: str, api_key: str, before: BookReading) -> BookReading:
    """Ask a gateway for a book; whatever goes wrong is told in what comes of it.

    Args:
        gateway: URL.
        symbol: whose book; empty: that of the first instrument.
        api_key: sent along, if any.
        before: what was known: its list of instruments is not asked for again.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            symbols = before.symbols or await _symbols(gateway, api_key)
            symbol = symbol or (symbols[0] if symbols else "")
            if not symbol:
                return msgspec.structs.replace(before, error="the gateway has no instruments")
            answer = await get(gateway, f"/v1/book/{quote(symbol, safe='')}?depth=50", api_key)
            depth = msgspec.json.decode(answer, type=Depth, strict=False)
            return BookReading(symbols, depth, "", time.monotonic_ns())
    except TimeoutError:
        error = f"the gateway does not answer within {PATIENCE:g} s"
    except (OSError, EOFError):
        error = "the gateway cannot be reached"
    except (ValueError, RecursionError) as failure:
        error = f"the gateway gives no book: {str(failure)[:100]}"
    return msgspec.structs.replace(before, error=error)


async def _symbols(gateway: str, api_key: str) -> tuple[str, ...]:
    listing = msgspec.json.decode(await get(gateway, "/v1/symbols", api_key), type=_Listing)
    return tuple(entry.symbol for entry in listing.symbols)


class _Named(msgspec.Struct):
    symbol: str


class _Listing(msgspec.Struct):
    symbols: list[_Named]


class _Answer:
    """Gathers the body that httptools finds."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


async def get(url: str, path: str, api_key: str) -> bytes:
    """Give the body that a gateway answers with; raise ValueError where it is none of ours, OSError, EOFError."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if tls else 80), ssl=tls or None
    )
    try:
        key = f"X-API-Key: {api_key}\r\n" if api_key else ""
        head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n{key}\r\n"
        writer.write(head.encode())
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.complete:
            piece = await reader.read(1 << 16)
            if not piece:
                raise EOFError
            try:
                parser.feed_data(piece)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                raise ValueError("does not speak HTTP") from None
            if len(answer.body) > MAX_BOOK_BYTES:
                raise ValueError("the answer has no end")
        if parser.get_status_code() in (401, 403):
            raise ValueError("it needs an API key; set a valid one in $TVOPS_API_KEY")
        if parser.get_status_code() != 200:
            raise ValueError(f"status {parser.get_status_code()}")
        return bytes(answer.body)
    finally:
        writer.transport.abort()
