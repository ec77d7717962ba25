"""Hostile and broken input of tuning: each of these once ended in a traceback, a hang or a wrong word."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.machines import write
from tests.test_tune_command import Tune, profile
from tests.test_tune_command import root as root
from tests.test_tune_command import tune as tune
from tvops.cli import run
from tvops.cpu_lists import parse_cpus
from tvops.engine.bus.roles import ROLES
from tvops.engine.bus.server_tuning import objection
from tvops.engine.process_attributes import ATTRIBUTES
from tvops.errors import JournalError
from tvops.tuning.journal import StateDirectory
from tvops.tuning.kinds import redis_link
from tvops.tuning.kinds.redis_facts import server_facts
from tvops.tuning.kinds.redis_link import NOT_REDIS
from tvops.tuning.kinds.redis_servers import RedisServer
from tvops.tuning.records import Begin, FileWrite, encode_line

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


def serve_bytes(answer: bytes, forever: bool) -> tuple[socket.socket, str]:
    """Listen as a server that answers whatever it is asked with the same bytes, without end if ``forever``."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                with client, contextlib.suppress(OSError):
                    while client.recv(4096):
                        client.sendall(answer)
                        while forever:
                            client.sendall(answer[-65536:])

    threading.Thread(target=talk, daemon=True).start()
    return listener, f"redis://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("head", [b"$9000000000\r\n", b"*2000000000\r\n", b"+"])
def test_an_answer_without_end_takes_no_memory_without_end(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "ANSWER_BYTES", 2 << 20)
    monkeypatch.setattr(redis_link, "CALL_SECONDS", 60.0)
    listener, url = serve_bytes(head + b"x" * 65536, forever=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with listener:
        facts = server_facts(RedisServer("market", url))
    assert NOT_REDIS in facts.trouble
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


def test_numbers_of_a_server_that_nobody_can_read_are_unknown() -> None:
    info = f"redis_version:7.0.15\r\nused_memory:{LONG}\r\nmaxmemory:²\r\n".encode()
    listener, url = serve_bytes(b"$%d\r\n%s\r\n" % (len(info), info), forever=False)
    with listener:
        facts = server_facts(RedisServer("ledger", url))
    assert (facts.trouble, facts.used_memory, facts.maxmemory) == ("", None, None)


def test_what_a_server_or_host_shows_does_not_steer_the_terminal(root: Path, tune: Tune, tmp_path: Path) -> None:
    write(root, "/proc/sys/vm/swappiness", "\x1b[2J\x07 60\n")
    _, out, _ = tune("--profile", profile(tmp_path), "--check", "--diff")
    assert "\\x1b[2J\\x07 60" in out
    assert not {"\x1b", "\x07"} & set(out)


@pytest.mark.parametrize(
    ("begin", "path"), [({}, "etc/x"), ({}, "/etc/\0"), ({"at": 1e300}, "/etc/x"), ({"at": -1e18}, "/etc/x")]
)
def test_a_journal_that_leads_nowhere_is_damaged(
    root: Path, tune: Tune, tmp_path: Path, begin: dict[str, Any], path: str
) -> None:
    run_id = "20261121-103000-1a2b"
    fields: dict[str, Any] = {
        "at": 1.0,
        "pid": 1,
        "user": "u",
        "boot": "",
        "netns": "",
        "profile": "p",
        "command": "c",
    } | begin
    first = Begin(id=run_id, kind="persist", root=str(root), **fields)
    second = FileWrite(n=0, path=path, content=b"", mode=0o644, before=b"x")
    journals = tmp_path / "state" / "journal"
    journals.mkdir(parents=True, mode=0o700)
    (journals / f"{run_id}.jsonl").write_bytes(encode_line(0, first) + encode_line(1, second))
    assert tune("history")[0] == 0
    for command in (["rollback", run_id, "--yes"], ["--recover", "undo"]):
        code, _, message = tune(*command)
        assert code == 1, command
        assert f"{run_id}.jsonl line " in message
        assert "is damaged" in message


def test_interrupts_of_a_big_host_are_planned_in_one_reading_of_its_cpus(
    root: Path, tune: Tune, tmp_path: Path
) -> None:
    write(root, "/sys/devices/system/cpu/online", "0-4095\n")
    for number in range(60):
        write(root, f"/proc/irq/{number}/smp_affinity_list", "0-4095\n")
    parse_cpus.cache_clear()
    code, out, _ = tune("--profile", profile(tmp_path, {"irq.smp_affinity": "0-2047"}), "--check", "--json")
    assert (code, json.loads(out)["counts"]) == (3, {"pending": 60})
    assert parse_cpus.cache_info().misses < 20


@pytest.mark.parametrize("value", ["-1", "1000000001"])
def test_a_timer_slack_that_lets_no_sleep_end_is_refused(value: str) -> None:
    slack = ATTRIBUTES["timer_slack"]
    before = slack.read(os.getpid())
    with pytest.raises(OSError, match="a timer slack is 0 to"):
        slack.write(os.getpid(), value)
    assert slack.read(os.getpid()) == before


@pytest.mark.parametrize("value", ["1000000000", LONG, "-1", "0", "many"])
def test_a_server_is_not_started_with_clients_that_it_could_never_have(value: str) -> None:
    assert "must be 1 to 1000000" in objection(ROLES["market"], "maxclients", value)
    assert objection(ROLES["market"], "maxclients", "10000") == ""
