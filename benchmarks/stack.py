"""The whole stack under load: sessions, ticks and orders at once, and the memory of all its processes.

    python benchmarks/stack.py [--sessions 500] [--ticks 10000] [--orders 1000] [--seconds 60]

A scenario of `tvops bench` (docs/bench.md) on a `tvops serve` of its own with synthetic ticks. Clients and stack
share the machine: the clients take about as much of it as the stack does.
"""

from __future__ import annotations

import argparse
import sys

from tvops.bench.conduct import Order, conduct
from tvops.bench.plan import Load
from tvops.bench.printing import render
from tvops.bench.result import MemorySample
from tvops.bench.scenario import OwnStack, Scenario

WARM_UP = 3.0


def memory(samples: tuple[MemorySample, ...]) -> str:
    """Give the most that all processes took together."""
    totals: dict[float, int] = {}
    for sample in samples:
        totals[sample.second] = totals.get(sample.second, 0) + sample.bytes
    return f"{max(totals.values()) / 2**20:.0f} MB" if totals else "not known"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--ticks", type=int, default=10_000, help="ticks per second")
    parser.add_argument("--orders", type=int, default=1_000, help="orders per second")
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    scenario = Scenario(
        name="stack",
        seconds=arguments.seconds,
        warm_up=WARM_UP,
        stack=OwnStack(
            feed=f"synthetic:{arguments.ticks}",
            settings={"max_sessions": arguments.sessions + 10, "rate_limit": 10.0 * arguments.orders},
        ),
        loads=(
            Load(door="rest_orders", rate=arguments.orders),
            Load(door="sessions", options={"sessions": arguments.sessions}),
        ),
    )
    result = conduct(Order(scenario=scenario))
    print(render(result), end="")
    print(f"stack: {memory(result.memory)} at most over all processes (PSS)")
    return 1 if any(operation.errors for operation in result.operations) else 0


if __name__ == "__main__":
    sys.exit(main())
