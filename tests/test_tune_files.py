"""Sysctls and kernel files: below a tree for any machine, in a network namespace and here for real."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.namespaces import in_namespace
from tvops.tuning.host import Host
from tvops.tuning.kinds.files import FileDriver, sysctl_path
from tvops.tuning.kinds.places import expand, interfaces
from tvops.tuning.model import Knob, NotWrittenError, Place, State
from tvops.tuning.values import normalise


def knob(**values: Any) -> Knob:
    values = {"id": "a.b", "kind": "file", "where": "/sys/a", "type": "int", "why": "w", "source": "s"} | values
    return Knob(**values)


SOMAXCONN = knob(id="net.core.somaxconn", kind="sysctl", where="net.core.somaxconn")
RPS = knob(where="/sys/class/net/{nic}/queues/rx-{queue}/rps_cpus", type="cpumask")
IRQ = knob(where="/proc/irq/{irq}/smp_affinity_list", type="cpulist")


def make_tree(root: Path, files: dict[str, str]) -> Host:
    for path, text in files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Host(root)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.core.somaxconn", "net/core/somaxconn"),
        ("net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
        ("net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
    ],
)
def test_a_key_has_its_file_by_the_convention_of_sysctl(key: str, path: str) -> None:
    assert sysctl_path(key) == f"/proc/sys/{path}"


@pytest.mark.parametrize(
    ("template", "files", "names"),
    [
        (
            "/sys/cpu/cpu{cpu}/on",
            ["cpu0/on", "cpu10/on", "cpu2/on", "cpu3/off", "cpufreq/on"],
            ["cpu0", "cpu2", "cpu10"],
        ),
        ("/sys/cpu/{cpu}/on", ["cpu1/on"], ["cpu1"]),
        ("/sys/irq/{irq}/list", ["9/list", "24/list", "default"], ["irq9", "irq24"]),
        ("/sys/block/{block}/s", ["vda/s", "nvme0n1/s", "loop0/s", "zram0/s", "ram1/s"], ["nvme0n1", "vda"]),
        ("/sys/nodes/node{node}/n", ["node0/n", "node1/n"], ["node0", "node1"]),
        ("/sys/queues/rx-{queue}/r", ["rx-0/r", "rx-11/r", "rx-2/r", "tx-0/r"], ["rx-0", "rx-2", "rx-11"]),
        ("/sys/one", ["one"], [""]),
        ("/sys/none", ["one"], []),
    ],
)
def test_a_template_names_its_places(tmp_path: Path, template: str, files: list[str], names: list[str]) -> None:
    folder = template.rsplit("/", 2)[0] if "{" in template else "/sys"
    host = make_tree(tmp_path, {f"{folder}/{file}": "0" for file in files})
    assert [place.name for place in expand(host, template)] == names


def test_queues_are_named_after_interface_and_queue(tmp_path: Path) -> None:
    queues = ("eth0/queues/rx-0", "eth0/queues/rx-1", "eth0/queues/tx-0", "lo/queues/rx-0")
    host = make_tree(tmp_path, {f"/sys/class/net/{queue}/rps_cpus": "0\n" for queue in queues})
    path = "/sys/class/net/eth0/queues/rx-0/rps_cpus"
    assert expand(host, RPS.where)[0] == Place(path, "eth0-rx-0")
    assert [place.name for place in expand(host, RPS.where)] == ["eth0-rx-0", "eth0-rx-1"]


def test_interfaces_with_a_device_count_and_others_only_where_there_is_none(tmp_path: Path) -> None:
    host = make_tree(
        tmp_path, dict.fromkeys([f"/sys/class/net/{n}/mtu" for n in ("lo", "veth1", "docker0")], "1500")
    )
    (tmp_path / "sys/class/net/bonding_masters").write_text("\n")
    assert interfaces(host) == ["docker0", "veth1"]
    (tmp_path / "sys/class/net/eth0/device").mkdir(parents=True)
    assert interfaces(host) == ["eth0"]


def test_an_interface_with_a_dot_in_its_name_has_its_sysctl(tmp_path: Path) -> None:
    host = make_tree(
        tmp_path, {"/sys/class/net/eth0.1/mtu": "1500", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter": "1\n"}
    )
    driver = FileDriver(host, {})
    per_interface = knob(kind="sysctl", where="net.ipv4.conf.{nic}.rp_filter")
    assert driver.places(per_interface) == [Place("/proc/sys/net/ipv4/conf/eth0.1/rp_filter", "eth0.1")]


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("int", "4096\n", "4096"),
        ("ints", "4096\t131072\t6291456\n", "4096 131072 6291456"),
        ("choice", "always [madvise] never\n", "madvise"),
        ("cpumask", "00000000,0000000f\n", "0-3"),
        ("cpulist", "0,1,2,8\n", "0-2,8"),
        ("word", "n/a\n", "n/a"),
    ],
)
def test_a_read_is_canonical_and_keeps_the_bytes(tmp_path: Path, kind: Any, raw: str, value: str) -> None:
    driver = FileDriver(make_tree(tmp_path, {"/sys/a": raw}), {})
    assert driver.read(knob(type=kind), Place("/sys/a")) == State("present", value, raw)


def test_what_is_not_there_is_absent_and_what_is_fixed_says_so(tmp_path: Path) -> None:
    driver = FileDriver(make_tree(tmp_path, {"/sys/a": "1\n"}), {})
    assert driver.read(knob(), Place("/sys/none")) == State("absent", reason="not on this host")
    assert driver.read(knob(), Place("/sys/a/b")) == State("absent", reason="not on this host")
    (tmp_path / "sys/a").chmod(0o444)
    assert driver.read(knob(), Place("/sys/a")) == State("present", "1", "1\n", False, reason="read-only here")
    with pytest.raises(NotWrittenError, match=r"^read-only here$"):
        driver.write(knob(), Place("/sys/a"), "2")
    with pytest.raises(NotWrittenError, match=r"^no such file any more$"):
        driver.write(knob(), Place("/sys/none"), "2")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\xff", "is not text"), (b"x" * 70000, "is longer than 65536 bytes")]
)
def test_a_file_that_is_no_value_is_absent_with_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a").write_bytes(content)
    driver = FileDriver(Host(tmp_path), {})
    assert driver.read(knob(), Place("/a")) == State("absent", reason=reason)


@given(
    kind=st.sampled_from(["int", "ints", "choice", "word", "text", "cpulist", "cpumask"]),
    before=st.text(max_size=60).map(str.encode),
    mode=st.sampled_from([0o644, 0o600]),
    data=st.data(),
)
@settings(max_examples=80)
def test_a_write_to_a_tree_and_its_restore_leave_the_very_bytes(
    tmp_path: Path, kind: Any, before: bytes, mode: int, data: st.DataObject
) -> None:
    cpus = st.sampled_from(["", "0", "0-3,8", "63"])
    value = data.draw(cpus if kind.startswith("cpu") else st.text("ab01-_ ", min_size=1, max_size=20))
    canonical = normalise("cpulist" if kind == "cpumask" else kind, value)
    file = tmp_path / "a"
    file.write_bytes(before)
    file.chmod(mode)
    driver = FileDriver(Host(tmp_path), {})
    state = driver.read(knob(type=kind), Place("/a"))
    assert state.status == "present"
    driver.write(knob(type=kind), Place("/a"), value)
    assert driver.read(knob(type=kind), Place("/a")).value == canonical
    driver.restore(knob(type=kind), Place("/a"), state)
    assert file.read_bytes() == before
    assert file.stat().st_mode & 0o777 == mode
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


# What a network namespace shows: every state that a knob can have.

NAMESPACE = """
from tvops.tuning.host import Host
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.model import Knob, NotWrittenError

