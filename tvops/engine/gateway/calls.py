"""One API request on its way through the gateway, and its answer."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec

from tvops.engine.gateway.auth import Principal
from tvops.engine.gateway.problems import RETRY_AFTER, ProblemError, decoding_problem, problem, refuse
from tvops.engine.gateway.schemas import Problem, encode

if TYPE_CHECKING:
    from tvops.engine.gateway.routes import Route

T = TypeVar("T")

REPLAYED = b"idempotent-replayed: true\r\n"
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in http.HTTPStatus}
_MAX_PARAMETERS = 10


class Answer(NamedTuple):
    """What goes back: HTTP status, JSON body, further header lines."""

    status: int
    body: bytes
    headers: bytes = b""


def refusal(problem: Problem, retry_after: float | None = None) -> Answer:
    """Give a problem as an answer, with the headers that its status asks for."""
    headers = b""
    seconds = retry_after if retry_after is not None else RETRY_AFTER.get(problem.code)
    if seconds is not None:
        headers = b"retry-after: %d\r\n" % max(1, round(seconds + 0.5))
    elif problem.status == http.HTTPStatus.UNAUTHORIZED:
        headers = b"www-authenticate: Bearer\r\n"
    return Answer(problem.status, encode(problem), headers)


def refusal_of(error: ProblemError) -> Answer:
    """Give what ended a request as its answer."""
    return refusal(error.problem, error.retry_after)


class _NoEvent:
    def set(self) -> None:
        """Nobody waits."""


class Channel(Protocol):
    """Where the answers of calls go."""

    def finish(self, call: Call, answer: Answer) -> None:
        """Send the answer of ``call``, after those of the calls before it."""


class Call:
    """An API request. It stands where uvicorn's protocol has its `RequestResponseCycle`."""

    __slots__ = (
        "accept", "body", "channel", "cors", "disconnected", "head_only", "keep_alive", "limit", "message_event",
        "more_body", "output", "parameter", "principal", "query", "received", "refused", "response_complete",
        "route", "started",
    )  # fmt: skip

    def __init__(self, channel: Channel, route: Route | None, keep_alive: bool) -> None:
        self.channel = channel
        self.route = route
        self.parameter = b""
        self.query = b""
        self.principal: Principal | None = None
        self.refused: Answer | None = None  # known from the headers: answered as soon as it is its turn
        self.cors = b""
        self.accept = ""  # header, of routes that negotiate
        self.head_only = False
        self.received = 0  # monotonic ns
        self.limit = 0  # bytes of body
        self.started = False
        self.output: bytes | None = None
        # what uvicorn knows of a cycle
        self.body = bytearray()
        self.more_body = True
        self.message_event = _NO_EVENT
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = keep_alive

    @property
    def account(self) -> int:
        """The account that the call acts for."""
        assert self.principal is not None
        return self.principal.account

    def answer(self, answer: Answer) -> None:
        """Send the answer of this call."""
        self.channel.finish(self, answer)

    def name(self) -> str:
        """Give the variable part of the path."""
        try:
            return unquote(self.parameter.decode("ascii"), errors="strict")
        except UnicodeDecodeError:
            raise refuse("not_found", "the address is not valid UTF-8") from None

    def render(self, answer: Answer, common: bytes) -> bytes:
        """Write the whole HTTP response; ``common`` are the header lines that every response has."""
        status, body, headers = answer
        kind = b"application/json" if status < http.HTTPStatus.BAD_REQUEST else b"application/problem+json"
        kind_line = b"" if headers.startswith(b"content-type") else b"content-type: %b\r\n" % kind
        length = b"" if status == http.HTTPStatus.NO_CONTENT else b"content-length: %d\r\n" % len(body)
        close = b"" if self.keep_alive else b"connection: close\r\n"
        head = b"".join(
            (_STATUS_LINES[status], common, kind_line if body else b"", length, headers, self.cors, close, b"\r\n")
        )
        return head if self.head_only else head + body


_NO_EVENT = _NoEvent()


def decode_query(call: Call, kind: type[T]) -> T:
    """Give the query parameters as a ``kind`` (a Struct).

    Raises:
        ProblemError: an unknown, doubled or wrong parameter; names it.
    """
    if not call.query:
        return msgspec.convert({}, kind)
    try:
        pairs = parse_qsl(
            call.query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError as error:
        raise refuse("invalid_parameter", f"the query is not valid: {str(error)[:100]}") from None
    values = dict(pairs)
    if len(values) != len(pairs):
        raise refuse("invalid_parameter", "a parameter stands twice")
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        found = decoding_problem(error)
        raise refuse("invalid_parameter", found.detail, found.field) from None


def decode_body(body: bytes | bytearray, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a JSON body.

    Raises:
        ProblemError: it is malformed, or a field is wrong; names the field.
    """
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise ProblemError(decoding_problem(error)) from None


def internal_error() -> Problem:
    """Make the problem of a fault of the gateway itself; the log has the rest."""
    return problem("internal_error", "the gateway failed to handle this request; its log says why")
