"""`tvops profile` on real processes: a running stack, and a busy child."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import json
import os
import pstats
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil
import pytest

from tests.command_line import tvops
from tests.stack import Stack
from tvops import cli
from tvops.engine.inside_profile import (
    InsideProfiler,
    Request,
    capture_path,
    read_request,
    request_path,
    result_path,
)
from tvops.engine.private_files import write_private
from tvops.engine.tuning_report import Report, started, write_report
from tvops.errors import TvopsError
from tvops.profiling import inside, outside, subject
from tvops.profiling.place import place_for
from tvops.profiling.subject import EndedError, NotYetError, Subject, find_subject

TOKEN = "0123456789abcdef"
LENGTHS = ("0.5", "5", "20")
"""Seconds of a profile: a longer one where a host that stood still left nothing to see in the shorter one."""

BUSY = """
import ctypes, sys, time
ctypes.CDLL(None).prctl(4, int(sys.argv[1]), 0, 0, 0)  # PR_SET_DUMPABLE
print("ready", flush=True)
def spin_in_circles():
    while True:
        for _ in range(200):
            sum(range(1000))
        time.sleep(0.006)  # it need not take a whole core to be seen
spin_in_circles()
"""


def need(program: str) -> None:
    """Skip the test where a profiler is neither beside the interpreter nor on the path."""
    if shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None:
        pytest.skip(f"{program} is not here")


def profile(*arguments: str) -> subprocess.CompletedProcess[str]:
    return tvops("profile", *arguments)


def started_profile(*arguments: str, output: Path) -> subprocess.Popen[str]:
    """Start a profile of 60 s, which has said what it is about to do."""
    line = [sys.executable, "-m", "tvops", "profile", *arguments, "--output", str(output), "--seconds", "60"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("profiling ")
    return process


def busy_child(dumpable: bool = True) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", BUSY, str(int(dumpable))], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = busy_child()
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module", autouse=True)
def _patient() -> Iterator[None]:
    """Wait for a stack and its services for as long as a busy host may take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "WAIT_SECONDS", 60.0)
        patch.setattr(subject, "_SETTLED_SECONDS", 60.0)
        patch.setattr(inside, "_GRACE_SECONDS", 60.0)
        yield


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("profile") / "data", "--feed", "synthetic:20") as running:
        running.spawn()
        lock = running.data_dir / "serve.lock"
        while not lock.exists() or not lock.read_text():  # from then on it is a stack that is starting
            assert running.process is not None
            assert running.process.poll() is None, running.tail()
            time.sleep(0.005)
        done = profile("market", "--inside", "--seconds", "0.5", "--data-dir", str(running.data_dir))
        assert done.returncode == 0, done.stderr
        running.wait_ready()
        yield running


