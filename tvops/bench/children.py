"""The generator processes of a run, and the cores that they stand on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from tvops.bench.doors import DOORS
from tvops.bench.plan import Failed, Finished, Plan, Progress, Ready, Said, Start, Traces
from tvops.errors import TvopsError, UsageError

READY_SECONDS: Final = 90.0
CLOSE_SECONDS: Final = 90.0
"""How long a generator may take to clean up behind itself."""

STOP_SECONDS: Final = 10.0
"""How long it may take for that, and for its end, once a signal came."""

_END_SECONDS: Final = 3.0
_LINE_LIMIT = 1 << 28
_DECODER: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)


def divided_cores(wanted: int) -> tuple[list[int | None], frozenset[int] | None]:
    """Give a core to each generator, and the rest to a stack of our own; where there are 2 at most, all share.

    Returns:
        the core of each generator (None: it shares), and the cores of the stack (None: all).
    """
    cores = sorted(os.sched_getaffinity(0))
    alone = min(wanted, len(cores) - 2)
    if alone <= 0:
        return [None] * wanted, None
    own = cores[-alone:]
    return [*own, *([None] * (wanted - alone))], frozenset(cores[:-alone])


class Child:
    """One generator process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.progress = Progress(0, 0, 0)
        self._traces: Traces | None = None  # that stay where it is ended before it can take them back

    async def start(self) -> None:
        """Start it, and wait until its door is open; raise TvopsError (UsageError) where that fails."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tvops.bench.generator",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
            limit=_LINE_LIMIT,
        )  # fmt: skip
        self.pid = self._process.pid
        self._write(msgspec.json.encode(self.plan))
        said = await self._hear(READY_SECONDS)
        if not isinstance(said, Ready):
            raise TvopsError(f"{self.plan.load.door}: the generator said something else than that it is ready")
        self._traces = said.traces

    def begin(self, at: int) -> None:
        """Let it begin at a time of the monotonic clock, ns."""
        self._write(msgspec.json.encode(Start(at)))

    def stop(self) -> None:
        """Let it end early, with what it has."""
        if self._runs:
            self._write(b"stop")

    async def finished(self, seconds: float, told: Callable[[], None]) -> Finished:
        """Wait for its end; calls ``told`` whenever there is news."""
        async with asyncio.timeout(seconds):
            while True:
                said = await self._hear(seconds)
                if isinstance(said, Finished):
                    return said
                if isinstance(said, Progress):
                    self.progress = said
                    told()

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(line + b"\n")

    async def _hear(self, seconds: float) -> Said:
        assert self._process.stdout is not None
        door = self.plan.load.door
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), seconds)
        except TimeoutError:
            raise TvopsError(f"{door}: the generator says nothing any more{self._told_traces()}") from None
        if not line:
            code = await self._process.wait()
            raise TvopsError(f"{door}: the generator ended with {code}{self._told_traces()}")
        said = _DECODER.decode(line)
        if isinstance(said, Failed):
            raise (UsageError if said.usage else TvopsError)(f"{door}: {said.message}")
        return said

    def _told_traces(self) -> str:
        return f"; up to {self._traces.count:,} {self._traces.what}" if self._traces else ""

    async def end(self) -> None:
        """End it: the end of its stdin lets it leave nothing behind, in the time that it has for that."""
        if not self._runs:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), CLOSE_SECONDS if self._traces else _END_SECONDS)
        self.kill()
        await self._process.wait()

    def kill(self) -> str:
        """End it at once where it still runs; say so, and what it may leave behind."""
        if not self._runs:
            return ""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        return f"{self.plan.load.door}: the generator did not end in time and was killed{self._told_traces()}"

    @property
    def _runs(self) -> bool:
        process = getattr(self, "_process", None)
        return process is not None and process.returncode is None


def split(plan: Plan, count: int) -> Sequence[Plan]:
    """Divide a plan among ``count`` processes: each has its share of the rate, and of the sessions.

    Even arrivals take turns, so that all processes together are even.
    """
    if count == 1:
        return [plan]
    plans = []
    sessions = getattr(msgspec.convert(plan.load.options, DOORS[plan.load.door].options_type), "sessions", None)
    for n in range(count):
        options = dict(plan.load.options)
        if sessions is not None:
            whole, rest = divmod(sessions, count)
            options["sessions"] = whole + (n < rest)
        phases = tuple(
            msgspec.structs.replace(
                phase, rate=phase.rate / count, to=None if phase.to is None else phase.to / count
            )
            for phase in plan.phases
        )
        load = msgspec.structs.replace(plan.load, options=options)
        plans.append(msgspec.structs.replace(plan, load=load, phases=phases, seed=plan.seed + n, share=n / count))
    return plans
