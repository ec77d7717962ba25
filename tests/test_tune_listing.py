"""Plans as text: a table on a wide terminal, two lines a knob on a narrow one, and a reader that goes away."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.machines import make_machine, write

KNOBS = """
description: for a test
knobs:
  net.core.rmem_max: ">=16mb"
  net.ipv4.tcp_rmem: "- - >=16mb"
  net.ipv4.tcp_slow_start_after_idle: 0
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    make_machine(tmp_path / "root")
    write(tmp_path / "root", "/proc/sys/net/core/rmem_max", "212992\n")
    write(tmp_path / "root", "/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n")
    write(tmp_path / "root", "/proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n")
    (tmp_path / "mine.yaml").write_text(KNOBS)
    where = ["--root", str(tmp_path / "root"), "--profile", str(tmp_path / "mine.yaml")]
    return [sys.executable, "-m", "tvops", "tune", "--check", *where]


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    return {**kept, "TERM": "xterm-256color", "TVOPS_STATE_DIR": str(folder / "state"), **more}


def on_terminal(command: list[str], folder: Path, columns: int, **more: str) -> str:
    """Run a command on a terminal that is so wide; give what it showed."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(folder, **more)
    )
    os.close(theirs)
    shown = b""
    try:
        while select.select([ours], [], [], 60)[0]:
            shown += os.read(ours, 65536)
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert process.wait(60) == 3, shown
    return shown.decode().replace("\r\n", "\n")


def plain_lines(shown: str) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()]


def test_a_narrow_terminal_gets_two_lines_a_knob_and_no_colour_against_the_wish(
    command: list[str], tmp_path: Path
) -> None:
    shown = on_terminal(command, tmp_path, 80, NO_COLOR="1")
    assert "\x1b[33m" not in shown
    lines = plain_lines(shown)
    assert all(len(line) <= 80 for line in lines)
    at = lines.index("net.ipv4.tcp_slow_start_after_idle  1 → 0")
    assert lines[at + 1].strip().startswith("pending, safe, netns: 0 keeps the congestion window")
    assert lines[at + 2].startswith("    ")


def test_a_wide_terminal_gets_a_table_in_colour(command: list[str], tmp_path: Path) -> None:
    shown = on_terminal(command, tmp_path, 170)
    assert "\x1b[33mpending" in shown
    lines = plain_lines(shown)
    assert lines[0].split() == ["knob", "current", "→", "wanted", "state", "risk", "scope", "why"]
    [row] = [line for line in lines if line.startswith("net.ipv4.tcp_slow_start_after_idle")]
    assert row.split()[1:7] == ["1", "→", "0", "pending", "safe", "netns"]


def test_a_pipe_gets_no_colour(command: list[str], tmp_path: Path) -> None:
    piped = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path), timeout=60)
    assert "\x1b" not in piped.stdout
    assert "how far TCP receive autotuning may go" in piped.stdout, "nothing is folded in a pipe"


def test_a_reader_that_goes_away_is_no_failure_of_tuning(command: list[str], tmp_path: Path) -> None:
    for more in ([], ["--json"]):
        reads, writes = os.pipe()
        os.close(reads)
        gone = subprocess.run(
            [*command, *more], stdout=writes, stderr=subprocess.PIPE, env=environment(tmp_path), timeout=60
        )
        os.close(writes)
        assert (gone.returncode, gone.stderr) == (141, b"")
