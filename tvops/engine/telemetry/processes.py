"""The processes of the stack: what each takes of the machine.

Figures come straight from `/proc` (proc(5)) and from each process's CPU clock (clock_getcpuclockid(3)), which
counts nanoseconds where `/proc` counts hundredths of a second. The proportional set size takes a walk over all
of a process's memory: one process a sample is asked for it, the one whose figure is oldest.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import psutil

from tvops.engine.telemetry import proc_files
from tvops.engine.telemetry.document import Process
from tvops.engine.telemetry.growth import Growth

PSS_SECONDS: Final = 10.0
"""How old a proportional set size may become before it is asked for again."""

SERVER: Final = " server"
"""What the names of servers end with."""

_LOOK_SECONDS = 5.0  # between searches for processes; at once where one has gone
_TICK = os.sysconf("SC_CLK_TCK")
_MODULE = "tvops.engine.worker"


class _Seen:
    """What is remembered of a process between two samples."""

    def __init__(self, name: str, ticks: int) -> None:
        self.name, self.ticks = name, ticks  # ticks: when it started, since boot
        self.cpu = self.time = 0  # ns
        self.pss = 0
        self.measured = float("-inf")  # when its memory was
        self.growth = Growth()


class ProcessProbe:
    """Looks at the supervisor, its workers and its embedded servers."""

    def __init__(
        self,
        data_path: Path,
        supervisor: int | None = None,
        name: str = "engine",
        budgets: Mapping[str, int] | None = None,
    ) -> None:
        """Watch the stack that this process belongs to.

        Args:
            data_path: the data directory; the servers' pid files are below it.
            supervisor: its process; this one's parent without it.
            name: what this process is called.
            budgets: bytes that each process should stay within, by name.
        """
        self._data_path = data_path
        self._supervisor = os.getppid() if supervisor is None else supervisor
        self._name = name
        self._budgets = budgets or {}
        self._seen: dict[int, _Seen] = {}
        self._looked = float("-inf")
        self._boot = int(psutil.boot_time() * 1e9)

    def sample(self) -> tuple[Process, ...]:
        """Give every process as it is now, in the order in which they were found.

        A process that was not there at the last sample shows 0 % of CPU, one that has gone is left out. Takes
        about a millisecond, and some more in the turn of a process with much memory: call it in a thread.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._look(now)
        self._measure_one(now)
        found = [process for pid in self._seen if (process := self._read(pid)) is not None]
        if len(found) < len(self._seen):
            self._looked = float("-inf")
        return tuple(found)

    def _look(self, now: float) -> None:
        """Find the processes; one that has the pid of another before it is a new one."""
        self._looked = now
        before, self._seen = self._seen, {}
        for name, pid in self._find():
            if (ticks := _started(pid)) is not None:
                known = before.get(pid)
                self._seen[pid] = known if known is not None and known.ticks == ticks else _Seen(name, ticks)

    def _measure_one(self, now: float) -> None:
        """Ask the process whose figure is oldest for its proportional set size."""
        if not self._seen:
            return
        pid, seen = min(self._seen.items(), key=lambda item: item[1].measured)
        if now - seen.measured >= PSS_SECONDS:
            seen.measured = now
            seen.pss = proc_files.proportional(pid)
            seen.growth.add(now, seen.pss or proc_files.resident(pid))

    def _find(self) -> list[tuple[str, int]]:
        found = {self._supervisor: "supervisor", os.getpid(): self._name}
        for pid in _children(self._supervisor):
            words = proc_files.read(f"/proc/{pid}/cmdline").split(b"\0")
            if _MODULE.encode() in words[:-1]:
                found[pid] = words[words.index(_MODULE.encode()) + 1].decode(errors="replace")
        for path in sorted((self._data_path / "valkey").glob("*/server.pid")):
            if server := server_of(path):
                found[server] = path.parent.name + SERVER
        return [(name, pid) for pid, name in found.items()]

    def _read(self, pid: int) -> Process | None:
        seen = self._seen[pid]
        fields = proc_files.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        if len(fields) < 22 or fields[0] in (b"Z", b"X") or int(fields[19]) != seen.ticks:
            return None
        cpu, moment = _cpu_time(pid), time.monotonic_ns()
        percent = 100 * (cpu - seen.cpu) / (moment - seen.time) if seen.time else 0.0
        seen.cpu, seen.time = cpu, moment
        voluntary, involuntary = _switches(pid)
        return Process(
            name=seen.name,
            pid=pid,
            started=self._boot + seen.ticks * 1_000_000_000 // _TICK,
            cpu_percent=max(0.0, percent),
            rss=proc_files.resident(pid),
            pss=seen.pss,
            threads=int(fields[17]),
            descriptors=_descriptors(pid),
            voluntary_switches=voluntary,
            involuntary_switches=involuntary,
            major_faults=int(fields[9]),
            budget=self._budgets.get(seen.name, 0),
            slope=seen.growth.slope,
            # what a server takes grows up to its maxmemory, and has a metric of its own
            leaking=seen.growth.leaking and not seen.name.endswith(SERVER),
        )


def _children(pid: int) -> Iterable[int]:
    """Give the children of every thread of a process; without such lists by a look at everything."""
    try:
        lists = [thread / "children" for thread in Path(f"/proc/{pid}/task").iterdir()]
        return [int(child) for path in lists for child in path.read_bytes().split()]
    except OSError:
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
    return []


def server_of(pid_file: Path) -> int:
    """Give the process that a server's pid file names; 0 where that does not work in the file's folder."""
    try:
        pid = int(proc_files.read(str(pid_file)) or b"0")
        return pid if pid > 0 and Path(f"/proc/{pid}/cwd").samefile(pid_file.parent) else 0
    except (OSError, ValueError):
        return 0


def _started(pid: int) -> int | None:
    fields = proc_files.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


def _cpu_time(pid: int) -> int:
    """Give the CPU time that a process has taken, all threads, ns; 0 where it has gone."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)  # CPUCLOCK_SCHED of a process
    except OSError:
        return 0


def _switches(pid: int) -> tuple[int, int]:
    """Give the voluntary and the involuntary context switches of a process's main thread, which runs its loop."""
    _, _, tail = proc_files.read(f"/proc/{pid}/status").rpartition(b"\nvoluntary_ctxt_switches:")
    words = tail.split()
    return (int(words[0]), int(words[2])) if len(words) > 2 else (0, 0)


def _descriptors(pid: int) -> int:
    """Count open files: Linux 6.2 and later keep the count as the folder's size."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        return folder.stat().st_size or sum(1 for _ in folder.iterdir())
    except OSError:
        return 0
