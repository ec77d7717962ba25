"""What Ctrl-C does to the `tvops` command.

A KeyboardInterrupt that is raised inside an import may be swallowed by a callback of importlib that holds the
global import lock, which then stays held: the next thread that imports waits for ever. It also comes out of C
extensions as some other error. So SIGINT raises KeyboardInterrupt here as it does in any Python program, but one
that comes inside an import takes effect when that import is done, and where that takes long, the next one at once.

What takes the signal over itself does so as ever: asyncio.Runner, a loop's own handler, `tuning.interruption`.
"""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType
from typing import Final

PATIENCE: Final = 1.0
"""Seconds after which a further Ctrl-C does not wait for an import: it may hang."""

_IMPORTLIB: Final = "<frozen importlib._bootstrap"
_deferred: list[float] = []
"""When the one that waits for an import came, monotonic s."""


def spare_imports() -> None:
    """Let SIGINT raise KeyboardInterrupt outside of imports only, unless it is ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    # asyncio takes SIGINT over from this handler only, and puts it back under this name
    signal.default_int_handler = interrupt  # type: ignore[assignment]
    signal.signal(signal.SIGINT, interrupt)


def end_at_once() -> None:
    """Let SIGINT end the process from now on without a word: its work is done."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: raise KeyboardInterrupt, or inside of an import have it handled at its end."""
    outermost = None
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTLIB):
            outermost = frame
        frame = frame.f_back
    if outermost is None or (_deferred and time.monotonic() - _deferred[0] >= PATIENCE):
        _deferred.clear()
        raise KeyboardInterrupt
    if not _deferred:
        _deferred.append(time.monotonic())
        _interrupt_after(outermost, number)


def _interrupt_after(awaited: FrameType, number: int) -> None:
    """Have the signal handled as soon as the function of this frame returns, as if it came then."""

    def follow(frame: FrameType, event: str, _: object) -> None:
        if frame is awaited and event == "return":
            sys.setprofile(None)
            _deferred.clear()
            handler = signal.getsignal(number)
            if callable(handler):
                handler(number, frame.f_back)

    sys.setprofile(follow)
