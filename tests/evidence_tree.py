"""A tree of files that stands for a host, a plan for it, and a measurement of that plan.

Run as a program it measures until it is killed: `python -m tests.evidence_tree TREE STATE`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvops.tuning.evidence import experiment
from tvops.tuning.evidence.measuring import Options, run_experiment
from tvops.tuning.evidence.probes import Probe, RoundTrip, Samples
from tvops.tuning.evidence.records import Evidence
from tvops.tuning.evidence.schedule import Schedule
from tvops.tuning.evidence.treatments import choose
from tvops.tuning.flips import Flipper
from tvops.tuning.host import Host
from tvops.tuning.journal import Journal, StateDirectory
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.model import Driver, Facts, Item, Kind, Knob, Profile, Wish
from tvops.tuning.plan import make_plan

DELAY = "vm.delay"
FILES = {
    "/proc/sys/vm/delay": "0\n",
    "/proc/sys/vm/quiet": "10\n",
    "/sys/irq/1/list": "0\n",
    "/sys/irq/2/list": "1\n",
    "/proc/sys/vm/risky": "1\n",
    "/proc/sys/vm/fixed": "1\n",
    "/proc/sys/vm/done": "7\n",
}
WISHES = {DELAY: "300", "vm.quiet": "20", "irq.list": "0-1", "vm.risky": "2", "vm.fixed": "2", "vm.done": "7"}


def knob(name: str, **values: Any) -> Knob:
    return Knob(**{"id": name, "kind": "sysctl", "where": name, "type": "int", "why": "w", "source": "s"} | values)


CATALOGUE = {
    one.id: one
    for one in (
        knob(DELAY, live=True),
        knob("vm.quiet", live=True),
        knob("irq.list", kind="file", where="/sys/irq/{irq}/list", type="cpulist", live=True),
        knob("vm.risky", live=True, risk="disruptive"),
        knob("vm.fixed"),
        knob("vm.done", live=True),
    )
}


class Stated(Probe):
    """A probe whose latency is what a file says when it is set up.

    No clock is asked and nothing is random, so that a busy machine changes no verdict.
    """

    name = "stated"
    description = "what a file says"
    most_samples = 60

    def __init__(self, file: Path, microseconds: int = 1) -> None:
        """Take the file, and how many microseconds each unit of what it says is."""
        self._file, self._unit_ns = file, microseconds * 1000

    def setup(self) -> None:
        self._stated = int(self._file.read_text()) * self._unit_ns

    def once(self) -> Callable[[], None]:
        raise AssertionError("nothing is timed")

    def sample(self, count: int, seconds: float) -> Samples:
        return self._stated + np.linspace(20_000, 40_000, count, dtype=np.int64)


def make_host(tree: Path) -> Host:
    for path, text in FILES.items():
        (tree / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tree / path.lstrip("/")).write_text(text)
    return Host(tree)


def snapshot(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def plan(host: Host, wishes: dict[str, str] | None = None) -> tuple[list[Item], dict[Kind, Driver]]:
    files = FileDriver(host, CATALOGUE)
    drivers: dict[Kind, Driver] = {"sysctl": files, "file": files}
    facts = Facts(kernel=(6, 18, 0), release="6.18.0", memory_bytes=1 << 30, cpus=(0, 1), privileged=True)
    wanted = tuple(Wish(knob=name, value=value) for name, value in (wishes or WISHES).items())
    profile = Profile(name="p", description="", settings={}, wishes=wanted, facts=facts)
    return make_plan(profile, CATALOGUE, drivers), drivers


def measured(run: Journal, host: Host, probes: Sequence[Probe], seconds: float, **options: Any) -> Evidence:
    """Measure the plan with probes of the test's own, through the journal."""
    items, drivers = plan(host, options.pop("wishes", None))
    chosen = Options(seconds=seconds, **{"seed": 5, "settle_seconds": 0.001} | options)
    with Flipper(run, CATALOGUE, drivers) as flipper:
        treatments, left_out = choose(items, CATALOGUE, drivers, flipper, chosen.together)
        return run_experiment(treatments, probes, left_out, chosen, lambda progress: None)


def in_pairs(pairs: int) -> Callable[..., Schedule]:
    """Give a maker of the same schedule however fast this machine is."""

    def make_schedule(probes: Sequence[Probe], *_: object) -> Schedule:
        return Schedule(pairs, pairs, {probe.name: min(200, probe.most_samples) for probe in probes}, 5.0)

    return make_schedule


def main(tree: Path, state: Path) -> None:
    experiment.make_schedule = in_pairs(2)  # type: ignore[assignment]
    host = Host(tree)
    directory = StateDirectory(state)
    with directory.lock(0, "measure"), directory.new_run("measure", command="measure", root=tree) as run:
        measured(run, host, [Talkative()], 100)


class Talkative(RoundTrip):
    """Tells the process id of each partner that it starts, and waits for a line before it goes on."""

    most_samples = 20

    def __init__(self) -> None:
        super().__init__("udp")

    def setup(self) -> None:
        super().setup()
        assert self._partner is not None
        sys.stdout.write(f"{self._partner.process.pid}\n")
        sys.stdout.flush()
        sys.stdin.readline()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
