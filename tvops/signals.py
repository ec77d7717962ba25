"""The signals that ask a command to end: Ctrl-C, SIGTERM, and a terminal that goes away."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heeded() -> list[signal.Signals]:
    """Give those that are neither ignored, as nohup and ``tvops … &`` in a script have it, nor handled by C."""
    return [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]


@contextlib.contextmanager
def handled(by: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have the signals handled meanwhile; for the main thread only.

    One that is ignored stays so, and so does one that comes to be meanwhile.
    """
    before = {number: signal.signal(number, by) for number in heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)
