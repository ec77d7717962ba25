"""Profile files: what one says, on which line, what it extends, and the files that overlay it.

    description: Production                 what it is for
    extends: base                           or [base, other]: a later one wins
    settings: {max_batch_size: 200}         of `tvops serve`
    roles: {engine: 1, redis: auto}         cores of each role: a number, auto, all, or cpus:2-3
    knobs:
      net.core.somaxconn: ">=4096"          or id@place, and {value, required, when, why} instead of the value

An overlay, a file of the same kind in `/etc/tvops/profiles.d`, extends nothing and may say `applies_to: [prod]`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tvops.errors import SettingsError, UsageError
from tvops.shipped import resource
from tvops.yaml_lines import Located, load_yaml

ROLES = ("housekeeping", "irq", "engine", "market", "redis")
OVERLAYS = Path("/etc/tvops/profiles.d")
UNTOUCHED = "dev"
"""The profile that an overlay changes only if it names it: it promises to change nothing on the host."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.IGNORECASE)
_POLICY = re.compile(r"auto|all|cpus:\d+(-\d+)?(,\d+(-\d+)?)*")
_MAX_FILES = 32


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a profile file says of one knob."""

    knob: str
    selector: str
    value: object
    required: bool = False
    when: Mapping[str, object] = {}
    why: str = ""
    keys: tuple[str, ...] = ()  # where in the file


class ProfileFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file, checked as far as that takes no catalogue and no host."""

    name: str
    located: Located
    description: str = ""
    extends: tuple[str, ...] = ()
    overlay: bool = False
    applies_to: tuple[str, ...] | None = None  # of an overlay; None: every profile but `UNTOUCHED`
    settings: dict[str, Any] = {}
    roles: dict[str, int | str] = {}
    entries: tuple[Entry, ...] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return self.located.path

    def origin(self, *keys: str) -> str:
        """Give the file's name and the line of a key, for plans and reports."""
        return f"{self.path.name}:{self.located.line(*keys)}"

    def error(self, keys: Sequence[str], message: str) -> SettingsError:
        """Make the error that is wrong with a key."""
        return _error(self.located, keys, message)


def _error(located: Located, keys: Sequence[str], message: str) -> SettingsError:
    named = [key for key in keys[1:] or keys if key != "value"]
    return SettingsError(": ".join([located.place(*keys), *named, message]))


def profile_names() -> list[str]:
    """Give the names of the profiles that ship."""
    return sorted(path.stem for path in resource("profiles").glob("*.yaml"))


def overlay_folder() -> Path:
    """Give where overlays are: $TVOPS_PROFILES_DIR, else `/etc/tvops/profiles.d`."""
    return Path(os.environ.get("TVOPS_PROFILES_DIR") or OVERLAYS)


def load_profile_chain(name_or_path: str, overlays: Path | None = None) -> list[ProfileFile]:
    """Read a profile with all that it extends and all that overlays it: what comes later counts.

    Args:
        name_or_path: the name of a profile that ships, or the path of a YAML file.
        overlays: folder of overlays; by default `overlay_folder()`.

    Raises:
        SettingsError: names file, line and key, and what to do.
    """
    path = _find(name_or_path, Path())
    if path is None:
        raise SettingsError(f"profile: {_missing(name_or_path)}")
    chain: list[ProfileFile] = []
    _extend(chain, path, ())
    files = _overlays_in(overlay_folder() if overlays is None else overlays)
    return chain + [overlay for file in files if _applies(overlay := _read(file, overlay=True), chain[-1].name)]


def _overlays_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".yaml" and path.name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SettingsError(f"{folder}: overlays of profiles cannot be read: {error.strerror}") from None


def _applies(overlay: ProfileFile, name: str) -> bool:
    return name != UNTOUCHED if overlay.applies_to is None else name in overlay.applies_to


def _find(name: str, beside: Path) -> Path | None:
    """Give the file of a name or path, which is relative to the folder ``beside``."""
    is_path = "/" in name or name.endswith((".yaml", ".yml"))
    if not is_path and not _NAME.fullmatch(name):
        return None
    path = beside / name if is_path else resource("profiles") / f"{name}.yaml"
    try:
        return path if path.is_file() else None
    except OSError:  # a folder that may not be entered, or a name that is too long
        return None


def _missing(name: str) -> str:
    return f"there is no profile {name!r}; choose one of {', '.join(profile_names())}, or give the path of a file"


