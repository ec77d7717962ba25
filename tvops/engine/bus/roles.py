"""The roles that servers play, and the bus: one connection pool per role."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from tvops.engine.bus.fitness import check_roles
from tvops.engine.services import Health
from tvops.engine.socket_tuning import SocketOptions
from tvops.engine.stack_tuning import Effect
from tvops.errors import SettingsError
from tvops.settings import Settings


@dataclass(frozen=True, slots=True)
class Role:
    """What a server is for, and what follows from it."""

    name: str
    policy: str  # maxmemory-policy
    durable: bool  # append-only file, synced before every answer


ROLES = {
    "ledger": Role("ledger", "noeviction", True),
    "market": Role("market", "allkeys-lru", False),
    "results": Role("results", "volatile-lru", False),
}
"""The roles by name; `docs/architecture.md` says what each holds."""


class Bus:
    """One client per role, each with its connection pool. Answers are bytes."""

    def __init__(self, clients: Mapping[str, Redis], connections: Mapping[str, _Connections]) -> None:
        self._clients = clients
        self._connections = connections
        self.ledger = clients["ledger"]
        self.market = clients["market"]
        self.results = clients["results"]

    @classmethod
    async def connect(
        cls, settings: Settings, urls: Mapping[str, str], options: SocketOptions | None = None
    ) -> Bus:
        """Connect to the servers of all roles and check that they are fit.

        Args:
            settings: pool size and time limits; URLs that it has stand for external servers.
            urls: role -> ``unix://``, ``redis://`` or ``rediss://`` URL, as `EmbeddedServers.start` gives them.
            options: of every connection; by default those of every profile.

        Raises:
            SettingsError: a URL is none.
            ServerError: a server is away, too old, a replica, or the ledger's could lose data.
        """
        connections = {name: _Connections(options or SocketOptions("redis")) for name in ROLES}
        clients = {name: _client(settings, role, urls[name], connections[name]) for name, role in ROLES.items()}
        bus = cls(clients, connections)
        try:
            await check_roles(ROLES, bus._clients, {name: shown_url(urls[name]) for name in ROLES})
        except BaseException:
            await bus.close()
            raise
        return bus

    async def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose(close_connection_pool=True)

    def socket_effects(self) -> list[Effect]:
        """Tell what the options of our connections are, each difference between the roles once."""
        return list(dict.fromkeys(e for name in ROLES for e in self._connections[name].effects))

    async def health(self) -> dict[str, Health]:
        """Ask every server for a sign of life; role -> health."""
        states = await asyncio.gather(*(self._health(name) for name in ROLES))
        return dict(zip(ROLES, states, strict=True))

    async def figures(self) -> dict[str, dict[str, int]]:
        """Give the main figures of every server that answers: role -> name -> value.

        `memory` and `memory_limit` (0: none) in bytes, `evicted` and `expired` keys, `clients`, `commands` per
        second, `seconds` since it started.
        """
        infos = await asyncio.gather(*(c.info() for c in self._clients.values()), return_exceptions=True)
        return {
            name: {figure: int(info.get(field, 0)) for figure, field in _FIGURES.items()}
            for name, info in zip(self._clients, infos, strict=True)
            if isinstance(info, dict)
        }

    async def _health(self, name: str) -> Health:
        try:
            await self._clients[name].ping()
        except RedisError as error:
            return Health("failed", f"the {name} server does not answer: {error}")
        return Health("ok")


_FIGURES = {
    "memory": "used_memory",
    "memory_limit": "maxmemory",
    "evicted": "evicted_keys",
    "expired": "expired_keys",
    "clients": "connected_clients",
    "commands": "instantaneous_ops_per_sec",
    "seconds": "uptime_in_seconds",
}


def shown_url(url: str) -> str:
    """Give a URL as it may be shown: without user, password and query."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(not shown)"
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.hostname else "(not shown)"


class _Connections:
    """Sets the options of every connection to one server, and remembers what the first one then had."""

    def __init__(self, options: SocketOptions) -> None:
        self._options = options
        self.effects: list[Effect] = []

    async def on_connect(self, connection: AbstractConnection) -> None:
        """Do what redis-py does with a new connection, with our options set."""
        assert connection._writer is not None
        socket = connection._writer.get_extra_info("socket")
        refused = self._options.prepare(socket)
        if not self.effects:
            self.effects = self._options.effects(socket, refused)
        await connection.on_connect()


def _client(settings: Settings, role: Role, url: str, connections: _Connections) -> Redis:
    # The ledger's caller has to look before it appends again, so its calls are never repeated blindly.
    # What goes to the other roles carries its own id or is idempotent; a lost connection costs one retry.
    retry = (
        Retry(NoBackoff(), 0)
        if role.durable
        else Retry(ExponentialBackoff(0.05, 0.01), 1, (RedisConnectionError,))
    )
    options: dict[str, Any] = {
        "max_connections": settings.redis_max_connections,
        "timeout": settings.redis_socket_timeout,
        "socket_timeout": settings.redis_socket_timeout,
        "socket_connect_timeout": settings.redis_connect_timeout,
        "retry": retry,
        "protocol": 2,
        "client_name": "tvops",
        "redis_connect_func": connections.on_connect,
    }
    try:
        return Redis(connection_pool=BlockingConnectionPool.from_url(url, **options))
    except ValueError as error:
        raise SettingsError(f"{role.name}_url: {shown_url(url)} is no server URL: {error}") from None
