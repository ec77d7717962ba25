"""Signals that ask a run to stop: held back until it stands between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType

from tvops.errors import StoppedError
from tvops.signals import handled


class Interruption:
    """Within it the first signal is remembered for `check`; a second one is a KeyboardInterrupt at once.

    Outside of the main thread it holds nothing back.
    """

    def __init__(self) -> None:
        self._number = 0
        self._endings = contextlib.ExitStack()

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._endings.enter_context(handled(self._take))
        return self

    def __exit__(self, *_: object) -> None:
        self._endings.close()

    def _take(self, number: int, _: FrameType | None) -> None:
        if self._number:
            raise KeyboardInterrupt
        self._number = number

    def check(self) -> None:
        """Raise StoppedError if a signal came."""
        if self._number:
            raise StoppedError(f"stopped by {signal.Signals(self._number).name}")