driver = FileDriver(Host(), {})

def seen(key, *values, type="int"):
    knob = Knob(id=key, kind="sysctl", where=key, type=type, why="w", source="s")
    places = driver.places(knob)
    if not places:
        return ["absent"]
    before = driver.read(knob, places[0])
    said = ["writable" if before.writable else before.reason]
    for value in values:
        try:
            driver.write(knob, places[0], value)
        except NotWrittenError as error:
            said.append(str(error))
        else:
            said.append(driver.read(knob, places[0]).value)
            driver.restore(knob, places[0], before)
            assert driver.read(knob, places[0]) == before
    return said

result = {
    "written": seen("net.core.somaxconn", "8192"),
    "vector": seen("net.ipv4.tcp_rmem", "4096 131072 16777216", type="ints"),
    "out of range": seen("net.core.somaxconn", "-5", "4294967296"),
    "read-only": seen("net.core.rmem_max", "8388608"),
    "absent": seen("net.core.busy_read"),
    "unknown algorithm": seen("net.ipv4.tcp_congestion_control", "nosuch", type="word"),
    "allowed algorithm": seen("net.ipv4.tcp_congestion_control", "reno", type="word"),
    "algorithm": seen("net.ipv4.tcp_congestion_control", "cubic", type="word"),
}
"""


@pytest.mark.parametrize("own_users", [False, True])
def test_the_states_of_sysctls_in_a_network_namespace(own_users: bool) -> None:
    shown = in_namespace(NAMESPACE, own_users=own_users)
    assert shown["written"] == ["writable", "8192"]
    assert shown["vector"] == ["writable", "4096 131072 16777216"]
    refused = "the kernel refuses the value "
    assert shown["out of range"] == ["writable", refused + "-5", refused + "4294967296"]
    assert shown["read-only"] == ["read-only here", "read-only here"]
    assert shown["absent"] == ["absent"]
    missing = "this kernel has no nosuch: its module is missing, or there is no such name"
    assert shown["unknown algorithm"] == ["writable", missing]
    assert shown["allowed algorithm"] == ["writable", "reno"]
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    if "cubic" in available and "cubic" not in allowed:
        assert shown["algorithm"] == ["writable", "the kernel does not permit it here"]


INTERFACES = """
from tvops.tuning.host import Host
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.kinds.places import interfaces
from tvops.tuning.model import Knob, NotWrittenError

