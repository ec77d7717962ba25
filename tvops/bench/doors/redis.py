"""PING, XADD and GET against a Valkey or Redis server; never against one that keeps a ledger."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from time import monotonic_ns
from typing import Annotated, Any, ClassVar

import hiredis
import msgspec
import numpy as np

from tvops.bench.doors.base import RequestDoor
from tvops.bench.doors.shares import Share, check_shares
from tvops.bench.plan import Plan, Traces
from tvops.bench.samples import LOST, Samples
from tvops.errors import RefusedError, ServerError, UsageError

_OK, _ERROR = 200, 500
_SET_UP = -1
"""Stands for a command that comes before all that are measured."""
_SET_UP_SECONDS = 5.0
_PATTERN = 1 << 13
_LEDGER_KEYS = "ledger:{*"


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shares of the commands; what is not named has none."""

    ping: Share = 0
    xadd: Share = 0
    get: Share = 0

    def __post_init__(self) -> None:
        check_shares(self)


USUAL = Mix(ping=40, xadd=30, get=30)


class RedisOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How commands are sent."""

    mix: Mix = USUAL
    connections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 4
    bytes: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 100  # of a value or an entry
    keep: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1000  # entries of the stream


class Connection(asyncio.Protocol):
    """One connection; answers come in the order of the commands."""

    def __init__(self, door: Redis) -> None:
        self.door = door
        self.reader = hiredis.Reader()
        self.in_flight: deque[int] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport: Any = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the door."""
        self.door.on_lost(self)

    async def set_up(self, *words: bytes) -> None:
        """Send a command that is not measured; raise ServerError where it fails."""
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.in_flight.append(_SET_UP)
        self.transport.write(_command(*words))
        if not await asyncio.wait_for(self.ready, _SET_UP_SECONDS):
            raise ServerError(f"the server refuses {words[0].decode()}")

    def data_received(self, data: bytes) -> None:
        """Take in answers."""
        try:
            self.reader.feed(data)
            while self.in_flight and (answer := self.reader.gets()) is not False:
                good = not isinstance(answer, hiredis.ReplyError)
                number = self.in_flight.popleft()
                if number == _SET_UP:
                    self.ready.set_result(good)
                else:
                    self.door.settle(number, _OK if good else _ERROR, good)
        except hiredis.ProtocolError:
            self.transport.abort()


class Redis(RequestDoor):
    """Commands to a server, with keys of its own that go at the end."""

    name: ClassVar[str] = "redis"
    target: ClassVar[str] = "redis"
    options_type: ClassVar[type[msgspec.Struct]] = RedisOptions
    operation_names: ClassVar[tuple[str, ...]] = ("ping", "xadd", "get")

    options: RedisOptions

    def __init__(self, plan: Plan, options: RedisOptions, samples: Samples) -> None:
        super().__init__(plan, options, samples)
        shares = np.array(msgspec.structs.astuple(options.mix), np.float64)
        chance = np.random.default_rng(plan.seed)
        self.pattern = chance.choice(3, size=_PATTERN, p=shares / shares.sum()).astype(np.uint8).tobytes()
        self.prefix = f"tvops:bench:{secrets.token_hex(4)}"
        self.connections: list[Connection] = []
        self.turn = 0

    async def open(self) -> None:
        """Connect with the redis client, see what the server is for, and write the value that is read."""
        # Here and below: every generator has all doors, and this import is a fifth of the time of its start.
        from redis.asyncio import Redis as Client
        from redis.exceptions import RedisError

        value = b"v" * self.options.bytes
        try:
            self.client = Client.from_url(self.plan.url, socket_timeout=10, socket_connect_timeout=5)
            await self._refuse_ledger()
            await self.client.set(f"{self.prefix}:value", value, ex=86_400)
            await asyncio.gather(*(self.connect() for _ in range(self.options.connections)))
        except ValueError as error:
            raise UsageError(str(error)) from None
        except (RedisError, OSError) as error:
            raise ServerError(" ".join(str(error).split()) or type(error).__name__) from None
        self.commands = (
            _command(b"PING"),
            _command(b"XADD", f"{self.prefix}:stream".encode(), b"MAXLEN", b"~", b"%d" % self.options.keep, b"*",
                     b"d", value),
            _command(b"GET", f"{self.prefix}:value".encode()),
        )  # fmt: skip

    async def _refuse_ledger(self) -> None:
        _, found = await self.client.scan(match=_LEDGER_KEYS, count=1000)
        config = await self.client.config_get("append*")
        if found or (config.get("appendonly") == "yes" and config.get("appendfsync") == "always"):
            raise RefusedError("the server keeps a ledger; load another one, or one of your own")

    @property
    def traces(self) -> Traces:
        """The stream that is written, and the value that is read."""
        return Traces(2, f"keys {self.prefix}:* may still be there")

    @property
    def places(self) -> int:
        """One command under way on each connection."""
        return self.options.connections

    async def connect(self) -> None:
        """Make one connection."""
        from redis.asyncio import SSLConnection

        pool = self.client.connection_pool
        arguments = pool.connection_kwargs
        loop = asyncio.get_running_loop()
        if path := arguments.get("path"):
            _, connection = await loop.create_unix_connection(lambda: Connection(self), path)
        else:
            _, connection = await loop.create_connection(
                lambda: Connection(self), arguments.get("host", "localhost"), arguments.get("port", 6379),
                ssl=True if issubclass(pool.connection_class, SSLConnection) else None,
            )  # fmt: skip
        if password := arguments.get("password"):
            user = (arguments.get("username") or "default").encode()
            await connection.set_up(b"AUTH", user, str(password).encode())
        if database := arguments.get("db"):
            await connection.set_up(b"SELECT", str(database).encode())
        self.connections.append(connection)

    def send(self, number: int) -> None:
        """Send a command by the next connection."""
        kind = self.pattern[number % _PATTERN]
        self.samples.kind[number] = kind
        if not self.connections:
            self.refuse(number)
            return
        self.turn += 1
        connection = self.connections[self.turn % len(self.connections)]
        connection.in_flight.append(number)
        self.samples.sent[number] = monotonic_ns()
        connection.transport.write(self.commands[kind])

    def on_lost(self, connection: Connection) -> None:
        """Fail what was under way, and connect again."""
        for number in connection.in_flight:
            if number != _SET_UP:
                self.settle(number, LOST, False)
        connection.in_flight.clear()
        if connection in self.connections:
            self.connections.remove(connection)
        self.connect_again()

    async def close(self) -> None:
        """Remove the keys, and disconnect."""
        from redis.exceptions import RedisError

        self.stop_connecting()
        for connection in self.connections:
            connection.transport.abort()
        try:
            await self.client.delete(f"{self.prefix}:stream", f"{self.prefix}:value")
        except (RedisError, OSError):
            self.left = self.traces
        await self.client.aclose()


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
