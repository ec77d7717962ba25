"""Files for the next boot: rendered for a reference machine, written, read by their own programs, taken away."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.valkey import ValkeyServer
from tvops.errors import RefusedError, TvopsError
from tvops.shipped import resource
from tvops.tuning import persist_reference
from tvops.tuning.catalogue import load_catalogue
from tvops.tuning.facts import read_facts
from tvops.tuning.host import Host
from tvops.tuning.journal import StateDirectory
from tvops.tuning.kinds.boot import BootDriver
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.model import Driver, Kind, Profile
from tvops.tuning.persist import next_steps, persist, persisted, plan_files, render_files, unpersist
from tvops.tuning.plan import make_plan
from tvops.tuning.profiles import resolve_profile
from tvops.tuning.rendering import kernel_files, units
from tvops.tuning.rendering.settings import MARK

pytestmark = pytest.mark.usefixtures("unsynced")
RENDERED = resource("kernel-tuning") / "rendered"
PROFILE = Profile(name="test", description="", settings={}, wishes=(), facts=read_facts(Host()))
ONE = {"/etc/sysctl.d/90-tvops.conf": f"{MARK} of one\nvm.swappiness = 10\n"}
TWO = {
    "/etc/sysctl.d/90-tvops.conf": f"{MARK} of two\nvm.swappiness = 1\n",
    "/etc/systemd/system/tvops.service.d/10-tvops.conf": f"{MARK} of two\n[Service]\nNice=-5\n",
}


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Give everything below a tree: path -> mode, content."""
    return {
        str(path.relative_to(root)): (
            stat.S_IMODE(path.lstat().st_mode),
            path.read_bytes() if path.is_file() else b"",
        )
        for path in root.rglob("*")
    }


