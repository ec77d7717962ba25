"""What is treacherous about putting a value back, each on a tree and, where it does no harm, on a real kernel.

A test that writes to this host puts back what was there, whatever happens.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.namespaces import in_namespace
from tests.test_tune_files import make_tree
from tvops.tuning.catalogue import load_catalogue
from tvops.tuning.host import Host
from tvops.tuning.kinds.boot import BootDriver
from tvops.tuning.kinds.files import FileDriver, path_of
from tvops.tuning.kinds.nic import NicDriver
from tvops.tuning.model import Driver, Facts, Kind, Knob, NotWrittenError, Place, State, ValueType
from tvops.tuning.values import parse_wanted, target

CATALOGUE = load_catalogue()
HERE = Host()
DEFRAG = Path("/sys/kernel/mm/transparent_hugepage/defrag")


def files(knob: str) -> tuple[Knob, FileDriver, Place]:
    """Give a knob of this host with its driver and first place; skip where it has none that can be written."""
    each, driver = CATALOGUE[knob], FileDriver(HERE, CATALOGUE)
    for place in driver.places(each):
        if driver.read(each, place).writable:
            return each, driver, place
    pytest.skip(f"{knob} is not on this host, or cannot be written here")


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Wait for another run of these tests on this host: it writes to the same files."""
    folder = os.open("/sys/kernel", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    yield
    os.close(folder)


@contextlib.contextmanager
def put_back(*values: tuple[str, str]) -> Iterator[None]:
    """Write these values to these files at the end, in their order, by no code of ours."""
    try:
        yield
    finally:
        for path, value in values:
            Path(path).write_text(value)


def selected(path: Path) -> str:
    found = re.search(r"\[([^\]]*)\]", path.read_text())
    assert found
    return found[1]


# Selectors: the text that is read is not what may be written.


def test_every_selector_of_this_host_is_a_choice() -> None:
    driver = FileDriver(HERE, CATALOGUE)
    bracketed = set()
    for knob in CATALOGUE.values():
        if knob.kind in ("sysctl", "file"):
            raw = [driver.read(knob, place).raw for place in driver.places(knob)[:2]]
            if any(re.search(r"(^|\s)\[\S+\](\s|$)", text) for text in raw):
                bracketed.add(knob.id)
                assert knob.type == "choice", knob.id
    if not bracketed:
        pytest.skip("this host shows no selector")


def test_huge_pages_come_back_by_the_token() -> None:
    knob, driver, place = files("vm.thp.defrag")
    now = selected(DEFRAG)
    other = "defer" if now != "defer" else "madvise"
    with put_back((str(DEFRAG), now)):
        before = driver.read(knob, place)
        assert before.value == now
        with pytest.raises(OSError) as error:
            HERE.write_text(place.address, before.raw)
        assert error.value.errno == errno.EINVAL
        driver.write(knob, place, other)
        assert driver.read(knob, place).value == other
        driver.restore(knob, place, before)
        assert driver.read(knob, place) == before


def test_a_block_scheduler_comes_back_by_the_token() -> None:
    knob, driver = CATALOGUE["block.scheduler"], FileDriver(HERE, CATALOGUE)
    # A loop device that nothing is attached to has no requests to lose.
    free = [d for d in sorted(Path("/sys/block").glob("loop*")) if (d / "size").read_text().strip() == "0"]
    if not free or os.geteuid() != 0:
        pytest.skip("no unused loop device, or not root")
    scheduler = free[-1] / "queue/scheduler"
    if not {"mq-deadline", "kyber"} <= set(re.findall(r"[\w-]+", scheduler.read_text())):
        pytest.skip("this kernel has no schedulers to choose from")
    place = Place(str(scheduler), "loop")
    with put_back((place.address, selected(scheduler))):
        driver.write(knob, place, "mq-deadline")
        before = driver.read(knob, place)
        assert before.value == "mq-deadline"
        # The kernel takes the text as it was read, and selects something else.
        with contextlib.suppress(OSError):
            HERE.write_text(place.address, before.raw)
            assert selected(scheduler) != "mq-deadline"
        driver.write(knob, place, "kyber")
        driver.restore(knob, place, before)
        assert driver.read(knob, place) == before


def test_a_selector_in_a_tree_gets_its_very_text_back(tmp_path: Path) -> None:
    text = "none mq-deadline [kyber] bfq \n"
    driver = FileDriver(make_tree(tmp_path, {"/sys/block/vda/queue/scheduler": text}), CATALOGUE)
    knob = CATALOGUE["block.scheduler"]
    (place,) = driver.places(knob)
    before = driver.read(knob, place)
    driver.write(knob, place, "none")
    assert driver.read(knob, place).value == "none"
    driver.restore(knob, place, before)
    assert (tmp_path / "sys/block/vda/queue/scheduler").read_text() == text


# Dirty limits: of a pair one counts, the other reads as 0, and 0 must not be written.

BACKGROUND = "/proc/sys/vm/dirty_background_"


@pytest.fixture
def ratio_counts() -> Iterator[None]:
    """Background writeback starts at 7 percent, set for the test."""
    files("vm.dirty_background_bytes")
    size, ratio = (Path(f"{BACKGROUND}{name}").read_text() for name in ("bytes", "ratio"))
    was = (f"{BACKGROUND}ratio", ratio) if ratio.strip() != "0" else (f"{BACKGROUND}bytes", size)
    with put_back(was):
        Path(f"{BACKGROUND}ratio").write_text("7")
        yield


@pytest.mark.usefixtures("ratio_counts")
def test_an_unset_limit_in_bytes_comes_back_through_the_ratio() -> None:
    knob, driver, place = files("vm.dirty_background_bytes")
    before = driver.read(knob, place)
    assert (before.value, before.coupled) == ("0", {"vm.dirty_background_ratio": "7"})
    undo = driver.shell(knob, place, "0")
    driver.write(knob, place, "134217728")
    assert Path(f"{BACKGROUND}ratio").read_text() == "0\n"
    driver.restore(knob, place, before)
    assert driver.read(knob, place) == before
    # The same as shell: planned while the ratio counts, run when it no longer does.
    driver.write(knob, place, "134217728")
    assert undo is not None
    subprocess.run(["sh", "-c", undo], check=True)
    assert driver.read(knob, place) == before


@pytest.mark.usefixtures("ratio_counts")
def test_an_unset_ratio_comes_back_through_the_limit_in_bytes() -> None:
    """The kernel would take the 0 that the ratio showed, and then none of both would count."""
    knob, driver, place = files("vm.dirty_background_ratio")
    Path(f"{BACKGROUND}bytes").write_text("67108864")
    before = driver.read(knob, place)
    assert (before.value, before.coupled) == ("0", {"vm.dirty_background_bytes": "67108864"})
    driver.write(knob, place, "5")
    assert Path(f"{BACKGROUND}bytes").read_text() == "0\n"
    driver.restore(knob, place, before)
    assert driver.read(knob, place) == before


@pytest.mark.usefixtures("ratio_counts")
def test_a_limit_that_counted_comes_back_by_itself() -> None:
    knob, driver, place = files("vm.dirty_background_ratio")
    before = driver.read(knob, place)
    driver.write(knob, place, "5")
    driver.restore(knob, place, before)
    assert driver.read(knob, place) == before


def test_both_pairs_are_coupled_in_the_catalogue() -> None:
    for name in ("vm.dirty", "vm.dirty_background"):
        assert f"{name}_ratio" in CATALOGUE[f"{name}_bytes"].coupled
        assert f"{name}_bytes" in CATALOGUE[f"{name}_ratio"].coupled


def test_a_limit_of_0_is_objected_to(tmp_path: Path) -> None:
    driver = FileDriver(make_tree(tmp_path, {"/proc/sys/vm/dirty_bytes": "1\n"}), CATALOGUE)
    place = Place("/proc/sys/vm/dirty_bytes")
    said = driver.objection(CATALOGUE["vm.dirty_bytes"], place, "0")
    assert said == "0 puts nothing in force; set vm.dirty_ratio instead"
    assert driver.shell(CATALOGUE["vm.dirty_bytes"], place, "0") is None


def test_a_pair_in_a_tree_gets_its_very_bytes_back(tmp_path: Path) -> None:
    pair = {"/proc/sys/vm/dirty_bytes": "0\n", "/proc/sys/vm/dirty_ratio": "20\n"}
    driver = FileDriver(make_tree(tmp_path, pair), CATALOGUE)
    knob, place = CATALOGUE["vm.dirty_bytes"], Place("/proc/sys/vm/dirty_bytes")
    before = driver.read(knob, place)
    driver.write(knob, place, "1048576")
    driver.restore(knob, place, before)
    assert {path: (tmp_path / path.lstrip("/")).read_text() for path in pair} == pair


# An unset key of TCP Fast Open reads as zeros; zeros written back are a key.


def test_an_unset_key_is_never_written_back() -> None:
    shown = in_namespace(
        """
from tvops.tuning.host import Host
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.model import Knob, NotWrittenError, Place

path = "/proc/sys/net/ipv4/tcp_fastopen_key"
key = "net.ipv4.tcp_fastopen_key"
knob = Knob(id=key, kind="sysctl", where=key, type="word", why="w", source="s")
driver, place = FileDriver(Host(), {}), Place(path)
before = driver.read(knob, place)
objection = driver.objection(knob, place, "1-2-3-4")
driver.write(knob, place, "00000001-00000002-00000003-00000004")
after = driver.read(knob, place)
try:
    driver.restore(knob, place, before)
    said = ""
except NotWrittenError as error:
    said = str(error)
left = open(path).read().strip()
driver.write(knob, place, "00000005-00000006-00000007-00000008")
driver.restore(knob, place, after)
result = [before.value, objection, said, left, open(path).read().strip()]
"""
    )
    key = "00000001-00000002-00000003-00000004"
    assert shown[0] == "00000000-00000000-00000000-00000000"
    assert shown[1] == "it is unset, and what is unset cannot be put back"
    assert shown[2].startswith("it was unset, and reads as zeros")
    assert shown[3:] == [key, key]


# What the kernel takes without a word.


def test_the_kernel_takes_a_vector_out_of_order_and_the_plan_does_not() -> None:
    shown = in_namespace(
        "path = '/proc/sys/net/ipv4/tcp_rmem'\nopen(path, 'w').write('16777216 131072 4096')\n"
        "result = open(path).read().split()"
    )
    assert shown == ["16777216", "131072", "4096"]
    facts = Facts(kernel=(6, 1, 0), release="6.1.0", memory_bytes=1 << 30)
    knob = CATALOGUE["net.ipv4.tcp_rmem"]
    with pytest.raises(ValueError, match="ascending order"):
        target(knob, parse_wanted(knob, "16777216 131072 4096"), "4096 131072 6291456", facts)


def test_more_huge_pages_than_memory_are_objected_to() -> None:
    knob, driver = CATALOGUE["vm.nr_hugepages"], FileDriver(HERE, CATALOGUE)
    for place in driver.places(knob):
        assert "of this host's memory" in driver.objection(knob, place, "100000000")
        return
    pytest.skip("this kernel has no huge pages")


def test_the_wake_up_limit_says_no_limit_as_0_and_no_latency_as_a_word() -> None:
    knob, driver, place = files("cpu.pm_qos_resume_latency_us")
    path = Path(place.address)
    with put_back((place.address, path.read_text())):
        for shown, other in (("0", "n/a"), ("n/a", "0"), ("1000", "n/a")):
            path.write_text(shown)
            before = driver.read(knob, place)
            assert before.value == shown
            driver.write(knob, place, other)
            assert driver.read(knob, place).value == other
            driver.restore(knob, place, before)
            assert driver.read(knob, place) == before


def test_a_partition_comes_back_without_the_kernels_remark(tmp_path: Path) -> None:
    """The remark stands behind the word when it is read, and is no value."""
    path = tmp_path / "cpuset.cpus.partition"
    path.write_text("x" * 60)
    raw = "isolated invalid (Cpu list in cpuset.cpus is empty)\n"
    FileDriver(HERE, CATALOGUE).restore(
        CATALOGUE["cpuset.partition"], Place(str(path)), State("present", raw.strip(), raw)
    )
    assert path.read_text() == "isolated\n".ljust(60, "x")


# Held resources have no stored state: no file driver may touch them.


def test_the_wake_up_latency_of_the_host_is_held_by_a_process() -> None:
    assert [knob.kind for knob in CATALOGUE.values() if knob.where == "/dev/cpu_dma_latency"] == ["held"]


# Interrupts.


def test_a_managed_interrupt_says_so() -> None:
    knob, driver = CATALOGUE["irq.smp_affinity"], FileDriver(HERE, CATALOGUE)
    managed = [p for p in driver.places(knob) if not Path(p.address).stat().st_mode & 0o222]
    if not managed or os.geteuid() != 0:
        pytest.skip("no managed interrupt here, or not root")
    before = driver.read(knob, managed[0])
    assert not before.writable
    assert "managed IRQ" in before.reason
    with pytest.raises(NotWrittenError, match="managed IRQ"):
        driver.write(knob, managed[0], before.value)


def test_an_interrupt_whose_number_is_gone_says_so(tmp_path: Path) -> None:
    driver = FileDriver(make_tree(tmp_path, {"/proc/irq/24/smp_affinity_list": "0-1\n"}), CATALOGUE)
    knob = CATALOGUE["irq.smp_affinity"]
    (place,) = driver.places(knob)
    before = driver.read(knob, place)
    (tmp_path / "proc/irq/24/smp_affinity_list").unlink()
    (tmp_path / "proc/irq/24").rmdir()
    with pytest.raises(NotWrittenError, match="no such file any more"):
        driver.restore(knob, place, before)
    assert driver.places(knob) == []


# The same value in another form.


@pytest.mark.parametrize(
    ("name", "path", "one", "other"),
    [
        ("net.ipv4.tcp_rmem", "/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n", "4096 131072 6291456\n"),
        ("nic.rps_cpus", "/sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,0000000f\n", "f\n"),
        ("irq.smp_affinity", "/proc/irq/24/smp_affinity_list", "0,1,2,3\n", "0-3\n"),
        ("vm.thp.enabled", "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n", "madvise\n"),
    ],
)
def test_the_form_of_a_value_does_not_count(tmp_path: Path, name: str, path: str, one: str, other: str) -> None:
    driver = FileDriver(make_tree(tmp_path, {path: one}), CATALOGUE)
    first = driver.read(CATALOGUE[name], Place(path)).value
    (tmp_path / path.lstrip("/")).write_text(other)
    assert driver.read(CATALOGUE[name], Place(path)).value == first


def test_masks_and_lists_of_this_host_say_the_same() -> None:
    driver = FileDriver(HERE, {})
    kinds: tuple[tuple[ValueType, str], ...] = (("cpumask", ""), ("cpulist", "_list"), ("cpumask", ""))
    shown = []
    for kind, suffix in kinds:
        where = "/proc/irq/{irq}/smp_affinity" + suffix
        knob = Knob(id="irq.a", kind="file", where=where, type=kind, why="w", source="s")
        shown.append({place.name: driver.read(knob, place).value for place in driver.places(knob)})
    masks, lists, again = shown
    settled = [irq for irq, mask in masks.items() if again.get(irq) == mask]  # irqbalance(1) moves them meanwhile
    if not settled:
        pytest.skip("no interrupt here has an affinity")
    assert [masks[irq] for irq in settled] == [lists.get(irq) for irq in settled]


# Nothing that a host shows, or lacks, is more than a state.


def drivers(host: Host) -> dict[Kind, Driver]:
    each = FileDriver(host, CATALOGUE)
    return {"sysctl": each, "file": each, "nic": NicDriver(host), "boot": BootDriver(host)}


def statuses(host: Host) -> dict[str, State]:
    shown = {}
    for knob in CATALOGUE.values():
        if driver := drivers(host).get(knob.kind):
            for place in driver.places(knob):
                state = shown[f"{knob.id}@{place.name}"] = driver.read(knob, place)
                assert state.status == "present" or state.reason, (knob.id, place)
                if state.status == "present":
                    driver.objection(knob, place, state.value)
                    assert (driver.shell(knob, place, state.value) or "").count("\n") == 0
    return shown


def test_every_knob_of_the_catalogue_can_be_asked_for_on_this_host() -> None:
    assert any(state.status == "present" for state in statuses(HERE).values())


def test_every_knob_of_the_catalogue_can_be_asked_for_on_an_empty_tree(tmp_path: Path) -> None:
    assert statuses(Host(tmp_path)) == {}


def test_without_privilege_everything_can_be_asked_for_and_nothing_written() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    code = (
        "import os, socket; from tests.test_tune_hazards import HERE, statuses, CATALOGUE\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for name, state in statuses(HERE).items():\n"
        "    if CATALOGUE[name.split('@')[0]].root:\n"
        "        assert not state.writable or state.status == 'absent', (name, state)\n"
        "        print(state.reason)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert {"needs root", "at boot only"} <= {
        line.removeprefix("the kernel reads its command line ") for line in run.stdout.splitlines()
    }


def test_every_sysctl_of_the_catalogue_has_its_path() -> None:
    for knob in CATALOGUE.values():
        if knob.kind == "sysctl":
            assert path_of(knob) == "/proc/sys/" + knob.id.replace(".", "/")
