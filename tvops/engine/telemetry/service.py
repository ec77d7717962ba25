"""The telemetry of a worker process: put together once a second, given to whoever asks."""

from __future__ import annotations

import asyncio
import heapq
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import psutil

import tvops
from tvops.engine.bus.roles import Bus
from tvops.engine.services import Health, Service, end_tasks
from tvops.engine.telemetry import kernels, process_pauses
from tvops.engine.telemetry.accepting import prefers
from tvops.engine.telemetry.document import Session, Telemetry
from tvops.engine.telemetry.evaluation import Evaluator
from tvops.engine.telemetry.events import EventLog, Watch
from tvops.engine.telemetry.pauses import CollectionPauses, LoopLag
from tvops.engine.telemetry.process_pauses import ProcessPauses
from tvops.engine.telemetry.round_trips import RoundTrips
from tvops.engine.telemetry.stack_watch import StackWatch
from tvops.engine.telemetry.stages import Stages
from tvops.engine.telemetry.stalls import Stalls
from tvops.engine.telemetry.targets import load_targets
from tvops.engine.telemetry.uptime import Past, Uptime
from tvops.settings import Settings

MSGPACK = "application/msgpack"
JSON = "application/json"
SECONDS = 1.0
LATE_SECONDS = 5.0
"""How old the newest sample may be before telemetry counts as degraded: something that it reads holds it up."""

RECOVERY_SECONDS = 0.05
"""Between two looks at whether the process serves, while it does not yet."""

FRESH_NS = 200_000_000
"""How old a document may be that is given once more."""

MOST_SESSIONS = 1000
LISTED_NS = 900_000_000
"""How old a list of the sessions may be: to list a thousand keeps the loop for a millisecond."""

SessionSource = Callable[[], Iterable[Session]]
Figures = dict[str, dict[str, float | int | str]]

logger = logging.getLogger(__name__)


