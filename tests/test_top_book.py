"""The book that `tvops top` shows, from gateways of every kind: real sockets."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.endpoints import Handler, answer, endpoint, says
from tests.stack import free_port
from tvops.http_endpoint import Endpoint
from tvops.top import sampler
from tvops.top.sampler import MAX_BOOK_BYTES, read_book
from tvops.top.scene import BookReading, Depth

DEPTH = Depth("A/B", [("1.5", "2", 3)], [])
JSON = "application/json"


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "PATIENCE", 60.0)


def gateway(asked: list[tuple[int, bytes]]) -> Handler:
    """One with an instrument; note each request, with the number of its connection."""
    connections = iter(range(99))

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(connections)
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            asked.append((number, request))
            about = {"symbols": [{"symbol": "A/B"}]} if b" /v1/symbols " in request else DEPTH
            writer.write(answer(msgspec.json.encode(about), kind=JSON))
            await writer.drain()

    return handler


async def read(url: str, before: BookReading | None = None) -> BookReading:
    asked = Endpoint(url, "k.s")
    try:
        return await read_book(asked, "", before or BookReading(("A/B",)))
    finally:
        asked.disconnect()


async def test_the_instruments_are_asked_for_once_and_the_connection_is_kept() -> None:
    asked: list[tuple[int, bytes]] = []
    async with endpoint(gateway(asked)) as url:
        source = Endpoint(url, "k.s")
        reading = await read_book(source, "", BookReading())
        reading = await read_book(source, "", reading)
        source.disconnect()
    assert (reading.symbols, reading.depth, reading.error) == (("A/B",), DEPTH, "")
    assert [number for number, _ in asked] == [0, 0, 0]
    assert [request.split()[1] for _, request in asked] == [b"/v1/symbols", *[b"/v1/book/A%2FB?depth=50"] * 2]
    assert all(b"\r\nX-API-Key: k.s\r\n" in request for _, request in asked)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "ended the connection without an answer"),
        (b"\x00\xff\x01garbage\r\n\r\n", "does not speak HTTP"),
        (answer(b"{}", kind=JSON), "Object missing required field `symbol`"),
        (answer(b"[" * 100_000, kind=JSON), "Expected `object`, got `array`"),
        (answer(b'{"\x9b": \xff'), "malformed"),
        (answer(b"", "401 Unauthorized"), "needs an API key; set a valid one in $TVOPS_API_KEY"),
        (answer(b"", "404 Not Found"), "has no /v1/book/A%2FB"),
        (answer(b"", "500 Internal Server Error"), "answers with status 500"),
        (answer(b"", "302 Found", headers="Location: http://e.example/\x9b31m\r\n"), "redirects to 'http://e.example/"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * (MAX_BOOK_BYTES // 8), "answers with more than 1 MiB"),
        (answer(bytes(MAX_BOOK_BYTES)), "answers with more than 1 MiB"),
    ],
)  # fmt: skip
async def test_what_is_no_book_is_told(data: bytes, error: str) -> None:
    before = BookReading(("A/B",), DEPTH, "", 5)
    async with endpoint(says(data)) as url:
        reading = await read(url, before)
    assert reading.error.startswith("the gateway gives no book: ")
    assert error in reading.error
    assert reading.error.isprintable()
    assert (reading.depth, reading.received) == (DEPTH, 5)


async def test_a_gateway_that_is_slow_or_away_costs_no_more_than_the_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    assert (await read(f"http://127.0.0.1:{free_port()}")).error == "the gateway gives no book: connection refused"
    monkeypatch.setattr(sampler, "PATIENCE", 0.1)
    async with endpoint(silent) as url:
        while "does not take connections" in (error := (await read(url)).error):
            pass  # this host had no time for it
    assert error == "the gateway gives no book: does not answer within 0.1 s"


async def test_a_gateway_without_instruments_has_no_book() -> None:
    async with endpoint(says(answer(b'{"symbols": []}', kind=JSON))) as url:
        assert (await read(url, BookReading())).error == "the gateway has no instruments"
