"""Files that are there whole or not at all: written beside their place, then put there."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Final

from tvops.errors import UsageError

PRIVATE: Final = 0o600
SHARED: Final = 0o666
"""For others to read, as far as the umask allows."""

_MOST_LINKS: Final = 40
"""As many as the kernel follows."""

_BESIDE: Final = ".tvops-"
"""How the name begins that a file has before it is in its place: short, since its own may fill all 255 bytes."""

_DESCRIPTORS: Final = re.compile(r"/proc/\d+(/task/\d+)?/fd")


def write_whole(path: Path, content: bytes | Iterable[bytes], mode: int = PRIVATE) -> None:
    """Write a file, and leave what was there before where that is not possible.

    A link stays: what it names is written. What cannot be replaced is written to as it is: see `open_in_place`.

    Args:
        path: of the file; its folder is there.
        content: all of it, in one piece or one after the other.
        mode: permissions of a new file, of which the umask takes some; one that is there keeps its own.

    Raises:
        UsageError: it cannot be written; one line that names the file.
    """
    pieces = [content] if isinstance(content, bytes) else content
    written = None
    try:
        if stays_in_place(path):
            with open_in_place(path) as device:
                for piece in pieces:
                    append_whole(device, piece)
            return
        target = target_of(path)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=_BESIDE, delete=False) as file:
            written = Path(file.name)
            file.writelines(pieces)
        written.chmod(_mode_of(target, mode))
        written.replace(target)
        written = None
    except OSError as error:
        raise refusal(path, error) from None
    finally:
        if written is not None:
            written.unlink(missing_ok=True)


def stays_in_place(path: Path) -> bool:
    """Whether a path names a device, a pipe or an open descriptor (/dev/stdout): no file may be put in its place.

    Raises:
        OSError: the links have no end, or one is not to be followed.
    """
    target = target_of(path)
    return _is_descriptor(target) or (target.exists() and not target.is_file())


def open_in_place(path: Path) -> FileIO:
    """Open what `stays_in_place` to write at its end, and do not wait for somebody to read a pipe.

    A descriptor of this process is used itself: opened once more, its file would have two ends, of which each
    overwrites what the other has written.

    Raises:
        OSError: it cannot be opened for writing.
    """
    target = target_of(path)
    own = _own_descriptor(target)
    descriptor = _open_at_once(target) if own is None else os.dup(own)
    os.set_blocking(descriptor, True)
    return FileIO(descriptor, "ab")


def append_whole(file: FileIO, piece: bytes) -> None:
    """Write a piece at the end of an unbuffered file; what was written of one that has no room is cut off again.

    Raises:
        OSError: it cannot be written.
    """
    begin = file.tell() if file.seekable() else None
    left = memoryview(piece)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        if begin is not None and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.truncate(begin)
        raise


def check_place(path: Path) -> None:
    """Raise UsageError where a file could not be written: better before a long run than after it."""
    try:
        target = target_of(path)
        folder = target.parent
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if not folder.is_dir():
            reason = f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}"
            raise NotADirectoryError(errno.ENOTDIR, reason)
        if path.exists():
            _check_access(target)
        if stays_in_place(target):  # not opened: whoever reads a pipe takes the close for the end of all
            _own_descriptor(target)
            return
        # Made, since asking for permissions does not tell of all that can be wrong.
        tempfile.TemporaryFile(dir=folder, prefix=_BESIDE).close()
    except OSError as error:
        raise refusal(path, error) from None


def target_of(path: Path) -> Path:
    """Give what a path names in the end, there or not; of an open descriptor (/dev/stdout) the one in /proc.

    In a folder like /tmp no links of others are followed: they could lead to any file of the user's.

    Raises:
        OSError: the links have no end, or one is not to be followed.
    """
    for _ in range(_MOST_LINKS):
        if not path.is_symlink() or _is_descriptor(path):
            return path
        folder = path.parent.stat()
        if folder.st_mode & stat.S_ISVTX and path.lstat().st_uid not in (os.geteuid(), folder.st_uid):
            raise PermissionError(errno.EACCES, "it is a link that somebody else has made")
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def refusal(path: Path, error: OSError) -> UsageError:
    """Give what a user is told of a file that cannot be written."""
    return UsageError(f"{path}: cannot be written: {error.strerror or error}")


def _is_descriptor(path: Path) -> bool:
    return path.is_symlink() and bool(_DESCRIPTORS.fullmatch(os.path.realpath(path.parent)))


def _own_descriptor(target: Path) -> int | None:
    """Give the descriptor of this process that is meant, if any; raise OSError where it is none to write to."""
    if not (_is_descriptor(target) and target.parent.samefile("/proc/self/fd")):
        return None
    own = int(target.name)
    if fcntl.fcntl(own, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise PermissionError(errno.EACCES, "it is open for reading only")
    return own


def _open_at_once(target: Path) -> int:
    """Open a device or a pipe at its end; raise OSError where that would have to wait for somebody."""
    try:
        return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO and target.is_fifo():
            raise OSError(errno.ENXIO, "it is a pipe that nobody reads") from None
        raise


def _check_access(path: Path) -> None:
    """Refuse a file or device without permission to write, or one of somebody else in a folder like /tmp."""
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    folder = path.parent.stat()
    others = os.geteuid() not in (0, folder.st_uid, path.stat().st_uid)
    if folder.st_mode & stat.S_ISVTX and path.is_file() and others:
        raise PermissionError(errno.EPERM, f"it is somebody else's, in {path.parent}")


def _mode_of(target: Path, mode: int) -> int:
    """Give the permissions of a file that is there, or of a new one what the umask leaves of ``mode``."""
    if target.exists():
        return target.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return mode & ~umask
