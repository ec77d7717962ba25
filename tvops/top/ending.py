"""How top ends: by a signal as by the key q, and never with the terminal left as its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
from types import FrameType
from typing import Final, Protocol

from tvops.signals import handled

PATIENCE: Final = 5.0
"""Seconds that the program has to end by itself after a signal: its terminal may be gone or take nothing more."""

_LEAVE: Final = (
    b"\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l"  # mouse
    b"\x1b[?2004l\x1b[?2048l\x1b[?7h"  # brackets around what is pasted, reports of the size; lines wrap again
    b"\x1b[<u"  # kitty's keyboard, before its screen is left
    b"\x1b[?1049l\x1b[?25h\x1b[?1004l"  # alternate screen, cursor, reports of the focus
)
"""What the driver of Textual writes as it stops."""


class Program(Protocol):
    """As a `textual.app.App`."""

    def run(self) -> object:
        """Run until the end, on an asyncio loop of its own."""

    def exit(self) -> None:
        """Have it end; on its loop."""


def run_to_the_end(program: Program) -> None:
    """Run a program on the terminal until it ends, which SIGINT, SIGTERM and SIGHUP ask it to, however often.

    A signal that is ignored stays so. The terminal is as before, also where an exception ends it.

    Raises:
        KeyboardInterrupt: it had not begun when a signal came, or did not end within `PATIENCE`.
    """

    def ask(_: int, __: FrameType | None) -> None:
        if not any(signal.getitimer(signal.ITIMER_REAL)):
            signal.setitimer(signal.ITIMER_REAL, PATIENCE, PATIENCE)
        try:
            asyncio.get_running_loop().call_soon_threadsafe(program.exit)
        except RuntimeError:
            raise KeyboardInterrupt from None

    attributes = termios.tcgetattr(sys.stdin)
    with handled(ask):
        signal.signal(signal.SIGALRM, _give_up)
        try:
            program.run()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except BaseException:
            with handled(lambda *_: None):  # it asks for what is under way
                _give_back(attributes)
            raise
        finally:
            # Where a thread is left that never ends, the timer still runs, and ends the process.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _give_up(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _give_back(attributes: list[int | list[bytes | int]]) -> None:
    """Leave the terminal as it was; wait for none that takes nothing."""
    screen = sys.stderr.fileno()
    with contextlib.suppress(termios.error):
        termios.tcsetattr(sys.stdin, termios.TCSANOW, attributes)
    with contextlib.suppress(OSError):
        os.set_blocking(screen, False)
        try:
            os.write(screen, _LEAVE)
        finally:
            os.set_blocking(screen, True)
