"""Ctrl-C, and again, and again: what was started ends in good order, and nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from tests.conftest import Valkey
from tvops.bench import spawned
from tvops.bench.conduct import Order, conduct
from tvops.bench.interruption import Interruption, NothingYetError
from tvops.bench.plan import Load
from tvops.bench.result import Result
from tvops.bench.scenario import OwnStack, Scenario, load_scenario
from tvops.bench.searching import search_knee
from tvops.bench.signals import first_interrupt_only
from tvops.bench.spawned import OwnStackProcess, StackEndedError
from tvops.bench.stack_figures import StackWatch
from tvops.signals import SIGNALS

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Short enough for the sockets of a stack."""
    with tempfile.TemporaryDirectory(prefix="tv") as folder:
        yield Path(folder)


class Started:
    """A `tvops bench` with a stack of its own, of which nothing may stay."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tvops", "bench", *words, "--seconds", "30"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(folder)},
        )  # fmt: skip

    def child(self, name: str) -> psutil.Process:
        """Wait for a child with a word in its command line."""
        children: list[psutil.Process] = []

        def found() -> bool:
            children[:] = [one for one in psutil.Process(self.process.pid).children() if name in one.cmdline()]
            return bool(children)

        self.wait_for(found)
        return children[0]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until something holds, while it runs; its stack may have kernels to compile before."""
        deadline = time.monotonic() + 250
        while not condition():
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.05)

    def ended(self) -> tuple[int, list[str], str]:
        """Wait for its end; give its exit code, the lines of stderr that are not of its progress, and stdout."""
        out, err = self.process.communicate(timeout=90)
        assert list(self.folder.iterdir()) == []
        started = [one for one in psutil.process_iter(["cmdline"]) if str(self.folder) in str(one.info["cmdline"])]
        assert started == []
        lines = [line for line in err.splitlines() if ": starting " not in line]
        return self.process.returncode, lines, out

    def kill(self) -> None:
        """Kill it where it did not end; its stack ends with it."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(short_path: Path) -> Iterator[Callable[..., Started]]:
    """Start a bench by its words."""
    with contextlib.ExitStack() as endings:

        def started(*words: str) -> Started:
            bench = Started(short_path, *words)
            endings.callback(bench.kill)
            bench.wait_for(lambda: list(short_path.glob("tvops-bench-*/data")))
            return bench

        yield started


@pytest.mark.parametrize(
    ("words", "number"),
    [(("orders", "--rate", "50"), signal.SIGHUP), (("ab", "--b", "log_level=info"), signal.SIGINT)],
    ids=["orders whose terminal goes away", "ab"],
)
def test_four_in_a_row_leave_nothing(
    words: tuple[str, ...], number: signal.Signals, start: Callable[..., Started]
) -> None:
    bench = start(*words)
    for _ in range(4):
        bench.process.send_signal(number)
        time.sleep(0.05)
    code, lines, out = bench.ended()
    assert code == 130
    if out:  # a test that stood still comes when the load has begun
        assert out.endswith("verdict: partial: interrupted: what there was until then\n")
    else:
        assert lines[-1] == "tvops: interrupted"
    assert [line for line in lines if not line.startswith("tvops")] == []


def test_a_stack_whose_supervisor_is_killed_ends_the_run_and_leaves_no_server(
    start: Callable[..., Started],
) -> None:
    bench = start("orders", "--rate", "50")
    bench.child("tvops.bench.generator")
    bench.child("serve").kill()
    assert bench.ended() == (1, ["tvops: the stack of the bench ended with -9"], "")


def test_that_a_stack_has_ended_is_told_before_what_a_generator_makes_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spawned, "_LOOK_SECONDS", 60.0)  # so that the generator is the first to see it
    stack = OwnStackProcess("sim", {})

    class Ending(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer nothing, and end the stack at what a generator asks first."""
            if "symbols" in self.path:
                stack.process.kill()
                stack.process.wait()

        def log_message(self, *_: object) -> None:
            pass

    load = Load(door="rest_orders", rate=50)
    scenario = Scenario(name="ends", seconds=60, warm_up=0, seed=1, loads=(load,), targets={}, stack=OwnStack())
    with subprocess.Popen(["sleep", "600"]) as stack.process, HTTPServer(("127.0.0.1", 0), Ending) as port:
        threading.Thread(target=port.serve_forever, args=(0.05,), daemon=True).start()
        try:
            with pytest.raises(StackEndedError, match="ended with -9"):
                conduct(Order(scenario=scenario, gateway=f"http://127.0.0.1:{port.server_port}", stacks=(stack,)))
        finally:
            stack.process.kill()
            port.shutdown()


