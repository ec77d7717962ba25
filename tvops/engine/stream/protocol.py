"""The control messages of the WebSocket: what clients ask, checked, and the answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeAlias

import msgspec

from tvops.engine.instruments import Instrument, InstrumentTable
from tvops.engine.stream.frames import Opcode, message
from tvops.engine.stream.history import BAR_CAPACITY, DEPTHS, INTERVALS, Channel, Encoding, Topic, Topics

VERSION = 1
MAX_MESSAGE_BYTES = 16 * 1024
MAX_SUBSCRIPTIONS = 512
MAX_TRADE_HISTORY = 1000
MAX_HISTORY_ROWS = 5000
"""Rows of history that one request can ask for, over all its symbols."""

_DEFAULT_HISTORY = {Channel.TRADES: 50, Channel.BARS: 300}

Identifier: TypeAlias = (
    Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | Annotated[str, msgspec.Meta(max_length=64)]
)


class ProtocolError(Exception):
    """A request cannot be served; told to the client by its stable code and one sentence."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Request(msgspec.Struct, tag_field="op", tag=str.lower, forbid_unknown_fields=True, kw_only=True):
    id: Identifier | None = None


class Auth(_Request, kw_only=True):
    """Present an API key."""

    key: str


class Ping(_Request):
    """Ask for an answer."""


class _Selection(_Request, kw_only=True):
    channel: str
    interval: str | None = None
    depth: int | None = None


class Subscribe(_Selection, kw_only=True):
    """Ask for the present state and what follows."""

    symbols: list[str] | str
    encoding: str = "json"
    history: int | None = None


class Resume(_Selection, kw_only=True):
    """Ask for what came after the given numbers, and what follows."""

    symbols: dict[str, int]
    epoch: int
    encoding: str = "json"
    history: int | None = None


class Unsubscribe(_Selection, kw_only=True):
    """Ask for no more of it."""

    symbols: list[str] | str


Request: TypeAlias = Auth | Ping | Subscribe | Resume | Unsubscribe
_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_encoder = msgspec.json.Encoder()


class _Envelope(msgspec.Struct):
    id: Identifier | None = None


_id_decoder = msgspec.json.Decoder(_Envelope)


