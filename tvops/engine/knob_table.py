"""`knobs.json` in the data directory: the knobs of the stack's profile, as they were when last looked at.

`tvops serve` looks from time to time (tuning/watch/) and writes; the worker that watches the stack reads
it for the telemetry. It imports nothing heavy: the supervisor stays small.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from tvops.engine.private_files import open_private, write_private
from tvops.engine.telemetry.bounds import Rows, Whole
from tvops.engine.tuning_report import started

FILE_NAME = "knobs.json"
MAX_TABLE_BYTES = 4 << 20
MOST_NAMED: Final = 4

KnobState = Literal[
    "in force",  # as the profile wants it
    "drifted",  # it was in force since the stack started, or since `tvops tune` wrote it, and is not any more
    "differs",  # it never was in force: nobody has tuned the host
    "not here",  # it cannot be had here, or cannot be looked at
]
KNOB_STATES: Final[tuple[KnobState, ...]] = ("drifted", "differs", "not here", "in force")
"""The ones to look at first come first."""


class Knob(msgspec.Struct, frozen=True, kw_only=True):
    """One knob at the places where the same holds of it."""

    kind: str  # sysctl, file, nic, process, socket, held, redis
    knob: str  # its id in the catalogue: net.core.somaxconn, process.nice
    places: Annotated[tuple[str, ...], Rows] = ()  # engine, ledger, cpu3, eth0, …; empty: it has one place only
    wanted: str  # canonical, with the >= or <= of the profile
    now: str | None  # as it was read back, canonical; None: not known
    state: KnobState
    since: Whole  # when it came into this state, ns since 1970
    looked: Whole  # when it was last read, ns since 1970
    told: bool = False  # only the process itself can tell, and it did so when it started
    reason: str = ""


def place_text(places: Sequence[str]) -> str:
    """Name places in a few words: `engine, market`, `cpu0 … cpu63 (64)`; empty where there is but one."""
    if len(places) > MOST_NAMED:
        return f"{places[0]} … {places[-1]} ({len(places)})"
    return ", ".join(places)


class KnobTable(msgspec.Struct, frozen=True, kw_only=True):
    """What one running stack found; it counts for as long as its supervisor lives."""

    pid: int  # of the supervisor
    started: int  # when that process started, in clock ticks since boot
    every: float  # seconds between two looks
    knobs: tuple[Knob, ...]


def write_table(folder: Path, table: KnobTable) -> None:
    """Write the table whole or not at all, for its owner only; raise OSError."""
    write_private(folder / FILE_NAME, msgspec.json.encode(table) + b"\n")


class TableReader:
    """Reads the table of a data directory, where it is another one than before."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._seen = (0, 0)
        self._table: KnobTable | None = None

    def read(self) -> KnobTable | None:
        """Give the newest table; None where no supervisor looks, or its file cannot be read."""
        try:
            with open_private(self._path) as file:
                status = os.fstat(file.fileno())
                if (status.st_ino, status.st_mtime_ns) != self._seen:
                    self._table = msgspec.json.decode(file.read(MAX_TABLE_BYTES), type=KnobTable)
                    self._seen = status.st_ino, status.st_mtime_ns
        except (OSError, msgspec.DecodeError, RecursionError):
            self._table, self._seen = None, (0, 0)
        table = self._table
        return table if table is not None and started(table.pid) == table.started else None
