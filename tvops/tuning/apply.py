"""Carries out a plan: announce in the journal, write, read back. A required knob that fails undoes everything."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from tvops.errors import TvopsError
from tvops.tuning.attribution import place_of
from tvops.tuning.file_writes import put_again, write_file
from tvops.tuning.interruption import Interruption
from tvops.tuning.journal import Journal
from tvops.tuning.model import Driver, ExitCode, Item, Kind, Knob, NotWrittenError, State
from tvops.tuning.records import Done, End, Entry, Failed, FileWrite, PlannedFile, Stuck, Write
from tvops.tuning.rollback import WayBack, is_made_of, roll_back

Progress = Callable[[Item], None]


def apply_plan(
    items: Sequence[Item], catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver], run: Journal,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Write all pending items in order; set `outcome`, `current` and `reason` of each.

    What ``run`` has done of them already, before it was interrupted, is not done again.

    Raises:
        StoppedError: SIGINT, SIGTERM or SIGHUP came; what was written has been undone.
        JournalError: a record could not be put on disk; nothing was written without one, and the rest was undone.
            Any other exception undoes as well. Where an undo was not complete, `exit_code` is that of INCOMPLETE.
    """
    pending = [item for item in items if item.state == "pending"]
    transaction = _Transaction(catalogue, drivers, run)
    try:
        with Interruption() as stop:
            for item in pending:
                transaction.carry_out(item)
                if progress:
                    progress(item)
                if item.required and item.outcome in ("failed", "stuck"):
                    return _undo(pending, catalogue, drivers, run, f"{item.id} is required, and {item.reason}")
                stop.check()
            run.append(End(time.time(), "applied"))
    except BaseException as error:
        _undo(pending, catalogue, drivers, run, str(error) or type(error).__name__)
        if isinstance(error, TvopsError):
            _add_outcome(error, any(item.outcome == "stuck" for item in pending))
        raise


def apply_files(files: Sequence[PlannedFile], run: Journal) -> None:
    """Make or replace files (`write_file`), all of them or none; as `apply_plan` on exceptions.

    Raises TvopsError naming the file that cannot be written.
    """
    paths = {e.write.path: (e, e.write) for e in run.run.entries.values() if isinstance(e.write, FileWrite)}
    try:
        with Interruption() as stop:
            for file in files:
                entry, write = paths.get(file.path, (None, None))
                if entry and write and entry.status == "open":
                    put_again(run, write)
                else:
                    write_file(run, file.path, file.content, file.mode)
                stop.check()
            run.append(End(time.time(), "applied"))
    except NotWrittenError as error:
        told = TvopsError(str(error))
        _undo_files(run, told)
        raise told from None
    except BaseException as error:
        _undo_files(run, error)
        raise


def _undo_files(run: Journal, error: BaseException) -> None:
    restored = roll_back(run, {}, {}, reason=str(error) or type(error).__name__, outcome="failed")
    if isinstance(error, TvopsError):
        _add_outcome(error, any(one.incomplete for one in restored))


def _add_outcome(error: TvopsError, stuck: bool) -> None:
    """Say in an error what became of what the run had changed."""
    if stuck:
        error.exit_code = ExitCode.INCOMPLETE
        error.args = (f"{error}; not all that this run had changed could be undone",)
    else:
        error.args = (f"{error}; what this run had changed is undone",)


def _undo(
    items: Sequence[Item], catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver], run: Journal, reason: str
) -> None:
    """Undo the run, and tell each item."""
    restored = {one.n: one for one in roll_back(run, catalogue, drivers, reason=reason, outcome="failed")}
    by_place = _entries(run)
    for item in items:
        entry = by_place.get(_place(item))
        if entry is None or entry.write.n not in restored:
            continue
        one = restored[entry.write.n]
        if one.incomplete:
            item.outcome, item.reason = "stuck", one.reason
        elif item.outcome != "failed":
            item.outcome, item.reason = "undone", reason


