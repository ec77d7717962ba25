"""GET from one port, whatever it does: each request ends in its time, with bounded bytes or with what is wrong.

Connections are kept where the other side keeps them, and made anew by the next request where they broke.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import httptools

from tvops.daemon_thread import aside
from tvops.dialing import Address, dial, is_literal, look_up
from tvops.errors import UsageError
from tvops.terminal import clean

_PIECE = 1 << 16
_SHOWN = 120  # letters of what a stranger says
_ENDED = (b"content-length", b"transfer-encoding")
"""Headers that say where a body ends; without them it ends with the connection."""
_READ = (b"content-type", b"location", *_ENDED)


class EndpointError(Exception):
    """A port does not give what it was asked for; the message says why, in words that may follow its URL."""


class Content(NamedTuple):
    """What a port answered."""

    kind: str  # its Content-Type, in lower case and without parameters
    body: bytearray


class Endpoint:
    """One port, and the connection to it."""

    def __init__(self, url: str, api_key: str = "") -> None:
        """Ask ``url``, http://HOST:PORT or https://…, and send it ``api_key``, if any.

        Raises:
            UsageError: the URL or the key cannot be used.
        """
        if not (api_key.isascii() and api_key.isprintable()):
            raise UsageError("the API key ($TVOPS_API_KEY) has letters that no key has")
        self.url = url.rstrip("/")
        self.connected = False
        """Whether somebody took the connection of the last request."""
        parts = _split(url)
        self._host, self._secure = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._base = parts.path.rstrip("/")
        self._headers = f"Host: {parts.netloc}\r\n" + (f"X-API-Key: {api_key}\r\n" if api_key else "")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lookup: asyncio.Future[list[Address] | Exception] | None = None

    async def fetch(self, path: str, accept: str, limit: int, timeout: float) -> Content:
        """Give what the port answers to one GET; ask for the next thing when this is over.

        Args:
            path: from the URL on, with its first slash.
            accept: media type that is wanted.
            limit: bytes that the whole answer may have.
            timeout: seconds that it may take in all.

        Raises:
            EndpointError: there is no such answer.
        """
        self.connected = False
        request = f"GET {self._base}{path} HTTP/1.1\r\nAccept: {accept}\r\n{self._headers}\r\n".encode()
        try:
            async with asyncio.timeout(timeout):
                answer = await self._answered(request, limit)
            return _checked(path, answer)
        except asyncio.CancelledError:
            self.disconnect()  # an answer may be on its way, which is none to the next request
            raise
        except Exception as failure:  # noqa: BLE001 - whatever one sends, the requests to the others go on
            self.disconnect()
            raise EndpointError(self._reason(failure, timeout)) from None

    def disconnect(self) -> None:
        """Drop the connection, if there is one."""
        streams, self._streams = self._streams, None
        if streams is not None:
            with contextlib.suppress(OSError, RuntimeError):
                streams[1].transport.abort()

    async def _answered(self, request: bytes, limit: int) -> _Answer:
        """Ask on the kept connection; on a new one where there is none, or the other side has let go of it."""
        if self._streams is not None and not await _is_idle(self._streams[0]):
            self.disconnect()
        if self._streams is not None:
            self.connected = True
            with contextlib.suppress(ConnectionError, EOFError):
                return await self._ask(request, limit, *self._streams)
            self.disconnect()
            self.connected = False
        connection = await dial(await self._addresses())
        self.connected = True
        self._streams = await asyncio.open_connection(
            sock=connection, limit=_PIECE, ssl=_tls() if self._secure else None,
            server_hostname=self._host if self._secure else None,
        )  # fmt: skip
        try:
            return await self._ask(request, limit, *self._streams)
        except (ConnectionError, EOFError):
            raise EndpointError("ended the connection without an answer") from None

    async def _ask(
        self, request: bytes, limit: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> _Answer:
        writer.write(request)
        answer = _Answer()
        try:
            await answer.receive(reader, limit)
        finally:
            del answer.parser  # it knows the answer: the two would keep each other, and megabytes, for a while
        if not answer.keep_alive:
            self.disconnect()
        return answer

    async def _addresses(self) -> list[Address]:
        """Give the addresses of the host.

        A resolver may hang for minutes, so a name is looked up on a thread of its own that nobody waits for at the
        end. The next request waits for the same look-up as long as it lasts: there is one such thread at most.
        """
        if is_literal(self._host):
            found = look_up(self._host, self._port)
        else:
            self._lookup = self._lookup or aside("resolver", look_up, self._host, self._port)
            await asyncio.wait([self._lookup])
            found, self._lookup = self._lookup.result(), None
        if isinstance(found, Exception):
            raise found
        return found

    def _reason(self, failure: Exception, timeout: float) -> str:
        if isinstance(failure, EndpointError):
            return str(failure)
        if isinstance(failure, TimeoutError):
            return f"{self._hindrance()} within {timeout:g} s"
        if isinstance(failure, ssl.SSLError):
            told = getattr(failure, "verify_message", "") or failure.reason or "failed"
            return f"TLS: {clean(told)[:_SHOWN]}"
        if isinstance(failure, socket.gaierror) and failure.errno == socket.EAI_AGAIN:
            return "has a name that cannot be resolved now"
        if isinstance(failure, socket.gaierror | UnicodeError):
            return "there is no such host"
        if isinstance(failure, OSError):
            return os.strerror(failure.errno).lower() if failure.errno else "cannot be reached"
        return f"cannot be read ({type(failure).__name__})"

    def _hindrance(self) -> str:
        if self.connected:
            return "does not answer"
        return "does not take connections" if self._lookup is None else "has a name that is not resolved"


class _Answer:
    """Gathers what httptools finds in an answer."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.status = 0
        self.keep_alive = False
        self.complete = False
        self._ends_with_connection = False
        self.parser = httptools.HttpResponseParser(self)

    async def receive(self, reader: asyncio.StreamReader, limit: int) -> None:
        """Take in all of it; raise EOFError where nothing comes, EndpointError where that is no answer."""
        received = 0
        while not self.complete:
            piece = await reader.read(_PIECE)
            if not piece:
                if not received:
                    raise EOFError
                if self._ends_with_connection:
                    return
                raise EndpointError("broke off in the middle of its answer")
            received += len(piece)
            if received > limit:
                raise EndpointError(f"answers with more than {limit >> 20} MiB")
            try:
                self.parser.feed_data(piece)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                if not self.complete:
                    raise EndpointError("does not speak HTTP") from None
                self.keep_alive = False  # what follows an answer would be taken for the next one

    def on_message_begin(self) -> None:
        if self.complete:
            raise httptools.HttpParserError("something follows the answer")
        self.headers.clear()
        self.body.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in _READ:  # an answer may have a million others
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self._ends_with_connection = not self._interim and not any(name in self.headers for name in _ENDED)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.keep_alive = self.parser.should_keep_alive()  # it knows for as long as it is at this message
        self.complete = not self._interim

    @property
    def _interim(self) -> bool:
        """Whether the answer itself is still to come, as after "103 Early Hints"."""
        return 100 <= self.status < 200


