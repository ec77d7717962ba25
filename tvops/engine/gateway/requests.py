"""Messages of the WebSocket: requests decoded, answers written."""

from __future__ import annotations

import time
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct

from tvops.engine.gateway.auth import Principal
from tvops.engine.gateway.calls import REPLAYED, Answer
from tvops.engine.gateway.problems import ProblemError, decoding_problem
from tvops.engine.gateway.schemas import AmendOrder, Decimal, PlaceOrder, Side, Symbol
from tvops.engine.gateway.times import format_time

Identifier: TypeAlias = Annotated[int, Meta(ge=-(2**53), le=2**53)] | Annotated[str, Meta(max_length=64)] | None
Name = Annotated[str, Meta(min_length=1, max_length=48)]


class _Request(Struct, frozen=True, tag_field="op", forbid_unknown_fields=True, kw_only=True):
    id: Identifier = None


class Auth(_Request, frozen=True, tag="auth"):
    """Present an API key."""

    key: Annotated[str, Meta(max_length=200)]


class Place(_Request, frozen=True, tag="place"):
    """Place an order."""

    order: PlaceOrder


class Amend(_Request, frozen=True, tag="amend"):
    """Change an order."""

    order_id: Name
    price: Decimal | None = None
    quantity: Decimal | None = None


class Cancel(_Request, frozen=True, tag="cancel"):
    """Cancel an order."""

    order_id: Name


class MassCancel(_Request, frozen=True, tag="mass_cancel"):
    """Cancel all orders, narrowed by symbol and side."""

    symbol: Symbol | None = None
    side: Side | None = None


class Subscribe(_Request, frozen=True, tag="subscribe"):
    """Follow the private stream, from behind `seq` of `epoch` where that is still kept."""

    epoch: Annotated[str, Meta(max_length=64)] | None = None
    seq: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class Unsubscribe(_Request, frozen=True, tag="unsubscribe"):
    """Follow it no more."""


class Ping(_Request, frozen=True, tag="ping"):
    """Ask for a sign of life."""


Request: TypeAlias = Auth | Place | Amend | Cancel | MassCancel | Subscribe | Unsubscribe | Ping


class _Envelope(Struct, frozen=True):
    op: Annotated[str, Meta(max_length=32)] | None = None
    id: Identifier = None


class _Reply(Struct, frozen=True, omit_defaults=True):
    op: str | None
    id: Identifier
    ok: bool
    status: int = 0
    replayed: bool = False
    result: Any = None
    error: Any = None


_DECODER: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_ENCODER = msgspec.json.Encoder()


def decode(payload: bytes) -> Request:
    """Decode a request.

    Raises:
        ProblemError: it is none; names the field.
    """
    try:
        return _DECODER.decode(payload)
    except (ValueError, RecursionError) as error:
        raise ProblemError(decoding_problem(error)) from None


def envelope(payload: bytes) -> tuple[str | None, Identifier]:
    """Give `op` and `id` of a message that is no request, as far as it has them."""
    try:
        found = _ENVELOPE.decode(payload)
    except (ValueError, RecursionError):
        return None, None
    return found.op, found.id


def name(request: Request) -> str:
    """Give the `op` of a request."""
    return str(request.__struct_config__.tag)


def amendment(request: Amend) -> AmendOrder:
    """Give what an `amend` changes."""
    return AmendOrder(request.price, request.quantity)


def reply(op: str, identifier: Identifier, result: Any = None) -> bytes:
    """Write the answer to a request that went well."""
    return _ENCODER.encode(_Reply(op, identifier, True, result=result))


def answered(op: str | None, identifier: Identifier, answer: Answer) -> bytes:
    """Write an answer of order entry."""
    body = msgspec.Raw(answer.body)
    replayed = answer.headers == REPLAYED
    if answer.status < 400:
        return _ENCODER.encode(_Reply(op, identifier, True, answer.status, replayed, result=body))
    return _ENCODER.encode(_Reply(op, identifier, False, answer.status, replayed, error=body))


def pong() -> dict[str, str]:
    """Give the result of a `ping`."""
    return {"time": format_time(time.time_ns())}


def identity(principal: Principal) -> dict[str, Any]:
    """Give the result of an `auth`."""
    return {"account": principal.account, "name": principal.name, "admin": principal.admin}
