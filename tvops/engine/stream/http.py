"""The HTTP side of the port: plain requests are answered here, WebSocket upgrades go on to picows.

One request per connection. What reaches picows is a head that was checked and written anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, cast

import msgspec
from picows import WSListener

from tvops.engine.socket_tuning import SocketOptions
from tvops.engine.stream.head import Doorkeeper, HttpError, Request, parse_head, presented_key, upgrade_key
from tvops.engine.stream.protocol import MAX_MESSAGE_BYTES
from tvops.engine.websocket import hand_over
from tvops.settings import Settings

MAX_HEAD_BYTES = 16 * 1024
MAX_PENDING = 256
"""Connections that have not yet sent a whole request."""

HEAD_SECONDS = 5.0
DRAIN_SECONDS = 1.0
MAX_DRAIN_BYTES = 1 << 20
READ_BUFFER_BYTES = 2048


class Answer(NamedTuple):
    """What a plain request is answered with."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "application/json"


class Route(NamedTuple):
    """A path that can be read."""

    answer: Callable[[Request], Answer]
    open: bool = False  # needs no key


class Front:
    """What every connection of the port shares."""

    def __init__(
        self,
        settings: Settings,
        routes: Mapping[str, Route],
        admit: Callable[[str | None], bool],
        open_session: Callable[[str, str | None], WSListener],
        options: SocketOptions,
    ) -> None:
        """Answer ``routes`` and the path /ws.

        Args:
            settings: hosts, origins, whether keys are required.
            routes: plain paths.
            admit: tells whether a key (or none) may come in.
            open_session: makes the session of a peer with a valid key or none; raises HttpError.
            options: of accepted connections.
        """
        self.doorkeeper = Doorkeeper(settings)
        self.routes, self.admit, self.open_session = routes, admit, open_session
        self.options = options
        self.pending: set[HttpConnection] = set()
        self.refused = 0

    def __call__(self) -> HttpConnection:
        """Make the protocol of a new connection."""
        return HttpConnection(self)


class HttpConnection(asyncio.Protocol):
    """A connection until its request is answered, or until it is a WebSocket."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._data = bytearray()
        self._answered = False
        self._drained = 0
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, but not for long."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._front.options.adopt(transport.get_extra_info("socket"))
        self._deadline = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._expire)
        if len(self._front.pending) >= MAX_PENDING:
            self._refuse(
                HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again", retry_after="1")
            )
        else:
            self._front.pending.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection."""
        self._deadline.cancel()
        self._front.pending.discard(self)

    def data_received(self, data: bytes) -> None:
        """Gather the head, then serve it."""
        if self._answered:
            self._drained += len(data)
            if self._drained > MAX_DRAIN_BYTES:
                self._transport.abort()
            return
        start = max(0, len(self._data) - 3)
        self._data += data
        end = self._data.find(b"\r\n\r\n", start)
        try:
            if end > MAX_HEAD_BYTES or (end < 0 and len(self._data) > MAX_HEAD_BYTES):
                text = f"the head of the request has more than {MAX_HEAD_BYTES} bytes"
                raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
            if end >= 0:
                self._serve(bytes(self._data[: end + 4]), bytes(self._data[end + 4 :]))
        except HttpError as error:
            self._refuse(error)

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    def _serve(self, head: bytes, rest: bytes) -> None:
        request = parse_head(head)
        self._front.doorkeeper.check(request)
        if request.path == "/ws":
            self._upgrade(request, rest)
            return
        route = self._front.routes.get(request.path)
        if route is None:
            known = ", ".join((*self._front.routes, "/ws"))
            raise HttpError(HTTPStatus.NOT_FOUND, f"{request.path[:60]!r} is not here; there are {known}")
        if request.method not in ("GET", "HEAD"):
            raise HttpError(
                HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not possible here; use GET", allow="GET, HEAD"
            )
        if not route.open and not self._front.admit(presented_key(request)):
            raise HttpError(HTTPStatus.UNAUTHORIZED, "an API key is needed: X-API-Key", www_authenticate="Bearer")
        headers = {}
        if "origin" in request.headers:
            headers = {"Access-Control-Allow-Origin": request.headers["origin"], "Vary": "Origin"}
        self._answer(route.answer(request), headers, head_only=request.method == "HEAD")

    def _upgrade(self, request: Request, rest: bytes) -> None:
        """Check the upgrade (RFC 6455, 4.2.1) and hand the connection over."""
        key = upgrade_key(request)
        presented = presented_key(request)
        if presented is not None and not self._front.admit(presented):
            raise HttpError(HTTPStatus.UNAUTHORIZED, "this API key is not known", www_authenticate="Bearer")
        peer = self._transport.get_extra_info("peername")
        session = self._front.open_session(f"{peer[0]}:{peer[1]}" if peer else "", presented)
        self.connection_lost(None)
        head = (
            "GET /ws HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
        hand_over(
            self._transport, session, head.encode("ascii"), rest,
            max_message_bytes=MAX_MESSAGE_BYTES, read_buffer_bytes=READ_BUFFER_BYTES,
        )  # fmt: skip

    def _refuse(self, error: HttpError) -> None:
        self._front.refused += error.status is HTTPStatus.SERVICE_UNAVAILABLE
        body = {
            "type": "about:blank",
            "title": error.status.phrase,
            "status": error.status,
            "detail": str(error),
            "code": error.status.name.lower(),
        }
        answer = Answer(msgspec.json.encode(body), error.status, "application/problem+json")
        self._answer(answer, error.headers, head_only=False)

    def _answer(self, answer: Answer, headers: Mapping[str, str], head_only: bool) -> None:
        """Write the answer and end our side; the peer's is read on for a while, or a reset would overtake it."""
        self._answered = True
        lines = [
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            "Connection: close",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self._transport.write(
            "\r\n".join((*lines, "", "")).encode("latin-1") + (b"" if head_only else answer.body)
        )
        self._transport.write_eof()
        self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(DRAIN_SECONDS, self._transport.abort)

    def _expire(self) -> None:
        if self._data:
            text = f"the request did not arrive within {HEAD_SECONDS:.0f} s"
            self._refuse(HttpError(HTTPStatus.REQUEST_TIMEOUT, text))
        else:
            self._transport.abort()
