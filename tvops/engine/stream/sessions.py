"""A WebSocket session: its frames and requests in, its messages out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from tvops.engine.stream.frames import Opcode, message
from tvops.engine.stream.history import Encoding
from tvops.engine.stream.protocol import (
    MAX_MESSAGE_BYTES,
    Auth,
    Identifier,
    Ping,
    ProtocolError,
    Request,
    Resume,
    Subscribe,
    decode,
    identifier,
    reply,
    welcome,
)

if TYPE_CHECKING:
    from tvops.engine.stream.hub import Hub

MESSAGES_PER_SECOND = 50
MAX_ERRORS = 100  # in a row
CLOSE_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Keys(Protocol):
    """Knows the API keys; `version` rises when they change."""

    version: int

    def account(self, key: str) -> int | None:
        """Give the account of ``key``; None where there is no such key."""


class Group:
    """Sessions with the same subscriptions: their bytes are put together once."""

    __slots__ = ("keys", "members", "sent")

    def __init__(self, keys: frozenset[int]) -> None:
        self.keys = keys
        self.members: dict[Session, None] = {}
        self.sent = 0  # messages since the group came to be


class Session(WSListener):
    """One WebSocket connection."""

    def __init__(self, hub: Hub, number: int, peer: str, key: str | None) -> None:
        self.hub = hub
        self.number = number
        self.peer = peer
        self.key = key
        self.opened = self.heard = self.pinged = self.resumed_at = hub.now()
        self.subscriptions: dict[int, Encoding] = {}  # by number of the topic
        self.group: Group | None = None
        self.latency_ns = 0
        self.strikes = 0
        self.conflations = 0
        self.paused_at = 0.0  # 0: not paused
        self.closing_at = 0.0  # 0: not closing
        self.positions: dict[int, int] = {}  # sequence of each topic when the session was paused
        self._sent = 0
        self._tokens = float(MESSAGES_PER_SECOND)
        self._filled = self.opened
        self._errors = 0
        self._fragments: bytearray | None = None
        self.transport: WSTransport
        self.write: Callable[[bytes], None]

    # What picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Start the session."""
        connection = transport.underlying_transport
        self.transport, self.write = transport, connection.write
        high = self.hub.buffer_bytes
        connection.set_write_buffer_limits(high=high, low=high // 8)
        self.hub.add(self)
        self.send(welcome(self.hub.encoder.epoch, self.hub.catalogue.instruments, self.hub.keys is not None))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Forget the session."""
        self.hub.remove(self)

    def pause_writing(self) -> None:
        """Pass the session over from here on: it has too many unsent bytes. Its own messages wait as well."""
        connection = self.transport.underlying_transport
        if not self.closing_at and not connection.is_closing():
            connection.pause_reading()
            self.hub.pause(self)

    def resume_writing(self) -> None:
        """Go on: most of the unsent bytes are sent."""
        connection = self.transport.underlying_transport
        if self.paused_at and not self.closing_at and not connection.is_closing():
            connection.resume_reading()
            self.hub.unpause(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Serve one frame of the client."""
        try:
            self._on_frame(frame)
        except Exception:
            logger.exception("session %d: a message could not be served", self.number)
            self.close(WSCloseCode.INTERNAL_ERROR, "internal error")

    # What the hub calls

    def send(self, data: bytes, messages: int = 1) -> None:
        """Send whole WebSocket messages to this session only."""
        if not self.closing_at:
            self._sent += messages
            self.write(data)

    def leave(self) -> None:
        """Leave the group, keeping count of what came through it."""
        if self.group is not None:
            self._sent += self.group.sent
            del self.group.members[self]
            self.group = None

    def join(self, group: Group) -> None:
        """Get what the group gets from now on."""
        self._sent -= group.sent
        group.members[self] = None
        self.group = group

    def ping(self, now: float) -> None:
        """Ask the peer for a sign of life that also tells the latency."""
        self.pinged = now
        self.write(message(Opcode.PING, time.monotonic_ns().to_bytes(8, "little")))

    def close(self, code: WSCloseCode, reason: str) -> None:
        """Say goodbye; the connection ends when the peer answers, or soon after."""
        if self.closing_at:
            return
        self.closing_at = self.hub.now()
        self.hub.quiet(self)
        self.transport.send_close(code, reason)
        connection = self.transport.underlying_transport
        if self.paused_at and not connection.is_closing():
            connection.resume_reading()

    def abort(self) -> None:
        """End the connection now."""
        self.transport.disconnect(graceful=False)

    @property
    def admitted(self) -> bool:
        """Whether the session may subscribe: it has shown a valid key, or needs none."""
        return self.key is not None or self.hub.keys is None

    @property
    def messages_sent(self) -> int:
        """WebSocket messages that were handed to the socket."""
        return self._sent + (self.group.sent if self.group else 0)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the peer to read."""
        return int(self.transport.underlying_transport.get_write_buffer_size())

    # Frames and requests

    def _on_frame(self, frame: WSFrame) -> None:
        self.heard = self.hub.now()
        kind = frame.msg_type
        if kind == WSMsgType.PONG:
            self._on_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self.close(WSCloseCode.OK, "")
            self.transport.disconnect()
        elif self.closing_at or not self._allowed():
            return
        elif kind == WSMsgType.PING:
            self.send(message(Opcode.PONG, frame.get_payload_as_bytes()))
        else:
            self._on_data(frame)

    def _on_pong(self, payload: bytes) -> None:
        if len(payload) == 8:
            self.latency_ns = max(0, time.monotonic_ns() - int.from_bytes(payload, "little"))

    def _on_data(self, frame: WSFrame) -> None:
        """Put fragments together; serve whole messages."""
        payload = frame.get_payload_as_bytes()
        if frame.msg_type == WSMsgType.BINARY:
            self._refuse(None, "bad_message", "binary messages are not understood; send JSON text")
            return
        if frame.msg_type == WSMsgType.CONTINUATION:
            if self._fragments is None:
                self._refuse(None, "bad_message", "a continuation of nothing")
                return
            self._fragments += payload
        elif not frame.fin:
            self._fragments = bytearray(payload)
        if self._fragments is not None:
            if len(self._fragments) > MAX_MESSAGE_BYTES:
                self.close(WSCloseCode.MESSAGE_TOO_BIG, f"messages have at most {MAX_MESSAGE_BYTES} bytes")
                return
            if not frame.fin:
                return
            payload, self._fragments = bytes(self._fragments), None
        self._on_message(payload)

    def _on_message(self, payload: bytes) -> None:
        try:
            request = decode(payload)
        except ProtocolError as error:
            self._refuse(identifier(payload), error.code, str(error))
            return
        try:
            self._serve(request)
        except ProtocolError as error:
            self._refuse(request.id, error.code, str(error))
        else:
            self._errors = 0

    def _serve(self, request: Request) -> None:
        if isinstance(request, Ping):
            self.send(reply("pong", request.id, time=time.time_ns()))
        elif isinstance(request, Auth):
            self._authenticate(request)
        elif not self.admitted:
            raise ProtocolError("key_required", 'this service needs an API key; send {"op":"auth","key":…} first')
        elif self.paused_at:
            raise ProtocolError("busy", "too much is waiting to be read; read it, then ask again")
        elif isinstance(request, Subscribe):
            self.hub.subscribe(self, request)
        elif isinstance(request, Resume):
            self.hub.resume(self, request)
        else:
            self.hub.unsubscribe(self, request)

    def _authenticate(self, request: Auth) -> None:
        if self.hub.keys is not None:
            if self.hub.keys.account(request.key) is None:
                raise ProtocolError("bad_key", "key: this API key is not known")
            self.key = request.key
        self.send(reply("authenticated", request.id))

    def _allowed(self) -> bool:
        """Count a message; tell whether the session may send that many."""
        now = self.heard
        self._tokens = min(MESSAGES_PER_SECOND, self._tokens + (now - self._filled) * MESSAGES_PER_SECOND)
        self._filled = now
        if self._tokens < 1:
            text = f"more than {MESSAGES_PER_SECOND} messages a second; this one was ignored"
            self._refuse(None, "too_many_messages", text)
            return False
        self._tokens -= 1
        return True

    def _refuse(self, identifier: Identifier | None, code: str, text: str) -> None:
        self._errors += 1
        self.send(reply("error", identifier, code=code, message=text))
        if self._errors >= MAX_ERRORS:
            self.close(WSCloseCode.POLICY_VIOLATION, f"{MAX_ERRORS} errors in a row")
