"""WebSocket sessions of the gateway port (picows), on connections that HTTP hands over."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from tvops.engine.gateway import requests
from tvops.engine.gateway.auth import KeyRing, Principal
from tvops.engine.gateway.calls import Answer, refusal_of
from tvops.engine.gateway.entry import OrderEntry
from tvops.engine.gateway.guard import Guard, Headers
from tvops.engine.gateway.handshake import handshake
from tvops.engine.gateway.private import PrivateStreams
from tvops.engine.gateway.problems import ProblemError, refuse
from tvops.engine.gateway.requests import Identifier, reply
from tvops.engine.telemetry import document
from tvops.engine.websocket import hand_over

if TYPE_CHECKING:
    from tvops.engine.gateway.requests import Request

PATH = b"/ws"
AUTH_SECONDS = 10.0
MAX_MESSAGE_BYTES = 64 * 1024
PING_SECONDS = 20
_READ_BUFFER = 16 * 1024
_CLOSE_SECONDS = 2.0
_TEXT = WSMsgType.TEXT

logger = logging.getLogger(__name__)


class Session(WSListener):
    """One client."""

    def __init__(self, sessions: Sessions, principal: Principal | None) -> None:
        super().__init__()
        self._sessions = sessions
        self.principal = principal
        self.number = sessions.numbers = sessions.numbers + 1
        self.opened = time.monotonic()
        self.sent = 0  # messages
        self._transport: WSTransport | None = None
        self._fragments: list[bytes] = []
        self._size = 0
        self._following = False
        self._closing = False

    # picows

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begin."""
        self._transport = transport
        self._sessions.open.add(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame; answer the message that it completes."""
        kind = frame.msg_type
        if self._closing or kind == WSMsgType.PONG:
            return
        if kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self._bound()
            return
        if kind == WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            return
        if kind == WSMsgType.BINARY:
            self.close(WSCloseCode.UNSUPPORTED_DATA, "send text frames")
            return
        if (kind == WSMsgType.CONTINUATION) != bool(self._size or self._fragments):
            self.close(WSCloseCode.PROTOCOL_ERROR, "a continuation that continues nothing, or the lack of one")
            return
        payload = frame.get_payload_as_bytes()
        if not frame.fin or self._fragments:
            self._fragments.append(payload)
            self._size += len(payload)
            if self._size > MAX_MESSAGE_BYTES or len(self._fragments) > MAX_MESSAGE_BYTES // 64:
                self.close(WSCloseCode.MESSAGE_TOO_BIG, f"a message has at most {MAX_MESSAGE_BYTES} bytes")
                return
            if not frame.fin:
                return
            payload = b"".join(self._fragments)
            self._fragments, self._size = [], 0
        try:
            self._handle(payload)
        except Exception:
            logger.exception("a WebSocket message could not be handled")
            self.close(WSCloseCode.INTERNAL_ERROR, "the gateway failed; its log says why")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """End."""
        self._closing = True
        self._unfollow()
        self._sessions.open.discard(self)

    def pause_writing(self) -> None:
        """Nothing: the bound is checked at every send."""

    def resume_writing(self) -> None:
        """Nothing, likewise."""

    # Sending

    def push(self, messages: list[bytes]) -> None:
        """Send messages; a client that leaves too much unread is dropped."""
        transport = self._transport
        if transport is None or self._closing:
            return
        for message in messages:
            transport.send(_TEXT, message)
        self.sent += len(messages)
        self._bound()

    def _bound(self) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        if transport.underlying_transport.get_write_buffer_size() > self._sessions.buffer_bytes:
            self._sessions.dropped += 1
            self.close(WSCloseCode.POLICY_VIOLATION, f"slow: {self._sessions.buffer_bytes >> 10} kB were not read")

    def described(self, now: float) -> document.Session | None:
        """Give what telemetry tells of the session at monotonic time ``now``; None where it has not begun."""
        if self._transport is None:
            return None
        connection = self._transport.underlying_transport
        peer = connection.get_extra_info("peername")
        unsent = int(connection.get_write_buffer_size())
        return document.Session(
            id=self.number,
            peer=f"{peer[0]}:{peer[1]}" if peer else "",
            account=str(self.principal.account) if self.principal is not None else "",
            seconds=round(now - self.opened, 1),
            subscriptions=int(self._following),
            messages=self.sent,
            unsent=unsent,
            slow=2 * unsent > self._sessions.buffer_bytes,
        )

    def close(self, code: WSCloseCode, reason: str) -> None:
        """Tell the client why, and cut the connection when it has been read or two seconds later."""
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        self._unfollow()
        transport.send_close(code, reason)
        transport.disconnect()
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, transport.underlying_transport.abort)

    # Requests

    def _handle(self, payload: bytes) -> None:
        try:
            request = requests.decode(payload)
        except ProblemError as error:
            op, identifier = requests.envelope(payload)
            self._answer(op, identifier, refusal_of(error))
            return
        try:
            self._serve(request)
        except ProblemError as error:
            self._answer(requests.name(request), request.id, refusal_of(error))

    def _serve(self, request: Request) -> None:
        received = time.monotonic_ns()
        entry = self._sessions.entry
        if isinstance(request, requests.Ping):
            self.push([reply("ping", request.id, requests.pong())])
            return
        if isinstance(request, requests.Auth):
            self._authenticate(request)
            return
        if self.principal is None:
            raise refuse("unauthorized", 'send {"op": "auth", "key": "…"} first')
        account = self.principal.account
        if isinstance(request, requests.Place):
            entry.place(account, request.order, received, lambda answer: self._answer("place", request.id, answer))
        elif isinstance(request, requests.Amend):
            change = requests.amendment(request)
            entry.amend(
                account,
                request.order_id,
                change,
                received,
                lambda answer: self._answer("amend", request.id, answer),
            )
        elif isinstance(request, requests.Cancel):
            entry.cancel(
                account, request.order_id, received, lambda answer: self._answer("cancel", request.id, answer)
            )
        elif isinstance(request, requests.MassCancel):
            entry.mass_cancel(
                account, request.symbol, request.side, received,
                lambda answer: self._answer("mass_cancel", request.id, answer),
            )  # fmt: skip
        elif isinstance(request, requests.Subscribe):
            self._following = True
            self._sessions.streams.subscribe(self, account, request.id, request.epoch, request.seq)
        else:
            self._unfollow()
            self.push([reply("unsubscribe", request.id)])

    def _authenticate(self, request: requests.Auth) -> None:
        principal = self._sessions.guard.by_key(request.key)
        if self.principal is None or principal.account != self.principal.account:
            self._unfollow()
        self.principal = principal
        self.push([reply("auth", request.id, requests.identity(principal))])

    def _answer(self, op: str | None, identifier: Identifier, answer: Answer) -> None:
        self.push([requests.answered(op, identifier, answer)])

    def _unfollow(self) -> None:
        if self._following and self.principal is not None:
            self._following = False
            self._sessions.streams.unsubscribe(self, self.principal.account)


class Sessions:
    """All sessions, and what they share."""

    def __init__(
        self,
        guard: Guard,
        keys: KeyRing,
        entry: OrderEntry,
        streams: PrivateStreams,
        *,
        max_sessions: int,
        buffer_bytes: int,
    ) -> None:
        self.guard, self.entry, self.streams = guard, entry, streams
        self.buffer_bytes = buffer_bytes
        self.open: set[Session] = set()
        self.numbers = 0
        self.most = 0
        self.dropped = 0
        self.stopping = False
        self._keys = keys
        self._keys_seen = 0
        self._max_sessions = max_sessions

    def accept(self, headers: Headers, transport: asyncio.Transport, rest: bytes) -> None:
        """Begin the session that an upgrade request for `PATH` asks for; ``rest`` came behind the request.

        Raises:
            ProblemError: wrong key, wrong handshake, or too many sessions.
        """
        principal = self.guard.identify(headers)
        if self.stopping:
            raise refuse("shutting_down", "the gateway stops")
        if len(self.open) >= self._max_sessions:
            raise refuse("too_many_sessions", f"there are {self._max_sessions} sessions already; try again later")
        hand_over(
            transport, Session(self, principal), handshake(headers), rest,
            max_message_bytes=MAX_MESSAGE_BYTES, read_buffer_bytes=_READ_BUFFER, ping_seconds=PING_SECONDS,
        )  # fmt: skip

    def sweep(self, now: float) -> None:
        """Do what time asks for at monotonic time ``now``: late keys, revoked keys, idle streams."""
        self.most = max(self.most, len(self.open))
        changed = self._keys.version != self._keys_seen
        self._keys_seen = self._keys.version
        for session in list(self.open):
            principal = session.principal
            if principal is None:
                if now - session.opened > AUTH_SECONDS:
                    session.close(WSCloseCode.POLICY_VIOLATION, f"no key within {AUTH_SECONDS:g} s")
            elif changed and principal.key_id and not self._keys.is_valid(principal.key_id):
                session.close(WSCloseCode.POLICY_VIOLATION, "the API key was revoked")
        self.streams.forget_idle(now)

    def listed(self) -> list[document.Session]:
        """Give every session as telemetry lists it."""
        now = time.monotonic()
        return [listed for session in self.open if (listed := session.described(now)) is not None]

    def close_all(self) -> None:
        """Say goodbye to every session."""
        self.stopping = True
        for session in list(self.open):
            session.close(WSCloseCode.GOING_AWAY, "the gateway stops")
