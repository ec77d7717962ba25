"""The lock of the state directory: one run of tuning at a time, and who it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tvops.errors import HeldError, JournalError

_GRACE = 0.2  # seconds that `held` tries at least: `holder` takes the lock for a moment


class Lock:
    """An flock, so that a crash lets go of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "lock"

    @contextlib.contextmanager
    def held(self, wait_seconds: float, about: str) -> Iterator[None]:
        """Hold the lock; raise HeldError naming who still has it after ``wait_seconds``, JournalError."""
        fd = self._open(os.O_RDWR | os.O_CREAT)
        try:
            self._take(fd, wait_seconds)
            with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"pid {os.getpid()} ({about})\n{datetime.now():%H:%M:%S}".encode()[:2000], 0)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, 0)
        finally:
            os.close(fd)

    def _open(self, flags: int) -> int:
        try:
            return os.open(self._path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(
                f"lock {self._path}: {error.strerror}; name another directory with TVOPS_STATE_DIR"
            ) from None

    def _take(self, fd: int, wait_seconds: float) -> None:
        deadline = time.monotonic() + max(wait_seconds, _GRACE)
        while not _try(fd, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                who, _, since = _read(fd).partition("\n")
                raise HeldError(
                    f"tune: {who} holds {self._directory}{since and f' since {since}'}; wait for it to end"
                )
            time.sleep(0.02)

    def holder(self) -> str:
        """Tell who holds the lock; empty where nobody does. Raises JournalError."""
        if not os.path.lexists(self._path):
            return ""
        fd = self._open(os.O_RDONLY)
        try:
            return "" if _try(fd, fcntl.LOCK_SH) else _read(fd).partition("\n")[0]
        finally:
            os.close(fd)


def _try(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> str:
    return os.pread(fd, 2000, 0).decode(errors="replace") or "another process"