class Machine:
    """A tree with a state directory beside it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.host = Host(self.root)
        self.state = StateDirectory(folder / "state")

    def persist(self, files: dict[str, str], force: bool = False) -> list[str]:
        with self.state.lock(1, "test"):
            return [c.state for c in persist(self.state, self.host, PROFILE, files, "test", force)]

    def unpersist(self, force: bool = False) -> list[str]:
        with self.state.lock(1, "test"):
            return [one.outcome for one in unpersist(self.state, self.host, force)]

    def states(self, files: dict[str, str]) -> list[str]:
        return [c.state for c in plan_files(files, self.host, persisted(self.state, self.host))]

    def file(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        self.file(path).parent.mkdir(parents=True, exist_ok=True)
        self.file(path).write_text(text)
        self.file(path).chmod(mode)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# The way there and back


def test_what_was_persisted_goes_without_a_trace(machine: Machine) -> None:
    machine.put("/etc/hostname", "here\n")
    before = snapshot(machine.root)
    assert machine.persist(TWO) == ["created", "created"]
    assert {path: machine.file(path).read_text() for path in TWO} == TWO
    assert machine.file("/etc/sysctl.d/90-tvops.conf").stat().st_mode & 0o777 == 0o644
    assert machine.unpersist() == ["restored", "restored"]
    assert snapshot(machine.root) == before
    assert machine.unpersist() == []


def test_persisting_twice_does_nothing_the_second_time(machine: Machine) -> None:
    machine.persist(TWO)
    after = snapshot(machine.root)
    runs = machine.state.ids()
    assert machine.persist(TWO) == ["same", "same"]
    assert machine.state.ids() == runs
    assert snapshot(machine.root) == after


def test_another_profile_takes_the_place_of_the_first(machine: Machine) -> None:
    before = snapshot(machine.root)
    machine.persist(TWO)
    assert machine.persist(ONE) == ["changed", "removed"]
    assert snapshot(machine.root).keys() == {"etc", "etc/sysctl.d", "etc/sysctl.d/90-tvops.conf"}
    assert machine.file("/etc/sysctl.d/90-tvops.conf").read_text() == ONE["/etc/sysctl.d/90-tvops.conf"]
    assert machine.persist(TWO) == ["changed", "created"]
    assert set(machine.unpersist()) == {"restored"}
    assert snapshot(machine.root) == before


def test_a_file_of_somebody_else_is_never_replaced(machine: Machine) -> None:
    machine.put("/etc/sysctl.d/90-tvops.conf", "vm.swappiness = 33\n", 0o640)
    before = snapshot(machine.root)
    with pytest.raises(RefusedError, match=r"^/etc/sysctl.d/90-tvops.conf is not a file of tvops: .*--force$"):
        machine.persist(TWO)
    assert snapshot(machine.root) == before
    assert machine.persist(TWO, force=True) == ["conflict", "created"]
    machine.unpersist()
    assert snapshot(machine.root) == before


def test_a_link_or_directory_in_the_way_is_refused(machine: Machine) -> None:
    machine.file("/etc/sysctl.d/90-tvops.conf").mkdir(parents=True)
    before = snapshot(machine.root)
    with pytest.raises(RefusedError, match=r"/90-tvops.conf cannot be read \(is a directory\): move it away"):
        machine.persist(TWO)
    with pytest.raises(TvopsError, match=r"^/etc/sysctl.d/90-tvops.conf: .*what this run had changed is undone$"):
        machine.persist(TWO, force=True)
    assert snapshot(machine.root) == before


def test_what_somebody_edited_is_left_alone(machine: Machine) -> None:
    before = snapshot(machine.root)
    machine.persist(TWO)
    edited = machine.file("/etc/sysctl.d/90-tvops.conf")
    edited.write_text(edited.read_text() + "vm.swappiness = 5\n")
    assert machine.states(TWO) == ["conflict", "same"]
    with pytest.raises(RefusedError, match="was changed since tvops wrote it"):
        machine.persist(TWO)
    assert machine.unpersist() == ["restored", "conflict"]
    assert edited.read_text().endswith("vm.swappiness = 5\n")
    assert machine.unpersist(force=True) == ["restored"]
    assert snapshot(machine.root) == before


def test_a_file_of_ours_that_no_journal_knows_is_ours(machine: Machine) -> None:
    machine.put("/etc/sysctl.d/90-tvops.conf", f"{MARK} of an image\n")
    assert machine.persist(ONE) == ["changed"]


def test_drift_of_what_is_persisted_shows_as_a_diff(machine: Machine) -> None:
    machine.persist(ONE)
    assert machine.states(ONE) == ["same"]
    machine.file("/etc/sysctl.d/90-tvops.conf").unlink()
    (change,) = plan_files(ONE, machine.host, persisted(machine.state, machine.host))
    assert change.state == "created"
    assert change.diff.splitlines()[:2] == ["--- /dev/null", "+++ /etc/sysctl.d/90-tvops.conf"]
    assert "+vm.swappiness = 10" in change.diff


def test_runs_below_other_roots_are_not_touched(machine: Machine, tmp_path: Path) -> None:
    machine.persist(ONE)
    (tmp_path / "other").mkdir()
    with machine.state.lock(1, "test"):
        assert unpersist(machine.state, Host(tmp_path / "other")) == []
    assert machine.states(ONE) == ["same"]


CONTENT = st.sampled_from(["", "foreign\n", f"{MARK} old\n", "no newline"])
PATHS = [*TWO, "/etc/tvops/redis-ledger.conf", "/etc/udev/rules.d/90-tvops.rules"]
FILES = st.dictionaries(st.sampled_from(PATHS), CONTENT.map(lambda text: f"{MARK} new\n{text}"), min_size=1)


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from(PATHS), st.tuples(CONTENT, st.sampled_from([0o644, 0o600, 0o444]))),
       st.lists(FILES, min_size=1, max_size=3))  # fmt: skip
def test_any_series_of_profiles_leaves_what_was_there(
    present: dict[str, tuple[str, int]], series: list[dict[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        for path, (text, mode) in present.items():
            machine.put(path, text, mode)
        before = snapshot(machine.root)
        for files in series:
            machine.persist(files, force=True)
            assert set(machine.states(files)) == {"same"}
        machine.unpersist()
        assert snapshot(machine.root) == before


# What is rendered


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    return persist_reference.render_reference(RENDERED)


def test_the_rendered_files_are_those_of_the_profiles(reference: dict[str, str]) -> None:
    there = {str(path.relative_to(RENDERED)): path.read_text() for path in RENDERED.rglob("*") if path.is_file()}
    there.pop("reference.yaml")
    assert there == reference, "run: python -m tvops.tuning.persist_reference"


def test_every_file_says_what_it_is_and_how_to_undo_it(reference: dict[str, str]) -> None:
    assert {path.partition("/")[0] for path in reference} == {"prod", "ull"}
    for path, text in reference.items():
        first, second = text.splitlines()[:2]
        assert first.startswith(f"{MARK} from the profile {path.partition('/')[0]}: "), path
        assert "tvops tune unpersist" in second


def test_of_keys_that_exclude_each_other_one_stands_there(reference: dict[str, str]) -> None:
    for name in ("prod", "ull"):
        keys = re.findall(r"^(\S+) =", reference[f"{name}{kernel_files.SYSCTL}"], re.MULTILINE)
        assert len(set(keys)) == len(keys)
        for stem in ("vm.dirty", "vm.dirty_background"):
            assert not {f"{stem}_bytes", f"{stem}_ratio"} <= set(keys)


def test_a_host_that_has_more_keeps_it(tmp_path: Path) -> None:
    files = render(tmp_path, {"net.core.rmem_max": 1 << 30})
    assert "at least" not in files[kernel_files.SYSCTL]
    line = re.search(r"^# .*\n(?=net.core.rmem_max = 1073741824$)", files[kernel_files.SYSCTL], re.MULTILINE)
    assert line
    assert "(>=16mb; this host has more by itself)" in line[0]


def test_a_module_gets_its_parameter_when_it_is_loaded(reference: dict[str, str]) -> None:
    lines = reference[f"prod{kernel_files.MODPROBE}"].splitlines()
    assert "options nf_conntrack hashsize=65536" in lines
    assert "/sys/module" not in reference[f"prod{kernel_files.TMPFILES}"]


def test_what_the_host_lacks_is_left_out(tmp_path: Path) -> None:
    have = render(tmp_path / "has", {})
    lack = render(tmp_path / "lacks", {}, absent=["net.core.default_qdisc", "vm.thp.enabled", "irq.smp_affinity"])
    assert "net.core.default_qdisc = fq" in have[kernel_files.SYSCTL]
    assert "default_qdisc" not in lack[kernel_files.SYSCTL]
    assert "hugepage/enabled" in have[kernel_files.TMPFILES]
    assert "hugepage/enabled" not in lack[kernel_files.TMPFILES]
    assert units.BOOT_SERVICE in have
    assert units.BOOT_SERVICE not in lack


def render(
    folder: Path, values: dict[str, Any], absent: list[str] | None = None, assignments: tuple[str, ...] = ()
) -> dict[str, str]:
    """Render prod for the reference machine with other values."""
    described = persist_reference.load_machine(RENDERED)
    described = msgspec.structs.replace(
        described, values=described.values | values, absent=described.absent + (absent or [])
    )
    catalogue = load_catalogue()
    folder.mkdir(exist_ok=True)
    persist_reference.build(described, catalogue, folder)
    host = Host(folder)
    files = FileDriver(host, catalogue)
    drivers: dict[Kind, Driver] = {"sysctl": files, "file": files, "boot": BootDriver(host)}
    facts = msgspec.structs.replace(read_facts(host), privileged=True)
    profile = resolve_profile("prod", facts, catalogue, assignments, overlays=folder / "none")
    return render_files(profile, catalogue, make_plan(profile, catalogue, drivers), drivers, host)


def test_processes_get_what_the_strongest_of_them_needs(tmp_path: Path) -> None:
    given = (
        "process.nice=-3", "process.nice@engine=-10", "process.nofile=>=65536", "process.fifo_priority@market=40",
        "process.lock_memory@engine=all", "process.affinity@engine=2", "process.affinity@market=3",
        "process.oom_score_adj@redis=-900", "process.timer_slack_ns=1us",
    )  # fmt: skip
    lines = set(render(tmp_path, {}, assignments=given)[units.SERVICE].splitlines())
    assert lines >= {
        "Nice=-3", "LimitNICE=-10", "LimitRTPRIO=40", "LimitNOFILE=65536", "LimitMEMLOCK=infinity",
        "OOMScoreAdjust=-900", "TimerSlackNSec=1000",
    }  # fmt: skip
    assert any(line.startswith("CPUAffinity=") for line in lines)
    assert not any(line.startswith("CPUSchedulingPolicy") for line in lines)


def test_a_unit_under_a_second_name_gets_no_drop_in_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "lib/systemd/system"
    folder.mkdir(parents=True)
    (folder / "redis-server.service").touch()
    (folder / "redis.service").symlink_to("/lib/systemd/system/redis-server.service")
    (folder / "valkey.service").touch()
    assert units.server_units(Host(tmp_path)) == ["redis-server", "valkey"]


def test_a_profile_that_wants_no_files_takes_those_of_another_away(machine: Machine) -> None:
    before = snapshot(machine.root)
    machine.persist(TWO)
    assert machine.persist({}) == ["removed", "removed"]
    assert snapshot(machine.root) == before
    assert machine.persist({}) == []


def test_a_slice_with_cpus_of_its_own_is_made_for_the_stack(tmp_path: Path) -> None:
    files = render(tmp_path, {}, assignments=("cpuset.cpus=4-7", "cpuset.partition=isolated", "process.nice=-1"))
    assert "AllowedCPUs=4-7" in files[units.SLICE_UNIT]
    assert "Slice=tvops.slice" in files[units.SERVICE]
    assert "Slice=tvops.slice" in files[units.BOOT_SERVICE]
    assert "cpuset.partition" in files[units.BOOT_SERVICE]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["/boot/grub/grub.cfg"], "add to GRUB_CMDLINE_LINUX in /etc/default/grub: skew_tick=1"),
        (
            ["/boot/grub2/grub.cfg", "/boot/loader/entries/a.conf"],
            "grubby --update-kernel=ALL --args='skew_tick=1'",
        ),
        (["/efi/loader/loader.conf"], "add to /etc/kernel/cmdline: skew_tick=1"),
        ([], "as this host's boot loader wants it: skew_tick=1"),
    ],
)
def test_the_command_line_comes_with_what_to_do(tmp_path: Path, files: list[str], expected: str) -> None:
    described = persist_reference.load_machine(RENDERED)
    kept = {path: text for path, text in described.files.items() if not path.startswith("/boot")}
    described = msgspec.structs.replace(described, files=kept | dict.fromkeys(files, ""))
    catalogue = {"boot.skew_tick": load_catalogue()["boot.skew_tick"]}
    persist_reference.build(described, catalogue, tmp_path)
    host = Host(tmp_path)
    before = snapshot(tmp_path)
    drivers: dict[Kind, Driver] = {"boot": BootDriver(host)}
    wish = next(w for w in full_profile(host).wishes if w.knob == "boot.skew_tick")
    profile = msgspec.structs.replace(PROFILE, wishes=(wish,))
    text = render_files(profile, catalogue, make_plan(profile, catalogue, drivers), drivers, host)
    assert expected in text[kernel_files.CMDLINE]
    assert text[kernel_files.CMDLINE].endswith("skew_tick=1\n")
    assert snapshot(tmp_path) == before


def full_profile(host: Host) -> Profile:
    return resolve_profile("ull", read_facts(host), load_catalogue(), overlays=host.root / "none")


def test_the_next_steps_name_what_reads_the_files(reference: dict[str, str]) -> None:
    paths = [path.removeprefix("ull") for path in reference if path.startswith("ull/")]
    steps = next_steps(paths)
    assert steps[0] == "systemctl daemon-reload"
    assert "sysctl --system" in steps
    assert not any("trigger" in step for step in steps)
    assert any(step.endswith("include /etc/tvops/redis-ledger.conf") for step in steps)
    assert next_steps([]) == []


# Read by those for whom it is


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def is_writable(path: str) -> bool:
    return os.access(path, os.W_OK) and bool(Path(path).stat().st_mode & 0o222)


@pytest.mark.parametrize("name", ["prod", "ull"])
def test_sysctl_reads_its_file(reference: dict[str, str], tmp_path: Path, name: str) -> None:
    if not shutil.which("unshare") or not shutil.which("sysctl"):
        pytest.skip("unshare or sysctl is not installed")
    if "--dry-run" not in run("sysctl", "--help").stdout:
        pytest.skip("this sysctl has no --dry-run")
    if os.geteuid() != 0:
        pytest.skip("sysctl passes over what it may not write: needs root")
    file = tmp_path / "90-tvops.conf"
    text = reference[f"{name}{kernel_files.SYSCTL}"]
    file.write_text(text)
    # Some versions write in spite of --dry-run (with --system, procps 4.0.2 does): nothing can be written here.
    shield = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit 99"
    done = run("unshare", "-m", "sh", "-c", f"{shield}; exec sysctl --dry-run -e -p '{file}'")
    if done.returncode == 99:
        pytest.skip(f"/proc/sys cannot be made read-only: {done.stderr.strip()}")
    wanted = [line for line in text.splitlines() if line and not line.startswith("#")]
    known = [line for line in wanted if is_writable(f"/proc/sys/{line.split(' = ')[0].replace('.', '/')}")]
    assert len(known) > 10
    assert sorted(done.stdout.splitlines()) == sorted(known)  # nothing is missing, nothing is read otherwise
    assert not [line for line in done.stderr.splitlines() if any(key in line for key in keys_of(known))]


def keys_of(lines: list[str]) -> list[str]:
    return [line.split(" = ")[0] for line in lines]


@pytest.mark.parametrize("name", ["prod", "ull"])
def test_tmpfiles_writes_what_the_plan_wanted(reference: dict[str, str], tmp_path: Path, name: str) -> None:
    """For real, on the reference machine's tree."""
    if not shutil.which("systemd-tmpfiles"):
        pytest.skip("systemd-tmpfiles is not installed")
    if os.geteuid() != 0:
        pytest.skip("systemd-tmpfiles --root needs root")
    persist_reference.build(persist_reference.load_machine(RENDERED), load_catalogue(), tmp_path)
    text = reference[f"{name}{kernel_files.TMPFILES}"]
    file = tmp_path / "etc/tmpfiles.d/tvops.conf"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    done = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", "tvops.conf")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(maxsplit=6) for line in text.splitlines() if line.startswith("w ")]
    assert len(lines) >= 5
    for _, path, *_, value in lines:
        # A plain file keeps what is behind the value that is written over its beginning.
        assert (tmp_path / path.lstrip("/")).read_text().startswith(value)


