"""The machine itself: who else tunes it, where data lies, and what only its owner can change."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tvops.settings import Settings
from tvops.tuning.doctor.finding import Finding
from tvops.tuning.host import Host
from tvops.tuning.model import Facts

RIVALS = {
    "irqbalance": "moves interrupts back to the cores that were kept free",
    "tuned": "applies its own profile again whenever it starts",
    "bpftune": "changes the same network settings by itself",
    "power-profiles-daemon": "changes the CPU frequency policy",
}
VOLATILE = {"tmpfs", "ramfs"}
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"}
LOW_DISK_BYTES = 1 << 30


def rivals(host: Host) -> list[Finding]:
    """Find running programs that change the settings which tvops sets."""
    findings = []
    for path in host.glob("/proc/[0-9]*/comm"):
        try:
            name = host.read_text(path).strip()
        except OSError:
            continue  # the process has ended
        if name in RIVALS:
            pid = path.split("/")[2]
            findings.append(
                Finding(
                    severity="warning",
                    about=f"rival.{name}",
                    what=f"{name} runs (pid {pid})",
                    why=f"it {RIVALS[name]}",
                    fix=f"systemctl disable --now {name}",
                )
            )
    return findings


def storage(settings: Settings) -> list[Finding]:
    """Look at what the data directory lies on: a ledger in memory is lost with the power."""
    folder = settings.data_path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    kind = _file_system(folder)
    findings = []
    if kind in VOLATILE:
        findings.append(
            Finding(
                severity="critical",
                about="data_dir.volatile",
                what=f"the data directory {settings.data_path} lies on {kind}, which is memory",
                why="acknowledged orders are lost with the power",
                fix="tvops serve --data-dir DIR on a disk",
            )
        )
    elif kind in REMOTE:
        findings.append(
            Finding(
                severity="warning",
                about="data_dir.remote",
                what=f"the data directory {settings.data_path} lies on {kind}, a network file system",
                why="every order waits for the network's fsync",
                fix="tvops serve --data-dir DIR on a local disk",
            )
        )
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < LOW_DISK_BYTES:
        findings.append(
            Finding(
                severity="critical",
                about="data_dir.full",
                what=f"only {free >> 20} MiB are free for the data directory {settings.data_path}",
                why="orders are refused once the ledger cannot grow",
                fix="free space there, or choose another disk with --data-dir",
            )
        )
    return findings


def _file_system(folder: Path) -> str:
    """Name the file system of a folder, by the longest mount point above it (proc_pid_mountinfo(5))."""
    where = str(folder.resolve())
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), head.split()[4])
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, tail.split()[0]
    return kind


ADVICE = {
    "hypervisor": (
        "its CPUs are threads of another kernel, which may take them away",
        "ask for dedicated, pinned CPUs, a placement group and SR-IOV networking",
    ),
    "firmware": (
        "an efficiency profile there undoes the governor's work",
        "choose the maximum performance profile in the BIOS or UEFI setup",
    ),
    "smt": (
        "a busy sibling halves a core's cache and execution units",
        "switch SMT off in the firmware, or keep the siblings of hot cores idle",
    ),
    "numa": (
        "memory of the other node is up to twice as far away",
        "put the network card and the stack on one node (process.numa_node)",
    ),
    "thermal": ("a slowed core misses its targets", "look at fans, filters and the power limit"),
    "nic": ("all its packets go through one CPU", "use a server card (ice, mlx5_core, bnxt_en, ena, …)"),
}
SINGLE_QUEUE_DRIVERS = {"e1000", "e1000e", "r8169", "8139cp"}


def advice(host: Host, facts: Facts) -> list[Finding]:
    """List what software cannot change: firmware, threads per core, heat, the network card, the hypervisor."""
    throttled = 0
    for path in host.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"):
        throttled += int(host.read_text(path).strip() or 0)
    slow = ", ".join(sorted(nic for nic, driver in facts.nics.items() if driver in SINGLE_QUEUE_DRIVERS))
    seen = {
        "hypervisor": facts.virtual and f"this is a virtual machine ({facts.virtual})",
        "firmware": not facts.virtual
        and "the firmware decides on C-states, turbo and power before the kernel does",
        "smt": facts.smt and "two hardware threads share each core",
        "numa": facts.numa_nodes > 1 and f"there are {facts.numa_nodes} memory nodes",
        "thermal": throttled and f"cores were slowed down by heat {throttled} times since boot",
        "nic": slow and f"{slow}: a network card without several hardware queues",
    }
    return [
        Finding(severity="advice", about=name, what=str(what), why=ADVICE[name][0], fix=ADVICE[name][1])
        for name, what in seen.items()
        if what
    ]
