"""Has a worker profile itself: with cProfile, memray or tracemalloc."""

from __future__ import annotations

import contextlib
import marshal
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Literal

import msgspec

from tvops.engine.inside_profile import (
    MAX_RESULT_BYTES,
    REQUEST,
    Request,
    Result,
    capture_path,
    read_private,
    result_path,
)
from tvops.errors import TvopsError
from tvops.profiling.outside import render_memray
from tvops.profiling.subject import EndedError, Subject

InsideMode = Literal["cpu", "memray", "tracemalloc"]

_GRACE_SECONDS = 20.0
_SHOWN = 60


def profile_inside(subject: Subject, mode: InsideMode, seconds: float, stem: Path) -> list[Path]:
    """Have ``subject`` profile itself; give the files that it became.

    Raises:
        EndedError: it ended meanwhile.
        TvopsError: it cannot be asked.
    """
    if subject.folder is None or not subject.answers:
        raise TvopsError(f"process {subject.pid} does not profile itself: only engine and market of a stack do")
    answer, capture = result_path(subject.folder, subject.pid), capture_path(subject.folder, subject.pid)
    try:
        answer.unlink(missing_ok=True)
        _leave_request(subject, Request(subject.pid, mode, seconds))
        os.kill(subject.pid, signal.SIGUSR2)
    except OSError as error:
        raise TvopsError(f"process {subject.pid} cannot be asked to profile itself: {error.strerror}") from None
    try:
        result = _wait(subject, answer, seconds)
        if result.error:
            raise TvopsError(f"process {subject.pid} cannot profile itself: {result.error}")
        if result.capture:
            shutil.move(capture, stem.with_suffix(".memray"))
    finally:
        with contextlib.suppress(OSError):
            (subject.folder / REQUEST).unlink(missing_ok=True)
            answer.unlink(missing_ok=True)
            capture.unlink(missing_ok=True)
    if result.capture:
        return render_memray(stem)
    return _keep_functions(result, stem) if mode == "cpu" else _keep_allocations(result, stem)


def _leave_request(subject: Subject, request: Request) -> None:
    assert subject.folder is not None
    new = subject.folder / f"{REQUEST}.new"
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(request))
    new.replace(subject.folder / REQUEST)


def _wait(subject: Subject, answer: Path, seconds: float) -> Result:
    deadline = time.monotonic() + seconds + _GRACE_SECONDS
    while time.monotonic() < deadline:
        try:
            return msgspec.json.decode(read_private(answer, MAX_RESULT_BYTES), type=Result)
        except FileNotFoundError:
            if not subject.alive:
                raise EndedError(subject.pid) from None
            time.sleep(0.05)
        except (OSError, ValueError) as error:
            raise TvopsError(f"{answer}: cannot be read: {error}") from None
    raise TvopsError(f"process {subject.pid} did not answer; its log says why")


def _keep_functions(result: Result, stem: Path) -> list[Path]:
    """Write a file for pstats and snakeviz, and a table for people."""
    keys = [(f.file, f.line, f.name) for f in result.functions]
    stats = {
        key: (f.primitive, f.calls, f.own, f.total, {keys[place]: tuple(rest) for place, *rest in f.callers})
        for key, f in zip(keys, result.functions, strict=True)
    }
    binary, table = stem.with_suffix(".pstats"), stem.with_suffix(".txt")
    binary.write_bytes(marshal.dumps(stats))
    lines = ["own seconds  total seconds      calls  function"]
    lines += [
        f"{f.own:11.4f}  {f.total:13.4f}  {f.calls:9,}  {f.name} ({f.file}:{f.line})"
        for f in result.functions[:_SHOWN]
    ]
    table.write_text("\n".join(lines) + "\n")
    return [table, binary]


def _keep_allocations(result: Result, stem: Path) -> list[Path]:
    table = stem.with_suffix(".txt")
    lines = [
        f"allocated meanwhile and still held, by line; {result.peak:,} bytes were held at most",
        "      bytes     blocks  line",
    ]
    lines += [f"{a.size:11,}  {a.count:9,}  {a.file}:{a.line}" for a in result.allocations]
    table.write_text("\n".join(lines) + "\n")
    return [table]