def _entries(run: Journal) -> dict[tuple[str, str], Entry]:
    return {place_of(entry.write): entry for entry in run.run.entries.values()}


def _place(item: Item) -> tuple[str, str]:
    return item.knob, item.place.address


class _Transaction:
    """Writes items one by one, as far as the run has not done it."""

    def __init__(self, catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver], run: Journal) -> None:
        self._catalogue = catalogue
        self._drivers = drivers
        self._run = run
        self._way_back = WayBack(run, catalogue, drivers)
        self._journalled = _entries(run)

    def carry_out(self, item: Item) -> None:
        """Bring one place to its value."""
        knob, driver = self._catalogue[item.knob], self._drivers[item.kind]
        now = driver.read(knob, item.place)
        entry = self._journalled.get(_place(item))
        if entry is not None and not isinstance(entry.write, FileWrite):
            self._resume(item, entry, entry.write, knob, driver, now)
        elif now.status == "present" and now.value == item.value:
            item.state, item.current = "met", now.value  # somebody else did it meanwhile
        elif reason := _hindrance(item, knob, driver, now):
            item.outcome, item.reason = "failed", reason
        else:
            write = Write(n=len(self._run.run.entries), item=item, before=now)
            self._run.append(write)
            self._write(item, write, knob, driver)

    def _write(self, item: Item, write: Write, knob: Knob, driver: Driver) -> None:
        reason = ""
        try:
            driver.write(knob, item.place, item.value)
        except NotWrittenError as error:
            reason = str(error)
        now = driver.read(knob, item.place)
        found = now.value if now.status == "present" else None
        item.current = found
        if not reason and found == item.value:
            self._run.append(Done(write.n))
            item.outcome = "written"
            return
        reason = reason or f"reads back {found or now.reason or 'nothing'} instead of {item.value}"
        self._run.append(Failed(write.n, reason, found))
        item.outcome, item.reason = "failed", reason
        self._put_back(item, self._run.run.entries[write.n])

    def _put_back(self, item: Item, entry: Entry) -> None:
        """Undo a failed write, where it changed anything."""
        if not entry.live:
            return
        restored = self._way_back.undo(entry)
        if restored.incomplete:
            item.outcome, item.reason = "stuck", f"{item.reason}; {restored.reason}"
        else:
            item.current = restored.before

    def _resume(self, item: Item, entry: Entry, write: Write, knob: Knob, driver: Driver, now: State) -> None:
        """Go on with a write that an interrupted run had announced."""
        item.current = now.value if now.status == "present" else None
        if entry.status == "done":
            item.outcome = "written"
        elif entry.status == "stuck":
            item.outcome, item.reason = "stuck", entry.reason
        elif entry.status != "open":
            item.outcome, item.reason = "failed", entry.reason
            self._put_back(item, entry)
        elif item.current == item.value:
            self._run.append(Done(write.n))
            item.outcome = "written"
        elif item.current is not None and (
            item.current == write.before.value or is_made_of(item.value, write.before.value, item.current)
        ):
            self._write(item, write, knob, driver)
        else:
            item.outcome, item.reason = (
                "stuck",
                f"somebody else changed it to {item.current or now.reason}; left alone",
            )
            self._run.append(Stuck(write.n, item.reason))


def _hindrance(item: Item, knob: Knob, driver: Driver, now: State) -> str:
    """Say why an item that was planned must not be written any more; empty where nothing is in the way."""
    if now.status != "present":
        return now.reason or f"is {now.status} now"
    if now.value != item.current and _depends_on_current(item.wanted):
        return f"changed from {item.current} to {now.value} since it was planned; plan again"
    # An objection that the plan has told (--force) stands in the reason of the item.
    return "" if item.reason else driver.objection(knob, item.place, item.value)


def _depends_on_current(wanted: str) -> bool:
    return any(word.startswith((">=", "<=")) or word == "-" or "|" in word for word in wanted.split())
