"""A real Valkey server for tests: own directory, unix socket, killed and started again at will."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from redis import Redis as BlockingRedis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tvops.engine.bus.server_config import find_binary

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")


class ValkeyServer:
    """One server process on files of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.options = options
        self._runtime = tempfile.mkdtemp(prefix="tvops-")  # socket paths are short
        self.socket = f"{self._runtime}/s"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = find_binary(os.environ.get("TVOPS_VALKEY_BINARY", ""))
        self._process = subprocess.Popen(
            [
                binary.path, "--port", "0", "--unixsocket", self.socket, "--dir", str(self.folder), "--save", "",
                "--maxmemory-policy", "noeviction", *self.options,
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        with BlockingRedis(unix_socket_path=self.socket) as client:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    client.ping()
                    return
                except RedisError:
                    time.sleep(0.01)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def pause(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def client(self, timeout: float = 2.0) -> Redis:
        """Give a client as the bus has it: answers are bytes, nothing is repeated blindly."""
        pool = BlockingConnectionPool.from_url(
            self.url, max_connections=16, timeout=timeout, socket_timeout=timeout, retry=Retry(NoBackoff(), 0),
            protocol=2,
        )  # fmt: skip
        return Redis(connection_pool=pool)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def __enter__(self) -> ValkeyServer:
        self.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self._runtime, ignore_errors=True)
