"""`tvops tune` as it is called: its exit codes one by one, what it prints, what it asks, what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.machines import make_machine, write
from tests.namespaces import in_namespace
from tvops.cli import run
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.model import Knob, Place

pytestmark = pytest.mark.usefixtures("unsynced")
FILES = {
    "/proc/cmdline": "quiet\n",
    "/proc/sys/kernel/random/boot_id": "7f6d1a0e-0000-4000-8000-000000000001\n",
    "/proc/sys/net/core/rmem_max": "212992\n",
    "/proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
    "/proc/sys/vm/swappiness": "60\n",
    "/sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n",
    "/proc/irq/default_smp_affinity": "f\n",
}
KNOBS = {
    "net.core.rmem_max": ">=16mb",
    "net.ipv4.tcp_rmem": "- - >=16mb",
    "vm.swappiness": "<=10",
    "vm.thp.enabled": "madvise",
    "irq.default_smp_affinity": "0-1",
}


def make_root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out a host that is to be tuned, with a state directory beside it."""
    monkeypatch.setenv("TVOPS_STATE_DIR", str(folder / "state"))
    monkeypatch.setenv("TVOPS_DATA_DIR", str(folder / "data"))
    monkeypatch.delenv("TVOPS_PROFILE", raising=False)
    make_machine(folder / "root")
    for path, text in FILES.items():
        write(folder / "root", path, text)
    return folder / "root"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_root(tmp_path, monkeypatch)


def profile(folder: Path, knobs: dict[str, object] = KNOBS, **more: object) -> str:  # type: ignore[assignment]
    path = folder / "mine.yaml"
    path.write_text(json.dumps({"description": "for a test", "knobs": knobs, **more}))
    return str(path)


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


Tune = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tune(root: Path, capsys: pytest.CaptureFixture[str]) -> Tune:
    """Call `tvops tune …` and give exit code, stdout and stderr; --root goes to where it has a meaning."""

    def call(*arguments: str) -> tuple[int, str, str]:
        rooted = [] if arguments[:1] in (("history",), ("explain",)) else ["--root", str(root)]
        code = run(["tune", *arguments, *rooted])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_exit_codes_0_and_3_and_the_whole_round(root: Path, tune: Tune, tmp_path: Path) -> None:
    mine = profile(tmp_path)
    before = snapshot(root)
    code, out, _ = tune("--profile", mine, "--check")
    assert code == 3
    assert "vm.swappiness" in out
    assert "60 → 10 (<=10)" in out
    assert snapshot(root) == before
    assert not (tmp_path / "state").exists(), "a plan leaves nothing behind"
    code, out, err = tune("--profile", mine, "--yes")
    assert code == 0
    assert "5 changed" in out
    assert "rollback" in err
    assert (root / "proc/sys/vm/swappiness").read_text() == "10\n"
    assert tune("--profile", mine, "--yes")[:2] == (0, "profile mine: 5 as wanted\n")
    assert tune("verify", "--profile", mine)[0] == 0
    assert tune("drift")[0] == 0
    (root / "proc/sys/vm/swappiness").write_text("30\n")
    code, out, _ = tune("drift")
    assert code == 3
    assert "vm.swappiness: is 30, tvops wrote 10" in out
    assert tune("verify", "--profile", mine)[0] == 3
    (root / "proc/sys/vm/swappiness").write_text("10\n")
    assert tune("rollback", "--check")[0] == 3
    assert tune("rollback")[0] == 0
    assert snapshot(root) == before
    assert tune("rollback")[:2] == (0, "there is nothing to undo\n")
    code, out, _ = tune("history")
    assert code == 0
    assert "rolled back" in out


def test_exit_code_1_required_knobs_that_cannot_be_had_change_nothing(
    root: Path, tune: Tune, tmp_path: Path
) -> None:
    mine = profile(tmp_path, {**KNOBS, "net.core.wmem_max": {"value": "1", "required": True}})
    before = snapshot(root)
    for how in ("--check", "--yes"):
        code, _, err = tune("--profile", mine, how)
        assert code == 1
        assert "net.core.wmem_max: not on this host" in err
    assert json.loads(tune("--profile", mine, "--yes", "--json")[1])["verdict"] == "failed"
    assert tune("verify", "--profile", mine)[0] == 3
    assert snapshot(root) == before


def test_exit_code_1_a_required_write_that_the_kernel_rejects_undoes_the_rest(tmp_path: Path) -> None:
    mine = profile(
        tmp_path,
        {
            "net.ipv4.tcp_slow_start_after_idle": 0,
            "net.ipv4.tcp_congestion_control": {"value": "nonesuch", "required": True},
        },
    )
    result = in_namespace(
        f"""
import os
from pathlib import Path
from tvops.cli import run
os.environ["TVOPS_STATE_DIR"] = {str(tmp_path / "state")!r}
key = Path("/proc/sys/net/ipv4/tcp_slow_start_after_idle")
before = key.read_text()
code = run(["tune", "--profile", {mine!r}, "--yes", "--json"])
result = {{"code": code, "same": before == key.read_text()}}
"""
    )
    assert result == {"code": 1, "same": True}


