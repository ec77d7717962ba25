"""Signals to `tvops top`: it ends by itself, and the terminal is the user's again. On real pseudo-terminals."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import free_port

UNHURRIED = """
from tvops.__main__ import main
from tvops.top import ending

ending.PATIENCE = 60.0
main()
"""
"""`tvops` on a machine that may take its time: what does not end within the patience ends otherwise."""

MODES = re.compile(rb"\x1b\[\?(1000|1003|1006|1049|2004|25|7)([hl])")

STUCK = """
import asyncio, os, signal, sys, termios, threading, time
from tvops.top import ending

class Stuck:
    def run(self):
        attributes = termios.tcgetattr(0)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, attributes)
        print("\\x1b[?1049h\\x1b[?1000h\\x1b[?25l", file=sys.stderr, flush=True)
        threading.Thread(target=time.sleep, args=(60,)).start()
        asyncio.run(self.hang())
    async def hang(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    def exit(self):
        pass

ending.PATIENCE = 4.0  # also from the first KeyboardInterrupt to the end: it has to be told by then
ending.run_to_the_end(Stuck())
"""


class Terminal:
    """A terminal, the program on it, and what that wrote."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.attributes = termios.tcgetattr(self.slave)
        self.written = b""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TERM": "xterm-256color", "XDG_CONFIG_HOME": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, env=environment, start_new_session=True,
        )  # fmt: skip
        return self.process

    def read(self, until: bytes = b"\0") -> None:
        """Take in what is written, until these bytes or the end of the process."""
        deadline = time.monotonic() + 60
        while until not in self.written and time.monotonic() < deadline:
            ended = self.process and self.process.poll() is not None  # asked first: then all is there to be read
            if select.select([self.master], [], [], 0 if ended else 0.05)[0]:
                self.written += os.read(self.master, 1 << 16)
            elif ended:
                break

    def waiting(self) -> bytes:
        """Take in what has been written by now; give all of it."""
        while select.select([self.master], [], [], 0)[0]:
            self.written += os.read(self.master, 1 << 16)
        return self.written

    def modes(self) -> dict[bytes, bytes]:
        """Give what each mode was set to at last."""
        return dict(MODES.findall(self.written))


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    if terminal.process and terminal.process.poll() is None:
        terminal.process.kill()
        terminal.process.wait()
    os.close(terminal.master)
    os.close(terminal.slave)


ORDINARY = {b"1000": b"l", b"1003": b"l", b"1006": b"l", b"1049": b"l", b"2004": b"l", b"25": b"h", b"7": b"h"}


@pytest.mark.parametrize(
    "signals", [(signal.SIGINT, signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGHUP)]
)
def test_signals_end_top_as_the_key_does(
    signals: tuple[signal.Signals, ...], terminal: Terminal, tmp_path: Path
) -> None:
    in_time = False
    while not in_time:
        terminal.written = b""
        process = terminal.start(tmp_path, "-c", UNHURRIED, "top", f"http://127.0.0.1:{free_port()}")
        terminal.read(until=b"?1049h")
        for number in signals:
            process.send_signal(number)
            time.sleep(0.01)
        # Where the test was held up, the last one found a program that was over, and ended what was left of it.
        in_time = b"?1049l" not in terminal.waiting()
        terminal.read()
        code = process.wait(60)
        assert code == 0 or not in_time, terminal.written
        assert terminal.modes() == ORDINARY
        assert b"Traceback" not in terminal.written
        assert termios.tcgetattr(terminal.slave) == terminal.attributes


def test_a_program_that_does_not_end_is_ended_and_its_terminal_given_back(
    terminal: Terminal, tmp_path: Path
) -> None:
    process = terminal.start(tmp_path, "-c", STUCK)
    terminal.read()
    assert process.wait(60) == -signal.SIGALRM  # a thread of it was left
    assert b"KeyboardInterrupt" in terminal.written
    assert terminal.modes() == ORDINARY
    assert termios.tcgetattr(terminal.slave) == terminal.attributes
