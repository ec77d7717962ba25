"""A generator process: ``python -m tvops.bench.generator``, a `Plan` on its stdin, what came of it on its stdout.

It stands on a core of its own where there is one, collects no garbage, and ends by itself when its stdin does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from typing import Any

import msgspec
import numpy as np
import uvloop

from tvops.bench.doors import DOORS
from tvops.bench.doors.base import Door, RequestDoor, come_true
from tvops.bench.pacing import Pacer
from tvops.bench.plan import Failed, Finished, Plan, Progress, Ready, Said, Start
from tvops.bench.samples import Samples, Window
from tvops.bench.schedule import MAX_REQUESTS, arrivals
from tvops.bench.turns import ask_for_short_slices
from tvops.errors import TvopsError, UsageError

_LINE_LIMIT = 1 << 24


def say(what: Said) -> None:
    """Write one line to the process that started this one."""
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


class Run:
    """One plan, carried out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        door = DOORS[plan.load.door]
        options = msgspec.convert(plan.load.options, door.options_type)
        if door.paced:
            seed = plan.seed if plan.load.arrivals == "poisson" else None
            closed = not plan.phases
            self.offsets = np.zeros(MAX_REQUESTS, np.int64) if closed else arrivals(plan.phases, seed, plan.share)
            self.samples = Samples(np.zeros(len(self.offsets), np.int64))
            self.door: Door = door(plan, options, self.samples)  # type: ignore[call-arg]
        else:
            self.door = door(plan, options)
        self.stopped = asyncio.Event()

    async def carry_out(self, lines: asyncio.StreamReader) -> None:
        """Open the door, wait for the start, make the load, say what came of it."""
        await self.door.open()
        try:
            detail = stand_on(self.plan.core)
            ask_for_short_slices()
            gc.collect()
            gc.freeze()
            gc.disable()
            say(Ready(detail, self.door.traces))
            line = await lines.readline()
            if not line:
                return
            begin = msgspec.json.decode(line, type=Start).at + int(self.plan.warm_up * 1e9)
            window = Window(begin, begin + int(self.plan.seconds * 1e9))
            listening = asyncio.create_task(self._listen(lines))
            telling = asyncio.create_task(self._tell())
            before = time.process_time()
            try:
                end = await self._load(window)
            finally:
                telling.cancel()
            window = Window(window.begin, max(min(window.end, end), window.begin + 1))
            cpu = time.process_time() - before
            operations = tuple(self.door.operations(window))
        finally:
            await self.door.close()
        listening.cancel()
        say(Finished(operations, window.end, cpu, detail, self.door.left))

    async def _listen(self, lines: asyncio.StreamReader) -> None:
        """Any further line, or the end of them, stops the load; after a line somebody waits for the result."""
        if await lines.readline():
            self.door.hurry()
        self.stopped.set()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(1)
            say(Progress(*self.door.progress()))

    async def _load(self, window: Window) -> int:
        """Make the load; give when it was over."""
        door = self.door
        if not isinstance(door, RequestDoor):
            await door.begin(window)
            # a little longer, so that the last second is whole
            await self._until(window.end + 20_000_000)
        elif self.plan.phases:
            await self._paced(door, window)
        else:
            await self._closed(door, window)
        return time.monotonic_ns() if self.stopped.is_set() else window.end

    async def _until(self, moment: int) -> bool:
        """Wait for a moment of the monotonic clock or the stop; tell whether it was the moment."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), max(0.0, (moment - time.monotonic_ns()) / 1e9))
            return False
        return True

    async def _paced(self, door: RequestDoor, window: Window) -> None:
        intended: Any = self.samples.intended
        np.asarray(intended)[:] = self.offsets + (window.begin - int(self.plan.warm_up * 1e9))
        pacer = Pacer(asyncio.get_running_loop(), self.samples, door.send)
        pacer.start()
        stop = asyncio.create_task(self.stopped.wait())
        stop.add_done_callback(lambda _: pacer.stop())
        await pacer.finished
        stop.cancel()
        door.used = pacer.next
        await self._settle(door)

    async def _settle(self, door: RequestDoor) -> None:
        """Wait for the last answers, at most as long as they have."""
        await come_true(lambda: door.pending <= 0 or self.stopped.is_set(), self.plan.load.timeout)

    async def _closed(self, door: RequestDoor, window: Window) -> None:
        """Send the next request when an answer is there: as many are under way as the door has places."""
        samples, most = self.samples, self.plan.most
        warm = 0

        def again() -> None:
            nonlocal warm
            now = time.monotonic_ns()
            if now < window.begin:
                warm = door.used + 1
            over = now >= window.end or self.stopped.is_set() or (most and door.used - warm >= most)
            if over or door.used >= len(samples.intended):
                finished.set()
                return
            number = door.used
            door.used += 1
            samples.intended[number] = samples.begun[number] = now
            loop.call_soon(door.send, number)

        loop, finished = asyncio.get_running_loop(), asyncio.Event()
        await asyncio.sleep((window.begin - time.monotonic_ns()) / 1e9 - self.plan.warm_up)
        door.settled_one = again
        for _ in range(door.places):
            again()
        left = (window.end - time.monotonic_ns()) / 1e9
        await come_true(lambda: finished.is_set() or self.stopped.is_set(), left)
        await self._settle(door)


def stand_on(core: int | None) -> str:
    """Stay on one core; say how that went."""
    if core is None:
        return "shares its core: there are not enough of them"
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        return f"shares its core: {error.strerror}"
    return ""


async def _main() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=_LINE_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    try:
        plan = msgspec.json.decode(await lines.readline(), type=Plan)
        await Run(plan).carry_out(lines)
    except TvopsError as error:
        say(Failed(str(error), usage=isinstance(error, UsageError)))
    except msgspec.DecodeError as error:
        say(Failed(f"the plan cannot be read: {error}"))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process hears of it and says when to stop
    with contextlib.suppress(BrokenPipeError):
        uvloop.run(_main())
