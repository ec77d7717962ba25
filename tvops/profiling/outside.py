"""Profilers that look at a process from outside: py-spy, memray and perf, programs of their own.

py-spy writes one format in a run, so two of it look at one process at the same time, 100 times a second each.
They do not stop it. Together they took 6 % of a core beside an engine, those of engine and market at once 13 %,
while engine and market themselves took a tenth more at most: no reason for fewer looks, which make a poorer
picture.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from tvops.errors import TvopsError
from tvops.profiling.subject import EndedError, Subject
from tvops.whole_files import write_whole

Early = Literal["", "ended", "interrupted"]
"""Why a profile came to its end before its time: the process ended, or Ctrl-C came. What was seen is kept."""

_MEMRAY = (sys.executable, "-m", "memray")
_RATE = 100  # looks a second
_GRACE_SECONDS = 60.0
_END_SECONDS = 2.0
_EXTRA = "pip install 'tvops[profile]'"
_NOTHING_SEEN = "No stack counts found"
_REFUSALS = ("permission denied", "operation not permitted", "eperm", "ptrace")


class MissingToolError(TvopsError):
    """A profiler is not installed."""


class RefusedByKernelError(TvopsError):
    """The kernel does not let a process be looked at."""


class Recording(NamedTuple):
    """What a profiler left."""

    files: list[Path]
    early: Early = ""


def record_py_spy(subject: Subject, seconds: float, stem: Path) -> Recording:
    """Record where a Python process spends its time, as a flame graph and for speedscope, without stopping it.

    Raises:
        MissingToolError, RefusedByKernelError: not installed, not allowed.
        EndedError: the process ended before anything was saved.
        KeyboardInterrupt: so did Ctrl-C.
        TvopsError: it failed.
    """
    program = _program("py-spy", _EXTRA)
    wanted = {"flamegraph": stem.with_suffix(".svg"), "speedscope": stem.with_suffix(".speedscope.json")}
    common = [program, "record", "--pid", str(subject.pid), "--duration", f"{max(1, round(seconds))}"]
    common += ["--rate", str(_RATE), "--nonblocking"]
    commands = [[*common, "--format", form, "--output", str(path)] for form, path in wanted.items()]
    early = _record(commands, subject, seconds)
    files = [path for path in wanted.values() if path.is_file()]
    if not files:
        raise _nothing_saved(subject, early)
    return Recording(files, early)


def attach_memray(subject: Subject, seconds: float, stem: Path) -> Recording:
    """Record what a Python process that is none of ours allocates; a debugger stops it while memray gets in.

    Raises:
        MissingToolError, RefusedByKernelError, EndedError, KeyboardInterrupt, TvopsError: as of `record_py_spy`.
    """
    check_memray()
    if not (shutil.which("gdb") or shutil.which("lldb")):
        raise MissingToolError("memray needs gdb or lldb to get into a process: install one")
    raw = stem.with_suffix(".memray").absolute()
    attach = ["attach", "--force", "--duration", f"{max(1, round(seconds))}", "--output", str(raw)]
    early = _record([[*_MEMRAY, *attach, str(subject.pid)]], subject, seconds)
    deadline = time.monotonic() + seconds + 1.0  # attach returns at once
    try:
        while not early and time.monotonic() < deadline:
            time.sleep(0.1)
            early = "" if subject.alive else "ended"
    except KeyboardInterrupt:
        early = "interrupted"
    if early == "interrupted":
        with contextlib.suppress(TvopsError):
            _read([*_MEMRAY, "detach", str(subject.pid)])
    return _render(subject, early, raw, lambda: render_memray(stem))


def check_memray() -> None:
    """Raise MissingToolError where memray is not installed beside us, and so not in the stack either."""
    if importlib.util.find_spec("memray") is None:
        raise MissingToolError(f"memray is not installed: {_EXTRA}")


def render_memray(stem: Path) -> list[Path]:
    """Make flame graph and table of what memray captured; raise TvopsError where it cannot."""
    raw, report, table = stem.with_suffix(".memray"), stem.with_suffix(".html"), stem.with_suffix(".txt")
    _read([*_MEMRAY, "flamegraph", "--force", "--output", str(report), str(raw)])
    write_whole(table, _read([*_MEMRAY, "stats", str(raw)]).encode())
    return [report, table, raw]


def record_perf(subject: Subject, seconds: float, stem: Path) -> Recording:
    """Record where any process spends its time, the kernel's part with it where that is allowed.

    Raises:
        MissingToolError, RefusedByKernelError, EndedError, KeyboardInterrupt, TvopsError: as of `record_py_spy`.
    """
    program = _program("perf", "install your distribution's linux-perf or linux-tools package")
    raw, table, samples = stem.with_suffix(".perf"), stem.with_suffix(".txt"), stem.with_suffix(".perf.txt")
    record = [program, "record", "-q", "-F", str(_RATE - 1), "-g", "-p", str(subject.pid), "-o", str(raw)]
    early = _record([[*record, "--", "sleep", str(seconds)]], subject, seconds)

    def render() -> list[Path]:
        report = _read([program, "report", "--stdio", "--no-children", "-i", str(raw)])
        listed = _read([program, "script", "-i", str(raw)])
        if not listed:
            raise _nothing_seen(subject)
        write_whole(table, report.encode())
        write_whole(samples, listed.encode())
        return [table, samples, raw]

    return _render(subject, early, raw, render)


def _render(subject: Subject, early: Early, raw: Path, render: Callable[[], list[Path]]) -> Recording:
    """Make of ``raw`` what people read; what an early end has left of it may be too little for that."""
    try:
        return Recording(render(), early)
    except TvopsError:
        if not early:
            raise
        raise _nothing_saved(subject, early) from None


def _nothing_saved(subject: Subject, early: Early) -> BaseException:
    return KeyboardInterrupt() if early == "interrupted" else EndedError(subject.pid)


def _program(name: str, how: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise MissingToolError(f"{name} is not installed: {how}")
    return found


def _record(commands: list[list[str]], subject: Subject, seconds: float) -> Early:
    """Run profilers side by side; tell why they ended early, which some of them call a failure."""
    with _running(commands) as running:
        try:
            told = _outcomes(running, seconds)
        except KeyboardInterrupt:
            for process in running:  # they write what they have; where a terminal has told them, once more
                process.send_signal(signal.SIGINT)
            _outcomes(running, 0)
            return "interrupted"
    if not subject.alive:
        return "ended"
    for command, (code, out, err) in zip(commands, told, strict=True):
        if code:
            raise _failure(Path(command[0]).name, subject, err.strip() or out.strip())
    return ""


def _read(command: list[str]) -> str:
    """Give what a program prints about a file; raise TvopsError where it fails."""
    with _running([command]) as running:
        [(code, out, err)] = _outcomes(running, 0)
    if code:
        raise TvopsError(f"{Path(command[0]).name}: {_last_line(err.strip() or out.strip())}")
    return out


@contextlib.contextmanager
def _running(commands: list[list[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Run programs side by side; those that still run at its end are ended."""
    running: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            running.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    errors="replace",
                )
            )  # fmt: skip
        yield running
    except OSError as error:
        raise TvopsError(f"{commands[0][0]} does not run: {error.strerror}") from None
    finally:
        for process in running:
            _end(process)


