"""The CPUs of a host, and which of them play which role.

The order in which roles get cores:

    1 core    everybody shares it
    2 cores   housekeeping irq market | engine redis
    3 cores   housekeeping irq market | engine | redis
    4 cores   housekeeping irq | engine | market | redis
    5 and up  each its own; what is left is for housekeeping

An order goes from the engine to Redis and back, one after the other: where cores are short these two share.
A hot role gets whole cores, so that nobody else runs on the SMT sibling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tvops.profile_files import ROLES
from tvops.tuning.cgroups import cgroup_folders, read_word
from tvops.tuning.host import Host
from tvops.tuning.model import Core, Topology
from tvops.tuning.values import format_cpus, parse_cpus

HOT_ROLES = ("engine", "market", "redis")
HOT = "hot"  # all of them together
CORES_PER_IRQ_CORE = 16  # as Seastar's perftune has it
_CPU = "/sys/devices/system/cpu"
_GROUPS: dict[int, tuple[tuple[str, ...], ...]] = {
    1: (("housekeeping", "irq", "engine", "market", "redis"),),
    2: (("housekeeping", "irq", "market"), ("engine", "redis")),
    3: (("housekeeping", "irq", "market"), ("engine",), ("redis",)),
    4: (("housekeeping", "irq"), ("engine",), ("market",), ("redis",)),
    5: (("housekeeping",), ("irq",), ("engine",), ("market",), ("redis",)),
}


def read_topology(host: Host) -> Topology:
    """Read the cores with the CPUs that are online and in the cpuset of this process.

    A tree of files that says nothing of CPUs has CPU 0.
    """
    online = _cpus(host, f"{_CPU}/online") or (0,)
    isolated = set(_cpus(host, f"{_CPU}/isolated"))
    usable = (set(online) & _allowed(host, isolated)) or set(online)
    nodes = {
        cpu: int(node[1])
        for name in host.listdir("/sys/devices/system/node")
        if (node := re.fullmatch(r"node([0-9]{1,9})", name))
        for cpu in _cpus(host, f"/sys/devices/system/node/{name}/cpulist")
    }
    cores: dict[tuple[int, ...], Core] = {}
    for cpu in sorted(usable):
        siblings = tuple(sorted(set(_siblings(host, cpu)) & usable)) or (cpu,)
        cores.setdefault(siblings, Core(siblings, nodes.get(cpu, 0), cpu in isolated))
    ordered = sorted(cores.values(), key=lambda core: core.cpus)
    return Topology(cores=tuple(ordered), nic_node=_nic_node(host) if len(set(nodes.values())) > 1 else None)


def _cpus(host: Host, path: str) -> tuple[int, ...]:
    return _parsed(read_word(host, path))


def _parsed(text: str) -> tuple[int, ...]:
    try:
        return parse_cpus(text)
    except ValueError:
        return ()


def _siblings(host: Host, cpu: int) -> tuple[int, ...]:
    folder = f"{_CPU}/cpu{cpu}/topology"
    siblings = _cpus(host, f"{folder}/core_cpus_list") or _cpus(host, f"{folder}/thread_siblings_list")
    return siblings if cpu in siblings else (cpu,)


def _allowed(host: Host, isolated: set[int]) -> set[int]:
    """Give the CPUs of the process's cpuset.

    The process's own mask does not do: isolcpus keeps the isolated ones out of it, which it may yet use.
    """
    for folder in cgroup_folders(host, "cpuset"):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            if cpus := _cpus(host, f"{folder}/{name}"):
                return set(cpus)
    for line in read_word(host, "/proc/self/status").splitlines():
        if line.startswith("Cpus_allowed_list:"):
            return set(_parsed(line.partition(":")[2])) | isolated
    return set(_cpus(host, f"{_CPU}/online"))


def _nic_node(host: Host) -> int | None:
    nodes = [read_word(host, path) for path in host.glob("/sys/class/net/*/device/numa_node")]
    return next((int(node) for node in nodes if re.fullmatch(r"[0-9]{1,9}", node)), None)


def flat_topology(cpus: Sequence[int]) -> Topology:
    """Give a topology in which every CPU is a core of its own."""
    return Topology(cores=tuple(Core((cpu,)) for cpu in cpus))


def resolve_roles(topology: Topology, wanted: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Give each role its CPUs, never none; and `hot`, all CPUs of the hot roles.

    Args:
        topology: the cores that can be used.
        wanted: role -> number of cores, ``auto``, ``all`` (no place of its own) or ``cpus:LIST``; a role that is
            not named is ``auto``. Where cores are short, numbers shrink and roles share.

    Raises:
        ValueError: ``role: message``, where none of the CPUs of a list can be used here.
    """
    every = tuple(sorted(cpu for core in topology.cores for cpu in core.cpus))
    roles: dict[str, tuple[int, ...]] = {}
    for role, policy in wanted.items():
        if policy == "all":
            roles[role] = every
        elif isinstance(policy, str) and policy.startswith("cpus:"):
            roles[role] = _listed(role, policy, every)
    listed = {cpu for role, cpus in roles.items() if wanted[role] != "all" for cpu in cpus}
    free = [core for core in topology.cores if not listed & set(core.cpus)] or list(topology.cores)
    left = [role for role in ROLES if role not in roles]
    roles |= _share_out(topology, free, left, wanted)
    hot = {cpu for role in HOT_ROLES for cpu in roles[role]}
    return {role: roles[role] for role in ROLES} | {HOT: tuple(sorted(hot))}


