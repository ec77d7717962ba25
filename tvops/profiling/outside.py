"""Profilers that look at a process from outside: py-spy, memray and perf, programs of their own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tvops.errors import TvopsError
from tvops.profiling.subject import Subject

_MEMRAY = (sys.executable, "-m", "memray")
_RATE = 100  # looks a second
_GRACE_SECONDS = 60.0
_EXTRA = "pip install 'tvops[profile]'"
_REFUSALS = ("permission denied", "operation not permitted", "eperm", "ptrace")


class MissingToolError(TvopsError):
    """A profiler is not installed."""


class RefusedByKernelError(TvopsError):
    """The kernel does not let a process be looked at."""


def record_py_spy(subject: Subject, seconds: float, stem: Path) -> list[Path]:
    """Record where a Python process spends its time, as a flame graph and for speedscope, without stopping it.

    Raises:
        MissingToolError, RefusedByKernelError, TvopsError: not installed, not allowed, failed.
    """
    program = _program("py-spy", _EXTRA)
    wanted = {"flamegraph": stem.with_suffix(".svg"), "speedscope": stem.with_suffix(".speedscope.json")}
    common = [program, "record", "--pid", str(subject.pid), "--duration", f"{max(1, round(seconds))}"]
    common += ["--rate", str(_RATE), "--nonblocking"]
    _run([[*common, "--format", form, "--output", str(path)] for form, path in wanted.items()], subject, seconds)
    return list(wanted.values())


def attach_memray(subject: Subject, seconds: float, stem: Path) -> list[Path]:
    """Record what a Python process that is none of ours allocates; a debugger stops it while memray gets in.

    Raises:
        MissingToolError, RefusedByKernelError, TvopsError: not installed, not allowed, failed.
    """
    check_memray()
    if not (shutil.which("gdb") or shutil.which("lldb")):
        raise MissingToolError("memray needs gdb or lldb to get into a process: install one")
    raw = stem.with_suffix(".memray").absolute()
    attach = ["attach", "--force", "--duration", f"{max(1, round(seconds))}", "--output", str(raw)]
    _run([[*_MEMRAY, *attach, str(subject.pid)]], subject, seconds)
    time.sleep(seconds + 1.0)  # attach returns at once
    return render_memray(subject, stem)


def check_memray() -> None:
    """Raise MissingToolError where memray is not installed beside us, and so not in the stack either."""
    if importlib.util.find_spec("memray") is None:
        raise MissingToolError(f"memray is not installed: {_EXTRA}")


def render_memray(subject: Subject, stem: Path) -> list[Path]:
    """Make flame graph and table of what memray captured; raise TvopsError where it cannot."""
    raw, report, table = stem.with_suffix(".memray"), stem.with_suffix(".html"), stem.with_suffix(".txt")
    _run([[*_MEMRAY, "flamegraph", "--force", "--output", str(report), str(raw)]], subject, 0)
    table.write_text(_run([[*_MEMRAY, "stats", str(raw)]], subject, 0)[0])
    return [report, table, raw]


def record_perf(subject: Subject, seconds: float, stem: Path) -> list[Path]:
    """Record where any process spends its time, the kernel's part with it where that is allowed.

    Raises:
        MissingToolError, RefusedByKernelError, TvopsError: not installed, not allowed, failed.
    """
    program = _program("perf", "install your distribution's linux-perf or linux-tools package")
    raw, table, samples = stem.with_suffix(".perf"), stem.with_suffix(".txt"), stem.with_suffix(".perf.txt")
    record = [program, "record", "-q", "-F", str(_RATE - 1), "-g", "-p", str(subject.pid), "-o", str(raw)]
    _run([[*record, "--", "sleep", str(seconds)]], subject, seconds)
    table.write_text(_run([[program, "report", "--stdio", "--no-children", "-i", str(raw)]], subject, 0)[0])
    samples.write_text(_run([[program, "script", "-i", str(raw)]], subject, 0)[0])
    return [table, samples, raw]


def _program(name: str, how: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise MissingToolError(f"{name} is not installed: {how}")
    return found


def _run(commands: list[list[str]], subject: Subject, seconds: float) -> list[str]:
    """Run programs side by side and give what each printed; raise TvopsError where one fails."""
    running: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            running.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                    errors="replace",
                )
            )  # fmt: skip
        told = [process.communicate(timeout=seconds + _GRACE_SECONDS) for process in running]
    except subprocess.TimeoutExpired as error:
        raise TvopsError(f"{Path(commands[0][0]).name} did not end in time: {error.timeout:.0f} s") from None
    except OSError as error:
        raise TvopsError(f"{commands[0][0]} does not run: {error.strerror}") from None
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    for command, process, (out, err) in zip(commands, running, told, strict=True):
        if process.returncode:
            raise _failure(Path(command[0]).name, subject, err.strip() or out.strip())
    return [out for out, _ in told]


def _failure(program: str, subject: Subject, said: str) -> TvopsError:
    """Make one line of what a profiler said as it failed."""
    if any(word in said.lower() for word in _REFUSALS):
        scope = _ptrace_scope()
        why = f" (kernel.yama.ptrace_scope is {scope})" if scope not in ("", "0") else ""
        return RefusedByKernelError(
            f"process {subject.pid}: the kernel does not let {program} look into it{why}; run this as root, "
            "or use --inside"
        )
    if not subject.alive:
        return TvopsError(f"process {subject.pid} ended while it was profiled")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return TvopsError(f"{program}: {lines[-1][:300] if lines else 'failed and said nothing'}")


def _ptrace_scope() -> str:
    try:
        return Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip()
    except OSError:
        return ""
