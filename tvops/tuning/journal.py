"""The state directory: the lock, and a journal for each run.

    $TVOPS_STATE_DIR/lock                  flocked by whoever writes; names the holder (`lock.py`)
    $TVOPS_STATE_DIR/journal/<id>.jsonl    one a run (`records.py`), each record on disk before what it announces

Only who holds the lock writes: a run that has not ended while the lock is free was interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tvops.errors import JournalError, UsageError
from tvops.tuning.host import Host
from tvops.tuning.lock import Lock
from tvops.tuning.model import Item
from tvops.tuning.records import (
    Begin,
    FileWrite,
    PlannedFile,
    Record,
    Run,
    RunKind,
    Write,
    decode_run,
    encode_line,
)

LIMIT = 64 << 20  # bytes of a journal
_ROOM = LIMIT * 3 // 4  # what announces a write ends here: the rest is for undoing
KEPT = 200  # newest journals that stay; of older ones those of which something is left on the host
_ID = re.compile(r"(\d{8}-\d{6})-[0-9a-f]{4}")
_STAMP = "%Y%m%d-%H%M%S"


def state_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Give where journals and lock live: $TVOPS_STATE_DIR, else the system's place (root) or the user's."""
    if named := environment.get("TVOPS_STATE_DIR"):
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/tvops")
    import platformdirs

    return Path(platformdirs.user_state_dir("tvops", False))


def boot_id(host: Host) -> str:
    """Give what names this boot of the kernel; empty where the root does not tell."""
    try:
        return host.read_text("/proc/sys/kernel/random/boot_id").strip()
    except OSError:
        return ""


def network_namespace(host: Host) -> str:
    """Give what names the network namespace that sysctls and interfaces belong to; empty below another root."""
    try:
        return host.readlink("/proc/self/ns/net") if host.live else ""
    except OSError:
        return ""


