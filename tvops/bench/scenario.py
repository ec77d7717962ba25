"""Scenarios: what load at which doors, for how long, and which targets have to be kept. YAML, checked by line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tvops.bench.doors import DOORS
from tvops.bench.figures import UNITS
from tvops.bench.plan import Load, Seconds
from tvops.bench.result import Line
from tvops.bench.schedule import MAX_REQUESTS, Phase, Rate
from tvops.engine.telemetry.bounds import Number
from tvops.errors import UsageError
from tvops.terminal import clean
from tvops.yaml_lines import Keys, Located, load_yaml

FOLDER = Path(__file__).parent / "scenarios"

FIGURES = (
    *(f"{name}_ms" for name, unit in UNITS.items() if unit == "ns"),
    *(name for name, unit in UNITS.items() if unit != "ns" and name != "rate"),
    "rate_percent", "drift_percent", "lost", "gaps", "conflated", "closed",
)  # fmt: skip
"""What a target of a door or of one of its operations (``door.operation``) can be about; docs/bench.md."""
STACK_FIGURES = ("memory_slope_mb_per_minute",)
MOST_SEED = 1 << 53

Targets = dict[str, dict[str, Number]]

RESERVED = frozenset(
    ("data_dir", "host", "gateway_port", "market_port", "services", "ledger_url", "market_url", "results_url")
)
"""Settings that a stack of bench's own has from bench: nothing of it may stand elsewhere, or outlive the run."""


