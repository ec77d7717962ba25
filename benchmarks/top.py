"""What `tvops top` costs: its share of a core in every view, and whether it moves the engine's p99.

    python benchmarks/top.py [--seconds 10] [--rounds 12] [--rate 200] [--sessions 50] [--hz 4] [--under COMMAND]

Starts a stack of its own with orders and sessions, and top in a tmux of its own. Shares are CPU time, so that a
neighbour makes them larger by what it takes from the caches only.

For the p99 every round has three blocks in random order: twice without top (it is stopped by SIGSTOP) and once
with it. The two without are the control: what they differ by is noise, and top moves the p99 only where the
difference is beyond that (tvops/statistics.py). Each ``--under`` adds a block with a top that this command starts
(`nice -n 19`, `chrt -i 0`), to compare ways of scheduling it.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.stack import Stack, stats  # noqa: E402
from tvops.engine.telemetry.document import Telemetry  # noqa: E402
from tvops.engine.telemetry.histogram import Counts, percentiles  # noqa: E402
from tvops.statistics import compare, judge, needed_pairs, needed_samples, noise_floor  # noqa: E402
from tvops.top.frame import VIEWS  # noqa: E402

STAGE = "gateway_to_reply"
LIMIT = 3.0
"""Percent of a core that top may take (docs/top.md)."""

SETTLE = 1.5
"""Seconds until a top that goes on has caught up."""


def replies(stack: Stack) -> Counts:
    """Give the engine's own counts of how long replies took."""
    answer = httpx.get(f"{stack.gateway}/telemetry", headers={"Accept": "application/msgpack"}, timeout=5)
    return msgspec.msgpack.decode(answer.content, type=Telemetry).stages[STAGE].histogram.unpack()


@contextlib.contextmanager
def orders(stack: Stack, rate: float) -> Iterator[None]:
    """Send orders at a steady rate meanwhile."""
    end = threading.Event()

    def run() -> None:
        due = time.monotonic()
        while not end.is_set():
            stack.order()
            due = max(due + 1 / rate, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@contextlib.contextmanager
def listeners(stack: Stack, sessions: int) -> Iterator[None]:
    """Have so many sessions take every tick meanwhile."""
    command = ["bench", "ticks", "--sessions", str(sessions), "--seconds", "86400", "--market", stack.market]
    process = subprocess.Popen([sys.executable, "-m", "tvops", *command], stdout=subprocess.DEVNULL)
    try:
        while stats(stack.market)["active_connections"] < sessions:
            if process.poll() is not None:
                raise SystemExit("the sessions have not come about")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait()


class TopInTmux:
    """`tvops top` in a terminal of 120x40 of its own tmux server."""

    def __init__(self, folder: Path, stack: Stack, hertz: float, under: str = "") -> None:
        self._socket = str(folder / f"tmux-{time.monotonic_ns()}")  # one that is ending takes no sessions
        self._command = f"exec {under} '{sys.executable}' -m tvops top {stack.gateway},{stack.market} --hz {hertz}"
        self.process: psutil.Process | None = None

    def tmux(self, *arguments: str) -> str:
        """Call tmux."""
        command = ["tmux", "-S", self._socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def __enter__(self) -> TopInTmux:
        self.tmux("new-session", "-d", "-s", "top", "-x", "120", "-y", "40", self._command)
        self.process = psutil.Process(int(self.tmux("list-panes", "-t", "top", "-F", "#{pane_pid}")))
        time.sleep(15)  # until it has started and the window of its percentiles is full
        return self

    def __exit__(self, *error: object) -> None:
        self.tmux("kill-server")

    def stop(self) -> None:
        """Have it stand."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        """Have it go on meanwhile."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.stop()

    def share(self, seconds: float) -> float:
        """Give the percent of a core that it takes."""
        assert self.process is not None
        before, begun = self.process.cpu_times(), time.monotonic()
        time.sleep(seconds)
        after, took = self.process.cpu_times(), time.monotonic() - begun
        return 100 * (after.user + after.system - before.user - before.system) / took


def p99(stack: Stack, seconds: float) -> float:
    """Give the engine's p99 of the next seconds, in ms."""
    time.sleep(SETTLE)
    before = replies(stack)
    time.sleep(seconds)
    return percentiles(replies(stack) - before, [99])[0] / 1e6


def print_shares(top: TopInTmux, seconds: float, hertz: float) -> None:
    """Tell what each view costs."""
    for view in VIEWS:
        top.tmux("send-keys", "-t", "top", view.letter)
        time.sleep(1)
        share = top.share(seconds)
        print(f"{view.name:<9} {share:5.2f} % of a core at {hertz:g} Hz{'' if share < LIMIT else '  TOO MUCH'}")
    top.tmux("send-keys", "-t", "top", VIEWS[0].letter)


def print_p99(stack: Stack, tops: dict[str, TopInTmux], seconds: float, rounds: int, seed: int) -> None:
    """Tell whether a top moves the engine's p99, by more than two blocks without one differ."""
    order = random.Random(seed)
    values: dict[str, list[float]] = {name: [] for name in ("without", "control", *tops)}
    for _ in range(rounds):
        for name in order.sample(list(values), len(values)):
            with tops[name].going() if name in tops else contextlib.nullcontext():
                values[name].append(p99(stack, seconds))
        print("  ".join(f"{name} {taken[-1]:.3f}" for name, taken in values.items()), "ms", flush=True)
    against = [
        compare(np.array(values["without"]), np.array(values[name]), seed) for name in values if name != "without"
    ]
    floor = noise_floor(against[0])
    print(f"engine's p99 of {STAGE}: {against[0].before:.3f} ms without top; noise of the control {floor:.3f} ms")
    judgements = judge(against[1:], [floor] * len(tops))
    for name, found, judgement in zip(tops, against[1:], judgements, strict=True):
        moved = {"hurts": "moved up", "helps": "moved down"}.get(judgement.verdict, "not moved")
        print(
            f"{name}: {found.difference:+.3f} ms ({found.low:+.3f} to {found.high:+.3f}),"
            f" p {judgement.p_corrected:.3f}: {moved};"
            f" {judgement.detectable:.3f} ms would have been found"
        )


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=10, help="of each block")
    parser.add_argument("--rounds", type=int, default=12, help="0: only what the views cost")
    parser.add_argument("--rate", type=float, default=200, help="orders per second")
    parser.add_argument("--sessions", type=int, default=50, help="that take every tick")
    parser.add_argument("--hz", type=float, default=4)
    parser.add_argument("--under", action="append", default=[], metavar="COMMAND", help="may be given again")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.rounds and options.rounds < needed_pairs(1 + len(options.under)):
        parser.error(f"--rounds {options.rounds}: it takes {needed_pairs(1 + len(options.under))} for a verdict")
    if options.seconds * options.rate < needed_samples(99):
        parser.error(f"a p99 takes {needed_samples(99)} orders: more --seconds or a higher --rate")
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        stack = opened.enter_context(Stack(folder / "data").start())
        opened.enter_context(orders(stack, options.rate))
        opened.enter_context(listeners(stack, options.sessions))
        tops = {"with top": opened.enter_context(TopInTmux(folder, stack, options.hz))}
        print_shares(tops["with top"], options.seconds, options.hz)
        tops |= {
            f"under {under}": opened.enter_context(TopInTmux(folder, stack, options.hz, under))
            for under in options.under
        }
        for top in tops.values():
            top.stop()
        if options.rounds:
            print_p99(stack, tops, options.seconds, options.rounds, options.seed)


if __name__ == "__main__":
    main()
