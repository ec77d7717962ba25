"""A generator that shares its core asks for its turn at once."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tvops.bench.turns import SLICE

_ASK_AND_LOOK = """
import ctypes, os
from tvops.bench.turns import _Attributes, ask_for_short_slices
os.nice(3)
taken = ask_for_short_slices()
seen = _Attributes()
ctypes.CDLL(None).syscall({call}, 0, ctypes.byref(seen), ctypes.sizeof(seen), 0)
print(int(taken), seen.policy, seen.nice, seen.runtime)
"""
_READS = {"x86_64": 315, "aarch64": 275}


@pytest.mark.skipif(platform.machine() not in _READS, reason="sched_getattr(2) has another number here")
def test_the_kernel_gives_shorter_slices_and_leaves_the_niceness() -> None:
    code = _ASK_AND_LOOK.format(call=_READS[platform.machine()])
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    taken, policy, nice, runtime = map(int, found.stdout.split())
    assert (taken, policy, nice) == (1, 0, 3)
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 12):
        pytest.skip(f"Linux {platform.release()} has no slices of a task's own")
    assert runtime == SLICE
