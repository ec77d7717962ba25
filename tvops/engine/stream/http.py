"""The HTTP side of the port: plain requests are answered here, WebSocket upgrades go on to picows.

One request per connection. What reaches picows is a head that was checked and written anew.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools
import msgspec
from picows import WSAutoPingStrategy, WSListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from tvops.engine.stream.protocol import MAX_MESSAGE_BYTES
from tvops.settings import Settings

MAX_HEAD_BYTES = 16 * 1024
MAX_PENDING = 256
"""Connections that have not yet sent a whole request."""

HEAD_SECONDS = 5.0
DRAIN_SECONDS = 1.0
MAX_DRAIN_BYTES = 1 << 20
READ_BUFFER_BYTES = 2048

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_SINGLE_HEADERS = frozenset(
    {"host", "origin", "sec-websocket-key", "sec-websocket-version", "x-api-key", "authorization"}
)

picows_logger = logging.getLogger(f"{__name__}.picows")
picows_logger.setLevel(logging.CRITICAL)  # it reports every broken frame of every client as an error


class HttpError(Exception):
    """A request is refused with ``status``; the message says why in one sentence."""

    def __init__(self, status: HTTPStatus, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = {name.replace("_", "-").title(): value for name, value in headers.items()}


class Request(NamedTuple):
    """A request head."""

    method: str
    path: str
    version: str
    headers: Mapping[str, str]  # names in lower case


class Answer(NamedTuple):
    """What a plain request is answered with."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "application/json"


class Route(NamedTuple):
    """A path that can be read."""

    answer: Callable[[], Answer]
    open: bool = False  # needs no key


class _Head:
    """Gathers what httptools finds in a request head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        if key in self.headers:
            if key in _SINGLE_HEADERS:
                raise HttpError(HTTPStatus.BAD_REQUEST, f"the header {key} stands twice")
            text = f"{self.headers[key]}, {text}"
        self.headers[key] = text


def parse_head(head: bytes) -> Request:
    """Read a request head, its empty line included.

    Raises:
        HttpError: it is no HTTP request.
    """
    found = _Head()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # the head is complete, the rest is not HTTP
    except httptools.HttpParserCallbackError as error:
        if isinstance(error.__context__, HttpError):
            raise error.__context__ from None
        raise
    except httptools.HttpParserError:
        raise HttpError(HTTPStatus.BAD_REQUEST, "this is not an HTTP request") from None
    path = found.url.decode("latin-1").partition("?")[0]
    return Request(parser.get_method().decode("latin-1"), path, parser.get_http_version(), found.headers)


class Doorkeeper:
    """Decides who may come in: hosts, origins, keys."""

    def __init__(self, settings: Settings) -> None:
        self._loopback = settings.loopback
        self._origins = tuple(origin.rstrip("/").lower() for origin in settings.allowed_origins)
        self._hosts = _LOOPBACK | {settings.host.lower(), *map(_hostname, self._origins)} - {""}

    def check(self, request: Request) -> None:
        """Refuse a host that is not ours and an origin that may not come in; raise HttpError for them."""
        host = _hostname(f"//{request.headers.get('host', '')}")
        if self._loopback and host not in self._hosts and (host or request.version != "1.0"):
            text = f"Host: {host[:60]!r} is not this service; use 127.0.0.1 or localhost"
            raise HttpError(HTTPStatus.MISDIRECTED_REQUEST, text)
        origin = request.headers.get("origin")
        if origin is not None and not self._knows(origin.lower(), host):
            text = f"Origin: {origin[:100]!r} may not connect; add it to allowed_origins"
            raise HttpError(HTTPStatus.FORBIDDEN, text)

    def _knows(self, origin: str, host: str) -> bool:
        if origin in self._origins:
            return True
        name = _hostname(origin)
        return bool(name) and (name in _LOOPBACK if self._loopback else name == host)


def presented_key(request: Request) -> str | None:
    """Give the API key that a request carries."""
    key = request.headers.get("x-api-key")
    if key is None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else None
    return key or None


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


class Front:
    """What every connection of the port shares."""

    def __init__(
        self,
        settings: Settings,
        routes: Mapping[str, Route],
        admit: Callable[[str | None], bool],
        open_session: Callable[[str, str | None], WSListener],
    ) -> None:
        """Answer ``routes`` and the path /ws.

        Args:
            settings: hosts, origins, whether keys are required.
            routes: plain paths.
            admit: tells whether a key (or none) may come in.
            open_session: makes the session of a peer with a valid key or none; raises HttpError.
        """
        self.doorkeeper = Doorkeeper(settings)
        self.routes, self.admit, self.open_session = routes, admit, open_session
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
        self._answer(route.answer(), headers, head_only=request.method == "HEAD")

    def _upgrade(self, request: Request, rest: bytes) -> None:
        """Check the upgrade (RFC 6455, 4.2.1) and hand the connection over."""
        key = _checked_upgrade(request)
        presented = presented_key(request)
        if presented is not None and not self._front.admit(presented):
            raise HttpError(HTTPStatus.UNAUTHORIZED, "this API key is not known", www_authenticate="Bearer")
        peer = self._transport.get_extra_info("peername")
        session = self._front.open_session(f"{peer[0]}:{peer[1]}" if peer else "", presented)
        self.connection_lost(None)
        websocket = WSProtocol(
            None, None, False, lambda _: session, picows_logger, True, None, False, 10, 10,
            WSAutoPingStrategy.PING_WHEN_IDLE, False, MAX_MESSAGE_BYTES, None, READ_BUFFER_BYTES,
        )  # fmt: skip
        self._transport.set_protocol(websocket)
        websocket.connection_made(self._transport)
        head = (
            "GET /ws HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
        _feed(websocket, head.encode("ascii") + rest)

    def _refuse(self, error: HttpError) -> None:
        self._front.refused += error.status is HTTPStatus.SERVICE_UNAVAILABLE
        body = {"type": "about:blank", "title": error.status.phrase, "status": error.status, "detail": str(error)}
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


def _checked_upgrade(request: Request) -> str:
    """Give the WebSocket key of an upgrade request; raise HttpError where it is none."""
    headers = request.headers
    if request.method != "GET":
        raise HttpError(
            HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not possible here; use GET", allow="GET"
        )
    asked = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in asked:
        raise HttpError(
            HTTPStatus.UPGRADE_REQUIRED, "/ws is a WebSocket", upgrade="websocket", connection="upgrade"
        )
    if headers.get("sec-websocket-version") != "13":
        text = "Sec-WebSocket-Version: only 13 is possible"
        raise HttpError(HTTPStatus.UPGRADE_REQUIRED, text, upgrade="websocket", sec_websocket_version="13")
    key = headers.get("sec-websocket-key", "")
    try:
        valid = len(base64.b64decode(key.encode("ascii"), validate=True)) == 16
    except (UnicodeEncodeError, binascii.Error):
        valid = False
    if not valid:
        raise HttpError(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key: is not 16 bytes in base64")
    return key


def _feed(websocket: Any, data: bytes) -> None:
    """Hand ``data`` to a buffered protocol as if it had just arrived."""
    while data:
        buffer = websocket.get_buffer(-1)
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        websocket.buffer_updated(count)
        data = data[count:]