def test_what_this_kernel_refused_is_not_promised_again(tmp_path: Path) -> None:
    mine = profile(
        tmp_path, {"net.ipv4.tcp_congestion_control": "nonesuch", "net.ipv4.tcp_slow_start_after_idle": 0}
    )
    result = in_namespace(
        f"""
import os
from tvops.cli import run
os.environ["TVOPS_STATE_DIR"] = {str(tmp_path / "state")!r}
calls = ["--yes"], ["--check"], ["verify"], ["--yes"], ["--check", "--retry"]
result = [run(["tune", *words, "--profile", {mine!r}]) for words in calls]
"""
    )
    assert result == [4, 4, 4, 4, 3]


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "--profile: which one?"),
        (("--profile", "nonesuch"), "nonesuch"),
        (("--profile", "prod", "--set", "vm.swapiness=1"), "vm.swappiness"),
        (("--profile", "prod", "--set", "net.ipv4.tcp_tw_recycle=1"), "tcp_tw_recycle"),
        (("--profile", "prod", "--set", "net.core.rmem_max=lots"), "lots"),
        (("--profile", "prod", "--risk-max", "none"), "risk-max"),
        (("--profile", "prod", "--keep", "helpful"), "--measure"),
        (("--profile", "prod", "--check", "--measure"), "--measure"),
        (("--profile", "prod", "--measure", "--yes"), "a tree of files cannot be measured"),
        (("--profile", "prod", "--check", "--skip", "vm.swapiness"), "vm.swappiness"),
        (("rollback", "../../etc/passwd"), "is not the id of a run"),
        (("rollback", "20200101-000000-abcd"), "there is no such run"),
        (("explain", "vm.swapiness"), "did you mean vm.swappiness"),
        (("explain", "vm.ksm_run"), "vm.ksm_run"),
        (("verify",), "--profile: which one?"),
        (("persist", "--profile", "nonesuch"), "nonesuch"),
    ],
)
def test_exit_code_2_in_one_line_that_names_the_thing(tune: Tune, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = tune(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err


def test_a_root_that_is_none(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", "--profile", "prod", "--check", "--root", "/nonesuch"]) == 2
    assert "/nonesuch" in capsys.readouterr().err


def test_exit_code_3_without_yes_and_without_a_terminal(root: Path, tune: Tune, tmp_path: Path) -> None:
    before = snapshot(root)
    code, _, err = tune("--profile", profile(tmp_path))
    assert code == 3
    assert "nothing was changed; --yes applies the plan" in err
    assert snapshot(root) == before


def test_exit_code_4_what_this_host_lacks_is_told_and_the_rest_applied(
    root: Path, tune: Tune, tmp_path: Path
) -> None:
    mine = profile(tmp_path, {**KNOBS, "net.core.wmem_max": 1})
    code, out, _ = tune("--profile", mine, "--yes")
    assert code == 4
    assert "not on this host: net.core.wmem_max" in out
    assert (root / "proc/sys/vm/swappiness").read_text() == "10\n"
    assert tune("verify", "--profile", mine)[0] == 4


def test_exit_code_5_as_nobody(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become nobody")
    mine = profile(tmp_path, {"vm.swappiness": 1})
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65534, 65534)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    code = f"""
import os
from tvops.cli import run
os.environ["TVOPS_STATE_DIR"], os.environ["TVOPS_DATA_DIR"] = {str(state)!r}, {str(tmp_path / "data")!r}
for words in (["--check"], ["verify"]):
    run(["tune", *words, "--profile", {mine!r}])  # imports what nobody could not read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
codes = [run(["tune", *words, "--profile", {mine!r}]) for words in (["--check"], ["--yes"], ["verify"])]
print(*codes)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "5 5 3", ran.stderr
    assert "privilege" in ran.stdout
    assert "Traceback" not in ran.stderr


def test_exit_code_6_what_takes_a_reboot(root: Path, tune: Tune, tmp_path: Path) -> None:
    mine = profile(tmp_path, {**KNOBS, "boot.skew_tick": 1})
    assert tune("--profile", mine, "--yes")[0] == 6
    code, out, _ = tune("--profile", mine, "--yes")
    assert code == 6
    assert "boot.skew_tick" in out
    assert "persist" in out


def test_exit_code_7_what_somebody_else_changed_is_left_and_named(root: Path, tune: Tune, tmp_path: Path) -> None:
    before = snapshot(root)
    assert tune("--profile", profile(tmp_path), "--yes")[0] == 0
    (root / "proc/sys/vm/swappiness").write_text("30\n")
    code, _, err = tune("rollback")
    assert code == 7
    assert "vm.swappiness: holds 30, tvops wrote 10, before that it was 60" in err
    assert (root / "proc/sys/vm/swappiness").read_text() == "30\n"
    assert (root / "proc/sys/net/core/rmem_max").read_text() == "212992\n"
    assert tune("rollback", "--force")[0] == 0
    assert snapshot(root) == before


def test_json_says_what_the_table_says(tune: Tune, tmp_path: Path) -> None:
    mine = profile(tmp_path)
    code, out, _ = tune("--profile", mine, "--check", "--json")
    report: dict[str, Any] = json.loads(out)
    assert (code, report["exit_code"], report["verdict"]) == (3, 3, "pending")
    assert report["counts"] == {"pending": 5}
    _, out, _ = tune("--profile", mine, "--yes", "--json")
    report = json.loads(out)
    assert report["counts"] == {"written": 5}
    [item] = [i for i in report["items"] if i["id"] == "vm.swappiness"]
    assert (item["before"], item["value"], item["current"], item["outcome"]) == ("60", "10", "10", "written")
    assert item["origin"].endswith("mine.yaml:1")
    assert json.loads(tune("history", "--json")[1])["runs"][0]["id"] == report["run"]
    assert json.loads(tune("rollback", "--json")[1])["counts"] == {"restored": 5}


def test_only_skip_and_set(root: Path, tune: Tune, tmp_path: Path) -> None:
    mine = profile(tmp_path)
    tune("--profile", mine, "--yes", "--only", "vm.*", "--skip", "vm.thp.*", "--set", "vm.swappiness=7")
    assert (root / "proc/sys/vm/swappiness").read_text() == "7\n"
    assert (root / "proc/sys/net/core/rmem_max").read_text() == "212992\n"
    assert (root / "sys/kernel/mm/transparent_hugepage/enabled").read_text() == FILES[
        "/sys/kernel/mm/transparent_hugepage/enabled"
    ]


def test_diff_and_all(tune: Tune, tmp_path: Path) -> None:
    mine = profile(tmp_path)
    _, out, _ = tune("--profile", mine, "--check", "--diff")
    assert "@@ vm.swappiness\n-60\n+10\n" in out
    _, out, _ = tune("--profile", mine, "--check", "--only", "vm.*", "--all")
    assert "not among --only" in out


def test_the_script_is_printed_and_nothing_done(root: Path, tune: Tune, tmp_path: Path) -> None:
    before = snapshot(root)
    code, out, _ = tune("--profile", profile(tmp_path), "--script")
    assert code == 0
    assert out.startswith("#!/bin/sh")
    assert snapshot(root) == before
    subprocess.run(["sh", "-c", out], check=True, capture_output=True, timeout=60)
    assert (root / "proc/sys/vm/swappiness").read_text() == "10\n"


def test_explain(tune: Tune) -> None:
    code, out, _ = tune("explain", "vm.swappiness", "--profile", "prod")
    assert code == 0
    assert "source" in out
    assert "prod" in out
    assert json.loads(tune("explain", "vm.swappiness", "--json")[1])["knob"]["id"] == "vm.swappiness"


def killed(root: Path, mine: str, changes: int) -> None:
    """Apply in a process that is killed after so many changes."""
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        return
    try:
        put, done = FileDriver.write, []

        def write(driver: FileDriver, knob: Knob, place: Place, value: str) -> None:
            put(driver, knob, place, value)
            done.append(value)
            if len(done) == changes:
                os.kill(os.getpid(), signal.SIGKILL)

        FileDriver.write = write  # type: ignore[method-assign]
        run(["tune", "--profile", mine, "--yes", "--root", str(root)])
    finally:
        os._exit(1)


def test_measured_and_kept_only_where_it_helps(tmp_path: Path) -> None:
    result = in_namespace(
        f"""
import contextlib, io, json, os, time
from pathlib import Path
from types import SimpleNamespace
from tests.evidence_tree import Stated, in_pairs
from tvops import cli
from tvops.tuning.evidence import experiment, measuring
os.environ["TVOPS_STATE_DIR"] = {str(tmp_path / "state")!r}
os.environ["TVOPS_DATA_DIR"] = {str(tmp_path / "data")!r}
idle, corking = [Path("/proc/sys/net/ipv4", name) for name in ("tcp_slow_start_after_idle", "tcp_autocorking")]
experiment.make_schedule = in_pairs(10)
experiment.time = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None)  # nothing has to settle
measuring.choose_probes = lambda options, cpu: ([Stated(idle, microseconds=300)], [])

def tune(*words):
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())) as out:
        code = cli.run(["tune", *words, "--json"])
        out.seek(0)
        return code, json.load(out)

