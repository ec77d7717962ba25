"""The shell script of a plan: run by a real shell on a tree of files, it does what applying the plan does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tvops.tuning.apply import apply_plan
from tvops.tuning.host import Host
from tvops.tuning.journal import StateDirectory
from tvops.tuning.kinds.boot import BootDriver
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.kinds.nic import NicDriver
from tvops.tuning.model import Driver, ExitCode, Facts, Item, Kind, Knob, Place, Profile, Wish
from tvops.tuning.plan import exit_code, make_plan
from tvops.tuning.script import render_script

FACTS = Facts(
    kernel=(6, 1, 0), release="6.1.0-test", memory_bytes=8 << 30, cpus=(0, 1, 2, 3), privileged=True,
    roles={"irq": (2, 3)},
)  # fmt: skip
FILES = {
    "/proc/sys/vm/swappiness": "60\n",
    "/proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
    "/proc/sys/kernel/greeting": "it's\n",
    "/proc/sys/vm/dirty_bytes": "0\n",
    "/proc/sys/vm/dirty_ratio": "20\n",
    "/proc/cmdline": "ro quiet\n",
    "/sys/kernel/mm/thp": "[always] madvise never\n",
    "/sys/class/net/eth0/rps": "00000000,00000000\n",
    "/proc/irq/24/smp_affinity_list": "0-3\n",
    "/proc/irq/25/smp_affinity_list": "0-3\n",
    "/sys/devices/system/cpu/online": "0-3\n",
}


def knob(name: str, form: str = "int", where: str = "", **values: Any) -> Knob:
    kind = "file" if where.startswith("/") else "sysctl"
    fields = {"id": name, "kind": kind, "where": where or name, "type": form, "why": "because", "source": "s"}
    return Knob(**fields | values)


KNOBS = (
    knob("vm.swappiness"),
    knob("net.ipv4.tcp_rmem", "ints", unit="bytes"),
    knob("kernel.greeting", "text"),
    knob("vm.dirty_bytes", unit="bytes", coupled=("vm.dirty_ratio",)),
    knob("vm.dirty_ratio", coupled=("vm.dirty_bytes",)),
    knob("vm.thp", "choice", "/sys/kernel/mm/thp", choices=("always", "madvise", "never")),
    knob("nic.rps", "cpumask", "/sys/class/net/eth0/rps"),
    knob("irq.affinity", "cpulist", "/proc/irq/{irq}/smp_affinity_list"),
    knob("vm.nothing"),
    knob("boot.quiet", "word", "quiet", kind="boot", scope="boot", reboot=True),
    knob("boot.idle", "word", "idle", kind="boot", scope="boot", reboot=True),
)
CATALOGUE = {one.id: one for one in KNOBS}
WISHES: dict[str, object] = {
    "vm.swappiness": "<=10",
    "net.ipv4.tcp_rmem": "- - >=16mb",
    "kernel.greeting": """say "it's $HOME" `id` \\ %s""",
    "vm.thp": "madvise",
    "nic.rps": "$irq",
    "irq.affinity": "2-3",
}


class Tree:
    """A tree of files that stands for a host, and what is wanted of it."""

    def __init__(self, root: Path, wishes: dict[str, object], required: str = "") -> None:
        for path, text in FILES.items():
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.root = root
        files = FileDriver(Host(root), CATALOGUE)
        self.drivers: dict[Kind, Driver] = {"sysctl": files, "file": files, "boot": BootDriver(Host(root))}
        asked = tuple(Wish(knob=name, value=value, required=name == required) for name, value in wishes.items())
        self.profile = Profile(name="test", description="", settings={}, wishes=asked, facts=FACTS)

    def plan(self) -> list[Item]:
        return make_plan(self.profile, CATALOGUE, self.drivers)

    def script(self) -> str:
        return render_script(self.plan(), CATALOGUE, self.drivers, self.profile)

    def file(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def content(self) -> dict[str, str]:
        return {path: self.file(path).read_text() for path in FILES if self.file(path).exists()}


def run(script: str) -> tuple[int, str, str]:
    shell = shutil.which("dash") or "/bin/sh"
    done = subprocess.run([shell], input=script, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def apply(tree: Tree, state: Path) -> ExitCode:
    directory = StateDirectory(state)
    items = tree.plan()
    with (
        directory.lock(1, "test"),
        directory.new_run("apply", command="test", root=tree.root, items=items) as journal,
    ):
        apply_plan(items, CATALOGUE, tree.drivers, journal)
    return exit_code(items, applied=True)


def test_a_script_does_what_applying_the_plan_does(tmp_path: Path) -> None:
    strange = tmp_path / """it's a "tree" of $HOME `id` \\ and %s"""
    scripted, applied = Tree(strange, WISHES), Tree(tmp_path / "applied", WISHES)
    code, out, err = run(scripted.script())
    assert (code, err) == (0, "")
    assert out.count("changed ") == 7
    assert apply(applied, tmp_path / "state") == 0
    assert scripted.content() == applied.content()
    assert scripted.content()["/proc/sys/kernel/greeting"] == WISHES["kernel.greeting"] + "\n"  # type: ignore[operator]
    assert {item.state for item in scripted.plan()} == {"met"}


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    tree = Tree(tmp_path, WISHES)
    script = tree.script()
    assert run(script)[0] == 0
    after = tree.content()
    code, out, _ = run(script)
    assert (code, out.count("same "), out.count("changed ")) == (0, 7, 0)
    assert tree.content() == after
    assert "change " not in tree.script()
    assert run(tree.script())[0] == 0


