"""Order entry: commands go to the sequencer, events come back as answers. HTTP and WebSocket share it."""

from __future__ import annotations

import logging
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tvops.engine.gateway import commands, views
from tvops.engine.gateway.calls import REPLAYED, Answer, internal_error, refusal, refusal_of
from tvops.engine.gateway.limits import RateLimiter
from tvops.engine.gateway.orders import LIVE, find_live_order
from tvops.engine.gateway.problems import ProblemError, problem, refuse, rejection
from tvops.engine.gateway.schemas import (
    AmendOrder,
    BatchItem,
    BatchResult,
    CommandResult,
    MassCancelResult,
    PlacedOrder,
    PlaceOrder,
    Problem,
    encode,
)
from tvops.engine.gateway.views import E, Row
from tvops.engine.ledger.sequencer import BusyError
from tvops.engine.records import EventKind, Reason
from tvops.engine.telemetry.recorder import Recorder, Window
from tvops.errors import LedgerError

if TYPE_CHECKING:
    from tvops.engine.ledger.service import EngineService

TIMEOUT_NS = 5_000_000_000
"""How long a client waits for an answer of the engine until it is told that the fate of its order is unknown."""

FATE_UNKNOWN = "it may or may not count; send an order again with the same client_order_id to learn its fate"

_EVENT = struct.Struct("<QqqQqqqIHBBH6x")
_SEQ, _ORDER, _QUANTITY, _KIND, _REASON = (E[n] for n in ("command_seq", "order_id", "quantity", "kind", "reason"))
_REJECTED, _DUPLICATE, _CANCELLED = EventKind.REJECTED.value, EventKind.DUPLICATE.value, EventKind.CANCELLED.value
_DONE = EventKind.DONE.value

Done = Callable[[Answer], None]
Complete = Callable[[list[Row]], Answer | None]

logger = logging.getLogger(__name__)


def event_rows(events: NDArray[Any]) -> list[Row]:
    """Give EVENT rows as tuples (without the reserved bytes)."""
    return list(_EVENT.iter_unpack(events.tobytes()))


class _Ticket:
    """A submitted request that waits for its events."""

    __slots__ = ("complete", "done", "entry", "received", "submitted")

    def __init__(self, entry: OrderEntry, complete: Complete, done: Done, received: int) -> None:
        self.entry = entry
        self.complete = complete
        self.done: Done | None = done
        self.received = received
        self.submitted = time.monotonic_ns()

    def reply(self, events: NDArray[Any]) -> None:
        done, self.done = self.done, None
        if done is None:
            self.entry.late += 1
            return
        try:
            if not len(events):
                raise refuse("fate_unknown", FATE_UNKNOWN)
            self.entry.written(self)
            answer = self.complete(event_rows(events))
        except ProblemError as error:
            answer = refusal_of(error)
        except Exception:
            logger.exception("the events of a command could not be answered")
            answer = refusal(internal_error())
        if answer is not None:
            done(answer)
        self.entry.finished(self)


