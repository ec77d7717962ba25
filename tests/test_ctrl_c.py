"""Ctrl-C while a command starts: it ends with one plain line, whatever it was importing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.stack import free_ports

START = """
from tvops import __main__
spare_imports = __main__.spare_imports
__main__.spare_imports = lambda: (spare_imports(), print(flush=True))
__main__.main()
"""
"""What the installed script does; it says when it has begun, before which Ctrl-C is Python's own business."""

ENDS = (130, -signal.SIGINT, 0)
"""The last two are of a command that has done its work."""

WITHIN_IMPORTLIB = """
import _imp, signal, sys, threading
from tvops.__main__ import main

take, left = _imp.acquire_lock, [int(sys.argv.pop(1))]

def take_and_be_interrupted():
    take()
    if sys._getframe(1).f_code.co_name == "cb":  # of _get_module_lock
        left[0] -= 1
        if not left[0]:
            signal.raise_signal(signal.SIGINT)

_imp.acquire_lock = take_and_be_interrupted
try:
    main()
finally:
    other = threading.Thread(target=lambda: __import__("imaplib"), daemon=True)
    other.start()
    other.join(30)
    print("hangs" if other.is_alive() else "goes on")
"""


@pytest.mark.parametrize("n", [1, 150])
def test_no_import_is_interrupted_while_it_holds_the_import_lock(n: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHIN_IMPORTLIB, str(n), "settings"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "ignored" in done.stderr) == (130, False), done.stderr
    assert done.stdout.endswith("goes on\n")


HANGING = """
import os, sys, threading, time, signal
from tvops import ctrl_c

ctrl_c.PATIENCE = 0.1
ctrl_c.spare_imports()
sys.path.insert(0, sys.argv[1])

def press():
    while "hangs_for_ever" not in sys.modules:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    while not ctrl_c._deferred:
        time.sleep(0.01)
    time.sleep(2 * ctrl_c.PATIENCE)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press, daemon=True).start()
try:
    import hangs_for_ever
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_import_that_hangs_can_be_interrupted(tmp_path: Path) -> None:
    (tmp_path / "hangs_for_ever.py").write_text("import threading\nthreading.Event().wait()\n")
    command = [sys.executable, "-c", HANGING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def interrupted(command: list[str], seconds: float) -> tuple[int, str]:
    """Start a command, interrupt it so long after its begin, and give its exit code and what it told."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def test_a_start_can_be_interrupted_at_any_moment(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(os.cpu_count()) as pool:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        runs = []
        for n in range(9):
            gateway, market = map(str, free_ports(2))
            ports = ["--gateway-port", gateway, "--market-port", market]
            serve = ["serve", "--data-dir", str(tmp_path / str(n)), *ports]
            slo = ["slo", "--gateway", url, "--market", url, "--watch", "60"]  # not to end by itself before
            runs.append(((["settings"], slo, serve)[n % 3], n * 0.025))  # `settings` is through after some 0.2 s
        ended = pool.map(interrupted, *zip(*runs, strict=True))
        for run, (code, told) in zip(runs, ended, strict=True):
            assert code in ENDS, (run, told)
            assert "Traceback" not in told, (run, told)
            assert "ignored" not in told, (run, told)
