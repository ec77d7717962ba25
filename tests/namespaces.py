"""Runs code in a network namespace of its own, where it may change what it likes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

_HEAD = "import json, subprocess\n"
_TAIL = "\nprint(json.dumps(result))\n"


def in_namespace(code: str, own_users: bool = False) -> Any:
    """Run ``code`` in new network and mount namespaces and give what it leaves in ``result``.

    ``own_users``: in a user namespace too, as root there and without any right outside. Skips the test where that
    is not permitted.
    """
    unshare = _unshare(own_users)
    run = subprocess.run(
        [*unshare, sys.executable, "-c", _HEAD + code + _TAIL], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@cache
def _unshare(own_users: bool) -> list[str]:
    command = ["unshare", "-n", "-m"]
    if own_users or os.geteuid() != 0:
        command += ["-U", "-r"]
    for tool in ("unshare", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    tried = subprocess.run([*command, sys.executable, "-c", "import tvops"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no network namespace here: {tried.stderr.strip().splitlines()[-1]}")
    return command
