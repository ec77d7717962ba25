"""Hands a connection of the gateway port over from HTTP to WebSocket (picows)."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

from picows import WSListener
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]

from tvops.engine.gateway.guard import Headers
from tvops.engine.gateway.problems import refuse

MAX_MESSAGE_BYTES = 64 * 1024
PING_SECONDS = 20
_READ_BUFFER = 16 * 1024
_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")  # 16 bytes in base64

_picows_logger = logging.getLogger(f"{__name__}.picows")
_picows_logger.setLevel(logging.CRITICAL)  # what clients do wrong is told to them, not to the log


class Handover:
    """A WebSocket protocol that waits for its connection."""

    def __init__(self, session: WSListener, head: bytes) -> None:
        self._head = head
        self._protocol = WSProtocol(
            None,  # host and port
            None,  # path
            False,  # client side
            lambda _: session,
            _picows_logger,
            True,  # disconnect on an exception
            5,  # seconds for the handshake
            True,  # ping
            PING_SECONDS,
            PING_SECONDS,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # pong: a client that pings and does not read has to meet the bound
            MAX_MESSAGE_BYTES,
            None,  # further headers
            _READ_BUFFER,
        )

    def take_over(self, transport: asyncio.Transport, rest: bytes) -> None:
        """Speak WebSocket on ``transport`` from now on; ``rest`` came behind the upgrade request."""
        protocol: Any = self._protocol
        # The event loop chooses its read callback when reading starts: it has to start again for this protocol.
        transport.pause_reading()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for data in (self._head, rest):
            view = memoryview(data)
            while view and not transport.is_closing():
                buffer = protocol.get_buffer(-1)
                count = min(len(buffer), len(view))
                buffer[:count] = view[:count]
                protocol.buffer_updated(count)
                view = view[count:]
        if not transport.is_closing():
            transport.resume_reading()


def handshake(headers: Headers) -> bytes:
    """Write the upgrade request as picows reads it: browsers also send `Connection: keep-alive, Upgrade`.

    Raises:
        ProblemError: the headers are not those of a handshake.
    """
    wanted = (b"sec-websocket-key", b"sec-websocket-version")
    found = {name: value for name, value in headers if name in wanted}
    if not _KEY.fullmatch(found.get(wanted[0], b"")) or found.get(wanted[1]) != b"13":
        raise refuse("malformed_request", "the handshake needs a Sec-WebSocket-Key and Sec-WebSocket-Version: 13")
    if any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t"))
        for name, value in headers
    ):
        raise refuse("malformed_request", "the handshake has no body: frames follow its headers")
    lines = [b"GET /ws HTTP/1.1", b"Upgrade: websocket", b"Connection: Upgrade"]
    return b"\r\n".join([*lines, *(b"%b: %b" % item for item in found.items()), b"", b""])
