"""Runs the steps of `tvops bench capacity` against stacks of its own, and counts the CPU time that they take."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec
import psutil

from tvops.bench.capacity import Capacity, Dimension, Step, Throughput, assess, search
from tvops.bench.children import divided_cores
from tvops.bench.conduct import Order, conduct
from tvops.bench.figures import figure_of
from tvops.bench.plan import Load
from tvops.bench.result import Result
from tvops.bench.scenario import OwnStack, Scenario, Targets
from tvops.bench.sides import running
from tvops.bench.spawned import OwnStackProcess
from tvops.bench.stolen_time import StolenTime
from tvops.tuning.fingerprint import fingerprint
from tvops.tuning.host import Host

WARM_UP: Final = 1.0
UNDER_WAY: Final = (1, 2, 4, 8, 16, 32, 64)
"""Orders under way at once, for the scalability law."""

_REST_SECONDS: Final = 2.0
_TICKS: Final = 1000
_SESSIONS: Final = 50
_MOST: Final[Mapping[str, float]] = {"orders": 50_000.0, "ticks": 200_000.0, "sessions": 5_000.0}
_LEAST: Final = 0.1
"""Share of the first load below which there is no looking for one that the host carries."""
_ARRIVED: Final = 0.98
"""Share of a load that has to be carried: what is conflated, or what the feed does not make, is not."""
_FIRST: Final[Mapping[str, float]] = {"orders": 200.0, "ticks": 1_000.0, "sessions": 20.0}

Told = Callable[[str], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How capacity is measured."""

    seconds: float  # of each step
    seed: int
    p99_ms: Mapping[str, float]  # target of each kind of load


