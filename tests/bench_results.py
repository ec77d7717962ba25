"""Results of runs that never were, from a seed: for tests of what is made of results."""

from __future__ import annotations

import numpy as np

from tvops.bench.result import Check, Generator, MemorySample, Operation, Result, Step
from tvops.bench.samples import packed, series_of
from tvops.tuning.fingerprint import Fingerprint

HOST = Fingerprint(
    digest="0123456789ab", host="aa11", cpu="Testing 3000", cpus="4 CPUs on 2 cores, 1 node", memory_gib=16.0,
    kernel="6.12.0 x86_64", parameters=("nohz_full=2-3",), virtual="kvm", container="", clocksource="tsc",
    governor="performance", idle="haltpoll", preemption="PREEMPT_DYNAMIC", thp="never",
    mitigations={"meltdown": "Not affected"}, nics={"eth0": "virtio_net"}, versions={"python": "3.11.7"},
)  # fmt: skip


def operation(
    seed: int = 0, *, key: str = "rest_orders.new", rate: int = 500, seconds: int = 30, middle: float = 0.8e6,
    spread: float = 0.4, errors: int = 0,
) -> Operation:  # fmt: skip
    """Log-normal latencies around ``middle`` ns with a slow drift, at an even rate."""
    rng = np.random.default_rng(seed)
    count = rate * seconds
    second = np.arange(count) // rate
    drift = np.cumsum(rng.normal(0, 0.03, seconds))
    service = (middle * np.exp(rng.normal(0, spread, count) + drift[second])).astype(np.int64)
    waited = (rng.random(count) < 0.01) * rng.exponential(8e6, count)
    response = service + waited.astype(np.int64)
    good = np.ones(count, bool)
    good[rng.choice(count, errors, replace=False)] = False
    door, _, name = key.partition(".")
    return Operation(
        door=door, name=name, sent=count, answered=int(good.sum()), errors=errors, timeouts=0,
        outcomes={"201": int(good.sum()), **({"429": errors} if errors else {})}, rate=float(good.sum() / seconds),
        planned_rate=rate, response=packed(response), service=packed(service),
        lateness=packed(rng.exponential(20e3, count).astype(np.int64)),
        series=series_of(second, response, np.ones(count, bool), good, seconds),
    )  # fmt: skip


def result(*operations: Operation, **changes: object) -> Result:
    """One run of 30 s."""
    values: dict[str, object] = {
        "name": "steady", "started": 1_790_000_000_000_000_000, "seconds": 30.0, "warm_up": 5.0, "seed": 7,
        "targets_of": {"gateway": "http://127.0.0.1:8000"}, "spawned": True,
        "scenario": {"name": "steady", "seconds": 30}, "fingerprint": HOST, "operations": operations,
    }  # fmt: skip
    return Result(**{**values, **changes})  # type: ignore[arg-type]


def full_result() -> Result:
    """A run with everything that a report can show."""
    return result(
        operation(1, errors=12),
        operation(2, key="rest_orders.cancel", rate=200, middle=0.6e6),
        operation(3, key="sessions.ticks", rate=900, middle=2.5e6, spread=0.6),
        checks=(
            Check(about="rest_orders", figure="response_p99_ms", limit=20, seen=11.4, met=True),
            Check(about="stack", figure="errors_percent", limit=0, seen=0.02, met=False, detail="12 of 15,000"),
        ),
        steps=tuple(
            Step(rate=rate, achieved=min(rate, 2300 + rate / 40), kept=rate < 2200, void="",
                 response_p50=800_000, response_p99=int(2e6 / max(0.05, 1 - rate / 2400)), service_p50=700_000,
                 errors=0, samples=rate * 5, busy=min(100.0, rate / 24))
            for rate in (500, 800, 1280, 2048, 2300, 2600, 3276)
        ),
        knee=2048.0,
        memory=tuple(
            MemorySample(second=float(s), process=p, bytes=int((size + 0.02 * s) * 2**20))
            for p, size in (("engine", 180), ("market", 150)) for s in range(0, 31, 5)
        ),
        generators=(Generator(door="rest_orders", pid=11, core=3, cpu_percent=41.0, detail="16 connections"),),
        notes=("The stack and the generator shared 4 cores.",),
    )  # fmt: skip