def test_a_required_setting_that_fails_undoes_everything(tmp_path: Path) -> None:
    wishes = WISHES | {"vm.dirty_bytes": "64mb"}
    del wishes["vm.thp"]  # whose text in a tree is not the kernel's: the token is put back
    del wishes["nic.rps"]
    tree = Tree(tmp_path, wishes, required="irq.affinity")
    script = tree.script()
    gone = tree.file("/proc/irq/25/smp_affinity_list")
    gone.unlink()
    code, out, err = run(script)
    assert code == 1
    assert "failed   irq.affinity@irq25" in err
    assert out.count("changed ") == 5
    want = {path: text.replace("\t", " ") for path, text in FILES.items() if "irq/25" not in path}
    # A tree has no kernel that makes one of the pair 0 when the other is put back, as it is here.
    assert tree.content() | {"/proc/sys/vm/dirty_bytes": "0\n"} == want
    assert "'put 20 " in script


def test_an_undo_that_fails_is_told(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"vm.swappiness": 10, "irq.affinity": "2-3"}, required="irq.affinity")
    script = tree.script()
    tree.file("/proc/irq/24/smp_affinity_list").unlink()
    hooked = script.replace("give_up() {", f"give_up() {{\n    rm -r '{tree.file('/proc/sys/vm')}'", 1)
    code, _, err = run(hooked)
    assert code == 7
    assert "could not be undone" in err


def test_an_optional_setting_that_fails_is_told_and_the_rest_is_done(tmp_path: Path) -> None:
    tree = Tree(tmp_path, WISHES)
    script = tree.script()
    shutil.rmtree(tree.file("/proc/irq/24"))
    code, out, err = run(script)
    assert code == 4
    assert err.count("failed ") == 1
    assert out.count("changed ") == 6


def test_what_somebody_changed_since_the_plan_is_left_alone(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"vm.swappiness": "<=10"})
    script = tree.script()
    tree.file("/proc/sys/vm/swappiness").write_text("5\n")
    code, _, err = run(script)
    assert code == 4
    assert "shows 5 by now, 60 when this was planned" in err
    assert tree.content()["/proc/sys/vm/swappiness"] == "5\n"


def test_what_reads_back_otherwise_is_put_back(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"vm.swappiness": 10})
    script = tree.script()
    # A kernel that clamps: what is written is there, and something else is read.
    clamped = script.replace("words() {", 'words() { [ "$(cat "$1")" != 10 ] || { echo 11; return; };', 1)
    code, _, err = run(clamped)
    assert code == 4
    assert "reads back as 11" in err
    assert tree.content()["/proc/sys/vm/swappiness"] == "60\n"


