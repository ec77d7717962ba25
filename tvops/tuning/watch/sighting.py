"""What one look finds at one place of one knob."""

from __future__ import annotations

from typing import NamedTuple

Key = tuple[str, str, str]
"""Kind, knob and place."""


class Sighting(NamedTuple):
    """One place of one knob. Values are canonical."""

    kind: str
    knob: str  # its id in the catalogue
    place: str  # empty where it has one place only
    wanted: str
    now: str | None  # None: not known
    met: bool
    possible: bool  # whether it can be had here at all
    reason: str = ""
    before: bool = False  # whether it is known to have been in force before the first look
    told: bool = False  # `now` is what the process told when it started
    missed: bool = False  # it should have been read, and could not be

    @property
    def key(self) -> Key:
        """What tells places apart."""
        return self.kind, self.knob, self.place
