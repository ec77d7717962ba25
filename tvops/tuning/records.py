"""What the journal of a run says: its records, their form in the file, and the run that they add up to.

One record a line, JSON behind a checksum of the rest of the line and a number that counts up from 0:

    {"crc":"5f3a09c1","seq":0,"record":"begin","version":1,"id":"20261121-103000-1a2b",...}

A last line without its newline was never acted on and is ignored. Everything else that does not fit is damage.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Literal

import msgspec

from tvops.errors import JournalError
from tvops.tuning.model import Item, State

VERSION = 1
_END_OF_TIME = 2.5e11  # seconds since 1970 of which a calendar still has a date
RunKind = Literal["apply", "persist", "measure"]
EndOutcome = Literal["applied", "failed", "rolled back", "incomplete"]
"""applied; undone since a required knob failed or a signal came; rolled back; not all of it could be undone."""
_LINE = re.compile(rb'\{"crc":"([0-9a-f]{8})",("seq":(\d{1,9}),.*\})', re.DOTALL)


class PlannedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a run is to make or replace."""

    path: str  # on the host, whatever its root
    content: str
    mode: int = 0o644


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="begin"):
    """The first record: who, when, where, and all that is planned."""

    version: int = VERSION
    id: str
    kind: RunKind
    at: float  # seconds since 1970
    pid: int
    user: str
    boot: str  # the kernel's boot id; empty where the root has none
    netns: str  # the network namespace; empty where the root is not the running host
    root: str
    profile: str
    command: str
    items: list[Item] = []
    files: list[PlannedFile] = []


class Write(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="write"):
    """A place is about to be written for the first time in this run."""

    n: int
    item: Item
    before: State

    @property
    def name(self) -> str:
        """What people call it."""
        return self.item.id

    @property
    def value(self) -> str:
        """What is written."""
        return self.item.value


class FileWrite(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="file"):
    """A file is about to be made or replaced."""

    n: int
    path: str
    content: bytes
    mode: int
    before: bytes | None  # None: it did not exist
    before_mode: int = 0
    before_owner: tuple[int, int] = (0, 0)
    made: list[str] = []  # directories that are made for it, outermost first

    @property
    def name(self) -> str:
        """What people call it."""
        return self.path


class Done(msgspec.Struct, frozen=True, tag_field="record", tag="done"):
    """Write n was read back as wanted."""

    n: int


class Failed(msgspec.Struct, frozen=True, tag_field="record", tag="failed"):
    """Write n was rejected, or `found` was read back instead (None: nothing could be read)."""

    n: int
    reason: str
    found: str | None = None


class Rollback(msgspec.Struct, frozen=True, tag_field="record", tag="rollback"):
    """From here on the run is undone."""

    at: float
    user: str
    reason: str
    force: bool = False


class Undo(msgspec.Struct, frozen=True, tag_field="record", tag="undo"):
    """Write n is about to be undone."""

    n: int


class Undone(msgspec.Struct, frozen=True, tag_field="record", tag="undone"):
    """What stood there before write n stands there again."""

    n: int


class Stuck(msgspec.Struct, frozen=True, tag_field="record", tag="stuck"):
    """Write n could not be undone."""

    n: int
    reason: str


class End(msgspec.Struct, frozen=True, tag_field="record", tag="end"):
    """Nothing of this run is under way any more."""

    at: float
    outcome: EndOutcome
    reason: str = ""


Record = Begin | Write | FileWrite | Done | Failed | Rollback | Undo | Undone | Stuck | End


class Entry(msgspec.Struct):
    """One write of a run and what became of it."""

    write: Write | FileWrite
    status: Literal["open", "done", "failed", "undone", "stuck"] = "open"
    found: str | None = None  # of a failed knob: what was read back
    reason: str = ""

    @property
    def live(self) -> bool:
        """Whether the host may show something of it."""
        if self.status == "failed":
            return isinstance(self.write, FileWrite) or self.found != self.write.before.value
        return self.status != "undone"


