"""The gateway port against clients that pipeline, break off, lie about lengths, or send garbage."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway_fixtures import Running, running_gateway
from tvops.engine.bus.roles import Bus

HEAD = b"Host: localhost\r\nContent-Type: application/json\r\n"


@pytest_asyncio.fixture
async def gateway(bus: Bus) -> AsyncIterator[Running]:
    async with running_gateway(bus) as running:
        yield running


def body(client_id: str) -> bytes:
    order = {"symbol": "BTC-USDT", "side": "buy", "order_type": "limit", "quantity": "0.01", "price": "100"}
    return json.dumps({**order, "client_order_id": client_id}).encode()


def post(data: bytes, extra: bytes = b"", path: bytes = b"/v1/orders") -> bytes:
    return b"POST %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (path, HEAD, extra, len(data), data)


def get(path: bytes, extra: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (path, extra)


def chunked(data: bytes, extra: bytes = b"") -> bytes:
    head = b"POST /v1/orders HTTP/1.1\r\n" + HEAD + extra + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


def upgrade(protocol: bytes) -> bytes:
    return b"Connection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\nHTTP2-Settings:\r\n" % protocol


WEBSOCKET = upgrade(b"websocket") + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + b"A" * 22 + b"==\r\n"


def story(answer: bytes) -> list[str]:
    """Give statuses, client order ids, codes and ends in the order in which they came."""
    found = re.findall(rb'HTTP/1\.1 (\d+)|"client_order_id":"([^"]+)"|"code":"(\w+)"|<(END|RESET)>', answer)
    return [next(part for part in parts if part).decode() for parts in found]


def times(count: int) -> Callable[[bytes], bool]:
    """Give what tells whether that many answers came."""
    return lambda answer: answer.count(b"HTTP/1.1 ") >= count


async def test_pipelined_orders_are_answered_in_their_order(gateway: Running) -> None:
    names = [f"p{n}" for n in range(300)]
    answer = story(await gateway.raw(b"".join(post(body(name)) for name in names), times(300)))
    assert answer == [part for name in names for part in ("201", name)]


async def test_orders_and_pages_wait_for_each_other(gateway: Running) -> None:
    data = (
        post(body("a")) + get(b"/docs/errors") + post(body("b")) + post(body("c")) + get(b"/nope") + get(b"/v1/x")
    )
    assert story(await gateway.raw(data, times(6))) == [
        "201", "a", "200", "201", "b", "201", "c", "404", "not_found", "404", "not_found",
    ]  # fmt: skip


async def test_an_order_in_single_bytes(gateway: Running) -> None:
    data = post(body("slow"))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for index in range(len(data)):
        writer.write(data[index : index + 1])
        await asyncio.sleep(0)
    answer = await reader.readuntil(b"}")
    assert story(answer) == ["201", "slow"]
    writer.close()


async def test_an_order_survives_its_client(gateway: Running) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(post(body("left")))
    await writer.drain()
    writer.transport.abort()
    async with asyncio.timeout(60):
        while (response := await gateway.client.get("/v1/orders/client:left")).status_code != 200:
            await asyncio.sleep(0.01)
    assert response.json()["status"] == "open"


async def test_a_client_that_leaves_during_a_page_leaves_no_trace(
    gateway: Running, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(get(b"/docs/errors") + post(body("x")) + get(b"/") + get(b"/docs/errors") + post(body("y")))
        await asyncio.sleep(0)
        writer.transport.abort()
    assert (await gateway.client.get("/docs/errors")).status_code == 200
    await asyncio.sleep(0.1)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_half_closed_connection_is_answered(gateway: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(post(body("half")))
    writer.write_eof()
    assert story(await reader.read() + b"<END>") == ["201", "half", "END"]
    writer.close()


CASES: dict[str, tuple[bytes, list[str]]] = {
    "garbage": (b"\x00\x01garbage\r\n\r\n", ["400", "malformed_request", "END"]),
    "tls": (bytes.fromhex("1603010200010001fc0303"), ["400", "malformed_request", "END"]),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ["400", "malformed_request", "END"]),
    "order, then garbage": (post(body("x")) + b"GARBAGE\r\n\r\n", ["201", "x", "400", "malformed_request", "END"]),
    "page, then garbage": (get(b"/docs/errors") + b"GARBAGE\r\n\r\n", ["200", "400", "malformed_request", "END"]),
    "length is no number": (b"POST /v1/orders HTTP/1.1\r\n" + HEAD + b"Content-Length: abc\r\n\r\n",
                            ["400", "malformed_request", "END"]),
    "length below 0": (b"POST /v1/orders HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n",
                       ["400", "malformed_request", "END"]),
    "length too large": (b"POST /v1/orders HTTP/1.1\r\n" + HEAD + b"Content-Length: 99999999999\r\n\r\n",
                         ["413", "body_too_large", "END"]),
    "length and chunks": (b"POST /v1/orders HTTP/1.1\r\n" + HEAD
                          + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                          ["400", "malformed_request", "END"]),
    "chunks": (chunked(body("ch")), ["201", "ch"]),
    "chunks without end": (b"POST /v1/orders HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
                           + b"4000\r\n%b\r\n" % (b"a" * 0x4000) * 8, ["413", "body_too_large", "END"]),
    "body too large": (post(b" " * 70_000), ["413", "body_too_large", "END"]),
    "large header": (get(b"/health", b"X: " + b"a" * 20_000 + b"\r\n"), ["431", "headers_too_large", "END"]),
    "many headers": (get(b"/health", b"X: a\r\n" * 200), ["431", "headers_too_large", "END"]),
    "header without end": (b"GET / HTTP/1.1\r\nX: " + b"a" * 900_000, ["431", "headers_too_large", "END"]),
    "long address": (get(b"/" + b"a" * 5000), ["414", "url_too_long", "END"]),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", ["421", "host_refused"]),
    "two hosts": (get(b"/health", b"Host: localhost\r\n"), ["400", "malformed_request", "END"]),
    "another host": (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", ["421", "host_refused"]),
    "another site": (get(b"/health", b"Origin: http://evil.example\r\n"), ["403", "origin_refused"]),
    "no site": (get(b"/health", b"Origin: null\r\n"), ["403", "origin_refused"]),
    "no JSON": (post(b"{}").replace(b"application/json", b"text/plain"), ["415", "unsupported_media_type"]),
    "connect": (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n" + post(body("tunnel")),
                ["400", "malformed_request", "END"]),
    "method": (b"PUT /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
               ["405", "method_not_allowed"]),
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", ["400", "malformed_request", "END"]),
    "http 1.0": (b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", ["200", "END"]),
    "close": (get(b"/health", b"Connection: close\r\n") + post(body("after")), ["200", "END"]),
    "upgrade with a request as its body": (
        get(b"/health", upgrade(b"x") + b"Content-Length: %d\r\n" % len(post(body("smuggled"))))
        + post(body("smuggled")) + get(b"/health"), ["200", "200"]),
    "upgrade and a large body": (post(b" " * 70_000, upgrade(b"x")), ["413", "body_too_large", "END"]),
    "upgrade and large chunks": (chunked(b" " * 65_600, upgrade(b"x")), ["413", "body_too_large", "END"]),
    "upgrade and a large header": (get(b"/health", upgrade(b"x") + b"X: " + b"a" * 20_000 + b"\r\n"),
                                   ["431", "headers_too_large", "END"]),
    "upgrade and another coding": (get(b"/health", upgrade(b"x") + b"Transfer-Encoding: gzip\r\n"),
                                   ["400", "malformed_request", "END"]),
    "upgrade, then garbage": (post(body("u"), upgrade(b"x")) + b"GARBAGE\r\n\r\n",
                              ["201", "u", "400", "malformed_request", "END"]),
    "upgrade and close": (get(b"/health", b"Connection: close, Upgrade\r\nUpgrade: x\r\n") + post(body("after")),
                          ["200", "END"]),
    "close, then upgrade": (get(b"/health", b"Connection: close\r\n") + post(body("after"), upgrade(b"x")),
                            ["200", "END"]),
    "upgrade of http 1.0": (post(body("1.0"), upgrade(b"x")).replace(b"HTTP/1.1", b"HTTP/1.0") + get(b"/health"),
                            ["201", "1.0", "END"]),
    "upgrade and expect": (post(body("h2c"), upgrade(b"h2c") + b"Expect: 100-continue\r\n"),
                           ["100", "201", "h2c"]),
    "upgrades and pages": (post(b"{}", upgrade(b"x"), b"/docs/errors") + get(b"/docs/errors", upgrade(b"x")) * 2
                           + get(b"/health"), ["405", "method_not_allowed", "200", "200", "200"]),
    "expect": (post(body("ex"), b"Expect: 100-continue\r\n"), ["100", "201", "ex"]),
    "websocket elsewhere": (get(b"/nope", WEBSOCKET) + get(b"/health"), ["404", "not_found", "200"]),
    "websocket with a body": (get(b"/ws", WEBSOCKET + b"Content-Length: 5\r\n") + b"hello" + get(b"/health"),
                              ["400", "malformed_request", "END"]),
    "websocket with chunks": (get(b"/ws", WEBSOCKET + b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
                              ["400", "malformed_request", "END"]),
    "websocket with an empty body": (get(b"/ws?a", WEBSOCKET + b"Content-Length: " + b"0" * 5000 + b" \r\n"),
                                     ["101"]),
    "websocket of http 1.0": (get(b"/ws", WEBSOCKET).replace(b"HTTP/1.1", b"HTTP/1.0"),
                              ["404", "not_found", "END"]),
    "websocket without key": (get(b"/ws", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
                              ["400", "malformed_request", "END"]),
    "head": (b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + get(b"/health"), ["200", "200"]),
    "bad utf-8": (post(b'{"symbol": "\xff\xfe"}'), ["400", "malformed_json"]),
    "not a number": (post(b'{"symbol": "BTC-USDT", "quantity": NaN}'), ["400", "malformed_json"]),
    "deep": (post(b'{"symbol": ' + b"[" * 60_000), ["422", "invalid_field"]),
    "empty": (post(b""), ["400", "malformed_json"]),
}  # fmt: skip


async def test_every_misuse_has_its_answer(gateway: Running) -> None:
    """All at once, which disturbs none of them."""
    expected = {case: wanted for case, (_, wanted) in CASES.items()}

    async def told(data: bytes, wanted: list[str]) -> bytes:
        return await gateway.raw(data, lambda answer: story(answer) == wanted)

    answers = await asyncio.gather(*(told(data, wanted) for data, wanted in CASES.values()))
    assert {case: story(answer) for case, answer in zip(CASES, answers, strict=True)} == expected
    assert (await gateway.client.get("/health")).status_code == 200


@pytest.mark.parametrize("size", [1, 3, 50, 10_000])
async def test_an_upgrade_is_ignored_however_the_bytes_are_cut(gateway: Running, size: int) -> None:
    smuggled = post(body("smuggled"))
    data = (
        post(body("h2c"), upgrade(b"h2c"))
        + post(smuggled, upgrade(b"x"))
        + chunked(body("chunks"), upgrade(b"x"))
        + post(body("websocket"), WEBSOCKET)
        + chunked(smuggled, WEBSOCKET)
        + get(b"/health", upgrade(b"h2c")) * 2
        + post(body("last"), b"Connection: close\r\n")
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for start in range(0, len(data), size):
        writer.write(data[start : start + size])
        await asyncio.sleep(0)
    assert story(await reader.read()) == [
        "201", "h2c", "400", "malformed_json", "201", "chunks", "201", "websocket", "400", "malformed_json",
        "200", "200", "201", "last",
    ]  # fmt: skip
    writer.close()


async def test_many_upgrades_in_a_row_are_all_ignored(gateway: Running) -> None:
    last = get(b"/v1/positions", b"Connection: close\r\n")
    answer = await gateway.raw(get(b"/v1/positions", upgrade(b"x")) * 2000 + last)
    assert story(answer) == ["200"] * 2001 + ["END"]


Post = Callable[[bytes, bytes], tuple[int, dict[str, Any]]]


@pytest_asyncio.fixture
async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.fixture
def post_body(gateway: Running, _loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture) -> Post:
    """Give what posts a body from the synchronous side of a property test, and finds no error in the log."""

    async def send(path: bytes, data: bytes) -> tuple[int, dict[str, Any]]:
        headers = {"content-type": "application/json"}
        response = await gateway.client.post(path.decode(), content=data, headers=headers)
        return response.status_code, response.json()

    def run(path: bytes, data: bytes) -> tuple[int, dict[str, Any]]:
        result = _loop.run_until_complete(send(path, data))
        assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
        return result

    return run


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("symbol", "side", "order_type", "quantity", "price", "time_in_force", "post_only", "self_trade",
          "client_order_id", "unknown")  # fmt: skip
LIKELY = st.sampled_from(
    ["BTC-USDT", "buy", "sell", "limit", "market", "IOC", "FOK", "GTC", "1", "0", "-1", "1e5", "0.00001", "1" * 40,
     "NaN", "60000", "9223372036854775808", " 1", "1 ", "١", "0x10", "cancel_both", "allow", True, False],
)  # fmt: skip


@settings(max_examples=150)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON | LIKELY, max_size=10), keep=st.booleans())
def test_any_value_in_any_field_is_answered(post_body: Post, fields: dict[str, Any], keep: bool) -> None:
    order: dict[str, Any] = {
        "symbol": "BTC-USDT", "side": "buy", "order_type": "limit", "quantity": "0.01", "price": "100",
    }  # fmt: skip
    data = json.dumps({**order, **fields} if keep else fields).encode("utf-8", "surrogatepass")
    status, answer = post_body(b"/v1/orders", data)
    assert status in (200, 201, 400, 404, 422), answer
    assert ("code" in answer) == (status >= 400)


@settings(max_examples=60)
@given(value=JSON, path=st.sampled_from([b"/v1/orders", b"/v1/orders/batch", b"/v1/risk/kill", b"/v1/risk/halt"]))
def test_any_value_as_a_body_is_answered(post_body: Post, value: Any, path: bytes) -> None:
    status, answer = post_body(path, json.dumps(value).encode("utf-8", "surrogatepass"))
    assert status in (200, 400, 422), answer


async def test_many_calls_behind_a_page_are_all_answered(gateway: Running) -> None:
    answer = await gateway.raw(get(b"/docs/errors") + get(b"/v1/positions") * 2000, times(2001))
    assert story(answer).count("200") == 2001


async def test_answers_that_nobody_reads_are_not_made(gateway: Running) -> None:
    orders = [json.loads(body(f"n{n}")) for n in range(1000)]
    await gateway.client.post("/v1/orders/batch", json=orders)
    before = (await gateway.client.get("/stats")).json()["requests_total"]
    _reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1 << 14)
    writer.write(get(b"/v1/orders?limit=1000") * 1000)
    await asyncio.sleep(1.0)
    answered = (await gateway.client.get("/stats")).json()["requests_total"] - before
    assert answered < 200
    writer.transport.abort()
