"""The process that is to be profiled."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Final, NamedTuple

from tvops.engine.tuning_report import read_report, started
from tvops.errors import TvopsError, UsageError

SERVICES: Final = ("engine", "market", "supervisor")
WAIT_SECONDS = 10.0
"""How long a stack that is starting is waited for."""

_WORKERS: Final = ("engine", "market")
_SETTLED_SECONDS = 3.0  # the supervisor looks every second, and writes down what has changed


class NotYetError(TvopsError):
    """The stack is there, but is still starting."""


class EndedError(TvopsError):
    """A process ended while it was profiled."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} ended while it was profiled; nothing was saved")


class Subject(NamedTuple):
    """A process."""

    name: str  # engine, market, supervisor or process
    pid: int
    started: int  # in clock ticks since boot: a pid may be used again
    folder: Path | None = None  # data directory, of a worker: it can profile itself

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that waits for its parent to hear of its end does not (proc(5), stat)."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return False
        return state not in "ZX" and started(self.pid) == self.started

    @property
    def answers(self) -> bool:
        """Whether it waits for requests to profile itself: without that SIGUSR2 would end it (proc(5), SigCgt)."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
            caught = int(status.partition("\nSigCgt:")[2].split()[0], 16)
        except (OSError, ValueError, IndexError):
            return False
        return self.folder is not None and bool(caught & 1 << signal.SIGUSR2 - 1)


def find_subject(service: str | None, pid: int | None, folder: Path) -> Subject:
    """Give the process of a service of the stack that runs on ``folder``, or the process ``pid``.

    Without either it is the engine, or what runs instead of it. A stack that is starting is waited for.

    Raises:
        UsageError: both are given, or there is no such service.
        NotYetError: the stack has been starting for all of `WAIT_SECONDS`.
        TvopsError: no such process runs.
    """
    if pid is not None:
        if service is not None:
            raise UsageError(f"{service} and --pid {pid}: give one of them")
        subject = Subject("process", pid, started(pid))
        if not subject.alive:
            raise UsageError(f"--pid {pid}: there is no such process")
        return subject
    if service is not None and service not in SERVICES:
        raise UsageError(f"{service}: there is no such service; there are {', '.join(SERVICES)}")
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return _find_service(service, folder)
        except NotYetError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.1)


def _find_service(service: str | None, folder: Path) -> Subject:
    try:
        report = read_report(folder)
    except PermissionError:
        raise TvopsError(f"data directory {folder}: belongs to somebody else; run this as its owner") from None
    starting = NotYetError(f"the stack on {folder} is still starting; try again in a moment")
    if report is None:
        if _held(folder / "serve.lock"):
            raise starting
        raise TvopsError(f"no stack runs on {folder}; name its --data-dir, or a process with --pid")
    running = [name for name in SERVICES if report.processes.get(name)]
    name = service or next((name for name in running if name in _WORKERS), None)
    if name is None or (name not in running and time.time() - report.time < _SETTLED_SECONDS):
        raise starting
    if name not in running:
        raise TvopsError(f"{name}: does not run in the stack on {folder}; there run {', '.join(running)}")
    found = report.processes[name][0]
    if name not in _WORKERS:
        return Subject(name, found, started(found))
    subject = Subject(name, found, started(found), folder)
    if not subject.answers:
        raise NotYetError(f"{name}, process {found}, is still starting; try again in a moment")
    return subject


def _held(lock: Path) -> bool:
    """Tell whether somebody holds a lock; to try it could keep the stack from taking it (proc(5), locks)."""
    try:
        inode = f":{lock.stat().st_ino}"
        locks = Path("/proc/locks").read_text().splitlines()
        return any("FLOCK" in line and line.split()[-3].endswith(inode) for line in locks)
    except (OSError, IndexError):
        return False
