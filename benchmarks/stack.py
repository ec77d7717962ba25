"""The whole stack under load: sessions, ticks and orders at once, against the operators' targets.

    python benchmarks/stack.py [--sessions 500] [--ticks 10000] [--orders 1000] [--seconds 60]

A scenario of `tvops bench` (docs/bench.md) on a `tvops serve` of its own with synthetic ticks. What the stack says
of itself is read once a second, as `tvops slo` does, from the end of the warm-up on: the seconds that each metric
was in each state, and the memory of its processes. Ten minutes and more tell how memory goes on. Clients and stack
share the machine: the clients take about as much of it as the stack does. Exit code: 0, or 3 where a metric was
not ok.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.stack import Stack  # noqa: E402
from tvops.bench.conduct import Order, conduct  # noqa: E402
from tvops.bench.plan import Load  # noqa: E402
from tvops.bench.printing import render  # noqa: E402
from tvops.bench.scenario import Scenario  # noqa: E402
from tvops.engine.telemetry.document import Metric, Telemetry  # noqa: E402
from tvops.telemetry_client import TelemetryClient  # noqa: E402

WARM_UP = 10.0
STATES = ("ok", "warn", "breach", "no data")


class Watch(threading.Thread):
    """Reads the telemetry of both ports once a second until told to end."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(daemon=True)
        self.newest: dict[str, Metric] = {}
        self.states: dict[str, Counter[str]] = {}
        self.values: dict[str, list[float]] = {}
        self.memory: list[tuple[float, dict[str, int]]] = []
        self._urls, self._over = urls, threading.Event()

    def run(self) -> None:
        """Poll."""
        asyncio.run(self._poll())

    def end(self) -> None:
        """Have it end, and wait for that."""
        self._over.set()
        self.join()

    async def _poll(self) -> None:
        begun = time.monotonic()
        async with TelemetryClient(self._urls) as client:
            while not self._over.is_set():
                await asyncio.sleep(1.0)
                passed = time.monotonic() - begun
                for reading in await client.poll() if passed > WARM_UP else ():
                    if reading.telemetry is not None:
                        self._take(passed, reading.telemetry)

    def _take(self, passed: float, telemetry: Telemetry) -> None:
        for metric in telemetry.metrics:
            name = f"{metric.name} ({telemetry.process})"
            self.newest[name] = metric
            self.states.setdefault(name, Counter())[metric.state] += 1
            if metric.value is not None:
                self.values.setdefault(name, []).append(metric.value)
        if telemetry.processes:
            self.memory.append((passed, {p.name: p.pss or p.rss for p in telemetry.processes}))

    def lines(self) -> list[str]:
        """Give the metrics, then the memory."""
        found = [f"{'metric':<40} {'target':>8} {'limit':>8} {'median':>8} {'worst':>8}  seconds in each state"]
        for name, metric in self.newest.items():
            values = self.values.get(name) or [float("nan")]
            worst = min(values) if metric.limit < metric.target else max(values)
            states = ", ".join(
                f"{state} {self.states[name][state]}" for state in STATES if self.states[name][state]
            )
            found.append(
                f"{name:<40} {metric.target:8g} {metric.limit:8g} {np.median(values):8.2f} {worst:8.2f}  "
                f"{states} ({metric.unit})"
            )
        return [*found, *self._memory_lines()]

    def _memory_lines(self) -> list[str]:
        """Give the memory of each process over the run, and its slope in the second half."""
        if len(self.memory) < 6:
            return ["memory: too short a run"]
        found = [f"{'memory, MB':<40} {'begin':>8} {'middle':>8} {'end':>8}  slope of the second half, MB/min"]
        half = self.memory[len(self.memory) // 2 :]
        minutes = np.array([passed for passed, _ in half]) / 60
        names = list(self.memory[-1][1])
        for name in (*names, "all"):
            sizes = [sum(all_.values()) if name == "all" else all_.get(name, 0) for _, all_ in self.memory]
            megabytes = np.array(sizes) / 2**20
            slope = np.polyfit(minutes, megabytes[-len(half) :], 1)[0]
            middle = megabytes[len(sizes) // 2]
            found.append(f"{name:<40} {megabytes[0]:8.1f} {middle:8.1f} {megabytes[-1]:8.1f}  {slope:+.2f}")
        return found

    @property
    def ok(self) -> bool:
        """Whether no metric was ever anything but ok."""
        return bool(self.states) and all(set(states) == {"ok"} for states in self.states.values())


def main() -> int:
    """Load the stack, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--ticks", type=int, default=10_000, help="ticks per second")
    parser.add_argument("--orders", type=int, default=1_000, help="orders per second")
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    settings = {"max_sessions": arguments.sessions + 10, "rate_limit": 10 * arguments.orders}
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    scenario = Scenario(
        name="stack",
        seconds=arguments.seconds,
        warm_up=WARM_UP,
        loads=(
            Load(door="rest_orders", rate=arguments.orders),
            Load(door="sessions", options={"sessions": arguments.sessions}),
        ),
    )
    with tempfile.TemporaryDirectory() as name:
        stack = Stack(Path(name) / "data", "--feed", f"synthetic:{arguments.ticks}", *given)
        with stack.start():
            watch = Watch([stack.gateway, stack.market])
            watch.start()
            result = conduct(Order(scenario=scenario, gateway=stack.gateway, market=stack.market))
            watch.end()
    print(render(result))
    print("\n".join(watch.lines()))
    return 0 if watch.ok else 3


if __name__ == "__main__":
    sys.exit(main())
