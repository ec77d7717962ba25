"""Runs command lines of tvops in the process of the test, which costs less than one of their own."""

from __future__ import annotations

import contextlib
import io
import subprocess

from tvops import cli


def tvops(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tvops` with these arguments; streams take bytes too, as those of a process do."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(list(arguments))
    shown, said = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(arguments, code, shown, said)
