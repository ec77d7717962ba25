"""Tells the operators when a knob has drifted, and when it is as the profile wants it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tvops.engine.knob_table import place_text
from tvops.engine.telemetry.document import Knob
from tvops.engine.telemetry.events import EventLog, Severity

MOST_A_LOOK = 20
"""How many events one table may make; what there is beyond is counted: the table has it all."""

_Place = tuple[str, str, str]  # kind, knob, place


class KnobEvents:
    """Compares each table of knobs with the one before it, in a thread: a host has thousands of places."""

    def __init__(self) -> None:
        self._last: Sequence[Knob] = ()
        self._drifted: dict[_Place, Knob] = {}
        self._untold: list[tuple[Severity, str, str]] = []

    def compare(self, profile: str, knobs: Sequence[Knob]) -> None:
        """Find what has drifted or is well again; a table that is not there says nothing of either."""
        if not knobs or knobs is self._last:
            return
        self._last = knobs
        now = _by_place(knobs)
        drifted = {place: knob for place, knob in now.items() if knob.state == "drifted"}
        came = {
            place: knob
            for place, knob in drifted.items()
            if place not in self._drifted or self._drifted[place].now != knob.now
        }
        went = {place: knob for place, knob in now.items() if place in self._drifted and place not in drifted}
        self._drifted = drifted
        found = [*_drifts(came, profile), *_ends(went, profile)]
        if (more := len(found) - MOST_A_LOOK) > 0:
            severity = found[MOST_A_LOOK][0]  # of the gravest left out: drifts come first
            found[MOST_A_LOOK:] = [(severity, "knobs", f"and {more} more changes, which the table of knobs shows")]
        self._untold += found

    def tell(self, log: EventLog) -> None:
        """Note what was found since the last time."""
        found, self._untold = self._untold, []
        for severity, about, text in found:
            log.add(severity, about, text)


def _by_place(knobs: Sequence[Knob]) -> dict[_Place, Knob]:
    return {(knob.kind, knob.knob, place): knob for knob in knobs for place in knob.places or ("",)}


def _drifts(places: Mapping[_Place, Knob], profile: str) -> Iterator[tuple[Severity, str, str]]:
    for knob, at in _grouped(places):
        reason = f": {knob.reason}" if knob.reason else ""
        yield "warn", knob.knob, f"{at}{_shown(knob, profile)}; drifted{reason}"


def _ends(places: Mapping[_Place, Knob], profile: str) -> Iterator[tuple[Severity, str, str]]:
    for knob, at in _grouped(places):
        if knob.state == "in force":
            yield "info", knob.knob, f"{at}{knob.now} again, as profile {profile} wants"
        else:
            yield "info", knob.knob, f"{at}{_shown(knob, profile)}; {knob.state}"


def _grouped(places: Mapping[_Place, Knob]) -> Iterator[tuple[Knob, str]]:
    """Give a knob for each thing that there is to say, and the places of which it is to be said."""
    groups: dict[tuple[str | None, ...], tuple[Knob, list[str]]] = {}
    for (kind, name, place), knob in places.items():
        # The row itself is no key: its hash is made of all of its places, each time.
        key = (kind, name, knob.state, knob.now, knob.wanted, knob.reason)
        groups.setdefault(key, (knob, []))[1].append(place)
    for knob, at in groups.values():
        yield knob, f"{place_text(at)}: " if any(at) else ""


def _shown(knob: Knob, profile: str) -> str:
    return f"{'not known' if knob.now is None else knob.now or 'empty'}, profile {profile} wants {knob.wanted}"
