"""Keys and values that no profile may ask for: gone, never there, without effect, or harmful."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache

import msgspec

from tvops.errors import UsageError
from tvops.shipped import resource
from tvops.yaml_lines import load_yaml

FILE = "dead.yaml"


class DeadKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key, a pattern of keys, or a key=value, that no profile should ask for."""

    key: str
    reason: str
    source: str


def dead_key(key: str) -> str | None:
    """Tell why a key, or a value of one (``net.ipv4.tcp_sack=0``), must not be asked for; None where it may.

    A value may be written as in a profile, with an operator before it or alternatives behind it.
    """
    name, equals, value = key.partition("=")
    asked = name.strip().replace("/", ".")
    if equals:
        first = value.lstrip("<>= ").split("|")[0].strip()
        asked += f"={int(first) if first.isdecimal() else first}"
    return next((dead.reason for dead in load_dead_keys() if fnmatchcase(asked, dead.key)), None)


@cache
def load_dead_keys() -> tuple[DeadKey, ...]:
    """Give every dead or fake key with the reason; raise UsageError where the file is wrong."""
    file = load_yaml(resource("kernel-tuning") / FILE)
    entries = file.value.get("dead") if isinstance(file.value, dict) else None
    if not isinstance(entries, list):
        raise UsageError(f"{file.place()}: a list 'dead:' of key, reason and source is expected")
    keys = []
    for i, entry in enumerate(entries):
        try:
            keys.append(msgspec.convert(entry, DeadKey))
        except msgspec.ValidationError as error:
            raise UsageError(f"{file.place('dead', i)}: {error}") from None
    return tuple(keys)
