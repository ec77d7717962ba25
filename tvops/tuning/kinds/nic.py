"""Knobs of network interfaces: what `ethtool` sets. None of it is a file, so a tree of files has none of it.

A knob's `where` is a group and a setting as ethtool(8) calls them: `coalesce rx-usecs`, `ring rx`,
`channels combined`, `pause rx`, `feature gro`. Switches are `on` and `off`.
"""

from __future__ import annotations

import contextlib
import errno
import shlex
from collections.abc import Iterator

from tvops.tuning.host import Host
from tvops.tuning.kinds.ethtool import GROUPS, Group, get_features, get_numbers, set_features, set_number
from tvops.tuning.kinds.places import interfaces
from tvops.tuning.model import Knob, NotWrittenError, Place, State

# What ethtool(8) calls by one name and the kernel by several; a name that is not here is the kernel's own.
_FEATURES = {
    "gro": ("rx-gro",),
    "gso": ("tx-generic-segmentation",),
    "lro": ("rx-lro",),
    "ntuple": ("rx-ntuple-filter",),
    "rx": ("rx-checksum",),
    "rxhash": ("rx-hashing",),
    "sg": ("tx-scatter-gather", "tx-scatter-gather-fraglist"),
    "tso": (
        "tx-tcp-segmentation",
        "tx-tcp-ecn-segmentation",
        "tx-tcp-mangleid-segmentation",
        "tx-tcp6-segmentation",
        "tx-tcp-accecn-segmentation",
    ),
}

_CAP_NET_ADMIN = 12

_REASONS = {
    errno.EBUSY: "the interface is in use in a way that does not let it change",
    errno.EINVAL: "the driver refuses the value",
    errno.ENODEV: "the interface is gone",
    errno.EOPNOTSUPP: "the driver does not support it",
    errno.EPERM: "needs CAP_NET_ADMIN",
}


_CAPABILITY = "CAP_NET_ADMIN"


class NicDriver:
    """Reads and writes the knobs of network interfaces."""

    def __init__(self, host: Host) -> None:
        """Take the host; only a running one has interfaces to ask."""
        self._host = host

    def places(self, knob: Knob) -> list[Place]:
        """Give the interfaces that count (`places.py` says which)."""
        return [Place(name, name) for name in interfaces(self._host)]

    def read(self, knob: Knob, place: Place) -> State:
        """Tell what an interface has set."""
        if not self._host.live:
            return State("absent", reason="a tree of files has no interfaces to ask")
        try:
            state = _read(knob, place.name)
        except OSError as error:
            return State("absent", reason=_said(error))
        if state.status == "present" and state.writable and not self._may_write():
            return State(
                "present", state.value, state.raw, writable=False, needs=_CAPABILITY, reason=f"needs {_CAPABILITY}"
            )
        return state

    def _may_write(self) -> bool:
        status = self._host.read_text("/proc/self/status")
        (effective,) = (line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
        return bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)

    def write(self, knob: Knob, place: Place, value: str) -> None:
        """Set it; raise NotWrittenError."""
        group, setting = _parts(knob)
        with _plain_failure():
            if group is None:
                _switch(place.name, dict.fromkeys(_kernel_names(setting), value == "on"))
            else:
                set_number(place.name, group, setting, int(value == "on" if _is_switch(knob) else value))

    def restore(self, knob: Knob, place: Place, before: State) -> None:
        """Put back what was read, of a feature with several parts each part; raise NotWrittenError."""
        group, setting = _parts(knob)
        if group is not None:
            self.write(knob, place, before.value)
            return
        on = before.raw.split()
        with _plain_failure():
            _switch(place.name, {name: name in on for name in _kernel_names(setting)})

    def objection(self, knob: Knob, place: Place, value: str) -> str:
        """Tell that the interface takes no such number."""
        group, setting = _parts(knob)
        if not self._host.live or group is None or f"max {setting}" not in group.fields:
            return ""
        try:
            most = get_numbers(place.name, group)[f"max {setting}"]
        except OSError:
            return ""
        return f"{place.name} has at most {most}" if int(value) > most else ""

    def shell(self, knob: Knob, place: Place, value: str) -> str | None:
        """Give the call of ethtool(8)."""
        group, setting = _parts(knob)
        return shlex.join(["ethtool", group.flag if group else "-K", place.name, setting, value])


def _parts(knob: Knob) -> tuple[Group | None, str]:
    """Give the group of numbers (None: a feature) and the setting that a knob means."""
    group, _, setting = knob.where.partition(" ")
    return GROUPS.get(group), setting


def _is_switch(knob: Knob) -> bool:
    return knob.where.startswith(("coalesce adaptive-", "pause "))


def _kernel_names(feature: str) -> tuple[str, ...]:
    return _FEATURES.get(feature, (feature,))


def _read(knob: Knob, interface: str) -> State:
    group, setting = _parts(knob)
    if group is None:
        return _read_feature(setting, interface)
    numbers = get_numbers(interface, group)
    if setting not in numbers or numbers.get(f"max {setting}") == 0:
        return State("absent", reason=f"{interface} has no {setting} of its own")
    value = ("on" if numbers[setting] else "off") if _is_switch(knob) else str(numbers[setting])
    return State("present", value, value)


def _read_feature(feature: str, interface: str) -> State:
    features = get_features(interface)
    parts = {name: features[name] for name in _kernel_names(feature) if name in features}
    if not parts:
        return State("absent", reason=f"this kernel knows no feature {feature}")
    on = [name for name, part in parts.items() if part.on]
    fixed = all(part.fixed for part in parts.values())
    return State(
        "present", "on" if on else "off", " ".join(on), not fixed, reason="fixed by the driver" if fixed else ""
    )


def _switch(interface: str, wanted: dict[str, bool]) -> None:
    features = get_features(interface)
    set_features(interface, {n: on for n, on in wanted.items() if n in features and not features[n].fixed})


@contextlib.contextmanager
def _plain_failure() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotWrittenError(_said(error)) from None


def _said(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
