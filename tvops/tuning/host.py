"""Compares the host with the catalogue in `kernel-tuning/`: reads only, changes nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import yaml

from tvops.errors import UsageError
from tvops.settings import resource


class Knob(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One setting of the host, as the catalogue describes it (the keys are told in `kernel-tuning/vm.yaml`)."""

    id: str
    path: str
    wanted: str
    why: str
    source: str


def load_catalogue(folder: Path | None = None) -> list[Knob]:
    """Read every file of the catalogue; raise UsageError naming the file where one is wrong."""
    knobs = []
    for path in sorted((folder or resource("kernel-tuning")).glob("*.yaml")):
        try:
            data = msgspec.convert(yaml.safe_load(path.read_text()), dict[str, list[Knob]])
            knobs += data["knobs"]
        except (OSError, yaml.YAMLError, msgspec.ValidationError, KeyError) as error:
            raise UsageError(f"knob catalogue {path}: {' '.join(str(error).split())}") from None
    return knobs


def is_met(wanted: str, current: str) -> bool:
    """Tell whether the text that the kernel shows is what `wanted` asks for."""
    selected = current.partition("[")[2].partition("]")[0] or current.strip()
    if wanted.startswith(">="):
        return selected.isdigit() and int(selected) >= int(wanted[2:])
    return selected in wanted.removeprefix("=").split("|")


def host_notes(knobs: list[Knob]) -> list[str]:
    """Give one line for each knob that this host has, but not as wanted. Absent knobs need no note."""
    notes = []
    for knob in knobs:
        try:
            current = Path(knob.path).read_text().strip()
        except OSError:
            continue
        if not is_met(knob.wanted, current):
            notes.append(f"{knob.id} is {current}, wanted {knob.wanted}: {knob.why}")
    return notes
