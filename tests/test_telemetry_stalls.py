"""Pauses of a process and stalls of its loop: what is measured of them, and what is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvops.engine.telemetry import process_pauses
from tvops.engine.telemetry.events import EventLog
from tvops.engine.telemetry.pauses import Pause
from tvops.engine.telemetry.process_pauses import LEAST_NS, ProcessPauses
from tvops.engine.telemetry.recorder import Recorder
from tvops.engine.telemetry.stalls import BURST, LINE_SECONDS, TOGETHER_SECONDS, Stalls

MS = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    process_pauses.compile_kernels()


def pauses(*rows: tuple[float, float]) -> NDArray[np.int64]:
    """Give pauses from their ends and lengths in ms."""
    return (np.array(rows).reshape(-1, 2) * MS).astype(np.int64)


def texts(log: EventLog) -> list[str]:
    return [event.text.partition(", until")[0] for event in log.newest]


def stop_for(pid: int, seconds: float) -> tuple[int, int]:
    """Stop every thread of a process for at least so long, and hardly longer; give from when to when (ns)."""
    os.kill(pid, signal.SIGSTOP)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        while " T (" not in (thread / "status").read_text().replace("\t", " "):
            pass
    begun, until = time.time_ns(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    ended = time.time_ns()
    os.kill(pid, signal.SIGCONT)
    return begun, ended


CHILD = """
import sys, time
from tvops.engine.telemetry import process_pauses
from tvops.engine.telemetry.recorder import Recorder
recorder = Recorder()
process_pauses.compile_kernels()
measured = process_pauses.ProcessPauses(recorder)
measured.start()
for command in sys.stdin:
    print(measured.take()[:, 1].max(initial=0), recorder.total, recorder.maximum, flush=True)
"""


def test_a_stopped_process_sees_its_pause_and_ends_at_once() -> None:
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def asked() -> list[int]:
            assert child.stdin is not None
            assert child.stdout is not None
            print(file=child.stdin, flush=True)
            return [int(word) for word in child.stdout.readline().split()]

        begun = time.monotonic_ns()
        first = before = asked()[1]
        for seconds in (0.005, 0.02, 0.3):
            stop_for(child.pid, seconds)
            longest = total = 0
            while total < before + seconds * 1e3:  # a wake-up a millisecond, those of the pause among them
                last, total, maximum = asked()
                longest = max(longest, last)
            assert maximum >= longest >= seconds * 1e9 - MS
            assert total - first <= (time.monotonic_ns() - begun) / MS + 1
            before = total
        child.stdin.close()  # the interpreter ends while the thread looks
        assert child.wait(20) == 0


def test_it_begins_and_ends_as_told() -> None:
    recorder = Recorder()
    measured = ProcessPauses(recorder)
    measured.stop()
    threads, parts = threading.active_count(), []
    for turn in (1, 2, 3):
        measured.start()
        while recorder.total < 30 * turn:
            time.sleep(0.01)
            parts.append(measured.take())
        measured.stop()
        assert threading.active_count() == threads
    taken = np.concatenate([*parts, measured.take()])
    total = recorder.total
    assert (taken[:, 1] >= LEAST_NS).all()
    assert (np.diff(taken[:, 0]) > 0).all()
    time.sleep(0.02)
    assert len(measured.take()) == 0
    assert recorder.total == total


def test_the_own_work_of_the_loop_is_no_pause() -> None:
    """On one core the two threads are in each other's way."""
    recorder = Recorder()
    measured = ProcessPauses(recorder)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        begun, worked = time.monotonic_ns(), time.thread_time_ns()
        measured.start()
        while time.thread_time_ns() - worked < 150 * MS:
            pass
        measured.stop()
        away = time.monotonic_ns() - begun - (time.thread_time_ns() - worked)
    finally:
        os.sched_setaffinity(0, cores)
    assert measured.take()[:, 1].sum() <= away


