"""Looks for the knee: the highest rate that keeps the targets, by steps up and then in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

import msgspec

from tvops.bench.capacity import Step as Tried
from tvops.bench.capacity import search
from tvops.bench.figures import latency
from tvops.bench.interruption import NothingYetError
from tvops.bench.open_orders import LEFT_BEHIND
from tvops.bench.result import Check, Result, Step
from tvops.bench.samples import merged
from tvops.bench.scenario import Scenario, with_rate
from tvops.bench.stack_figures import StackWatch


async def search_knee(
    scenario: Scenario,
    once: Callable[[Scenario], Awaitable[Result]],
    watch: StackWatch,
    stopped: asyncio.Event,
    told: Callable[[str], None],
) -> Result:
    """Look for the highest rate that keeps the targets; the result is that of the best step.

    Args:
        scenario: with a search.
        once: carries one step out.
        watch: what the stack said during it.
        stopped: ends the search after the step at hand.
        told: hears of the progress.

    Raises:
        NothingYetError: it was stopped before the first step was over.
    """
    wanted = scenario.search
    assert wanted is not None
    results: list[tuple[float, Result]] = []
    steps: list[Step] = []
    loop = asyncio.get_running_loop()

    async def step(rate: float) -> Tried:
        if stopped.is_set():
            raise NothingYetError("interrupted")
        told(f"step {len(steps) + 1}: {rate:,.0f}/s")
        result = await once(with_rate(scenario, wanted.load, rate))
        results.append((rate, result))
        steps.append(_step(rate, result, scenario.loads[wanted.load].door, watch.busiest))
        last = steps[-1]
        return Tried(load=rate, achieved=last.achieved, kept=last.kept, void=last.void)

    def measure(rate: float) -> Tried:
        return asyncio.run_coroutine_threadsafe(step(rate), loop).result()

    try:
        await asyncio.to_thread(search, measure, wanted.first, wanted.to)
    except NothingYetError:
        if not results:
            raise
    kept = [(rate, result) for rate, result in results if result.verdict == "passed"]
    rate, chosen = max(kept, key=lambda pair: pair[0]) if kept else results[0]
    return msgspec.structs.replace(
        chosen,
        steps=tuple(sorted(steps, key=lambda each: each.rate)),
        knee=rate if kept else None,
        partial="interrupted: the search was not finished" if stopped.is_set() else "",
        checks=(*chosen.checks, *_left_behind(result for _, result in results if result is not chosen)),
        notes=(*chosen.notes, _conclusion(rate if kept else None, steps, wanted.to)),
    )


def _step(rate: float, result: Result, door: str, busy: float) -> Step:
    own = [operation for operation in result.operations if operation.door == door]
    whole = merged(own) if own else None
    response, service = (whole.response, whole.service) if whole else (None, None)
    marks = [
        int(value) if histogram and (value := latency(histogram, mark)) is not None else None
        for histogram, mark in ((response, "p50"), (response, "p99"), (service, "p50"))
    ]
    return Step(
        rate=rate,
        achieved=whole.rate if whole else 0.0,
        kept=result.verdict == "passed",
        void=result.void,
        response_p50=marks[0],
        response_p99=marks[1],
        service_p50=marks[2],
        errors=whole.errors if whole else 0,
        samples=whole.sent if whole else 0,
        busy=busy,
    )


def _left_behind(results: Iterable[Result]) -> Iterator[Check]:
    """Give what steps that were not chosen left in the stack: it has to be told all the same."""
    for result in results:
        yield from (check for check in result.checks if check.figure == LEFT_BEHIND)


def _conclusion(knee: float | None, steps: Sequence[Step], most: float) -> str:
    if knee is None:
        return "not even the first rate kept the targets" if not steps[0].void else "the first rate was void"
    if knee >= most:
        return f"the targets were kept up to the end of the search, {most:,.0f}/s"
    above = min((step for step in steps if step.rate > knee), key=lambda step: step.rate, default=None)
    if above is None:
        return f"the search ended at {knee:,.0f}/s"
    why = f"void: {above.void}" if above.void else "missed the targets"
    return f"{knee:,.0f}/s kept the targets; {above.rate:,.0f}/s {why}"
