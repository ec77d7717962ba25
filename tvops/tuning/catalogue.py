"""The catalogue of knobs: reads `kernel-tuning/*.yaml`, checks it, and knows the keys that do nothing.

A file is a mapping `knobs:` of ids to the fields of `Knob`; a sysctl's `where` is its id. The order of the files and
of the knobs in them is the order in which a plan lists and applies them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from tvops.errors import UsageError
from tvops.settings import resource
from tvops.tuning.model import Kind, Knob, Scope
from tvops.yaml_lines import Located, load_yaml

FILES = (
    "net", "nic", "irq", "cpu", "sched", "vm", "block", "cgroup", "process", "socket", "redis", "boot",
)  # fmt: skip
"""The order of the files: interfaces before interrupts, because new queues have new interrupts."""

DEAD = "dead.yaml"
UNITS = ("bytes", "kbytes", "pages", "ns", "us", "ms", "s", "percent")
PLACEHOLDERS = ("cpu", "irq", "nic", "queue", "block", "node")
ETHTOOL_GROUPS = ("coalesce", "ring", "feature", "channels", "pause")

SCOPES: Mapping[Kind, tuple[Scope, ...]] = {
    "sysctl": ("host", "netns"),
    "file": ("host", "nic", "netns"),
    "nic": ("nic",),
    "redis": ("server",),
    "boot": ("boot",),
    "held": ("process",),
    "process": ("process",),
    "socket": ("socket",),
}

_ID = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_VERSION = re.compile(r"\d{1,3}\.\d{1,3}")
_SYSCTL = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


class DeadKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key, a pattern of keys, or a key=value, that no profile should ask for."""

    key: str
    reason: str
    source: str


def load_catalogue(folder: Path | None = None) -> dict[str, Knob]:
    """Give all knobs by id, in the order in which they are applied.

    Raises:
        UsageError: ``FILE:LINE: what is wrong, and the fix``.
    """
    return dict(_load(folder or resource("kernel-tuning")))


@cache
def _load(folder: Path) -> dict[str, Knob]:
    knobs: dict[str, Knob] = {}
    places: dict[str, str] = {}  # id -> FILE:LINE
    paths = sorted((p for p in folder.glob("*.yaml") if p.name != DEAD), key=_rank)
    if not paths:
        raise UsageError(f"{folder}: there is no catalogue (*.yaml) in this directory")
    for path in paths:
        for knob, place in _knobs_of(load_yaml(path)):
            if knob.id in knobs:
                raise UsageError(f"{place}: {knob.id} is defined twice, first at {places[knob.id]}")
            knobs[knob.id] = knob
            places[knob.id] = place
    for knob in knobs.values():
        _check_coupled(knob, knobs, places[knob.id])
    return knobs


def files_of(folder: Path | None = None) -> dict[str, list[str]]:
    """Give the ids of each catalogue file, in order, by the file's name without its suffix."""
    folder = folder or resource("kernel-tuning")
    paths = sorted((p for p in folder.glob("*.yaml") if p.name != DEAD), key=_rank)
    return {path.stem: list(load_yaml(path).value["knobs"]) for path in paths}


def _rank(path: Path) -> tuple[int, str]:
    return FILES.index(path.stem) if path.stem in FILES else len(FILES), path.name


def _knobs_of(file: Located) -> Iterator[tuple[Knob, str]]:
    top = file.value
    if not isinstance(top, dict) or not isinstance(top.get("knobs"), dict):
        raise UsageError(f"{file.place('knobs')}: a catalogue file is a mapping 'knobs:' of ids to fields")
    if extra := [key for key in top if key != "knobs"]:
        raise UsageError(f"{file.place(extra[0])}: {extra[0]} is unknown; a catalogue file has 'knobs:' only")
    for name, fields in top["knobs"].items():
        yield _knob(file, name, fields), file.place("knobs", name)


def _knob(file: Located, name: str, fields: Any) -> Knob:
    """Convert and check one knob."""
    if not isinstance(fields, dict):
        raise UsageError(f"{file.place('knobs', name)}: {name} has to be a mapping of fields (kind, type, why, …)")
    if extra := [key for key in fields if key not in Knob.__struct_fields__ or key == "id"]:
        raise _error(file, name, extra[0], f"is not a field of a knob{_suggestion(extra[0])}")
    fields = {"id": name} | fields
    if fields.get("kind") == "sysctl":
        fields.setdefault("where", name)
    try:
        knob = msgspec.convert(fields, Knob)
    except msgspec.ValidationError as error:
        raise _conversion_error(file, name, fields, str(error)) from None
    for field, problem in _problems(knob):
        raise _error(file, name, field, problem)
    return knob


