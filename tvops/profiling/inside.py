"""Has a worker profile itself: with cProfile, memray or tracemalloc."""

from __future__ import annotations

import contextlib
import marshal
import os
import secrets
import shutil
import signal
import time
from pathlib import Path
from typing import Literal

import msgspec

from tvops.engine.inside_profile import (
    MAX_RESULT_BYTES,
    Request,
    Result,
    capture_path,
    request_path,
    result_path,
)
from tvops.engine.private_files import read_private, write_private
from tvops.errors import TvopsError
from tvops.profiling.outside import render_memray
from tvops.profiling.subject import EndedError, Subject
from tvops.whole_files import write_whole

InsideMode = Literal["cpu", "memray", "tracemalloc"]

_GRACE_SECONDS = 20.0
_SHOWN = 60


def profile_inside(subject: Subject, mode: InsideMode, seconds: float, stem: Path) -> list[Path]:
    """Have ``subject`` profile itself; give the files that it became.

    Where that is interrupted, or fails, the process ends its profiler and leaves nothing.

    Raises:
        EndedError: it ended meanwhile.
        TvopsError: it cannot be asked, is being profiled already, or cannot profile itself so.
    """
    if subject.folder is None or not subject.answers:
        raise TvopsError(f"process {subject.pid} does not profile itself: only engine and market of a stack do")
    request = Request(subject.pid, mode, seconds, secrets.token_hex(8))
    answer = result_path(subject.folder, subject.name, request.token)
    capture = capture_path(subject.folder, subject.name, request.token)
    try:
        _ask(subject, request)
        result = _wait(subject, answer, seconds)
        if result.error:
            raise TvopsError(f"process {subject.pid} cannot profile itself: {result.error}")
        if result.capture:
            shutil.move(capture, stem.with_suffix(".memray"))
    except BaseException:
        _take_back(subject, request)
        raise
    answer.unlink(missing_ok=True)
    if result.capture:
        return render_memray(stem)
    return _keep_functions(result, stem) if mode == "cpu" else _keep_allocations(result, stem)


def _ask(subject: Subject, request: Request) -> None:
    assert subject.folder is not None
    try:
        path = request_path(subject.folder, subject.name, request.token, request.mode == "cancel")
        write_private(path, msgspec.json.encode(request))
        os.kill(subject.pid, signal.SIGUSR2)
    except OSError as error:
        raise TvopsError(f"process {subject.pid} cannot be asked to profile itself: {error.strerror}") from None


def _take_back(subject: Subject, request: Request) -> None:
    """Have the process end what it does for a request, and take away what is there of it.

    The process looks for a result of its own, which it may be about to write.
    """
    assert subject.folder is not None
    if subject.answers:
        with contextlib.suppress(TvopsError):
            _ask(subject, msgspec.structs.replace(request, mode="cancel"))
            return
    for path in (request_path, result_path, capture_path):
        with contextlib.suppress(OSError):
            path(subject.folder, subject.name, request.token).unlink(missing_ok=True)


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
    write_whole(binary, marshal.dumps(stats))
    lines = ["own seconds  total seconds      calls  function"]
    lines += [
        f"{f.own:11.4f}  {f.total:13.4f}  {f.calls:9,}  {f.name} ({f.file}:{f.line})"
        for f in result.functions[:_SHOWN]
    ]
    write_whole(table, "\n".join([*lines, ""]).encode())
    return [table, binary]


def _keep_allocations(result: Result, stem: Path) -> list[Path]:
    table = stem.with_suffix(".txt")
    lines = [
        f"allocated meanwhile and still held, by line; {result.peak:,} bytes were held at most",
        "      bytes     blocks  line",
    ]
    lines += [f"{a.size:11,}  {a.count:9,}  {a.file}:{a.line}" for a in result.allocations]
    write_whole(table, "\n".join([*lines, ""]).encode())
    return [table]
