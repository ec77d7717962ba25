"""What a host carries: loads stepped up until the targets fail, and the two laws of `tvops.bench.scaling` fitted.

What is carried is measured, not modelled: the highest load of which every run kept the targets, and the lowest
above it of which one did not. The models say why (the demand of the busiest process) and guess at what was not
measured (the next instance); they are told as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

import tvops
from tvops.bench.scaling import Demand, Estimate, Scaling, fit_demand, fit_scaling
from tvops.tuning.fingerprint import Fingerprint

SCHEMA: Final = 1
GROWTH: Final = 1.6
"""Each step has so many times the load of the one before, until the targets fail."""

REFINEMENTS: Final = 3
"""Steps between the last load that kept the targets and the first that did not."""

_MOST_LOADS: Final = 24
_FEW: Final = 4


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One load that was tried."""

    load: float  # offered: orders/s, ticks/s, sessions
    achieved: float  # carried, in the same unit
    kept: bool  # every target was met
    void: str = ""  # why it says nothing of the stack (the generator was late)
    why: str = ""  # which target was missed
    response_p99: float | None = None  # ns
    busy: float | None = None  # cores that the whole stack kept busy; None: not known
    busiest: float | None = None  # of it, its busiest process
    process: str = ""  # its name


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """What went through with so much under way at once, as fast as it could."""

    load: float  # requests under way
    rate: float


class NextInstance(msgspec.Struct, frozen=True, kw_only=True):
    """What a second instance would add: bounds and guesses, none of them measured."""

    own_host: Estimate  # it shares nothing
    this_host: Estimate | None  # by the cores that are left; None: the demand is not known
    shared: Estimate | None  # by the scalability law: twice the load on what is shared now