class StateDirectory:
    """The journals and the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journals = path / "journal"
        self._lock = Lock(path)
        self._locked = False

    @contextlib.contextmanager
    def lock(self, wait_seconds: float, command: str) -> Iterator[None]:
        """Hold the lock; make the directory where it is missing.

        Raises:
            HeldError: somebody else still holds it after ``wait_seconds``; names him.
            JournalError: the directory cannot be made, or others could write in it.
        """
        self._make()
        with self._lock.held(wait_seconds, without_passwords(command)):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def _make(self) -> None:
        for folder in (self.path, self._journals):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                found = folder.stat()
            except OSError as error:
                raise _failure(self.path, error) from None
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid not in (0, os.geteuid()):
                raise JournalError(
                    f"state directory {folder}: others could write in it; "
                    "chown and chmod 700 it, or name another with TVOPS_STATE_DIR"
                )

    def holder(self) -> str:
        """Tell who holds the lock; empty where nobody does."""
        return self._lock.holder()

    def ids(self) -> list[str]:
        """Give the ids of all journals, oldest first."""
        try:
            names = [path.name for path in self._journals.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failure(self.path, error) from None
        return sorted(name[:-6] for name in names if name.endswith(".jsonl") and _ID.fullmatch(name[:-6]))

    def changed(self, run_id: str) -> int:
        """Give when the journal of a run was last written, ns since 1970; 0 where that cannot be told."""
        try:
            return self._path(run_id).stat().st_mtime_ns
        except OSError:
            return 0

    def load(self, run_id: str) -> Run:
        """Read a run; raise UsageError for an id that is none, JournalError for a damaged journal."""
        return self._begun(run_id)[0]

    def peek(self, run_id: str) -> Run | None:
        """Read a run; None where it was killed before its first record was whole. Raises as `load`."""
        return self._read(run_id)[0]

    def _begun(self, run_id: str) -> tuple[Run, int, int]:
        run, length, count = self._read(run_id)
        if run is None:
            raise UsageError(f"run {run_id}: was killed before it did anything")
        return run, length, count

    def _read(self, run_id: str) -> tuple[Run | None, int, int]:
        path = self._path(run_id)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as file:
                data = file.read(LIMIT + 1)
        except FileNotFoundError:
            raise UsageError(f"run {run_id!r}: there is no such run; tvops tune history lists them") from None
        except OSError as error:
            raise JournalError(f"journal {path}: {error.strerror}") from None
        if len(data) > LIMIT:
            raise JournalError(
                f"journal {path} is longer than {LIMIT} bytes; move the file away to go on without it"
            )
        run, length, count = decode_run(data, f"journal {path}")
        if run and run.id != run_id:
            raise JournalError(f"journal {path} is that of run {run.id}; move the file away to go on without it")
        return run, length, count

    def _path(self, run_id: str) -> Path:
        if not _ID.fullmatch(run_id):
            raise UsageError(f"run {run_id!r}: is not the id of a run; tvops tune history lists them")
        return self._journals / f"{run_id}.jsonl"

    def runs(self, after: str = "") -> list[Run]:
        """Read all runs, or those after an id, oldest first; raise JournalError where a journal is damaged."""
        return [run for run_id in self.ids() if run_id > after and (run := self.peek(run_id))]

    def interrupted(self) -> list[Run]:
        """Give the runs that have not ended, oldest first. Ask with the lock held: else one may be under way."""
        return [run for run in self.runs() if run.state == "interrupted"]

    def new_run(
        self, kind: RunKind, *, command: str, root: Path = Path("/"), profile: str = "",
        items: Sequence[Item] = (), files: Sequence[PlannedFile] = (),
    ) -> Journal:  # fmt: skip
        """Begin a run of what is planned; needs the lock. Raises JournalError."""
        self._demand_lock()
        self._prune()
        host = Host(root)
        begin = Begin(
            id=self._new_id(), kind=kind, at=time.time(), pid=os.getpid(), user=user_name(), boot=boot_id(host),
            netns=network_namespace(host), root=str(host.root), profile=profile,
            command=without_passwords(command), items=list(items), files=list(files),
        )  # fmt: skip
        path = self._path(begin.id)
        journal = Journal(self, Run(begin), self._open(path, os.O_CREAT | os.O_EXCL))
        try:
            journal.write_begin()
            _sync_folder(self._journals)
        except (JournalError, OSError) as error:
            journal.close()
            path.unlink(missing_ok=True)
            raise _failure(self.path, error) if isinstance(error, OSError) else error from None
        return journal

    def open_run(self, run_id: str) -> Journal:
        """Open the journal of a run to go on with it; needs the lock. Raises UsageError and JournalError."""
        self._demand_lock()
        run, length, count = self._begun(run_id)
        return Journal(self, run, self._open(self._path(run_id), 0), length, count)

    def _open(self, path: Path, flags: int) -> int:
        try:
            return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
        except OSError as error:
            raise _failure(self.path, error) from None

    def _demand_lock(self) -> None:
        if not self._locked:
            raise RuntimeError("journals are written with the lock held")

    def _new_id(self) -> str:
        """Name a run such that its id sorts behind all others, whatever the clock did."""
        now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
        if ids := self.ids():
            try:
                now = max(now, datetime.strptime(ids[-1][:15], _STAMP) + timedelta(seconds=1))
            except (ValueError, OverflowError):
                raise JournalError(
                    f"journal {self._path(ids[-1])}: its name is no time that a run can follow; move the file away"
                ) from None
        return f"{now:{_STAMP}}-{secrets.token_hex(2)}"

    def _prune(self) -> None:
        """Forget runs of which nothing is left on the host, all but those among the `KEPT` newest."""
        for run_id in self.ids()[:-KEPT]:
            if self._is_over(run_id):
                self._path(run_id).unlink(missing_ok=True)

    def _is_over(self, run_id: str) -> bool:
        try:
            run = self.peek(run_id)
        except JournalError:
            return False
        return run is None or (run.end is not None and not run.live)


class Journal:
    """A run that is under way, and the file that tells of it."""

    def __init__(self, directory: StateDirectory, run: Run, fd: int, length: int = 0, count: int = 0) -> None:
        self.directory = directory
        self.run = run
        self.failure: JournalError | None = None  # from then on nothing more is recorded
        self._fd = fd
        self._length = length
        self._count = count

    def write_begin(self) -> None:
        """Put the first record on disk; raise JournalError."""
        self._put(self.run.begin)

    def append(self, record: Record) -> None:
        """Take up a record once it is on disk; raise JournalError where it cannot be put there."""
        self._put(record)
        self.run.fold(record)

    def note(self, record: Record) -> None:
        """Take up a record of an undo, which has to go on where the journal cannot (`failure` tells)."""
        with contextlib.suppress(JournalError):
            self._put(record)
        self.run.fold(record)

    def _put(self, record: Record) -> None:
        if self.failure:
            raise self.failure
        line = encode_line(self._count, record)
        limit = _ROOM if isinstance(record, Begin | Write | FileWrite) else LIMIT
        try:
            if self._length + len(line) > limit:
                raise OSError(errno.EFBIG, f"the journal of run {self.run.id} would be longer than {limit} bytes")
            os.ftruncate(self._fd, self._length)  # of a line that was torn
            written = 0
            while written < len(line):
                written += os.pwrite(self._fd, line[written:], self._length + written)
            os.fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._length)
            self.failure = _failure(self.directory.path, error)
            raise self.failure from None
        self._length += len(line)
        self._count += 1

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def user_name() -> str:
    """Name who runs this, through sudo too."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    behind = os.environ.get("SUDO_USER", "")
    return f"{name} (sudo by {behind[:64]})" if behind else name


def without_passwords(text: str) -> str:
    """Take the user part out of every URL in a text."""
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1…@", text)


def _failure(directory: Path, error: OSError) -> JournalError:
    return JournalError(
        f"state directory {directory}: {error.strerror}; make room there, or name another with TVOPS_STATE_DIR"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        else f"state directory {directory}: {error.strerror}; name another with TVOPS_STATE_DIR"
    )


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
