"""Round trips to a Valkey/Redis server: PING, and XADD into a stream of our own."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tvops.engine.bus.roles import shown_url
from tvops.engine.bus.server_config import find_binary
from tvops.errors import TvopsError
from tvops.tuning.evidence.probes import ANSWER_SECONDS, Fixture, Partner, Probe, ProbeError, Samples

LEDGER_KEY = "ledger:{0}"
_START_SECONDS = 10.0
_STREAM_LENGTH = 1000
_KEY_SECONDS = 900  # the stream's own end, should this process not live to delete it
_PRIVATE = """\
bind 127.0.0.1
port {port}
requirepass {password}
save ""
appendonly no
maxmemory 64mb
maxmemory-policy noeviction
daemonize no
logfile /dev/null
enable-debug-command no
enable-module-command no
"""


class PrivateServer(Fixture):
    """A server on loopback that lives as long as a block; its password is on no command line."""

    def __init__(self, cpu: int | None = None) -> None:
        self.url = ""
        self._cpu = cpu
        self._partner: Partner | None = None

    def setup(self) -> None:
        """Start it; raise ProbeError where that fails."""
        try:
            binary = find_binary(os.environ.get("TVOPS_VALKEY_BINARY", ""))
        except TvopsError as error:
            raise ProbeError(str(error)) from None
        port, password = _free_port(), secrets.token_hex(16)
        config = _PRIVATE.format(port=port, password=password)
        self._partner = Partner("exec", binary.path, "-", cpu=self._cpu, stdin=config.encode())
        self.url = f"redis://:{password}@127.0.0.1:{port}"
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._partner.process.poll() is not None or time.monotonic() > end:
                raise ProbeError("its private server does not start")
            time.sleep(0.002)

    def _answers(self) -> bool:
        try:
            with _Wire(self.url) as wire:
                wire.ask("PING")
        except ProbeError:
            return False
        return True

    def close(self) -> None:
        """End it."""
        if self._partner is not None:
            self._partner.end()
            self._partner = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Wire:
    """One connection, and commands on it without a client's bookkeeping in between."""

    def __init__(self, url: str) -> None:
        try:
            self._pool = ConnectionPool.from_url(
                url, socket_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 0), protocol=2
            )
        except ValueError:
            raise ProbeError(f"{shown_url(url)} is no server URL") from None
        try:
            self._connection: Any = self._pool.get_connection()
        except RedisError as error:
            raise ProbeError(_reason(error)) from None

    def packed(self, *words: str | bytes | int) -> Callable[[], Any]:
        """Give a function that sends a command, packed once, and gives its answer."""
        parts: Sequence[bytes] = self._connection.pack_command(*words)
        packed = [b"".join(parts)]
        send, receive = self._connection.send_packed_command, self._connection.read_response
        return lambda: (send(packed, False), receive())[1]

    def ask(self, *words: str | bytes | int) -> Any:
        """Send a command and give its answer; raise ProbeError."""
        try:
            return self.packed(*words)()
        except RedisError as error:
            raise ProbeError(_reason(error)) from None

    def __enter__(self) -> _Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.disconnect()


def _reason(error: RedisError) -> str:
    return "its server says: " + " ".join(str(error).split())[:200]


class RedisRoundTrip(Probe):
    """How long a command takes to a server and back; the server is the private one or that of a role."""

    def __init__(
        self, command: str, private: PrivateServer | None = None, role: str = "", url: str = "", where: str = ""
    ) -> None:
        self.name = f"redis_{command.lower()}" + (f":{role}{where}" if role else "")
        server = f"the {role} server at {shown_url(url)}" if url else "a private server on TCP 127.0.0.1"
        self._key = f"tvops:measure:{secrets.token_hex(8)}"
        what = "PING" if command == "PING" else f"XADD {self._key} MAXLEN ~ {_STREAM_LENGTH} of 64 bytes"
        self.description = f"{what}, to {server}"
        if url:
            self.sent = f"{what} to {server}" + (", deleted afterwards" if command == "XADD" else "")
        self._command, self._private, self._role, self._url = command, private, role, url
        self.needs = private
        self._wire: _Wire | None = None

    def setup(self) -> None:
        """Connect; raise ProbeError, also where XADD would go to a ledger's server."""
        self._wire = _Wire(self._private.url if self._private else self._url)
        if self._command == "XADD":
            if self._role == "ledger" or self._wire.ask("EXISTS", LEDGER_KEY):
                raise ProbeError("the server holds a ledger, and nothing is written to such a one")
            self._wire.ask(*self._words())
            self._wire.ask("EXPIRE", self._key, _KEY_SECONDS)

    def _words(self) -> tuple[str | bytes | int, ...]:
        if self._command == "PING":
            return ("PING",)
        return ("XADD", self._key, "MAXLEN", "~", _STREAM_LENGTH, "*", "p", b"x" * 64)

    def once(self) -> Callable[[], None]:
        """Send the command and wait for its answer."""
        assert self._wire is not None
        return self._wire.packed(*self._words())

    def sample(self, count: int, seconds: float) -> Samples:
        """Give round trips."""
        try:
            return super().sample(count, seconds)
        except RedisError as error:
            raise ProbeError(_reason(error)) from None

    def close(self) -> None:
        """Delete the stream and disconnect."""
        if self._wire is None:
            return
        wire, self._wire = self._wire, None
        # Where the server is gone, the stream is gone with it, or ends by itself soon.
        with wire, suppress(ProbeError):
            if self._command == "XADD" and self._role != "ledger":
                wire.ask("UNLINK", self._key)