class OrderEntry:
    """Places, amends and cancels orders; every method answers once, through ``done``, or raises ProblemError."""

    def __init__(self, engine: EngineService, limiter: RateLimiter) -> None:
        self._engine = engine
        self._table = engine.table
        self._limiter = limiter
        self._waiting: deque[_Ticket] = deque()
        self.open = False
        self.orders = 0  # new orders that were answered
        self.late = 0  # answers that came after their deadline
        self.timeouts = 0
        self.latency = Recorder()  # request received to reply written
        self.recent = Window(self.latency)  # the same, of late
        self.durable_latency = Recorder()  # received to on disk
        self.engine_latency = Recorder()  # submitted to events: durable and matched

    @property
    def waiting(self) -> int:
        """Requests that wait for the engine."""
        return sum(ticket.done is not None for ticket in self._waiting)

    def place(self, account: int, order: PlaceOrder, received: int, done: Done) -> None:
        """Place an order: 201 and the order, 200 and what it became where it is a repeat, or a problem."""
        packed = commands.new_order(self._table, account, order)

        def complete(events: list[Row]) -> Answer:
            self.orders += 1
            status, result = self._placed(account, order, events)
            if isinstance(result, Problem):
                answer = refusal(result)
                return answer if status else answer._replace(headers=REPLAYED)
            return Answer(status, encode(result), REPLAYED if status == 200 else b"")

        self._admit(account, 1)
        self._submit(packed, complete, received, done)

    def place_batch(self, account: int, orders: list[PlaceOrder | Problem], received: int, done: Done) -> None:
        """Place orders with one append; those that are problems already keep their place in the results."""
        items: list[BatchItem | None] = []
        packed, sent = [], []
        for order in orders:
            try:
                if isinstance(order, Problem):
                    raise ProblemError(order)
                packed.append(commands.new_order(self._table, account, order))
            except ProblemError as error:
                items.append(BatchItem(status=error.problem.status, problem=error.problem))
            else:
                sent.append((len(items), order))
                items.append(None)

        def complete(events: list[Row]) -> Answer:
            first = events[0][_SEQ]
            groups: list[list[Row]] = [[] for _ in sent]
            for event in events:
                groups[event[_SEQ] - first].append(event)
            self.orders += len(sent)
            for (index, order), group in zip(sent, groups, strict=True):
                items[index] = self._batch_item(account, order, group)
            return Answer(200, encode(BatchResult([item for item in items if item is not None])))

        if not sent:
            done(Answer(200, encode(BatchResult([item for item in items if item is not None]))))
            return
        self._admit(account, len(sent))
        self._submit(b"".join(packed), complete, received, done)

    def amend(self, account: int, name: str, change: AmendOrder, received: int, done: Done) -> None:
        """Change price and/or total quantity of a live order; answers the order as it then stands."""
        row = find_live_order(self._engine.orders, account, name)
        instrument = self._table[int(row["instrument"])]
        if change.price is None and change.quantity is None:
            raise refuse("missing_field", "price and quantity are both missing: nothing would change")
        price = commands.parse_price(instrument, change.price) if change.price is not None else 0
        if change.price is not None and not price:
            raise refuse("invalid_price", "price: has to be above 0", "price")
        total = commands.parse_quantity(instrument, change.quantity) if change.quantity is not None else 0
        remaining = total - int(row["filled"]) if change.quantity is not None else 0
        if change.quantity is not None and remaining <= 0:
            filled = instrument.quantity.format(int(row["filled"]))
            raise refuse(
                "invalid_quantity", f"quantity: {filled} is filled already; it has to be above that", "quantity"
            )
        order_id = int(row["order_id"])
        self._admit(account, 1)
        self._send_amend(account, instrument.index, order_id, (price, remaining, total), received, done)

    def _send_amend(
        self, account: int, instrument: int, order_id: int, change: tuple[int, int, int], received: int, done: Done
    ) -> None:
        price, remaining, total = change

        def complete(events: list[Row]) -> Answer | None:
            row = self._changed_order(events[0], order_id)
            # Fills between our look at the order and the amend's turn came on top: take them off again at once.
            excess = int(row["quantity"]) - total if total else 0
            still_open = int(row["quantity"]) - int(row["filled"])
            if excess <= 0 or row["status"] not in LIVE:
                return Answer(200, encode(views.order(self._table, row.item())))
            if still_open > excess:
                self._send_amend(account, instrument, order_id, (0, still_open - excess, total), received, done)
            else:
                self._send_cancel(account, instrument, order_id, received, done)
            return None

        self._submit(commands.amend(account, instrument, order_id, price, remaining), complete, received, done)

    def cancel(self, account: int, name: str, received: int, done: Done) -> None:
        """Cancel a live order; answers the order as it ended."""
        row = find_live_order(self._engine.orders, account, name)
        self._admit(account, 1)
        self._send_cancel(account, int(row["instrument"]), int(row["order_id"]), received, done)

    def _send_cancel(self, account: int, instrument: int, order_id: int, received: int, done: Done) -> None:
        def complete(events: list[Row]) -> Answer:
            return Answer(200, encode(views.order(self._table, self._changed_order(events[0], order_id).item())))

        self._submit(commands.cancel(account, instrument, order_id), complete, received, done)

    def _changed_order(self, event: Row, order_id: int) -> Any:
        """Give the row of an order that an AMEND or CANCEL, answered with ``event``, was for."""
        if event[_KIND] == _REJECTED:
            if event[_REASON] == Reason.UNKNOWN_ORDER:
                raise refuse("order_not_open", f"order {order_id}: it ended before the request arrived")
            raise ProblemError(rejection(event[_REASON], order_id))
        row = self._engine.orders.row(order_id)
        if row is None:
            raise refuse("order_not_found", f"order {order_id}: the request was done; it is not listed any more")
        return row

    def mass_cancel(self, account: int, symbol: str | None, side: str | None, received: int, done: Done) -> None:
        """Cancel the account's orders, narrowed by symbol and side."""
        instrument = commands.find_instrument(self._table, symbol).index if symbol is not None else None

        def complete(events: list[Row]) -> Answer:
            if events[0][_KIND] == _REJECTED:
                raise ProblemError(rejection(events[0][_REASON]))
            ids = [str(event[_ORDER]) for event in events if event[_KIND] == _CANCELLED]
            return Answer(200, encode(MassCancelResult(len(ids), ids)))

        self._admit(account, 1)
        self._submit(commands.mass_cancel(account, instrument, side), complete, received, done)

    def control(self, packed: bytes, received: int, done: Done) -> None:
        """Send SET_LIMIT, KILL or HALT commands; answers how many orders they ended."""

        def complete(events: list[Row]) -> Answer:
            ended = 0
            for event in events:
                if event[_KIND] == _REJECTED:
                    raise ProblemError(rejection(event[_REASON]))
                ended += event[_QUANTITY] if event[_KIND] == _DONE else 0
            return Answer(200, encode(CommandResult(ended)))

        self._submit(packed, complete, received, done)

    def written(self, ticket: _Ticket) -> None:
        """Count a request whose commands are on disk; called while the sequencer answers them."""
        self.durable_latency.record(self._engine.sequencer.durable_at - ticket.received)

    def finished(self, ticket: _Ticket) -> None:
        """Count an answered request, and forget those at the front that are answered."""
        now = time.monotonic_ns()
        self.latency.record(now - ticket.received)
        self.engine_latency.record(now - ticket.submitted)
        waiting = self._waiting
        while waiting and waiting[0].done is None:
            waiting.popleft()

    def expire(self, now: int) -> None:
        """Answer the requests whose deadline has passed at monotonic time ``now`` (ns)."""
        waiting = self._waiting
        while waiting and (waiting[0].done is None or waiting[0].submitted + TIMEOUT_NS <= now):
            ticket = waiting.popleft()
            done, ticket.done = ticket.done, None
            if done is not None:
                self.timeouts += 1
                self.latency.record(now - ticket.received)
                done(refusal(problem("fate_unknown", FATE_UNKNOWN)))

    def _admit(self, account: int, count: int) -> None:
        wait = self._limiter.admit(account, count, time.monotonic())
        if wait:
            detail = f"account {account}: more than {self._limiter.rate:g} commands per second; wait {wait:.2f} s"
            raise ProblemError(problem("rate_limited", detail), retry_after=wait)

    def _submit(self, packed: bytes, complete: Complete, received: int, done: Done) -> None:
        if not self.open:
            raise refuse("shutting_down", "the gateway takes no commands now; try again in a moment")
        if trouble := self._engine.ledger_trouble:
            detail = f"the ledger cannot be written: {trouble}; the command does not count, send it again"
            raise refuse("ledger_unavailable", detail)
        ticket = _Ticket(self, complete, done, received)
        self._waiting.append(ticket)
        try:
            self._engine.sequencer.submit(commands.rows(packed), ticket.reply)
        except LedgerError as error:
            ticket.done = None
            code = "busy" if isinstance(error, BusyError) else "ledger_unavailable"
            raise refuse(code, f"{error}; the command does not count, send it again") from None

    def _placed(self, account: int, order: PlaceOrder, events: list[Row]) -> tuple[int, PlacedOrder | Problem]:
        """Give HTTP status and result of a NEW; status 0 with a problem: it is that of the first try."""
        first = events[0]
        kind, reason, order_id = first[_KIND], first[_REASON], first[_ORDER]
        if kind == _REJECTED:
            return 422, rejection(reason, order_id, order.client_order_id)
        if kind == _DUPLICATE:
            if reason:
                return 0, rejection(reason, order_id, order.client_order_id)
            return 200, self._replayed(account, order, order_id)
        return 201, views.placed_order(commands.find_instrument(self._table, order.symbol), order, events)

    def _replayed(self, account: int, order: PlaceOrder, order_id: int) -> PlacedOrder:
        """Give an order that was placed before as it stands, with what it traded, as far as that is listed."""
        row = self._engine.orders.row(order_id)
        if row is None:
            return views.unlisted_order(order, order_id)
        fills = self._engine.orders.executions(account, int(row["instrument"]), limit=1000)
        own = views.executions(self._table, fills[fills["order_id"] == order_id][::-1])
        return PlacedOrder(**views.order_fields(self._table, row.item()), fills=own)

    def _batch_item(self, account: int, order: PlaceOrder, events: list[Row]) -> BatchItem:
        status, result = self._placed(account, order, events)
        if isinstance(result, Problem):
            return BatchItem(status=result.status, problem=result, replayed=status == 0)
        return BatchItem(status=status, order=result, replayed=status == 200)
