"""The turns of a connection's requests: calls are submitted in their order and answered in their order.

A page request waits for the calls before it, and calls wait for a page request before them (uvicorn's `pipeline`).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tvops.engine.gateway.calls import Answer, Call, internal_error, refusal, refusal_of
from tvops.engine.gateway.problems import ProblemError

if TYPE_CHECKING:
    from tvops.engine.gateway.server import Gateway

MAX_CALLS_IN_FLIGHT = 128
"""Calls of one connection from which on nothing more is read from it."""

_LINGER_SECONDS = 1.0

logger = logging.getLogger(__name__)


class AnsweringProtocol(HttpToolsProtocol):
    """One connection, from where a request is known to where its answer is written."""

    def __init__(self, gateway: Gateway, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.gateway = gateway
        self._calls: deque[Call] = deque()  # started and not written yet, in their order
        self._page: Any = None  # the page request that runs, or ran last
        self._closing = False  # the last answer is written
        self._advancing = False
        self._active = time.monotonic()  # when something came or went last

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

    def pause_writing(self) -> None:
        """Read nothing more from a client that does not read its answers."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Read again."""
        super().resume_writing()
        self._advance()

    def finish(self, call: Call, answer: Answer) -> None:
        """Send the answer of ``call``, after those of the calls before it."""
        if call.output is not None or call.disconnected:
            return
        call.output = call.render(answer, self.gateway.common_headers)
        self._flush()

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

    def _close(self) -> None:
        """Say that nothing more comes, and let the client read the answer before the connection is cut."""
        self._closing = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)
