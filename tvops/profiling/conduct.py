"""One profile from beginning to end: which profiler, where its files go, what host it was on."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

import tvops
from tvops.errors import TvopsError, UsageError
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
from tvops.profiling.subject import Subject
from tvops.tuning.fingerprint import Fingerprint, fingerprint
from tvops.tuning.host import Host

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
    note: str = ""  # why it is not the profiler that one would expect
    fingerprint: Fingerprint


def take_profile(subject: Subject, mode: Mode, seconds: float, folder: Path, inside: bool) -> tuple[Profile, Path]:
    """Profile a process and keep the result in ``folder``.

    A worker of the stack profiles itself with Python's own means where the profiler for that is missing or may not
    look in.

    Args:
        subject: the process.
        mode: where its time goes (cpu), what it allocates (alloc), or its time with that of the kernel (perf).
        seconds: how long.
        folder: is made, for its owner only, where it is missing.
        inside: have the worker do that in any case.

    Raises:
        UsageError: a process cannot profile itself so.
        EndedError: the process ended before anything could be saved.
        TvopsError: it failed; one line says why and what helps.
    """
    if inside and mode not in _INSIDE:
        raise UsageError(f"--inside: there is no {mode} from inside; take --mode cpu or alloc")
    begun = datetime.now(UTC)
    stem = _prepare(folder) / f"{subject.name}-{mode}-{begun:%Y%m%dT%H%M%SZ}-{subject.pid}"
    before, note = os.umask(0o077), ""
    try:
        tool, record = _RECORDERS[mode]
        try:
            recording = Recording([]) if inside else record(subject, seconds, stem)
        except (MissingToolError, RefusedByKernelError) as error:
            if mode not in _INSIDE or not subject.answers:
                raise
            note = str(error)
        if inside or note:
            tool, wanted = _INSIDE[mode]
            recording = Recording(profile_inside(subject, wanted, seconds, stem))
        profile = Profile(
            service=subject.name, pid=subject.pid, mode=mode, tool=tool, seconds=seconds, note=note,
            time=begun.isoformat(timespec="seconds"), version=tvops.__version__,
            files=tuple(file.name for file in recording.files), ended=recording.ended,
            fingerprint=fingerprint(Host()),
        )  # fmt: skip
        path = stem.with_suffix(".json")
        path.write_bytes(msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n")
    except OSError as error:
        raise TvopsError(f"--output {folder}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return profile, path


def _record_memray(subject: Subject, seconds: float, stem: Path) -> Recording:
    """Have a worker run memray by itself; a debugger, which may break what it stops, only gets it into others."""
    if not subject.answers:
        return attach_memray(subject, seconds, stem)
    check_memray()
    return Recording(profile_inside(subject, "memray", seconds, stem))


def _prepare(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder}: {error.strerror}") from None
    return folder


_RECORDERS = {"cpu": ("py-spy", record_py_spy), "alloc": ("memray", _record_memray), "perf": ("perf", record_perf)}
