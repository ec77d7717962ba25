"""Knobs that are flipped back and forth to measure what they do; the journal tells how they were before."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from tvops.tuning.interruption import Interruption
from tvops.tuning.journal import Journal
from tvops.tuning.model import Driver, Item, Kind, Knob, NotWrittenError
from tvops.tuning.records import Done, End, Write
from tvops.tuning.rollback import Restored, WayBack, roll_back


class Flipper:
    """Flips items of a run of kind `measure` between what stood there and what is wanted.

    The journal tells of an item before its first flip; whoever recovers puts back what stood there then. Leaving
    the block puts everything back that was not kept; `left` tells what could not be (exit code INCOMPLETE).
    """

    def __init__(self, run: Journal, catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver]) -> None:
        self._run = run
        self._catalogue = catalogue
        self._drivers = drivers
        self._writes: dict[str, Write] = {}
        self.left: list[Restored] = []

    def on(self, item: Item) -> None:
        """Write what is wanted and read it back.

        Raises:
            NotWrittenError: it was rejected or reads back otherwise; what stood there is there again if it can be.
            JournalError: the record could not be put on disk, and nothing was written.
        """
        knob, driver = self._catalogue[item.knob], self._drivers[item.kind]
        if item.id not in self._writes:
            before = driver.read(knob, item.place)
            if before.status != "present":
                raise NotWrittenError(before.reason or f"is {before.status}")
            write = Write(n=len(self._run.run.entries), item=item, before=before)
            self._run.append(write)
            self._writes[item.id] = write
        try:
            driver.write(knob, item.place, item.value)
            self._check(item, item.value)
        except NotWrittenError:
            self.off(item)
            raise

    def off(self, item: Item) -> None:
        """Put back what stood there before the first flip; raise NotWrittenError."""
        write = self._writes[item.id]
        self._drivers[item.kind].restore(self._catalogue[item.knob], item.place, write.before)
        self._check(item, write.before.value)

    def _check(self, item: Item, value: str) -> None:
        now = self._drivers[item.kind].read(self._catalogue[item.knob], item.place)
        if now.status != "present" or now.value != value:
            raise NotWrittenError(f"reads back {now.value or now.reason or 'nothing'} instead of {value}")

    def keep(self, item: Item) -> None:
        """Leave an item as wanted when this ends; raise as `on`."""
        self.on(item)
        self._run.append(Done(self._writes[item.id].n))
        del self._writes[item.id]

    def __enter__(self) -> Flipper:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        with Interruption():
            if error:
                reason = str(error) or type(error).__name__
                restored = roll_back(self._run, self._catalogue, self._drivers, reason=reason)
            else:
                restored = self._put_back()
        self.left = [one for one in restored if one.incomplete]

    def _put_back(self) -> list[Restored]:
        """Undo what was not kept, newest first."""
        way_back = WayBack(self._run, self._catalogue, self._drivers)
        run = self._run.run
        restored = [way_back.undo(run.entries[write.n]) for write in reversed(self._writes.values())]
        complete = not any(one.incomplete for one in restored)
        self._run.note(
            End(time.time(), "incomplete" if not complete else "applied" if run.live else "rolled back")
        )
        return restored
