"""Renders the files of the shipped profiles for a reference machine: to be read, and to be compared by a test.

``python -m tvops.tuning.persist_reference kernel-tuning/rendered`` writes them anew. The machine is described by
`reference.yaml` in that folder; it is built as a tree of files, which is planned for like any other.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tvops.profile_files import profile_names
from tvops.shipped import resource
from tvops.tuning.catalogue import load_catalogue
from tvops.tuning.facts import read_facts
from tvops.tuning.host import Host
from tvops.tuning.kinds.boot import BootDriver
from tvops.tuning.kinds.files import FileDriver, path_of
from tvops.tuning.kinds.nic import NicDriver
from tvops.tuning.model import Driver, Facts, Kind, Knob, Place, State
from tvops.tuning.persist import render_files
from tvops.tuning.plan import make_plan
from tvops.tuning.profiles import resolve_profile
from tvops.yaml_lines import load_yaml

PROGRAM = "/usr/bin/tvops"
_HOLDER = re.compile(r"\{(\w+)\}")


class Interface(msgspec.Struct, frozen=True):
    """The machine's network interface."""

    name: str
    driver: str
    queues: int


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `reference.yaml` says."""

    cpus: int
    nic: Interface
    block: str
    irqs: list[int]
    absent: list[str]  # knobs that it does not have
    files: dict[str, str]
    values: dict[str, str | int]


class ShownInterfaces(NicDriver):
    """Interfaces that show what the description says; the calls of ethtool are the real driver's."""

    def __init__(self, host: Host, values: Mapping[str, str | int]) -> None:
        super().__init__(host)
        self._values = values

    def read(self, knob: Knob, place: Place) -> State:
        """Give the described value."""
        if knob.id not in self._values:
            return State("absent", reason="the driver does not have it")
        value = str(self._values[knob.id])
        return State("present", value, value)


def load_machine(folder: Path) -> Machine:
    """Read `reference.yaml` of a folder; raise UsageError where it is no YAML."""
    return msgspec.convert(load_yaml(folder / "reference.yaml").value, Machine)


def build(machine: Machine, catalogue: Mapping[str, Knob], root: Path) -> None:
    """Make the tree of files that stands for a machine."""
    cpus = f"0-{machine.cpus - 1}"
    files = dict(machine.files)
    files["/sys/devices/system/cpu/online"] = cpus
    files["/sys/devices/system/node/node0/cpulist"] = cpus
    for cpu in range(machine.cpus):
        files[f"/sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"] = str(cpu)
    for knob in catalogue.values():
        if knob.kind in ("sysctl", "file") and knob.id not in machine.absent:
            files |= dict.fromkeys(_paths(knob, machine), str(machine.values.get(knob.id, 0)))
    for path, text in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    device = root / "sys/class/net" / machine.nic.name / "device"
    device.mkdir(parents=True)
    (device / "driver").symlink_to(f"/sys/bus/pci/drivers/{machine.nic.driver}")


def _paths(knob: Knob, machine: Machine) -> list[str]:
    """Give a knob's paths on the machine."""
    names: dict[str, list[object]] = {
        "cpu": list(range(machine.cpus)), "irq": list(machine.irqs), "node": [0], "nic": [machine.nic.name],
        "block": [machine.block], "queue": list(range(machine.nic.queues)),
    }  # fmt: skip
    paths = [path_of(knob)]
    while holder := _HOLDER.search(paths[0]):
        paths = [path.replace(holder[0], str(name)) for path in paths for name in names[holder[1]]]
    return paths


def render_reference(folder: Path) -> dict[str, str]:
    """Give the files of all shipped profiles that change a host: path below ``folder`` -> content."""
    machine = load_machine(folder)
    catalogue = load_catalogue()
    rendered = {}
    with tempfile.TemporaryDirectory() as root:
        build(machine, catalogue, Path(root))
        host = Host(Path(root))
        files = FileDriver(host, catalogue)
        nic = ShownInterfaces(host, machine.values)
        drivers: dict[Kind, Driver] = {"sysctl": files, "file": files, "nic": nic, "boot": BootDriver(host)}
        facts = msgspec.structs.replace(read_facts(host), privileged=True, page_size=4096)
        for name in profile_names():
            for path, text in _render(name, facts, catalogue, drivers, host).items():
                rendered[f"{name}{path}"] = text
    return rendered


def _render(
    name: str, facts: Facts, catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver], host: Host
) -> dict[str, str]:
    profile = resolve_profile(name, facts, catalogue, overlays=host.root / "etc/tvops/profiles.d")
    items = make_plan(profile, catalogue, drivers)
    return render_files(profile, catalogue, items, drivers, host, program=PROGRAM)


def write_reference(folder: Path) -> None:
    """Write the rendered files into ``folder``, in place of those that are there."""
    rendered = render_reference(folder)
    for old in folder.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    for path, text in rendered.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


if __name__ == "__main__":
    write_reference(Path(sys.argv[1]) if len(sys.argv) > 1 else resource("kernel-tuning") / "rendered")
