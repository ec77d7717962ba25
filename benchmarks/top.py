"""What `tvops top` costs: its share of a core on a real terminal, and what it does to the engine's p99.

    python benchmarks/top.py [--seconds 10] [--rounds 5] [--rate 200] [--hz 4]

Starts a stack and a tmux of its own. Rounds with and without top alternate, so that a machine that changes its
pace meanwhile does so for both. Read the shares as ratios: a busy neighbour makes every cycle slower.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import msgspec
import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.stack import Stack  # noqa: E402
from tvops.engine.telemetry.document import Telemetry  # noqa: E402
from tvops.engine.telemetry.histogram import Counts, percentiles  # noqa: E402

STAGE = "gateway_to_reply"
VIEWS = {"overview": "1", "latency": "2", "history": "3"}


def replies(stack: Stack) -> Counts:
    """Give the engine's own counts of how long replies took."""
    answer = httpx.get(f"{stack.gateway}/telemetry", headers={"Accept": "application/msgpack"}, timeout=5)
    return msgspec.msgpack.decode(answer.content, type=Telemetry).stages[STAGE].histogram.unpack()


class Orders:
    """Sends orders at a steady rate until told to end."""

    def __init__(self, stack: Stack, rate: float) -> None:
        self._stack, self._rate, self._end = stack, rate, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            self._stack.order()
            due = max(due + 1 / self._rate, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))

    def __enter__(self) -> Orders:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()


class TopInTmux:
    """`tvops top` in a terminal of 120x40 of its own tmux server."""

    def __init__(self, folder: Path, stack: Stack, hertz: float) -> None:
        self._socket = str(folder / f"tmux-{time.monotonic_ns()}")  # one that is ending takes no sessions
        self._command = f"exec '{sys.executable}' -m tvops top {stack.gateway},{stack.market} --hz {hertz}"
        self.process: psutil.Process | None = None

    def tmux(self, *arguments: str) -> str:
        """Call tmux."""
        command = ["tmux", "-S", self._socket, "-f", "/dev/null", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def __enter__(self) -> TopInTmux:
        self.tmux("new-session", "-d", "-s", "top", "-x", "120", "-y", "40", self._command)
        self.process = psutil.Process(int(self.tmux("list-panes", "-t", "top", "-F", "#{pane_pid}")))
        time.sleep(4)  # until it has started
        return self

    def __exit__(self, *error: object) -> None:
        self.tmux("kill-server")

    def share(self, seconds: float) -> float:
        """Give the percent of a core that it takes."""
        assert self.process is not None
        before, begun = self.process.cpu_times(), time.monotonic()
        time.sleep(seconds)
        after, took = self.process.cpu_times(), time.monotonic() - begun
        return 100 * (after.user + after.system - before.user - before.system) / took


def p99(stack: Stack, seconds: float) -> float:
    """Give the engine's p99 of the next seconds, in ms."""
    before = replies(stack)
    time.sleep(seconds)
    return percentiles(replies(stack) - before, [99])[0] / 1e6


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--hz", type=float, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Stack(Path(name) / "data").start() as stack:
        folder = Path(name)
        with Orders(stack, options.rate):
            with TopInTmux(folder, stack, options.hz) as top:
                for view, key in VIEWS.items():
                    top.tmux("send-keys", "-t", "top", key)
                    time.sleep(1)
                    print(f"{view:<9} {top.share(options.seconds):5.2f} % of a core at {options.hz:g} Hz")
            pairs = []
            for number in range(options.rounds):
                with_top = without = 0.0
                for running in (number % 2 == 0, number % 2 == 1):
                    if running:
                        with TopInTmux(folder, stack, options.hz):
                            with_top = p99(stack, options.seconds)
                    else:
                        without = p99(stack, options.seconds)
                pairs.append((without, with_top))
                print(f"engine p99 of {STAGE}: without {without:.3f} ms, with top {with_top:.3f} ms")
            differences = [after - before for before, after in pairs]
            middle = statistics.median(differences)
            print(
                f"median of the differences: {middle:+.3f} ms ({min(differences):+.3f} to {max(differences):+.3f})"
            )


if __name__ == "__main__":
    main()