def measured(*words):
    mine = {profile(tmp_path, {"net.ipv4.tcp_slow_start_after_idle": 0, "net.ipv4.tcp_autocorking": 0})!r}
    code, document = tune("--profile", mine, "--yes", "--measure", "--keep", "helpful", *words)
    evidence = json.loads(Path(document["evidence"]["json"]).read_text())
    return [
        code, {{one["knob"]: one["verdict"] for one in evidence["measured"]}},
        {{item["id"]: item["reason"] for item in document["items"] if item["reason"]}},
        [run["kind"] for run in tune("history")[1]["runs"]], idle.read_text() + corking.read_text(),
    ]

result = [measured("--only", "*corking"), measured()]
"""
    )
    useless, both = result
    idle, corking = "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_autocorking"
    reasons = {corking: "did not measurably help here"}
    assert useless[:3] == [0, {corking: "no measurable effect"}, {idle: "not among --only", **reasons}]
    assert useless[3:] == [["measure"], "1\n1\n"]
    assert both[:3] == [0, {idle: "helps", corking: "no measurable effect"}, reasons]
    assert (sorted(both[3]), both[4]) == (["apply", "measure", "measure"], "0\n1\n")


def test_an_interrupted_run_is_found_and_undone_or_finished(root: Path, tune: Tune, tmp_path: Path) -> None:
    mine, before = profile(tmp_path), snapshot(root)
    killed(root, mine, 2)
    code, _, err = tune("--profile", mine, "--yes")
    assert code == 2
    assert "--recover undo" in err
    assert "interrupted" in tune("--profile", mine, "--check")[2]
    assert "interrupted" in tune("history")[1]
    assert tune("--recover", "undo")[0] == 0
    assert snapshot(root) == before
    killed(root, mine, 3)
    assert tune("--recover", "finish")[0] == 0
    assert tune("verify", "--profile", mine)[0] == 0
    assert tune("rollback")[0] == 0
    assert snapshot(root) == before


def test_persist_and_unpersist(root: Path, tune: Tune, tmp_path: Path) -> None:
    mine, before = profile(tmp_path), snapshot(root)
    code, out, _ = tune("persist", "--profile", mine, "--check")
    assert code == 3
    assert "+vm.swappiness" in out
    assert snapshot(root) == before
    assert tune("persist", "--profile", mine)[0] == 3, "nobody was asked"
    code, _, err = tune("persist", "--profile", mine, "--yes")
    assert code == 0
    assert "sysctl --system" in err
    assert "vm.swappiness" in (root / "etc/sysctl.d/90-tvops.conf").read_text()
    assert tune("persist", "--profile", mine, "--yes")[0] == 0
    assert tune("rollback")[1] == "there is nothing to undo\n", "files are taken away by unpersist"
    tune("--profile", mine, "--yes")
    assert tune("verify", "--profile", mine)[0] == 0
    written = (root / "etc/sysctl.d/90-tvops.conf").read_text()
    (root / "etc/sysctl.d/90-tvops.conf").write_text(written.replace("= 10", "= 60"))
    code, out, _ = tune("verify", "--profile", mine)
    assert code == 3
    assert "/etc/sysctl.d/90-tvops.conf: was changed since tvops wrote it" in out
    (root / "etc/sysctl.d/90-tvops.conf").write_text(written)
    tune("rollback")
    assert tune("unpersist", "--check")[0] == 3
    assert tune("unpersist")[0] == 0
    assert snapshot(root) == before
    assert tune("unpersist")[:2] == (0, "there is nothing to undo\n")


def test_what_files_and_arguments_hold_does_not_steer_a_terminal(root: Path, tune: Tune, tmp_path: Path) -> None:
    red = "\x1b[31m"
    assert red not in tune("--profile", f"non{red}esuch")[2]
    mine = profile(tmp_path)
    tune("persist", "--profile", mine, "--yes")
    persisted = root / "etc/sysctl.d/90-tvops.conf"
    persisted.write_text(f"vm.swappiness = {red}60\n\tx\n")
    code, out, _ = tune("persist", "--profile", mine, "--check")
    assert code == 3
    assert "-vm.swappiness = \\x1b[31m60\n-\tx\n" in out
    assert red not in out


def test_the_second_of_two_says_who_holds_the_lock(tune: Tune, tmp_path: Path) -> None:
    from tvops.tuning.journal import StateDirectory

    with StateDirectory(tmp_path / "state").lock(0, "tvops tune --profile other"):
        code, _, err = tune("--profile", profile(tmp_path), "--yes", "--wait", "0")
    assert code == 1
    assert "tvops tune --profile other" in err
    assert str(os.getpid()) in err
