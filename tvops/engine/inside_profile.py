"""A worker profiles itself on request, where no profiler can look in from outside.

The owner of the data directory, or root, leaves a request there, `profile-request-SERVICE-TOKEN.json` (mode
0600), and sends SIGUSR2. The worker that the request names runs cProfile, memray or tracemalloc for so long and
leaves the result beside it, under the same token: several may ask at once, and each finds its own answer. The
profilers cost the worker speed as long as they run, and nothing otherwise. memray is started here rather than by
its own `attach`, which has a debugger stop the process and call functions in it.
"""

from __future__ import annotations

import asyncio
import cProfile
import importlib
import logging
import os
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from tvops.engine.private_files import read_private, write_private

MAX_REQUEST_BYTES: Final = 4096
MAX_RESULT_BYTES: Final = 64 << 20
MOST_ROWS: Final = 5000

logger = logging.getLogger(__name__)


class Request(msgspec.Struct, frozen=True):
    """What somebody wants."""

    pid: int  # of the worker
    mode: Literal["cpu", "memray", "tracemalloc", "cancel"]  # the last: nobody waits for it any more
    seconds: Annotated[float, msgspec.Meta(gt=0, le=600)]
    token: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}\\Z")]  # made up by who asks, new each time


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


def request_path(folder: Path, service: str, token: str, cancel: bool = False) -> Path:
    """Give where a request to ``service`` (engine or market) is left, or that it is to end."""
    return folder / f"profile-request-{service}-{token}{'-cancel' if cancel else ''}.json"


def result_path(folder: Path, service: str, token: str) -> Path:
    """Give where the worker leaves its answer."""
    return folder / f"profile-result-{service}-{token}.json"


def capture_path(folder: Path, service: str, token: str) -> Path:
    """Give where the worker has memray write."""
    return folder / f"profile-result-{service}-{token}.memray"


class Profiler(NamedTuple):
    """One that runs."""

    finish: Callable[[], Result]
    """Ends it; gives what it found."""
    stop: Callable[[], object]
    """Ends it for nothing."""


class _Running(NamedTuple):
    token: str
    profiler: Profiler
    end: asyncio.TimerHandle


class InsideProfiler:
    """Waits for requests to ``service`` (engine or market) in the data directory ``folder``."""

    def __init__(self, folder: Path, service: str) -> None:
        self._folder, self._service = folder, service
        self._running: _Running | None = None

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer SIGUSR2 from now on; what was left for, and by, those that ran before goes."""
        for pattern in ("profile-request-{}-*", "profile-result-{}-*"):
            for path in self._folder.glob(pattern.format(self._service)):
                with suppress(OSError):
                    path.unlink()
        loop.add_signal_handler(signal.SIGUSR2, self._take, loop)

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        requests, why = [], "there is none"
        for path in self._folder.glob(request_path(Path(), self._service, "*").name):
            try:
                request = read_request(path)
                path.unlink(missing_ok=True)
                requests.append(request)
            except (OSError, ValueError) as error:
                why = str(error)
        if not requests:
            logger.warning("SIGUSR2 without a request to profile that counts: %s", why)
        cancelled = {request.token for request in requests if request.mode == "cancel"}
        for request in sorted(requests, key=lambda request: request.mode != "cancel"):  # who cancels makes room
            if request.pid != os.getpid():
                logger.warning("a request to profile process %d is left aside", request.pid)
            elif request.mode == "cancel":
                self._cancel(request.token)
            elif request.token in cancelled:
                logger.info("a request to profile was cancelled before it began")
            elif self._running:
                self._write(request.token, Result(error="it is being profiled already; try again later"))
            else:
                self._begin(request, loop)

    def _begin(self, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        logger.info("profiling (%s) for %g s", request.mode, request.seconds)
        try:
            profiler = self._start(request)
        except (ImportError, OSError, RuntimeError, ValueError) as error:  # e.g. another profiler is at work here
            self._write(request.token, Result(error=str(error)))
            return
        end = loop.call_later(request.seconds, self._finish)
        self._running = _Running(request.token, profiler, end)

    def _start(self, request: Request) -> Profiler:
        if request.mode == "cpu":
            profile = cProfile.Profile()
            profile.enable()
            return Profiler(lambda: _end_cprofile(profile), profile.disable)
        if request.mode == "memray":
            return _start_memray(capture_path(self._folder, self._service, request.token))
        tracemalloc.start()
        return Profiler(_end_tracemalloc, tracemalloc.stop)

    def _finish(self) -> None:
        assert self._running is not None
        ended, self._running = self._running, None
        self._write(ended.token, ended.profiler.finish())

    def _cancel(self, token: str) -> None:
        """End the profiler of a request, and leave nothing of it."""
        if self._running and self._running.token == token:
            ended, self._running = self._running, None
            ended.end.cancel()
            ended.profiler.stop()
            logger.info("profiling was cancelled")
        for path in (result_path, capture_path):
            path(self._folder, self._service, token).unlink(missing_ok=True)

    def _write(self, token: str, result: Result) -> None:
        """Leave the result for its owner only, whole or not at all."""
        try:
            write_private(result_path(self._folder, self._service, token), msgspec.json.encode(result))
        except OSError as error:
            logger.warning("the profile cannot be written: %s", error)


def read_request(path: Path) -> Request:
    """Read a request; raise OSError or ValueError where there is none, or not from our own user or root."""
    return msgspec.json.decode(read_private(path, MAX_REQUEST_BYTES), type=Request)


def _end_cprofile(profile: cProfile.Profile) -> Result:
    profile.disable()
    return Result(functions=_functions(profile))


def _end_tracemalloc() -> Result:
    found = tracemalloc.take_snapshot().statistics("lineno")[:MOST_ROWS]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rows = [Allocation(s.traceback[0].filename, s.traceback[0].lineno, s.size, s.count) for s in found]
    return Result(allocations=rows, peak=peak)


def _start_memray(path: Path) -> Profiler:
    memray = importlib.import_module("memray")  # of the extra `profile`; nothing else here needs it
    path.unlink(missing_ok=True)
    with _private_files():
        tracker = memray.Tracker(path)
        tracker.__enter__()

    def end() -> Result:
        with _private_files():  # it is compressed, into a new file
            tracker.__exit__(None, None, None)
        return Result(capture=True)

    return Profiler(end, end)


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
