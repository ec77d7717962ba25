"""The port of the market data service against strangers: HTTP, upgrades, origins, keys, garbage, floods."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.stream_client import Client, Publisher, client, on_uvloop, serving, until
from tvops.engine.bus.roles import Bus
from tvops.engine.gateway.auth import create_key, revoke_key
from tvops.engine.services import Health
from tvops.engine.stream import http, hub
from tvops.engine.stream.head import HttpError, parse_head
from tvops.engine.stream.protocol import ProtocolError, decode, identifier
from tvops.engine.stream.service import StreamService
from tvops.errors import HeldError, UsageError


async def get(service: StreamService, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=60) as http_client:
        url = f"http://127.0.0.1:{service.port}{path}"
        return await http_client.request(method, url, headers={k.replace("_", "-"): v for k, v in headers.items()})


async def raw(service: StreamService, data: bytes, wait: float = 60) -> bytes:
    """Send bytes and give what comes back until the service closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), wait)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def farewell(c: Client) -> tuple[int, str, list[dict[str, Any]]]:
    """Receive until the service closes; give its code and reason, and the control messages until then."""
    answers: list[dict[str, Any]] = []

    async def receive_all() -> None:
        while True:
            if (answer := await c.receive()) is not None:
                answers.append(answer)

    with pytest.raises(ConnectionClosed) as closed:
        await receive_all()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason, answers


class Sick:
    name = "feed"

    def health(self) -> Health:
        return Health("degraded", "the feed has a gap")


@on_uvloop
async def test_pages_of_the_service(bus: Bus) -> None:
    publisher = Publisher(bus)
    async with serving(bus) as service, client(service) as c:
        await c.ask(op="subscribe", channel="ticks", symbols=["BTC-USDT"], encoding="binary")
        assert "latency_p99_ms" not in service.stats()  # nothing was measured yet
        await publisher.ticks(4)
        await publisher.ticks(2)
        await c.follow(lambda: c.last["seq"] == 6)
        health = await get(service, "/health")
        assert (health.status_code, health.json()["status"]) == (200, "ok")
        stats = (await get(service, "/stats?x=1")).json()
        assert (stats["active_connections"], stats["total_messages"], stats["pending_batch"]) == (1, 6, 0)
        assert stats["avg_batch_size"] == 6 / stats["batches_sent"]
        assert stats["clients_dropped"] == 0
        assert stats["latency_p99_ms"] > 0
        (shown,) = (await get(service, "/clients")).json()
        assert {"id": 1, "queue_size": 0, "subscriptions": 1, "encoding": "binary"}.items() <= shown.items()
        assert shown["messages_sent"] == 3 + stats["batches_sent"]
        assert "latency_ms" in shown
        metrics = (await get(service, "/metrics")).text
        values = {s.name: s.value for family in text_string_to_metric_families(metrics) for s in family.samples}
        assert (values["tvops_stream_sessions"], values["tvops_stream_records_total"]) == (1, 6)
        assert values["tvops_stream_latency_seconds_count"] == 2
        head = await get(service, "/stats", "HEAD")
        assert (head.status_code, head.content, int(head.headers["content-length"]) > 100) == (200, b"", True)


