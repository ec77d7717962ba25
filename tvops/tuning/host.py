"""File access below a root: the running host, or a tree of files that stands for one (`--root DIR`).

Paths are absolute and mean the host, whatever its root. Below a tree they are resolved as in a chroot: neither
`..` nor a symbolic link leads out of it. Failures are OSErrors, as the kernel gives them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tvops.errors import UsageError

LIMIT = 64 << 10
PROC_LIMIT = 1 << 20  # /proc/interrupts and /proc/cpuinfo of a big host
_MAX_LINKS = 40  # as the kernel's own
_NEW = ".tvops-new"  # one fixed suffix: what a crash leaves behind, the next write of the same file takes away


class Host:
    """The files of a host."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Take ``root`` for `/`; raise UsageError where it is not a directory."""
        try:
            found = root.is_dir()
        except OSError as error:
            raise UsageError(f"--root {root}: {error.strerror}") from None
        if not found:
            raise UsageError(f"--root {root}: is not a directory")
        self.root = root.resolve()

    @property
    def live(self) -> bool:
        """Whether this is the running host, not a tree of files."""
        return self.root == Path("/")

    def path(self, absolute: str, follow: bool = True) -> Path:
        """Give where a path of the host really is; its last link stays unfollowed without ``follow``.

        What does not exist is named where it would be. Raises OSError (ELOOP).
        """
        if not absolute.startswith("/"):
            raise ValueError(f"{absolute!r} is not an absolute path")
        if self.live:
            return Path(absolute)
        pending = list(reversed(PurePosixPath(absolute).parts[1:]))
        found = self.root
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                found = found if found == self.root else found.parent
                continue
            step = found / part
            if (pending or follow) and step.is_symlink():
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), absolute)
                goal = step.readlink()
                if goal.is_absolute():
                    found = self.root
                pending += reversed(goal.parts[1:] if goal.is_absolute() else goal.parts)
            else:
                found = step
        return found

    def exists(self, absolute: str) -> bool:
        """Tell whether something is there; also where the caller may not look."""
        try:
            return self.path(absolute).exists()
        except PermissionError:
            return True
        except OSError:
            return False

    def listdir(self, absolute: str) -> list[str]:
        """Give the names in a directory, sorted; nothing where there is no such directory.

        A name that is not UTF-8 is left out: neither a journal nor JSON could hold it.
        """
        try:
            return sorted(entry.name for entry in self.path(absolute).iterdir() if is_text(entry.name))
        except OSError:
            return []

    def readlink(self, absolute: str) -> str:
        """Give what a symbolic link says; raise OSError."""
        return str(self.path(absolute, follow=False).readlink())

    def glob(self, pattern: str) -> list[str]:
        """Give the existing paths that a pattern (`*`, `?`, `[...]` within a component) names, sorted."""
        found = [""]
        for part in PurePosixPath(pattern).parts[1:]:
            if any(mark in part for mark in "*?["):
                hidden = part.startswith(".")
                found = [
                    f"{folder}/{name}"
                    for folder in found
                    for name in self.listdir(folder or "/")
                    if fnmatchcase(name, part) and (hidden or not name.startswith("."))
                ]
            else:
                found = [f"{folder}/{part}" for folder in found]
        return [path for path in found if self.exists(path)]

    def read_text(self, absolute: str, limit: int = 0) -> str:
        """Read a whole plain file, to the byte; raise OSError.

        ``limit`` is in bytes: 64 KiB without one, 1 MiB below /proc; a longer file is an OSError (EFBIG), one that
        is not UTF-8 another (EILSEQ).
        """
        limit = limit or (PROC_LIMIT if absolute.startswith("/proc/") else LIMIT)
        # O_NONBLOCK: a pipe that somebody put there must not hold us up.
        fd = os.open(self.path(absolute), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_plain(fd, absolute)
            data = b""
            while chunk := os.read(fd, limit + 1 - len(data)):
                data += chunk
                if len(data) > limit:
                    raise OSError(errno.EFBIG, f"is longer than {limit} bytes", absolute)
        finally:
            os.close(fd)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise OSError(errno.EILSEQ, "is not text", absolute) from None

    def write_text(self, absolute: str, text: str) -> None:
        """Give an existing file new content; raise OSError.

        On the running host this is one write(2), as kernel files want it. In a tree the file is replaced, durably.
        """
        if not self.live:
            found = self.path(absolute)
            now = found.stat()
            if not now.st_mode & 0o222:  # a kernel file without a write bit refuses root as well
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), absolute)
            _replace(found, text.encode(), stat.S_IMODE(now.st_mode), (now.st_uid, now.st_gid))
            return
        fd = os.open(absolute, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_plain(fd, absolute)
            data = text.encode()
            if os.write(fd, data) != len(data):
                raise OSError(errno.EIO, "took a part of the value only", absolute)
        finally:
            os.close(fd)

    def replace(self, absolute: str, data: bytes, mode: int, owner: tuple[int, int]) -> None:
        """Make or replace an ordinary file (not one of the kernel's), durably; raise OSError.

        The directory has to exist. A link at its end is replaced itself on the running host.
        """
        _replace(self.path(absolute), data, mode, owner)

    def sweep(self, absolute: str) -> None:
        """Take away what a crash left of a write to a file; raise OSError."""
        found = self.path(absolute)
        found.with_name(f".{found.name}{_NEW}").unlink(missing_ok=True)


def is_text(name: str) -> bool:
    """Whether a name of the file system, or an argument of a program, is UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _check_plain(fd: int, absolute: str) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "is not a plain file", absolute)


def _replace(path: Path, data: bytes, mode: int, owner: tuple[int, int]) -> None:
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a plain file", str(path))
    new = path.with_name(f".{path.name}{_NEW}")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            made = os.fstat(fd)
            if (made.st_uid, made.st_gid) != owner:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
