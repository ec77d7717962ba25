"""The servers of all roles that are not external: one embedded Valkey server each."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from urllib.parse import quote

from tvops.engine.bus.roles import ROLES
from tvops.engine.bus.server import EmbeddedServer
from tvops.engine.bus.server_config import Binary, default_config, find_binary, server_config
from tvops.engine.bus.server_tuning import cpu_lines, left_out, part
from tvops.engine.process_attributes import read_attribute
from tvops.engine.services import Health
from tvops.engine.stack_tuning import Effect, StackTuning
from tvops.errors import HeldError, TvopsError
from tvops.settings import Settings

BACKOFF_FIRST, BACKOFF_MOST, STABLE_SECONDS = 0.05, 5.0, 30.0

logger = logging.getLogger(__name__)


class EmbeddedServers:
    """Starts, watches and ends the embedded servers; knows the addresses of the external ones.

    A server whose supervisor was killed goes on; the next `start` adopts it, or replaces it where the settings
    are others now.
    """

    def __init__(self, settings: Settings, tuning: StackTuning | None = None) -> None:
        self._settings = settings
        self._tuning = tuning or StackTuning()
        self._cpus = read_attribute("affinity", os.getpid()) or ""
        self._external = {
            name: url
            for name, url in (
                ("ledger", settings.ledger_url),
                ("market", settings.market_url),
                ("results", settings.results_url),
            )
            if url
        }
        self._servers: dict[str, EmbeddedServer] = {}
        self._troubles: dict[str, str] = {}
        self._others: list[Effect] = []
        self._lock: int | None = None

    async def start(self) -> dict[str, str]:
        """Have every embedded server run and answer; give role -> URL of all roles.

        Raises:
            HeldError: another supervisor has the servers of this data directory, or a hung server its files.
            ServerError: a server does not start; SettingsError: `valkey_binary` is none.
        """
        urls = dict(self._external)
        try:
            if len(urls) < len(ROLES):
                binary = await asyncio.to_thread(find_binary, self._settings.valkey_binary)
                for name in ROLES:
                    if name not in urls:
                        urls[name] = self._prepare(name, binary)
                self._hold()
                async with asyncio.TaskGroup() as group:
                    for server in self._servers.values():
                        group.create_task(server.start())
        except BaseException as error:
            await self.stop()
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise
        return urls

    def _prepare(self, name: str, binary: Binary) -> str:
        """Make the server of a role, which `start` starts; give its URL."""
        role, process = ROLES[name], self._tuning.process("redis")
        wishes = cpu_lines(process, self._cpus) | self._tuning.servers.get(name, {})
        taken, others = part(role, wishes, default_config(role))
        config = server_config(self._settings, role, binary, taken)
        self._servers[name] = EmbeddedServer(config, process)
        self._others += others
        return f"unix://{quote(str(config.socket))}"

    def effects(self) -> list[Effect]:
        """Tell what the embedded servers have of what was wanted, and what they do not."""
        external = [
            left_out(ROLES[name], key, value, "unsupported", "the server is not ours: tvops tune --redis")
            for name in self._external
            for key, value in self._tuning.servers.get(name, {}).items()
        ]
        return [*self._others, *external, *(e for server in self._servers.values() for e in server.effects)]

    async def supervise(self) -> None:
        """Restart servers that end, after a back-off that doubles; runs until it is cancelled."""
        await asyncio.gather(*(self._keep(name, server) for name, server in self._servers.items()))
        await asyncio.Event().wait()

    async def stop(self) -> list[str]:
        """End the embedded servers; name those that had to be killed. `supervise` has to be cancelled before."""
        try:
            stops = (server.stop() for server in self._servers.values())
            for error in await asyncio.gather(*stops, return_exceptions=True):
                if isinstance(error, TvopsError):
                    logger.error("%s", error)
                elif error is not None:
                    raise error
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None
        return [f"{name} server" for name, server in self._servers.items() if server.killed]

    def pids(self) -> list[int]:
        """Give the process ids of the embedded servers that run."""
        return [server.pid for server in self._servers.values() if server.pid]

    def health(self) -> Health:
        """Tell which servers are being restarted; never blocks."""
        if self._troubles:
            return Health("degraded", "; ".join(self._troubles.values()))
        return Health("ok")

    async def _keep(self, name: str, server: EmbeddedServer) -> None:
        backoff = BACKOFF_FIRST
        while True:
            started = time.monotonic()
            await server.ended()
            if time.monotonic() - started > STABLE_SECONDS:
                backoff = BACKOFF_FIRST
            trouble = f"{name} server ended: {server.last_words()}"
            while trouble:
                self._troubles[name] = trouble
                logger.warning("%s; restarting it in %.2f s", trouble, backoff)
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, BACKOFF_MOST)
                try:
                    await server.start()
                    trouble = ""
                except TvopsError as error:
                    trouble = str(error)
            del self._troubles[name]
            logger.info("%s server runs again", name)

    def _hold(self) -> None:
        """Lock the servers' folder, so that a second supervisor cannot adopt servers that have one."""
        path = self._settings.data_path / "valkey" / "supervisor.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode(errors="replace") or "unknown"
            os.close(lock)
            self._servers.clear()
            raise HeldError(
                f"data directory {self._settings.data_path}: process {holder} supervises its servers; "
                "stop it or choose another --data-dir"
            ) from None
        os.truncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock
