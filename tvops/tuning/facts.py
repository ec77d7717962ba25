"""What kind of machine a host is: read from files below its root, so that a tree of files can be any machine.

Where a tree has no word of kernel or memory, those of the running machine are taken.
"""

from __future__ import annotations

import os
import re

from tvops.tuning.cgroups import cgroup_folders, read_lines, read_word
from tvops.tuning.host import Host
from tvops.tuning.model import Facts
from tvops.tuning.topology import read_topology

_DMI = "/sys/class/dmi/id"
_CAP_SYS_ADMIN = 21
_WHOLE_USER_NAMESPACE = ["0", "0", "4294967295"]
_HYPERVISORS = (  # what the firmware says of itself -> name
    ("vmware", "vmware"),
    ("virtualbox", "virtualbox"),
    ("innotek", "virtualbox"),
    ("parallels", "parallels"),
    ("bhyve", "bhyve"),
    ("xen", "xen"),
    ("microsoft corporation virtual machine", "hyperv"),
    ("kvm", "kvm"),
    ("qemu", "kvm"),
    ("amazon ec2", "kvm"),
    ("google compute engine", "kvm"),
    ("openstack", "kvm"),
    ("digitalocean", "kvm"),
    ("hetzner vserver", "kvm"),
    ("apple virtualization", "apple"),
)
_CONTAINER_GROUPS = (
    (re.compile(r"kubepods"), "kubernetes"),
    (re.compile(r"/docker[/-]"), "docker"),
    (re.compile(r"libpod"), "podman"),
    (re.compile(r"/lxc[./]"), "lxc"),
)


def read_facts(host: Host) -> Facts:
    """Read what guards and values of a profile depend on, for the process that asks; roles are left empty."""
    topology = read_topology(host)
    release = read_word(host, "/proc/sys/kernel/osrelease") or os.uname().release
    return Facts(
        kernel=parse_release(release),
        release=release,
        virtual=read_hypervisor(host),
        container=read_container(host),
        memory_bytes=read_memory(host),
        page_size=os.sysconf("SC_PAGE_SIZE"),
        cpus=tuple(sorted(cpu for core in topology.cores for cpu in core.cpus)),
        topology=topology,
        numa_nodes=len(host.glob("/sys/devices/system/node/node[0-9]*")) or 1,
        smt=any(len(core.cpus) > 1 for core in topology.cores),
        nics=read_nics(host),
        privileged=_is_privileged(host),
    )


def parse_release(release: str) -> tuple[int, int, int]:
    """Read `6.18.44-fc` as (6, 18, 44); what is not a number counts as 0."""
    match = re.match(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?", release)
    first, second, third = (int(group or 0) for group in match.groups()) if match else (0, 0, 0)
    return first, second, third


def read_hypervisor(host: Host) -> str:
    """Give the hypervisor below this host; empty on bare metal."""
    flags = next((line for line in read_lines(host, "/proc/cpuinfo") if line.startswith("flags")), None)
    if read_word(host, "/sys/hypervisor/type") == "xen":
        # The first domain runs the hypervisor's machine, and sees its hardware.
        return "" if "control_d" in read_word(host, "/proc/xen/capabilities") else "xen"
    if flags is not None and "hypervisor" not in flags.split():
        return ""
    firmware = " ".join(
        read_word(host, f"{_DMI}/{name}") for name in ("sys_vendor", "product_name", "bios_vendor")
    )
    if _is_firecracker(host):
        return "firecracker"
    if name := next((name for mark, name in _HYPERVISORS if mark in firmware.lower()), ""):
        metal = flags is None and ".metal" in firmware
        return "" if metal else name
    return "kvm" if flags is not None else _from_device_tree(host)


def _is_firecracker(host: Host) -> bool:
    # It has no DMI; its tables are for root only, and older versions have none.
    if "firecracker" in read_word(host, "/proc/cmdline"):
        return True
    try:
        path = host.path("/sys/firmware/acpi/tables/FACP")
        if not path.is_file():
            return False
        with path.open("rb") as table:
            return b"FIRECK" in table.read(64)
    except OSError:
        return False


def _from_device_tree(host: Host) -> str:
    compatible = read_word(host, "/proc/device-tree/hypervisor/compatible").strip("\0")
    return compatible.partition(",")[2] or compatible


def read_container(host: Host) -> str:
    """Give what kind of container this host is; empty where it is none."""
    if name := read_word(host, "/run/systemd/container") or read_word(host, "/run/host/container-manager"):
        return name
    if host.exists("/run/.containerenv"):
        return "podman"
    if host.exists("/.dockerenv"):
        return "docker"
    for variable in read_word(host, "/proc/1/environ").split("\0"):
        if variable.startswith("container="):
            return variable.partition("=")[2] or "unknown"
    groups = read_word(host, "/proc/1/cgroup")
    return next((name for mark, name in _CONTAINER_GROUPS if mark.search(groups)), "")


def read_memory(host: Host) -> int:
    """Give the bytes of memory that this process may use: the host's, or the least limit of its control groups."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in read_lines(host, "/proc/meminfo"):
        if match := re.fullmatch(r"MemTotal:\s+(\d{1,18}) kB", line.strip()):
            total = int(match[1]) * 1024
    limits = [
        int(limit)
        for folder in cgroup_folders(host, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if re.fullmatch(r"[0-9]{1,20}", limit := read_word(host, f"{folder}/{name}"))
    ]
    return min([total, *(limit for limit in limits if limit > 0)])


def read_nics(host: Host) -> dict[str, str]:
    """Give the interfaces that have a device behind them (no bridges, no veth), with their drivers."""
    return {
        folder.split("/")[4]: _driver(host, f"{folder}/driver") for folder in host.glob("/sys/class/net/*/device")
    }


def _driver(host: Host, link: str) -> str:
    try:
        return host.readlink(link).rpartition("/")[2]
    except OSError:
        return ""


def _is_privileged(host: Host) -> bool:
    if not host.live:
        return os.access(host.root, os.W_OK)
    capabilities = 0
    for line in read_lines(host, "/proc/self/status"):
        if line.startswith("CapEff:"):
            capabilities = int(line.partition(":")[2], 16)
    return (
        os.geteuid() == 0
        and read_word(host, "/proc/self/uid_map").split() == _WHOLE_USER_NAMESPACE
        and bool(capabilities >> _CAP_SYS_ADMIN & 1)
    )
