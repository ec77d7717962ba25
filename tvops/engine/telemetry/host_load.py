"""The machine that the stack runs on: cores, memory, drops, what waits in sockets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tvops.control_groups import group_folders
from tvops.engine.telemetry import proc_files
from tvops.engine.telemetry.document import HostLoad
from tvops.engine.telemetry.socket_queues import queued_bytes

_IDLE: Final = (3, 4)  # idle and iowait, of the columns of /proc/stat (proc(5))
_STEAL: Final = 7
_COLUMNS: Final = 8  # the guests' two behind them are in user and nice already
_NO_LIMIT: Final = 1 << 60  # cgroup v1 says this much and more


class HostProbe:
    """Looks at the machine."""

    def __init__(self, ports: Sequence[int] = (), root: Path = Path("/")) -> None:
        """Look at the host below ``root``, and at the sockets of these local ports."""
        self._ports = tuple(ports)
        self._root = str(root).rstrip("/")
        self._limits = _memory_limits(root)
        self._cores: list[list[int]] = []

    def sample(self) -> HostLoad:
        """Give the state of now; busy and stolen percent are of the time since the last sample, 0 at the first."""
        cores = list(_core_times(self._text("/proc/stat")))
        before = self._cores if len(self._cores) == len(cores) else cores
        spent = [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(before, cores, strict=True)]
        self._cores = cores
        total, available = self._memory()
        return HostLoad(
            cores=tuple(_percent(sum(core) - sum(core[column] for column in _IDLE), sum(core)) for core in spent),
            steal_percent=_percent(sum(core[_STEAL] for core in spent), sum(map(sum, spent))),
            load=os.getloadavg()[0],
            memory=total,
            available=available,
            udp_drops=self._counter("/proc/net/snmp", "Udp:", "RcvbufErrors") + self._udp6_drops(),
            listen_drops=self._counter("/proc/net/netstat", "TcpExt:", "ListenDrops"),
            socket_queues=queued_bytes(self._ports),
        )

    def _memory(self) -> tuple[int, int]:
        """Give the bytes in all and available: of the host, or of the control group that leaves least."""
        rows = (line.split() for line in self._text("/proc/meminfo").splitlines())
        values = {row[0]: int(row[1]) * 1024 for row in rows if len(row) > 1}
        total, available = values.get("MemTotal:", 0), values.get("MemAvailable:", 0)
        for limit, used, folder in self._limits:
            with contextlib.suppress(ValueError):
                size = int(proc_files.read(folder / limit))  # "max" is none
                if size < min(total, _NO_LIMIT):
                    total, available = size, min(available, size)
                    available = min(available, max(0, size - int(proc_files.read(folder / used)) + _cache(folder)))
        return total, available

    def _udp6_drops(self) -> int:
        found = self._text("/proc/net/snmp6").partition("Udp6RcvbufErrors")[2]
        return int(found.split(maxsplit=1)[0]) if found else 0

    def _counter(self, path: str, group: str, name: str) -> int:
        """Give a counter of a file with two lines for each group: names, then values; 0 where it is not there."""
        lines = [line.split() for line in self._text(path).splitlines() if line.startswith(group)]
        names, values = lines if len(lines) == 2 else ([], [])
        return int(values[names.index(name)]) if name in names else 0

    def _text(self, path: str) -> str:
        return proc_files.read(f"{self._root}{path}").decode(errors="replace")


def _core_times(text: str) -> Iterator[list[int]]:
    for line in text.splitlines():
        if line.startswith("cpu") and line[3:4].isdigit():
            yield [int(word) for word in line.split()[1 : _COLUMNS + 1]]


def _percent(part: int, whole: int) -> float:
    return min(100.0, max(0.0, 100 * part / whole)) if whole > 0 else 0.0


def _memory_limits(root: Path) -> list[tuple[str, str, Path]]:
    """Give the names of the files of limit and use, and the folders that have them, of every group above us."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = [root / folder.lstrip("/") for folder in group_folders(lines, "memory")]
    names = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    return [(limit, used, folder) for folder in folders for limit, used in names if (folder / limit).exists()]


def _cache(folder: Path) -> int:
    """Give the bytes of a group's file cache that nobody has used of late, which the kernel gives up first."""
    rows = dict(line.split() for line in proc_files.read(folder / "memory.stat").splitlines())
    return int(rows.get(b"total_inactive_file", rows.get(b"inactive_file", 0)))
