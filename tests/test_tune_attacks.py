"""Hostile and broken input of tuning: each of these once ended in a traceback, a hang or a wrong word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machines import write
from tests.test_tune_command import Tune, profile
from tests.test_tune_command import root as root
from tests.test_tune_command import tune as tune
from tvops.cli import run
from tvops.errors import JournalError
from tvops.tuning.journal import StateDirectory

LONG = "9" * 5000  # more digits than int() takes


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = run([*arguments])
    message = capsys.readouterr().err
    assert message.count("\n") == 1, message
    return code, message


def test_an_argument_that_is_not_text_is_an_error_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    code, message = told(capsys, "tune", "--check", "--profile", "dev", "--set", "vm.swappiness@\udcff=1")
    assert code == 2
    assert "is not UTF-8 text" in message


@pytest.mark.parametrize("path", ["a" * 5000, "/dev/null"])
def test_a_root_that_can_be_none_is_named(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = told(capsys, "tune", "--check", "--profile", "dev", "--root", path)
    assert code == 2
    assert f"--root {path}" in message


def test_settings_without_end_are_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    code, message = told(capsys, "tune", "--check", "--profile", "dev", "--config", "/dev/zero")
    assert code == 2
    assert "settings file /dev/zero: is not a regular file" in message


def test_settings_that_are_nested_without_end_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("[" * 100_000)
    code, message = told(capsys, "tune", "--check", "--profile", "dev", "--config", str(path))
    assert code == 2
    assert f"{path}:1: nested more than 16 deep" in message


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/proc/sys/kernel/osrelease", LONG),
        ("/proc/meminfo", f"MemTotal: {LONG} kB\n"),
        ("/proc/self/status", "Cpus_allowed_list: what\n"),
        ("/sys/class/net/eth0/device/numa_node", "²\n"),
        ("/sys/devices/system/node/node1x/cpulist", "0\n"),
        ("/sys/fs/cgroup/memory.max", f"{LONG}\n"),
        ("/sys/fs/cgroup/memory.max", "²\n"),
    ],
)
def test_a_tree_with_odd_facts_is_planned_like_one_without(
    root: Path, tune: Tune, tmp_path: Path, path: str, text: str
) -> None:
    write(root, "/proc/self/cgroup", "0::/\n")
    write(root, "/sys/devices/system/node/node1/cpulist", "0-1\n")  # so that the interface's node counts
    mine = profile(tmp_path)
    assert tune("--profile", mine, "--check")[0] == 3
    write(root, path, text)
    assert tune("--profile", mine, "--check")[0] == 3


def test_a_mask_that_is_none_cannot_be_put_back_by_a_script(root: Path, tune: Tune, tmp_path: Path) -> None:
    write(root, "/proc/irq/default_smp_affinity", "nonsense\n")
    code, script, _ = tune("--profile", profile(tmp_path), "--script")
    assert code == 0
    assert "left out: irq.default_smp_affinity" in script


def test_an_interface_whose_name_is_not_text_is_left_out(root: Path, tune: Tune, tmp_path: Path) -> None:
    for name in ("eth1", os.fsdecode(b"\xff\xfe")):
        (root / f"sys/class/net/{name}/device").mkdir(parents=True)
        write(root, f"/sys/class/net/{name}/queues/rx-0/rps_cpus", "0\n")
    mine = profile(tmp_path, {"nic.rps_cpus": "0-1"})
    code, out, _ = tune("--profile", mine, "--yes", "--json")
    assert code == 0
    assert [item["place"]["name"] for item in json.loads(out)["items"]] == ["eth1-rx-0"]


def test_a_pipe_in_the_place_of_a_firmware_table_holds_nobody_up(root: Path, tune: Tune, tmp_path: Path) -> None:
    write(root, "/proc/cpuinfo", "flags : fpu hypervisor\n")
    (root / "sys/firmware/acpi/tables").mkdir(parents=True)
    os.mkfifo(root / "sys/firmware/acpi/tables/FACP")
    assert tune("--profile", profile(tmp_path), "--check")[0] == 3


def in_shell(text: str, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which $TVOPS is `tvops` and $ROOT the tree."""
    variables = os.environ | {"TVOPS": f"{sys.executable} -m tvops", "ROOT": str(root)} | environment
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, env=variables, timeout=60)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("$TVOPS tune --profile $MINE --root $ROOT >&- 2>&- <&-", 3, ""),
        ("$TVOPS tune --profile $MINE --root $ROOT --check >/dev/full", 1, "the output: No space left on device"),
        ("$TVOPS --version >/dev/full", 1, "the output: No space left on device"),
        ("$TVOPS tune --nope 2>/dev/full", 2, ""),
        ("PYTHONIOENCODING=ascii $TVOPS tune --profile $MINE --root $ROOT --check", 3, ""),
    ],
)
def test_streams_that_are_closed_full_or_narrow_end_in_no_traceback(
    root: Path, tmp_path: Path, line: str, code: int, message: str
) -> None:
    done = in_shell(line, root, MINE=profile(tmp_path))
    assert done.returncode == code
    assert done.stderr == (f"tvops: {message}\n" if message else "")


@pytest.mark.parametrize("name", ["99991231-235959-ffff", "20269921-103000-1a2b"])
def test_a_journal_whose_name_no_run_can_follow_is_named(
    root: Path, tune: Tune, tmp_path: Path, name: str
) -> None:
    journals = tmp_path / "state" / "journal"
    journals.mkdir(parents=True, mode=0o700)
    (journals / f"{name}.jsonl").touch()
    before = (root / "proc/sys/vm/swappiness").read_text()
    code, _, message = tune("--profile", profile(tmp_path), "--yes")
    assert code == 1
    assert f"{name}.jsonl: its name is no time" in message
    assert (root / "proc/sys/vm/swappiness").read_text() == before


def test_a_lock_that_may_not_be_looked_at_is_a_plain_error(root: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    (tmp_path / "state").mkdir(mode=0o700)
    state = StateDirectory(tmp_path / "state")
    os.seteuid(65534)
    try:
        assert state.holder() == ""
        with pytest.raises(JournalError, match="Permission denied"):
            state.runs()
    finally:
        os.seteuid(0)
