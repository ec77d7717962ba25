"""Where the knobs of a template are: `/proc/irq/{irq}/smp_affinity_list` -> irq24, irq25, …

`{cpu}`, `{irq}`, `{node}`, `{nic}`, `{block}` and `{queue}` stand for names within one component of a path; a
place is named after them: `cpu3`, `irq24`, `node0`, `eth0`, `vda`, `eth0-rx-0`. An interface counts if it has a
device. Where none has one (a container, a network namespace), every one but `lo` counts. Loop, RAM and zram
devices do not count as block devices.
"""

from __future__ import annotations

import re
import socket

from tvops.tuning.host import Host, is_text
from tvops.tuning.model import Place

_HOLDER = re.compile(r"\{(\w+)\}")
_NUMBERED = ("cpu", "irq", "node")  # `{cpu}` and `cpu{cpu}` both find cpu3
_NO_DISK = re.compile(r"(loop|ram|zram)\d+")


def expand(host: Host, template: str) -> list[Place]:
    """Give the places of an absolute path with such names in braces, in the order of their numbers."""
    found: list[tuple[str, tuple[str, ...]]] = [("", ())]
    for component in template.split("/")[1:]:
        if holder := _HOLDER.search(component):
            found = [
                (f"{folder}/{entry}", (*names, name))
                for folder, names in found
                for entry, name in _entries(host, folder, component, holder)
            ]
        else:
            found = [(f"{folder}/{component}", names) for folder, names in found]
    found = [(path, names) for path, names in found if host.exists(path)]
    return [Place(path, "-".join(names)) for path, names in sorted(found, key=lambda f: _by_number(f[0]))]


def _entries(host: Host, folder: str, component: str, holder: re.Match[str]) -> list[tuple[str, str]]:
    """Give the entries of a directory that fit a component of the template, and what a place is called by them."""
    kind = holder[1]
    names = f"(?:{kind})?(\\d+)" if kind in _NUMBERED else "(.+)"
    pattern = re.compile(re.escape(component[: holder.start()]) + names + re.escape(component[holder.end() :]))
    fitting = [(entry, match[1]) for entry in host.listdir(folder) if (match := pattern.fullmatch(entry))]
    if kind in _NUMBERED:
        return [(entry, f"{kind}{number}") for entry, number in fitting]
    if kind == "nic":
        shown = interfaces(host)
        if folder.startswith("/sys/"):
            shown = [name for name in shown if _in_sysfs(host, name)]
        return [(entry, name) for entry, name in fitting if name in shown]
    if kind == "block":
        return [(entry, name) for entry, name in fitting if not _NO_DISK.fullmatch(name)]
    return [(entry, entry) for entry, _ in fitting]


def _by_number(path: str) -> list[tuple[int, str]]:
    return [(int(number or 0), text) for text, number in re.findall(r"(\D+)(\d*)", path)]


def interfaces(host: Host) -> list[str]:
    """Give the network interfaces that tuning means (see above), sorted."""
    names = [name for _, name in socket.if_nameindex()] if host.live else host.listdir("/sys/class/net")
    names = sorted(name for name in names if name not in ("lo", "bonding_masters") and is_text(name))
    real = [name for name in names if _in_sysfs(host, name) and host.exists(f"/sys/class/net/{name}/device")]
    return real or names


def _in_sysfs(host: Host, name: str) -> bool:
    """Whether /sys shows this very interface: a new network namespace may still see the /sys of the old one."""
    if not host.live:
        return True
    try:
        return int(host.read_text(f"/sys/class/net/{name}/ifindex")) == socket.if_nametoindex(name)
    except (OSError, ValueError):
        return False
