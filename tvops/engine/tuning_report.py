"""`tuning.json` in the data directory: what the running stack has in force of its profile."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from tvops.engine.private_files import open_private, write_private
from tvops.engine.stack_tuning import Effect

FILE_NAME = "tuning.json"
MAX_REPORT_BYTES = 1 << 20


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one running stack has in force; it counts for as long as its supervisor lives."""

    profile: str
    pid: int  # of the supervisor
    started: int  # when that process started, in clock ticks since boot: a pid may be used again
    time: float  # of this report, seconds since 1970
    processes: dict[str, list[int]]  # of stack_tuning.PROCESSES: name -> pids
    effects: list[Effect]

    @property
    def current(self) -> bool:
        """Whether the stack still runs."""
        return started(self.pid) == self.started


def started(pid: int) -> int:
    """Give when a process started (proc(5), stat, field 22); -1 where there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return -1


def write_report(folder: Path, report: Report) -> None:
    """Write the report whole or not at all, for its owner only; raise OSError."""
    write_private(folder / FILE_NAME, msgspec.json.encode(report) + b"\n")


def remove_report(folder: Path) -> None:
    """Take the report away, if it is there."""
    with contextlib.suppress(OSError):
        (folder / FILE_NAME).unlink()


def read_report(folder: Path) -> Report | None:
    """Give the report of the stack that runs on ``folder``; None where none runs.

    Raises:
        PermissionError: it belongs to somebody else.
    """
    try:
        with open_private(folder / FILE_NAME) as file:
            report = msgspec.json.decode(file.read(MAX_REPORT_BYTES), type=Report)
    except PermissionError:
        raise
    except (OSError, msgspec.DecodeError, RecursionError):
        return None
    return report if report.current else None
