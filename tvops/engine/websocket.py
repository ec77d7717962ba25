"""WebSocket (picows) on a connection that began as HTTP: how both ports hand one over."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from picows import WSAutoPingStrategy, WSListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]

_HANDSHAKE_SECONDS: Final = 5

_picows_logger = logging.getLogger(f"{__name__}.picows")
_picows_logger.setLevel(logging.CRITICAL)  # what clients do wrong is told to them, not to the log


def hand_over(
    transport: asyncio.Transport,
    session: WSListener,
    *received: bytes,
    max_message_bytes: int,
    read_buffer_bytes: int,
    ping_seconds: float | None = None,
) -> None:
    """Speak WebSocket on a connection from now on.

    Args:
        transport: the connection; its reading may be paused.
        session: gets what happens on it.
        received: the head of the upgrade request as picows reads it, and what came behind it.
        max_message_bytes: a longer message ends the connection.
        read_buffer_bytes: that the connection holds at least.
        ping_seconds: after which an idle peer is asked whether it is there, and then has as long to answer; None:
            it is not asked.
    """
    protocol: Any = WSProtocol(
        None,  # host and port
        None,  # path
        False,  # client side
        lambda _: session,
        _picows_logger,
        True,  # disconnect on an exception
        _HANDSHAKE_SECONDS,
        ping_seconds is not None,
        ping_seconds or _HANDSHAKE_SECONDS,
        ping_seconds or _HANDSHAKE_SECONDS,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # pong: a client that pings and does not read has to meet the bound
        max_message_bytes,
        None,  # further headers
        read_buffer_bytes,
    )
    # The event loop chooses its read callback when reading starts: it has to start again for this protocol.
    transport.pause_reading()
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    transport.resume_reading()  # before the session gets anything: it may pause again
    for data in received:
        view = memoryview(data)
        while view and not transport.is_closing():
            buffer = protocol.get_buffer(-1)
            count = min(len(buffer), len(view))
            buffer[:count] = view[:count]
            protocol.buffer_updated(count)
            view = view[count:]