@on_uvloop
async def test_what_is_read_from_the_past_is_no_rate(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvops.engine.stream.service.SWEEP_SECONDS", 0.02)
    publisher, rates = Publisher(bus), []
    for n in range(20):
        await publisher.ticks(500, first=1 + 500 * n)
    async with serving(bus) as service:
        await until(lambda: service.stats()["total_messages"] == 10_000)
        for _ in range(10):
            rates.append(service.stats()["ticks_per_s"])
            await asyncio.sleep(0.02)
        assert rates == [0] * 10
        while not service.stats()["ticks_per_s"]:
            await publisher.ticks(5)


@on_uvloop
async def test_health_tells_of_the_others(bus: Bus) -> None:
    async with serving(bus, health_sources=[Sick()]) as service:
        health = await get(service, "/health")
        assert health.status_code == 503
        assert health.json() == {
            "status": "degraded",
            "services": {
                "feed": {"state": "degraded", "detail": "the feed has a gap"},
                "stream": {"state": "ok", "detail": ""},
            },
        }


@on_uvloop
async def test_what_is_not_here(bus: Bus) -> None:
    async with serving(bus) as service:
        missing = await get(service, "/nothing")
        assert missing.status_code == 404
        assert missing.headers["content-type"] == "application/problem+json"
        assert "/nothing" in missing.json()["detail"]
        for method in ("POST", "DELETE"):
            refused = await get(service, "/stats", method)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        plain = await get(service, "/ws")
        assert (plain.status_code, plain.headers["upgrade"]) == (426, "websocket")
        body = b"POST /stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: 600000\r\n\r\n" + b"x" * 600_000
        assert (await raw(service, body)).startswith(b"HTTP/1.1 405 ")
        assert (await raw(service, b"GET /health HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        for garbage in (
            b"\x16\x03\x01\r\n\r\n",
            b"GET\r\n\r\n",
            b"\0" * 100 + b"\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
        ):
            assert (await raw(service, garbage)).startswith(b"HTTP/1.1 400 ")
        long = b"GET /health HTTP/1.1\r\nX: " + b"x" * 20_000
        assert (await raw(service, long)).startswith(b"HTTP/1.1 431 ")
        assert (await raw(service, long + b"\r\n\r\n")).startswith(b"HTTP/1.1 431 ")


@on_uvloop
async def test_slow_and_many_requests(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_PENDING", 3)
    async with serving(bus) as service:
        monkeypatch.setattr(http, "HEAD_SECONDS", 60)
        many = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(3)]
        await until(lambda: len(service._front.pending) == 3)
        assert (await raw(service, b"")).startswith(b"HTTP/1.1 503 ")
        for _, writer in many:
            writer.close()
        await until(lambda: not service._front.pending)
        monkeypatch.setattr(http, "HEAD_SECONDS", 0.1)

        async def slow() -> bytes:
            while not (answer := await raw(service, b"GET /hea")):
                pass  # the time was over before anything came, as where this host stands still
            return answer

        answers = await asyncio.gather(*(slow() for _ in range(3)))
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
        assert await raw(service, b"") == b""
        monkeypatch.setattr(http, "HEAD_SECONDS", 60)
        assert (await get(service, "/health")).status_code == 200


UPGRADE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@on_uvloop
async def test_upgrades(bus: Bus) -> None:
    async with serving(bus, session_buffer_kb=16) as service:

        async def upgrade(method: str = "GET", **changes: str | None) -> bytes:
            fields = UPGRADE | {k.replace("_", "-"): v for k, v in changes.items()}
            lines = [f"{method} /ws HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items() if v is not None), "", ""]
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write("\r\n".join(lines).encode("latin-1"))
            line = await reader.readline()
            writer.close()
            return line.split()[1]

        assert await upgrade() == b"101"
        assert await upgrade(Sec_WebSocket_Version="12") == b"426"
        assert await upgrade(Sec_WebSocket_Version=None) == b"426"
        assert await upgrade(Connection="close") == b"426"
        for key in (None, "", "AAAA", "é" * 24, "not base 64 at all"):
            assert await upgrade(Sec_WebSocket_Key=key) == b"400"
        assert await upgrade("POST") == b"405"
        assert await upgrade(Content_Length="0" * 5000) == b"101"
        assert await upgrade(Content_Length="5") == b"400"
        assert await upgrade(Transfer_Encoding="chunked") == b"400"
        for host in (None, "evil.example", "evil.example:8001", "127.0.0.1.evil.example", "[::1", ""):
            assert await upgrade(Host=host) == b"421"
        for host in ("127.0.0.1", "LOCALHOST:8001", "[::1]:8001"):
            assert await upgrade(Host=host) == b"101"
        for origin in ("https://evil.example", "null", "http://localhost.evil.example", "file://", ""):
            assert await upgrade(Origin=origin) == b"403"
        for origin in ("http://localhost:8000", "http://127.0.0.1"):
            assert await upgrade(Origin=origin) == b"101"
        answer = await get(service, "/health", Origin="http://localhost:8000")
        assert answer.headers["access-control-allow-origin"] == "http://localhost:8000"
        assert (await get(service, "/stats", Origin="https://evil.example")).status_code == 403
        await until(lambda: service.clients() == [])


@on_uvloop
async def test_allowed_origins_and_the_ceiling_of_sessions(bus: Bus) -> None:
    async with serving(bus, allowed_origins=("https://desk.example/",), max_sessions=1) as service:
        async with client(service, origin="https://desk.example"):
            with pytest.raises(InvalidStatus) as refused:
                async with client(service):
                    pass
            response = refused.value.response
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            assert service.stats()["sessions_refused"] == 1
        await until(lambda: service.clients() == [])
        async with client(service):
            pass


@on_uvloop
async def test_keys(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvops.engine.stream.service.SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(hub, "AUTH_SECONDS", 60)
    key, stored = await create_key(bus.ledger, "desk", False)
    async with serving(bus, api_keys="required") as service:
        assert (await get(service, "/health")).status_code == 200
        assert (await get(service, "/stats")).status_code == 401
        assert (await get(service, "/stats", X_API_Key=key)).status_code == 200
        assert (await get(service, "/stats", Authorization=f"bearer {key}")).status_code == 200
        assert (await get(service, "/stats", Authorization="Basic abc")).status_code == 401
        with pytest.raises(InvalidStatus):
            await connect(f"ws://127.0.0.1:{service.port}/ws", additional_headers={"X-API-Key": key + "x"})
        subscription = {"op": "subscribe", "channel": "ticks", "symbols": "*"}
        async with client(service) as late, client(service, additional_headers={"X-API-Key": key}) as early:
            assert late.welcome["key_required"]
            assert (await early.ask(**subscription))["op"] == "subscribed"
            assert (await late.ask(**subscription))["code"] == "key_required"
            assert (await late.ask(op="auth", key="tv_nonsense"))["code"] == "bad_key"
            assert (await late.ask(op="auth", key=key, id=1)) == {"op": "authenticated", "id": 1}
            assert (await late.ask(**subscription))["op"] == "subscribed"
            async with client(service) as never:
                monkeypatch.setattr(hub, "AUTH_SECONDS", 0)
                assert (await farewell(never))[0] == 1008
            await revoke_key(bus.ledger, stored.id)
            assert "not valid any more" in (await farewell(late))[1]


@on_uvloop
async def test_a_port_or_host_that_cannot_be_had(bus: Bus) -> None:
    async with serving(bus) as service:
        with pytest.raises(HeldError, match=rf"market_port: 127\.0\.0\.1:{service.port} is in use"):
            async with serving(bus, market_port=service.port):
                pass
    with pytest.raises(UsageError, match=r"host: cannot listen on 192\.0\.2\.1"):
        async with serving(bus, host="192.0.2.1", api_keys="auto"):
            pass


# Control messages

BAD = [
    ("x", "bad_message"),
    ("[1]", "bad_message"),
    ('{"op":"subscribe"}', "bad_message"),
    ('{"op":"destroy"}', "bad_message"),
    ('{"op":"ping","more":1}', "bad_message"),
    ('{"op":"ping","id":1e999}', "bad_message"),
    ('{"op":"ping","id":NaN}', "bad_message"),
    ('{"op":"ping","id":' + "9" * 5000 + "}", "bad_message"),
    ('{"op":"ping","id":"' + "a" * 65 + '"}', "bad_message"),
    ('{"op":"ping","id":"\\ud800"}', "bad_message"),
    ("[" * 16_000, "bad_message"),
    ('{"a":' * 3000, "bad_message"),
    ('{"op":"subscribe","channel":"tick","symbols":"*"}', "unknown_channel"),
    ('{"op":"subscribe","channel":"ticks","symbols":["BTCUSDT"]}', "unknown_symbol"),
    ('{"op":"subscribe","channel":"ticks","symbols":["BTC-USDT","' + "A" * 999 + '"]}', "unknown_symbol"),
    ('{"op":"subscribe","channel":"ticks","symbols":[]}', "unknown_symbol"),
    ('{"op":"subscribe","channel":"ticks","symbols":"BTC-USDT"}', "unknown_symbol"),
    ('{"op":"subscribe","channel":"ticks","symbols":[1]}', "bad_message"),
    ('{"op":"subscribe","channel":"ticks","symbols":"*","encoding":"xml"}', "bad_encoding"),
    ('{"op":"subscribe","channel":"ticks","symbols":"*","interval":"1s"}', "bad_interval"),
    ('{"op":"subscribe","channel":"bars","symbols":"*","interval":"2s"}', "bad_interval"),
    ('{"op":"subscribe","channel":"book","symbols":"*","depth":7}', "bad_depth"),
    ('{"op":"subscribe","channel":"book","symbols":"*","depth":-5}', "bad_depth"),
    ('{"op":"subscribe","channel":"book","symbols":"*","depth":99999999999999999999999}', "bad_depth"),
    ('{"op":"subscribe","channel":"trades","symbols":"*","depth":5}', "bad_depth"),
    ('{"op":"subscribe","channel":"trades","symbols":"*","history":-1}', "bad_history"),
    ('{"op":"subscribe","channel":"ticks","symbols":"*","history":5}', "bad_history"),
    ('{"op":"subscribe","channel":"bars","symbols":"*","history":1441}', "bad_history"),
    ('{"op":"resume","channel":"ticks","symbols":{"BTC-USDT":1}}', "bad_message"),
    ('{"op":"resume","channel":"ticks","symbols":{"BTC-USDT":"1"},"epoch":1}', "bad_message"),
    ('{"op":"resume","channel":"ticks","symbols":{},"epoch":1}', "unknown_symbol"),
    ('{"op":"unsubscribe","channel":"ticks","symbols":"*"}', "not_subscribed"),
]


@on_uvloop
async def test_bad_messages_are_told_and_change_nothing(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvops.engine.stream.sessions.MESSAGES_PER_SECOND", 10_000)
    async with serving(bus) as service, client(service) as c:
        for message, code in BAD:
            answer = await c.send(message)
            assert (answer["op"], answer["code"]) == ("error", code), message[:80]
            assert len(answer["message"]) < 300
        assert (await c.send(b'{"op":"ping","id":"\xff\xfe"}'))["code"] == "bad_message"
        await c.socket.send(b"\0\1\2")  # binary
        assert (await c.ask(op="ping", id=1))["code"] == "bad_message"
        await c.receive()  # the pong
        answer = await c.send('{"op":"subscribe","channel":"ticks","symbols":["X"],"id":"mine"}')
        assert (answer["id"], answer["message"][:28]) == ("mine", "symbols: 'X' is not carried;")
        assert (await c.send('{"id":4,"op":5}'))["id"] == 4
        huge = await c.ask(
            op="resume", channel="ticks", epoch=10**30, symbols={"BTC-USDT": 10**30, "ETH-USDT": -5}
        )
        assert not any(found["recovered"] for found in huge["symbols"].values())
        assert service.clients()[0]["subscriptions"] == 2


FIELDS = st.sampled_from(["op", "id", "channel", "symbols", "epoch", "depth", "history"]) | st.text(max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner),
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_decoding_anything_gives_a_request_or_a_reason(payload: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(payload)
    identifier(payload)


@given(st.binary(max_size=300).map(lambda data: data + b"\r\n\r\n"))
def test_parsing_anything_gives_a_request_or_a_refusal(head: bytes) -> None:
    for data in (head, b"GET /" + head, b"GET / HTTP/1.1\r\nHost: " + head):
        with contextlib.suppress(HttpError):
            parse_head(data)


@on_uvloop
async def test_garbage_frames_end_only_their_own_session(bus: Bus) -> None:
    handshake = ("GET /ws HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in UPGRADE.items()) + "\r\n").encode()
    publisher = Publisher(bus)
    frames = [
        b"\x83\x80\0\0\0\0",  # unknown opcode
        b"\x81\x05hello",  # not masked
        b"\x89\xfe\x01\x00\0\0\0\0" + b"a" * 256,  # a ping too long
        b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0",  # 2**64 bytes
        b"\x81\xfe\x40\x01\0\0\0\0",  # 16 kB and one byte
        b"\x88\x82\0\0\0\0\x03\xe8",  # a clean close
    ]
    async with serving(bus) as service, client(service) as good:
        await good.ask(op="subscribe", channel="ticks", symbols=["BTC-USDT"])
        for frame in frames:
            answer = await raw(service, handshake + frame)
            assert answer.startswith(b"HTTP/1.1 101 ")
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(handshake + os.urandom(3000))
            writer.close()
            del reader
        await until(lambda: len(service.clients()) == 1)
        await publisher.ticks(1)
        await good.follow(lambda: good.last["seq"] == 1)


@on_uvloop
async def test_fragments_and_sizes(bus: Bus) -> None:
    async with serving(bus) as service:
        async with client(service) as c:
            await c.socket.send(['{"op":', '"ping",', '"id":7}'])
            answer = await c.receive()
            assert answer is not None
            assert (answer["op"], answer["id"]) == ("pong", 7)
            await (await c.socket.ping())
        for message in ("x" * 17_000, ["x" * 9000, "x" * 9000]):
            async with client(service) as c:
                await c.socket.send(message)
                assert (await farewell(c))[0] == 1009


@on_uvloop
async def test_floods_are_refused_and_then_closed(bus: Bus) -> None:
    async with serving(bus) as service, client(service) as c:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(1000):
                await c.socket.send('{"op":"ping"}')
        code, reason, answers = await farewell(c)
        assert (code, reason) == (1008, "100 errors in a row")
        refused = "".join("x" if answer.get("code") == "too_many_messages" else "." for answer in answers)
        assert refused.find(100 * "x") == len(refused) - 100  # a host that stands still meanwhile breaks a row
        assert (await get(service, "/health")).status_code == 200
