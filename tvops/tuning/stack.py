"""What a profile wants of the stack itself, as `tvops serve` gives it to its processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tvops.engine.bus.roles import ROLES
from tvops.engine.bus.server_config import default_config
from tvops.engine.collector import ATTRIBUTES as COLLECTOR_ATTRIBUTES
from tvops.engine.process_attributes import ATTRIBUTES, read_attribute
from tvops.engine.socket_tuning import DEFAULTS, default_value
from tvops.engine.stack_tuning import Effect, StackTuning
from tvops.settings import Settings
from tvops.tuning.catalogue import load_catalogue
from tvops.tuning.facts import read_facts
from tvops.tuning.host import Host
from tvops.tuning.journal import StateDirectory, state_directory
from tvops.tuning.kinds.serve import TARGETS as SERVE_TARGETS
from tvops.tuning.model import Facts, Kind, Knob, Place, Profile, Wish
from tvops.tuning.plan import strongest, unfit_kernel
from tvops.tuning.profiles import resolve_profile
from tvops.tuning.values import parse_wanted, target
from tvops.tuning.watch.memory import KnobWatch

TARGETS: dict[Kind, tuple[str, ...]] = {**SERVE_TARGETS, "redis": tuple(ROLES)}
"""Who in the stack has the knobs of each kind."""


def stack_tuning(profile: Profile, catalogue: Mapping[str, Knob]) -> StackTuning:
    """Put together what supervisor, workers and embedded servers are to apply.

    Wishes that a guard leaves out are not in it; those that cannot be had here are in its `left`, with the reason.
    """
    wishes: dict[str, list[Wish]] = {}
    for each in profile.wishes:
        wishes.setdefault(each.knob, []).append(each)
    found: dict[str, dict[str, dict[str, str]]] = {"process": {}, "socket": {}, "redis": {}, "held": {}}
    left = []
    for name, of_knob in wishes.items():
        knob = catalogue[name]
        for place in TARGETS.get(knob.kind, ()):
            wish = strongest(of_knob, Place(place, place), profile.facts)
            if wish is None or wish.skip or wish.value == "-" or _beside_the_point(knob, wish, place):
                continue
            try:
                value = _value(knob, wish, place, profile.facts)
            except ValueError as error:
                left.append(_left(knob, place, wish, str(error)))
            else:
                found[knob.kind].setdefault(place, {})[knob.where] = value
    held = [int(value) for of_place in found["held"].values() for value in of_place.values()]
    return StackTuning(
        profile=profile.name, processes=found["process"], sockets=found["socket"], servers=found["redis"],
        dma_latency_us=min(held, default=None), left=tuple(left),
    )  # fmt: skip


def _beside_the_point(knob: Knob, wish: Wish, place: str) -> bool:
    """Whether a wish for all places speaks of one that cannot have it: no feed has a socket yet, for example."""
    return not wish.selector and (place == "feed" or _lacks_collector(knob, place))


def _lacks_collector(knob: Knob, place: str) -> bool:
    return knob.where in COLLECTOR_ATTRIBUTES and place not in ("engine", "market")


def _value(knob: Knob, wish: Wish, place: str, facts: Facts) -> str:
    if reason := unfit_kernel(knob, facts):
        raise ValueError(reason)
    if knob.kind == "process" and knob.where not in {*ATTRIBUTES, *COLLECTOR_ATTRIBUTES}:
        raise ValueError("tvops serve has no such setting")
    if _lacks_collector(knob, place):
        raise ValueError("engine and market have a collector to set, nobody else")
    value = target(knob, parse_wanted(knob, wish.value), _current(knob, place), facts)
    return "" if value == '""' else value


def _current(knob: Knob, place: str) -> str | None:
    """Give what counts without the profile: what `>=` and `<=` are measured against."""
    if knob.kind == "process":
        return read_attribute(knob.where, os.getpid()) if knob.where in ATTRIBUTES else None
    if knob.kind == "socket":
        return DEFAULTS.get(place, {}).get(knob.where) or default_value(knob.where)
    return default_config(ROLES[place]).get(knob.where) if knob.kind == "redis" else None


def _left(knob: Knob, place: str, wish: Wish, reason: str) -> Effect:
    assert knob.kind in ("process", "socket", "redis", "held")
    return Effect(
        kind=knob.kind, name=knob.where, target=place, wanted=str(wish.value), state="unsupported", reason=reason
    )


class StackProfile:
    """The profile of one stack: what its processes get, and what the host lacks."""

    def __init__(self, profile: Profile, catalogue: Mapping[str, Knob], host: Host, settings: Settings) -> None:
        self.name = profile.name
        self.tuning = stack_tuning(profile, catalogue)
        self.ids = {knob.where: knob.id for knob in catalogue.values() if knob.kind in TARGETS}
        self._profile, self._catalogue, self._host, self._settings = profile, catalogue, host, settings

    @classmethod
    def load(cls, settings: Settings) -> StackProfile:
        """Resolve the profile of ``settings`` on this host; raise SettingsError where it is wrong."""
        host, catalogue = Host(Path("/")), load_catalogue()
        return cls(resolve_profile(settings.profile, read_facts(host), catalogue), catalogue, host, settings)

    def watch(self) -> KnobWatch:
        """Give what looks whether all of it is in force; it reads the host and the stack, and writes nothing."""
        state = StateDirectory(state_directory())
        return KnobWatch(self._profile, self._catalogue, self._host, self._settings, state)


def summary(
    profile: str, in_force: Sequence[Effect], not_in_force: Sequence[Effect], ids: Mapping[str, str]
) -> str:
    """Write in one line what the stack has of its profile; empty where that says nothing of it.

    Args:
        profile: its name.
        in_force: effects as they were wanted.
        not_in_force: the others.
        ids: where a knob is -> its id.
    """
    if not in_force and not not_in_force:
        return ""
    reasons: dict[tuple[str, str], list[str]] = {}
    for effect in not_in_force:
        reasons.setdefault((ids.get(effect.name, effect.name), effect.reason), []).append(effect.target)
    left = [f"{name} ({', '.join(dict.fromkeys(at))}: {reason})" for (name, reason), at in reasons.items()]
    line = f"profile {profile}: {len(in_force)} settings in force"
    return f"{line}, {len(not_in_force)} left: {'; '.join(left)}" if left else line
