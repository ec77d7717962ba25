"""What is rendered: the knobs of a plan whose value is known, each with the place where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tvops.tuning.model import Facts, Item, Kind, Knob, Place, Profile
from tvops.tuning.plan import unfit_kernel
from tvops.tuning.values import parse_wanted, target

MARK = "# Made by `tvops tune persist`"
"""How the first line of every file of ours begins."""

PLACED: frozenset[Kind] = frozenset({"sysctl", "file", "nic"})
"""Kinds that are rendered for the places that this host has; the others are rendered from the wish alone."""

SLICE = "/sys/fs/cgroup/tvops.slice/"
"""The control group of the stack, which is there only once the service manager has made it."""

_KNOWN_STATES = ("met", "pending", "privilege", "restart", "reboot")


class Setting(msgspec.Struct, frozen=True):
    """One value at one place, to be had at every boot."""

    knob: Knob
    place: Place  # of a kind that is not `PLACED`: no address, and the wish's selector for a name
    value: str  # canonical
    wanted: str  # as the profile says it
    why: str


def header(profile: Profile, about: str) -> list[str]:
    """Give the lines that stand at the top of a file: whose it is, from which profile, and how to undo it."""
    return [
        f"{MARK} from the profile {one_line(profile.name)}: {about}",
        "# Change the profile and persist it again, not this file. `tvops tune unpersist` puts the old back.",
        "",
    ]


def one_line(text: str) -> str:
    """Give text without line ends, so that it stays within its comment."""
    return " ".join(text.split())


def gather_settings(
    profile: Profile, items: Sequence[Item], catalogue: Mapping[str, Knob]
) -> dict[Kind, list[Setting]]:
    """Give everything that can be rendered, by kind and in the catalogue's order.

    What a guard or the host leaves out, and what would do harm, is not in it.
    """
    found: dict[Kind, list[Setting]] = {}
    for item in items:
        knob = catalogue[item.knob]
        place = item.place
        if item.state == "unsupported" and knob.where.startswith(SLICE):
            place = Place(knob.where)
        elif item.kind not in PLACED or item.state not in _KNOWN_STATES or not place.address:
            continue
        value = _value_at_place(item, knob, profile.facts)
        if value is not None:
            found.setdefault(item.kind, []).append(Setting(knob, place, value, item.wanted, item.why))
    for setting in _from_wishes(profile, items, catalogue):
        found.setdefault(setting.knob.kind, []).append(setting)
    return found


def _value_at_place(item: Item, knob: Knob, facts: Facts) -> str | None:
    if item.current is not None:
        return item.value
    try:
        return target(knob, parse_wanted(knob, item.wanted), None, facts)
    except ValueError:
        return None


def _from_wishes(profile: Profile, items: Sequence[Item], catalogue: Mapping[str, Knob]) -> Iterator[Setting]:
    refused = {(item.knob, item.origin) for item in items if item.state == "refused"}
    for knob in catalogue.values():
        for wish in profile.wishes:
            if wish.knob != knob.id or knob.kind in PLACED or wish.skip or (knob.id, wish.origin) in refused:
                continue
            try:
                wanted = parse_wanted(knob, wish.value)
                # At least 16 MB is 16 MB here: what runs, or does not run yet, is not asked.
                value = target(knob, parse_wanted(knob, _exactly(wanted.text)), None, profile.facts)
            except ValueError:
                continue
            if not unfit_kernel(knob, profile.facts):
                yield Setting(knob, Place("", wish.selector), value, wanted.text, wish.why or knob.why)


def _exactly(wanted: str) -> str:
    return wanted.replace(">=", "=").replace("<=", "=")


def comment_lines(setting: Setting, facts: Facts) -> list[str]:
    """Give the comment above a setting: why, and what the profile says where that is not the value itself."""
    text = one_line(setting.why)
    if setting.wanted != setting.value:
        text += f" ({one_line(setting.wanted)}{_surplus(setting, facts)})"
    return [f"# {text}"]


def _surplus(setting: Setting, facts: Facts) -> str:
    """Say that a host has more than is asked for by itself (or less)."""
    if _exactly(setting.wanted) == setting.wanted:
        return ""
    asked = target(setting.knob, parse_wanted(setting.knob, _exactly(setting.wanted)), setting.value, facts)
    if asked == setting.value:
        return ""
    return f"; this host has {'more' if '>=' in setting.wanted else 'less'} by itself"
