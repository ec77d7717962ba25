"""Who changed a value that tvops had written: a later run, a reboot, a service, a file of sysctl settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property

import msgspec

from tvops.tuning.host import Host
from tvops.tuning.journal import boot_id, network_namespace
from tvops.tuning.kinds.files import sysctl_path
from tvops.tuning.model import Item, Knob
from tvops.tuning.records import FileWrite, Run, Write
from tvops.tuning.values import normalise

# In this order: a file hides those of the same name in directories further down.
_SYSCTL_FOLDERS = (
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
)
_SERVICES = {  # process name -> the knobs that it keeps changing
    "irqbalance": ("irq.*",),
    "tuned": ("*",),
    "bpftune": ("net.*",),
    "power-profiles-": ("cpu.*",),  # the kernel cuts names at 15 letters
    "tlp": ("cpu.*",),
    "auto-cpufreq": ("cpu.*",),
}


class Setting(msgspec.Struct, frozen=True):
    """One line of a file of sysctl settings."""

    where: str  # file:line
    pattern: str  # path below /proc/sys, perhaps with wildcards
    value: str


class Attribution:
    """What on this host may have changed a value, read once."""

    def __init__(self, host: Host, runs: Sequence[Run]) -> None:
        self._host = host
        self._runs = [run for run in runs if run.begin.root == str(host.root)]

    def later_run(self, run: Run, write: Write | FileWrite) -> str:
        """Give the id of the newest run after ``run`` that has a write of the same place in force; empty: none."""
        newest = self._newest.get(place_of(write), "")
        return newest if newest > run.id else ""

    def rebooted(self, run: Run) -> bool:
        """Tell whether the host was booted since a run."""
        return bool(run.begin.boot and self._boot and run.begin.boot != self._boot)

    def elsewhere(self, run: Run, item: Item) -> bool:
        """Tell whether a place belongs to another network namespace than this one."""
        then = run.begin.netns
        return item.scope in ("netns", "nic") and bool(then and self._netns and then != self._netns)

    def explain(self, run: Run, write: Write | FileWrite, knob: Knob | None, found: str) -> str:
        """Say who may have changed what ``run`` wrote to ``found``, in one clause; empty where nobody is known."""
        if later := self.later_run(run, write):
            return f"run {later} changed it later: tvops tune rollback {later} first"
        if isinstance(write, FileWrite):
            return ""
        reasons = []
        if self.elsewhere(run, write.item):
            reasons.append("it was written in another network namespace")
        if self.rebooted(run):
            reasons.append("the host was rebooted since")
        if setting := self._setting(write.item, knob, found):
            reasons.append(f"{setting.where} sets it to {setting.value}")
        reasons += [
            f"{name.rstrip('-')} is running and sets such values"
            for name, patterns in _SERVICES.items()
            if name in self._processes and any(fnmatchcase(write.item.knob, pattern) for pattern in patterns)
        ]
        return "; ".join(reasons)

    def _setting(self, item: Item, knob: Knob | None, found: str) -> Setting | None:
        """Give the line that sets a sysctl to what was found, else the one that counts at boot."""
        if item.kind != "sysctl" or knob is None:
            return None
        fitting = [s for s in self._settings if fnmatchcase(item.place.address, s.pattern)]
        same = [s for s in fitting if normalise(knob.type, s.value) == found]
        best = same or fitting
        return best[-1] if best else None

    @cached_property
    def _newest(self) -> dict[tuple[str, str], str]:
        """The newest run that has a write in force, by place."""
        return {place_of(entry.write): run.id for run in self._runs for entry in run.live}

    @cached_property
    def _boot(self) -> str:
        return boot_id(self._host)

    @cached_property
    def _netns(self) -> str:
        return network_namespace(self._host)

    @cached_property
    def _processes(self) -> frozenset[str]:
        names = set()
        for pid in self._host.listdir("/proc"):
            if pid.isdigit():
                try:
                    names.add(self._host.read_text(f"/proc/{pid}/comm").strip())
                except OSError:
                    continue  # it has ended
        return frozenset(names)

    @cached_property
    def _settings(self) -> list[Setting]:
        return list(sysctl_settings(self._host))


def place_of(write: Write | FileWrite) -> tuple[str, str]:
    """Give what tells the places of writes apart."""
    return ("", write.path) if isinstance(write, FileWrite) else (write.item.knob, write.item.place.address)


def sysctl_settings(host: Host) -> Iterator[Setting]:
    """Read all files of sysctl settings in the order in which they count: the last line wins (sysctl.d(5))."""
    chosen: dict[str, str] = {}
    for folder in _SYSCTL_FOLDERS:
        for name in host.listdir(folder):
            if name.endswith(".conf"):
                chosen.setdefault(name, f"{folder}/{name}")
    for path in [*(chosen[name] for name in sorted(chosen)), "/etc/sysctl.conf"]:
        try:
            text = host.read_text(path, 1 << 20)
        except OSError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            key, equals, value = line.strip().partition("=")
            if equals and not key.startswith(("#", ";")):
                yield Setting(f"{path}:{number}", sysctl_path(key.strip().removeprefix("-")), value.strip())
