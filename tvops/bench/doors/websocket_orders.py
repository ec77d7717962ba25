"""Orders over WebSocket sessions of the gateway; a session has any number of requests under way."""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import Annotated, Any, ClassVar

import msgspec
import picows

from tvops.bench.addresses import address_of
from tvops.bench.doors.base import RequestDoor
from tvops.bench.doors.order_flow import AMEND, CANCEL, NAMES, RESTING, USUAL, Mix, OrderFlow, Resting
from tvops.bench.doors.rest_orders import find_symbol
from tvops.bench.doors.taking_back import TakingBack
from tvops.bench.plan import Plan, Traces
from tvops.bench.samples import LOST, Samples
from tvops.daemon_thread import aside
from tvops.errors import ServerError


class SessionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How orders are sent."""

    symbol: str = "ETH-USDT"
    mix: Mix = USUAL
    resting: Resting = RESTING  # at a time, of each process; a new order beyond that becomes a cancel
    sessions: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4


class Answer(msgspec.Struct, gc=False):
    """What there is to know of an answer; ids below 0 are those of requests that take orders back."""

    id: int
    ok: bool
    status: Annotated[int, msgspec.Meta(ge=100, le=999)] = 200


_ANSWER: Any = msgspec.json.Decoder(Answer)


class Session(picows.WSListener):
    """One session."""

    def __init__(self, door: WebsocketOrders) -> None:
        self.door = door
        self.in_flight: set[int] = set()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Begin."""
        self.transport = transport

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Tell the door."""
        self.door.on_lost(self)

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take in an answer."""
        if frame.msg_type == picows.WSMsgType.TEXT:
            try:
                answer = _ANSWER.decode(frame.get_payload_as_memoryview())
            except msgspec.DecodeError:
                transport.disconnect(graceful=False)
            else:
                self.door.on_answer(self, answer)
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.disconnect(graceful=False)


class WebsocketOrders(RequestDoor):
    """place, amend and cancel over sessions."""

    name: ClassVar[str] = "websocket_orders"
    target: ClassVar[str] = "gateway"
    options_type: ClassVar[type[msgspec.Struct]] = SessionOptions
    operation_names: ClassVar[tuple[str, ...]] = NAMES

    options: SessionOptions

    def __init__(self, plan: Plan, options: SessionOptions, samples: Samples) -> None:
        super().__init__(plan, options, samples)
        self.flow = OrderFlow(options.mix, plan.seed, len(samples.intended), options.resting)
        self.sessions: list[Session] = []
        self.turn = 0
        self.taking_back: TakingBack | None = None

    async def open(self) -> None:
        """Connect, and ask for the instrument."""
        symbol = await aside("symbols", find_symbol, self.plan.url, self.options.symbol, self.api_key)
        self.flow.use(symbol)
        await asyncio.gather(*(self.connect() for _ in range(self.options.sessions)))

    @property
    def traces(self) -> Traces | None:
        """The orders that rest at a time."""
        return self.flow.traces(self.plan.url) if self.plan.clean_up else None

    @property
    def places(self) -> int:
        """One request under way in each session."""
        return self.options.sessions

    async def connect(self) -> None:
        """Open one session."""
        headers = {"X-API-Key": self.api_key} if self.api_key else None
        try:
            _, session = await picows.ws_connect(
                lambda: Session(self), address_of(self.plan.url).websocket, extra_headers=headers
            )
        except (OSError, picows.WSError) as error:
            raise ServerError(f"{self.plan.url}/ws: {error or 'does not answer'}") from None
        assert isinstance(session, Session)
        self.sessions.append(session)

    def send(self, number: int) -> None:
        """Send a request by the next session."""
        kind = self.flow.choose(number)
        self.samples.kind[number] = kind
        if not self.sessions:
            self.flow.unsent(number)
            self.refuse(number)
            return
        request = self.request(number, kind)
        self.samples.sent[number] = monotonic_ns()
        self._send(number, request)

    def _send(self, number: int, request: bytes) -> None:
        self.turn += 1
        session = self.sessions[self.turn % len(self.sessions)]
        session.in_flight.add(number)
        session.transport.send(picows.WSMsgType.TEXT, request)

    def request(self, number: int, kind: int) -> bytes:
        """Give the text of a request."""
        order = self.flow.about(number).encode()
        if kind == CANCEL:
            return self.cancellation(number, order)
        if kind == AMEND:
            price = self.flow.price(number, kind).encode()
            return b'{"op":"amend","id":%d,"order_id":"client:%b","price":"%b"}' % (number, order, price)
        return b'{"op":"place","id":%d,"order":%b}' % (number, self.flow.order(number, kind))

    @staticmethod
    def cancellation(number: int, order: bytes) -> bytes:
        """Give the text of the request that cancels an order, by its client id."""
        return b'{"op":"cancel","id":%d,"order_id":"client:%b"}' % (number, order)

    def on_answer(self, session: Session, answer: Answer) -> None:
        """Take an answer."""
        if answer.id not in session.in_flight:
            return
        session.in_flight.discard(answer.id)
        if answer.id >= 0:
            self.flow.settled(answer.id, self.samples.kind[answer.id], answer.status)
            self.settle(answer.id, answer.status, answer.ok)
        elif self.taking_back is not None:
            self.taking_back.answered(answer.id, answer.status)

    def on_lost(self, session: Session) -> None:
        """Fail what was under way, and connect again."""
        for number in session.in_flight:
            if number >= 0:
                self.flow.doubt(number)
                self.settle(number, LOST, False)
            elif self.taking_back is not None:
                self.taking_back.lost(number)
        session.in_flight.clear()
        if session in self.sessions:
            self.sessions.remove(session)
        self.connect_again()

    async def close(self) -> None:
        """Cancel the orders that rest, and disconnect."""
        if self.plan.clean_up:
            await self._take_back()
        self.stop_connecting()
        for session in list(self.sessions):
            session.transport.disconnect(graceful=False)

    async def _take_back(self) -> None:
        for session in self.sessions:
            for number in session.in_flight:
                self.flow.doubt(number)
        self.taking_back = TakingBack(self.flow.leftovers(), self._cancel, lambda: self.pending > 0)
        if left := await self.taking_back.carry_out(lambda: bool(self.sessions), lambda: self.close_by):
            self.left = self.flow.traces(self.plan.url, left)

    def _cancel(self, number: int, order: str) -> None:
        self._send(number, self.cancellation(number, order.encode()))
