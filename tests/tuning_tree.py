"""A small host as a tree of files, with knobs of every type of value, for the tests of the tuning transaction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tvops.tuning.host import Host
from tvops.tuning.journal import Journal, StateDirectory
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.model import Driver, Facts, Item, Kind, Knob, NotWrittenError, Place, Profile, ValueType, Wish
from tvops.tuning.plan import make_plan

FILES = {
    "/proc/sys/net/core/rmem_max": "4194304\n",
    "/proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t33554432\n",
    "/proc/sys/vm/swappiness": "60\n",
    "/proc/sys/vm/nr_hugepages": "0\n",
    "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "/proc/irq/default_smp_affinity": "f\n",
    "/proc/irq/24/smp_affinity_list": "0-3\n",
    "/proc/irq/25/smp_affinity_list": "0-3\n",
    "/proc/sys/kernel/random/boot_id": "7f6d1a0e-0000-4000-8000-000000000001\n",
}
FACTS = Facts(
    kernel=(6, 18, 0), release="6.18.0", memory_bytes=8 << 30, cpus=(0, 1, 2, 3), privileged=True,
    roles={"irq": (0,), "engine": (2, 3)},
)  # fmt: skip


def knob(name: str, kind: Kind, where: str, value_type: ValueType, **more: object) -> Knob:
    return Knob(id=name, kind=kind, where=where, type=value_type, why="for a test", source="measured", **more)  # type: ignore[arg-type]


CATALOGUE = {
    one.id: one
    for one in (
        knob("net.core.rmem_max", "sysctl", "net.core.rmem_max", "int", unit="bytes"),
        knob("net.ipv4.tcp_rmem", "sysctl", "net.ipv4.tcp_rmem", "ints", scope="netns"),
        knob("vm.swappiness", "sysctl", "vm.swappiness", "int"),
        knob("vm.nr_hugepages", "sysctl", "vm.nr_hugepages", "int"),
        knob("vm.thp", "file", "/sys/kernel/mm/transparent_hugepage/enabled", "choice",
             choices=("always", "madvise", "never")),
        knob("irq.default", "file", "/proc/irq/default_smp_affinity", "cpumask"),
        knob("irq.affinity", "file", "/proc/irq/{irq}/smp_affinity_list", "cpulist"),
    )
}  # fmt: skip


class Moody(FileDriver):
    """A driver some of whose places reject every new value, and others clamp it to a greatest one."""

    rejecting: frozenset[str] = frozenset()
    clamping: Mapping[str, int] = {}

    def write(self, knob: Knob, place: Place, value: str) -> None:
        if place.address in self.rejecting:
            raise NotWrittenError("the kernel refuses the value")
        if place.address in self.clamping:
            value = str(min(int(value), self.clamping[place.address]))
        super().write(knob, place, value)


class Tree:
    """The tree, its drivers, and a state directory beside it."""

    def __init__(self, folder: Path, files: Mapping[str, str] = FILES) -> None:
        self.root = folder / "root"
        for path, text in files.items():
            self.write(path, text)
        self.driver = Moody(Host(self.root), CATALOGUE)
        self.drivers: dict[Kind, Driver] = {"sysctl": self.driver, "file": self.driver}
        self.state = StateDirectory(folder / "state")

    def write(self, path: str, text: str) -> None:
        where = self.root / path[1:]
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text)

    def read(self, path: str) -> str:
        return (self.root / path[1:]).read_text()

    def snapshot(self) -> dict[str, tuple[bytes | None, int]]:
        """Give every path below the root with content (None: a directory) and mode."""
        return {
            str(path.relative_to(self.root)): (path.read_bytes() if path.is_file() else None, path.stat().st_mode)
            for path in self.root.rglob("*")
        }

    def plan(self, wishes: Mapping[str, object], required: tuple[str, ...] = ()) -> list[Item]:
        """Plan wishes given as `knob` or `knob@selector`."""
        listed = []
        for name, value in wishes.items():
            one, _, selector = name.partition("@")
            listed.append(Wish(knob=one, selector=selector, value=value, required=name in required))
        profile = Profile(name="test", description="", settings={}, wishes=tuple(listed), facts=FACTS)
        return make_plan(profile, CATALOGUE, self.drivers)

    def begin(self, items: list[Item]) -> Journal:
        """Begin a run of what is pending; the lock has to be held."""
        pending = [item for item in items if item.state == "pending"]
        return self.state.new_run("apply", command="tvops tune", root=self.root, profile="test", items=pending)