def told(stack: Stack, *arguments: str) -> dict[str, Any]:
    done = profile("--data-dir", str(stack.data_dir), "--seconds", "0.5", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def files_of(stack: Stack, result: dict[str, Any]) -> dict[str, Path]:
    """Give the files by suffix; each is for its owner only."""
    found = {name.partition(".")[2]: stack.data_dir / "profiles" / name for name in result["files"]}
    assert all(path.stat().st_mode & 0o077 == 0 for path in found.values())
    return found


def test_py_spy_draws_what_a_process_does(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    need("py-spy")
    for seconds in ("1", "5", "20"):  # in which all of it may stand still
        done = profile("--pid", str(child.pid), "--seconds", seconds, "--output", str(tmp_path / "out"))
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    drawing, samples, record = map(Path, done.stdout.splitlines())
    assert "spin_in_circles" in drawing.read_text()
    assert ET.parse(drawing).getroot().tag.endswith("svg")
    frames = json.loads(samples.read_text())["shared"]["frames"]
    assert "spin_in_circles" in {frame["name"] for frame in frames}
    kept = json.loads(record.read_text())
    assert (kept["tool"], kept["pid"], kept["files"]) == ("py-spy", child.pid, [drawing.name, samples.name])
    assert kept["fingerprint"]["versions"]["python"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert child.poll() is None


def test_cprofile_from_inside_is_readable_by_pstats(stack: Stack) -> None:
    for seconds in LENGTHS:
        result = told(stack, "market", "--inside", "--seconds", seconds)
        files = files_of(stack, result)
        assert (result["tool"], set(files)) == ("cProfile", {"txt", "pstats"})
        functions = pstats.Stats(str(files["pstats"])).get_stats_profile().func_profiles
        if "_publish" in functions:
            break
    assert "_publish" in functions, "the market service publishes ticks all the time"
    assert "tvops/engine/stream" in files["txt"].read_text()
    assert not list(stack.data_dir.glob("profile-re*")), "request and result are gone"


def test_allocations_from_inside(stack: Stack) -> None:
    for seconds in LENGTHS:
        result = told(stack, "engine", "--inside", "--mode", "alloc", "--seconds", seconds)
        lines = files_of(stack, result)["txt"].read_text().splitlines()
        assert result["tool"] == "tracemalloc"
        if found := [line for line in lines[2:] if "tvops/engine" in line]:
            break
    assert found


def test_memray_is_run_by_the_service_itself(stack: Stack) -> None:
    if importlib.util.find_spec("memray") is None:
        pytest.skip("memray is not here")
    engine = worker(stack, "engine")
    for seconds in LENGTHS:
        result = told(stack, "engine", "--mode", "alloc", "--seconds", seconds)
        files = files_of(stack, result)
        assert (result["tool"], set(files)) == ("memray", {"html", "txt", "memray"})
        if "tvops/engine" in (text := files["txt"].read_text()):
            break
    assert "tvops/engine" in text
    assert worker(stack, "engine").pid == engine.pid


def test_perf_sees_the_process(stack: Stack) -> None:
    need("perf")
    done = profile("market", "--data-dir", str(stack.data_dir), "--mode", "perf", "--seconds", "1", "--json")
    if done.returncode:
        assert len(done.stderr.strip().splitlines()) == 2, "what is profiled, and why not"
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert "Overhead" in files_of(stack, json.loads(done.stdout))["txt"].read_text()


def answered(stack: Stack, pid: int, line: str) -> None:
    """Send the signal and wait until the log says ``line`` once more."""
    before = stack.log.read_text().count(line)
    os.kill(pid, signal.SIGUSR2)
    deadline = time.monotonic() + 60
    while stack.log.read_text().count(line) <= before:
        assert time.monotonic() < deadline, f"not told: {line}\n{stack.tail()}"
        time.sleep(0.02)


def worker(stack: Stack, name: str) -> psutil.Process:
    return stack.processes()[name]


def test_a_signal_without_a_request_does_nothing(stack: Stack) -> None:
    engine = worker(stack, "engine")
    request = request_path(stack.data_dir, "engine", TOKEN)
    body = json.dumps({"pid": engine.pid, "mode": "cpu", "seconds": 0.5, "token": TOKEN})
    without = "SIGUSR2 without a request"
    answered(stack, engine.pid, without)
    request.write_text(body)
    request.chmod(0o644)  # others may read it: not from us
    answered(stack, engine.pid, without)
    request.unlink()
    private = stack.data_dir / "elsewhere"
    private.write_text(body)
    private.chmod(0o600)
    request.symlink_to(private)
    answered(stack, engine.pid, without)
    request.unlink()
    request.write_text(body.replace(str(engine.pid), "1"))
    request.chmod(0o600)
    answered(stack, engine.pid, "a request to profile process 1 is left aside")
    time.sleep(0.6)
    assert not list(stack.data_dir.glob("profile-re*"))
    assert worker(stack, "engine").pid == engine.pid
    assert stack.healthy(stack.gateway)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        '{"pid":1,"mode":"cpu","seconds":1e9,"token":"0123456789abcdef"}',
        '{"pid":1,"mode":"rm","seconds":1,"token":"0123456789abcdef"}',
        '{"pid":1,"mode":"cpu","seconds":1,"token":"../../../etc/abc"}',
        '{"pid":1,"mode":"cpu","seconds":1,"token":"0123456789abcdef\\n"}',
        "x" * 5000,
    ],
)
def test_wrong_requests_are_refused(body: str, tmp_path: Path) -> None:
    path = request_path(tmp_path, "engine", TOKEN)
    write_private(path, body.encode())
    with pytest.raises(ValueError):
        read_request(path)


@pytest.mark.parametrize("mode", ["cpu", "tracemalloc"])
async def test_a_worker_ends_what_nobody_waits_for(mode: Literal["cpu", "tracemalloc"], tmp_path: Path) -> None:
    ours = [path(tmp_path, "engine", TOKEN) for path in (request_path, result_path, capture_path)]
    others = result_path(tmp_path, "market", TOKEN)
    for path in (*ours, others):
        path.touch()
    loop = asyncio.get_running_loop()
    InsideProfiler(tmp_path, "engine").install(loop)
    try:
        assert list(tmp_path.iterdir()) == [others], "what an engine before this one has left is gone"
        request = Request(os.getpid(), mode, 600, TOKEN)
        await asked(tmp_path, request)
        busy = msgspec.structs.replace(request, token=TOKEN[::-1])
        await asked(tmp_path, busy)
        answer = result_path(tmp_path, "engine", busy.token)
        assert "being profiled already" in answer.read_text()
        assert sys.getprofile() is not None or tracemalloc.is_tracing()
        for each in (busy, request):
            await asked(tmp_path, msgspec.structs.replace(each, mode="cancel"))
        assert (sys.getprofile(), tracemalloc.is_tracing()) == (None, False)
        assert list(tmp_path.iterdir()) == [others]
        leave(tmp_path, request)
        await asked(tmp_path, msgspec.structs.replace(request, mode="cancel"))
        assert (sys.getprofile(), tracemalloc.is_tracing()) == (None, False), "both came at once"
        assert list(tmp_path.iterdir()) == [others]
    finally:
        loop.remove_signal_handler(signal.SIGUSR2)


async def asked(folder: Path, request: Request) -> None:
    """Leave a request for the engine, which is this process, and wait until it was taken."""
    path = leave(folder, request)
    os.kill(os.getpid(), signal.SIGUSR2)
    while path.exists():
        await asyncio.sleep(0.005)


def leave(folder: Path, request: Request) -> Path:
    path = request_path(folder, "engine", request.token, request.mode == "cancel")
    write_private(path, msgspec.json.encode(request))
    return path


def test_ctrl_c_ends_the_profiler_of_a_service(stack: Stack, tmp_path: Path) -> None:
    begins = "profiling (tracemalloc) for 60 s"
    before = stack.log.read_text().count(begins)
    folder = tmp_path / "a" / "b"
    first = started_profile(
        "engine", "--inside", "--mode", "alloc", "--data-dir", str(stack.data_dir), output=folder
    )
    while stack.log.read_text().count(begins) == before:
        assert first.poll() is None
        time.sleep(0.02)
    second = profile("engine", "--inside", "--data-dir", str(stack.data_dir))
    assert (second.returncode, "is being profiled already" in one_line(second)) == (1, True)
    first.send_signal(signal.SIGINT)
    assert first.communicate() == ("", "tvops: interrupted\n")
    assert first.returncode == 130
    told(stack, "engine", "--inside")
    assert not list(stack.data_dir.glob("profile-re*"))
    assert not list(tmp_path.iterdir()), "no folder stays that has nothing in it"


def test_a_process_that_does_not_wait_for_requests_is_not_signalled(
    child: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert not Subject("engine", child.pid, 0, tmp_path).answers


@pytest.fixture
def waits_for_requests() -> Iterator[int]:
    """Give a process, this one, that waits for requests as a worker does."""
    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    yield os.getpid()
    signal.signal(signal.SIGUSR2, before)


def written(folder: Path, age: float = 0.0, **processes: list[int]) -> None:
    """Write down what a stack runs, whose supervisor is this process."""
    own = os.getpid()
    report = Report(
        profile="dev", pid=own, started=started(own), time=time.time() - age,
        processes={"supervisor": [own], **processes}, effects=[],
    )  # fmt: skip
    write_report(folder, report)


def test_a_stack_that_is_starting_is_waited_for(tmp_path: Path, waits_for_requests: int) -> None:
    folder, found = tmp_path, Subject("engine", waits_for_requests, started(waits_for_requests), tmp_path)
    steps = [
        lambda: written(folder),
        lambda: written(folder, market=[waits_for_requests]),
        lambda: written(folder, market=[waits_for_requests], engine=[waits_for_requests]),
    ]

    def start() -> None:
        for step in steps:
            time.sleep(0.12)
            step()

    starting = threading.Thread(target=start)
    with (folder / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        starting.start()
        assert find_subject("engine", None, folder) == found
        starting.join()


def test_what_a_stack_does_not_run_is_not_waited_for(tmp_path: Path, waits_for_requests: int) -> None:
    written(tmp_path, age=61, market=[waits_for_requests])
    assert find_subject(None, None, tmp_path).name == "market"
    with pytest.raises(TvopsError, match="there run market, supervisor"):
        find_subject("engine", None, tmp_path)


def test_a_stack_that_does_not_come_up_is_told_plainly(
    tmp_path: Path, child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "WAIT_SECONDS", 0.2)
    with (tmp_path / "serve.lock").open("w") as lock:
        with pytest.raises(TvopsError, match="no stack runs on"):
            find_subject(None, None, tmp_path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NotYetError, match=f"the stack on {tmp_path} is still starting; try again"):
            find_subject(None, None, tmp_path)
    written(tmp_path, engine=[child.pid])
    with pytest.raises(NotYetError, match=f"engine, process {child.pid}, is still starting; try again"):
        find_subject(None, None, tmp_path)


@pytest.mark.parametrize("mode, program", [("cpu", "py-spy"), ("perf", "perf")])
def test_a_process_that_ends_meanwhile_is_told_plainly(
    mode: str, program: str, child: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    need(program)
    process = started_profile("--pid", str(child.pid), "--mode", mode, output=tmp_path)
    time.sleep(0.5)
    child.kill()  # it stays a zombie, as nobody waits for it
    out, err = process.communicate()
    files = [Path(line) for line in out.splitlines()]
    what = "saved is what there was until then" if files else "nothing was saved"
    assert (process.returncode, err) == (1, f"tvops: process {child.pid} ended while it was profiled; {what}\n")
    assert set(files) == set(tmp_path.iterdir())
    assert not files or json.loads(files[-1].read_text())["ended"]


@pytest.mark.parametrize("mode, program, profilers", [("cpu", "py-spy", 2), ("perf", "perf", 1)])
def test_ctrl_c_keeps_what_was_seen_until_then(
    mode: str, program: str, profilers: int, child: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    need(program)
    for patience in (0.6, 4, 20):  # s, for them to see something
        process = started_profile("--pid", str(child.pid), "--mode", mode, output=tmp_path)
        while process.poll() is None:
            running = psutil.Process(process.pid).children()
            if len(running) == profilers and all(looks(one) for one in running):
                break
            time.sleep(0.02)
        time.sleep(patience)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        if out or "interrupted" not in err:
            break
    if mode == "perf" and not out:
        pytest.skip(f"perf may not look here: {err}")
    assert (process.returncode, err) == (130, "tvops: interrupted; saved is what there was until then\n")
    files = [Path(line) for line in out.splitlines()]
    assert set(files) == set(tmp_path.iterdir())
    note = json.loads(files[-1].read_text())
    assert (note["interrupted"], note["ended"], len(note["files"])) == (True, False, len(files) - 1)
    assert "spin_in_circles" in files[0].read_text() or mode == "perf"


def looks(profiler: psutil.Process) -> bool:
    """Tell whether it minds Ctrl-C, and has begun, which perf does with the program that it waits for."""
    caught = Path(f"/proc/{profiler.pid}/status").read_text().partition("\nSigCgt:")[2].split()[0]
    begun = profiler.name() != "perf" or [child.name() for child in profiler.children()] == ["sleep"]
    return begun and bool(int(caught, 16) & 1 << signal.SIGINT - 1)


def test_what_can_be_kept_nowhere_is_not_begun(
    child: subprocess.Popen[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "file"
    place.touch()
    assert cli.run(["profile", "--pid", str(child.pid), "--output", str(place)]) == 2
    assert capsys.readouterr().err == f"tvops: --output {place}: it is there, and no folder\n"


def test_nothing_stays_of_a_profile_that_failed(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    for folder in (tmp_path, tmp_path / "new" / "newer"):
        with contextlib.suppress(KeyboardInterrupt), place_for(folder, "engine-cpu") as stem:
            stem.with_suffix(".svg").touch()
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_what_an_early_end_left_may_be_too_little_to_be_read(tmp_path: Path) -> None:
    def render() -> list[Path]:
        raise TvopsError("memray: not enough")

    raw = tmp_path / "left.memray"
    raw.touch()
    of = Subject("process", 1, 0)
    with pytest.raises(TvopsError, match="not enough"):
        outside._render(of, "", raw, render)
    with pytest.raises(EndedError, match="process 1 ended while it was profiled; nothing was saved"):
        outside._render(of, "ended", raw, render)
    with pytest.raises(KeyboardInterrupt):
        outside._render(of, "interrupted", raw, render)


def test_a_process_that_nobody_has_waited_for_is_no_process(child: subprocess.Popen[bytes]) -> None:
    living = Subject("process", child.pid, started(child.pid))
    assert living.alive
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert started(child.pid) == living.started
    assert not living.alive


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_failures_are_one_line(stack: Stack, child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    data = ("--data-dir", str(stack.data_dir))
    for arguments, code, said in [
        (("--data-dir", str(tmp_path)), 1, "no stack runs on"),
        (("nope", *data), 2, "there are engine, market, supervisor"),
        (("engine", "--pid", "1"), 2, "give one of them"),
        (("--pid", str(2**22 + 1)), 2, "there is no such process"),
        (("--inside", "--mode", "perf", *data), 2, "--mode cpu or alloc"),
        (("--inside", "--pid", str(child.pid)), 1, "does not profile itself"),
        (("--output", "/proc/nope", *data), 2, "--output /proc/nope"),
        (("--seconds", "0", *data), 2, "see tvops profile --help"),
    ]:
        done = profile(*arguments)
        assert (done.returncode, said in one_line(done)) == (code, True), done.stderr


@pytest.mark.parametrize("mode, program", [("cpu", "py-spy"), ("perf", "perf")])
def test_a_process_that_did_nothing_is_told_plainly(mode: str, program: str, tmp_path: Path) -> None:
    need(program)
    idle = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"], stdout=subprocess.PIPE
    )
    try:
        assert idle.stdout is not None
        idle.stdout.readline()
        while psutil.Process(idle.pid).status() != psutil.STATUS_SLEEPING:
            time.sleep(0.01)
        done = profile("--pid", str(idle.pid), "--mode", mode, "--seconds", "1", "--output", str(tmp_path))
    finally:
        idle.kill()
        idle.communicate()
    assert (done.returncode, done.stdout) == (1, "")
    if "kernel does not let perf" in done.stderr:
        pytest.skip(one_line(done))
    assert one_line(done) == (
        f"tvops: process {idle.pid} did nothing while it was profiled, so that there is nothing to save; "
        "profile it for longer, or under load"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_the_kernel_refuses_is_said_plainly(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to give up a right")
    child = busy_child(dumpable=False)
    try:
        line = [sys.executable, "-m", "tvops", "profile", "--pid", str(child.pid), "--output", str(tmp_path)]
        done = subprocess.run(
            ["setpriv", "--bounding-set", "-sys_ptrace", *line], capture_output=True, text=True, check=False
        )
    finally:
        child.kill()
        child.communicate()
    assert done.returncode == 1
    assert f"process {child.pid}: the kernel does not let py-spy look into it" in one_line(done)
    assert "run this as root, or use --inside" in one_line(done)
