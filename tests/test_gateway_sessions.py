"""WebSocket sessions of the gateway, with real clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import websockets

from tests.gateway_fixtures import Client, Running, running_gateway
from tvops.engine.bus.roles import Bus

ORDER = {"symbol": "ETH-USDT", "side": "buy", "order_type": "limit", "price": "2000", "quantity": "1"}
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest_asyncio.fixture
async def gateway(bus: Bus) -> AsyncIterator[Running]:
    async with running_gateway(bus, session_buffer_kb=16) as running:
        yield running


def frame(payload: bytes, opcode: int = 1, last: bool = True) -> bytes:
    mask = os.urandom(4)
    size = struct.pack(">B", 0x80 | len(payload)) if len(payload) < 126 else struct.pack(">BH", 0xFE, len(payload))
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([(0x80 if last else 0) | opcode]) + size + mask + masked


async def place(client: Client, **fields: Any) -> dict[str, Any]:
    return await client.ask(op="place", id=1, order={**ORDER, **fields})


async def test_orders_are_placed_amended_and_cancelled(gateway: Running) -> None:
    async with gateway.socket() as client:
        placed = await place(client, client_order_id="w")
        assert (placed["ok"], placed["status"], placed["result"]["status"]) == (True, 201, "open")
        again = await place(client, client_order_id="w")
        assert (again["status"], again["replayed"]) == (200, True)
        amended = await client.ask(op="amend", id="x", order_id="client:w", quantity="0.5")
        assert (amended["id"], amended["result"]["quantity"]) == ("x", "0.5000")
        cancelled = await client.ask(op="cancel", id=3, order_id=placed["result"]["order_id"])
        assert cancelled["result"]["status"] == "cancelled"
        refused = await client.ask(op="cancel", id=4, order_id=placed["result"]["order_id"])
        assert (refused["ok"], refused["status"], refused["error"]["code"]) == (False, 409, "order_not_open")
        await place(client)
        assert (await client.ask(op="mass_cancel", id=5, symbol="ETH-USDT"))["result"]["cancelled"] == 1


async def test_the_private_stream_tells_everything_in_numbers(gateway: Running) -> None:
    async with gateway.socket() as client:
        await place(client, client_order_id="before")
        snapshot = await client.ask(op="subscribe", id=2)
        assert (snapshot["recovered"], snapshot["seq"]) == (False, 0)
        assert [order["client_order_id"] for order in snapshot["orders"]] == ["before"]
        await gateway.order(
            symbol="ETH-USDT", side="sell", order_type="market", price=None, quantity="0.4", self_trade="allow"
        )
        events = [await client.event() for _ in range(4)]
        assert [event["seq"] for event in events] == [1, 2, 3, 4]
        assert [event["type"] for event in events] == ["order", "fill", "fill", "position"]
        assert events[1]["fill"]["liquidity"] == "maker"
        assert events[1]["order"]["status"] == "partially_filled"
        assert events[3]["position"]["quantity"] == "0.0000"
        await gateway.client.delete("/v1/orders")
        cancelled = await client.event()
        assert (cancelled["event"], cancelled["order"]["reason"]) == ("cancelled", "mass_cancel")
        assert (await place(client, quantity="9999"))["ok"] is False
        rejected = await client.event()
        assert (rejected["event"], rejected["order"]["reason"]) == ("rejected", "max_order_quantity")
        await client.ask(op="unsubscribe", id=3)
        await place(client)
        assert (await client.ask(op="ping", id=4))["op"] == "ping"
        assert client.events == []


async def test_a_session_resumes_where_it_left(gateway: Running) -> None:
    async with gateway.socket() as client:
        snapshot = await client.ask(op="subscribe", id=1)
    epoch = snapshot["epoch"]
    for name in ("a", "b", "c"):
        await gateway.order(client_order_id=name)
    async with gateway.socket() as client:
        resumed = await client.ask(op="subscribe", id=2, epoch=epoch, seq=1)
        assert (resumed["type"], resumed["recovered"], resumed["seq"]) == ("resumed", True, 1)
        missed = [await client.event() for _ in range(2)]
        assert [(event["seq"], event["order"]["client_order_id"]) for event in missed] == [(2, "b"), (3, "c")]
        await gateway.order(client_order_id="d")
        assert (await client.event())["seq"] == 4
    for epoch_sent, seq in (("another", 1), (epoch, 5), (epoch, None)):
        async with gateway.socket() as client:
            request = {"op": "subscribe", "id": 3, "epoch": epoch_sent} | ({} if seq is None else {"seq": seq})
            answer = await client.ask(**request)
            assert (answer["type"], answer["seq"], len(answer["orders"])) == ("snapshot", 4, 4)


async def test_more_events_than_are_kept_give_a_snapshot(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvops.engine.gateway.private.KEPT_EVENTS", 4)
    async with gateway.socket() as client:
        epoch = (await client.ask(op="subscribe", id=1))["epoch"]
    for _ in range(6):
        await gateway.order()
    async with gateway.socket() as client:
        assert (await client.ask(op="subscribe", id=1, epoch=epoch, seq=1))["type"] == "snapshot"
        assert (await client.ask(op="subscribe", id=1, epoch=epoch, seq=2))["type"] == "resumed"
    gateway.service._sessions.streams.forget_idle(1e12)
    async with gateway.socket() as client:
        assert (await client.ask(op="subscribe", id=1, epoch=epoch, seq=6))["type"] == "snapshot"


async def test_a_session_that_does_not_read_is_dropped_and_resumes(gateway: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1 << 12)
    writer.write(UPGRADE + frame(b'{"op": "subscribe", "id": 1}'))
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"101" in head
    writer.transport.pause_reading()
    order = {"symbol": "BTC-USDT", "side": "buy", "order_type": "limit", "price": "100", "quantity": "0.01"}
    for _ in range(30):
        await gateway.client.post("/v1/orders/batch", json=[order] * 1000)
        if gateway.service._sessions.dropped:
            break
        await asyncio.sleep(0.2)
    assert gateway.service._sessions.dropped == 1
    assert gateway.service.stats()["sessions_dropped"] == 1
    writer.transport.resume_reading()
    received = b""
    while piece := await reader.read(1 << 16):
        received += piece
    assert b"slow: 16 kB were not read" in received[-200:]
    writer.close()


WRONG_MESSAGES = (
    ("garbage", None, None, "malformed_json"),
    ("[]", None, None, "invalid_field"),
    ('{"op": "nope", "id": 1}', "nope", 1, "invalid_field"),
    ('{"id": 7}', None, 7, "missing_field"),
    ('{"op": "place", "id": "z", "order": {"symbol": 1}}', "place", "z", "invalid_field"),
    ('{"op": "place", "id": 1, "order": {}, "x": 1}', "place", 1, "missing_field"),
    ('{"op": "cancel", "id": 1, "order_id": "x"}', "cancel", 1, "order_not_found"),
    ('{"op": "cancel", "id": {}, "order_id": "x"}', None, None, "invalid_field"),
    ('{"op": "amend", "id": 1, "order_id": "1", "price": 5}', "amend", 1, "number_not_string"),
    ('{"op": "mass_cancel", "id": 1, "symbol": "NOPE"}', "mass_cancel", 1, "symbol_not_found"),
    ('{"op": "auth", "id": 1, "key": "tv_nope"}', "auth", 1, "unauthorized"),
    ("[" * 60_000, None, None, "invalid_field"),
)


async def test_a_wrong_message_is_answered(gateway: Running) -> None:
    for message, *expected in WRONG_MESSAGES:
        async with gateway.socket() as client:
            await client.connection.send(message)
            answer = await client.receive()
            assert [answer["op"], answer["id"], answer["error"]["code"]] == expected, message[:80]
            assert answer["ok"] is False
            assert (await client.ask(op="ping", id=1))["ok"]


async def test_what_is_no_text_message_of_bounded_size_ends_the_session(gateway: Running) -> None:
    wrong: tuple[tuple[Any, int], ...]
    wrong = ("x" * 70_000, 1009), (b"binary", 1003), (["x" * 60_000, "x" * 60_000], 1009)
    for message, code in wrong:
        async with gateway.socket() as client:
            await client.connection.send(message)
            with pytest.raises(websockets.ConnectionClosed):
                await client.receive()
            assert client.connection.close_code == code, message[:1]


async def test_frames_that_come_with_the_upgrade_and_in_fragments(gateway: Running) -> None:
    data = (
        UPGRADE
        + frame(b'{"op":"ping","id":1}')
        + frame(b'{"op":"pi', last=False)
        + frame(b'ng","id":2}', opcode=0)
    )
    answer = await gateway.raw(
        [data, frame(b'{"op":"ping","id":3}'), frame(b"", opcode=9), frame(b"\x03\xe8", opcode=8)]
    )
    assert answer.startswith(b"HTTP/1.1 101 ")
    positions = [answer.find(b'"id":%d' % number) for number in (1, 2, 3)]
    assert positions == sorted(positions)
    assert positions[0] > 0
    assert answer.endswith(b"\x88\x02\x03\xe8<END>")


async def test_broken_frames_end_only_their_session(gateway: Running) -> None:
    broken = {
        "opcode": frame(b"x", opcode=3), "continuation": frame(b"x", opcode=0),
        "large ping": frame(b"x" * 200, opcode=9), "unmasked": b"\x81\x05hello", "random": os.urandom(500),
    }  # fmt: skip
    async with gateway.socket() as other:
        for what, data in broken.items():
            await gateway.raw(UPGRADE + data, lambda received: True)
            assert (await other.ask(op="ping", id=1))["ok"], what
            async with gateway.socket() as client:
                assert (await client.ask(op="ping", id=1))["ok"], what


async def test_a_session_during_an_order_on_the_same_connection_is_refused(gateway: Running) -> None:
    body = json.dumps(ORDER).encode()
    order = b"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await gateway.raw(order + b"Content-Length: %d\r\n\r\n%b" % (len(body), body) + UPGRADE)
    assert answer.count(b"HTTP/1.1 201") == 1
    assert answer.count(b"HTTP/1.1 400") == 1
    assert len((await gateway.client.get("/v1/orders")).json()["orders"]) == 1


async def test_there_is_a_most_of_sessions(bus: Bus) -> None:
    async with running_gateway(bus, max_sessions=2) as gateway:
        async with gateway.socket(), gateway.socket():
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with gateway.socket():
                    pass
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["retry-after"]
        async with gateway.socket() as client:
            assert (await client.ask(op="ping", id=1))["ok"]


async def test_a_page_of_another_site_gets_no_session(gateway: Running) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with gateway.socket(origin="http://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    async with gateway.socket(origin=f"http://127.0.0.1:{gateway.port}") as client:
        assert (await client.ask(op="ping", id=1))["ok"]


async def test_a_stop_says_goodbye(bus: Bus) -> None:
    async with running_gateway(bus) as gateway, gateway.socket() as client:
        await client.ask(op="ping", id=1)
        await gateway.service.stop()
        with pytest.raises(websockets.ConnectionClosed):
            await client.receive()
        assert client.connection.close_code == 1001


async def test_pings_are_answered_and_a_client_that_only_pings_is_dropped(gateway: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1 << 14)
    writer.write(UPGRADE + frame(b"there", opcode=9))
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(7) == b"\x8a\x05there"
    flood = frame(b"p" * 125, opcode=9) * 500
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(500):
            writer.write(flood)
            await asyncio.wait_for(writer.drain(), 60)
    async with asyncio.timeout(60):
        while (stats := (await gateway.client.get("/stats")).json())["sessions"]:
            await asyncio.sleep(0.01)
    assert stats["sessions_dropped"] == 1
    writer.transport.abort()
