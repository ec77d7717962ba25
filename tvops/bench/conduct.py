"""Carries a scenario out: a stack, the generators, one start for all of them, and a `Result`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import msgspec

from tvops.bench.checks import check, default_targets, void_reason
from tvops.bench.children import CLOSE_SECONDS, STOP_SECONDS, Child, divided_cores, split
from tvops.bench.doors import DOORS
from tvops.bench.interruption import Interruption, NothingYetError
from tvops.bench.open_orders import left_behind, open_orders_of, rejections_told
from tvops.bench.plan import Finished, Plan
from tvops.bench.result import Check, Generator, Operation, Result
from tvops.bench.samples import merged
from tvops.bench.scenario import Scenario, check_amount, phases_of
from tvops.bench.searching import search_knee
from tvops.bench.spawned import OwnStackProcess
from tvops.bench.stack_figures import StackWatch
from tvops.bench.stolen_time import StolenTime, stolen_told
from tvops.bench.tasks import all_of, first_of
from tvops.errors import TvopsError, UsageError
from tvops.terminal import clean, say
from tvops.tuning.fingerprint import fingerprint
from tvops.tuning.host import Host

_LEAD_SECONDS = 0.3
"""Between the word to begin and the beginning, so that every generator has heard it."""

Told = Callable[[str], None]
T = TypeVar("T")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario and where to carry it out; addresses that are empty stand for a stack of our own."""

    scenario: Scenario
    gateway: str = ""
    market: str = ""
    redis: str = ""
    stacks: tuple[OwnStackProcess, ...] = ()  # that bench started and that have to run meanwhile
    most: int = 0  # requests of a closed loop; 0: as many as the time allows
    told: Told = lambda text: None  # hears of the progress, in one line


def conduct(order: Order) -> Result:
    """Carry out a scenario; the first signal ends it early, with what there is, and later ones hurry that end.

    Raises:
        TvopsError: it could not be carried out.
        StackEndedError: a stack of bench's own ended meanwhile.
        KeyboardInterrupt: a signal came before the load began.
    """
    check_amount(order.scenario)
    interruption = Interruption()
    try:
        result = interruption.run(lambda: _conduct(order, interruption))
    except NothingYetError:
        raise KeyboardInterrupt from None
    if interruption.came and not result.partial:
        return msgspec.structs.replace(result, partial="interrupted when the load was over")
    return result


async def _conduct(order: Order, interruption: Interruption) -> Result:
    scenario, stopped, hurried = order.scenario, asyncio.Event(), asyncio.Event()
    cores, rest = divided_cores(sum(load.processes for load in scenario.loads))
    async with _addresses(order, rest) as (urls, own):
        run = _Run(order, urls, own, cores, stopped, hurried)
        async with run.watch:
            interruption.end, interruption.hurry = stopped.set, hurried.set
            if scenario.search is None:
                return await run.once(scenario)
            return await search_knee(scenario, run.once, run.watch, stopped, order.told)


@contextlib.asynccontextmanager
async def _addresses(
    order: Order, cores: frozenset[int] | None
) -> AsyncIterator[tuple[dict[str, str], OwnStackProcess | None]]:
    """Give the address of each target that is needed, and the stack where it was started for that."""
    wanted = {DOORS[load.door].target for load in order.scenario.loads}
    given = {"gateway": order.gateway, "market": order.market, "redis": order.redis}
    if "redis" in wanted and not order.redis:
        raise UsageError("redis: give the server with --redis URL, or in $TVOPS_BENCH_REDIS_URL")
    missing = [name for name in ("gateway", "market") if name in wanted and not given[name]]
    if not missing:
        yield {name: url for name, url in given.items() if url}, None
        return
    if order.gateway or order.market:
        raise UsageError(f"{missing[0]}: give --{missing[0]}, too; without any address bench starts its own stack")
    stack = order.scenario.stack
    order.told(f"starting a stack of its own (feed {stack.feed})")
    async with OwnStackProcess(stack.feed, stack.settings, cores, open_orders_of(order.scenario)) as own:
        yield {"gateway": own.gateway, "market": own.market, "redis": order.redis}, own


