"""The Valkey or Redis servers of the roles: what they tell of themselves."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tvops.engine.bus.roles import ROLES, Bus
from tvops.engine.telemetry.document import Server

SECONDS: Final = 1.0
"""How long a server may take for an answer; one that takes longer is down."""

SLOW_COMMANDS: Final = 16
"""Entries of the slow log that are asked for, the newest."""

_MOST_EVENTS = 32
_THRESHOLD = "latency-monitor-threshold"
_WITH_SUBCOMMAND = frozenset((
    "ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY", "MEMORY", "OBJECT", "SCRIPT",
    "SLOWLOG", "XGROUP", "XINFO",
))  # fmt: skip
_FIGURES = {
    "used": "used_memory",
    "limit": "maxmemory",
    "evicted": "evicted_keys",
    "expired": "expired_keys",
    "clients": "connected_clients",
    "commands": "instantaneous_ops_per_sec",
    "uptime": "uptime_in_seconds",
}


class ServerProbe:
    """Asks the server of every role."""

    def __init__(self, bus: Bus) -> None:
        """Ask over the connections of ``bus``."""
        self._clients: dict[str, Redis] = {name: getattr(bus, name) for name in ROLES}

    async def sample(self) -> tuple[Server, ...]:
        """Give every server as it is now; one that does not answer within `SECONDS` is not up."""
        return tuple(await asyncio.gather(*(_ask(role, client) for role, client in self._clients.items())))


async def _ask(role: str, client: Redis) -> Server:
    address = _address(client)
    try:
        async with asyncio.timeout(SECONDS), client.pipeline(transaction=False) as pipeline:
            pipeline.info("server", "clients", "memory", "stats")
            pipeline.latency_latest()
            pipeline.slowlog_get(SLOW_COMMANDS)
            pipeline.config_get(_THRESHOLD)
            info, latency, slow, config = await pipeline.execute(raise_on_error=False)
    except (RedisError, OSError, TimeoutError):
        return Server(role=role, address=address, up=False)
    told = isinstance(info, dict)  # an access list of the server's may refuse each of them
    figures = {figure: int(info.get(field, 0)) for figure, field in _FIGURES.items()} if told else {}
    return Server(
        role=role,
        address=address,
        up=True,
        told=told,
        policy=str(info.get("maxmemory_policy", "")) if told else "",
        latency=_events(latency) if isinstance(latency, list) else (),
        latency_threshold=_threshold(config) if isinstance(latency, list) else None,
        slow=tuple(_slow(entry) for entry in slow) if isinstance(slow, list) else (),
        **figures,
    )


def _address(client: Redis) -> str:
    """Give where a server is, without user and password."""
    options = client.connection_pool.connection_kwargs
    return f"unix://{options['path']}" if "path" in options else f"{options.get('host')}:{options.get('port')}"


def _events(latency: list[Any]) -> tuple[tuple[str, int, int], ...]:
    return tuple((_text(name), int(last), int(worst)) for name, _, last, worst, *_ in latency[:_MOST_EVENTS])


def _threshold(config: object) -> int | None:
    value = _text(config.get(_THRESHOLD, "")) if isinstance(config, dict) else ""
    return int(value) if value.isdecimal() else None


def _slow(entry: dict[str, Any]) -> tuple[int, int, str]:
    return int(entry["start_time"]), int(entry["duration"]), shown_command(entry["command"])


def shown_command(command: bytes) -> str:
    """Give the name of a command and how many words follow: keys hold accounts, values hold orders."""
    words = command.split(b" ")
    names = 2 if len(words) > 1 and words[0].decode(errors="replace").upper() in _WITH_SUBCOMMAND else 1
    name = b" ".join(words[:names]).decode(errors="replace").upper()
    left = len(words) - names
    return f"{name} ({left} more)" if left else name


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