class Run:
    """A run as far as its journal tells it."""

    def __init__(self, begin: Begin) -> None:
        self.begin = begin
        self.entries: dict[int, Entry] = {}
        self.rolling_back = False
        self.end: End | None = None

    @property
    def id(self) -> str:
        """The name of the run and of its journal."""
        return self.begin.id

    @property
    def state(self) -> EndOutcome | Literal["interrupted"]:
        """What the run ended with; `interrupted` where it has not ended (or is under way)."""
        return self.end.outcome if self.end else "interrupted"

    @property
    def live(self) -> list[Entry]:
        """The writes of which the host may show something, in their order."""
        return [entry for entry in self.entries.values() if entry.live]

    def fold(self, record: Record) -> None:
        """Take up the next record; raise ValueError where it does not follow from those before."""
        if isinstance(record, Begin):
            raise ValueError("a second begin")
        self.end = None
        if isinstance(record, Write | FileWrite):
            _check_path(record)
            if record.n != len(self.entries):
                raise ValueError(f"write {record.n} where {len(self.entries)} should be")
            self.entries[record.n] = Entry(record)
        elif isinstance(record, Rollback):
            self.rolling_back = True
        elif isinstance(record, End):
            self.end = record
        elif record.n not in self.entries:
            raise ValueError(f"speaks of write {record.n}, which is not there")
        elif not isinstance(record, Undo):
            _note(self.entries[record.n], record)


def _check_path(record: Write | FileWrite | PlannedFile) -> None:
    """Raise ValueError where what is to be opened can be no file of the host."""
    if isinstance(record, Write) and record.item.kind not in ("sysctl", "file"):
        return
    path = record.item.place.address if isinstance(record, Write) else record.path
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} is not an absolute path")


def _note(entry: Entry, record: Done | Failed | Undone | Stuck) -> None:
    if isinstance(record, Failed):
        entry.status, entry.reason, entry.found = "failed", record.reason, record.found
    elif isinstance(record, Stuck):
        entry.status, entry.reason = "stuck", record.reason
    else:
        entry.status = "done" if isinstance(record, Done) else "undone"


def encode_line(seq: int, record: Record) -> bytes:
    """Give the line of a record."""
    rest = b'"seq":%d,' % seq + msgspec.json.encode(record)[1:]
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(rest), rest)


def decode_run(data: bytes, name: str) -> tuple[Run | None, int, int]:
    """Read a journal: the run (None: it never began), the length of what counts, the number of records.

    Raises:
        JournalError: damage, naming ``name`` and the line; or a newer version of the format.
    """
    lines = data.split(b"\n")[:-1]  # what stands behind the last newline was torn off
    run: Run | None = None
    length = 0
    for number, line in enumerate(lines):
        try:
            body = _checked(line, number)
            if run is None:
                run = Run(_decode_begin(body, name))
            else:
                run.fold(_decode_record(body))
        except ValueError as error:
            if run is None and len(lines) == 1:
                return None, 0, 0  # a crash tore the begin itself: nothing was done
            raise JournalError(
                f"{name} line {number + 1} is damaged: {error}; move the file away to go on"
            ) from None
        length += len(line) + 1
    return run, length, len(lines)


def _checked(line: bytes, number: int) -> bytes:
    match = _LINE.fullmatch(line)
    if not match:
        raise ValueError("is not a record")
    if int(match[1], 16) != zlib.crc32(match[2]):
        raise ValueError("the checksum does not fit")
    if int(match[3]) != number:
        raise ValueError(f"is record {match[3].decode()} where {number} should be")
    return b"{" + match[2]


class _Versioned(msgspec.Struct):
    version: int


_decode_version: Callable[[bytes], _Versioned] = msgspec.json.Decoder(_Versioned).decode
_decode_record: Callable[[bytes], Record] = msgspec.json.Decoder(Record).decode


def _decode_begin(body: bytes, name: str) -> Begin:
    version = _decode_version(body).version
    if version > VERSION:
        raise JournalError(
            f"{name} was written by a newer tvops (format {version}, this one knows {VERSION}); use that"
        )
    record = _decode_record(body)
    if not isinstance(record, Begin):
        raise ValueError("does not begin with a begin")
    if not 0 <= record.at < _END_OF_TIME:
        raise ValueError(f"{record.at} is not a time")
    for file in record.files:
        _check_path(file)
    return record