subprocess.run("ip link add v0 type veth peer name v1", shell=True, check=True)
driver = FileDriver(Host(), {})

def knob(where, type="int"):
    return Knob(id="a.b", kind="file", where=where, type=type, why="w", source="s")

def tried(knob, place, value):
    before = driver.read(knob, place)
    try:
        driver.write(knob, place, value)
    except NotWrittenError as error:
        return str(error)
    after = driver.read(knob, place).value
    driver.restore(knob, place, before)
    assert driver.read(knob, place) == before
    return after

rps = knob("/sys/class/net/{nic}/queues/rx-{queue}/rps_cpus", "cpumask")
threaded = knob("/sys/class/net/{nic}/threaded")
defer = knob("/sys/class/net/{nic}/napi_defer_hard_irqs")
outer = [place.name for place in driver.places(rps)]
if subprocess.run("mount -t sysfs sysfs /sys", shell=True).returncode:
    result = {"outer": outer}
else:
    result = {
        "outer": outer,
        "interfaces": interfaces(Host()),
        "places": [place.name for place in driver.places(rps)],
        "rps": tried(rps, driver.places(rps)[0], "0"),
        "threaded": tried(threaded, driver.places(threaded)[0], "1"),
        "defer": tried(defer, driver.places(defer)[0], "2"),
    }
