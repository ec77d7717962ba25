"""A stack of bench's own: `tvops serve` on free ports, with a data directory that goes away with it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import psutil

from tvops.bench.addresses import fetch
from tvops.bench.open_orders import allow_open_orders
from tvops.engine.telemetry.processes import server_of
from tvops.errors import ServerError, TvopsError

READY_SECONDS = 300.0  # the first stack on a host compiles its kernels: half a minute, and more on a slow one
_STOP_SECONDS = 8.0
"""In which the stack ends in good order; then it is killed: its data goes away in any case."""

_KILL_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1
_PREFIX = "tvops-bench-"
_LOG = "serve.log"
_DATA = "data"
_YOUNG_SECONDS = 60.0
"""A folder younger than this may be of a bench that has not locked its log yet."""


class StackEndedError(TvopsError):
    """A stack of bench's own ended by itself."""


def free_port() -> int:
    """Give a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OwnStackProcess:
    """A running `tvops serve`, ended on the way out; use it as an async context."""

    def __init__(
        self,
        feed: str,
        settings: Mapping[str, object],
        cores: frozenset[int] | None = None,
        open_orders: int = 0,
    ) -> None:
        """Prepare one.

        Args:
            feed: of market data.
            settings: of `tvops serve`.
            cores: that it may use; None: all.
            open_orders: that an account has to be able to have.
        """
        self._feed = feed
        self._settings = settings
        self._cores = cores
        self._open_orders = open_orders
        self._gateway, self._market = free_port(), free_port()
        self._endings = contextlib.ExitStack()

    @property
    def gateway(self) -> str:
        """Address of the order gateway."""
        return f"http://127.0.0.1:{self._gateway}"

    @property
    def market(self) -> str:
        """Address of market data."""
        return f"http://127.0.0.1:{self._market}"

    async def __aenter__(self) -> OwnStackProcess:
        try:
            self._start()
            await self._ready()
            await asyncio.to_thread(allow_open_orders, self.gateway, self._open_orders)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self.end))
            raise
        return self

    def _start(self) -> None:
        _remove_leftovers()
        endings = self._endings
        place = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
        self._folder = folder = Path(endings.enter_context(place))
        self._log = endings.enter_context((folder / _LOG).open("w+b"))
        fcntl.flock(self._log, fcntl.LOCK_EX)  # held by the whole stack, which writes to it
        arguments = [
            "serve", "--feed", self._feed, "--data-dir", str(folder / _DATA),
            "--gateway-port", str(self._gateway), "--market-port", str(self._market),
            "--set", "log_level=error",
        ]  # fmt: skip
        for key, value in self._settings.items():
            arguments += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
        # Nothing of the user's own stack may reach this one: not its servers, not its settings.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TVOPS_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tvops", *arguments],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=environment,
            start_new_session=True, preexec_fn=self._prepare,
        )  # fmt: skip
        endings.callback(self._stop)

    def _prepare(self) -> None:
        """In the child: end with bench, heed the signal that ends it, and leave the cores of bench alone."""
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # bench ignores it once it has been interrupted
        if self._cores:
            os.sched_setaffinity(0, self._cores)

    async def _ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not all([await asyncio.to_thread(_healthy, url) for url in (self.gateway, self.market)]):
            if self.process.poll() is not None:
                raise TvopsError(f"the stack of the bench did not start: {self._last_words()}")
            if time.monotonic() > deadline:
                raise TvopsError(f"the stack of the bench was not ready after {READY_SECONDS:g} s")
            await asyncio.sleep(0.1)

    @property
    def ending(self) -> StackEndedError | None:
        """What to raise where it has ended by itself, which is a failure of what runs meanwhile."""
        code = self.process.poll()
        return None if code is None else StackEndedError(f"the stack of the bench ended with {code}")

    async def ended(self) -> NoReturn:
        """Wait until it ends by itself; raise StackEndedError then."""
        while (ending := self.ending) is None:  # noqa: ASYNC110  (no event tells of it)
            await asyncio.sleep(_LOOK_SECONDS)
        raise ending

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read(1 << 16).decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"it ended with {self.process.returncode}"

    async def __aexit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.shield(asyncio.to_thread(self.end))

    def end(self) -> None:
        """End what there is of it, and remove its folder; a second time does nothing."""
        self._endings.close()

    def _stop(self) -> None:
        below = _below(self.process.pid)
        try:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            _kill([*below, *_servers(self._folder)])


def _below(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _servers(folder: Path) -> list[psutil.Process]:
    """Give the servers of a stack by its folder: they outlive what started them where that was killed."""
    found = []
    for path in (folder / _DATA / "valkey").glob("*/server.pid"):
        if pid := server_of(path):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
    return found


def _kill(processes: Sequence[psutil.Process]) -> None:
    """Kill those that still run, and wait for their end."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=_KILL_SECONDS)


def _remove_leftovers() -> None:
    """Remove the folders of benches that were killed, and end the servers that are left of their stacks."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            about = folder.lstat()
            if about.st_uid != os.geteuid() or time.time() - about.st_mtime < _YOUNG_SECONDS:
                continue
            with (folder / _LOG).open("rb") as log:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _kill(_servers(folder))
                shutil.rmtree(folder, ignore_errors=True)


def _healthy(url: str) -> bool:
    try:
        fetch(url, "/health", timeout=2.0)
    except ServerError:
        return False
    return True
