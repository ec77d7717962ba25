"""What a process can have set of itself: CPUs, priority, timers, memory, limits. A reader and a writer of each."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from tvops.cpu_lists import format_cpus, parse_cpus
from tvops.engine import kernel_calls
from tvops.engine.stack_tuning import EffectState

_CAP_IPC_LOCK = 14


class NotPossibleError(Exception):
    """A value cannot be had; `str()` is the reason in one clause."""

    def __init__(self, state: EffectState, reason: str) -> None:
        super().__init__(reason)
        self.state: EffectState = state


def status_field(pid: int, field: str) -> str:
    """Give a field of /proc/PID/status; raise OSError where the process or the field is not there."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return line.partition(":")[2].strip()
    raise OSError(errno.ENOENT, f"the kernel does not tell {field}")


def _threads(pid: int) -> list[int]:
    return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]


def _read_affinity(pid: int) -> str:
    return format_cpus(tuple(os.sched_getaffinity(pid)))


def _write_affinity(pid: int, value: str) -> None:
    cpus = parse_cpus(value)
    for thread in _threads(pid):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cpus)


def _read_nice(pid: int) -> str:
    return str(os.getpriority(os.PRIO_PROCESS, pid))


def _write_nice(pid: int, value: str) -> None:
    for thread in _threads(pid):
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, thread, int(value))


def _read_fifo(pid: int) -> str:
    policy = os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK
    return str(os.sched_getparam(pid).sched_priority) if policy == os.SCHED_FIFO else "0"


def _write_fifo(pid: int, value: str) -> None:
    """Set the main thread only; what it starts gets none of it, so that a helper thread cannot hold a CPU."""
    priority = int(value)
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK if priority else os.SCHED_OTHER
    os.sched_setscheduler(pid, policy, os.sched_param(priority))


_MOST_SLACK_NS = 10**9


def _read_slack(pid: int) -> str:
    if pid == os.getpid():
        return str(kernel_calls.timer_slack())
    return Path(f"/proc/{pid}/timerslack_ns").read_text().strip()


def _write_slack(pid: int, value: str) -> None:
    if not 0 <= int(value) <= _MOST_SLACK_NS:  # the kernel reads -1 as for ever: no sleep would end
        raise OSError(errno.EINVAL, f"a timer slack is 0 to {_MOST_SLACK_NS} ns")
    kernel_calls.set_timer_slack(int(value))


def _read_thp(pid: int) -> str:
    if pid == os.getpid():
        return str(kernel_calls.thp_disabled())
    return "0" if status_field(pid, "THP_enabled") == "1" else "1"


def _write_thp(pid: int, value: str) -> None:
    kernel_calls.set_thp_disabled(int(value))


def _read_oom(pid: int) -> str:
    return Path(f"/proc/{pid}/oom_score_adj").read_text().strip()


def _write_oom(pid: int, value: str) -> None:
    Path(f"/proc/{pid}/oom_score_adj").write_text(value)


def _read_nofile(pid: int) -> str:
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            return line.split()[3]
    raise OSError(errno.ENOENT, "the kernel does not tell the limit")


def _write_nofile(pid: int, value: str) -> None:
    wanted = int(value)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (OSError, ValueError):  # ValueError: Python's word for EPERM here
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            reason = f"the hard limit is {hard}, and raising it needs CAP_SYS_RESOURCE"
            raise NotPossibleError("clamped", reason) from None
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _locked_kilobytes(pid: int) -> int:
    return int(status_field(pid, "VmLck").split()[0])


def _read_lock(pid: int) -> str:
    locked = _locked_kilobytes(pid)
    if not locked or pid != os.getpid():
        return "current" if locked else "none"
    with mmap.mmap(-1, 16 * mmap.PAGESIZE):  # whether what comes later is locked shows only in what comes later
        return "all" if _locked_kilobytes(pid) > locked else "current"


def _write_lock(pid: int, value: str) -> None:
    if value not in ("none", "current", "all"):
        raise ValueError("must be none, current or all")
    if value == "none":
        kernel_calls.unlock_memory()
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    may = int(status_field(pid, "CapEff"), 16) >> _CAP_IPC_LOCK & 1
    if value == "all" and not may and limit != resource.RLIM_INFINITY:
        # mlockall itself may well succeed; then the next large allocation of the process fails
        reason = f"RLIMIT_MEMLOCK is {limit >> 10} kB; needs CAP_IPC_LOCK, or the limit lifted"
        raise NotPossibleError("denied", reason)
    kernel_calls.lock_memory(future=value == "all")


def _read_node(pid: int) -> str:
    if pid != os.getpid():
        raise OSError(errno.EPERM, "only the process itself can tell")
    node = kernel_calls.preferred_node()
    return "default" if node is None else str(node)


def _write_node(pid: int, value: str) -> None:
    nodes = list(Path("/sys/devices/system/node").glob("node[0-9]*"))
    if value != "default" and len(nodes) < 2:
        raise NotPossibleError("unsupported", "this host has one NUMA node")
    kernel_calls.prefer_node(None if value == "default" else int(value))


class Attribute(NamedTuple):
    """One thing that a process has; `write` and `read` take its pid and a canonical value."""

    read: Callable[[int], str]
    write: Callable[[int, str], None]
    needs: str  # the privilege, where the kernel refuses
    to_child: Literal["pid", "birth", "never"]  # how another process gets it: by its pid, when it is started


ATTRIBUTES = {
    "nofile": Attribute(_read_nofile, _write_nofile, "CAP_SYS_RESOURCE", "birth"),
    "oom_score_adj": Attribute(_read_oom, _write_oom, "CAP_SYS_RESOURCE", "pid"),
    "thp_disable": Attribute(_read_thp, _write_thp, "", "birth"),
    "numa_node": Attribute(_read_node, _write_node, "", "birth"),
    "affinity": Attribute(_read_affinity, _write_affinity, "", "pid"),
    "timer_slack": Attribute(_read_slack, _write_slack, "", "birth"),
    "nice": Attribute(_read_nice, _write_nice, "CAP_SYS_NICE", "pid"),
    "sched_fifo": Attribute(_read_fifo, _write_fifo, "CAP_SYS_NICE", "pid"),
    "mlockall": Attribute(_read_lock, _write_lock, "CAP_IPC_LOCK", "never"),
}
"""In the order in which they are set: a thread of a real-time class has no timer slack left to set.

`affinity` CPUs, `nice` -20 to 19, `sched_fifo` 1 to 99 (0: the usual class), `timer_slack` ns, `mlockall` none,
current or all (what comes later too), `thp_disable` 0 or 1, `oom_score_adj`, `nofile` open files, `numa_node` a
node's number or default.
"""

INHERITED = frozenset(ATTRIBUTES) - {"mlockall", "sched_fifo"}
"""What a child gets from its parent. SCHED_FIFO is set in a way that it does not."""


def read_attribute(name: str, pid: int) -> str | None:
    """Give what a process has; None where that cannot be known from here."""
    try:
        return ATTRIBUTES[name].read(pid)
    except (OSError, ValueError):
        return None
