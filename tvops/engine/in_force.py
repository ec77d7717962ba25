"""What the supervisor does for the tuning of its stack: its own share, and the report of what is in force."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from tvops.engine.collector import Collector
from tvops.engine.latency_hold import LatencyHold
from tvops.engine.process_attributes import INHERITED, read_attribute
from tvops.engine.process_tuning import tune_process
from tvops.engine.stack_tuning import Effect, StackTuning
from tvops.engine.tuning_report import Report, remove_report, started, write_report

logger = logging.getLogger(__name__)


class InForce:
    """The tuning of one stack, as its supervisor sees it.

    `for_children`: what workers and servers get: where the supervisor has something of its own that they would
    inherit and nobody wants of them, they put back what was there before.
    """

    def __init__(self, tuning: StackTuning, folder: Path) -> None:
        self._tuning, self._folder = tuning, folder
        self._hold = LatencyHold()
        self._own: list[Effect] = []
        self._written: Report | None = None
        own = os.getpid()
        names = [name for name in tuning.process("supervisor") if name in INHERITED]
        before = {name: value for name in names if (value := read_attribute(name, own))}
        processes = {child: before | tuning.process(child) for child in ("engine", "market", "redis")}
        self.for_children = msgspec.structs.replace(tuning, processes=processes)

    def tune(self) -> None:
        """Apply what the supervisor has of its own. Has to come before it starts anything."""
        wishes = self._tuning.process("supervisor")
        collector = Collector(wishes, "supervisor")
        self._own = [*self._tuning.left, *tune_process(wishes, "supervisor"), *collector.effects()]
        if self._tuning.dma_latency_us is not None:
            self._own.append(self._hold.acquire(self._tuning.dma_latency_us))

    def effects(self, told: Iterable[Effect]) -> list[Effect]:
        """Put what the children told beside what the supervisor has."""
        return [*self._own, *dict.fromkeys(self._as_asked(effect) for effect in told)]

    def write(self, processes: Mapping[str, list[int]], effects: list[Effect]) -> None:
        """Write the report where it is another one than before; a failure is logged.

        Args:
            processes: the pids of the children by name.
            effects: of all of them.
        """
        pid = os.getpid()
        report = Report(
            profile=self._tuning.profile, pid=pid, started=started(pid), time=0.0,
            processes={**processes, "supervisor": [pid]}, effects=effects,
        )  # fmt: skip
        if report == self._written:
            return
        self._written = report
        try:
            write_report(self._folder, msgspec.structs.replace(report, time=time.time()))
        except OSError as error:
            logger.warning("%s: what is tuned cannot be written down: %s", error.filename, error.strerror)

    def release(self) -> None:
        """Let go of what was held; nothing is in force any more."""
        self._hold.release()
        remove_report(self._folder)

    def _as_asked(self, effect: Effect) -> Effect:
        """Take back the wish of an effect that the profile does not name: it undoes or carries out another one."""
        wanted: Mapping[str, str] = {}
        if effect.kind == "process":
            wanted = self._tuning.process(effect.target)
        elif effect.kind == "redis":
            wanted = self._tuning.servers.get(effect.target, {})
        if effect.kind == "socket" or effect.name in wanted:
            return effect
        return msgspec.structs.replace(effect, wanted="", state="left", reason="")
