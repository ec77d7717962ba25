"""What a host carries, in sentences: for the terminal and for the report."""

from __future__ import annotations

import math
from typing import Final

from tvops.bench.capacity import Capacity, Dimension
from tvops.bench.scaling import Demand, Estimate, Scaling
from tvops.bench.stolen_time import stolen_told

OTHERS: Final = 0.2
"""Cores that others keep busy, from which on they are told."""


def summary(capacity: Capacity) -> str:
    """Write the whole report for a terminal."""
    lines = [f"{capacity.cores} cores, steps of {capacity.seconds:g} s; {'; '.join(capacity.targets)}", ""]
    for dimension in capacity.dimensions:
        lines += [f"{dimension.name}", *(f"  {sentence}" for sentence in sentences(dimension)), ""]
    return "\n".join([*lines, *(f"note: {note}" for note in notes(capacity))])


def notes(capacity: Capacity) -> list[str]:
    """Say what has to be known to read the rest."""
    said = [*stolen_told(capacity.stolen_percent), "Values in brackets are 95 % intervals.", *capacity.caveats]
    if capacity.others >= OTHERS:
        said.insert(
            0,
            f"Other processes kept {capacity.others:.1f} of the {capacity.cores} cores busy before it began: "
            "this is what they leave. Measure on a quiet host.",
        )
    return said


def sentences(dimension: Dimension) -> list[str]:
    """Say what one kind of load comes to: carried, why, and what the next instance adds."""
    unit = dimension.unit
    said = [_carried(dimension)]
    if dimension.demand is not None:
        said.append(_demand(dimension.demand, dimension.name))
    else:
        said.append(f"Too few loads were tried to say what one {dimension.name.removesuffix('s')} costs.")
    if dimension.busiest_demand is not None:
        said.append(_bottleneck(dimension.busiest_demand, dimension.busiest, unit))
    if dimension.scaling is not None:
        said.append(_scaling(dimension.scaling, unit, dimension.scaling_unit))
    if dimension.next_instance is not None:
        said.append(_next(dimension))
    return said


def _carried(dimension: Dimension) -> str:
    if dimension.carried is None:
        return f"Carries nothing inside the targets: {dimension.limit}."
    low, high = dimension.carried.low, dimension.carried.high
    between = "" if math.isinf(high) else f" (the knee is between {low:,.0f} and {high:,.0f})"
    return f"Carries {low:,.0f} {dimension.unit} inside the targets{between}. The limit: {dimension.limit}."


def _demand(demand: Demand, name: str) -> str:
    return (
        f"Utilisation law: one {name.removesuffix('s')} costs the stack {_micro(demand.seconds)} of CPU"
        f"{_each_second(name)}, over {demand.idle.value:.2f} cores at rest ({demand.points} steps)."
    )


def _each_second(name: str) -> str:
    """An order is over when it is done; a session is there every second."""
    return " each second" if name == "sessions" else ""


def _bottleneck(demand: Demand, process: str, unit: str) -> str:
    saturation = demand.saturation(1.0)
    if saturation is None:
        return f"The load costs {process or 'the busiest process'} too little to tell where it is saturated."
    return (
        f"{process or 'One process'} is the busiest, with {_micro(demand.seconds)} of that: it fills its core "
        f"at {_range(saturation)} {unit}, if nothing else ends it before."
    )


def _scaling(scaling: Scaling, unit: str, load: str) -> str:
    peak = ""
    if scaling.peak_load is not None and scaling.peak_rate is not None:
        beyond = ", which was not measured" if scaling.peak_load > scaling.largest_load else ""
        peak = f" Highest at {scaling.peak_load:,.0f} {load}{beyond}: {_range(scaling.peak_rate)} {unit}."
    elif scaling.peak_rate is not None:
        peak = f" It only grows, to {_range(scaling.peak_rate)} {unit} at most, which is a guess."
    return (
        f"Scalability law over {load}: {_range(scaling.rate)} {unit} of one, contention "
        f"{_share(scaling.contention)}, coherency {_share(scaling.coherency)}; points lie "
        f"{scaling.error_percent:.1f} % off the curve.{peak}"
    )


def _next(dimension: Dimension) -> str:
    nearby, unit = dimension.next_instance, dimension.unit
    assert nearby is not None
    said = [f"on a host of its own at most {nearby.own_host.value:,.0f} {unit} more (it shares nothing)"]
    if nearby.this_host is not None:
        said.append(f"on this host {_range(nearby.this_host)} by the cores that are left")
    if nearby.shared is not None:
        said.append(f"were everything shared as now, {_range(nearby.shared)} by the scalability law")
    return f"The next instance would add, which is a prediction: {'; '.join(said)}."


def _range(estimate: Estimate) -> str:
    high = "any" if math.isinf(estimate.high) else f"{estimate.high:,.0f}"
    return f"{estimate.value:,.0f} ({estimate.low:,.0f} to {high})"


def _micro(estimate: Estimate) -> str:
    return f"{estimate.value * 1e6:,.0f} us ({estimate.low * 1e6:,.0f} to {estimate.high * 1e6:,.0f})"


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} ({estimate.low:.2g} to {estimate.high:.2g})"
