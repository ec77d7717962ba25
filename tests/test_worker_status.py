"""The status lines of a worker whose supervisor is busy."""

from __future__ import annotations

import contextlib
import fcntl
import os

import msgspec
import pytest

from tvops.engine.worker import Status, StatusPipe


def test_a_supervisor_that_was_busy_reads_whole_lines() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 16384)  # what is over PIPE_BUF may be cut
    pipe = StatusPipe(writer)
    taken: list[int] = []
    read = b""
    for pid in range(1, 100):
        try:
            pipe.write(Status(pid=pid, ready=True, services={"gateway": ("ok", "x" * (size * 2 // 3))}))
            taken.append(pid)
        except BlockingIOError:
            with contextlib.suppress(BlockingIOError):
                read += os.read(reader, size * pid // 100)  # from next to nothing to all that there is
    assert 20 < len(taken) < 80, "it was not busy"
    while not read.endswith(b"\n"):
        with contextlib.suppress(BlockingIOError):
            pipe.write(Status(pid=100, ready=True))
            taken.append(100)
        with contextlib.suppress(BlockingIOError):
            read += os.read(reader, size)
    lines = read.splitlines()
    assert [msgspec.json.decode(line, type=Status).pid for line in lines] == taken[: len(lines)]
    assert len(lines) >= 20
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        pipe.write(Status(pid=1, ready=True))
    os.close(writer)