def test_systemd_takes_the_units(reference: dict[str, str], tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    folder = tmp_path / "units"
    for path, text in reference.items():
        if path.startswith(f"ull{units.UNITS}"):
            file = folder / path.removeprefix(f"ull{units.UNITS}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace(persist_reference.PROGRAM, "/bin/true"))
    for name in ("tvops", "redis-server"):
        (folder / f"{name}.service").write_text("[Service]\nExecStart=/bin/true\n")
    names = sorted(path.name for path in folder.glob("*.service"))
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:"}
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no"]
    done = subprocess.run(
        [*verify, *(str(folder / name) for name in names)], env=environment,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if str(folder) in line or "tvops" in line]
    assert said == [], done.stderr


def test_modprobe_takes_its_file(reference: dict[str, str], tmp_path: Path) -> None:
    if not shutil.which("modprobe"):
        pytest.skip("modprobe is not installed")
    (tmp_path / "tvops.conf").write_text(reference[f"prod{kernel_files.MODPROBE}"])
    done = run("modprobe", "-C", str(tmp_path), "--showconfig")
    assert "options nf_conntrack hashsize=65536" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("role", ["ledger", "market", "results"])
def test_a_server_starts_with_its_file(reference: dict[str, str], tmp_path: Path, role: str) -> None:
    file = tmp_path / "include.conf"
    text = reference[f"ull/etc/tvops/redis-{role}.conf"]
    file.write_text(text)
    with (
        ValkeyServer(tmp_path / "server", "--include", str(file)) as server,
        Redis(unix_socket_path=server.socket, decode_responses=True) as client,
    ):
        shown = client.config_get()
    wanted = dict(line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert len(wanted) > 20
    plain = {key: value for key, value in wanted.items() if key in shown and not key.startswith("client-output")}
    assert len(plain) > 20
    assert {key: shown[key] for key in plain} == {key: "" if v == '""' else v for key, v in plain.items()}
    assert wanted["client-output-buffer-limit"] in shown["client-output-buffer-limit"]


@pytest.mark.parametrize("name", ["prod", "ull"])
def test_udev_takes_the_rules(reference: dict[str, str], tmp_path: Path, name: str) -> None:
    if not shutil.which("udevadm") or run("udevadm", "verify", "--help").returncode:
        pytest.skip("there is no udevadm with verify (systemd 254)")
    file = tmp_path / "90-tvops.rules"
    file.write_text(reference[f"{name}{kernel_files.UDEV}"])
    done = run("udevadm", "verify", "--no-style", str(file))
    assert done.returncode == 0, done.stderr


def test_udev_rules_have_the_grammar_of_rules(reference: dict[str, str]) -> None:
    token = (
        r'(?:ACTION|SUBSYSTEM|KERNEL)=="[^"$%\\]+"|ATTR\{[\w./-]+\}="[^"$%\\]*"|RUN\+="/usr/sbin/ethtool [\w -]+"'
    )
    rule = re.compile(rf"(?:{token})(?:, (?:{token}))+")
    for name in ("prod", "ull"):
        for line in reference[f"{name}{kernel_files.UDEV}"].splitlines():
            assert not line or line.startswith("#") or rule.fullmatch(line), line
