"""One profile from beginning to end: which profiler, where its files go, what host it was on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

import tvops
from tvops.errors import UsageError
from tvops.profiling.inside import InsideMode, profile_inside
from tvops.profiling.outside import (
    MissingToolError,
    Recording,
    RefusedByKernelError,
    attach_memray,
    check_memray,
    record_perf,
    record_py_spy,
)
from tvops.profiling.place import place_for
from tvops.profiling.subject import Subject
from tvops.tuning.fingerprint import Fingerprint, fingerprint
from tvops.tuning.host import Host
from tvops.whole_files import write_whole

Mode = Literal["cpu", "alloc", "perf"]
_INSIDE: dict[Mode, tuple[str, InsideMode]] = {"cpu": ("cProfile", "cpu"), "alloc": ("tracemalloc", "tracemalloc")}
"""What a service does without any tool."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What was profiled, how and where; stands as JSON beside the files."""

    service: str
    pid: int
    mode: Mode
    tool: str  # py-spy, memray, perf, cProfile or tracemalloc
    seconds: float
    time: str  # of its begin, UTC
    version: str
    files: tuple[str, ...]
    ended: bool = False  # the process, before its time: the files say what there was until then
    interrupted: bool = False  # by Ctrl-C, likewise
    note: str = ""  # why it is not the profiler that one would expect
    fingerprint: Fingerprint


def take_profile(
    subject: Subject, mode: Mode, seconds: float, folder: Path, inside: bool, tell: Callable[[str], None]
) -> tuple[Profile, Path]:
    """Profile a process and keep the result in ``folder``, where nothing stays of what fails.

    A worker of the stack profiles itself with Python's own means where the profiler for that is missing or may not
    look in. Ctrl-C keeps what a profiler outside of the process has seen until then.

    Args:
        subject: the process.
        mode: where its time goes (cpu), what it allocates (alloc), or its time with that of the kernel (perf).
        seconds: how long.
        folder: is made, for its owner only, where it is missing.
        inside: have the worker do that in any case.
        tell: is told what is about to be done, when nothing that can be looked at before stands in its way.

    Raises:
        UsageError: a process cannot profile itself so, or the files cannot be kept there.
        EndedError: the process ended before anything could be saved.
        KeyboardInterrupt: so did Ctrl-C.
        TvopsError: it failed; one line says why and what helps.
    """
    if inside and mode not in _INSIDE:
        raise UsageError(f"--inside: there is no {mode} from inside; take --mode cpu or alloc")
    begun = datetime.now(UTC)
    name = f"{subject.name}-{mode}-{begun:%Y%m%dT%H%M%SZ}-{subject.pid}"
    with place_for(folder, name) as stem:
        tell(f"profiling {subject.name}, process {subject.pid}, for {seconds:g} s")
        tool, recording, note = _record(subject, mode, seconds, stem, inside)
        profile = Profile(
            service=subject.name, pid=subject.pid, mode=mode, tool=tool, seconds=seconds, note=note,
            time=begun.isoformat(timespec="seconds"), version=tvops.__version__,
            files=tuple(file.name for file in recording.files), ended=recording.early == "ended",
            interrupted=recording.early == "interrupted", fingerprint=fingerprint(Host()),
        )  # fmt: skip
        path = stem.with_suffix(".json")
        write_whole(path, msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n")
    return profile, path


def _record(subject: Subject, mode: Mode, seconds: float, stem: Path, inside: bool) -> tuple[str, Recording, str]:
    """Give what was recorded, with which tool, and why it is not the one that one would expect."""
    note = ""
    if not inside:
        tool, record = _RECORDERS[mode]
        try:
            return tool, record(subject, seconds, stem), note
        except (MissingToolError, RefusedByKernelError) as error:
            if mode not in _INSIDE or not subject.answers:
                raise
            note = str(error)
    tool, wanted = _INSIDE[mode]
    return tool, Recording(profile_inside(subject, wanted, seconds, stem)), note


def _record_memray(subject: Subject, seconds: float, stem: Path) -> Recording:
    """Have a worker run memray by itself; a debugger, which may break what it stops, only gets it into others."""
    if not subject.answers:
        return attach_memray(subject, seconds, stem)
    check_memray()
    return Recording(profile_inside(subject, "memray", seconds, stem))


_RECORDERS = {"cpu": ("py-spy", record_py_spy), "alloc": ("memray", _record_memray), "perf": ("perf", record_perf)}