@pytest.mark.parametrize(
    ("wishes", "reason", "code"),
    [
        ({"vm.nothing": 1}, "left out: vm.nothing: ? -> 1: unsupported: not on this host", 4),
        ({"boot.idle": "poll"}, "left out: boot.idle: (none) -> poll: reboot", 6),
        ({"boot.idle": "poll", "vm.nothing": 1, "vm.swappiness": 10}, "left out: boot.idle", 6),
    ],
)
def test_what_a_shell_cannot_do_is_a_comment(
    tmp_path: Path, wishes: dict[str, object], reason: str, code: int
) -> None:
    tree = Tree(tmp_path, wishes)
    script = tree.script()
    assert f"# {reason}" in script
    assert run(script)[0] == code == exit_code_of(tree, tmp_path)


def exit_code_of(tree: Tree, folder: Path) -> int:
    return apply(Tree(folder / "other", {w.knob: w.value for w in tree.profile.wishes}), folder / "state")


def test_a_required_setting_that_cannot_be_had_stops_the_script_at_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"vm.swappiness": 10, "vm.nothing": 1}, required="vm.nothing")
    code, out, err = run(tree.script())
    assert (code, out) == (1, "")
    assert "vm.nothing is required: not on this host" in err
    assert tree.content() == FILES


def test_an_unprivileged_plan_gives_the_script_for_who_is_privileged(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"vm.swappiness": 10})
    items = [msgspec.structs.replace(item, state="privilege", reason="needs root") for item in tree.plan()]
    assert run(render_script(items, CATALOGUE, tree.drivers, tree.profile))[0] == 0
    assert tree.content()["/proc/sys/vm/swappiness"] == "10\n"


def test_text_of_others_stays_in_its_comment(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {"vm.swappiness": 10, "vm.nothing": 1})
    items = tree.plan()
    for item in items:
        item.why = "a\nexit 9\n"
        item.reason = item.reason and "b\nexit 9\n"
    profile = msgspec.structs.replace(tree.profile, name="p\nexit 9\n#")
    code, _, _ = run(render_script(items, CATALOGUE, tree.drivers, profile))
    assert code == 4


@pytest.mark.parametrize("wishes", [WISHES, {"vm.nothing": 1}, {"vm.swappiness": 10, "boot.idle": "poll"}, {}])
def test_the_script_is_clean_for_shellcheck(tmp_path: Path, wishes: dict[str, object]) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        ["shellcheck", "-"], input=Tree(tmp_path, wishes).script(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == ""


def test_a_command_of_another_program_goes_by_its_exit_code(tmp_path: Path) -> None:
    """Interfaces: in a namespace of its own, on an interface of its own."""
    tools = ("unshare", "ip", "ethtool")
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        pytest.skip(f"{missing[0]} is not installed")
    gro = knob("nic.feature.gro", "word", "feature gro", kind="nic", scope="nic", choices=("on", "off"))
    items = [_nic_item("veth0", required=False), _nic_item("nowhere0", required=True)]
    profile = Profile(name="test", description="", settings={}, wishes=(), facts=FACTS)
    script = render_script(items, {gro.id: gro}, {"nic": NicDriver(Host())}, profile)
    (tmp_path / "script").write_text(script)
    (tmp_path / "optional").write_text(script.replace("required", "optional"))
    setup = (
        "ip link add veth0 type veth peer name veth1 || exit 99; show() { ethtool -k veth0 | grep ^generic-rec; }"
    )
    code = f"{setup}; show; sh {tmp_path}/script; echo $?; show; sh {tmp_path}/optional; echo $?; show"
    users = [] if os.geteuid() == 0 else ["-U", "-r"]
    done = subprocess.run(["unshare", *users, "-n", "sh", "-c", code], capture_output=True, text=True, timeout=60)
    if done.returncode in (1, 99) and not done.stdout:
        pytest.skip(f"no network namespace here: {done.stderr.strip()}")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("changed")]
    before, after = "generic-receive-offload: off", "generic-receive-offload: on"
    assert lines == [before, "1", before, "4", after], done.stderr


def _nic_item(name: str, required: bool) -> Item:
    return Item(
        knob="nic.feature.gro", kind="nic", place=Place(name, name), scope="nic", risk="safe", required=required,
        current="off", wanted="on", value="on", state="pending", why="because",
    )  # fmt: skip
