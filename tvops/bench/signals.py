"""One Ctrl-C (or SIGTERM, or a terminal that goes away) ends a command of bench in good order.

What has been started is ended within seconds, and everything that a run has put into a stack or a folder is taken
back. A signal in the middle of that would leave some of it behind: those that follow can shorten the waiting for
generators (`tvops.bench.interruption`), and nothing else.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from tvops.ctrl_c import interrupt
from tvops.signals import SIGNALS, handled


@contextlib.contextmanager
def first_interrupt_only() -> Iterator[None]:
    """Let the first signal raise KeyboardInterrupt, and have those that follow ignored until the process ends."""

    def first(number: int, frame: FrameType | None) -> None:
        try:
            interrupt(number, frame)  # which may put it off, as inside of an import
        except KeyboardInterrupt:
            ignore()
            raise

    with handled(first):
        yield


def ignore() -> None:
    """Ignore all of them until the process ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
