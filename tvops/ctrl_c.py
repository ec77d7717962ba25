"""What Ctrl-C does to the `tvops` command.

A KeyboardInterrupt that is raised inside an import may be swallowed by a callback of importlib that holds the
global import lock, which then stays held: the next thread that imports waits for ever. It also comes out of C
extensions as some other error. So SIGINT raises KeyboardInterrupt here as it does in any Python program, but never
inside an import: it then comes again a moment later, until the import is done.

What takes the signal over itself does so as ever: asyncio.Runner, a loop's own handler, `tuning.interruption`.
"""

from __future__ import annotations

import signal
from types import FrameType

_IMPORTLIB = "<frozen importlib._bootstrap"
_MOMENT = 0.01  # seconds


def spare_imports() -> None:
    """Let SIGINT raise KeyboardInterrupt outside of imports only, unless it is ignored (nohup)."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    # asyncio takes SIGINT over from this handler only, and puts it back under this name
    signal.default_int_handler = _interrupt  # type: ignore[assignment]
    signal.signal(signal.SIGALRM, _come_again)
    signal.signal(signal.SIGINT, _interrupt)


def end_at_once() -> None:
    """Let SIGINT end the process from now on without a word: its work is done."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0)  # Python takes its handlers away before the process ends


def _interrupt(_: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTLIB):
            signal.setitimer(signal.ITIMER_REAL, _MOMENT)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _come_again(_: int, __: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)  # to whatever has taken it over meanwhile