class OwnStack(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The stack that bench starts where it is given none."""

    feed: str = "synthetic:100"
    settings: dict[str, str | int | float | bool] = {}


class Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"first": "from"}):
    """Looks for the highest rate that keeps the targets: steps up, then halves what is between."""

    load: Annotated[int, msgspec.Meta(ge=0)] = 0  # the load whose rate changes, counted from 0
    first: Annotated[float, msgspec.Meta(gt=0)] = 500.0  # rate to begin with
    to: Rate = 20_000.0  # rate at which it ends, whatever comes


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scenario. Of a search, `seconds` and `warm_up` are those of each step."""

    name: Line
    text: str = ""
    seconds: Seconds = 30.0  # measured; where loads have phases, they are stretched to it
    warm_up: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 2.0
    seed: Annotated[int, msgspec.Meta(ge=0, le=MOST_SEED)] = 1
    stack: OwnStack = OwnStack()
    loads: Annotated[tuple[Load, ...], msgspec.Meta(min_length=1, max_length=16)]
    targets: Targets = {}
    search: Search | None = None


def load_scenario(name_or_path: str) -> Scenario:
    """Read a scenario: the name of one that ships, or a file.

    Raises:
        UsageError: ``FILE:LINE: key: message``.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        path = FOLDER / f"{name_or_path}.yaml"
        if not path.is_file() or not re.fullmatch(r"[a-z0-9-]+", name_or_path):
            known = ", ".join(shipped())
            raise UsageError(
                f"{name_or_path[:80]!r} is no scenario that ships; choose from {known}, or give a file"
            )
    return read_scenario(load_yaml(path))


def shipped() -> list[str]:
    """Give the names of the scenarios that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_scenario(located: Located) -> Scenario:
    """Check what a file says; raise UsageError as `load_scenario` does."""
    value = located.value
    if isinstance(value, dict):
        value = {"name": clean(located.path.stem)} | value
    scenario: Scenario = _convert(located, value, Scenario, ())
    for name in RESERVED & scenario.stack.settings.keys():
        raise _error(located, ("stack", "settings", name), "a stack that bench starts has its own; leave it out")
    for n, load in enumerate(scenario.loads):
        _check_load(located, load, ("loads", n))
    for about, figures in scenario.targets.items():
        _check_target(located, scenario, about, figures)
    if scenario.search is not None:
        _check_search(located, scenario, scenario.search)
    return scenario


def phases_of(load: Load, warm_up: float, seconds: float) -> tuple[Phase, ...]:
    """Give the phases of a load with its warm-up before them, stretched to ``seconds``."""
    phases = load.phases or ((Phase(seconds, load.rate),) if load.rate else ())
    if not phases or load.closed:
        return ()
    stretch = seconds / sum(phase.seconds for phase in phases)
    stretched = tuple(Phase(phase.seconds * stretch, phase.rate, phase.to) for phase in phases)
    return ((Phase(warm_up, phases[0].rate),) if warm_up else ()) + stretched


def with_rate(scenario: Scenario, number: int, rate: float) -> Scenario:
    """Give a scenario of which the load of that number has another rate."""
    loads = tuple(
        msgspec.structs.replace(load, rate=rate) if n == number else load for n, load in enumerate(scenario.loads)
    )
    return msgspec.structs.replace(scenario, loads=loads)


def check_amount(scenario: Scenario) -> None:
    """Raise UsageError where a run would measure nothing, or more than a generator can hold."""
    search, least, most = scenario.search, scenario, scenario
    if search is not None:
        least, most = (with_rate(scenario, search.load, rate) for rate in (search.first, search.to))
    for load in most.loads:
        requests = sum(phase.requests for phase in phases_of(load, scenario.warm_up, scenario.seconds))
        if requests > MAX_REQUESTS * load.processes:
            raise UsageError(
                f"{load.door}: {requests:,.0f} requests are more than a run can hold ({MAX_REQUESTS:,} in each "
                "process); take fewer seconds, a lower rate or more processes"
            )
    if not any(_measures(load, scenario.seconds) for load in least.loads):
        raise UsageError(
            f"there is nothing to measure in {scenario.seconds:g} s: no load has a request in it, and sessions "
            "are counted by whole seconds; take more seconds or a higher rate"
        )


def _measures(load: Load, seconds: float) -> bool:
    if load.closed:
        return True
    if not DOORS[load.door].paced:
        return seconds >= 1
    return sum(phase.requests for phase in phases_of(load, 0.0, seconds)) >= 1


def _check_load(located: Located, load: Load, keys: Keys) -> None:
    door = DOORS.get(load.door)
    if door is None:
        raise _error(located, (*keys, "door"), f"there is no door {load.door!r}; choose from {', '.join(DOORS)}")
    options = _convert(located, load.options, door.options_type, (*keys, "options"))
    if load.processes > (sessions := getattr(options, "sessions", load.processes)):
        raise _error(located, (*keys, "processes"), f"{load.processes} cannot share {sessions} sessions")
    paced = bool(load.rate) + bool(load.phases) + load.closed
    if door.paced and paced != 1:
        raise _error(located, keys, "needs exactly one of rate (above 0), phases and closed: true")
    if not door.paced and paced:
        raise _error(located, keys, f"{load.door} listens: it takes no rate, phases or closed")
    if load.phases and not any(phase.requests for phase in load.phases):
        raise _error(located, (*keys, "phases"), "need a rate above 0 in one of them")


def _check_target(located: Located, scenario: Scenario, about: str, figures: dict[str, float]) -> None:
    keys: Keys = ("targets", about)
    doors = {load.door for load in scenario.loads}
    if about != "stack" and about.partition(".")[0] not in doors:
        raise _error(located, keys, f"is neither stack nor a door of this scenario ({', '.join(sorted(doors))})")
    known = STACK_FIGURES if about == "stack" else FIGURES
    for figure in figures:
        if figure not in known:
            raise _error(located, (*keys, figure), f"there is no such figure; choose from {', '.join(known)}")


def _check_search(located: Located, scenario: Scenario, search: Search) -> None:
    if search.load >= len(scenario.loads):
        raise _error(located, ("search", "load"), f"there are only {len(scenario.loads)} loads, counted from 0")
    if not scenario.loads[search.load].rate:
        raise _error(located, ("search", "load"), "that load needs a rate, which the search then changes")
    if not search.first < search.to:
        raise _error(located, ("search", "from"), "has to be below search.to")


def _convert(located: Located, value: Any, kind: Any, above: Keys) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        keys = (*above, *(int(n) if n else name for name, n in re.findall(r"\.(\w+)|\[(\d+)\]", path)))
        if unknown := re.search(r"unknown field `(.+?)`", message):
            keys, message = (*keys, unknown[1]), "there is no such key"
        if "matching regex" in message:
            message = "has to be a line without control characters"
        raise _error(located, keys, message) from None


def _error(located: Located, keys: Keys, message: str) -> UsageError:
    name = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
    return UsageError(f"{located.place(*keys)}: {name or 'the file'}: {message}")