def _error(file: Located, name: str, field: str, problem: str) -> UsageError:
    return UsageError(f"{file.place('knobs', name, field)}: {name}: {field} {problem}")


def _suggestion(field: str) -> str:
    close = difflib.get_close_matches(field, Knob.__struct_fields__, 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(Knob.__struct_fields__[1:])}"


def _conversion_error(file: Located, name: str, fields: Mapping[str, Any], message: str) -> UsageError:
    """Say what msgspec found in our words: the field, what it holds and what fits."""
    if missing := re.search(r"missing required field `(\w+)`", message):
        return UsageError(f"{file.place('knobs', name)}: {name}: the field {missing[1]} is missing")
    at = re.search(r"`\$\.(\w+)", message)
    field = at[1] if at else "id"
    allowed = get_args(get_type_hints(Knob)[field])
    if allowed:
        return _error(file, name, field, f"is {fields[field]!r}, not one of {', '.join(allowed)}")
    expected = message.split(" - at")[0][0].lower() + message.split(" - at")[0][1:]
    fix = "; put it in quotes" if "`str" in message and not isinstance(fields[field], (dict, list)) else ""
    return _error(file, name, field, f"is {fields[field]!r}: {expected}{fix}")


def _problems(knob: Knob) -> Iterator[tuple[str, str]]:
    """Give field and problem of everything that is wrong with a knob by itself."""
    if not _ID.fullmatch(knob.id):
        yield "id", "may have a-z, 0-9, _, - and single dots only"
    if reason := dead_key(knob.id) or dead_key(knob.where):
        yield "where", f"is a dead key: {reason}"
    yield from _text_problems(knob)
    yield from _value_problems(knob)
    yield from _kernel_problems(knob)
    yield from _PLACE_CHECKS[knob.kind](knob)
    if knob.scope not in SCOPES[knob.kind]:
        yield "scope", f"is {knob.scope}; a {knob.kind} knob has {' or '.join(SCOPES[knob.kind])}"
    if knob.live and (knob.risk != "safe" or knob.reboot or knob.restart or knob.kind == "boot"):
        yield "live", "needs risk: safe, and neither reboot nor restart: it is flipped while the host works"
    if knob.capability and not re.fullmatch(r"CAP_[A-Z_]+", knob.capability):
        yield "capability", f"is {knob.capability!r}, not a name such as CAP_NET_ADMIN"
    if knob.capability and not knob.root:
        yield "capability", "contradicts root: false"


def _text_problems(knob: Knob) -> Iterator[tuple[str, str]]:
    for field in ("where", "why", "truth", "hazard", "source", "restart"):
        text = getattr(knob, field)
        if text != text.strip() or "\n" in text:
            yield field, "has to be one line without blanks around it"
        if not text and field in ("where", "why", "source"):
            yield field, "is empty"
    if knob.why.endswith("."):
        yield "why", "is one clause: leave the full stop out"


def _value_problems(knob: Knob) -> Iterator[tuple[str, str]]:
    number = knob.type in ("int", "ints")
    if knob.unit and not number:
        yield "unit", f"is for numbers, and the type is {knob.type}"
    if knob.unit and knob.unit not in UNITS:
        yield "unit", f"is {knob.unit!r}, not one of {', '.join(UNITS)}; leave it out for a plain number"
    if knob.unlimited is not None and not number:
        yield "unlimited", f"is for numbers, and the type is {knob.type}"
    if knob.choices and knob.type not in ("choice", "word"):
        yield "choices", f"are for the types choice and word, and the type is {knob.type}"
    if len(set(knob.choices)) < len(knob.choices):
        yield "choices", "name a value twice"


def _kernel_problems(knob: Knob) -> Iterator[tuple[str, str]]:
    versions = []
    for field in ("kernel_min", "kernel_max"):
        text = getattr(knob, field)
        if text and not _VERSION.fullmatch(text):
            yield field, f"is {text!r}, not a version such as '6.11'"
        elif text:
            versions.append(tuple(map(int, text.split("."))))
    if len(versions) == 2 and versions[0] >= versions[1]:
        yield "kernel_max", "has to be later than kernel_min"


