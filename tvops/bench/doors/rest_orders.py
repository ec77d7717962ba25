"""Orders over HTTP: kept connections, each with so many requests under way."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic_ns
from typing import Annotated, Any, ClassVar

import msgspec

from tvops.bench.addresses import address_of, fetch_json
from tvops.bench.doors.base import RequestDoor
from tvops.bench.doors.order_flow import AMEND, CANCEL, NAMES, RESTING, USUAL, Mix, OrderFlow, Resting, Symbol
from tvops.bench.doors.taking_back import TakingBack
from tvops.bench.plan import Plan, Traces
from tvops.bench.samples import GARBAGE, LOST, Samples
from tvops.daemon_thread import aside
from tvops.errors import ServerError, UsageError

_MAX_ANSWER = 1 << 20


class OrderOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How orders are sent."""

    symbol: str = "ETH-USDT"
    mix: Mix = USUAL
    resting: Resting = RESTING  # at a time, of each process; a new order beyond that becomes a cancel
    connections: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 16
    depth: Annotated[int, msgspec.Meta(ge=1, le=128)] = 1  # requests under way on each connection


def find_symbol(url: str, name: str, api_key: str) -> Symbol:
    """Ask the stack for an instrument; raise UsageError where it has none of that name."""
    try:
        known = msgspec.convert(fetch_json(url, "/v1/symbols", api_key), dict[str, list[Symbol]])["symbols"]
    except (msgspec.ValidationError, KeyError):
        raise ServerError(f"{url}/v1/symbols: is no list of instruments; is that an order gateway?") from None
    for symbol in known:
        if symbol.symbol == name:
            return symbol
    raise UsageError(f"symbol: {name!r} is not traded at {url}; choose from {', '.join(s.symbol for s in known)}")


class Connection(asyncio.Protocol):
    """One kept connection; answers come in the order of the requests."""

    def __init__(self, door: RestOrders) -> None:
        self.door = door
        self.in_flight: deque[int] = deque()
        self.buffer = b""
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport: Any = transport
        self.open = True

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the door."""
        self.open = False
        self.door.on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Take in answers."""
        buffer = self.buffer + data if self.buffer else data
        while (head := buffer.find(b"\r\n\r\n")) >= 0:
            at = buffer.find(b"content-length: ", 0, head)
            try:
                status = int(buffer[9:12])
                length = int(buffer[at + 16 : buffer.index(b"\r", at)]) if at >= 0 else _MAX_ANSWER + 1
            except ValueError:
                length = _MAX_ANSWER + 1
            if length > _MAX_ANSWER or not self.in_flight:
                self.buffer = b""
                self.door.on_garbage(self)
                return
            end = head + 4 + length
            if len(buffer) < end:
                break
            buffer = buffer[end:]
            self.door.on_answer(self, self.in_flight.popleft(), status)
        self.buffer = buffer
        if len(buffer) > _MAX_ANSWER:
            self.door.on_garbage(self)


