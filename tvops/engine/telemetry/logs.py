"""The one logger set-up: lines on stderr, `time level name: message`, UTC."""

from __future__ import annotations

import logging
import sys
import time


class _PresentStderr:
    """Stderr as it is when a line is written: a live status line on the terminal takes its place for a while."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def set_up_logging(level: str, name: str) -> None:
    """Log to stderr from `level` up; ``name`` says which process a line comes from."""
    handler = logging.StreamHandler(_PresentStderr())
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)s {name} %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("uvicorn", "picows", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
