"""What the worker that watches the whole stack looks at: its processes, its host, its servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tvops.engine.bus.roles import Bus
from tvops.engine.knob_table import KnobTable, TableReader
from tvops.engine.stack_tuning import settled
from tvops.engine.telemetry.document import HostLoad, Knob, Process, Server
from tvops.engine.telemetry.host_load import HostProbe
from tvops.engine.telemetry.knob_events import KnobEvents
from tvops.engine.telemetry.processes import ProcessProbe
from tvops.engine.telemetry.servers import ServerProbe
from tvops.engine.tuning_report import Report, read_report
from tvops.settings import Settings


class _Read(NamedTuple):
    """What one look at the files found."""

    processes: tuple[Process, ...]
    host: HostLoad
    report: Report | None
    table: KnobTable | None


class StackWatch:
    """The newest samples of everything that there is once in a stack."""

    def __init__(self, name: str, settings: Settings, bus: Bus) -> None:
        self.processes: tuple[Process, ...] = ()
        self.host: HostLoad | None = None
        self.servers: tuple[Server, ...] = ()
        self.profile, self.knobs_in_force, self.knobs_left = settings.profile, 0, 0
        self.knobs: tuple[Knob, ...] = ()
        self.knobs_seconds = 0.0
        self.knob_events = KnobEvents()
        self._data_path: Path = settings.data_path
        self._knob_table = TableReader(settings.data_path)
        self._process_probe = ProcessProbe(settings.data_path, name=name, budgets=_budgets(settings))
        self._host_probe = HostProbe((settings.gateway_port, settings.market_port))
        self._server_probe = ServerProbe(bus)

    async def sample(self) -> None:
        """Look at everything once.

        The reading of files goes on in a thread. What it found is taken over in one step, so that no document has
        it without the events that tell of it.
        """
        found, self.servers = await asyncio.gather(asyncio.to_thread(self._read), self._server_probe.sample())
        self.processes, self.host = found.processes, found.host
        if found.report is not None:
            self.profile = found.report.profile
            in_force, left = settled(found.report.effects)
            self.knobs_in_force, self.knobs_left = len(in_force), len(left)
        table = found.table
        self.knobs, self.knobs_seconds = (table.knobs, table.every) if table is not None else ((), 0.0)

    def _read(self) -> _Read:
        processes, host = self._process_probe.sample(), self._host_probe.sample()
        try:
            report = read_report(self._data_path)
        except OSError:
            report = None
        table = self._knob_table.read()
        profile = self.profile if report is None else report.profile
        self.knob_events.compare(profile, () if table is None else table.knobs)
        return _Read(processes, host, report, table)

    def figures(self) -> Iterator[tuple[str, float]]:
        """Give what the operators' metrics need of it, as far as it is known."""
        if self.processes:
            memory = sum(process.memory for process in self.processes)
            yield "stack.memory_mb", memory / 2**20
            yield "stack.busiest_percent", max(process.cpu_percent for process in self.processes)
        parts = [s.used / s.limit for s in self.servers if s.up and s.limit and s.policy == "noeviction"]
        if parts:
            yield "stack.redis_memory_percent", 100 * max(parts)


def _budgets(settings: Settings) -> dict[str, int]:
    """Give the bytes that processes should stay within; servers have a maxmemory, and a metric of their own."""
    return {
        "supervisor": settings.supervisor_budget_mb << 20,
        "engine": settings.engine_budget_mb << 20,
        "market": settings.market_budget_mb << 20,
    }