class RestOrders(RequestDoor):
    """POST, PATCH and DELETE of orders."""

    name: ClassVar[str] = "rest_orders"
    target: ClassVar[str] = "gateway"
    options_type: ClassVar[type[msgspec.Struct]] = OrderOptions
    operation_names: ClassVar[tuple[str, ...]] = NAMES

    options: OrderOptions

    def __init__(self, plan: Plan, options: OrderOptions, samples: Samples) -> None:
        super().__init__(plan, options, samples)
        self.flow = OrderFlow(options.mix, plan.seed, len(samples.intended), options.resting)
        self.address = address_of(plan.url)
        self.free: deque[Connection] = deque()  # each as often as it can take another request
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.connections: set[Connection] = set()
        self.taking_back: TakingBack | None = None  # whose requests have numbers below 0 and are not measured
        key = f"X-API-Key: {self.api_key}\r\n" if self.api_key else ""
        self.headers = f"Host: {self.address.netloc}\r\n{key}".encode()

    async def open(self) -> None:
        """Connect, and ask for the instrument."""
        symbol = await aside("symbols", find_symbol, self.plan.url, self.options.symbol, self.api_key)
        self.flow.use(symbol)
        self.place_head = b"POST /v1/orders HTTP/1.1\r\n%bContent-Type: application/json\r\n" % self.headers
        try:
            await asyncio.gather(*(self.connect() for _ in range(self.options.connections)))
        except OSError as error:
            raise ServerError(f"{self.plan.url}: {error.strerror or error}") from None

    @property
    def traces(self) -> Traces | None:
        """The orders that rest at a time."""
        return self.flow.traces(self.plan.url) if self.plan.clean_up else None

    @property
    def places(self) -> int:
        """How many requests can be under way."""
        return self.options.connections * self.options.depth

    async def connect(self) -> None:
        """Make one connection."""
        address, loop = self.address, asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self), address.host, address.port, ssl=address.secure or None
        )
        self.connections.add(connection)
        self.free.extend([connection] * self.options.depth)
        self._send_waiting()

    def send(self, number: int) -> None:
        """Send a request by a connection that is free, or queue it for the next one."""
        kind = self.flow.choose(number)
        self.samples.kind[number] = kind
        if not self.connections:
            self.flow.unsent(number)
            self.refuse(number)
            return
        request = self.request(number, kind)
        if self.free:
            self._write(self.free.popleft(), number, request)
        else:
            self.waiting.append((number, request))

    def request(self, number: int, kind: int) -> bytes:
        """Give the bytes of a request."""
        order = self.flow.about(number).encode()
        if kind == CANCEL:
            return self.cancellation(order)
        if kind == AMEND:
            head = b"PATCH /v1/orders/client:%b HTTP/1.1\r\n%bContent-Type: application/json\r\n" % (
                order, self.headers,
            )  # fmt: skip
            body = b'{"price":"%b"}' % self.flow.price(number, kind).encode()
        else:
            head = self.place_head
            body = self.flow.order(number, kind)
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)

    def cancellation(self, order: bytes) -> bytes:
        """Give the bytes of the request that cancels an order, by its client id."""
        return b"DELETE /v1/orders/client:%b HTTP/1.1\r\n%b\r\n" % (order, self.headers)

    def _write(self, connection: Connection, number: int, request: bytes) -> None:
        connection.in_flight.append(number)
        if number >= 0:
            self.samples.sent[number] = monotonic_ns()
        connection.transport.write(request)

    def _send_waiting(self) -> None:
        while self.waiting and self.free:
            self._write(self.free.popleft(), *self.waiting.popleft())

    def on_answer(self, connection: Connection, number: int, status: int) -> None:
        """Take an answer."""
        if number >= 0:
            self.flow.settled(number, self.samples.kind[number], status)
            self.settle(number, status, status < 300)
        elif self.taking_back is not None:
            self.taking_back.answered(number, status)
        if self.waiting:
            self._write(connection, *self.waiting.popleft())
        else:
            self.free.append(connection)

    def on_garbage(self, connection: Connection) -> None:
        """End a connection that does not speak HTTP as it should."""
        self._fail(connection, GARBAGE)
        connection.transport.abort()

    def on_lost(self, connection: Connection) -> None:
        """Fail what was under way, and connect again."""
        self._fail(connection, LOST)
        self.connections.discard(connection)
        self.free = deque(other for other in self.free if other is not connection)
        if not self.connections:
            self._refuse_waiting()
        self.connect_again()

    def _refuse_waiting(self) -> None:
        while self.waiting:
            number, _ = self.waiting.popleft()
            if number >= 0:
                self.flow.unsent(number)
                self.refuse(number)
            elif self.taking_back is not None:
                self.taking_back.lost(number)

    def _fail(self, connection: Connection, outcome: int) -> None:
        while connection.in_flight:
            number = connection.in_flight.popleft()
            if number >= 0:
                self.flow.doubt(number)
                self.settle(number, outcome, False)
            elif self.taking_back is not None:
                self.taking_back.lost(number)

    async def close(self) -> None:
        """Cancel the orders that rest, and disconnect."""
        if self.plan.clean_up:
            await self._take_back()
        self.stop_connecting()
        for connection in self.connections:
            connection.transport.abort()

    async def _take_back(self) -> None:
        self._refuse_waiting()
        for connection in self.connections:
            for number in connection.in_flight:
                self.flow.doubt(number)
        self.taking_back = TakingBack(self.flow.leftovers(), self._cancel, lambda: self.pending > 0)
        if left := await self.taking_back.carry_out(lambda: bool(self.connections), lambda: self.close_by):
            self.left = self.flow.traces(self.plan.url, left)

    def _cancel(self, number: int, order: str) -> None:
        self.waiting.append((number, self.cancellation(order.encode())))
        self._send_waiting()
