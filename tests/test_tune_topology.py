"""Cores and CPU roles, on machines of all sizes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machines import make_machine, write
from tvops.profile_files import ROLES
from tvops.tuning.host import Host
from tvops.tuning.model import Core, Topology
from tvops.tuning.topology import HOT, HOT_ROLES, flat_topology, read_topology, resolve_roles
from tvops.tuning.values import parse_cpus


def cores_of(topology: Topology) -> list[tuple[int, ...]]:
    return [core.cpus for core in topology.cores]


def test_the_cores_of_a_machine_with_smt(tmp_path: Path) -> None:
    topology = read_topology(make_machine(tmp_path, cores=4, threads=2))
    assert cores_of(topology) == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert topology.nic_node is None  # one node only


def test_offline_cpus_are_left_out(tmp_path: Path) -> None:
    topology = read_topology(make_machine(tmp_path, cores=4, threads=2, offline=(1, 2, 6)))
    assert cores_of(topology) == [(0, 4), (3, 7), (5,)]


def test_nodes_and_isolated_cpus(tmp_path: Path) -> None:
    topology = read_topology(make_machine(tmp_path, cores=8, nodes=2, isolated="6-7", nic_node=1))
    assert [core.node for core in topology.cores] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [core.cpus for core in topology.cores if core.isolated] == [(6,), (7,)]
    assert topology.nic_node == 1


def test_old_kernels_name_the_siblings_otherwise(tmp_path: Path) -> None:
    host = make_machine(tmp_path, cores=2, threads=2)
    for file in tmp_path.glob("sys/devices/system/cpu/cpu*/topology/core_cpus_list"):
        file.rename(file.with_name("thread_siblings_list"))
    assert cores_of(read_topology(host)) == [(0, 2), (1, 3)]


def test_a_tree_that_says_nothing_has_one_cpu(tmp_path: Path) -> None:
    assert cores_of(read_topology(Host(tmp_path))) == [(0,)]


@pytest.mark.parametrize(
    "line, file",
    [
        ("0::/a/b", "/sys/fs/cgroup/a/b/cpuset.cpus.effective"),
        ("0::/a/b", "/sys/fs/cgroup/a/cpuset.cpus.effective"),  # the group itself has no cpuset
        ("0::/", "/sys/fs/cgroup/cpuset.cpus.effective"),  # as a container with a namespace sees it
        ("3:cpuset:/docker/1", "/sys/fs/cgroup/cpuset/docker/1/cpuset.effective_cpus"),
        ("3:cpuset:/docker/1", "/sys/fs/cgroup/cpuset/cpuset.cpus"),  # as one without sees it
        ("0::/../../x", "/sys/fs/cgroup/x/cpuset.cpus.effective"),
    ],
)
def test_the_cpuset_of_the_process_limits(tmp_path: Path, line: str, file: str) -> None:
    host = make_machine(tmp_path, cores=8)
    write(tmp_path, "/proc/self/cgroup", f"9:memory:/\n{line}\n")
    write(tmp_path, file, "2-4\n")
    assert cores_of(read_topology(host)) == [(2,), (3,), (4,)]


def test_without_a_cpuset_the_mask_of_the_process_limits_and_isolated_cpus_count(tmp_path: Path) -> None:
    host = make_machine(tmp_path, cores=8, isolated="6-7")
    write(tmp_path, "/proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-3\n")
    assert cores_of(read_topology(host)) == [(0,), (1,), (2,), (3,), (6,), (7,)]


def test_a_cpuset_that_names_no_online_cpu_is_not_believed(tmp_path: Path) -> None:
    host = make_machine(tmp_path, cores=2)
    write(tmp_path, "/proc/self/status", "Cpus_allowed_list:\t5\n")
    assert cores_of(read_topology(host)) == [(0,), (1,)]


AUTO: dict[int, dict[str, str]] = {
    1: {"housekeeping": "0", "irq": "0", "engine": "0", "market": "0", "redis": "0"},
    2: {"housekeeping": "0", "irq": "0", "engine": "1", "market": "0", "redis": "1"},
    3: {"housekeeping": "0", "irq": "0", "engine": "1", "market": "0", "redis": "2"},
    4: {"housekeeping": "0", "irq": "0", "engine": "1", "market": "2", "redis": "3"},
    5: {"housekeeping": "4", "irq": "0", "engine": "1", "market": "2", "redis": "3"},
    8: {"housekeeping": "5-7", "irq": "0", "engine": "1", "market": "2", "redis": "3-4"},
    64: {"housekeeping": "8-63", "irq": "0,5-7", "engine": "1", "market": "2", "redis": "3-4"},
}


@pytest.mark.parametrize("count", AUTO)
def test_roles_of_machines_without_smt(count: int) -> None:
    roles = resolve_roles(flat_topology(range(count)), {})
    assert {role: roles[role] for role in ROLES} == {r: parse_cpus(text) for r, text in AUTO[count].items()}


def test_a_hot_role_has_its_core_to_itself(tmp_path: Path) -> None:
    roles = resolve_roles(read_topology(make_machine(tmp_path, cores=8, threads=2)), {})
    assert (roles["engine"], roles["market"], roles["redis"]) == ((1, 9), (2, 10), (3, 4, 11, 12))
    assert roles["irq"] == (0, 8)
    assert roles[HOT] == (1, 2, 3, 4, 9, 10, 11, 12)


def test_two_threads_of_one_core_are_shared(tmp_path: Path) -> None:
    roles = resolve_roles(read_topology(make_machine(tmp_path, cores=1, threads=2)), {})
    assert set(roles.values()) == {(0, 1)}


def test_roles_are_near_the_interface(tmp_path: Path) -> None:
    roles = resolve_roles(read_topology(make_machine(tmp_path, cores=16, nodes=2, nic_node=1)), {})
    assert (roles["engine"], roles["market"], roles["redis"], roles["irq"]) == ((8,), (9,), (10, 11), (12,))
    assert roles["housekeeping"] == (0, 1, 2, 3, 4, 5, 6, 7, 13, 14, 15)


def test_interrupts_of_a_big_machine_get_a_core_for_every_sixteen_near_the_interface(tmp_path: Path) -> None:
    roles = resolve_roles(read_topology(make_machine(tmp_path, cores=128, nodes=2, nic_node=1)), {})
    assert len(roles["irq"]) == 4
    assert min(roles["irq"]) >= 64


def test_hot_roles_take_isolated_cores(tmp_path: Path) -> None:
    topology = read_topology(make_machine(tmp_path, cores=8, isolated="5-7"))
    roles = resolve_roles(topology, {"redis": 1})
    assert (roles["engine"], roles["market"], roles["redis"]) == ((5,), (6,), (7,))
    assert roles["housekeeping"] == (1, 2, 3, 4)


def test_isolated_cores_that_nobody_takes_stay_free(tmp_path: Path) -> None:
    topology = read_topology(make_machine(tmp_path, cores=16, isolated="8-15"))
    assert resolve_roles(topology, {})["housekeeping"] == tuple(range(1, 8))


def test_numbers_shrink_where_cores_are_short() -> None:
    wanted = {"housekeeping": 4, "irq": 4, "engine": 4, "market": 4, "redis": 4}
    roles = resolve_roles(flat_topology(range(8)), wanted)
    assert sorted(len(roles[role]) for role in ROLES) == [1, 1, 2, 2, 2]
    assert len({cpu for role in ROLES for cpu in roles[role]}) == 8


def test_what_a_list_takes_the_others_do_not_get() -> None:
    roles = resolve_roles(flat_topology(range(8)), {"engine": "cpus:0-1,9", "redis": 1})
    assert roles["engine"] == (0, 1)
    assert all(not {0, 1} & set(roles[role]) for role in ROLES if role != "engine")


def test_all_means_no_place_of_its_own() -> None:
    roles = resolve_roles(flat_topology(range(8)), dict.fromkeys(ROLES, "all"))
    assert set(roles.values()) == {tuple(range(8))}


def test_a_list_of_cpus_that_are_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="engine: none of cpus:8-9 can be used on this host; there are 0-3"):
        resolve_roles(flat_topology(range(4)), {"engine": "cpus:8-9"})


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Any machine: numbered any way, with cores of one to four threads, some of them offline."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=24))
    numbers = draw(st.permutations(range(sum(sizes) * 2)))
    cores, at = [], 0
    for size in sizes:
        cpus = tuple(sorted(numbers[at : at + size]))
        cores.append(Core(cpus, draw(st.integers(0, 3)), draw(st.booleans())))
        at += size
    cores.sort(key=lambda core: core.cpus)
    return Topology(cores=tuple(cores), nic_node=draw(st.none() | st.integers(0, 3)))


POLICIES = st.integers(1, 40) | st.sampled_from(["auto", "all"])


@settings(max_examples=50)
@given(topologies(), st.dictionaries(st.sampled_from(ROLES), POLICIES))
def test_any_machine_and_any_wish_has_all_roles(topology: Topology, wanted: dict[str, int | str]) -> None:
    roles = resolve_roles(topology, wanted)
    every = {cpu for core in topology.cores for cpu in core.cpus}
    assert set(roles) == {*ROLES, HOT}
    for cpus in roles.values():
        assert cpus
        assert set(cpus) <= every
        assert list(cpus) == sorted(set(cpus))
    assert roles == resolve_roles(topology, wanted)  # the same every time


@settings(max_examples=50)
@given(topologies(), st.dictionaries(st.sampled_from(ROLES), st.integers(1, 40) | st.just("auto")))
def test_roles_are_apart_where_there_are_cores_enough(topology: Topology, wanted: dict[str, int | str]) -> None:
    roles = resolve_roles(topology, wanted)
    whole = {core.cpus for core in topology.cores}

    def apart(names: Sequence[str]) -> bool:
        return sum(len(roles[name]) for name in names) == len({cpu for name in names for cpu in roles[name]})

    if len(topology.cores) >= 5:
        assert apart(ROLES)
    if len(topology.cores) >= 4:
        assert apart(HOT_ROLES)
        assert not set(roles["housekeeping"]) & set(roles[HOT])
    for role in HOT_ROLES:  # whole cores: no sibling is somebody else's
        assert all(set(core) <= set(roles[role]) or not set(core) & set(roles[role]) for core in whole)
