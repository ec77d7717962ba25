"""Ctrl-C, and again, and again: what was started ends in good order, and nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tvops.bench.interruption import Interruption, NothingYetError
from tvops.bench.result import Result
from tvops.bench.scenario import Scenario, load_scenario
from tvops.bench.searching import search_knee
from tvops.bench.signals import first_interrupt_only
from tvops.bench.stack_figures import StackWatch

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


@pytest.mark.parametrize("words", [("orders", "--rate", "50"), ("ab", "--b", "log_level=info")], ids=" ".join)
def test_four_in_a_row_leave_nothing(words: tuple[str, ...], short_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tvops", "bench", *words, "--seconds", "30"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(short_path)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(short_path.glob("tvops-bench-*/data")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    for _ in range(4):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert [line for line in err.splitlines() if not line.startswith("tvops")] == []
    assert list(short_path.iterdir()) == []
    started = [one for one in psutil.process_iter(["cmdline"]) if str(short_path) in str(one.info["cmdline"])]
    assert started == []


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