def _extend(chain: list[ProfileFile], path: Path, above: tuple[Path, ...]) -> None:
    """Append a file behind everything that it extends; what two files extend stands there once."""
    profile = _read(path)
    for name in profile.extends:
        base = _find(name, path.parent)
        if base is None:
            raise profile.error(["extends"], _missing(name))
        line = (*above, path)
        if any(base.samefile(other) for other in line):
            circle = " extends ".join([*(other.stem for other in line), base.stem])
            raise profile.error(["extends"], f"a circle: {circle}; take one of them out")
        if len(line) >= _MAX_FILES:
            raise profile.error(["extends"], f"more than {_MAX_FILES} files deep; merge some of them")
        if not any(base.samefile(other.path) for other in chain):
            _extend(chain, base, line)
    chain.append(profile)


def _read(path: Path, overlay: bool = False) -> ProfileFile:
    try:
        located = load_yaml(path)
    except UsageError as error:
        raise SettingsError(str(error)) from None
    data = {} if located.value is None else located.value
    if not isinstance(data, dict):
        raise _error(located, [], "must be a mapping of description, extends, settings, roles, knobs")
    known = ["description", "applies_to" if overlay else "extends", "settings", "roles", "knobs"]
    for key in data:
        if key not in known:
            hint = "an overlay extends nothing; " if key == "extends" else ""
            raise _error(located, [key], f"is not known here; {hint}use {', '.join(known)}")
    description = data.get("description", "")
    if not isinstance(description, str):
        raise _error(located, ["description"], "must be text; put it in quotes")
    if not any(key in data for key in known[1:]):
        raise _error(located, [], f"says nothing; give it one of {', '.join(known[1:])}")
    return ProfileFile(
        name=path.stem,
        located=located,
        description=description,
        extends=_names(located, data, "extends"),
        overlay=overlay,
        applies_to=_names(located, data, "applies_to") if "applies_to" in data else None,
        settings=_mapping(located, data, ["settings"], "setting: value"),
        roles=_roles(located, _mapping(located, data, ["roles"], "role: number of cores")),
        entries=tuple(
            _entry(located, key, value)
            for key, value in _mapping(located, data, ["knobs"], "knob: value").items()
        ),
    )  # fmt: skip


def _names(located: Located, data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key, ())
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise _error(located, [key], "must be the name of a profile or a list of names")
    return tuple(names)


def _mapping(located: Located, data: Mapping[str, Any], keys: Sequence[str], form: str) -> dict[str, Any]:
    value = data.get(keys[-1])
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _error(located, keys, f"must be a mapping of {form}")
    return value


def _roles(located: Located, roles: dict[str, Any]) -> dict[str, int | str]:
    for role, policy in roles.items():
        if role not in ROLES:
            raise _error(located, ["roles", role], f"is no role; there are {', '.join(ROLES)}")
        number = isinstance(policy, int) and not isinstance(policy, bool) and policy > 0
        if not number and not (isinstance(policy, str) and _POLICY.fullmatch(policy)):
            raise _error(
                located, ["roles", role], f"{policy!r} is neither a number of cores nor auto, all or cpus:2-3"
            )
    return roles


def _entry(located: Located, key: str, value: Any) -> Entry:
    keys = ("knobs", key)
    knob, at, selector = key.partition("@")
    if not knob or (at and not selector):
        raise _error(located, keys, "must be a knob or knob@place")
    if not isinstance(value, dict):
        _check_value(located, keys, value)
        return Entry(knob=knob, selector=selector, value=value, keys=keys)
    for name in value:
        if name not in ("value", "required", "when", "why"):
            raise _error(located, (*keys, name), "is not known here; use value, required, when, why")
    if "value" not in value:
        raise _error(located, keys, "has no value; write value: …")
    _check_value(located, (*keys, "value"), value["value"])
    if not isinstance(value.get("required", False), bool):
        raise _error(located, (*keys, "required"), "must be true or false")
    if not isinstance(value.get("why", ""), str):
        raise _error(located, (*keys, "why"), "must be text; put it in quotes")
    when = _mapping(located, value, [*keys, "when"], "fact: what it must be")
    return Entry(
        knob=knob, selector=selector, value=value["value"], required=value.get("required", False),
        when=when, why=value.get("why", ""), keys=keys,
    )  # fmt: skip


def _check_value(located: Located, keys: Sequence[str], value: Any) -> None:
    if value is None or value == []:
        raise _error(located, keys, "is empty; write '-' to leave the knob alone")
    for element in value if isinstance(value, list) else [value]:
        if isinstance(element, dict | list) or element is None:
            raise _error(located, keys, "must be a value, or a list of values for a knob with several numbers")
        if isinstance(element, bool):
            raise _error(located, keys, f"{str(element).lower()} is a YAML boolean; put the word in quotes")
