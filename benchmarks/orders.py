"""Orders over HTTP against a running stack: latency at a fixed rate, and the most that go through.

    python benchmarks/orders.py --rate 1000 --seconds 60

At a fixed rate (an open loop) every order has the time at which it is meant to be sent, and its latency counts
from then: an order that has to wait for its turn, because the stack stalls, is late. The closed loop has as many
orders under way as there are connections and sends the next one when an answer is there. All orders rest far
below the market, or are IOC there; what rests is cancelled afterwards. Latencies are this client's: on a small
machine it competes with the stack for the processor.

An API key is taken from $TVOPS_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import uvloop

Answered = Callable[[int, int], None]  # HTTP status, time from the intended sending in ns


class Connection(asyncio.Protocol):
    """One kept connection with one request under way; the others wait here for their turn."""

    def __init__(self, answered: Answered) -> None:
        self.answered = answered
        self.waiting: deque[tuple[bytes, int]] = deque()
        self.meant = 0  # when the request under way was meant to be sent, ns; 0: none is
        self.buffer = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def send(self, request: bytes, meant: int) -> None:
        """Send ``request``, which is meant for the time ``meant``."""
        if self.meant:
            self.waiting.append((request, meant))
            return
        self.meant = meant
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self.buffer.find(b"content-length: ") + 16
        length = int(self.buffer[at : self.buffer.index(b"\r", at)])
        if len(self.buffer) < head + 4 + length:
            return
        status = int(self.buffer[9:12])
        self.buffer = self.buffer[head + 4 + length :]
        meant, self.meant = self.meant, 0
        if self.waiting:
            self.send(*self.waiting.popleft())
        self.answered(status, time.perf_counter_ns() - meant)


class Load:
    """Connections to one gateway, and what came back."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.host, self.port, self.symbol = arguments.host, arguments.port, arguments.symbol
        self.connections: list[Connection] = []
        self.latencies: list[int] = []
        self.statuses: Counter[int] = Counter()
        self.run = secrets.token_hex(4)
        self.made = 0
        key = os.environ.get("TVOPS_API_KEY")
        self.headers = {"X-API-Key": key} if key else {}

    async def connect(self, count: int, answered: Answered) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, connection = await loop.create_connection(lambda: Connection(answered), self.host, self.port)
            self.connections.append(connection)

    def request(self, time_in_force: str) -> bytes:
        """Give a POST of the next order."""
        self.made += 1
        order = {
            "symbol": self.symbol, "side": "buy", "order_type": "limit", "price": f"{100 + self.made % 400}",
            "quantity": "0.01", "time_in_force": time_in_force, "client_order_id": f"{self.run}-{self.made}",
        }  # fmt: skip
        body = json.dumps(order).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\n{more}Content-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def note(self, status: int, nanoseconds: int) -> None:
        self.statuses[status] += 1
        self.latencies.append(nanoseconds)

    def close(self) -> None:
        for connection in self.connections:
            connection.transport.close()
        self.connections, self.latencies, self.statuses = [], [], Counter()

    async def cancel_all(self) -> None:
        url = f"http://{self.host}:{self.port}/v1/orders?symbol={self.symbol}"
        request = urllib.request.Request(url, method="DELETE", headers={"Host": "localhost", **self.headers})
        await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=30).read())

    def report(self, title: str, seconds: float) -> bool:
        """Print the figures; tell whether every order was answered with 201."""
        values = sorted(self.latencies)
        good = self.statuses[201]
        errors = {str(status): count for status, count in self.statuses.items() if status != 201}
        print(f"{title}: {good} orders in {seconds:.1f} s = {good / seconds:,.0f}/s, errors {errors or 'none'}")
        if values:
            shown = [
                f"{name} {values[min(len(values) - 1, int(len(values) * part))] / 1e6:.2f}"
                for name, part in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
            ]
            print(f"  latency ms: {', '.join(shown)}")
        return not errors


async def open_loop(load: Load, rate: float, seconds: float, connections: int) -> bool:
    """Send at ``rate``, whatever comes back."""
    await load.connect(connections, load.note)
    total = int(rate * seconds)
    begun = time.perf_counter_ns()
    sent = 0
    while sent < total:
        due = min(total, int((time.perf_counter_ns() - begun) * rate / 1e9) + 1)
        while sent < due:
            load.connections[sent % connections].send(load.request("GTC"), begun + int(sent * 1e9 / rate))
            sent += 1
        await asyncio.sleep(max(0.0, (begun + sent * 1e9 / rate - time.perf_counter_ns()) / 1e9))
    deadline = time.monotonic() + 10
    while len(load.latencies) < total and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    load.statuses[0] += total - len(load.latencies)
    load.statuses += Counter()  # drops what is 0
    good = load.report(f"open loop, {rate:g}/s over {connections} connections", seconds)
    load.close()
    await load.cancel_all()
    return good


async def closed_loop(load: Load, seconds: float, connections: int) -> bool:
    """Send as fast as the answers come."""
    end = time.perf_counter_ns() + int(seconds * 1e9)
    idle: asyncio.Queue[None] = asyncio.Queue()

    def answered(status: int, nanoseconds: int) -> None:
        load.note(status, nanoseconds)
        idle.put_nowait(None)

    await load.connect(connections, answered)
    for connection in load.connections:
        connection.send(load.request("IOC"), time.perf_counter_ns())
    finished = 0
    while finished < connections:
        await idle.get()
        if (now := time.perf_counter_ns()) >= end:
            finished += 1
            continue
        free = next(connection for connection in load.connections if not connection.meant)
        free.send(load.request("IOC"), now)
    good = load.report(f"closed loop, {connections} connections", seconds)
    load.close()
    return good


async def main(arguments: argparse.Namespace) -> bool:
    load = Load(arguments)
    good = await open_loop(load, arguments.rate, arguments.seconds, arguments.connections)
    if arguments.closed_seconds:
        await closed_loop(load, arguments.closed_seconds, arguments.closed_connections)
        print("  (429: the stack's rate_limit; raise it to see what the stack can do)")
    return good


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="gateway port of the stack")
    parser.add_argument("--symbol", default="ETH-USDT")
    parser.add_argument("--rate", type=float, default=1000, help="orders per second of the open loop")
    parser.add_argument("--seconds", type=float, default=10, help="length of the open loop")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--closed-seconds", type=float, default=5, help="length of the closed loop; 0: none")
    parser.add_argument("--closed-connections", type=int, default=32)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(0 if uvloop.run(main(parse(sys.argv[1:]))) else 1)
