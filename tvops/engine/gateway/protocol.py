"""HTTP on the gateway port: uvicorn's httptools protocol, with the API answered in the protocol itself.

A call of the API costs no task and no framework: it is matched when its headers are there, handled when its body
is, and answered by the engine's reply. Pages go to the ASGI application, WebSocket upgrades to `Sessions`.
Calls of one connection are submitted in their order and answered in their order; a page request waits for
the calls before it, and calls wait for a page request before them (uvicorn's `pipeline`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tvops.engine.gateway.calls import Answer, Call, internal_error, refusal, refusal_of
from tvops.engine.gateway.problems import ProblemError, problem, refuse
from tvops.engine.gateway.routes import BODY_LIMIT, Route
from tvops.engine.gateway.schemas import Problem

if TYPE_CHECKING:
    from tvops.engine.gateway.server import Gateway

MAX_URL_BYTES = 4096
MAX_HEADER_BYTES = 16 * 1024
MAX_HEADERS = 100
MAX_CALLS_IN_FLIGHT = 128
"""Calls of one connection from which on nothing more is read from it."""

REQUEST_SECONDS = 10.0
"""How long a request may take to arrive."""

IDLE_SECONDS = 75.0
_LINGER_SECONDS = 1.0
_CHUNK_OVERHEAD = 8  # bytes on the wire that a byte of body may take when it comes in chunks

logger = logging.getLogger(__name__)


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, gateway: Gateway, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.gateway = gateway
        self._calls: deque[Call] = deque()  # started and not written yet, in their order
        self._page: Any = None  # the page request that runs, or ran last
        self._upgrade = False  # the request at hand asks for a WebSocket
        self._closing = False  # the last answer is written
        self._advancing = False
        self._last = False  # the request at hand, or one before, is the last of this connection
        self._head_bytes = 0
        self._begun = 0.0  # when the request at hand began to arrive; 0: none does
        self._wire_bytes = 0  # of the request at hand, as far as it came in earlier pieces
        self._active = time.monotonic()

    # Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        self.gateway.options.adopt(transport.get_extra_info("socket"))
        if len(self.connections) > self.gateway.max_connections:
            self._refuse(problem("too_many_connections", "close connections that you do not need"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection. What was submitted stays submitted."""
        super().connection_lost(exc)
        for call in self._calls:
            call.disconnected = True
        self._calls.clear()
        self.pipeline.clear()
        if self._page is not None:
            # uvicorn tells only the newest request of the connection, which need not be the one that runs
            self._page.disconnected = True
            self._page.message_event.set()

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
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._parsing_failed(error)
            return
        if self._begun:
            self._wire_bytes += len(data)
            limit = self.cycle.limit if isinstance(self.cycle, Call) and not self._head_bytes else BODY_LIMIT
            if self._wire_bytes > _CHUNK_OVERHEAD * limit + MAX_HEADER_BYTES + MAX_URL_BYTES:
                code = "headers_too_large" if self._head_bytes else "body_too_large"
                self._refuse(problem(code, "more arrived than a request may have"))

    def pause_writing(self) -> None:
        """Read nothing more from a client that does not read its answers."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Read again."""
        super().resume_writing()
        self._advance()

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
        self._begun = time.monotonic()

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
        if self.parser.should_upgrade() and method == b"GET" and self._get_upgrade() == b"websocket":
            self._upgrade = True
            return
        call = self._make_call(method)
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
            if not self._upgrade:
                super().on_body(body)
        elif call.output is None and call.refused is None:
            call.body += body
            if len(call.body) > call.limit:
                raise refuse("body_too_large", f"the body has more than {call.limit} bytes")

    def on_message_complete(self) -> None:
        """Handle the request that is whole now."""
        self._begun = 0.0
        call = self.cycle
        if not isinstance(call, Call):
            if not self._upgrade:
                super().on_message_complete()
            return
        call.more_body = False
        if call.started and call.output is None:
            self._run(call)

    # Calls

    def finish(self, call: Call, answer: Answer) -> None:
        """Send the answer of ``call``, after those of the calls before it."""
        if call.output is not None or call.disconnected:
            return
        call.output = call.render(answer, self.gateway.common_headers)
        self._flush()

    def _make_call(self, method: bytes) -> Call | None:
        """Make the call that the headers at hand begin; None where they ask for a page."""
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        call = Call(self, None, keep_alive)
        call.received = time.monotonic_ns()
        call.head_only = method == b"HEAD"
        call.limit = BODY_LIMIT
        try:
            url = httptools.parse_url(self.url)
            if method == b"CONNECT" or url.path is None:
                raise refuse("malformed_request", "the address has no path")
            call.cors = self.gateway.guard.check_site(self.headers)
            if method == b"OPTIONS" and call.cors:
                call.refused = self.gateway.preflight
                return call
            route, call.parameter = self.gateway.router.match(method, url.path)
            if route is None:
                return None
            call.route, call.limit, call.query = route, route.body_limit, url.query or b""
            self._admit(call, route)
        except httptools.HttpParserError:
            call.refused = refusal(problem("malformed_request", "the address is not valid"))
        except ProblemError as error:
            call.refused = refusal_of(error)
            if error.problem.status in (400, 413):
                call.keep_alive = False
        return call

    def _admit(self, call: Call, route: Route) -> None:
        """Check key, size and type of a call from its headers."""
        call.principal = principal = self.gateway.guard.identify(self.headers)
        if principal is None and not route.public:
            raise refuse("unauthorized", "send an API key as X-API-Key or as Authorization: Bearer")
        if route.admin and (principal is None or not principal.admin):
            raise refuse("forbidden", "this needs a key that was made with --admin")
        json = False
        for name, value in self.headers:
            if name == b"content-length" and int(value) > route.body_limit:
                raise refuse("body_too_large", f"the body has more than {route.body_limit} bytes")
            if name == b"content-type":
                json = value.partition(b";")[0].strip().lower() == b"application/json"
        if route.negotiated:
            call.accept = b",".join(value for name, value in self.headers if name == b"accept").decode("latin-1")
        if route.body is not None and not json:
            raise refuse("unsupported_media_type", "send the body with Content-Type: application/json")

    def _begin(self, call: Call) -> None:
        """Start a call whose turn it is."""
        call.started = True
        self._calls.append(call)
        if len(self._calls) >= MAX_CALLS_IN_FLIGHT:
            self.flow.pause_reading()
        if call.refused is not None and call.output is None:
            call.output = call.render(call.refused, self.gateway.common_headers)
            if call.more_body and self.expect_100_continue:
                call.keep_alive = False
            self._flush()
        elif not call.more_body:
            self._run(call)
        elif self.expect_100_continue and len(self._calls) == 1:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _run(self, call: Call) -> None:
        """Handle a call that is whole."""
        assert call.route is not None
        try:
            answer = self.gateway.handlers[call.route.handler](call)
        except ProblemError as error:
            answer = refusal_of(error)
        except Exception:
            logger.exception("%s %s failed", call.route.method, call.route.path)
            answer = refusal(internal_error())
        if answer is not None:
            self.finish(call, answer)

    def on_response_complete(self) -> None:
        """Go on with what waits behind the page that is answered now."""
        if self.pipeline and not self.transport.is_closing():
            self.server_state.total_requests += 1
            self._unset_keepalive_if_required()
            self._advance()
        else:
            super().on_response_complete()

    def _advance(self) -> None:
        """Start the requests that wait, as far as their turn has come and the client reads its answers.

        One read can hold thousands of requests whose answers are large, so pausing reading alone bounds nothing.
        """
        if self._advancing or self._closing:
            return
        self._advancing = True  # a call that is answered at once comes back here: go round instead of down
        try:
            while self.pipeline and not self._calls and not self.flow.write_paused and not self._page_runs():
                self._start_asgi_task(*self.pipeline.pop())
        finally:
            self._advancing = False
        if not self.pipeline and len(self._calls) < MAX_CALLS_IN_FLIGHT and not self.flow.write_paused:
            self.flow.resume_reading()

    def _page_runs(self) -> bool:
        return self._page is not None and not self._page.response_complete

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if isinstance(cycle, Call):
            self._begin(cycle)
        else:
            self._page = cycle
            super()._start_asgi_task(cycle, app)

    def _flush(self) -> None:
        """Write the answers whose turn it is."""
        calls, parts = self._calls, []
        keep_alive = True
        while keep_alive and calls and calls[0].output is not None:
            call = calls.popleft()
            assert call.output is not None
            parts.append(call.output)
            call.response_complete = True
            keep_alive = call.keep_alive
        if not parts or self._closing or self.transport.is_closing():
            return
        self._active = time.monotonic()
        self.server_state.total_requests += len(parts)
        self.transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
        if not keep_alive:
            self._close()
        else:
            self._advance()

    def _busy(self) -> bool:
        return bool(self._calls or self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

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

    def _close(self) -> None:
        """Say that nothing more comes, and let the client read the answer before the connection is cut."""
        self._closing = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    # WebSocket

    def _switch(self, rest: bytes) -> None:
        """Go on after an Upgrade header: with a WebSocket, or as if it was not there."""
        if not self._upgrade:
            self.parser = httptools.HttpRequestParser(self)
            if rest:
                self.data_received(rest)
            return
        self._begun = 0.0
        if self._busy():
            self._refuse(problem("malformed_request", "wait for the answers before the upgrade"))
            return
        try:
            self.gateway.guard.check_site(self.headers)
            protocol = self.gateway.sessions.accept(self.url, self.headers)
        except ProblemError as error:
            self._refuse(error.problem)
            return
        self.connections.discard(self)
        self._closing = True
        protocol.take_over(self.transport, rest)


def _ignored(protocol: GatewayProtocol) -> Call:
    """Make the call that stands for a request which comes after the last one."""
    call = Call(protocol, None, False)
    call.output, call.response_complete = b"", True
    return call