class _Run:
    """One scenario on one stack."""

    def __init__(
        self,
        order: Order,
        urls: dict[str, str],
        own: OwnStackProcess | None,
        cores: Sequence[int | None],
        stopped: asyncio.Event,
        hurried: asyncio.Event,
    ) -> None:
        self.order = order
        self.urls = {name: url for name, url in urls.items() if url}
        self.spawned = own is not None
        self.stacks = order.stacks if own is None else (own,)
        self.cores = cores
        self.stopped = stopped
        self.hurried = hurried
        self.fingerprint = fingerprint(Host())
        targets = order.scenario.targets
        doors = [load.door for load in order.scenario.loads]
        named = {about.partition(".")[0] for about in targets}
        self.targets = default_targets([door for door in doors if door not in named]) | targets
        ports = [url for name, url in self.urls.items() if name != "redis"]
        self.watch = StackWatch(ports, os.environ.get("TVOPS_API_KEY", ""))

    async def once(self, scenario: Scenario) -> Result:
        """Carry it out once."""
        self.watch.forget()
        before = await self._unless_stopped(self.watch.figures())
        children = self._children(scenario)
        stolen = StolenTime()
        ending = asyncio.create_task(self._end_early(children))
        try:
            await self._unless_stopped(all_of(child.start() for child in children))
            lead = int(_LEAD_SECONDS * 1e9)
            begin, started = time.monotonic_ns() + lead, time.time_ns() + lead
            for child in children:
                child.begin(begin)
            asyncio.get_running_loop().call_later(_LEAD_SECONDS + scenario.warm_up, stolen.begin)
            finished = await self._follow(scenario, children, ending, begin)
            percent = stolen.percent()
        except TvopsError as error:
            # a generator may be the first to see that a stack has ended
            ended = next((stack.ending for stack in self.stacks if stack.ending), None)
            if ended is None or isinstance(error, NothingYetError):
                raise
            for child in children:  # there is nothing to take back any more
                child.kill()
            raise ended from None
        finally:
            await asyncio.gather(*(child.end() for child in children))
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        measured = begin + int(scenario.warm_up * 1e9)
        operations = _operations(finished)
        seconds = max((end.end - measured) / 1e9 for end in finished)
        memory, stopped = self.watch.samples(measured), self.stopped.is_set()
        return Result(
            name=scenario.name,
            started=started,
            seconds=round(max(seconds, 0.0), 3),
            warm_up=scenario.warm_up,
            seed=scenario.seed,
            loop="closed" if any(load.closed for load in scenario.loads) else "open",
            targets_of={name: clean(_without_secrets(url)) for name, url in self.urls.items()},
            spawned=self.spawned,
            scenario=msgspec.to_builtins(scenario),
            fingerprint=self.fingerprint,
            operations=operations,
            generators=tuple(_generator(child, end) for child, end in zip(children, finished, strict=True)),
            void=void_reason(operations, self.targets) if operations or not stopped else "",
            partial="interrupted: what there was until then" if stopped else "",
            checks=(*check(self.targets, operations, memory), *_left_behind(children, finished)),
            memory=memory,
            before=before,
            after=await self.watch.figures(),
            stolen_percent=percent,
            notes=(*self._notes(), *stolen_told(percent), *rejections_told(operations)),
        )

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Await what comes before the load; raise NothingYetError where a signal comes before it is done."""

        async def stopped() -> NoReturn:
            await self.stopped.wait()
            raise NothingYetError("interrupted before the load began")

        return await first_of(stopped(), *self._failures(), work)

    def _failures(self) -> list[Coroutine[Any, Any, NoReturn]]:
        return [stack.ended() for stack in self.stacks]

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if None in self.cores:
            notes.append(f"{os.cpu_count()} cores: generators and stack share them, and compete")
        if self.spawned:
            notes.append("the stack was started by bench, with a data directory of its own")
        return tuple(notes)

    def _children(self, scenario: Scenario) -> list[Child]:
        plans: list[Plan] = []
        for n, load in enumerate(scenario.loads):
            plan = Plan(
                load=load,
                url=self.urls[DOORS[load.door].target],
                phases=phases_of(load, scenario.warm_up, scenario.seconds),
                warm_up=scenario.warm_up,
                seconds=scenario.seconds,
                seed=scenario.seed + 1000 * n,
                core=None,
                clean_up=not self.spawned,
                most=self.order.most,
            )
            plans += split(plan, load.processes)
        placed = [msgspec.structs.replace(plan, core=core) for plan, core in zip(plans, self.cores, strict=True)]
        return [Child(plan) for plan in placed]

    async def _follow(
        self, scenario: Scenario, children: Sequence[Child], ending: asyncio.Task[NoReturn], begin: int
    ) -> list[Finished]:
        """Wait for the end of the load, or for its early end, and watch the stack meanwhile."""

        def told() -> None:
            passed = (time.monotonic_ns() - begin) / 1e9 - scenario.warm_up
            part = f"{passed:.0f} of {scenario.seconds:g} s" if passed >= 0 else "warming up"
            counts = [
                f"{child.plan.load.door} {child.progress.answered:,}"
                + (f" ({child.progress.failed:,} failed)" if child.progress.failed else "")
                for child in children
            ]
            self.order.told(f"{part}: {', '.join(counts)}")

        timeout = max(child.plan.load.timeout for child in children)
        longest = _LEAD_SECONDS + scenario.warm_up + scenario.seconds + timeout + CLOSE_SECONDS
        finished = all_of(child.finished(longest, told) for child in children)
        looking = asyncio.create_task(self._look())
        try:
            return await first_of(finished, asyncio.shield(ending), *self._failures())
        except TimeoutError:
            raise TvopsError(f"the run did not end within {longest:.0f} s") from None
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(1)
            await self.watch.look()

    async def _end_early(self, children: Sequence[Child]) -> NoReturn:
        """Let the generators end once a signal came; kill them where they do not in time, or after another one."""
        await self.stopped.wait()
        for child in children:
            child.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.hurried.wait(), STOP_SECONDS)
        for killed in filter(None, [child.kill() for child in children]):
            with contextlib.suppress(OSError):  # the terminal may be what has gone
                self.order.told("")  # the line of progress makes room
                say(f"tvops: {killed}", err=True)
        raise NothingYetError("interrupted, and the generators did not end in time")


def _operations(finished: Sequence[Finished]) -> tuple[Operation, ...]:
    found: dict[str, list[Operation]] = {}
    for end in finished:
        for operation in end.operations:
            found.setdefault(operation.key, []).append(operation)
    return tuple(merged(same) for same in found.values())


def _generator(child: Child, end: Finished) -> Generator:
    seconds = child.plan.warm_up + child.plan.seconds
    own = child.plan.core if not end.detail else None
    return Generator(
        door=child.plan.load.door, pid=child.pid, core=own, cpu_percent=100 * end.cpu_seconds / seconds,
        detail=end.detail,
    )  # fmt: skip


def _left_behind(children: Sequence[Child], finished: Sequence[Finished]) -> Iterator[Check]:
    for child, end in zip(children, finished, strict=True):
        yield from left_behind(child.plan.load.door, end.left)


def _without_secrets(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
