"""The experiment: interleaved A/B blocks in random order, an A/A control first.

Half of the control comes first, the rest between the changes, so that it sees the noise of the whole time.
A round measures every change once, in random order, each with a pair of blocks: A as the host is, B with the
change; which of the two comes first is random as well. A block is: change, settle, set the probes up, sample them
all (in the same order in both blocks), end them, undo the change. The seed decides all of it and is recorded.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from tvops.errors import TvopsError
from tvops.statistics import percentile
from tvops.tuning.evidence.probes import Probe, ProbeError, Samples
from tvops.tuning.evidence.records import NotMeasured
from tvops.tuning.evidence.schedule import Cost, Schedule, make_schedule
from tvops.tuning.evidence.treatments import Treatment
from tvops.tuning.interruption import Interruption
from tvops.tuning.model import NotWrittenError

_TRY_SAMPLES = 100
_WARM_UP = 20
_LATE = 1.25
_SAMPLE_SECONDS = 20.0
"""Time limit of one probe in one block, whatever the schedule says."""

CONTROL = Treatment()


class Progress(msgspec.Struct, frozen=True):
    """How far an experiment is."""

    text: str
    done: int  # pairs
    pairs: int  # in all; 0 before that is known
    seconds_left: float


Tell = Callable[[Progress], None]


class Cell(msgspec.Struct):
    """The samples of one probe under one change: for each pair what A and what B showed."""

    percentiles: dict[float, list[tuple[float, float]]]
    most: list[float]  # largest sample of A and of B


class Experiment:
    """Runs treatments against probes. `cells` and `left_out` are the outcome."""

    def __init__(
        self,
        treatments: Sequence[Treatment],
        probes: Sequence[Probe],
        seed: int,
        settle_seconds: float,
        tell: Tell,
    ) -> None:
        self.treatments = list(treatments)
        self.probes = list(probes)
        self.left_out: list[NotMeasured] = []
        self.cells: dict[tuple[str, str], Cell] = {}
        self.pairs = 0  # whole rounds that were measured
        self.schedule: Schedule
        self._fixtures = list({id(p.needs): p.needs for p in probes if p.needs is not None}.values())
        self._random = random.Random(seed)  # noqa: S311 - no secret hangs on it
        self._settle = settle_seconds
        self._tell = tell
        self._done = 0
        self._interruption = Interruption()

    def run(self, seconds: float) -> None:
        """Measure for about so many seconds.

        Raises:
            UsageError: the time is too short.
            StoppedError: a signal came; nothing is left changed.
            TvopsError: no probe works here, or a change could not be taken back.
        """
        with self._interruption:
            self._run(seconds)

    def _run(self, seconds: float) -> None:
        self._tell(Progress("trying the probes", 0, 0, seconds))
        costs = self._try_probes()
        self.schedule = make_schedule(self.probes, costs, len(self.treatments), seconds, self._settle)
        self._started = time.monotonic()
        changes = len(self.treatments)
        self._report(f"{self.schedule.pairs} pairs of blocks for the control and each of {changes} changes")
        # Half of the control comes first, the rest in between: its noise is that of the whole time.
        for number in range(self.schedule.pairs - self.schedule.pairs // 2):
            self._pair(CONTROL, f"A/A control {number + 1}/{self.schedule.pairs}")
        while self.pairs < self.schedule.pairs and not self._is_late(seconds):
            due = [*self.treatments, CONTROL] if self.pairs % 2 else self.treatments
            for treatment in self._random.sample(due, len(due)):
                self._pair(treatment, f"{treatment.name} {self.pairs + 1}/{self.schedule.pairs}")
            self.pairs += 1
        self._tell(Progress("measured", self._done, self._done, 0.0))

    def _is_late(self, seconds: float) -> bool:
        """Whether the time is up and enough was measured for a verdict."""
        return self.pairs >= self.schedule.least_pairs and time.monotonic() - self._started > _LATE * seconds

    def _try_probes(self) -> dict[str, Cost]:
        """Find out what every probe takes; leave out those that do not work here."""
        costs: dict[str, Cost] = {}
        shared = self._open_fixtures()
        each = shared / len(self.probes) if self.probes else 0.0
        try:
            for probe in list(self.probes):
                with self._dropping(probe):
                    begun = time.monotonic()
                    probe.setup()
                    ready = time.monotonic()
                    taken = probe.sample(_TRY_SAMPLES, _SAMPLE_SECONDS)
                    sampled = time.monotonic()
                    probe.close()
                    around = ready - begun + time.monotonic() - sampled
                    costs[probe.name] = Cost(around + each, (sampled - ready) / len(taken))
        finally:
            self._close(self.probes)
        self._demand_probes()
        return costs

    def _demand_probes(self) -> None:
        if not self.probes:
            reasons = "; ".join(f"{left.what}: {left.reason}" for left in self.left_out)
            raise TvopsError(f"nothing can be measured here: {reasons}")

    def _pair(self, treatment: Treatment, text: str) -> None:
        self._report(text)
        probes = list(self.probes)
        self._random.shuffle(probes)
        taken: dict[bool, dict[str, Samples]] = {}
        for changed in self._random.sample((False, True), 2):
            try:
                taken[changed] = self._block(treatment, changed, probes)
            except NotWrittenError as error:
                self.treatments = [t for t in self.treatments if t is not treatment]
                self.left_out.append(NotMeasured(treatment.name, f"could not be changed: {error}"))
                return
        for probe in probes:
            if probe.name in taken[False] and probe.name in taken[True]:
                self._record(treatment, probe, (taken[False][probe.name], taken[True][probe.name]))
        self._demand_probes()
        self._done += 1

    def _block(self, treatment: Treatment, changed: bool, probes: Sequence[Probe]) -> dict[str, Samples]:
        """Measure one side of a change; raise NotWrittenError where it could not be made (it is undone then)."""
        if not changed:
            return self._sample_all(probes)
        try:
            treatment.on()
            return self._sample_all(probes)
        finally:
            try:
                treatment.off()
            except NotWrittenError as error:
                raise TvopsError(f"{treatment.name}: could not be put back: {error}") from None

    def _sample_all(self, probes: Sequence[Probe]) -> dict[str, Samples]:
        taken: dict[str, Samples] = {}
        time.sleep(self._settle)
        self._open_fixtures()
        try:
            for probe in probes:
                if probe in self.probes:
                    with self._dropping(probe):
                        probe.setup()
            for probe in probes:
                self._interruption.check()
                if probe in self.probes:
                    with self._dropping(probe):
                        probe.sample(_WARM_UP, _SAMPLE_SECONDS)
                        taken[probe.name] = probe.sample(self.schedule.samples[probe.name], _SAMPLE_SECONDS)
        finally:
            self._close(probes)
        return taken

    def _open_fixtures(self) -> float:
        begun = time.monotonic()
        for fixture in self._fixtures:
            users = [probe for probe in self.probes if probe.needs is fixture]
            with self._dropping(*users):
                if users:
                    fixture.setup()
        return time.monotonic() - begun

    def _close(self, probes: Sequence[Probe]) -> None:
        for probe in probes:
            probe.close()
        for fixture in self._fixtures:
            fixture.close()

    @contextmanager
    def _dropping(self, *probes: Probe) -> Iterator[None]:
        """Go on without these probes where they fail."""
        try:
            yield
        except ProbeError as error:
            for probe in probes:
                self._drop(probe, str(error))

    def _drop(self, probe: Probe, reason: str) -> None:
        probe.close()
        self.probes = [p for p in self.probes if p is not probe]
        self.left_out.append(NotMeasured(f"probe {probe.name}", reason))

    def _record(self, treatment: Treatment, probe: Probe, sides: Sequence[Samples]) -> None:
        wanted = self.schedule.percentiles(probe.name)
        cell = self.cells.setdefault((treatment.name, probe.name), Cell({p: [] for p in wanted}, [0.0, 0.0]))
        if any(len(samples) < self.schedule.samples[probe.name] for samples in sides):
            self._drop(probe, f"took longer than {_SAMPLE_SECONDS:g} s for a block")
            return
        for p in wanted:
            before, after = (percentile(samples, p) for samples in sides)
            cell.percentiles[p].append((before, after))
        for i, samples in enumerate(sides):
            cell.most[i] = max(cell.most[i], float(samples.max()))

    def _report(self, text: str) -> None:
        pairs = self.schedule.pairs * (len(self.treatments) + 1)
        took = time.monotonic() - self._started
        each = took / self._done if self._done else self.schedule.seconds / pairs
        self._tell(Progress(text, self._done, pairs, max(0.0, (pairs - self._done) * each)))
