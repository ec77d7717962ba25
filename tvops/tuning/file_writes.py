"""Ordinary files that a run makes or replaces (`tvops tune persist`), journalled like any other write."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

import msgspec

from tvops.tuning.host import Host
from tvops.tuning.journal import Journal
from tvops.tuning.model import NotWrittenError
from tvops.tuning.records import Done, FileWrite, Undo, Undone

LIMIT = 1 << 20  # bytes of a file


def write_file(run: Journal, path: str, content: str, mode: int = 0o644) -> None:
    """Make or replace the file at ``path`` of the run's host, durably; directories that are missing too.

    A file that exists keeps its owner. One that is as wanted already is left alone.

    Raises:
        NotWrittenError: it cannot be written, or is no plain file; the host shows nothing of it.
        JournalError: the record could not be put on disk, and nothing was written.
    """
    host = Host(Path(run.run.begin.root))
    data = content.encode()
    try:
        before = look(host, path)
        if before and before.content == data and before.mode == mode:
            return
        missing = _missing_folders(host, path)
    except OSError as error:
        raise NotWrittenError(f"{path}: {error.strerror or error}") from None
    write = FileWrite(n=len(run.run.entries), path=path, content=data, mode=mode, before=None, made=missing)
    if before:
        was = {"before": before.content, "before_mode": before.mode, "before_owner": before.owner}
        write = msgspec.structs.replace(write, **was)
    run.append(write)
    _put(run, write)


def put_again(run: Journal, write: FileWrite) -> None:
    """Write a file that an interrupted run had announced; raise NotWrittenError where it has changed since."""
    try:
        now = look(Host(Path(run.run.begin.root)), write.path)
    except OSError as error:
        raise NotWrittenError(f"{write.path}: {error.strerror or error}") from None
    if (now and now.content) not in (write.before, write.content):
        raise NotWrittenError(f"{write.path}: somebody else changed it meanwhile")
    _put(run, write)


def _put(run: Journal, write: FileWrite) -> None:
    host = Host(Path(run.run.begin.root))
    owner = (os.geteuid(), os.getegid()) if write.before is None else write.before_owner
    try:
        for folder in write.made:
            host.path(folder).mkdir(mode=0o755, exist_ok=True)
        host.replace(write.path, write.content, write.mode, owner)
    except OSError as error:
        put_back(run, write)
        raise NotWrittenError(f"{write.path}: {error.strerror or error}") from None
    run.append(Done(write.n))


def put_back(run: Journal, write: FileWrite) -> None:
    """Undo the write of a file; raise NotWrittenError."""
    host = Host(Path(run.run.begin.root))
    run.note(Undo(write.n))
    try:
        host.sweep(write.path)
        if write.before is None:
            host.path(write.path).unlink(missing_ok=True)
        elif (now := look(host, write.path)) is None or (now.content, now.mode) != (
            write.before,
            write.before_mode,
        ):
            host.replace(write.path, write.before, write.before_mode, write.before_owner)
        for folder in reversed(write.made):
            _remove_folder(host.path(folder))
    except OSError as error:
        raise NotWrittenError(f"{write.path}: {error.strerror or error}") from None
    run.note(Undone(write.n))


class Found(msgspec.Struct, frozen=True):
    """A file as it is now."""

    content: bytes
    mode: int
    owner: tuple[int, int]


def look(host: Host, path: str) -> Found | None:
    """Give a file of the host, None where there is none; raise OSError."""
    try:
        fd = os.open(host.path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a plain file")
        if status.st_size > LIMIT:
            raise OSError(errno.EFBIG, f"is longer than {LIMIT} bytes")
        return Found(file.read(LIMIT), stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid))


def _missing_folders(host: Host, path: str) -> list[str]:
    """Give the directories above a path that do not exist, outermost first; raise OSError where one cannot be."""
    if host.path(path, follow=False).is_symlink():
        raise OSError(errno.EINVAL, "is a symbolic link; make it a plain file, or remove it")
    missing: list[str] = []
    for parent in PurePosixPath(path).parents:
        found = host.path(str(parent))
        if found.is_dir():
            break
        if found.exists():
            raise OSError(errno.ENOTDIR, f"{parent} is not a directory")
        missing.insert(0, str(parent))
    return missing


def _remove_folder(path: Path) -> None:
    """Remove a directory that this run made, unless somebody put something there."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
