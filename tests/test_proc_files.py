"""The kernel's files, read from the kernel's own."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from tvops.engine.telemetry import proc_files

MAPS = "/proc/self/maps"  # some pages long, of which the kernel gives one a read
NO_PID = 1 << 30  # above any that the kernel gives


def test_a_file_that_comes_in_pieces_is_read_whole() -> None:
    found, whole = proc_files.read(MAPS), Path(MAPS).read_bytes()
    assert len(whole) > 2 * 4096
    assert found.splitlines()[-1] == whole.splitlines()[-1]


def test_no_more_is_read_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc_files, "_MOST_BYTES", 6000)
    assert len(proc_files.read(MAPS)) == 6000
    assert len(proc_files.read("/dev/zero")) == 6000


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    assert proc_files.read(tmp_path / "missing") == b""
    assert proc_files.read(tmp_path) == b""


def test_a_pipe_without_data_does_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert proc_files.read(pipe) == b""
    writer = os.open(pipe, os.O_RDWR)
    assert proc_files.read(pipe) == b""
    os.close(writer)


def test_memory_is_as_psutil_sees_it() -> None:
    before = psutil.Process().memory_full_info()
    resident, proportional = proc_files.resident(os.getpid()), proc_files.proportional(os.getpid())
    after = psutil.Process().memory_full_info()  # pages are shared with other processes, which come and go
    assert 0.8 * min(before.rss, after.rss) <= resident <= 1.2 * max(before.rss, after.rss)
    assert 0.8 * min(before.pss, after.pss) <= proportional <= 1.2 * max(before.pss, after.pss)


def test_a_process_that_is_not_there_has_no_memory() -> None:
    assert proc_files.resident(NO_PID) == 0
    assert proc_files.proportional(NO_PID) == 0
