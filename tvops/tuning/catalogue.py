"""The catalogue of knobs: reads `kernel-tuning/*.yaml` and checks it.

A file is a mapping `knobs:` of ids to the fields of `Knob`; a sysctl's `where` is its id. The order of the files,
and of the knobs in them, is the order in which a plan lists and applies them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from tvops.errors import UsageError
from tvops.shipped import resource
from tvops.tuning.catalogue_rules import problems
from tvops.tuning.dead_keys import FILE as DEAD
from tvops.tuning.dead_keys import dead_key as dead_key
from tvops.tuning.model import Knob
from tvops.yaml_lines import Located, load_yaml

FILES = (
    "net", "nic", "irq", "cpu", "sched", "vm", "block", "cgroup", "process", "socket", "redis", "boot",
)  # fmt: skip
"""The order of the files: interfaces before interrupts, because new queues have new interrupts."""


def load_catalogue(folder: Path | None = None) -> dict[str, Knob]:
    """Give all knobs by id, in the order in which they are applied.

    Raises:
        UsageError: ``FILE:LINE: what is wrong, and the fix``.
    """
    return dict(_load(folder or resource("kernel-tuning")))


@cache
def _load(folder: Path) -> dict[str, Knob]:
    knobs: dict[str, Knob] = {}
    files: dict[str, Located] = {}  # id -> where it is defined
    for path in _files(folder):
        file = load_yaml(path)
        for knob in _knobs_of(file):
            if knob.id in knobs:
                first = files[knob.id].place("knobs", knob.id)
                raise UsageError(f"{file.place('knobs', knob.id)}: {knob.id} is defined twice, first at {first}")
            knobs[knob.id] = knob
            files[knob.id] = file
    for knob in knobs.values():
        _check_coupled(knob, knobs, files[knob.id])
    return knobs


def files_of(folder: Path | None = None) -> dict[str, list[str]]:
    """Give the ids of each catalogue file, in order, by the file's name without its suffix."""
    return {
        path.stem: list(load_yaml(path).value["knobs"]) for path in _files(folder or resource("kernel-tuning"))
    }


def _files(folder: Path) -> list[Path]:
    files = sorted((path for path in folder.glob("*.yaml") if path.name != DEAD), key=_rank)
    if not files:
        raise UsageError(f"{folder}: there is no catalogue (*.yaml) in this directory")
    return files


def _rank(path: Path) -> tuple[int, str]:
    return FILES.index(path.stem) if path.stem in FILES else len(FILES), path.name


def _knobs_of(file: Located) -> Iterator[Knob]:
    top = file.value
    if not isinstance(top, dict) or not isinstance(top.get("knobs"), dict):
        raise UsageError(f"{file.place('knobs')}: a catalogue file is a mapping 'knobs:' of ids to fields")
    if extra := [key for key in top if key != "knobs"]:
        raise UsageError(f"{file.place(extra[0])}: {extra[0]} is unknown; a catalogue file has 'knobs:' only")
    for name, fields in top["knobs"].items():
        yield _knob(file, name, fields)


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
    for field, problem in problems(knob):
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
    kind = get_type_hints(Knob)[field]
    if get_origin(kind) is Literal and isinstance(fields[field], str):
        return _error(file, name, field, f"is {fields[field]!r}, not one of {', '.join(get_args(kind))}")
    problem = message.partition(" - at")[0].lower().replace("`", "")
    fix = "; put it in quotes" if re.search(r"expected str, got (bool|int|float)", problem) else ""
    return _error(file, name, field, f"is {fields[field]!r}: {problem}{fix}")


def _check_coupled(knob: Knob, knobs: Mapping[str, Knob], file: Located) -> None:
    for other in knob.coupled:
        if other == knob.id:
            raise _error(file, knob.id, "coupled", "names the knob itself")
        if other not in knobs:
            raise _error(file, knob.id, "coupled", f"names {other}, which no file defines")
        if knob.id not in knobs[other].coupled:
            raise _error(file, knob.id, "coupled", f"names {other}, which does not name {knob.id} in turn")
