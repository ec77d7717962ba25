"""Whether a server is fit for its role: looked at before anything relies on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MovedError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from tvops.errors import ServerError, UnfitServerError

if TYPE_CHECKING:
    from tvops.engine.bus.roles import Role

OLDEST_VERSION = (7, 0)
_LOADING_SECONDS = 60.0
DURABLE_CONFIG = {
    "maxmemory-policy": ("noeviction", "it would evict acknowledged orders when its memory is full"),
    "appendonly": ("yes", "it would lose acknowledged orders when it restarts"),
    "appendfsync": ("always", "it would lose the last acknowledged orders in a crash"),
    "no-appendfsync-on-rewrite": ("no", "it would lose acknowledged orders in a crash while it rewrites its file"),
}
"""What the server of a ledger has to have: key -> value, and what it would do with another."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a server says of itself; `config` is None where it does not let us ask."""

    info: Mapping[str, Any]
    config: Mapping[str | None, str | None] | None


async def check_roles(roles: Mapping[str, Role], clients: Mapping[str, Redis], shown: Mapping[str, str]) -> None:
    """Look at the server of every role; log a warning where one fits badly.

    Args:
        roles: the roles by name.
        clients: role -> client.
        shown: role -> address without secrets, for messages.

    Raises:
        ServerError: a server is unreachable, a replica, or its disk fails.
        UnfitServerError: a server is too old, or the ledger's may lose what was acknowledged.
    """
    servers = {name: f"{name} server {shown[name]}" for name in roles}
    try:
        async with asyncio.TaskGroup() as group:
            looks = {name: group.create_task(_look(clients[name], servers[name])) for name in roles}
    except* ServerError as errors:
        raise errors.exceptions[0] from None
    facts = {name: look.result() for name, look in looks.items()}
    for name, role in roles.items():
        _check_any(servers[name], facts[name])
        if role.durable:
            _check_durable(servers[name], facts[name])
        elif (policy := _policy(facts[name])) != role.policy:
            logger.warning("%s: maxmemory-policy is %s, better is %s", servers[name], policy, role.policy)
    _check_apart(roles, servers, facts)


async def _look(client: Redis, server: str) -> _Facts:
    try:
        info = await asyncio.wait_for(_loaded_info(client), _LOADING_SECONDS)
        await client.exists("ledger:{0}")
        try:
            config = await client.config_get(*DURABLE_CONFIG)
        except (NoPermissionError, ResponseError):
            config = None
        return _Facts(info, config)
    except TimeoutError:
        raise ServerError(f"{server}: still loading its data after {_LOADING_SECONDS:.0f} s") from None
    except MovedError as error:
        raise ServerError(f"{server}: another node of its cluster holds shard 0, use that: {error}") from None
    except NoPermissionError as error:
        raise ServerError(f"{server}: the user of its URL lacks a right: {error}") from None
    except (RedisError, OSError) as error:
        if isinstance(error.__cause__ or error, AuthenticationError):
            raise ServerError(f"{server}: refuses user or password of its URL: {error}") from None
        raise ServerError(f"{server}: cannot be reached: {error}") from None


async def _loaded_info(client: Redis) -> dict[str, Any]:
    while True:
        try:
            info: dict[str, Any] = await client.info()
            if not info.get("loading"):
                return info
        except BusyLoadingError:
            pass
        await asyncio.sleep(0.1)


def _check_any(server: str, facts: _Facts) -> None:
    version = str(facts.info.get("redis_version", ""))
    if _parse_version(version) < OLDEST_VERSION:
        raise UnfitServerError(f"{server}: version {version or 'unknown'} is too old, 7.0 or newer is needed")
    if facts.info.get("role") != "master":
        raise ServerError(f"{server}: is a replica, give the address of its primary")


def _check_durable(server: str, facts: _Facts) -> None:
    config = facts.config
    if config is None or not all(config.get(key) for key in DURABLE_CONFIG):
        raise UnfitServerError(
            f"{server}: does not tell how it persists, so it may lose acknowledged orders; "
            "allow CONFIG GET to the user of its URL (ACL SETUSER ... +config|get)"
        )
    for key, (value, loss) in DURABLE_CONFIG.items():
        if config[key] != value:
            raise UnfitServerError(
                f"{server}: {key} is {config[key]}: {loss}; CONFIG SET {key} {value} there"
                " (and in its config file)"
            )
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        raise ServerError(f"{server}: its last write to the append-only file failed; see its disk and its log")


def _check_apart(roles: Mapping[str, Role], servers: Mapping[str, str], facts: Mapping[str, _Facts]) -> None:
    """Refuse a durable role that shares its server: the others would fill its memory, and appends would fail."""
    for name, role in roles.items():
        for other in roles:
            same = facts[name].info.get("run_id") == facts[other].info.get("run_id")
            if not same or name >= other:
                continue
            if role.durable or roles[other].durable:
                raise UnfitServerError(
                    f"{servers[name]}: is also the {other} server, whose data would fill the ledger's memory; "
                    "give the ledger a server of its own"
                )
            logger.warning("%s: is also the %s server; they evict each other's data", servers[name], other)


def _policy(facts: _Facts) -> str:
    config = facts.config or {}
    return str(config.get("maxmemory-policy") or facts.info.get("maxmemory_policy", "unknown"))


def _parse_version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(".")[:2])
    except ValueError:
        return (0,)
