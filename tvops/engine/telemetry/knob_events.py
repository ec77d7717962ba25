"""Tells the operators when a knob has drifted, and when it is as the profile wants it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvops.engine.knob_table import place_text
from tvops.engine.telemetry.document import Knob
from tvops.engine.telemetry.events import EventLog

_Place = tuple[str, str, str]  # kind, knob, place


class KnobEvents:
    """Compares each table of knobs with the one before it."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._last: Sequence[Knob] = ()
        self._drifted: dict[_Place, Knob] = {}

    def note(self, profile: str, knobs: Sequence[Knob]) -> None:
        """Note what has drifted or is well again; a table that is not there says nothing of either."""
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
        for knob, at in _grouped(came):
            reason = f": {knob.reason}" if knob.reason else ""
            self._log.add("warn", knob.knob, f"{at}{_shown(knob, profile)}; drifted{reason}")
        went = {place: now[place] for place in self._drifted.keys() - drifted.keys() if place in now}
        for knob, at in _grouped(went):
            if knob.state == "in force":
                self._log.add("info", knob.knob, f"{at}{knob.now} again, as profile {profile} wants")
            else:
                self._log.add("info", knob.knob, f"{at}{_shown(knob, profile)}; {knob.state}")
        self._drifted = drifted


def _by_place(knobs: Sequence[Knob]) -> dict[_Place, Knob]:
    return {(knob.kind, knob.knob, place): knob for knob in knobs for place in knob.places or ("",)}


def _grouped(places: Mapping[_Place, Knob]) -> list[tuple[Knob, str]]:
    """Give each row that is concerned, with those of its places that are."""
    rows: dict[Knob, list[str]] = {}
    for (_, _, place), knob in sorted(places.items(), key=lambda one: one[0]):
        rows.setdefault(knob, []).extend([place] if place else [])
    return [(knob, f"{place_text(at)}: " if at else "") for knob, at in rows.items()]


def _shown(knob: Knob, profile: str) -> str:
    return f"{'not known' if knob.now is None else knob.now or 'empty'}, profile {profile} wants {knob.wanted}"