def _sysctl_problems(knob: Knob) -> Iterator[tuple[str, str]]:
    if knob.where != knob.id:
        yield "where", "of a sysctl is its id: leave it out"
    if not _SYSCTL.fullmatch(knob.where):
        yield "where", "is not a sysctl key such as net.core.rmem_max"


def _file_problems(knob: Knob) -> Iterator[tuple[str, str]]:
    if not knob.where.startswith(("/proc/", "/sys/", "/dev/")) or "/../" in knob.where:
        yield "where", f"is {knob.where!r}; a file of the kernel is below /proc, /sys or /dev"
    if knob.where.startswith("/proc/sys/"):
        yield "where", f"is a sysctl: kind sysctl, id {knob.where.removeprefix('/proc/sys/').replace('/', '.')}"
    for placeholder in re.findall(r"\{([^}]*)\}", knob.where):
        if placeholder not in PLACEHOLDERS:
            yield "where", f"has {{{placeholder}}}; there are {', '.join(f'{{{p}}}' for p in PLACEHOLDERS)}"


def _nic_problems(knob: Knob) -> Iterator[tuple[str, str]]:
    group, _, name = knob.where.partition(" ")
    if group not in ETHTOOL_GROUPS or not name:
        yield "where", f"is {knob.where!r}, not a parameter of one of {', '.join(ETHTOOL_GROUPS)}"
    yield from _named_problems(knob)


def _named_problems(knob: Knob) -> Iterator[tuple[str, str]]:
    name = knob.where.replace(" ", ".")
    if knob.id != f"{knob.kind}.{name}":
        yield "where", f"is {knob.where!r}, which belongs to the id {knob.kind}.{name}"


def _own_problems(knob: Knob) -> Iterator[tuple[str, str]]:
    if not knob.id.startswith(f"{knob.kind}."):
        yield "id", f"has to begin with {knob.kind}."
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", knob.where):
        yield "where", f"is {knob.where!r}, not the name of an attribute or option, such as nice or TCP_NODELAY"


def _held_problems(knob: Knob) -> Iterator[tuple[str, str]]:
    if not knob.where.startswith("/dev/"):
        yield "where", f"is {knob.where!r}; what is held open is a file below /dev"


def _boot_problems(knob: Knob) -> Iterator[tuple[str, str]]:
    if not knob.id.startswith("boot."):
        yield "id", "has to begin with boot."
    if not knob.reboot:
        yield "reboot", "has to be true: the kernel reads its command line once"


_PLACE_CHECKS = {
    "sysctl": _sysctl_problems,
    "file": _file_problems,
    "nic": _nic_problems,
    "redis": _named_problems,
    "process": _own_problems,
    "socket": _own_problems,
    "held": _held_problems,
    "boot": _boot_problems,
}


def _check_coupled(knob: Knob, knobs: Mapping[str, Knob], place: str) -> None:
    for other in knob.coupled:
        if other not in knobs:
            raise UsageError(f"{place}: {knob.id}: coupled names {other}, which no file defines")
        if other == knob.id or knob.id not in knobs[other].coupled:
            raise UsageError(f"{place}: {knob.id}: coupled names {other}, which does not name {knob.id} in turn")


def dead_key(key: str) -> str | None:
    """Tell why a key (``net.ipv4.tcp_tw_recycle``) or a value of it (``key=0``) must not be asked for; None: fine."""
    name, equals, value = key.partition("=")
    name = name.strip()
    if not name.startswith("/"):
        name = name.replace("/", ".")
    asked = f"{name}={value.lstrip('=').strip()}" if equals else name
    return next((dead.reason for dead in dead_keys() if fnmatchcase(asked, dead.key)), None)


@cache
def dead_keys() -> tuple[DeadKey, ...]:
    """Give every dead or fake key with the reason; raise UsageError where the file is wrong."""
    file = load_yaml(resource("kernel-tuning") / DEAD)
    if (
        not isinstance(file.value, dict)
        or list(file.value) != ["dead"]
        or not isinstance(file.value["dead"], list)
    ):
        raise UsageError(f"{file.place()}: a list 'dead:' of key, reason and source is expected")
    keys = []
    for i, entry in enumerate(file.value["dead"]):
        try:
            keys.append(msgspec.convert(entry, DeadKey))
        except msgspec.ValidationError as error:
            raise UsageError(f"{file.place('dead', i)}: {error}") from None
    return tuple(keys)
