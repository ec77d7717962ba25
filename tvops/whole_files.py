"""Files that are there whole or not at all: written beside their place, then put there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tvops.errors import UsageError

PRIVATE = 0o600
SHARED = 0o666
"""For others to read, as far as the umask allows."""


def write_whole(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file, and leave what was there before where that is not possible.

    A device or a pipe is written to as it is: it cannot be put in place of another.

    Args:
        path: of the file; its folder is there.
        content: all of it.
        mode: permissions, of which the umask takes some.

    Raises:
        UsageError: it cannot be written; one line that names the file.
    """
    written = None
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            written = Path(file.name)
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        written.chmod(mode & ~umask)
        written.replace(path)
        written = None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        if written is not None:
            written.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Raise UsageError where a file could not be written: better before a long run than after it."""
    folder = path.parent
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}"
    elif os.access(path if path.exists() else folder, os.W_OK):
        return
    else:
        reason = (
            "the file system is read-only" if os.statvfs(folder).f_flag & os.ST_RDONLY else "permission denied"
        )
    raise UsageError(f"{path}: cannot be written: {reason}")
