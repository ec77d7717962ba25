"""The private stream of every account: its order, fill and position events, numbered, with a bounded past."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct
from numpy.typing import NDArray

from tvops.engine.gateway import views
from tvops.engine.gateway.entry import event_rows
from tvops.engine.gateway.orders import LIVE
from tvops.engine.gateway.schemas import Fill, Order, Position, encode
from tvops.engine.gateway.views import E, Row
from tvops.engine.instruments import InstrumentTable
from tvops.engine.records import FIRST_USER_ACCOUNT, EventKind, Kind

if TYPE_CHECKING:
    from tvops.engine.projections.orders import OrderTable

KEPT_EVENTS = 2048
"""Events of an account from which a session can resume."""

KEPT_SECONDS = 600.0
"""How long the stream of an account goes on after its last session has left."""

MAX_SNAPSHOT_ORDERS = 10_000

_SEQ, _ORDER, _ACCOUNT, _INSTRUMENT, _KIND = (
    E[name] for name in ("command_seq", "order_id", "account", "instrument", "kind")
)
_MAKER, _TAKER = EventKind.MAKER_FILL.value, EventKind.TAKER_FILL.value
_REJECTED = EventKind.REJECTED.value
_EVENTS = {
    EventKind.ACCEPTED.value: "accepted",
    _REJECTED: "rejected",
    EventKind.CANCELLED.value: "cancelled",
    EventKind.AMENDED.value: "amended",
}


class OrderEvent(Struct, frozen=True, gc=False, tag_field="type", tag="order"):
    """Something happened to an order; `order` is how it stands after all of that moment."""

    seq: int
    event: str
    order: Order | None


class FillEvent(Struct, frozen=True, gc=False, tag_field="type", tag="fill"):
    """An order traded."""

    seq: int
    fill: Fill
    order: Order | None


class PositionEvent(Struct, frozen=True, gc=False, tag_field="type", tag="position"):
    """A position changed."""

    seq: int
    position: Position


class Snapshot(Struct, frozen=True, tag_field="type", tag="snapshot"):
    """All that is live, at one point of the stream."""

    id: int | str | None
    epoch: str
    seq: int
    recovered: bool
    orders: list[Order]
    positions: list[Position]


class Resumed(Struct, frozen=True, tag_field="type", tag="resumed"):
    """What was missed follows."""

    id: int | str | None
    epoch: str
    seq: int
    recovered: bool


class Listener(Protocol):
    """A session, as the streams see it."""

    def push(self, messages: list[bytes]) -> None:
        """Send messages of the private stream."""


class Stream:
    """The numbered events of one account."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.kept: deque[bytes] = deque(maxlen=KEPT_EVENTS)
        self.listeners: set[Listener] = set()
        self.left = 0.0  # monotonic seconds when the last session left


class PrivateStreams:
    """Makes the streams of the accounts that have sessions, or had some a short while ago."""

    def __init__(
        self, table: InstrumentTable, orders: OrderTable, positions: Callable[[int], list[Position]]
    ) -> None:
        self.epoch = secrets.token_hex(8)
        self._table = table
        self._orders = orders
        self._positions = positions
        self._streams: dict[int, Stream] = {}
        self._ended: dict[int, int] = {}  # account -> where its next stream begins, above what anybody has seen

    def subscribe(
        self, listener: Listener, account: int, request_id: int | str | None, epoch: str | None, seq: int | None
    ) -> None:
        """Let ``listener`` follow: from behind ``seq`` where that is still kept, else from a snapshot."""
        stream = self._streams.get(account)
        if stream is None:
            stream = self._streams[account] = Stream(self._ended.pop(account, 0))
        missed = stream.seq - seq if seq is not None else -1
        if epoch == self.epoch and 0 <= missed <= len(stream.kept):
            first = encode(Resumed(request_id, self.epoch, seq or 0, True))
            past = list(stream.kept)[len(stream.kept) - missed :]
            messages = [first, *past]
        else:
            rows = self._orders.select(account, status=LIVE, limit=MAX_SNAPSHOT_ORDERS)
            orders = views.orders(self._table, rows)
            messages = [
                encode(Snapshot(request_id, self.epoch, stream.seq, False, orders, self._positions(account)))
            ]
        stream.listeners.add(listener)
        listener.push(messages)

    def unsubscribe(self, listener: Listener, account: int) -> None:
        """Let ``listener`` follow no more."""
        stream = self._streams.get(account)
        if stream is not None:
            stream.listeners.discard(listener)
            stream.left = time.monotonic()

    def forget_idle(self, now: float) -> None:
        """End the streams that nobody has followed for `KEPT_SECONDS` at monotonic time ``now``."""
        for account in [a for a, s in self._streams.items() if not s.listeners and now - s.left > KEPT_SECONDS]:
            self._ended[account] = self._streams.pop(account).seq + 1

    def publish(self, commands: NDArray[Any], events: NDArray[Any]) -> None:
        """Turn a batch of the engine into events of the accounts that are followed."""
        if not self._streams:
            return
        users = events[events["account"] >= FIRST_USER_ACCOUNT]
        if not len(users):
            return
        by_account: dict[int, list[Row]] = {}
        for event in event_rows(users):
            if event[_ACCOUNT] in self._streams:
                by_account.setdefault(event[_ACCOUNT], []).append(event)
        for account, rows in by_account.items():
            self._publish(account, self._streams[account], rows, commands)

    def _publish(self, account: int, stream: Stream, rows: list[Row], commands: NDArray[Any]) -> None:
        messages: list[bytes] = []
        orders: dict[int, Order | None] = {}
        traded: set[int] = set()
        first = int(commands["seq"][0])
        for row in rows:
            kind, order_id = row[_KIND], row[_ORDER]
            fill = kind in (_MAKER, _TAKER)
            name = _EVENTS.get(kind)
            if not fill and name is None:
                continue
            if kind == _REJECTED and commands["kind"][row[_SEQ] - first] != Kind.NEW:
                continue
            if order_id not in orders:
                found = self._orders.row(order_id)
                orders[order_id] = None if found is None else views.order(self._table, found.item())
            stream.seq += 1
            if fill:
                traded.add(row[_INSTRUMENT])
                shown = views.fill(self._table[row[_INSTRUMENT]], row)
                messages.append(encode(FillEvent(stream.seq, shown, orders[order_id])))
            else:
                messages.append(encode(OrderEvent(stream.seq, name or "", orders[order_id])))
        if traded:
            symbols = {self._table[index].symbol for index in traded}
            for position in self._positions(account):
                if position.symbol in symbols:
                    stream.seq += 1
                    messages.append(encode(PositionEvent(stream.seq, position)))
        stream.kept.extend(messages)
        for listener in list(stream.listeners):
            listener.push(messages)
