"""What the headers of a request are let in as: a call of the API, a refusal, or a request for a page."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httptools

from tvops.engine.gateway.calls import Call, Channel, refusal, refusal_of
from tvops.engine.gateway.guard import Guard, Headers
from tvops.engine.gateway.problems import ProblemError, problem, refuse
from tvops.engine.gateway.routes import BODY_LIMIT, Route

if TYPE_CHECKING:
    from tvops.engine.gateway.server import Gateway


def make_call(
    gateway: Gateway, channel: Channel, method: bytes, address: bytes, headers: Headers, keep_alive: bool
) -> Call | None:
    """Make the call that headers begin; None where they ask for a page.

    What is known to be wrong with it already is in its `refused`.
    """
    call = Call(channel, None, keep_alive)
    call.received = time.monotonic_ns()
    call.head_only = method == b"HEAD"
    call.limit = BODY_LIMIT
    try:
        if method == b"CONNECT":  # refused here, so that it ends the connection: what follows need not be HTTP
            raise refuse("malformed_request", "this is no proxy")
        url = httptools.parse_url(address)
        if url.path is None:
            raise refuse("malformed_request", "the address has no path")
        call.cors = gateway.guard.check_site(headers)
        if method == b"OPTIONS" and call.cors:
            call.refused = gateway.preflight
            return call
        route, call.parameter = gateway.router.match(method, url.path)
        if route is None:
            return None
        call.route, call.limit, call.query = route, route.body_limit, url.query or b""
        _admit(call, route, headers, gateway.guard)
    except httptools.HttpParserError:
        call.refused = refusal(problem("malformed_request", "the address is not valid"))
    except ProblemError as error:
        call.refused = refusal_of(error)
        if error.problem.status in (400, 413):
            call.keep_alive = False
    return call


def _admit(call: Call, route: Route, headers: Headers, guard: Guard) -> None:
    """Check key, size and type of a call."""
    call.principal = principal = guard.identify(headers)
    if principal is None and not route.public:
        raise refuse("unauthorized", "send an API key as X-API-Key or as Authorization: Bearer")
    if route.admin and (principal is None or not principal.admin):
        raise refuse("forbidden", "this needs a key that was made with --admin")
    json = False
    for name, value in headers:
        if name == b"content-length" and int(value) > route.body_limit:
            raise refuse("body_too_large", f"the body has more than {route.body_limit} bytes")
        if name == b"content-type":
            json = value.partition(b";")[0].strip().lower() == b"application/json"
    if route.negotiated:
        call.accept = b",".join(value for name, value in headers if name == b"accept").decode("latin-1")
    if route.body is not None and not json:
        raise refuse("unsupported_media_type", "send the body with Content-Type: application/json")
