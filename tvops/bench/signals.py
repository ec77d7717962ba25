"""One Ctrl-C (or SIGTERM) ends a command of bench in good order; those that follow it change nothing.

What has been started is ended within seconds, and everything that a run has put into a stack or a folder is taken
back. A signal in the middle of that would leave some of it behind.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def first_interrupt_only() -> Iterator[None]:
    """Let the first signal raise KeyboardInterrupt, and have those that follow ignored until the process ends.

    Where SIGINT is ignored (nohup), nothing is changed.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    if not callable(interrupt):
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        try:
            interrupt(number, frame)  # which may put it off, as inside of an import
        except KeyboardInterrupt:
            ignore()
            raise

    with handled(first):
        yield


def ignore() -> None:
    """Ignore both signals until the process ends."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def handled(by: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have both signals handled meanwhile; where one came and all are ignored since, that stays."""
    before = {number: signal.signal(number, by) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is by:
                signal.signal(number, handler)
