"""The log that an embedded server writes: kept small, and asked for what the server said last."""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path

MAX_LOG_BYTES = 1 << 20
"""Size above which a server's log is cut; one older part is kept."""

_TAIL_BYTES = 8192
_PREFIX = re.compile(r"^\d+:\w .*? [*#.-] ")

logger = logging.getLogger(__name__)


class ServerLog:
    """The log of one server, at `path`."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self.path = path
        self._start = 0

    def open(self) -> int:
        """Give a descriptor for a process that starts now to write to; the caller closes it.

        Raises:
            OSError: it cannot be written.
        """
        self.bound()
        log = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._start = os.fstat(log).st_size
        return log

    def since_start(self) -> str:
        """Give what the process that started last has said, as far as it fits in a few pages."""
        return self._tail(self._start)

    def last_line(self) -> str:
        """Give the last line that says something, without time and process; "" where there is none."""
        lines = [line for line in self._tail(0).splitlines() if line.strip(" #*-=")]
        return _PREFIX.sub("", lines[-1]) if lines else ""

    def bound(self) -> None:
        """Cut the log in place, since the server keeps it open (for appending)."""
        try:
            if self.path.stat().st_size > MAX_LOG_BYTES:
                shutil.copyfile(self.path, self.path.with_suffix(".log.1"))
                os.truncate(self.path, 0)
        except FileNotFoundError:
            pass
        except OSError as error:
            logger.warning("%s: its log %s cannot be cut: %s", self._name, self.path, error)

    def _tail(self, start: int) -> str:
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(start if start <= size else 0, size - _TAIL_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""
