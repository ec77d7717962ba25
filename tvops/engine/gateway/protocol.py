"""HTTP on the gateway port: uvicorn's httptools protocol, with the API answered in the protocol itself.

A call of the API costs no task and no framework: it is matched when its headers are there, handled when its body
is, and answered by the engine's reply. Pages go to the ASGI application, WebSocket upgrades to `Sessions`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import httptools

from tvops.engine.gateway.admission import make_call
from tvops.engine.gateway.answering import AnsweringProtocol
from tvops.engine.gateway.calls import Call, internal_error, refusal
from tvops.engine.gateway.problems import ProblemError, problem, refuse
from tvops.engine.gateway.routes import BODY_LIMIT
from tvops.engine.gateway.schemas import Problem
from tvops.engine.gateway.sessions import PATH

if TYPE_CHECKING:
    from tvops.engine.gateway.server import Gateway

MAX_URL_BYTES = 4096
MAX_HEADER_BYTES = 16 * 1024
MAX_HEADERS = 100

REQUEST_SECONDS = 10.0
"""How long a request may take to arrive."""

IDLE_SECONDS = 75.0

_CHUNK_OVERHEAD = 8  # bytes on the wire that a byte of body may take when it comes in chunks

logger = logging.getLogger(__name__)


class GatewayProtocol(AnsweringProtocol):
    """One connection: its requests, and within what bounds they come."""

    def __init__(self, gateway: Gateway, **arguments: Any) -> None:
        super().__init__(gateway, **arguments)
        self._upgrade = False  # the request at hand has an Upgrade: it is taken up when the parser stops behind it
        self._last = False  # the request at hand, or one before, is the last of this connection
        self._head_bytes = 0
        self._begun = 0.0  # when the request at hand began to arrive; 0: none does
        self._wire_bytes = 0  # of the request at hand, as far as it came in earlier pieces

    # Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self.gateway.options.adopt(transport.get_extra_info("socket"))
        if len(self.connections) > self.gateway.max_connections:
            self._refuse(problem("too_many_connections", "close connections that you do not need"))

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer what is in flight before the connection closes."""
        if not self._calls or self._closing:
            return None
        self._calls[-1].keep_alive = False
        self._last = True
        return True

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        if self._closing:
            return
        self._unset_keepalive_if_required()
        self._active = time.monotonic()
        try:
            rest = self._feed(data)
            while rest is not None and not self._last:
                rest = self._take_up(rest)
        except httptools.HttpParserError as error:
            self._parsing_failed(error)
            return
        if self._begun:
            self._wire_bytes += len(data)
            limit = self.cycle.limit if isinstance(self.cycle, Call) and not self._head_bytes else BODY_LIMIT
            if self._wire_bytes > _CHUNK_OVERHEAD * limit + MAX_HEADER_BYTES + MAX_URL_BYTES:
                code = "headers_too_large" if self._head_bytes else "body_too_large"
                self._refuse(problem(code, "more arrived than a request may have"))

    def check_time(self, now: float) -> None:
        """Close a connection that is idle for long, or whose request does not arrive in time."""
        if self._begun and now - self._begun > REQUEST_SECONDS:
            self._refuse(problem("request_timeout", f"it did not arrive within {REQUEST_SECONDS:g} s"))
        elif not self._begun and not self._busy() and now - self._active > IDLE_SECONDS:
            self.transport.close()

    # Parser callbacks

    def on_message_begin(self) -> None:
        """Get ready for a request. Its ASGI scope is made only where a page is asked for."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._upgrade = False
        self._head_bytes = 1
        self._wire_bytes = 0
        self._begun = self._begun or time.monotonic()  # a head that is read again began with its first byte

    def on_url(self, url: bytes) -> None:
        """Take the address."""
        self.url += url
        if len(self.url) > MAX_URL_BYTES:
            raise refuse("url_too_long", f"the address has more than {MAX_URL_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEADER_BYTES or len(self.headers) >= MAX_HEADERS:
            detail = f"the headers have more than {MAX_HEADER_BYTES} bytes or {MAX_HEADERS} lines"
            raise refuse("headers_too_large", detail)
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Find out what is asked for, and by whom."""
        self._head_bytes = 0
        if self._last:
            self.cycle = _ignored(self)  # type: ignore[assignment]
            return
        method = self.parser.get_method()
        if self.parser.should_upgrade() and method != b"CONNECT":
            self._upgrade = True
            return
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        call = make_call(self.gateway, self, method, self.url, self.headers, keep_alive)
        if call is None:
            url, headers, expect = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expect
            self.headers.extend(headers)
            super().on_headers_complete()
            return
        self._last = self._last or not call.keep_alive
        before = self.cycle
        waits = (
            bool(self.pipeline)
            or self.flow.write_paused
            or (before is not None and not isinstance(before, Call) and not before.response_complete)
        )
        self.cycle = call  # type: ignore[assignment]
        if waits:
            self.flow.pause_reading()
            self.pipeline.appendleft((call, self.app))  # type: ignore[arg-type]
        else:
            self._begin(call)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        call = self.cycle
        if not isinstance(call, Call):
            super().on_body(body)
        elif call.output is None and call.refused is None:
            call.body += body
            if len(call.body) > call.limit:
                raise refuse("body_too_large", f"the body has more than {call.limit} bytes")

    def on_message_complete(self) -> None:
        """Handle the request that is whole now."""
        if self._upgrade:
            return
        self._begun = 0.0
        call = self.cycle
        if not isinstance(call, Call):
            super().on_message_complete()
            return
        call.more_body = False
        if call.started and call.output is None:
            self._run(call)

    # The end of a connection

    def _parsing_failed(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if isinstance(cause, ProblemError):
            self._refuse(cause.problem)
        elif isinstance(error, httptools.HttpParserCallbackError) and not isinstance(cause, ValueError):
            logger.error("a request could not be handled", exc_info=cause)
            self._refuse(internal_error())
        else:
            self._refuse(problem("malformed_request", f"not valid HTTP: {' '.join(str(error).split())[:100]}"))

    def _refuse(self, refused: Problem) -> None:
        """Answer the request at hand with a problem, after what is in flight, and close."""
        self._begun = 0.0
        self._last = True
        at_hand: Any = self.cycle
        if isinstance(at_hand, Call) and at_hand.more_body and at_hand.output is None:
            call, new = at_hand, False
        else:
            call, new = Call(self, None, False), True
        call.refused, call.keep_alive, call.more_body = refusal(refused), False, False
        if call.started:
            self.finish(call, call.refused)
        elif new and (self.pipeline or (self._busy() and not self._calls)):
            self.pipeline.appendleft((call, self.app))  # type: ignore[arg-type]
        elif new:
            self._begin(call)
        self.cycle = call  # type: ignore[assignment]

    # Upgrades

    def _feed(self, data: bytes | memoryview) -> memoryview | None:
        """Parse; where that stops behind a head with an Upgrade, give what stands there."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            return memoryview(data)[stop.args[0] :]
        return None

    def _take_up(self, rest: memoryview) -> memoryview | None:
        """Go on behind a head with an Upgrade: as a WebSocket, or as if the Upgrade was not there (RFC 9110, 7.8).

        httptools takes such a request to have no body, so a new parser reads the head again without the Upgrade.
        Gives what stands behind the next such head, if there is one.
        """
        if self._asks_for_session():
            self._open_session(bytes(rest))
            return None
        head = self._head_without_upgrade()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does: `_last` ignores it
        self.parser.feed_data(head)
        return self._feed(rest)

    def _head_without_upgrade(self) -> bytes:
        """Write the head at hand anew. Its `Connection` may stay: no upgrade is asked for by that alone."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _asks_for_session(self) -> bool:
        return (
            self.parser.get_method() == b"GET"
            and self.parser.get_http_version() == "1.1"
            and self._get_upgrade() == b"websocket"
            and self.url.partition(b"?")[0] == PATH
        )

    def _open_session(self, rest: bytes) -> None:
        self._begun = 0.0
        if self._busy():
            self._refuse(problem("malformed_request", "wait for the answers before the upgrade"))
            return
        try:
            self.gateway.guard.check_site(self.headers)
            self.gateway.sessions.accept(self.headers, self.transport, rest)
        except ProblemError as error:
            self._refuse(error.problem)
            return
        self.connections.discard(self)
        self._closing = True


def _ignored(protocol: GatewayProtocol) -> Call:
    """Make the call that stands for a request which comes after the last one."""
    call = Call(protocol, None, False)
    call.output, call.response_complete = b"", True
    return call
