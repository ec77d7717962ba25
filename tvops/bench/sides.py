"""The two sides of `tvops bench ab`: stacks with settings of their own, or stacks that run already."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from tvops.bench.ab import Measure, SideName
from tvops.bench.children import divided_cores
from tvops.bench.conduct import Order, conduct
from tvops.bench.interruption import Interruption
from tvops.bench.open_orders import open_orders_of
from tvops.bench.result import Result
from tvops.bench.scenario import RESERVED, Scenario
from tvops.bench.spawned import OwnStackProcess
from tvops.errors import UsageError

Told = Callable[[str], None]


class Addresses(msgspec.Struct, frozen=True):
    """Where a stack is."""

    gateway: str
    market: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.gateway, self.market)))


def parse_settings(option: str, assignments: Sequence[str]) -> dict[str, str]:
    """Read ``key=value`` settings of a stack; raise UsageError where one is none."""
    settings = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"{option} {assignment!r:.80}: has to be KEY=VALUE, a setting of tvops serve")
        if key.strip() in RESERVED:
            raise UsageError(f"{option} {key.strip()}: a stack that bench starts has its own; leave it out")
        settings[key.strip()] = value
    return settings


@contextlib.contextmanager
def running(stack: OwnStackProcess) -> Iterator[OwnStackProcess]:
    """Have a stack run meanwhile; raise KeyboardInterrupt where a signal comes before it is ready."""
    try:
        yield Interruption().run(stack.__aenter__)
    finally:
        stack.end()


@contextlib.contextmanager
def own_stacks(
    scenario: Scenario, settings: Mapping[SideName, Mapping[str, str]], told: Told
) -> Iterator[Measure]:
    """Run one stack for each side, both all the time, and measure the one that is asked for."""
    _, cores = divided_cores(sum(load.processes for load in scenario.loads))
    room = open_orders_of(scenario)
    with contextlib.ExitStack() as endings:
        stacks: list[OwnStackProcess] = []
        found: dict[SideName, Addresses] = {}
        for side, own in settings.items():
            told(f"starting {side.upper()}")
            stack = OwnStackProcess(scenario.stack.feed, {**scenario.stack.settings, **own}, cores, room)
            stacks.append(endings.enter_context(running(stack)))
            found[side] = Addresses(stack.gateway, stack.market)
        yield measuring(scenario, found, stacks)


def measuring(
    scenario: Scenario, sides: Mapping[SideName, Addresses], stacks: Sequence[OwnStackProcess] = ()
) -> Measure:
    """Give what runs the scenario against a side once; Ctrl-C ends the experiment, as does a stack that ends."""

    def measure(side: SideName) -> Result:
        where = sides[side]
        result = conduct(
            Order(scenario=scenario, gateway=where.gateway, market=where.market, stacks=tuple(stacks))
        )
        if result.partial.startswith("interrupted"):
            raise KeyboardInterrupt
        return result

    return measure
