"""Files of the data directory that are for their owner only."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def write_private(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, for its owner only; raise OSError."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # of a write that was cut off, or put there by somebody
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    new.replace(path)


def open_private(path: Path) -> BinaryIO:
    """Open a file that `write_private` wrote; raise OSError, also for a pipe or a link put in its place."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(descriptor, "rb")


def read_private(path: Path, limit: int) -> bytes:
    """Read a plain file of our own user's, or root's, that nobody else may touch; raise OSError or ValueError."""
    with open_private(path) as file:
        found = os.fstat(file.fileno())
        trusted = {0, os.geteuid()} if os.geteuid() else {0, path.parent.stat().st_uid}
        if found.st_uid not in trusted or found.st_mode & 0o077:
            raise ValueError(f"{path} is not a file of this user's alone")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} has more than {limit} bytes")
    return data
