"""How fast the matching engine is, and that its fills are right.

    python benchmarks/matching.py [--ops 2000000] [--workload base|wide|deep|flash|all]

Accounts, every kind of limit, a collar and self-trade prevention are in force. Throughput is thread CPU time of
`Engine.apply` over batches, best and median of rounds that take turns among the workloads. Latency is per command:
the time stamp counter (x86-64 only) around each one-command call of the kernel, less what reading it twice costs;
thus without Python and without the batch around it. A fence keeps what is before and behind the command out of it,
so that this is more than a command's share of a batch. The events of the first `--check` commands are compared,
byte by byte, with those of the plain model in the tests; of the flash crash, those of a whole crash of so many
commands.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path
from platform import machine
from statistics import median
from typing import Any

import numba
import numpy as np
from matching_flow import WORKLOADS, flow, opening
from numba.extending import intrinsic
from numpy.typing import NDArray

from tvops.engine.matching import layout as at
from tvops.engine.matching.batch import apply_batch
from tvops.engine.matching.engine import Engine
from tvops.engine.records import EventKind, Reason

BATCH = 1024
BATCHES = (1, 16, 64, 256, 1024, 4096)


def timed_ns(commands: NDArray[Any], batch: int) -> float:
    """Apply the commands to a fresh engine; give thread CPU nanoseconds per command."""
    engine = Engine()
    start = time.thread_time_ns()
    for first in range(0, len(commands), batch):
        engine.apply(commands[first : first + batch])
    return (time.thread_time_ns() - start) / len(commands)


def with_keys(commands: NDArray[Any]) -> NDArray[Any]:
    """Give every command an idempotency key of its own."""
    keyed = commands.copy()
    keyed["key_high"] = np.random.default_rng(1).integers(1, 1 << 63, len(keyed), np.uint64)
    keyed["key_low"] = keyed["seq"]
    return keyed


def _cycles(_: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = context.get_value_type(numba.int64)
        fence = _declare(builder.module, _ir.FunctionType(_ir.VoidType(), []), "llvm.x86.sse2.lfence")
        counter = _declare(builder.module, _ir.FunctionType(word, []), "llvm.readcyclecounter")
        builder.call(fence, [])
        now = builder.call(counter, [])
        builder.call(fence, [])
        return now

    return numba.int64(), generate


_ir: Any = importlib.import_module("llvmlite.ir")
_declare: Any = numba.core.cgutils.get_or_insert_function
cycles: Any = intrinsic(_cycles)


def _latencies(state: at.Array, commands: at.Array, events: at.Array, room: int, taken: at.Array) -> int:
    """Fill ``taken`` with the cycles of each command; give the cycles of reading the counter."""
    least = 1 << 40
    for i in range(len(taken)):
        nothing = cycles()
        start = cycles()
        apply_batch(state, commands, events, i, i + 1, 0, room)
        taken[i] = cycles() - start
        least = min(least, start - nothing)
    return least


latencies: Any = numba.njit(_latencies)
tick: Any = numba.njit(lambda: cycles())


def percentiles(commands: NDArray[Any]) -> tuple[float, float, float]:
    """Give p50, p99 and p99.9 in ns."""
    engine, whole = Engine(), Engine()
    head = len(opening())
    engine.apply(commands[:head])
    taken = np.zeros(len(commands) - head, np.int64)
    words = commands[head:].view(np.int64)
    start, clock = int(tick()), time.perf_counter_ns()
    idle = latencies(engine._arena.words, words, engine._events.words, engine._events.room, taken)
    per_ns = (int(tick()) - start) / (time.perf_counter_ns() - clock)
    whole.apply(commands)
    if engine.digest() != whole.digest():
        sys.exit("the timed commands left another state than the same commands in one batch")
    p50, p99, p999 = np.percentile(np.maximum(taken - idle, 0) / per_ns, [50, 99, 99.9])
    return float(p50), float(p99), float(p999)


def check(commands: NDArray[Any]) -> str:
    """Compare the engine's events with the model's; say how many fills there were."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    model: Any = importlib.import_module("tests.matching_model").Model()
    events, expected = Engine().apply(commands), model.apply(commands)
    if events.tobytes() != expected.tobytes():
        sys.exit(f"the events of {len(commands)} commands are not the model's")
    fills = (events["kind"] == EventKind.MAKER_FILL).sum()
    return f"{len(events)} events, {fills} fills of {len(commands)} commands equal the model's"


def describe(commands: NDArray[Any]) -> str:
    """Say what a workload does to the engine."""
    engine, fills, stopped, orders, levels = Engine(), 0, 0, [], []
    for number, first in enumerate(range(0, len(commands), BATCH)):
        events = engine.apply(commands[first : first + BATCH])
        fills += int((events["kind"] == EventKind.MAKER_FILL).sum())
        stopped += int((events["reason"] == Reason.SELF_TRADE).sum())
        if number % 50 == 0:
            orders.append(engine.live_orders)
            levels.append(sum(len(side) for side in engine.depth(0, at.MAX_PRICE >> 8)))
    return (
        f"{fills} fills, {stopped} self-trades prevented, {median(orders):.0f} live orders on "
        f"{median(levels):.0f} levels (medians)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", type=int, default=2_000_000)
    parser.add_argument("--workload", choices=[*WORKLOADS, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--check", type=int, default=50_000, help="commands to compare with the model")
    options = parser.parse_args()
    names = list(WORKLOADS) if options.workload == "all" else [options.workload]
    flows = {name: flow(WORKLOADS[name], options.ops, options.accounts) for name in names}
    for name, commands in flows.items():
        print(f"{name}: {describe(commands)}")
        whole = commands if name != "flash" else flow(WORKLOADS[name], options.check, options.accounts)
        print(f"{name}: {check(whole[: options.check])}")
    rounds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name, commands in flows.items():
            rounds[name].append(timed_ns(commands, BATCH))
    print(f"\n{'workload':<10}{'best':>8}{'median':>8} Mops/s   {'p50':>4}{'p99':>7}{'p99.9':>7} ns")
    for name, commands in flows.items():
        best, middle = 1000 / min(rounds[name]), 1000 / median(rounds[name])
        tail = "".join(f"{ns:>7.0f}" for ns in percentiles(commands)) if machine() == "x86_64" else ""
        print(f"{name:<10}{best:>8.1f}{middle:>8.1f}        {tail}")
    first = flows[names[0]][:200_000]
    print(f"\nbatches of {names[0]}, Python included, best of 3")
    for batch in BATCHES:
        print(f"{batch:>6} {1000 / min(timed_ns(first, batch) for _ in range(3)):>8.2f} Mops/s")
    keyed = with_keys(flows[names[0]])
    print(f"\nevery command of {names[0]} with an idempotency key: ", end="")
    print(f"{1000 / min(timed_ns(keyed, BATCH) for _ in range(3)):.1f} Mops/s")


if __name__ == "__main__":
    main()
