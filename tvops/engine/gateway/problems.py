"""Errors as RFC 9457 problem details with stable codes."""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec

from tvops.engine.gateway.schemas import Problem
from tvops.engine.records import Reason

DOCUMENTATION = "/docs/errors#"

CODES: dict[str, tuple[int, str]] = {
    "malformed_request": (400, "The request is not valid HTTP"),
    "malformed_json": (400, "The body is not valid JSON"),
    "invalid_field": (422, "A field has a wrong type or value"),
    "unknown_field": (422, "A field is not known here"),
    "missing_field": (422, "A required field is missing"),
    "number_not_string": (422, "Prices and quantities have to be strings"),
    "invalid_parameter": (400, "A query parameter is wrong"),
    "invalid_price": (422, "The price is not one that the instrument can have"),
    "invalid_quantity": (422, "The quantity is not one that the instrument can have"),
    "unauthorized": (401, "An API key is needed"),
    "forbidden": (403, "This needs an admin key"),
    "origin_refused": (403, "This web origin may not use the gateway"),
    "host_refused": (421, "The Host header does not name this server"),
    "not_found": (404, "There is nothing at this address"),
    "order_not_found": (404, "There is no such order"),
    "order_not_open": (409, "The order is not open any more"),
    "symbol_not_found": (404, "There is no such instrument"),
    "method_not_allowed": (405, "This address does not take this method"),
    "request_timeout": (408, "The request did not arrive in time"),
    "body_too_large": (413, "The body is too large"),
    "url_too_long": (414, "The address is too long"),
    "unsupported_media_type": (415, "The body has to be application/json"),
    "rate_limited": (429, "Too many orders"),
    "headers_too_large": (431, "The headers are too large"),
    "internal_error": (500, "The gateway failed"),
    "not_ready": (503, "The engine is not ready"),
    "busy": (503, "Too many orders are waiting"),
    "ledger_unavailable": (503, "The ledger cannot be written"),
    "shutting_down": (503, "The gateway is shutting down"),
    "too_many_sessions": (503, "Too many sessions"),
    "too_many_connections": (503, "Too many connections"),
    "fate_unknown": (504, "No answer from the engine in time"),
}
"""What the gateway itself refuses: code -> HTTP status, title."""

REASON_TITLES: dict[Reason, str] = {
    Reason.UNKNOWN_INSTRUMENT: "The engine does not know the instrument",
    Reason.UNKNOWN_ACCOUNT: "The engine does not know the account",
    Reason.UNKNOWN_ORDER: "The order is not open, or not yours",
    Reason.BAD_SIDE: "The side is wrong",
    Reason.BAD_TYPE: "The order type is wrong",
    Reason.BAD_TIME_IN_FORCE: "The time in force does not fit the order",
    Reason.BAD_QUANTITY: "The quantity is out of range",
    Reason.BAD_PRICE: "The price is out of range",
    Reason.PRICE_BAND: "The price is outside the band of the instrument",
    Reason.COLLAR: "The price is too far from the last trade",
    Reason.MAX_ORDER_QUANTITY: "The order is larger than allowed",
    Reason.MAX_ORDER_NOTIONAL: "The value of the order is larger than allowed",
    Reason.MAX_POSITION: "The position could grow larger than allowed",
    Reason.MAX_OPEN_ORDERS: "Too many open orders",
    Reason.KILLED: "Trading of the account is stopped",
    Reason.HALTED: "Trading of the instrument is halted",
    Reason.POST_ONLY: "The order would have traded at once",
    Reason.NO_LIQUIDITY: "There is nothing to trade with",
    Reason.FILL_OR_KILL: "The order cannot be filled whole",
    Reason.SELF_TRADE: "The order would have traded with its own account",
    Reason.BOOK_FULL: "The book has no room for another order",
    Reason.USER: "Cancelled on request",
    Reason.MASS_CANCEL: "Cancelled by a mass cancel",
    Reason.IMMEDIATE_OR_CANCEL: "The rest was cancelled at once",
    Reason.NOTHING_TO_AMEND: "The change would change nothing",
    Reason.BAD_COMMAND: "The engine does not understand the command",
    Reason.EXISTS: "The instrument exists with another ladder",
}
"""What the engine refuses: the code is the name of the reason in lower case, the HTTP status 422."""

RETRY_AFTER = {"busy": 1, "not_ready": 1, "ledger_unavailable": 1, "shutting_down": 2, "too_many_sessions": 5}
"""Seconds after which a client may try again."""

_PATH = re.compile(r" - at `\$?\.?(.*?)`$", re.DOTALL)
_QUOTED = re.compile(r"`(.*?)`", re.DOTALL)
_DECIMAL_FIELDS = {"price", "quantity", "max_order_quantity", "max_order_notional", "max_position"}


def reason_name(reason: int) -> str:
    """Give the stable code of a Reason; also of one that this version does not know."""
    try:
        return Reason(reason).name.lower()
    except ValueError:
        return f"reason_{reason}"


def problem(code: str, detail: str, field: str | None = None) -> Problem:
    """Make the problem of one of `CODES`."""
    status, title = CODES[code]
    return Problem(type=DOCUMENTATION + code, title=title, status=status, detail=detail, code=code, field=field)


def rejection(reason: int, order_id: int = 0, client_order_id: str | None = None) -> Problem:
    """Make the problem of a command that the engine refused."""
    code = reason_name(reason)
    title = REASON_TITLES.get(Reason(reason), "Refused") if reason in Reason._value2member_map_ else "Refused"
    return Problem(
        type=DOCUMENTATION + code,
        title=title,
        status=HTTPStatus.UNPROCESSABLE_ENTITY.value,
        detail=f"{title}; the engine refused with {code}",
        code=code,
        order_id=str(order_id) if order_id else None,
        client_order_id=client_order_id,
    )


class ProblemError(Exception):
    """Ends the handling of a request with ``problem``; ``retry_after`` in seconds where it is worth it."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.retry_after = retry_after


def refuse(code: str, detail: str, field: str | None = None) -> ProblemError:
    """Make the exception that ends a request with the problem ``code``."""
    return ProblemError(problem(code, detail, field))


def decoding_problem(error: Exception) -> Problem:
    """Say in one sentence why a JSON body was refused by msgspec, naming the field."""
    text = str(error)
    if isinstance(error, RecursionError):
        return problem("malformed_json", "the body is nested too deeply")
    if not isinstance(error, msgspec.ValidationError):
        return problem("malformed_json", " ".join(text.split())[:200] or "the body is not JSON")
    found = _PATH.search(text)
    field = found.group(1)[:60] if found else None
    message = text[: found.start()] if found else text
    quoted = _QUOTED.search(message)
    if message.startswith("Object contains unknown field") and quoted:
        name = quoted.group(1)[:60]
        return problem("unknown_field", f"{name!r} is not a field here", name)
    if message.startswith("Object missing required field") and quoted:
        return problem("missing_field", f"{quoted.group(1)} is missing", quoted.group(1))
    if field and field.rpartition(".")[2] in _DECIMAL_FIELDS and message.endswith(("got `int`", "got `float`")):
        detail = f'{field}: send it as a string ("0.5"), because JSON numbers are not exact'
        return problem("number_not_string", detail, field)
    return problem("invalid_field", f"{field + ': ' if field else ''}{message[:200]}", field)