def test_few_are_told_one_by_one_and_many_together() -> None:
    log = EventLog()
    stalls = Stalls(log, "engine")
    for second in range(BURST + 5):
        stalls.tell(second * 0.01, pauses((second, 4.5)), [])
    assert texts(log) == ["could not run for 4.5 ms"] * BURST
    stalls.tell(TOGETHER_SECONDS + 1, pauses((1, 9.1)), [])
    assert texts(log)[BURST:] == [
        "could not run for 9.1 ms",
        "could not run 5 times more in 11 s: 22.5 ms in all, at longest 4.5 ms",
    ]
    stalls.tell(TOGETHER_SECONDS + 2, pauses(), [])
    assert len(texts(log)) == BURST + 2


def test_one_that_is_twice_as_long_is_told_at_once() -> None:
    log = EventLog()
    stalls = Stalls(log, "engine")
    stalls.tell(0, pauses(*[(n, 5) for n in range(BURST)]), [])
    stalls.tell(1, pauses((1, 9.9), (2, 10), (3, 19), (4, 50), (5, 50)), [])
    assert texts(log)[BURST:] == ["could not run for 10.0 ms", "could not run for 50.0 ms"]


@given(st.lists(st.integers(0, 30), max_size=60))
def test_however_many_there_are_lines_are_few_and_none_is_lost(numbers: list[int]) -> None:
    """``numbers``: of pauses in each of some seconds."""
    log = EventLog()
    stalls = Stalls(log, "engine")
    for second, number in enumerate(numbers):
        stalls.tell(second, pauses(*[(n, 5) for n in range(number)]), [])
    stalls.tell(len(numbers) + TOGETHER_SECONDS, pauses(), [])
    said = [event.text for event in log.newest]
    singles = [text for text in said if "until" in text]
    together = [
        int(text.split(" times")[0].split()[-1]) if "times" in text else 1 for text in said if text not in singles
    ]
    assert len(singles) <= BURST + len(numbers) / LINE_SECONDS
    assert len(together) <= 1 + len(numbers) / TOGETHER_SECONDS + 1
    if log.count <= 64:
        assert len(singles) + sum(together) == sum(numbers)


def test_the_same_thing_is_told_once() -> None:
    log = EventLog()
    stalls = Stalls(log, "engine")
    stalls.tell(0, pauses((100, 20), (300, 4)), [])
    stalls.tell(
        1, pauses((900, 4.5)), [Pause(101 * MS, 21 * MS), Pause(303 * MS, 6 * MS), Pause(600 * MS, 12 * MS)]
    )
    assert texts(log) == [
        "could not run for 20.0 ms",
        "could not run for 4.0 ms",
        "could not run for 4.5 ms",
        "the event loop stood still for 12.0 ms",
    ]
    stalls.tell(2, pauses(), [Pause(905 * MS, 15 * MS)])
    assert texts(log)[4:] == ["the event loop stood still for 10.5 ms"]


def test_an_event_has_the_moment_of_its_pause() -> None:
    log = EventLog()
    earliest = time.time_ns() - 700 * MS
    end = time.monotonic_ns() - 700 * MS
    latest = time.time_ns() - 700 * MS
    Stalls(log, "engine").tell(0, pauses((end / MS, 5)), [])
    (event,) = log.newest
    assert earliest - 600 * MS < event.time < latest + 600 * MS
    clock = time.strftime("%H:%M:%S", time.gmtime(event.time / 1e9))
    assert event.text.startswith(f"could not run for 5.0 ms, until {clock}.")
    assert event.text.endswith(" UTC")


def test_clocks_that_are_read_with_a_pause_between_them_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([1000, 1600, 1601, 2000, 2000, 2000])  # ms: held up for 600 ms behind the first reading
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(moments) * MS)
    monkeypatch.setattr(time, "time_ns", lambda: (next(moments) + 50_000) * MS)
    log = EventLog()
    Stalls(log, "engine").tell(0, pauses((990, 5)), [])
    assert [event.time for event in log.newest] == [50_990 * MS]
