"""The way back: what a run changed is put back in reverse order, and nothing else.

A value that is no longer the one that the run wrote is left alone, and told with what may have changed it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from tvops.tuning.attribution import Attribution
from tvops.tuning.file_writes import look, put_back
from tvops.tuning.host import Host
from tvops.tuning.interruption import Interruption
from tvops.tuning.journal import Journal, user_name
from tvops.tuning.model import Driver, Kind, Knob, NotWrittenError, State
from tvops.tuning.records import End, EndOutcome, Entry, FileWrite, Rollback, Stuck, Undo, Undone, Write

_INTEGER = re.compile(r"-?[0-9]{1,40}")


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one write of a run that is rolled back."""

    n: int  # the write
    name: str  # item, or path
    outcome: Literal["restored", "untouched", "conflict", "stuck"]
    before: str = ""  # what stood there before the run (of files: empty)
    ours: str = ""  # what the run wrote
    found: str = ""  # what was found there
    reason: str = ""  # why conflict or stuck

    @property
    def incomplete(self) -> bool:
        """Whether the host may still show something of the run here."""
        return self.outcome in ("conflict", "stuck")


def roll_back(
    run: Journal, catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver], force: bool = False,
    reason: str = "", outcome: EndOutcome = "rolled back",
) -> list[Restored]:  # fmt: skip
    """Undo what is left of a run, newest write first; give what became of each, nothing where nothing is left.

    ``drivers`` act on the root of the run. ``force`` restores what somebody else changed since too, and gives up
    places that no longer exist. The run ends with ``outcome``, or as incomplete. Where the journal cannot be
    written (`Journal.failure`) the undo goes on, and the run stays interrupted.
    """
    live = run.run.live
    if not live and run.run.end:
        return []
    with Interruption():  # what was begun is finished: a run that is undone by half helps nobody
        way_back = WayBack(run, catalogue, drivers, force)
        run.note(Rollback(time.time(), user_name(), reason, force))
        restored = [way_back.undo(entry) for entry in reversed(live)]
        complete = not any(one.incomplete for one in restored)
        run.note(End(time.time(), outcome if complete else "incomplete", reason))
    return restored


class WayBack:
    """Undoes writes of one run."""

    def __init__(
        self, run: Journal, catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver], force: bool = False
    ) -> None:
        self._run = run
        self._catalogue = catalogue
        self._drivers = drivers
        self._force = force
        self._host = Host(Path(run.run.begin.root))
        # A journal that cannot be read hides whether a later run changed a place too, so that it raises here.
        self._attribution = Attribution(self._host, run.directory.runs(after=run.run.id))

    def undo(self, entry: Entry) -> Restored:
        """Undo one write, unless somebody else changed its place since."""
        write = entry.write
        result = self._undo_file(write) if isinstance(write, FileWrite) else self._undo_knob(entry, write)
        if result.incomplete:
            self._run.note(Stuck(write.n, result.reason))
        elif entry.live:
            self._run.note(Undone(write.n))
        return result

    def _undo_knob(self, entry: Entry, write: Write) -> Restored:
        knob, driver = self._catalogue.get(write.item.knob), self._drivers.get(write.item.kind)
        if knob is None or driver is None:
            lack = f"this command does not reach {write.item.kind} knobs" if knob else "the catalogue lacks it now"
            return _told(write, "", "stuck", lack)
        now = driver.read(knob, write.item.place)
        if now.status != "present":
            if self._force and now.status == "absent":
                return _told(write, "", "untouched")
            return _told(write, "", "stuck", now.reason or "is no longer there")
        if not self._force and (reason := self._objection(entry, write, knob, now)):
            return _told(write, now.value, "conflict", reason)
        if now.value == write.before.value:
            self._sweep(write)
            return _told(write, now.value, "untouched")
        return self._restore(write, knob, driver, now)

    def _restore(self, write: Write, knob: Knob, driver: Driver, now: State) -> Restored:
        self._run.note(Undo(write.n))
        try:
            driver.restore(knob, write.item.place, write.before)
        except NotWrittenError as error:
            return _told(write, now.value, "stuck", str(error))
        back = driver.read(knob, write.item.place)
        if back.status != "present" or back.value != write.before.value:
            shown = back.value if back.status == "present" else back.reason or "nothing"
            return _told(write, now.value, "stuck", f"reads back {shown} instead of {write.before.value}")
        return _told(write, now.value, "restored")

    def _objection(self, entry: Entry, write: Write, knob: Knob, now: State) -> str:
        """Say why a value is not ours to restore; empty where it is."""
        run = self._run.run
        if not self._attribution.later_run(run, write):
            if now.value == write.before.value:
                return ""
            if _is_ours(entry, write, now.value) and not self._attribution.elsewhere(run, write.item):
                return ""
        why = self._attribution.explain(run, write, knob, now.value)
        return (
            f"holds {now.value or 'nothing'}, tvops wrote {write.value or 'nothing'}, "
            f"before that it was {write.before.value or 'nothing'}"
            f"{why and f' ({why})'}; left alone, --force restores it"
        )

    def _sweep(self, write: Write) -> None:
        """Take away what a crash in the middle of a write left in a tree of files."""
        if not self._host.live and write.item.kind in ("sysctl", "file"):
            try:
                self._host.sweep(write.item.place.address)
            except OSError:
                return  # the place itself is as it was

    def _undo_file(self, write: FileWrite) -> Restored:
        try:
            now = look(self._host, write.path)
            content = now and now.content
            later = self._attribution.later_run(self._run.run, write)
            if not self._force and (later or content not in (write.content, write.before)):
                why = f"run {later} changed it later: tvops tune rollback {later} first" if later else ""
                reason = why or "somebody else changed or removed it; left alone, --force restores it"
                return Restored(n=write.n, name=write.path, outcome="conflict", reason=reason)
            put_back(self._run, write)
        except (OSError, NotWrittenError) as error:
            reason = str(error) if isinstance(error, NotWrittenError) else error.strerror or str(error)
            return Restored(n=write.n, name=write.path, outcome="stuck", reason=reason)
        same = content == write.before and content != write.content
        return Restored(n=write.n, name=write.path, outcome="untouched" if same else "restored")


def _told(
    write: Write, found: str, outcome: Literal["restored", "untouched", "conflict", "stuck"], reason: str = ""
) -> Restored:
    return Restored(
        n=write.n, name=write.name, outcome=outcome, before=write.before.value, ours=write.value, found=found,
        reason=reason,
    )  # fmt: skip


def _is_ours(entry: Entry, write: Write, now: str) -> bool:
    """Tell whether a value is what a write left: as wanted, or as the kernel made of it."""
    if now == write.value or (entry.found is not None and now == entry.found):
        return True
    # A crash came between the write and its reading back.
    return entry.status == "open" and is_made_of(write.value, write.before.value, now)


def is_made_of(value: str, before: str, now: str) -> bool:
    """Tell whether the kernel may have made ``now`` of ``value``: clamped it, or rounded it up to 2^n."""
    vectors = [text.split() for text in (value, before, now)]
    if len({len(words) for words in vectors}) != 1 or not vectors[0]:
        return False
    if not all(_INTEGER.fullmatch(word) for words in vectors for word in words):
        return False
    return all(_is_number_made_of(*map(int, words)) for words in zip(*vectors, strict=True))


def _is_number_made_of(value: int, before: int, now: int) -> bool:
    rounded = value < now < 2 * value and now.bit_count() == 1
    return rounded or min(value, before) <= now <= max(value, before)
