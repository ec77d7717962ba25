"""What kind of machine a host is, read from trees of files that stand for many."""

import os
from pathlib import Path

import pytest

from tests.machines import GIB, add_nic, make_machine, write
from tvops.tuning.facts import parse_release, read_facts
from tvops.tuning.fingerprint import fingerprint
from tvops.tuning.host import Host


def test_a_machine_in_full(tmp_path: Path) -> None:
    host = make_machine(
        tmp_path, cores=8, threads=2, nodes=2, kernel="6.11.0-19-generic", memory=64 * GIB, nic_node=0
    )
    facts = read_facts(host)
    assert (facts.kernel, facts.release) == ((6, 11, 0), "6.11.0-19-generic")
    assert (facts.virtual, facts.container, facts.memory_bytes) == ("", "", 64 * GIB)
    assert (facts.cpus, facts.numa_nodes, facts.smt) == (tuple(range(16)), 2, True)
    assert facts.nics == {"eth0": "ixgbe"}
    assert facts.privileged  # a tree that can be written
    assert facts.roles == {}


def test_only_interfaces_with_a_device_count(tmp_path: Path) -> None:
    host = make_machine(tmp_path)
    add_nic(tmp_path, "ens5", "ena")
    write(tmp_path, "/sys/class/net/veth1/mtu", "1500\n")
    write(tmp_path, "/sys/class/net/odd/device/vendor", "0x1\n")  # a device that no driver has taken
    assert read_facts(host).nics == {"ens5": "ena", "eth0": "ixgbe", "odd": ""}


@pytest.mark.parametrize(
    "text, release", [("6.18.44-fc", (6, 18, 44)), ("5.4", (5, 4, 0)), ("7", (7, 0, 0)), ("odd", (0, 0, 0))]
)
def test_kernel_releases(text: str, release: tuple[int, int, int]) -> None:
    assert parse_release(text) == release


@pytest.mark.parametrize(
    "vendor, name",
    [
        ("QEMU", "kvm"), ("Amazon EC2", "kvm"), ("Google Compute Engine", "kvm"), ("VMware, Inc.", "vmware"),
        ("innotek GmbH", "virtualbox"), ("Xen", "xen"), ("Dell Inc.", "kvm"),
    ],
)  # fmt: skip
def test_hypervisors_by_firmware(tmp_path: Path, vendor: str, name: str) -> None:
    assert read_facts(make_machine(tmp_path, virtual=vendor)).virtual == name


def test_hyper_v_is_told_from_a_microsoft_laptop(tmp_path: Path) -> None:
    host = make_machine(tmp_path, virtual="Microsoft Corporation")
    write(tmp_path, "/sys/class/dmi/id/product_name", "Virtual Machine\n")
    assert read_facts(host).virtual == "hyperv"
    write(tmp_path, "/proc/cpuinfo", "flags\t: fpu\n")
    write(tmp_path, "/sys/class/dmi/id/product_name", "Surface\n")
    assert read_facts(host).virtual == ""


def test_firmware_of_a_cloud_on_bare_metal(tmp_path: Path) -> None:
    host = make_machine(tmp_path)
    write(tmp_path, "/sys/class/dmi/id/sys_vendor", "Amazon EC2\n")
    write(tmp_path, "/sys/class/dmi/id/product_name", "c7g.metal\n")
    assert read_facts(host).virtual == ""
    write(tmp_path, "/proc/cpuinfo", "processor\t: 0\nFeatures\t: fp\n")  # arm tells no hypervisor flag
    assert read_facts(host).virtual == ""
    write(tmp_path, "/sys/class/dmi/id/product_name", "c7g.large\n")
    assert read_facts(host).virtual == "kvm"


def test_firecracker_by_its_tables_and_by_its_command_line(tmp_path: Path) -> None:
    host = make_machine(tmp_path, virtual="none")
    write(tmp_path, "/sys/firmware/acpi/tables/FACP", "FACP....FIRECKFCVMFADT")
    assert read_facts(host).virtual == "firecracker"
    (tmp_path / "sys/firmware/acpi/tables/FACP").unlink()
    assert read_facts(host).virtual == "kvm"
    write(tmp_path, "/proc/cmdline", "console=ttyS0 -- --firecracker-init\n")
    assert read_facts(host).virtual == "firecracker"


def test_xen_guest_and_xen_host(tmp_path: Path) -> None:
    host = make_machine(tmp_path, virtual="x")
    write(tmp_path, "/sys/hypervisor/type", "xen\n")
    assert read_facts(host).virtual == "xen"
    write(tmp_path, "/proc/xen/capabilities", "control_d\n")
    assert read_facts(host).virtual == ""


