"""API keys: made, kept (hashed) in the ledger role's hash `keys:{0}`, and looked up.

Fields of the hash: `key:<id>` holds a `StoredKey` as JSON, `account:<name>` the number of a named account,
`next` the count of accounts ever named, `version` a number that every change raises.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tvops.engine.gateway.times import format_time
from tvops.engine.records import FIRST_USER_ACCOUNT
from tvops.errors import ServerError, UsageError

KEYS = "keys:{0}"
MAX_NAMED_ACCOUNTS = 3900
RELOAD_SECONDS = 1.0
DEFAULT_NAME = "demo"
"""Name of `FIRST_USER_ACCOUNT`, which needs no key on loopback."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", re.ASCII)
_KEY = re.compile(r"tv_([0-9a-f]{12})_[A-Za-z0-9_-]{43}", re.ASCII)
_NOBODY = hashlib.sha256(b"").hexdigest()

logger = logging.getLogger(__name__)


class StoredKey(msgspec.Struct, frozen=True):
    """What is kept of a key: enough to recognise it, not to use it."""

    id: str
    digest: str  # SHA-256 of the whole key, hex; the key has 256 random bits, so no salt and no stretching
    account: int
    name: str
    admin: bool
    created: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request acts for."""

    account: int
    name: str
    admin: bool
    key_id: str = ""


async def create_key(ledger: Redis, name: str, admin: bool) -> tuple[str, StoredKey]:
    """Make a key for the account ``name``, which comes to be where it is new; give the key and what is kept of it.

    Raises:
        UsageError: the name cannot be an account's, or there are too many accounts.
        ServerError: the ledger server cannot be reached.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"account {name[:40]!r}: must be 1 to 32 letters, digits, '.', '_' or '-'")
    identifier, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = f"tv_{identifier}_{secret}"
    try:
        account = await _account_number(ledger, name)
        stored = StoredKey(identifier, _digest(key), account, name, admin, format_time(time.time_ns()))
        async with ledger.pipeline(transaction=True) as pipe:
            pipe.hset(KEYS, f"key:{identifier}", msgspec.json.encode(stored))
            pipe.hincrby(KEYS, "version", 1)
            await pipe.execute()
    except RedisError as error:
        raise _unreachable(error) from None
    return key, stored


async def list_keys(ledger: Redis) -> list[StoredKey]:
    """Give every key that is valid, oldest first.

    Raises:
        ServerError: the ledger server cannot be reached.
    """
    return sorted(_stored(await _fields(ledger)), key=lambda stored: stored.created)


async def revoke_key(ledger: Redis, identifier: str) -> None:
    """Make the key with this id worthless; running stacks notice within seconds.

    Raises:
        UsageError: there is no such key.
        ServerError: the ledger server cannot be reached.
    """
    identifier = identifier.removeprefix("tv_").partition("_")[0]
    try:
        async with ledger.pipeline(transaction=True) as pipe:
            pipe.hdel(KEYS, f"key:{identifier}")
            pipe.hincrby(KEYS, "version", 1)
            removed, _ = await pipe.execute()
    except RedisError as error:
        raise _unreachable(error) from None
    if not removed:
        raise UsageError(f"key {identifier[:20]!r}: there is none with this id; see tvops keys list")


class KeyRing:
    """The keys as a process knows them: looked up without I/O, reloaded when they change."""

    def __init__(self, ledger: Redis) -> None:
        self._ledger = ledger
        self._keys: dict[str, StoredKey] = {}
        self._version: bytes | None = b"never loaded"
        self.version = 0
        """Rises with every reload that changed something."""

    async def load(self) -> None:
        """Read the keys if they changed since the last time.

        Raises:
            ServerError: the ledger server cannot be reached; the keys known so far stay.
        """
        try:
            version: Any = await self._ledger.hget(KEYS, "version")
        except RedisError as error:
            raise _unreachable(error) from None
        if version == self._version:
            return
        fields = await _fields(self._ledger)
        self._keys = {stored.id: stored for stored in _stored(fields)}
        self._version = fields.get(b"version")
        self.version += 1

    async def keep_loaded(self) -> None:
        """Reload whenever the keys change, for ever."""
        reachable = True
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                await self.load()
            except ServerError as error:
                if reachable:
                    logger.warning("API keys are not reloaded: %s", error)
                reachable = False
            else:
                reachable = True

    def find(self, key: str) -> Principal | None:
        """Give whom a key stands for; None where it is not valid."""
        found = _KEY.fullmatch(key)
        stored = self._keys.get(found.group(1)) if found else None
        same = hmac.compare_digest(_digest(key), stored.digest if stored else _NOBODY)
        return Principal(stored.account, stored.name, stored.admin, stored.id) if stored and same else None

    def is_valid(self, key_id: str) -> bool:
        """Say whether the key with this id has not been revoked."""
        return key_id in self._keys

    def account(self, key: str) -> int | None:
        """Give the account that a key stands for; None where it is not valid."""
        principal = self.find(key)
        return principal.account if principal else None


async def _fields(ledger: Redis) -> dict[bytes, bytes]:
    try:
        fields: Any = await ledger.hgetall(KEYS)
    except RedisError as error:
        raise _unreachable(error) from None
    return dict(fields)


async def _account_number(ledger: Redis, name: str) -> int:
    if name == DEFAULT_NAME:
        return FIRST_USER_ACCOUNT
    known = await ledger.hget(KEYS, f"account:{name}")
    if known is None:
        number = int(await ledger.hincrby(KEYS, "next", 1))
        if number > MAX_NAMED_ACCOUNTS:
            raise UsageError(
                f"account {name}: there are {MAX_NAMED_ACCOUNTS} accounts already, the most there can be"
            )
        await ledger.hsetnx(KEYS, f"account:{name}", FIRST_USER_ACCOUNT + number)
        known = await ledger.hget(KEYS, f"account:{name}")
    return int(known or 0)


def _stored(fields: dict[bytes, bytes]) -> list[StoredKey]:
    keys = []
    for field, value in fields.items():
        if field.startswith(b"key:"):
            try:
                keys.append(msgspec.json.decode(value, type=StoredKey))
            except msgspec.DecodeError:
                logger.warning("%s: field %s is not an API key; ignored", KEYS, field.decode(errors="replace"))
    return keys


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _unreachable(error: RedisError) -> ServerError:
    return ServerError(f"ledger server: {' '.join(str(error).split())}; is tvops serve running?")