class Dimension(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of load."""

    name: str  # orders, ticks, sessions
    unit: str
    steps: tuple[Step, ...]
    carried: (
        Estimate | None
    )  # high: the lowest load that failed, infinite where none did; None: not even the first
    limit: str  # what ended it
    demand: Demand | None = None  # of the whole stack
    busiest_demand: Demand | None = None  # of its busiest process
    busiest: str = ""
    scaling: Scaling | None = None
    scaling_points: tuple[Throughput, ...] = ()
    scaling_unit: str = ""  # of the load that the law is fitted over
    next_instance: NextInstance | None = None


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report."""

    schema: int = SCHEMA
    version: str = tvops.__version__
    started: int  # ns since 1970
    seed: int
    seconds: float  # of each step
    cores: int
    targets: tuple[str, ...]
    fingerprint: Fingerprint | None
    dimensions: tuple[Dimension, ...]
    others: float = 0.0  # cores that were busy before anything was started
    stolen_percent: float = 0.0  # of the time of all cores meanwhile, by the hypervisor
    caveats: tuple[str, ...] = (
        "Generator and stack share this host: a load made elsewhere leaves the stack more of it.",
        "Each kind of load was stepped up with the others at rest; all at once carry less.",
        "What the next instance adds was not measured. Instances of their own share no books: "
        "symbols have to be split among them.",
    )


def search(
    measure: Callable[[float], Step], first: float, most: float, whole: bool = False, least: float | None = None
) -> list[Step]:
    """Step a load up until the targets fail, then close in on the knee; give the steps in the order of their load.

    A load that fails is tried once more: a moment in which the host was busy with something else is no knee.

    Args:
        measure: runs one load.
        first: load to begin with.
        most: load never to be exceeded.
        whole: loads are whole numbers.
        least: load down to which it is stepped where the first one fails; None: it is not.
    """
    steps: list[Step] = []

    def held(load: float) -> bool:
        """Try a load, and once more where it fails."""
        steps.append(measure(load))
        if not _held(steps[-1]):
            steps.append(measure(load))
        return _held(steps[-1])

    def times(load: float, factor: float) -> float:
        return float(round(load * factor)) if whole else load * factor

    load = first
    while held(load) and load < most and len({step.load for step in steps}) < _MOST_LOADS:
        load = min(most, times(load, GROWTH))
    while load == first and not _held(steps[-1]) and least is not None and first > least:
        first = load = max(least, times(load, 1 / GROWTH))
        held(load)
    for _ in range(REFINEMENTS):
        low, high = _bracket(steps)
        if low is None or high is None or high - low < max(0.05 * low, 2 if whole else 0):
            break
        middle = (low + high) / 2
        held(float(round(middle)) if whole else middle)
    return sorted(steps, key=lambda step: step.load)


def _held(step: Step) -> bool:
    return step.kept and not step.void


def _bracket(steps: Sequence[Step]) -> tuple[float | None, float | None]:
    """Give the highest load below every failure, and the lowest that failed."""
    failed = min((step.load for step in _failures(steps)), default=None)
    held = [step.load for step in steps if _held(step) and (failed is None or step.load < failed)]
    return max(held, default=None), failed


def _failures(steps: Sequence[Step]) -> list[Step]:
    """Give the steps of those loads that failed whenever they were tried."""
    held = {step.load for step in steps if _held(step)}
    return [step for step in steps if step.load not in held]


def assess(
    name: str,
    unit: str,
    steps: Sequence[Step],
    throughputs: Sequence[Throughput],
    scaling_unit: str,
    cores: int,
    seed: int,
) -> Dimension:
    """Conclude from the steps of one kind of load, and from throughputs with more and more under way."""
    low, high = _bracket(steps)
    carried = None if low is None else Estimate(low, low, float("inf") if high is None else high)
    sound = [step for step in steps if not step.void]
    demand = _demand(sound, [step.busy for step in sound], seed)
    scaling = _scaling(throughputs, seed)
    return Dimension(
        name=name, unit=unit, steps=tuple(steps), carried=carried, limit=_limit(steps, unit), demand=demand,
        busiest_demand=_demand(sound, [step.busiest for step in sound], seed),
        busiest=max(sound, key=lambda step: step.busiest or 0).process if sound else "", scaling=scaling,
        scaling_points=tuple(throughputs), scaling_unit=scaling_unit,
        next_instance=None if carried is None else _next_instance(carried, demand, scaling, cores),
    )  # fmt: skip


def _limit(steps: Sequence[Step], unit: str) -> str:
    failed = _failures(steps)
    if not failed:
        return f"not reached: {steps[-1].load:,.0f} {unit} was the most that was tried"
    first = min(failed, key=lambda step: step.load)
    if first.void:
        return f"the generator, not the stack: at {first.load:,.0f} {unit} {first.void}"
    return f"at {first.load:,.0f} {unit} {first.why or 'a target was missed'}"


def _demand(steps: Sequence[Step], busy: Sequence[float | None], seed: int) -> Demand | None:
    known = [(step.achieved, cores) for step, cores in zip(steps, busy, strict=True) if cores is not None]
    rates = np.array([rate for rate, _ in known])
    if len(np.unique(rates)) < _FEW:
        return None
    return fit_demand(rates, np.array([cores for _, cores in known]), seed)


def _scaling(throughputs: Sequence[Throughput], seed: int) -> Scaling | None:
    points = [point for point in throughputs if point.rate > 0]
    if len({point.load for point in points}) < _FEW:
        return None
    return fit_scaling(np.array([p.load for p in points]), np.array([p.rate for p in points]), seed)


def _next_instance(carried: Estimate, demand: Demand | None, scaling: Scaling | None, cores: int) -> NextInstance:
    room = None
    if demand is not None and demand.seconds.value > 0:
        ends = [
            _room(carried.value, cores, idle, seconds)
            for idle, seconds in (
                (demand.idle.value, demand.seconds.value),
                (demand.idle.high, demand.seconds.high),
                (demand.idle.low, demand.seconds.low),
            )
        ]
        room = Estimate(ends[0], min(ends), max(ends))
    # Under way at the highest throughput that was measured: twice as much on what is shared by then.
    shared = None if scaling is None else scaling.gain(scaling.largest_load / 2)
    return NextInstance(own_host=Estimate(carried.value, carried.low, carried.high), this_host=room, shared=shared)


def _room(carried: float, cores: int, idle: float, seconds: float) -> float:
    """Give what the cores that are left can carry, at most as much again."""
    left = cores - 2 * idle - seconds * carried
    return float(min(carried, max(0.0, left / seconds))) if seconds > 0 else carried