class TelemetryService:
    """Knows how one process does, and, where it is the one that watches the stack, how all of it does."""

    name = "telemetry"

    def __init__(self, process: str, settings: Settings, bus: Bus | None = None, past: Past | None = None) -> None:
        """Tell of the worker ``process``; what it hosts comes with `watch`.

        Args:
            process: engine or market.
            settings: which services the stack has, its ports, its data directory and its targets.
            bus: whose servers are asked; None: nothing but this process is looked at.
            past: of the processes before this one.

        Raises:
            UsageError: the file of targets is wrong.
        """
        self.stages = Stages()
        self.events = EventLog()
        self._process, self._settings, self._past = process, settings, past or Past(begun=time.monotonic_ns())
        self._started = int(psutil.Process().create_time() * 1e9)
        self._services: tuple[Service, ...] = ()
        self._sessions: SessionSource = tuple
        watching = process == "engine" or "engine" not in settings.services
        self._stack = StackWatch(process, settings, bus) if bus is not None and watching else None
        self._round_trips = RoundTrips(bus, self.stages) if bus is not None else None
        self._pauses = ProcessPauses(self.stages.add("process_pause"))
        self._lag = LoopLag(self.stages.add("loop_lag"))
        self._collections = CollectionPauses(self.stages.add("gc_pause"))
        self._uptime = Uptime(self._past)
        self._watch, self._stalls = Watch(self.events), Stalls(self.events, process)
        targets = load_targets(Path(settings.targets) if settings.targets else None)
        measured = [target for target in targets if target.measured_by(process, watching)]
        self._evaluator = Evaluator(measured, self.stages)
        self._figures: Figures = {}
        self._document: Telemetry | None = None
        self._encoded: dict[tuple[str, bool], bytes] = {}
        self._listed: tuple[int, tuple[Session, ...]] = (0, ())  # ns since 1970, and the sessions of then
        self._tasks: list[asyncio.Task[None]] = []
        self._trouble = ""
        self._tried = 0.0  # when the newest sample ended, well or not, monotonic s; 0: none has begun
        self._busy = 0.0  # ms that the last second's work kept the loop

    def watch(self, services: Sequence[Service], sessions: SessionSource) -> None:
        """Tell of these services, and of the sessions that ``sessions`` gives."""
        self._services, self._sessions = tuple(services), sessions

    def compile(self) -> None:
        """Have the kernels of the recorders ready."""
        kernels.compile_kernels()
        process_pauses.compile_kernels()

    async def start(self) -> None:
        """Begin to sample, as soon as the loop is free: what comes right after the start belongs to it."""
        create = asyncio.get_running_loop().create_task
        self._tasks = [create(self._run(), name="telemetry")]
        if self._round_trips is not None:
            self._tasks.append(create(self._round_trips.run(), name="round trips"))

    async def stop(self) -> None:
        """End that."""
        self._pauses.stop()
        self._lag.stop()
        self._collections.stop()
        await end_tasks(self._tasks)

    def health(self) -> Health:
        """Tell whether samples are taken; the stack serves all the same where they are not."""
        trouble = self._trouble
        age = time.monotonic() - self._tried if self._tried else 0.0
        if age > LATE_SECONDS:
            trouble = f"no telemetry for {age:.0f} s: something that it reads does not answer"
        return Health("degraded", trouble) if trouble else Health("ok")

    def stats(self) -> dict[str, float | int | str]:
        """Give what telemetry itself costs."""
        return {"events": self.events.count, "busy_ms_per_s": round(self._busy, 3)}

    def document(self) -> Telemetry:
        """Give the telemetry of this moment, or of at most `FRESH_NS` ago."""
        now = time.time_ns()
        if self._document is None or not 0 <= now - self._document.time < FRESH_NS:
            self._document = self._written(now)
            self._encoded.clear()
        return self._document

    def encoded(self, accept: str, whole: bool = True) -> tuple[bytes, str]:
        """Give the document and its type.

        Args:
            accept: the header: MessagePack where it prefers that, else JSON.
            whole: with the sessions, whose addresses and accounts are not for everybody.
        """
        document = self.document()
        kind = MSGPACK if prefers(accept, MSGPACK, JSON) else JSON
        body = self._encoded.get((kind, whole))
        if body is None:
            shown = document if whole else msgspec.structs.replace(document, sessions=())
            body = (msgspec.msgpack if kind == MSGPACK else msgspec.json).encode(shown)
            self._encoded[kind, whole] = body
        return body, kind

    def _written(self, now: int) -> Telemetry:
        stack = self._stack
        return Telemetry(
            process=self._process,
            version=tvops.__version__,
            pid=os.getpid(),
            started=self._started,
            time=now,
            health={name: (health.state, health.detail) for name, health in self._health().items()},
            stats=self._figures or self._collect(),
            stages=self.stages.packed(),
            metrics=self._evaluator.metrics,
            events=self.events.newest,
            processes=stack.processes if stack else (),
            host=stack.host if stack else None,
            servers=stack.servers if stack else (),
            sessions=self._slowest(now),
            profile=stack.profile if stack else self._settings.profile,
            knobs_in_force=stack.knobs_in_force if stack else 0,
            knobs_left=stack.knobs_left if stack else 0,
            knobs=stack.knobs if stack else (),
            knobs_seconds=stack.knobs_seconds if stack else 0.0,
        )

    def _slowest(self, now: int) -> tuple[Session, ...]:
        if not 0 <= now - self._listed[0] < LISTED_NS:
            self._listed = now, tuple(heapq.nlargest(MOST_SESSIONS, self._sessions(), key=_slowness))
        return self._listed[1]

    def _health(self) -> dict[str, Health]:
        return {service.name: service.health() for service in (*self._services, self)}

    def _collect(self) -> Figures:
        return {service.name: service.stats() for service in (*self._services, self)}

    def _note_uptime(self, health: Iterable[Health]) -> None:
        recovered = self._uptime.recovery is not None
        self._uptime.update(time.monotonic_ns(), all(h.state in ("ok", "degraded") for h in health))
        if self._past.restarts and not recovered and (away := self._uptime.recovery) is not None:
            self.events.add("warn", self._process, f"was restarted: {self._past.reason}; away for {away:.1f} s")

    async def _run(self) -> None:
        """Take a sample a second. Whatever fails in one is told, and the next is tried."""
        self._pauses.start()
        self._lag.start()
        self._collections.start()
        due = self._tried = time.monotonic()
        while True:
            try:
                await self._sample()
                self._trouble = ""
            except Exception as error:
                if not self._trouble:
                    logger.exception("telemetry could not be taken")
                self._trouble = f"telemetry could not be taken: {type(error).__name__}: {error}"
            self._tried = time.monotonic()
            due = max(due + SECONDS, self._tried)
            while self._uptime.recovery is None and time.monotonic() < due - RECOVERY_SECONDS:
                self._note_uptime(self._health().values())
                await asyncio.sleep(RECOVERY_SECONDS)
            await asyncio.sleep(due - time.monotonic())

    async def _sample(self) -> None:
        if self._stack is not None:
            await self._stack.sample()
        begun = time.thread_time_ns()
        self._collections.flush()
        now, health = time.monotonic(), self._health()
        self._note_uptime(health.values())
        self._figures = self._collect()
        known = self._known_figures()
        self._watch.metrics(self._evaluator.update(now, time.time_ns(), known))
        self._watch.services(health)
        self._watch.figures(known)
        self._stalls.tell(now, self._pauses.take(), self._lag.take(time.monotonic_ns()))
        if self._stack is not None:
            self._watch.processes(self._stack.processes)
            self._watch.servers(self._stack.servers)
            self._stack.knob_events.tell(self.events)
        self._busy = (time.thread_time_ns() - begun) / 1e6

    def _known_figures(self) -> dict[str, float]:
        """Give every number that is known, as ``SERVICE.NAME``."""
        known = {
            f"{service}.{name}": float(value)
            for service, figures in self._figures.items()
            for name, value in figures.items()
            if not isinstance(value, str)
        }
        if self._stack is not None:
            known.update(self._stack.figures())
        if self._uptime.percent is not None:
            known["process.uptime_percent"] = self._uptime.percent
        if self._uptime.recovery is not None:
            known["process.recovery_seconds"] = self._uptime.recovery
        return known


def _slowness(session: Session) -> tuple[bool, int, int]:
    return session.slow, session.unsent, session.conflations
