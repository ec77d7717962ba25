"""Trees of files that stand for machines: CPUs, NUMA nodes, memory, interfaces, hypervisor, container."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tvops.tuning.host import Host

GIB = 1 << 30


def write(root: Path, path: str, text: str) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def make_machine(
    root: Path,
    *,
    cores: int = 4,
    threads: int = 1,
    nodes: int = 1,
    offline: Sequence[int] = (),
    isolated: str = "",
    kernel: str = "6.18.1",
    memory: int = 16 * GIB,
    virtual: str = "",
    container: str = "",
    driver: str = "ixgbe",
    nic_node: int = -1,
) -> Host:
    """Lay out a machine whose CPU n is thread n // cores of core n % cores, as on most servers."""
    count = cores * threads
    cpus = [cpu for cpu in range(count) if cpu not in offline]
    cpu_folder = "/sys/devices/system/cpu"
    write(root, f"{cpu_folder}/online", ",".join(map(str, cpus)) + "\n")
    write(root, f"{cpu_folder}/isolated", f"{isolated}\n")
    for cpu in cpus:
        siblings = [other for other in cpus if other % cores == cpu % cores]
        write(root, f"{cpu_folder}/cpu{cpu}/topology/core_cpus_list", ",".join(map(str, siblings)) + "\n")
    for node in range(nodes):
        inside = [cpu for cpu in cpus if (cpu % cores) * nodes // cores == node]
        write(root, f"/sys/devices/system/node/node{node}/cpulist", ",".join(map(str, inside)) + "\n")
    flags = "fpu hypervisor" if virtual else "fpu"
    write(root, "/proc/cpuinfo", f"processor\t: 0\nmodel name\t: Model 1\nflags\t\t: {flags}\n")
    write(root, "/proc/sys/kernel/osrelease", f"{kernel}\n")
    write(root, "/proc/meminfo", f"MemTotal:       {memory // 1024} kB\nMemFree: 1 kB\n")
    if virtual:
        write(root, "/sys/class/dmi/id/sys_vendor", f"{virtual}\n")
    if container:
        write(root, "/run/systemd/container", container)
    add_nic(root, "eth0", driver, nic_node)
    write(root, "/sys/class/net/lo/mtu", "65536\n")
    return Host(root)


def add_nic(root: Path, name: str, driver: str, node: int = -1) -> None:
    write(root, f"/sys/class/net/{name}/device/numa_node", f"{node}\n")
    (root / f"sys/class/net/{name}/device/driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")
