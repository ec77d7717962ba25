"""A worker profiles itself on request, where no profiler can look in from outside.

The owner of the data directory, or root, leaves `profile-request.json` there (mode 0600) and sends SIGUSR2. The
worker that the request names runs cProfile, memray or tracemalloc for so long and leaves the result beside it.
They cost the worker speed as long as they run, and nothing otherwise. memray is started here rather than by its
own `attach`, which has a debugger stop the process and call functions in it.
"""

from __future__ import annotations

import asyncio
import cProfile
import importlib
import logging
import os
import signal
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

REQUEST: Final = "profile-request.json"
MAX_REQUEST_BYTES: Final = 4096
MAX_RESULT_BYTES: Final = 64 << 20
MOST_ROWS: Final = 5000

logger = logging.getLogger(__name__)


class Request(msgspec.Struct, frozen=True):
    """What somebody wants."""

    pid: int  # of the worker
    mode: Literal["cpu", "memray", "tracemalloc"]
    seconds: Annotated[float, msgspec.Meta(gt=0, le=600)]


class Function(msgspec.Struct, frozen=True, array_like=True):
    """What a function took, as `pstats` has it; times in seconds."""

    file: str
    line: int
    name: str
    primitive: int  # calls, without recursive ones
    calls: int
    own: float
    total: float
    callers: list[tuple[int, int, int, float, float]]  # index of the caller, then the same four figures


class Allocation(msgspec.Struct, frozen=True, array_like=True):
    """What a line allocated meanwhile and still holds."""

    file: str
    line: int
    size: int
    count: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    error: str = ""
    functions: list[Function] = []
    allocations: list[Allocation] = []
    capture: bool = False  # whether memray left a file
    peak: int = 0  # bytes, the most that was held of what was allocated meanwhile


def result_path(folder: Path, pid: int) -> Path:
    """Give where the worker ``pid`` leaves its result."""
    return folder / f"profile-result-{pid}.json"


def capture_path(folder: Path, pid: int) -> Path:
    """Give where the worker ``pid`` has memray write."""
    return folder / f"profile-result-{pid}.memray"


class InsideProfiler:
    """Waits for requests in the data directory ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = False

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer SIGUSR2 from now on."""
        loop.add_signal_handler(signal.SIGUSR2, self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            request = read_request(self._folder / REQUEST)
        except (OSError, ValueError) as error:
            logger.warning("SIGUSR2 without a request to profile that counts: %s", error)
            return
        if request.pid != os.getpid() or self._running:
            logger.warning("a request to profile process %d is left aside", request.pid)
            return
        (self._folder / REQUEST).unlink(missing_ok=True)
        logger.info("profiling (%s) for %g s", request.mode, request.seconds)
        try:
            end = self._start(request.mode)
        except (ImportError, OSError, RuntimeError, ValueError) as error:  # e.g. another profiler is at work here
            self._write(Result(error=str(error)))
            return
        self._running = True
        loop.call_later(request.seconds, self._finish, end)

    def _start(self, mode: str) -> Callable[[], Result]:
        """Start a profiler; give what ends it."""
        if mode == "cpu":
            profile = cProfile.Profile()
            profile.enable()
            return lambda: _end_cprofile(profile)
        if mode == "memray":
            return _start_memray(capture_path(self._folder, os.getpid()))
        tracemalloc.start()
        return _end_tracemalloc

    def _finish(self, end: Callable[[], Result]) -> None:
        self._running = False
        self._write(end())

    def _write(self, result: Result) -> None:
        """Leave the result for its owner only, whole or not at all."""
        path = result_path(self._folder, os.getpid())
        new = path.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(result))
            new.replace(path)
        except OSError as error:
            logger.warning("the profile cannot be written: %s", error)


def read_request(path: Path) -> Request:
    """Read a request; raise OSError or ValueError where there is none, or not from our own user or root."""
    return msgspec.json.decode(read_private(path, MAX_REQUEST_BYTES), type=Request)


def read_private(path: Path, limit: int) -> bytes:
    """Read a plain file of our own user's, or root's, that nobody else may touch; raise OSError or ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        trusted = {0, os.geteuid()} if os.geteuid() else {0, path.parent.stat().st_uid}
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in trusted or found.st_mode & 0o077:
            raise ValueError(f"{path} is not a file of this user's alone")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} has more than {limit} bytes")
    return data


def _end_cprofile(profile: cProfile.Profile) -> Result:
    profile.disable()
    return Result(functions=_functions(profile))


def _end_tracemalloc() -> Result:
    found = tracemalloc.take_snapshot().statistics("lineno")[:MOST_ROWS]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rows = [Allocation(s.traceback[0].filename, s.traceback[0].lineno, s.size, s.count) for s in found]
    return Result(allocations=rows, peak=peak)


def _start_memray(path: Path) -> Callable[[], Result]:
    memray = importlib.import_module("memray")  # of the extra `profile`; nothing else here needs it
    path.unlink(missing_ok=True)
    with _private_files():
        tracker = memray.Tracker(path)
        tracker.__enter__()

    def end() -> Result:
        with _private_files():  # it is compressed, into a new file
            tracker.__exit__(None, None, None)
        return Result(capture=True)

    return end


@contextmanager
def _private_files() -> Iterator[None]:
    """Have files made for this user only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _functions(profile: cProfile.Profile) -> list[Function]:
    """Give the functions that took most, and who called them."""
    profile.create_stats()
    stats: dict[Any, Any] = profile.stats
    kept = sorted(stats, key=lambda key: -stats[key][2])[:MOST_ROWS]
    places = {key: place for place, key in enumerate(kept)}
    found = []
    for file, line, name in kept:
        primitive, calls, own, total, callers = stats[file, line, name]
        known = [(places[by], *took) for by, took in callers.items() if by in places]
        found.append(Function(file, line, name, primitive, calls, own, total, known))
    return found