class Meter:
    """CPU time of the processes of a stack, by name."""

    def __init__(self, pid: int) -> None:
        self._top = psutil.Process(pid)

    def read(self) -> dict[str, float]:
        """Give the CPU seconds of each process since it started."""
        taken: dict[str, float] = {}
        for process in [self._top, *self._top.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = process.cpu_times()
                taken[f"{_name(process)} {process.pid}"] = times.user + times.system
        return taken


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    if "tvops.engine.worker" in words[:-1]:
        return words[words.index("tvops.engine.worker") + 1]
    return "serve" if "serve" in words else process.name()


class Busy(msgspec.Struct, frozen=True):
    """How many cores the stack kept busy while there was load."""

    whole: float
    busiest: float
    process: str


class Measuring:
    """One stack, its meter, and what it takes at rest."""

    def __init__(self, stack: OwnStackProcess, options: Options) -> None:
        self.stack = stack
        self.options = options
        self.meter = Meter(stack.process.pid)
        self._rest = _rates(self.meter, _REST_SECONDS)

    def run(self, load: Load, stack: OwnStack, targets: Targets) -> tuple[Result, Busy]:
        """Make a load once; Ctrl-C ends everything."""
        scenario = Scenario(
            name="capacity", seconds=self.options.seconds, warm_up=WARM_UP, seed=self.options.seed, loads=(load,),
            targets=targets, stack=stack,
        )  # fmt: skip
        before, begun = self.meter.read(), time.monotonic()
        result = conduct(
            Order(scenario=scenario, gateway=self.stack.gateway, market=self.stack.market, stacks=(self.stack,))
        )
        passed, after = time.monotonic() - begun, self.meter.read()
        if result.partial.startswith("interrupted"):
            raise KeyboardInterrupt
        return result, self._busy(before, after, passed)

    def _busy(self, before: Mapping[str, float], after: Mapping[str, float], passed: float) -> Busy:
        """Take what the stack needs at rest off the time in which the generator only started and ended."""
        loaded = WARM_UP + self.options.seconds
        idle = max(0.0, passed - loaded)
        cores = {
            name: max(0.0, taken - before.get(name, 0.0) - idle * self._rest.get(name, 0.0)) / loaded
            for name, taken in after.items()
        }
        name = max(cores, key=lambda one: cores[one])
        return Busy(sum(cores.values()), cores[name], name.rpartition(" ")[0])


def _busy_cores(seconds: float) -> float:
    """Give how many cores are busy, those that other guests of the host took included."""
    cores = psutil.cpu_times_percent(seconds, percpu=True)
    return float(sum(100 - core.idle - core.iowait for core in cores) / 100)


def _rates(meter: Meter, seconds: float) -> dict[str, float]:
    before = meter.read()
    time.sleep(seconds)
    return {name: (taken - before.get(name, taken)) / seconds for name, taken in meter.read().items()}


@contextlib.contextmanager
def _stack(own: OwnStack, options: Options, told: Told) -> Iterator[Measuring]:
    _, cores = divided_cores(1)
    told(f"starting a stack of its own (feed {own.feed})")
    with running(OwnStackProcess(own.feed, own.settings, cores)) as stack:
        yield Measuring(stack, options)


def measure_capacity(kinds: tuple[str, ...], options: Options, told: Told) -> Capacity:
    """Step up each kind of load on stacks of its own; takes some minutes.

    Raises:
        TvopsError: a stack or a generator does not start.
    """
    started, others, stolen = time.time_ns(), _busy_cores(_REST_SECONDS), StolenTime()
    measured = {"orders": _orders, "ticks": _ticks, "sessions": _sessions}
    dimensions = [measured[kind](options, told) for kind in kinds]
    return Capacity(
        started=started, seed=options.seed, seconds=options.seconds, cores=len(os.sched_getaffinity(0)),
        targets=tuple(
            f"{kind}: p99 at most {options.p99_ms[kind]:g} ms, no errors, {100 * _ARRIVED:g} % carried"
            for kind in kinds
        ),
        fingerprint=fingerprint(Host()), dimensions=tuple(dimensions), others=others,
        stolen_percent=stolen.percent(),
    )  # fmt: skip


def _step(load: float, achieved: float, result: Result, busy: Busy) -> Step:
    missed = [
        f"{check.about} {check.figure} was {'not measured' if check.seen is None else f'{check.seen:.4g}'}, "
        f"wanted {check.limit:g}"
        for check in result.checks
        if not check.met
    ]
    if achieved < _ARRIVED * load:
        missed.append(f"{100 * achieved / load:.3g} % of it was carried, wanted {100 * _ARRIVED:g} %")
    slowest = max((figure_of(operation, "p99") or 0.0 for operation in result.operations), default=0.0)
    return Step(
        load=load, achieved=achieved, kept=not missed, void=result.void, why="; ".join(missed),
        response_p99=slowest or None, busy=busy.whole, busiest=busy.busiest, process=busy.process,
    )  # fmt: skip


def _orders(options: Options, told: Told) -> Dimension:
    own = OwnStack(feed="synthetic:100", settings={"rate_limit": 1_000_000})
    targets: Targets = {"rest_orders": {"p99_ms": options.p99_ms["orders"], "error_rate": 0, "rate_percent": 99}}
    with _stack(own, options, told) as measuring:

        def step(rate: float) -> Step:
            told(f"{rate:,.0f} orders/s")
            load = Load(door="rest_orders", rate=rate, options={"connections": 32})
            result, busy = measuring.run(load, own, targets)
            return _step(rate, sum(operation.rate for operation in result.operations), result, busy)

        steps = search(step, _FIRST["orders"], _MOST["orders"], least=_LEAST * _FIRST["orders"])
        throughputs = []
        for under_way in UNDER_WAY:
            told(f"{under_way} orders under way at once, as fast as they go")
            load = Load(door="rest_orders", closed=True, options={"connections": under_way})
            result, _ = measuring.run(load, own, targets)
            throughputs.append(Throughput(load=under_way, rate=sum(one.rate for one in result.operations)))
    return _assess("orders", "orders/s", steps, throughputs, "orders under way", options)


def _sessions(options: Options, told: Told) -> Dimension:
    own = OwnStack(feed=f"synthetic:{_TICKS}")
    with _stack(own, options, told) as measuring:

        def step(sessions: float) -> Step:
            told(f"{sessions:,.0f} sessions at {_TICKS:,} ticks/s")
            result, busy = measuring.run(_listening(sessions), own, _listening_targets(options, "sessions"))
            return _step(sessions, _share(result, sessions * _TICKS) * sessions, result, busy)

        first = _FIRST["sessions"]
        steps = search(step, first, _MOST["sessions"], whole=True, least=_LEAST * first)
    return _assess("sessions", f"sessions at {_TICKS:,} ticks/s", steps, _as_points(steps), "sessions", options)


def _ticks(options: Options, told: Told) -> Dimension:
    def step(rate: float) -> Step:
        own = OwnStack(feed=f"synthetic:{rate:.0f}")
        with _stack(own, options, told) as measuring:
            told(f"{rate:,.0f} ticks/s to {_SESSIONS} sessions")
            result, busy = measuring.run(_listening(_SESSIONS), own, _listening_targets(options, "ticks"))
        return _step(rate, _share(result, rate * _SESSIONS) * rate, result, busy)

    steps = search(step, _FIRST["ticks"], _MOST["ticks"], whole=True, least=_LEAST * _FIRST["ticks"])
    points = [Throughput(load=step.load / _FIRST["ticks"], rate=step.achieved) for step in steps if not step.void]
    unit = f"ticks/s to {_SESSIONS} sessions"
    return _assess("ticks", unit, steps, points, "thousands of ticks/s offered", options)


def _listening(sessions: float) -> Load:
    return Load(door="sessions", options={"sessions": round(sessions)})


def _listening_targets(options: Options, kind: str) -> Targets:
    return {"sessions": {"service_p99_ms": options.p99_ms[kind], "lost": 0, "closed": 0}}


def _share(result: Result, planned: float) -> float:
    """Give which share of the records of all sessions has arrived; conflated ones have not.

    Args:
        result: of a run that listened.
        planned: records per second.
    """
    return min(1.0, sum(operation.figures["records_per_s"] for operation in result.operations) / planned)


def _as_points(steps: list[Step]) -> list[Throughput]:
    return [Throughput(load=step.load, rate=step.achieved) for step in steps if not step.void]


def _assess(
    name: str, unit: str, steps: list[Step], points: list[Throughput], over: str, options: Options
) -> Dimension:
    cores = len(os.sched_getaffinity(0))
    return assess(name, unit, steps, points, over, cores, options.seed)
