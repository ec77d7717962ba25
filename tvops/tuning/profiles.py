"""Profiles resolved for a host: the last word of the chain on every knob, guards judged, CPU roles given out."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tvops.errors import SettingsError, UsageError
from tvops.profile_files import ROLES, Entry, ProfileFile, load_profile_chain, profile_names
from tvops.settings import profile_settings
from tvops.tuning.catalogue import dead_key
from tvops.tuning.guards import check_guard, refusal
from tvops.tuning.model import Facts, Knob, Profile, Wish
from tvops.tuning.topology import HOT, flat_topology, resolve_roles
from tvops.tuning.values import parse_wanted

EXCLUSIVE = (
    ("vm.dirty_bytes", "vm.dirty_ratio"),
    ("vm.dirty_background_bytes", "vm.dirty_background_ratio"),
)
"""Pairs of which the kernel sets one to 0 when the other is written."""


def chosen_profile(given: str | None) -> str:
    """Give the profile that a command is about: the one given, else $TVOPS_PROFILE; raise UsageError."""
    if name := given or os.environ.get("TVOPS_PROFILE"):
        return name
    raise UsageError(f"--profile: which one? Name {', '.join(profile_names())} or a file, or set TVOPS_PROFILE")


class Listed(msgspec.Struct, frozen=True):
    """A profile as a list of profiles shows it."""

    name: str
    description: str
    extends: tuple[str, ...]


def list_profiles() -> list[Listed]:
    """Give the profiles that ship; raise SettingsError where one cannot be read."""
    found = []
    for name in profile_names():
        chain = load_profile_chain(name)
        own = [file for file in chain if not file.overlay][-1]
        found.append(Listed(name, own.description, own.extends))
    return found


def resolve_profile(
    name_or_path: str,
    facts: Facts,
    catalogue: Mapping[str, Knob],
    assignments: Sequence[str] = (),
    overlays: Path | None = None,
) -> Profile:
    """Resolve a profile for a host.

    Args:
        name_or_path: the name of a profile that ships, or the path of a YAML file.
        facts: the host.
        catalogue: id -> knob.
        assignments: ``id=value`` or ``id@place=value`` of `--set`: they have the last word.
        overlays: folder of overlays; by default the system's.

    Raises:
        SettingsError: ``FILE:LINE: key: message`` where a file is wrong, ``--set …`` where an assignment is.
    """
    chain = load_profile_chain(name_or_path, overlays)
    facts = msgspec.structs.replace(facts, roles=_resolve_roles(chain, facts))
    wishes: dict[tuple[str, str], Wish] = {}
    for file in chain:
        for entry in file.entries:
            _put(wishes, _wish(file, entry, catalogue, facts))
    for assignment in assignments:
        _put(wishes, _assigned(assignment, catalogue, facts))
    _check_exclusive(wishes)
    files = [file for file in reversed(chain) if not file.overlay]
    return Profile(
        name=files[0].name,
        description=next((file.description for file in files if file.description), ""),
        settings=profile_settings(chain),
        wishes=tuple(wishes.values()),
        facts=facts,
    )


def _put(wishes: dict[tuple[str, str], Wish], wish: Wish) -> None:
    """Let a wish replace the earlier one of its knob and place, unless a guard leaves it out on this host."""
    earlier = wishes.get((wish.knob, wish.selector))
    if earlier and wish.skip and not earlier.skip:
        return
    # Taken out first, so that what was said later stands later: of two selectors that fit, the later one counts.
    wishes.pop((wish.knob, wish.selector), None)
    wishes[wish.knob, wish.selector] = wish


def _resolve_roles(chain: Sequence[ProfileFile], facts: Facts) -> dict[str, tuple[int, ...]]:
    wanted: dict[str, object] = {role: policy for file in chain for role, policy in file.roles.items()}
    try:
        return resolve_roles(facts.topology or flat_topology(facts.cpus), wanted)
    except ValueError as error:
        role = str(error).partition(":")[0]
        file = next(file for file in reversed(chain) if role in file.roles)
        raise SettingsError(f"{file.located.place('roles', role)}: {error}") from None


def _wish(file: ProfileFile, entry: Entry, catalogue: Mapping[str, Knob], facts: Facts) -> Wish:
    try:
        _check_wish(entry.knob, entry.selector, entry.value, catalogue)
    except ValueError as error:
        raise file.error(entry.keys, str(error)) from None
    for fact, wanted in entry.when.items():
        try:
            check_guard(fact, wanted)
        except ValueError as error:
            raise file.error((*entry.keys, "when", fact), str(error)) from None
    return Wish(
        knob=entry.knob,
        selector=entry.selector,
        value=entry.value,
        required=entry.required,
        skip=refusal(entry.when, facts),
        why=entry.why,
        origin=file.origin(*entry.keys),
    )


def _assigned(assignment: str, catalogue: Mapping[str, Knob], facts: Facts) -> Wish:
    key, equals, value = assignment.partition("=")
    knob, at, selector = key.strip().partition("@")
    if not equals or not knob or (at and not selector):
        raise UsageError(f"--set {assignment}: must be ID=VALUE or ID@PLACE=VALUE")
    try:
        _check_wish(knob, selector, value.strip(), catalogue)
    except ValueError as error:
        raise UsageError(f"--set {assignment}: {knob}: {error}") from None
    return Wish(knob=knob, selector=selector, value=value.strip(), origin="--set")


def _check_wish(knob_id: str, selector: str, value: object, catalogue: Mapping[str, Knob]) -> None:
    """Raise ValueError where a wish cannot be meant."""
    if reason := dead_key(knob_id) or dead_key(f"{knob_id}={value}"):
        raise ValueError(reason)
    knob = catalogue.get(knob_id)
    if knob is None:
        near = difflib.get_close_matches(knob_id, catalogue, 3)
        hint = f"do you mean {' or '.join(near)}?" if near else "see docs/knobs.md"
        raise ValueError(f"there is no such knob; {hint}")
    wanted = parse_wanted(knob, value)
    operands = [operand for _, operand in wanted.parts] if knob.type in ("cpulist", "cpumask") else []
    for role in [text[1:] for text in (selector, *operands) if text.startswith("$")]:
        if role not in (*ROLES, HOT):
            raise ValueError(f"${role} is no CPU role; there are {', '.join((*ROLES, HOT))}")


def _check_exclusive(wishes: Mapping[tuple[str, str], Wish]) -> None:
    counting = {wish.knob: wish for wish in wishes.values() if wish.value != "-" and not wish.skip}
    for one, other in EXCLUSIVE:
        if one in counting and other in counting:
            first, second = counting[one], counting[other]
            raise SettingsError(
                f"{second.origin}: {other}: contradicts {one} ({first.origin}): the kernel sets either to 0 when "
                "the other is written; set one of them to '-'"
            )