def _outcomes(running: list[subprocess.Popen[str]], seconds: float) -> list[tuple[int, str, str]]:
    """Wait for programs; give the exit code of each and what it printed, on stdout and stderr."""
    try:
        told = [process.communicate(timeout=seconds + _GRACE_SECONDS) for process in running]
    except subprocess.TimeoutExpired as error:
        raise TvopsError(f"{Path(error.cmd[0]).name} did not end in time: {error.timeout:.0f} s") from None
    return [(process.returncode, out, err) for process, (out, err) in zip(running, told, strict=True)]


def _end(process: subprocess.Popen[str]) -> None:
    """End a profiler that still runs; told by a signal that it can catch, perf takes its `sleep` with it."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _failure(program: str, subject: Subject, said: str) -> TvopsError:
    """Make one line of what a profiler said as it failed."""
    if any(word in said.lower() for word in _REFUSALS):
        scope = _ptrace_scope()
        why = f" (kernel.yama.ptrace_scope is {scope})" if scope not in ("", "0") else ""
        return RefusedByKernelError(
            f"process {subject.pid}: the kernel does not let {program} look into it{why}; run this as root, "
            "or use --inside"
        )
    if _NOTHING_SEEN in said:
        return _nothing_seen(subject)
    return TvopsError(f"{program}: {_last_line(said)}")


def _nothing_seen(subject: Subject) -> TvopsError:
    return TvopsError(
        f"process {subject.pid} did nothing while it was profiled, so that there is nothing to save; "
        "profile it for longer, or under load"
    )


def _last_line(said: str) -> str:
    said = said.partition("\nStack backtrace:")[0]  # py-spy's, of itself
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "failed and said nothing"


def _ptrace_scope() -> str:
    try:
        return Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip()
    except OSError:
        return ""
