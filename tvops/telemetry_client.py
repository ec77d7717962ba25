"""Reads the telemetry of running stacks: any number of ports, local or remote, whatever state they are in.

Whatever an endpoint does (nothing at all, garbage, one byte a second, an endless answer, a redirection) ends in
a `Reading` that says what is wrong. Connections are kept where the other side keeps them, and made anew by the
next poll where they broke.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import httptools
import msgspec

from tvops.engine.telemetry.document import SCHEMA, Telemetry
from tvops.errors import UsageError
from tvops.terminal import clean

PATH = "/telemetry"
MAX_ANSWER_BYTES = 8 << 20
_PIECE = 1 << 16
_SHOWN = 120  # letters of what a stranger says
_WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_WORDS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]{0,99}")

_decoder = msgspec.msgpack.Decoder(Telemetry)
_json_decoder = msgspec.json.Decoder(Telemetry)


class Reading(NamedTuple):
    """What one poll of one endpoint gave."""

    url: str
    telemetry: Telemetry | None
    error: str  # one plain sentence; empty where there is telemetry
    received: int  # monotonic ns, when the poll ended
    connected: bool  # whether somebody took the connection


class TelemetryClient:
    """Polls the telemetry ports of one or several stacks."""

    def __init__(self, urls: Sequence[str], api_key: str = "", timeout: float = 2.0) -> None:
        """Read from ``urls``.

        Args:
            urls: ``http://HOST:PORT`` or ``https://…`` of gateway and market data ports.
            api_key: sent to each of them, if any.
            timeout: seconds that a poll of one endpoint may take in all.

        Raises:
            UsageError: a URL or the key cannot be used.
        """
        if not (api_key.isascii() and api_key.isprintable()):
            raise UsageError("the API key ($TVOPS_API_KEY) has letters that no key has")
        self._endpoints = [_Endpoint(url, api_key) for url in urls]
        self._timeout = timeout

    async def poll(self) -> list[Reading]:
        """Ask every endpoint once, all at the same time; give a reading of each, in the order of the URLs."""
        return list(await asyncio.gather(*(endpoint.read(self._timeout) for endpoint in self._endpoints)))

    async def close(self) -> None:
        """Let go of every connection."""
        for endpoint in self._endpoints:
            endpoint.disconnect()

    async def __aenter__(self) -> TelemetryClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


def check_document(document: Telemetry) -> None:
    """Refuse a document whose names no stack gives: they become parts of tables, tags and names of files.

    A process and a stage are one word; services and metrics may have blanks between words, as `ledger server` has.
    Numbers and lengths are bounded by the types of a document already (`tvops.engine.telemetry.bounds`).

    Raises:
        ValueError: a name or a histogram is none.
    """
    for name in (document.process, *document.stages):
        if not _WORD.fullmatch(name):
            raise ValueError("a process or a stage has a name that is none")
    for name in (*document.health, *document.stats, *(metric.name for metric in document.metrics)):
        if not _WORDS.fullmatch(name):
            raise ValueError("a service or a metric has a name that is none")
    for stage in document.stages.values():
        stage.histogram.check()


class _ReadingError(Exception):
    """An endpoint does not give telemetry; the message says why."""


class _Answer:
    """Gathers what httptools finds in an answer."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.status = 0
        self.keep_alive = False
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        # the parser knows these for as long as it is at this message
        self.status, self.keep_alive = self.parser.get_status_code(), self.parser.should_keep_alive()
        self.complete = True


class _Endpoint:
    """One port, and the connection to it."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url.rstrip("/")
        parts = _split(url)
        self._host, self._tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        key = f"X-API-Key: {api_key}\r\n" if api_key else ""
        self._request = (
            f"GET {parts.path.rstrip('/')}{PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Accept: application/msgpack\r\n{key}\r\n"
        ).encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._connected = False

    async def read(self, timeout: float) -> Reading:
        """Ask once; every failure is told in the reading."""
        self._connected = False
        telemetry, error = None, ""
        try:
            async with asyncio.timeout(timeout):
                telemetry = await self._fetch()
        except TimeoutError:
            error = f"{'does not answer' if self._connected else 'does not take connections'} within {timeout:g} s"
        except _ReadingError as failure:
            error = str(failure)
        except ssl.SSLError as failure:
            error = f"TLS: {clean(getattr(failure, 'verify_message', '') or failure.reason or 'failed')[:_SHOWN]}"
        except OSError as failure:
            error = _reason(failure)
        except Exception as failure:  # noqa: BLE001 - whatever one sends, the polls of the others go on
            error = f"cannot be read ({type(failure).__name__})"
        if error:
            self.disconnect()
        return Reading(self.url, telemetry, error, time.monotonic_ns(), self._connected)

    def disconnect(self) -> None:
        """Drop the connection, if there is one."""
        streams, self._streams = self._streams, None
        if streams is not None:
            with contextlib.suppress(OSError, RuntimeError):
                streams[1].transport.abort()

    async def _fetch(self) -> Telemetry:
        """Ask on the kept connection; on a new one where there is none, or the other side has let go of it."""
        if self._streams is not None:
            self._connected = True
            with contextlib.suppress(ConnectionError, EOFError):
                return await self._ask(*self._streams)
            self.disconnect()
            self._connected = False
        tls = ssl.create_default_context() if self._tls else None
        self._streams = await asyncio.open_connection(self._host, self._port, ssl=tls, limit=_PIECE)
        self._connected = True
        try:
            return await self._ask(*self._streams)
        except (ConnectionError, EOFError):
            raise _ReadingError("ended the connection without an answer") from None

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Telemetry:
        writer.write(self._request)
        answer = _Answer()
        received = 0
        while not answer.complete:
            piece = await reader.read(_PIECE)
            if not piece:
                if not received:
                    raise EOFError
                raise _ReadingError("broke off in the middle of its answer")
            received += len(piece)
            if received > MAX_ANSWER_BYTES:
                raise _ReadingError(f"answers with more than {MAX_ANSWER_BYTES >> 20} MiB")
            try:
                answer.parser.feed_data(piece)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                raise _ReadingError("does not speak HTTP") from None
        if not answer.keep_alive:
            self.disconnect()
        return _decode(answer)


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


def _decode(answer: _Answer) -> Telemetry:
    status = answer.status
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise _ReadingError("needs an API key; set a valid one in $TVOPS_API_KEY")
    if 300 <= status < 400:
        target = answer.headers.get(b"location", b"").decode("latin-1")
        raise _ReadingError(f"redirects to {clean(target)[:_SHOWN]!r}; give that address if it is the right one")
    if status == HTTPStatus.NOT_FOUND:
        raise _ReadingError("has no /telemetry: it is no port of tvops, or of an older version")
    if status != HTTPStatus.OK:
        raise _ReadingError(f"answers with status {status}")
    kind = answer.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    decoder: Any = _json_decoder if kind == b"application/json" else _decoder
    try:
        telemetry: Telemetry = decoder.decode(answer.body)
        check_document(telemetry)
    except (ValueError, RecursionError):
        raise _ReadingError("answers with something that is not telemetry") from None
    if telemetry.schema != SCHEMA:
        raise _ReadingError(f"tells telemetry of schema {telemetry.schema}, which this version cannot read")
    return telemetry


def _reason(failure: OSError) -> str:
    """Say why a connection failed: asyncio puts its own text in place of the system's."""
    if isinstance(failure, socket.gaierror):
        return "there is no such host"
    if failure.errno:
        return os.strerror(failure.errno).lower()
    return "connection refused" if "refused" in str(failure).lower() else "cannot be reached"