async def _is_idle(reader: asyncio.StreamReader) -> bool:
    """Whether nothing has come since the last answer: no end, no bytes that would be taken for the next one."""
    try:
        async with asyncio.timeout(0):
            await reader.read(1)
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


def _checked(path: str, answer: _Answer) -> Content:
    """Give what is in an answer; raise EndpointError where it is a refusal or a redirection."""
    status = answer.status
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise EndpointError("needs an API key; set a valid one in $TVOPS_API_KEY")
    if 300 <= status < 400:
        target = answer.headers.get(b"location", b"").decode("latin-1")
        raise EndpointError(f"redirects to {clean(target)[:_SHOWN]!r}; give that address if it is the right one")
    if status == HTTPStatus.NOT_FOUND:
        asked = path.partition("?")[0][:_SHOWN]
        raise EndpointError(f"has no {asked}: it is no port of tvops, or of an older version")
    if status != HTTPStatus.OK:
        raise EndpointError(f"answers with status {status}")
    kind = answer.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return Content(kind.decode("latin-1"), answer.body)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and url.isascii() and url.isprintable()
        valid = valid and " " not in url and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise UsageError(f"{url!r}: is no address of a stack; give http://HOST:PORT or https://HOST:PORT")
    if parts.username is not None or parts.password is not None:
        raise UsageError("an address has no user and password; set the API key in $TVOPS_API_KEY")
    return parts


@functools.cache
def _tls() -> ssl.SSLContext:
    """Give whom this machine trusts; reading that takes a while, and is the same for every connection."""
    return ssl.create_default_context()
