"""A connection that becomes a WebSocket in the middle of what it has sent."""

from __future__ import annotations

import asyncio
from typing import cast

import uvloop
from picows import WSFrame, WSListener, WSTransport

from tvops.engine.websocket import hand_over

HEAD = (
    b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
FRAME = b"\x82\x81\0\0\0\0x"  # binary, masked with zeros


class Pausing(WSListener):
    """Reads no more once it got a frame, as a session does that cannot send its answers."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.underlying_transport.pause_reading()


class Upgraded(asyncio.Protocol):
    """Becomes a WebSocket with the first data that comes, and tells whether it is read on."""

    def __init__(self, told: asyncio.Future[bool]) -> None:
        self._told = told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        head, _, rest = data.partition(b"\r\n\r\n")
        received = head + b"\r\n\r\n", rest
        hand_over(self._transport, Pausing(), *received, max_message_bytes=100, read_buffer_bytes=100)
        self._told.set_result(self._transport.is_reading())
        self._transport.abort()


def reads_on(sent: bytes) -> bool:
    async def handed_over() -> bool:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[bool] = loop.create_future()
        async with await loop.create_server(lambda: Upgraded(told), "127.0.0.1", 0) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(sent)
            reading = await told
            writer.close()
        return reading

    return uvloop.run(handed_over())


def test_a_session_may_pause_for_what_came_behind_the_request() -> None:
    assert reads_on(HEAD)
    assert not reads_on(HEAD + FRAME)