def test_an_arm_guest_by_its_device_tree(tmp_path: Path) -> None:
    host = make_machine(tmp_path)
    write(tmp_path, "/proc/cpuinfo", "processor\t: 0\n")
    write(tmp_path, "/proc/device-tree/hypervisor/compatible", "linux,kvm\0")
    assert read_facts(host).virtual == "kvm"


@pytest.mark.parametrize(
    "path, text, name",
    [
        ("/run/systemd/container", "lxc\n", "lxc"),
        ("/run/host/container-manager", "podman\n", "podman"),
        ("/run/.containerenv", "", "podman"),
        ("/.dockerenv", "", "docker"),
        ("/proc/1/environ", "PATH=/bin\0container=systemd-nspawn\0", "systemd-nspawn"),
        ("/proc/1/cgroup", "4:memory:/docker/0123\n", "docker"),
        ("/proc/1/cgroup", "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-2.scope\n", "kubernetes"),
        ("/proc/1/cgroup", "0::/machine.slice/libpod-01.scope\n", "podman"),
        ("/proc/1/cgroup", "0::/init.scope\n", ""),
        ("/proc/1/environ", "HOME=/\0", ""),
    ],
)
def test_containers(tmp_path: Path, path: str, text: str, name: str) -> None:
    host = make_machine(tmp_path)
    write(tmp_path, path, text)
    assert read_facts(host).container == name


@pytest.mark.parametrize(
    "line, limits, bytes_",
    [
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": str(2 * GIB)}, 2 * GIB),
        ("0::/a/b", {"a/b/memory.max": str(GIB), "a/memory.max": str(2 * GIB)}, GIB),
        ("0::/a", {"a/memory.max": str(900 * GIB)}, 16 * GIB),  # more than there is
        ("4:memory:/x", {"memory/x/memory.limit_in_bytes": "9223372036854771712"}, 16 * GIB),
        ("4:memory:/x", {"memory/memory.limit_in_bytes": str(3 * GIB)}, 3 * GIB),
        ("0::/a", {"a/memory.max": "odd\n"}, 16 * GIB),
        ("0::/a", {"unified/a/memory.max": str(GIB)}, GIB),
    ],
)
def test_the_least_memory_limit_counts(tmp_path: Path, line: str, limits: dict[str, str], bytes_: int) -> None:
    host = make_machine(tmp_path, memory=16 * GIB)
    write(tmp_path, "/proc/self/cgroup", f"{line}\n")
    for path, text in limits.items():
        write(tmp_path, f"/sys/fs/cgroup/{path}", text)
    assert read_facts(host).memory_bytes == bytes_


def test_an_empty_tree_has_facts_of_its_own(tmp_path: Path) -> None:
    facts = read_facts(Host(tmp_path))
    assert (facts.cpus, facts.numa_nodes, facts.smt, facts.nics) == ((0,), 1, False, {})
    assert facts.release == os.uname().release
    assert facts.memory_bytes > 0


def test_this_host_can_be_read() -> None:
    facts = read_facts(Host())
    assert facts.release == os.uname().release
    assert set(facts.cpus) <= set(range(os.cpu_count() or 1))
    if os.geteuid() != 0:
        assert not facts.privileged


def test_the_fingerprint_tells_hosts_apart_and_holds_no_secret(tmp_path: Path) -> None:
    host = make_machine(tmp_path, cores=4, threads=2)
    write(tmp_path, "/proc/cmdline", "isolcpus=2,6 rd.luks.key=hunter2 mitigations=auto -- --token hunter2\n")
    write(tmp_path, "/etc/machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    write(tmp_path, "/etc/hostname", "hunter2\n")
    first = fingerprint(host)
    assert first == fingerprint(host)
    assert first.parameters == ("isolcpus=2,6", "mitigations=auto")
    assert (first.cpu, first.cpus) == ("Model 1", "8 CPUs on 4 cores, 1 node")
    assert "hunter2" not in str(first)
    assert "3d1219c7" not in str(first)
    write(tmp_path, "/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
    second = fingerprint(host)
    assert second.clocksource == "tsc"
    assert second.digest != first.digest
    write(tmp_path, "/etc/machine-id", "0\n")
    assert fingerprint(host).digest != second.digest


def test_another_version_of_tvops_runs_on_the_same_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_machine(tmp_path)
    before = fingerprint(host)
    monkeypatch.setattr("tvops.__version__", "9.9.9")
    after = fingerprint(host)
    assert (after.versions["tvops"], after.digest) == ("9.9.9", before.digest)
