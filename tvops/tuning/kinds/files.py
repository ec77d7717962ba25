"""Knobs that are files: sysctls, and everything below /proc and /sys.

What is treacherous about putting a value back is dealt with in `restore`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
from collections.abc import Mapping

from tvops.tuning.host import Host
from tvops.tuning.kinds.places import expand
from tvops.tuning.model import Knob, NotWrittenError, Place, State
from tvops.tuning.values import format_cpus, normalise, parse_cpus, written

_IRQ_AFFINITY = re.compile(r"/proc/irq/\d+/smp_affinity(_list)?")
_MANAGED = "the kernel manages this interrupt itself (managed IRQ)"

# Of each pair one counts and the other reads as 0. Writing that 0 back is refused, or leaves neither in force.
_COUNTERPART = {
    "vm.dirty_bytes": "vm.dirty_ratio",
    "vm.dirty_ratio": "vm.dirty_bytes",
    "vm.dirty_background_bytes": "vm.dirty_background_ratio",
    "vm.dirty_background_ratio": "vm.dirty_background_bytes",
}

_REASONS = {
    errno.EACCES: "read-only here",
    errno.EBUSY: "it is in use",
    errno.EINVAL: "the kernel refuses the value",
    errno.EIO: "the device refuses it",
    errno.ENODEV: "the device is gone",
    errno.ENOENT: "no such file any more",
    errno.ENOMEM: "the kernel has no memory for it",
    errno.ENOSPC: "there is no room for it, e.g. no interrupt vector left on these CPUs",
    errno.EOPNOTSUPP: "the device does not support it",
    errno.EPERM: "the kernel does not permit it here",
    errno.ERANGE: "the value is out of range",
    errno.EROFS: "the file system is mounted read-only",
}


class FileDriver:
    """Reads and writes the knobs of the kinds sysctl and file."""

    def __init__(self, host: Host, catalogue: Mapping[str, Knob]) -> None:
        """Take the host, and the catalogue to find coupled knobs in."""
        self.host = host
        self._catalogue = catalogue

    def places(self, knob: Knob) -> list[Place]:
        """Give the existing files of a knob."""
        return expand(self.host, path_of(knob))

    def read(self, knob: Knob, place: Place) -> State:
        """Tell what a file shows, whether it can be written, and what its coupled files show."""
        try:
            raw = self.host.read_text(place.address)
        except PermissionError:
            return State("denied", writable=False, reason="cannot be read by this user")
        except (FileNotFoundError, NotADirectoryError):
            there = self.host.exists(place.address)  # xps_cpus of an interface with one queue
            return State("absent", reason="the device does not have it" if there else "not on this host")
        except OSError as error:
            reason = "the device does not have it" if error.errno in _NOT_THERE else _said(error)
            return State("absent", reason=reason)
        fixed = self._fixed(place.address)
        allowed = not fixed and os.access(self.host.path(place.address), os.W_OK)
        return State(
            "present", normalise(knob.type, raw), raw, allowed, needs="" if fixed or allowed else "root",
            reason=fixed or ("" if allowed else "needs root"), coupled=self._coupled(knob),
        )  # fmt: skip

    def _fixed(self, address: str) -> str:
        """Tell why nobody can write a file; empty where somebody can."""
        path = self.host.path(address)
        try:
            writable = bool(path.stat().st_mode & 0o222)
        except OSError as error:
            return _said(error)
        if not writable:
            return _MANAGED if self.host.live and _IRQ_AFFINITY.fullmatch(address) else "read-only here"
        return "read-only here" if os.geteuid() == 0 and not os.access(path, os.W_OK) else ""

    def _coupled(self, knob: Knob) -> dict[str, str]:
        shown = {}
        for other in (self._catalogue[name] for name in knob.coupled if name in self._catalogue):
            if other.kind in ("sysctl", "file") and "{" not in other.where:
                with contextlib.suppress(OSError):
                    shown[other.id] = normalise(other.type, self.host.read_text(path_of(other)))
        return shown

    def write(self, knob: Knob, place: Place, value: str) -> None:
        """Write a canonical value; raise NotWrittenError with the reason in plain words."""
        self._put(place.address, written(knob, value) + "\n", value)

    def restore(self, knob: Knob, place: Place, before: State) -> None:
        """Put back what was read; raise NotWrittenError.

        A tree gets the very bytes back. On a running host a selector is put back by its token (the text that was
        read would select something else), and of two knobs that exclude each other the one that counted.
        """
        if not self.host.live:
            self._put(place.address, before.raw, before.value)
            return
        if _unset_key(place.address, before.value):
            raise NotWrittenError("it was unset, and reads as zeros: to write those would set a key of zeros")
        other = _COUNTERPART.get(knob.id, "")
        if before.value == "0" and before.coupled.get(other, "0") != "0":
            self._put(path_of(self._catalogue[other]), before.coupled[other] + "\n", before.coupled[other])
            return
        text = before.value if knob.type == "choice" else before.raw.rstrip("\n")
        if place.address.endswith(".partition"):
            text = text.split(" invalid")[0]  # "isolated invalid (Cpu list in cpuset.cpus is empty)"
        self._put(place.address, text + "\n", before.value)

    def _put(self, address: str, text: str, value: str) -> None:
        try:
            self.host.write_text(address, text)
        except OSError as error:
            raise NotWrittenError(self._refusal(error, address, value)) from None

    def _refusal(self, error: OSError, address: str, value: str) -> str:
        if error.errno in (errno.EPERM, errno.EIO) and _IRQ_AFFINITY.fullmatch(address):
            return _MANAGED
        if error.errno == errno.ENOENT and self.host.exists(address):
            return f"this kernel has no {value}: its module is missing, or there is no such name"
        if error.errno == errno.EINVAL:
            return f"the kernel refuses the value {value}"
        return _said(error)

    def objection(self, knob: Knob, place: Place, value: str) -> str:
        """Tell what the kernel would take without a word and should not be given."""
        if knob.type in ("cpulist", "cpumask"):
            return self._cpu_objection(place.address, value)
        if knob.id in _COUNTERPART and value == "0":
            return f"0 puts nothing in force; set {_COUNTERPART[knob.id]} instead"
        if place.address.endswith("nr_hugepages"):
            return self._memory_objection(int(value) * self._huge_page_kbytes(place.address), 50)
        if place.address == "/proc/sys/vm/min_free_kbytes":
            return self._memory_objection(int(value), 10)
        if place.address == "/proc/sys/kernel/sched_rt_runtime_us" and value == "-1":
            return "without this limit one spinning real-time task takes its CPU for good"
        if _unset_key(place.address, self._text(place.address).strip()):
            return "it is unset, and what is unset cannot be put back"
        return ""

    def _text(self, address: str) -> str:
        """Read a file that may not be there."""
        try:
            return self.host.read_text(address)
        except OSError:
            return ""

    def _cpu_objection(self, address: str, value: str) -> str:
        if not value:
            return "an interrupt needs a CPU" if _IRQ_AFFINITY.fullmatch(address) else ""
        online = frozenset(parse_cpus(self._text("/sys/devices/system/cpu/online")))
        missing = tuple(cpu for cpu in parse_cpus(value) if cpu not in online)
        return f"CPU {format_cpus(missing)} is not online" if online and missing else ""

    def _memory_objection(self, kbytes: int, percent: int) -> str:
        total = self._meminfo("MemTotal")
        if total and kbytes * 100 > total * percent:
            return f"{kbytes} kB are more than {percent} % of this host's memory ({total} kB)"
        return ""

    def _huge_page_kbytes(self, address: str) -> int:
        size = re.search(r"hugepages-(\d+)kB", address)
        return int(size[1]) if size else self._meminfo("Hugepagesize")

    def _meminfo(self, name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB$", self._text("/proc/meminfo"), re.MULTILINE)
        return int(found[1]) if found else 0

    def shell(self, knob: Knob, place: Place, value: str) -> str | None:
        """Give the command that brings it there, for a plain POSIX shell."""
        address = place.address
        other = self._catalogue.get(_COUNTERPART.get(knob.id, ""))
        if value == "0" and other is not None:
            counts = normalise(other.type, self._text(path_of(other)))
            if counts in ("", "0"):
                return None
            address, value = path_of(other), counts
        try:
            text = shlex.quote(written(knob, value))
        except ValueError:  # what it shows is no value of its type
            return None
        return f"printf '%s\\n' {text} > {shlex.quote(str(self.host.path(address)))}"


_NOT_THERE = (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV, errno.ENXIO)


def path_of(knob: Knob) -> str:
    """Give the path (or its template) of a knob of the kinds sysctl and file."""
    return sysctl_path(knob.where) if knob.kind == "sysctl" else knob.where


def sysctl_path(key: str) -> str:
    """Give the file of a sysctl key, by the convention of sysctl(8).

    The first of `.` and `/` in it separates its parts, and the other one then stands for a dot in a name:
    `net.ipv4.conf.eth0/1.rp_filter` and `net/ipv4/conf/eth0.1/rp_filter` are the same file.
    """
    first = re.search(r"[./]", key)
    if first and first[0] == ".":
        key = key.translate(str.maketrans("./", "/."))
    return f"/proc/sys/{key}"


def _unset_key(address: str, value: str) -> bool:
    return address == "/proc/sys/net/ipv4/tcp_fastopen_key" and not value.strip("0-,")


def _said(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