def _listed(role: str, policy: str, every: tuple[int, ...]) -> tuple[int, ...]:
    try:
        cpus = tuple(cpu for cpu in parse_cpus(policy.removeprefix("cpus:")) if cpu in every)
    except ValueError as error:
        raise ValueError(f"{role}: {error}") from None
    if not cpus:
        raise ValueError(f"{role}: none of {policy} can be used on this host; there are {format_cpus(every)}")
    return cpus


def _share_out(
    topology: Topology, free: list[Core], left: Sequence[str], wanted: Mapping[str, object]
) -> dict[str, tuple[int, ...]]:
    groups = [tuple(r for r in group if r in left) for group in _GROUPS[min(len(free), 5)]]
    groups = [group for group in groups if group]
    numbers = _numbers(topology, free, groups, wanted)
    pool = list(free)
    taken: dict[tuple[str, ...], list[Core]] = {}
    # Hot roles choose first, then interrupts; what is left is for housekeeping.
    for group in sorted(groups, key=lambda group: ("housekeeping" in group, "irq" in group)):
        hot = not {"housekeeping", "irq"} & set(group)
        pool.sort(key=lambda core: _distance(core, topology, hot))
        if "housekeeping" in group and not isinstance(wanted.get("housekeeping"), int):
            count = sum(not core.isolated for core in pool) or len(pool)  # all that is left
        else:
            count = numbers[group]
        taken[group], pool = pool[:count], pool[count:]
    return {
        role: tuple(sorted(cpu for core in cores for cpu in core.cpus))
        for group, cores in taken.items()
        for role in group
    }


def _distance(core: Core, topology: Topology, hot: bool) -> tuple[object, ...]:
    """Order cores for a role: the best first, of equals the one that comes first."""
    # The boot CPU can be neither tickless nor free of interrupts: it is the last choice of a hot role.
    boot = core is topology.cores[0]
    far = topology.nic_node is not None and core.node != topology.nic_node
    return (not core.isolated, boot, far, core.cpus) if hot else (core.isolated, far, core.cpus)


def _numbers(
    topology: Topology, free: list[Core], groups: Sequence[tuple[str, ...]], wanted: Mapping[str, object]
) -> dict[tuple[str, ...], int]:
    """Give each group one core, then, in turns, what it wants beyond that, as far as the cores go."""
    goals = {group: max(_goal(role, topology, wanted) for role in group) for group in groups}
    numbers = dict.fromkeys(groups, 1)
    spare = len(free) - len(groups)
    while spare > 0 and (short := [group for group in groups if numbers[group] < goals[group]]):
        for group in short[:spare]:
            numbers[group] += 1
        spare -= min(len(short), spare)
    return numbers


def _goal(role: str, topology: Topology, wanted: Mapping[str, object]) -> int:
    policy = wanted.get(role, "auto")
    if isinstance(policy, int):
        return policy
    if role == "irq":
        near = [core for core in topology.cores if topology.nic_node in (None, core.node)] or topology.cores
        sizes: dict[int, int] = {}
        for core in near:
            sizes[core.node] = sizes.get(core.node, 0) + 1
        return sum(-(-size // CORES_PER_IRQ_CORE) for size in sizes.values())
    # A server's children (snapshots, rewriting the log) must not share the one core of its main thread.
    return 2 if role == "redis" and len(topology.cores) >= 8 else 1
