"""One embedded Valkey server: started or adopted, watched, ended."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tvops.engine.bus import aof_damage
from tvops.engine.bus.server_config import ServerConfig, socket_in
from tvops.engine.bus.server_files import ServerFiles
from tvops.engine.bus.server_log import ServerLog
from tvops.engine.bus.server_tuning import left_out, unknown_key
from tvops.engine.process_tuning import bequeathed, left_over, tune_child
from tvops.engine.stack_tuning import Effect, outcome
from tvops.errors import HeldError, ServerError

_LEAST_FREE_BYTES = 1 << 16
_STEP_SECONDS = 0.01
_ANSWER_SECONDS = 10.0  # until a process that holds the files but does not answer counts as hung
_EXIT_STEPS = 50  # that a process may take to be gone once its connections are
_TERM_SECONDS = 3.5
_KILL_SECONDS = 2.0

logger = logging.getLogger(__name__)


class EmbeddedServer:
    """The server of one role. `pid` is its process, 0 while there is none."""

    def __init__(self, config: ServerConfig, wishes: Mapping[str, str] | None = None) -> None:
        """Make it.

        Args:
            config: where it lives and what it is configured to.
            wishes: what its process is to have (process_tuning.py).
        """
        self._config = config
        self._wishes = wishes or {}
        self._born: dict[str, Effect] = {}
        self._dropped: list[Effect] = []
        self._tuned: list[Effect] = []
        self._name = f"{config.role.name} server"
        self._folder = config.folder
        self._files = ServerFiles(config.folder)
        self._log = ServerLog(self._name, config.folder / "valkey.log")
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.pid = 0
        self.killed = False
        """Whether the last `stop` took SIGKILL."""

    async def start(self) -> None:
        """Have the server run and answer: adopt a left-over one with the same config, else start one.

        Raises:
            ServerError: it does not start; tells its last words.
            HeldError: a process that does not answer holds its files.
        """
        while True:
            try:
                await self._start()
                break
            except ServerError:
                if not self._drop_unknown() and not await self._repair():
                    raise
        self._tuned = tune_child(self._wishes, "redis", self.pid, self._born)
        self._lifeline = await asyncio.open_unix_connection(str(self._config.socket))

    async def _start(self) -> None:
        lock = await self._claim()
        if lock is None:
            logger.info("%s: adopted process %d, left over from an earlier run", self._name, self.pid)
            self._born = left_over(self._wishes, "redis", self.pid)
        else:
            try:
                self._spawn(lock)
            finally:
                os.close(lock)
        await self._until_ready()

    async def _repair(self) -> bool:
        """Cut damage off the append-only file where that is what ended the server; tell whether it was."""
        said, program = self._log.since_start(), self._config.binary.path
        return await asyncio.to_thread(aof_damage.cut_tail, self._name, self._folder, said, program)

    @property
    def effects(self) -> list[Effect]:
        """What the process has, and what of its configuration is as it was wanted."""
        taken = self._config.overrides
        role = self._config.role.name
        return [
            *self._tuned,
            *self._dropped,
            *(outcome("redis", k, role, taken, v, None) for k, v in taken.items()),
        ]

    def _drop_unknown(self) -> bool:
        """Leave out what this server's program does not know or want; tell whether it was that which ended it."""
        word = unknown_key(self._log.since_start())
        key = next((key for key in self._config.overrides if key.split()[0] == word), None)
        if key is None:
            return False
        value, version = self._config.overrides[key], self._config.binary.version
        logger.warning("%s: %s does not take %s %s, starting without it", self._name, version, key, value)
        reason = f"{version} does not take it"
        self._dropped.append(left_out(self._config.role, key, value, "unsupported", reason))
        self._config = self._config.without(key)
        return True

    async def ended(self) -> None:
        """Wait until the server's process is gone or has dropped its connections; keep its log small meanwhile."""
        assert self._lifeline
        reader, writer = self._lifeline
        end = asyncio.create_task(reader.read())
        try:
            while not (await asyncio.wait({end}, timeout=30))[0]:
                self._log.bound()
            with suppress(OSError):
                end.result()
        finally:
            end.cancel()
            writer.close()
            self._lifeline = None
        for _ in range(_EXIT_STEPS):
            if self._process is None or self._process.poll() is not None:
                break
            await asyncio.sleep(_STEP_SECONDS)

    def last_words(self) -> str:
        """Give the signal that ended the process, else the last line of its log that says something."""
        code = self._process.poll() if self._process else None
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        said = self._log.last_line() or "said nothing"
        with suppress(OSError):
            if shutil.disk_usage(self._folder).free < _LEAST_FREE_BYTES:  # then its log lacks its end as well
                said = f"the disk of {self._folder} is full"
        return f"{said} (exit code {code})" if code is not None else said

    async def stop(self) -> None:
        """End the server cleanly: what it acknowledged is on disk. One that does not react is killed."""
        self.killed = False
        if self._lifeline:
            self._lifeline[1].close()
            self._lifeline = None
        if self.pid:
            await self._end()
        if self._config.socket.parent != self._folder:
            self._remove_socket()

    def _remove_socket(self) -> None:
        """Take it away, unless a left-over server has it that was not adopted: nothing else leads to that one."""
        with suppress(OSError):  # e.g. the sockets of other servers are in its folder
            if (lock := self._files.lock()) is not None:
                try:
                    self._config.socket.unlink(missing_ok=True)
                    self._config.socket.parent.rmdir()
                finally:
                    os.close(lock)

    async def _claim(self) -> int | None:
        """Take the lock of the files, or adopt the server that has it (None), or end that one first."""
        give_up = time.monotonic() + _ANSWER_SECONDS
        while True:
            lock = self._files.lock()
            text = self._files.written_config()
            if await self._meet(socket_in(text) or self._config.socket):
                if text == self._config.text:
                    if lock is not None:
                        os.close(lock)
                    return None
                logger.info("%s: ending process %d, it has other settings", self._name, self.pid)
                if lock is not None:
                    os.close(lock)
                await self._end()
                continue
            if lock is not None:
                return lock
            if time.monotonic() > give_up:
                raise HeldError(
                    f"{self._name}: process {self._files.pid()} has the files in {self._folder} but does not "
                    "answer; end it and start again"
                )
            await asyncio.sleep(_STEP_SECONDS * 5)

    async def _meet(self, socket: Path) -> bool:
        """Whether a server on our files answers at ``socket``; sets `pid`."""
        async with _client(socket) as client:
            try:
                info = await client.info("server")
                where = (await client.config_get("dir"))["dir"]
            except (RedisError, OSError):
                return False
        if not self._files.is_folder(where or ""):
            raise HeldError(f"{self._name}: a server of other files ({where!r}) answers at {socket}")
        if self._process is None or self._process.pid != info["process_id"]:
            self._process = None
        self.pid = int(info["process_id"])
        return True

    def _spawn(self, lock: int) -> None:
        try:
            if self._files.written_config() != self._config.text:
                self._files.write_config(self._config.text)
            log = self._log.open()
            try:
                if self._process is not None:
                    self._process.wait()  # it let go of the lock: it is gone, or on its last instructions
                # a session of its own: Ctrl-C in the terminal must not end it before the workers
                with bequeathed(self._wishes, "redis") as self._born:
                    self._process = subprocess.Popen(
                        [self._config.binary.path, str(self._files.config)],
                        cwd=self._folder,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=(lock,),
                        start_new_session=True,
                        umask=0o077,
                    )
            finally:
                os.close(log)
        except OSError as error:
            raise ServerError(f"{self._name}: does not start: {error.strerror}: {error.filename}") from None
        self.pid = self._process.pid

    async def _until_ready(self) -> None:
        silent_since = time.monotonic()
        while True:
            state = await self._loading()
            if state is False:
                break
            if state:
                silent_since = time.monotonic()
            if self._process is not None and self._process.poll() is not None:
                raise ServerError(f"{self._name}: does not run: {self.last_words()}; see {self._log.path}")
            if time.monotonic() - silent_since > _ANSWER_SECONDS:
                await self._end()
                raise ServerError(f"{self._name}: does not answer: {self.last_words()}; see {self._log.path}")
            await asyncio.sleep(_STEP_SECONDS)
        if self._process is not None:
            aof_damage.tell_of_cut(self._name, self._log.since_start())

    async def _loading(self) -> bool | None:
        """Whether the server still loads its data; None: it does not answer."""
        async with _client(self._config.socket) as client:
            try:
                return bool((await client.info("persistence"))["loading"])
            except (RedisError, OSError):
                return None

    async def _end(self) -> None:
        for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
            if self._runs():
                os.kill(self.pid, number)
                self.killed = number is signal.SIGKILL
            give_up = time.monotonic() + seconds
            while time.monotonic() < give_up:
                if self._gone():
                    self.pid = 0
                    return
                await asyncio.sleep(_STEP_SECONDS)
            logger.warning("%s: process %d did not react to %s", self._name, self.pid, number.name)
        raise HeldError(f"{self._name}: process {self.pid} cannot be ended")

    def _gone(self) -> bool:
        if self._runs() or (lock := self._files.lock()) is None:
            return False
        os.close(lock)
        return True

    def _runs(self) -> bool:
        """Whether `pid` is still the server: our own child, or a process that works in its folder."""
        if self._process is not None:
            return self._process.poll() is None
        try:
            return Path(f"/proc/{self.pid}/cwd").samefile(self._folder)
        except OSError:
            return False


def _client(socket: Path) -> Redis:
    return Redis(
        unix_socket_path=str(socket), socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0)
    )