def decode(payload: bytes) -> Request:
    """Read a control message.

    Raises:
        ProtocolError: it is not UTF-8, not JSON, or has a wrong field.
    """
    try:
        return _decoder.decode(payload.decode())
    except UnicodeError:
        raise ProtocolError("bad_message", "the message is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise ProtocolError("bad_message", str(error)[:200]) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError("bad_message", f"the message is not JSON: {str(error)[:200]}") from None


def identifier(payload: bytes) -> Identifier | None:
    """Give the id of a message that could not be read, if there is one to be found."""
    try:
        return _id_decoder.decode(payload).id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def reply(op: str, identifier: Identifier | None = None, **fields: Any) -> bytes:
    """Give an answer as a WebSocket message."""
    answer: dict[str, Any] = {"op": op}
    if identifier is not None:
        answer["id"] = identifier
    return message(Opcode.TEXT, _encoder.encode(answer | fields))


def welcome(epoch: int, instruments: Iterable[Instrument], key_required: bool) -> bytes:
    """Give the first message of every session."""
    symbols = [
        {"symbol": i.symbol, "index": i.index, "tick_size": i.price.text, "lot_size": i.quantity.text}
        for i in instruments
    ]
    return reply("welcome", version=VERSION, epoch=epoch, key_required=key_required, symbols=symbols)


class Catalogue:
    """What can be asked for: the instruments that are carried, and their topics."""

    def __init__(self, table: InstrumentTable, carried: tuple[str, ...], topics: Topics) -> None:
        self._table = table
        self._topics = topics
        self.instruments = [i for i in table.all if not carried or i.symbol in carried]
        self._symbols = {i.symbol for i in self.instruments}

    def topics(self, request: Subscribe | Resume | Unsubscribe) -> list[Topic]:
        """Give the topics that ``request`` names.

        Raises:
            ProtocolError: it names something that there is not.
        """
        channel = _channel(request.channel)
        interval = _interval(channel, request.interval)
        depth = _depth(channel, request.depth)
        return [
            self._topics.find(channel, self._table.by_symbol[symbol].index, interval, depth)
            for symbol in self._checked(request.symbols)
        ]

    def symbol(self, topic: Topic) -> str:
        """Give the symbol that ``topic`` is about."""
        return self._table[topic.instrument].symbol

    def _checked(self, symbols: list[str] | str | dict[str, int]) -> list[str]:
        if symbols == "*":
            return [i.symbol for i in self.instruments]
        if isinstance(symbols, str):
            raise ProtocolError("unknown_symbol", f'symbols: {symbols[:40]!r} is neither a list nor "*"')
        if not symbols:
            raise ProtocolError("unknown_symbol", "symbols: the list is empty; name at least one")
        for symbol in symbols:
            if symbol not in self._symbols:
                known = ", ".join(i.symbol for i in self.instruments)
                raise ProtocolError(
                    "unknown_symbol", f"symbols: {symbol[:40]!r} is not carried; choose from {known}"
                )
        return list(dict.fromkeys(symbols))


def encoding_of(request: Subscribe | Resume) -> Encoding:
    """Give the encoding that ``request`` asks for."""
    if request.encoding not in ("json", "binary"):
        raise ProtocolError("bad_encoding", f"encoding: {request.encoding[:40]!r} is unknown; use json or binary")
    return Encoding.BINARY if request.encoding == "binary" else Encoding.JSON


def history_of(request: Subscribe | Resume, topics: list[Topic]) -> int:
    """Give how many rows of the past ``request`` asks for, per topic."""
    topic, history = topics[0], request.history
    default = _DEFAULT_HISTORY.get(topic.channel)
    if default is None:
        if history is not None:
            raise ProtocolError("bad_history", f"history: {topic.channel} has none; leave it out")
        return 0
    if history is None:
        return min(default, MAX_HISTORY_ROWS // len(topics))
    most = BAR_CAPACITY[topic.interval] if topic.channel is Channel.BARS else MAX_TRADE_HISTORY
    if not 0 <= history <= most:
        raise ProtocolError("bad_history", f"history: {_shown(history)} is not between 0 and {most}")
    if history * len(topics) > MAX_HISTORY_ROWS:
        raise ProtocolError(
            "bad_history",
            f"history: {history} rows of {len(topics)} symbols are more than {MAX_HISTORY_ROWS}; ask for fewer",
        )
    return history


def described(request: Subscribe | Resume | Unsubscribe, symbols: Any) -> dict[str, Any]:
    """Give the fields that an answer to ``request`` repeats."""
    fields: dict[str, Any] = {"channel": request.channel, "symbols": symbols}
    if request.channel == "bars":
        fields["interval"] = request.interval or "1m"
    if request.depth is not None:
        fields["depth"] = request.depth
    if not isinstance(request, Unsubscribe):
        fields["encoding"] = request.encoding
    return fields


def _channel(name: str) -> Channel:
    try:
        return Channel(name)
    except ValueError:
        text = f"channel: {name[:40]!r} is unknown; choose from {', '.join(Channel)}"
        raise ProtocolError("unknown_channel", text) from None


def _interval(channel: Channel, name: str | None) -> int:
    if channel is not Channel.BARS:
        if name is not None:
            raise ProtocolError("bad_interval", f"interval: {channel} has none; leave it out")
        return 0
    seconds = INTERVALS.get(name or "1m")
    if seconds is None:
        choices = " or ".join(INTERVALS)
        raise ProtocolError("bad_interval", f"interval: {str(name)[:40]!r} is unknown; use {choices}")
    return seconds


def _depth(channel: Channel, depth: int | None) -> int:
    if depth is None:
        return 0
    if channel is not Channel.BOOK:
        raise ProtocolError("bad_depth", f"depth: {channel} has none; leave it out")
    if depth not in DEPTHS:
        choices = ", ".join(map(str, DEPTHS))
        text = f"depth: {_shown(depth)} is not offered; choose from {choices}, or leave it out"
        raise ProtocolError("bad_depth", text)
    return depth


def _shown(number: int) -> str:
    return str(number) if abs(number) < 1 << 63 else "such a number"
