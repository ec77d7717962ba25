"""A tree of files that stands for a host, a plan for it, and a measurement of that plan.

Run as a program it measures until it is killed: `python -m tests.evidence_tree TREE STATE`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvops.tuning.evidence import experiment
from tvops.tuning.evidence.measuring import Options, run_experiment
from tvops.tuning.evidence.probes import Partner, Probe, RoundTrip, Samples
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


class StatedEcho(RoundTrip):
    """A round trip whose latency is what the server states, read from a file of the tree when the server starts.

    No clock is asked, so that a busy machine changes no verdict.
    """

    most_samples = 60

    def __init__(self, tree: Path) -> None:
        super().__init__("tcp")
        self.name = "stated"
        self._tree = tree
        self._scatter = np.random.default_rng(5)

    def setup(self) -> None:
        self._partner = StatingPartner(self._tree)
        self._socket = self._connect(self._partner.first_line())

    def sample(self, count: int, seconds: float) -> Samples:
        return np.array([self._stated() for _ in range(count)]) + self._scatter.integers(20_000, 40_000, count)

    def _stated(self) -> int:
        assert self._socket is not None
        self._socket.sendall(b"?")
        return int(self._socket.recv(64)) * 1000


class StatingPartner(Partner):
    def __init__(self, tree: Path) -> None:
        microseconds = int((tree / "proc/sys/vm/delay").read_text())
        code = (
            "import socket\n"
            "listener = socket.create_server(('127.0.0.1', 0))\n"
            "print(listener.getsockname()[1], flush=True)\n"
            "connection, _ = listener.accept()\n"
            f"while connection.recv(64): connection.sendall(b'{microseconds}')\n"
        )
        self.process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE)


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


def ten_pairs(probes: Sequence[Probe], *_: object) -> Schedule:
    """The same schedule however fast this machine is."""
    return Schedule(10, 10, {probe.name: min(200, probe.most_samples) for probe in probes}, 5.0)


def main(tree: Path, state: Path) -> None:
    experiment.make_schedule = ten_pairs  # type: ignore[assignment]
    host = Host(tree)
    directory = StateDirectory(state)
    with directory.lock(0, "measure"), directory.new_run("measure", command="measure", root=tree) as run:
        measured(run, host, [Talkative()], 100)


class Talkative(RoundTrip):
    """Tells the process id of each partner that it starts."""

    def __init__(self) -> None:
        super().__init__("udp")

    def setup(self) -> None:
        super().setup()
        assert self._partner is not None
        sys.stdout.write(f"{self._partner.process.pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
