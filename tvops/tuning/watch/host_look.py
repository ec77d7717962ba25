"""Reads again what a host shows of a profile: sysctls, files of the kernel, interfaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tvops.errors import TvopsError
from tvops.tuning.attribution import Attribution, place_of
from tvops.tuning.host import Host
from tvops.tuning.journal import StateDirectory
from tvops.tuning.kinds.files import FileDriver
from tvops.tuning.kinds.nic import NicDriver
from tvops.tuning.model import Driver, Item, Kind, Knob, Profile
from tvops.tuning.plan import make_plan
from tvops.tuning.records import Run, Write
from tvops.tuning.values import canonical, parse_wanted
from tvops.tuning.watch.sighting import Sighting

MOST_RUNS = 8
"""Journals that are read, at most, for the newest run that left something in force."""


class HostLook:
    """Looks at the places of a host that a profile has a wish for."""

    def __init__(self, profile: Profile, catalogue: Mapping[str, Knob], host: Host, state: StateDirectory) -> None:
        """Take a profile that was resolved for ``host``, and the journals of `tvops tune`."""
        files = FileDriver(host, catalogue)
        self._catalogue = catalogue
        self._drivers: dict[Kind, Driver] = {"sysctl": files, "file": files}
        if host.live:
            self._drivers["nic"] = NicDriver(host)
        counting = {wish.knob for wish in profile.wishes if not wish.skip}
        wishes = tuple(w for w in profile.wishes if w.knob in counting and catalogue[w.knob].kind in self._drivers)
        self._profile = msgspec.structs.replace(profile, wishes=wishes)
        self._last_run = LastRun(state, host)

    def sightings(self) -> Iterator[Sighting]:
        """Read every place once; what a guard of the profile leaves out is not there."""
        if not self._profile.wishes:
            return
        self._last_run.refresh()
        for item in make_plan(self._profile, self._catalogue, self._drivers):
            if item.state != "skipped":
                yield self._seen(item)

    def suspect(self, sighting: Sighting) -> str:
        """Say who may have changed a place since `tvops tune` wrote it; empty where nobody is known."""
        return self._last_run.suspect(sighting, self._catalogue[sighting.knob])

    def _seen(self, item: Item) -> Sighting:
        try:
            wish = parse_wanted(self._catalogue[item.knob], item.wanted)
            wanted = canonical(self._catalogue[item.knob], wish, self._profile.facts)
        except ValueError:  # the plan refuses it, and says why
            wanted = item.wanted
        possible = item.state not in ("unsupported", "refused") and item.current is not None
        return Sighting(
            item.kind, item.knob, item.place.name, wanted, item.current, item.state == "met", possible,
            item.reason, before=self._last_run.wrote(item),
        )  # fmt: skip


class LastRun:
    """What the newest run of `tvops tune` left in force. Journals that must not be read count as none."""

    def __init__(self, state: StateDirectory, host: Host) -> None:
        self._state, self._host = state, host
        self._read: list[tuple[str, int]] = []  # of the newest journals: id and time of the last write
        self._run: Run | None = None
        self._writes: dict[tuple[str, str], Write] = {}

    def refresh(self) -> None:
        """Read the newest run, where a journal is another one than before: a run was made, or undone."""
        try:
            found = [(run_id, self._state.changed(run_id)) for run_id in reversed(self._state.ids()[-MOST_RUNS:])]
            if found == self._read:
                return
            self._read = found
            runs = (self._state.peek(run_id) for run_id, _ in found)
            self._run = next((run for run in runs if run is not None and self._counts(run)), None)
        except TvopsError:  # of another user, or damaged: `tvops tune` tells
            self._run = None
        entries = self._run.live if self._run else []
        self._writes = {
            place_of(entry.write): entry.write
            for entry in entries
            if entry.status == "done" and isinstance(entry.write, Write)
        }

    def wrote(self, item: Item) -> bool:
        """Tell whether the run wrote this place, and something else than what is there now."""
        write = self._writes.get((item.knob, item.place.address))
        return write is not None and write.value != item.current

    def suspect(self, sighting: Sighting, knob: Knob) -> str:
        """Say who may have changed what the run wrote; empty where it wrote nothing, or nobody is known."""
        if self._run is None:
            return ""
        for write in self._writes.values():
            if (write.item.knob, write.item.place.name) == (sighting.knob, sighting.place):
                return Attribution(self._host, [self._run]).explain(self._run, write, knob, sighting.now or "")
        return ""

    def _counts(self, run: Run) -> bool:
        return run.begin.kind == "apply" and run.begin.root == str(self._host.root) and bool(run.live)
