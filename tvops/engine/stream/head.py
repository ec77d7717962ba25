"""Request heads: read, and checked for whether their sender may come in."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

import httptools

from tvops.settings import Settings

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_SINGLE_HEADERS = frozenset(
    {"host", "origin", "sec-websocket-key", "sec-websocket-version", "x-api-key", "authorization"}
)


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


def upgrade_key(request: Request) -> str:
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
    if "transfer-encoding" in headers or headers.get("content-length", "").strip("0"):
        raise HttpError(HTTPStatus.BAD_REQUEST, "an upgrade has no body: frames follow its headers")
    return key