@pytest.mark.parametrize("again", [False, True], ids=["one signal", "another one, later"])
def test_a_generator_that_hangs_is_killed(
    again: bool, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tvops.bench.interruption.TOGETHER_SECONDS", 0.1)
    monkeypatch.setattr("tvops.bench.conduct.STOP_SECONDS", 3600.0 if again else 0.1)
    hung, done = threading.Event(), threading.Event()

    def interrupt() -> None:
        """Send one signal once the generator hangs, or go on to send them: two may come as one."""
        hung.wait()
        signal.raise_signal(signal.SIGINT)
        while again and not done.wait(0.3):
            signal.raise_signal(signal.SIGINT)

    def hang(text: str) -> None:
        """Hear of the progress, and hang the generator then."""
        for generator in [] if hung.is_set() else psutil.Process().children():
            if "tvops.bench.generator" in generator.cmdline():
                generator.suspend()
        hung.set()

    load = Load(door="redis", rate=50)
    scenario = Scenario(name="hung", seconds=60, warm_up=0, seed=1, loads=(load,), targets={}, stack=OwnStack())
    hand = threading.Thread(target=interrupt, daemon=True)
    hand.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            conduct(Order(scenario=scenario, redis=valkey.url, told=hang))
    finally:
        done.set()
        hand.join(60)
    assert "tvops: redis: the generator did not end in time and was killed" in capsys.readouterr().err


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_what_was_ignored_stays_ignored_and_no_other(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)

    async def work() -> int:
        signal.raise_signal(number)
        await asyncio.sleep(0)
        return 1

    other = next(one for one in SIGNALS if one is not number)
    with first_interrupt_only():
        signal.raise_signal(number)
        assert Interruption().run(work) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(other)


def test_the_first_signal_cancels_and_those_after_it_end_no_clean_up() -> None:
    done = []

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            for number in SIGNALS:
                signal.raise_signal(number)
            await asyncio.sleep(0.01)
            done.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        Interruption().run(work)
    assert done == ["cleaned up"]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_work_that_has_an_end_of_its_own_comes_to_it() -> None:
    interruption, stopped = Interruption(), asyncio.Event()

    async def work() -> str:
        interruption.end = stopped.set
        signal.raise_signal(signal.SIGTERM)
        await stopped.wait()
        return "what there is"

    assert interruption.run(work) == "what there is"
    assert interruption.came


def test_without_a_signal_all_is_as_before() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]

    async def work() -> int:
        return 1

    with first_interrupt_only():
        assert Interruption().run(work) == 1
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_outside_of_a_run_the_first_one_interrupts_and_no_other() -> None:
    interrupted = 0
    with first_interrupt_only():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            interrupted += 1
            signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert interrupted == 1


def test_a_search_that_is_stopped_before_its_first_step_has_nothing_to_tell() -> None:
    async def once(scenario: Scenario) -> Result:
        raise AssertionError("a step after the stop")

    async def search() -> None:
        stopped = asyncio.Event()
        stopped.set()
        async with StackWatch((), "") as watch:
            await search_knee(load_scenario("stress"), once, watch, stopped, print)

    with pytest.raises(NothingYetError):
        asyncio.run(search())


def test_one_that_comes_inside_an_import_takes_effect_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interrupted_module.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with first_interrupt_only(), pytest.raises(KeyboardInterrupt):
        importlib.import_module("interrupted_module")
    assert sys.modules.pop("interrupted_module")
