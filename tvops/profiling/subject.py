"""The process that is to be profiled."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final, NamedTuple

from tvops.engine.tuning_report import read_report, started
from tvops.errors import TvopsError, UsageError

SERVICES: Final = ("engine", "market", "supervisor")
_WORKERS: Final = ("engine", "market")


class Subject(NamedTuple):
    """A process."""

    name: str  # engine, market, supervisor or process
    pid: int
    started: int  # in clock ticks since boot: a pid may be used again
    folder: Path | None = None  # data directory, of a worker: it can profile itself

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return started(self.pid) == self.started

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

    Without either it is the engine, or what runs instead of it.

    Raises:
        UsageError: both are given, or there is no such service.
        TvopsError: no such process runs.
    """
    if pid is not None:
        if service is not None:
            raise UsageError(f"{service} and --pid {pid}: give one of them")
        if (since := started(pid)) < 0:
            raise UsageError(f"--pid {pid}: there is no such process")
        return Subject("process", pid, since)
    if service is not None and service not in SERVICES:
        raise UsageError(f"{service}: there is no such service; there are {', '.join(SERVICES)}")
    try:
        report = read_report(folder)
    except PermissionError:
        raise TvopsError(f"data directory {folder}: belongs to somebody else; run this as its owner") from None
    if report is None:
        raise TvopsError(f"no stack runs on {folder}; name its --data-dir, or a process with --pid")
    running = [name for name in SERVICES if report.processes.get(name)]
    name = service or running[0]
    if name not in running:
        raise TvopsError(f"{name}: does not run in the stack on {folder}; there run {', '.join(running)}")
    found = report.processes[name][0]
    return Subject(name, found, started(found), folder if name in _WORKERS else None)