"""


def test_queues_of_a_namespace_are_its_own_and_never_those_of_the_host() -> None:
    shown = in_namespace(INTERFACES)
    # Before /sys is mounted anew it shows the host's interfaces, which must not be taken for ours.
    assert shown.pop("outer") == []
    if not shown:
        pytest.skip("sysfs cannot be mounted here")
    assert shown["interfaces"] == ["v0", "v1"]
    assert shown["places"] == ["v0-rx-0", "v1-rx-0"]
    assert (shown["rps"], shown["defer"]) == ("0", "2")
    assert shown["threaded"] == "the device does not support it"


def test_a_value_reaches_the_shell_as_one_word(tmp_path: Path) -> None:
    host = make_tree(tmp_path, {"/proc/sys/net/core/somaxconn": "1\n", "/sys/o'dd dir/a": "1\n"})
    driver = FileDriver(host, {})
    odd = knob(where="/sys/o'dd dir/a", type="text")
    for each, value in ((SOMAXCONN, "4096"), (odd, "it's $HOME `id` \\n %s")):
        (place,) = driver.places(each)
        command = driver.shell(each, place, value)
        assert command is not None
        assert os.waitstatus_to_exitcode(os.system(command)) == 0
        assert (tmp_path / place.address.lstrip("/")).read_text() == value + "\n"
    assert FileDriver(Host(), {}).shell(SOMAXCONN, Place("/proc/sys/net/core/somaxconn"), "4096") == (
        "printf '%s\\n' 4096 > /proc/sys/net/core/somaxconn"
    )


MACHINE = {
    "/sys/devices/system/cpu/online": "0-3\n",
    "/proc/irq/24/smp_affinity_list": "0-3\n",
    "/sys/class/net/eth0/queues/rx-0/rps_cpus": "0\n",
    "/proc/meminfo": "MemTotal:       16000000 kB\nHugepagesize:       2048 kB\n",
    "/proc/sys/vm/nr_hugepages": "0\n",
    "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "0\n",
    "/proc/sys/vm/min_free_kbytes": "67584\n",
    "/proc/sys/kernel/sched_rt_runtime_us": "950000\n",
    "/proc/sys/net/ipv4/tcp_fastopen_key": "00000000-00000000-00000000-00000000\n",
}


@pytest.mark.parametrize(
    ("each", "address", "value", "objection"),
    [
        (IRQ, "/proc/irq/24/smp_affinity_list", "2-3", ""),
        (IRQ, "/proc/irq/24/smp_affinity_list", "3-5", "CPU 4-5 is not online"),
        (IRQ, "/proc/irq/24/smp_affinity_list", "", "an interrupt needs a CPU"),
        (RPS, "/sys/class/net/eth0/queues/rx-0/rps_cpus", "", ""),
        (RPS, "/sys/class/net/eth0/queues/rx-0/rps_cpus", "64", "CPU 64 is not online"),
        (knob(), "/proc/sys/vm/nr_hugepages", "3000", ""),
        (knob(), "/proc/sys/vm/nr_hugepages", "100000", "204800000 kB are more than 50 % of this host's memory"),
        (
            knob(),
            "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages",
            "16",
            "16777216 kB are more than 50 %",
        ),
        (knob(), "/proc/sys/vm/min_free_kbytes", "262144", ""),
        (knob(), "/proc/sys/vm/min_free_kbytes", "4000000", "4000000 kB are more than 10 %"),
        (knob(), "/proc/sys/kernel/sched_rt_runtime_us", "950000", ""),
        (knob(), "/proc/sys/kernel/sched_rt_runtime_us", "-1", "one spinning real-time task takes its CPU"),
        (knob(type="text"), "/proc/sys/net/ipv4/tcp_fastopen_key", "1-2-3-4", "it is unset"),
    ],
)
def test_what_the_kernel_would_take_without_a_word(
    tmp_path: Path, each: Knob, address: str, value: str, objection: str
) -> None:
    driver = FileDriver(make_tree(tmp_path, MACHINE), {})
    said = driver.objection(each, Place(address), value)
    assert objection in said
    assert bool(said) == bool(objection)
