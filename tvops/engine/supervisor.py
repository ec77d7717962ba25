"""The supervisor: owns the data directory, the embedded servers and the worker processes.

It imports neither numba nor the services, so that it stays small, and talks to each worker over the worker's
standard streams (see `worker.py`). A worker that dies is restarted after a back-off that doubles from 0.1 s to
5 s and starts anew once the worker was up for 30 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from tvops.engine.bus.servers import EmbeddedServers
from tvops.engine.in_force import InForce
from tvops.engine.stack_tuning import Effect, StackTuning
from tvops.engine.telemetry import proc_files
from tvops.engine.telemetry.uptime import Past, Uptime
from tvops.errors import HeldError, TvopsError, UsageError
from tvops.settings import Settings

WORKER_STOP_SECONDS = {"market": 1.8, "engine": 2.2}
BACKOFF_FIRST, BACKOFF_MOST, STABLE_SECONDS = 0.1, 5.0, 30.0
MAX_LINE_BYTES = 1 << 20
REPORT_SECONDS = 1.0
MALLOC_SETTINGS = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000",
}
"""Fixed thresholds (mallopt(3)): glibc raises its own with every large block freed, and then keeps the memory."""

logger = logging.getLogger(__name__)


class WorkerStatus(msgspec.Struct):
    """A status line of a worker, as read (the writer's side is `worker.Status`)."""

    pid: int
    ready: bool
    services: dict[str, tuple[str, str]] = {}
    stats: dict[str, dict[str, float | int | str]] = {}
    fatal: str = ""
    effects: list[Effect] = []


@dataclass
class Worker:
    """One worker process and what is known of it."""

    name: str
    process: asyncio.subprocess.Process | None = None
    status: WorkerStatus | None = None
    status_time: float = 0.0
    effects: list[Effect] = field(default_factory=list)
    past: Past = field(default_factory=Past)
    uptime: Uptime = field(default_factory=lambda: Uptime(Past()))
    started: float = field(default_factory=time.monotonic)

    @property
    def ready(self) -> bool:
        """Whether the process is up and its newest status, not older than 5 s, says so."""
        fresh = time.monotonic() - self.status_time < 5.0
        return self.process is not None and self.status is not None and self.status.ready and fresh


class DataDirectory:
    """The data directory, held by one supervisor at a time (an flock, so that a crash lets go of it)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def acquire(self, about: str) -> None:
        """Make and lock the directory; raise HeldError naming the holder, TvopsError if it cannot be made."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = open(self.path / "serve.lock", "a+b")  # noqa: SIM115, PTH123 - held until release
        except OSError as error:
            raise TvopsError(
                f"data directory {self.path}: {error.strerror}; choose another with --data-dir"
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip()
            file.close()
            raise HeldError(
                f"data directory {self.path} is held by {holder or 'another process'}; "
                "stop it, or choose another directory with --data-dir"
            ) from None
        file.truncate(0)
        file.write(f"tvops serve, pid {os.getpid()}, {about}".encode())
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let go of the directory."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


class Supervisor:
    """Runs the stack of one `Settings`, with what its profile wants of it, until it is told to stop."""

    def __init__(self, settings: Settings, tuning: StackTuning | None = None) -> None:
        self.settings = settings
        self.directory = DataDirectory(settings.data_path)
        self._in_force = InForce(tuning or StackTuning(), settings.data_path)
        self.servers = EmbeddedServers(settings, self._in_force.for_children)
        self.workers = [Worker(name) for name in ("engine", "market") if name in settings.services]
        self.fatal: TvopsError | None = None
        self.started = time.monotonic()
        self.killed: list[str] = []
        """Parts of the stack that did not end in time when it stopped."""
        self._stop = asyncio.Event()
        self._urls: dict[str, str] = {}

    def request_stop(self) -> None:
        """Ask `run` to end; safe to call from a signal handler, and more than once."""
        self._stop.set()

    @property
    def ready(self) -> bool:
        """Whether every worker serves."""
        return all(worker.ready for worker in self.workers)

    async def run(self) -> None:
        """Start everything, watch over it, and end it cleanly.

        Raises:
            TvopsError: the stack cannot start or go on, and a restart of a part does not help.
        """
        settings = self.settings
        self.directory.acquire(f"http://{settings.host}:{settings.gateway_port} and :{settings.market_port}")
        tasks: list[asyncio.Task[None]] = []
        try:
            self._check_ports()
            self._in_force.tune()
            self._urls = await self.servers.start()
            tasks = [asyncio.create_task(self._keep_running(worker)) for worker in self.workers]
            tasks += [asyncio.create_task(self.servers.supervise()), asyncio.create_task(self._keep_report())]
            stopped = asyncio.create_task(self._stop.wait())
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()):
                    raise error
        finally:
            self._stop.set()
            await self._stop_workers()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.killed += await self.servers.stop()
            self._in_force.release()
            self.directory.release()
        if self.fatal is not None:
            raise self.fatal

    def _check_ports(self) -> None:
        ports = {"engine": self.settings.gateway_port, "market": self.settings.market_port}
        if len(self.settings.services) == 2 and ports["engine"] == ports["market"]:
            raise HeldError(f"gateway_port and market_port are both {ports['engine']}; give each its own")
        for worker in self.workers:
            port = ports[worker.name]
            option = "--gateway-port" if worker.name == "engine" else "--market-port"
            family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.settings.host, port))
                except OSError as error:
                    address = f"{self.settings.host}:{port}"
                    raise HeldError(
                        f"cannot listen on {address}: {error.strerror}; choose another with {option}"
                    ) from None

    async def _keep_running(self, worker: Worker) -> None:
        backoff = BACKOFF_FIRST
        while not self._stop.is_set():
            worker.started = time.monotonic()
            if not worker.past.begun:
                worker.past = Past(begun=time.monotonic_ns())
            code = await self._run_once(worker)
            if self._stop.is_set():
                return
            if worker.status is not None and worker.status.fatal:
                kind = UsageError if code == UsageError.exit_code else TvopsError
                self.fatal = kind(worker.status.fatal)
                self._stop.set()
                return
            if time.monotonic() - worker.started > STABLE_SECONDS:
                backoff = BACKOFF_FIRST
            worker.status = None
            worker.past = worker.uptime.ended(time.monotonic_ns(), _exit(code))
            logger.warning("worker %s ended with %s; restarting it in %.1f s", worker.name, _exit(code), backoff)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), backoff)
            backoff = min(backoff * 2, BACKOFF_MOST)

    async def _run_once(self, worker: Worker) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tvops.engine.worker", worker.name,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True, limit=MAX_LINE_BYTES, env={**MALLOC_SETTINGS, **os.environ},
        )  # fmt: skip
        worker.process = process
        worker.uptime = Uptime(worker.past)
        assert process.stdin is not None
        configuration = {"settings": self.settings, "urls": self._urls, "tuning": self._in_force.for_children}
        configuration["past"] = worker.past
        process.stdin.write(msgspec.json.encode(configuration) + b"\n")
        await asyncio.gather(self._read_status(worker, process), _pass_on_log(process))
        code = await process.wait()
        worker.process = None
        return code

    async def _read_status(self, worker: Worker, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await _read_line(process.stdout):
            try:
                worker.status = msgspec.json.decode(line, type=WorkerStatus)
                worker.status_time = time.monotonic()
                worker.uptime.update(time.monotonic_ns(), worker.status.ready)
                worker.effects = worker.status.effects or worker.effects
            except msgspec.DecodeError:
                logger.warning("worker %s printed: %s", worker.name, line[:200].decode(errors="replace").strip())

    async def _stop_workers(self) -> None:
        """End the workers one after the other, market data first, so that its last commands are still taken."""
        for worker in sorted(self.workers, key=lambda w: list(WORKER_STOP_SECONDS).index(w.name)):
            process = worker.process
            if process is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), WORKER_STOP_SECONDS[worker.name])
            except TimeoutError:
                logger.warning("worker %s did not stop in time and was killed", worker.name)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                self.killed.append(f"{worker.name} worker")

    def effects(self) -> list[Effect]:
        """Tell what every process of the stack has in force of the profile, and what not."""
        return self._in_force.effects([*self.servers.effects(), *(e for w in self.workers for e in w.effects)])

    async def _keep_report(self) -> None:
        while True:
            processes = {worker.name: [worker.process.pid] for worker in self.workers if worker.process}
            self._in_force.write(processes | {"redis": self.servers.pids()}, self.effects())
            await asyncio.sleep(REPORT_SECONDS)

    def memory_bytes(self) -> int:
        """Give the proportional set size (shared pages counted once) of every process of the stack."""
        pids = [os.getpid(), *(w.process.pid for w in self.workers if w.process), *self.servers.pids()]
        return sum(proc_files.proportional(pid) or proc_files.resident(pid) for pid in pids)


def _exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # a line over the limit: asyncio has dropped it
        return b"\n"


async def _pass_on_log(process: asyncio.subprocess.Process) -> None:
    """Hand the worker's log lines to our stderr, which a live status line may be guarding."""
    assert process.stderr is not None
    while line := await _read_line(process.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more: that is no reason to end the stack
            sys.stderr.write(line.decode(errors="replace"))
            sys.stderr.flush()
