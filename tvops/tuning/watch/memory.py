"""Remembers what was in force, so that what is otherwise now can be told from what never was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from tvops.engine.knob_table import KNOB_STATES, Knob, KnobState
from tvops.engine.stack_tuning import Effect
from tvops.settings import Settings
from tvops.tuning.host import Host
from tvops.tuning.journal import StateDirectory
from tvops.tuning.model import Knob as Definition
from tvops.tuning.model import Profile
from tvops.tuning.watch.host_look import HostLook
from tvops.tuning.watch.sighting import Key, Sighting
from tvops.tuning.watch.stack_look import StackLook


class KnobWatch:
    """The knobs of one stack's profile, look by look. Not for two threads at a time."""

    def __init__(
        self,
        profile: Profile,
        catalogue: Mapping[str, Definition],
        host: Host,
        settings: Settings,
        state: StateDirectory,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Watch over ``profile``, resolved for ``host``.

        Args:
            profile: what is wanted.
            catalogue: all knobs.
            host: whose sysctls, files and interfaces are read.
            settings: of the stack.
            state: the journals of `tvops tune`.
            clock: ns since 1970.
        """
        self._stack = StackLook(catalogue, settings)
        self._host = HostLook(profile, catalogue, host, state)
        self._clock = clock
        self._seen: dict[Key, Knob] = {}
        self._once_met: set[Key] = set()

    def look(self, effects: Sequence[Effect]) -> tuple[Knob, ...]:
        """Read everything again; places of which the same holds are one row, those to look at first come first.

        Args:
            effects: what the processes of the stack told of themselves.
        """
        now = self._clock()
        of_stack = {s.key: self._judged(s, now) for s in self._stack.sightings(effects)}
        of_host = {s.key: self._judged(s, now, self._host.suspect) for s in self._host.sightings()}
        self._seen = of_stack | of_host
        return gathered(self._seen.values())

    def _judged(self, sighting: Sighting, now: int, suspect: Callable[[Sighting], str] | None = None) -> Knob:
        last = self._seen.get(sighting.key)
        if last is not None and sighting.missed:
            return last
        state = self._state(sighting)
        if state == "in force":
            self._once_met.add(sighting.key)
        same = last if last is not None and last.state == state and last.now == sighting.now else None
        reason = sighting.reason
        if state == "drifted" and suspect is not None:
            reason = same.reason if same else suspect(sighting)
        return Knob(
            kind=sighting.kind,
            knob=sighting.knob,
            places=(sighting.place,) if sighting.place else (),
            wanted=sighting.wanted,
            now=sighting.now,
            state=state,
            since=last.since if last is not None and last.state == state else now,
            looked=same.looked if same and sighting.told else now,
            told=sighting.told,
            reason=reason,
        )

    def _state(self, sighting: Sighting) -> KnobState:
        if sighting.met:
            return "in force"
        if sighting.now is not None and (sighting.before or sighting.key in self._once_met):
            return "drifted"
        return "differs" if sighting.possible else "not here"


def gathered(knobs: Iterable[Knob]) -> tuple[Knob, ...]:
    """Join the places of a knob of which the same holds."""
    places: dict[Knob, list[str]] = {}
    for knob in knobs:
        places.setdefault(msgspec.structs.replace(knob, places=()), []).extend(knob.places)
    rows = [msgspec.structs.replace(knob, places=tuple(at)) for knob, at in places.items()]
    return tuple(sorted(rows, key=lambda knob: KNOB_STATES.index(knob.state)))
