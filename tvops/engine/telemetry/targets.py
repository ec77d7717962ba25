"""The operators' metrics as data: what each is, what is wanted of it, and from where on it is a breach."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from tvops.engine.telemetry.bounds import LONGEST_UNIT
from tvops.engine.telemetry.document import MetricState
from tvops.engine.telemetry.stages import STAGES
from tvops.errors import UsageError
from tvops.yaml_lines import Located, load_yaml

Statistic = Literal["p50", "p99", "p999", "max", "mean"]
PERCENTS: dict[Statistic, float] = {"p50": 50, "p99": 99, "p999": 99.9}
SHIPPED = Path(__file__).with_name("targets.yaml")
MOST = 64

UNITS = {"us": 1e3, "ms": 1e6, "s": 1e9}
"""Nanoseconds of a unit of time."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FIGURE = re.compile(r"[a-z_]+\.[a-z0-9_.]+")
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric, as a file of targets has it.

    Where `limit` is below `target`, more is better.
    """

    name: str
    text: _Text
    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_UNIT)]
    target: float
    limit: float
    for_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)]  # how long before the state changes
    window_seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)]
    measured: Literal["by engine", "by market", "by each", "once"]
    statistic: Statistic
    stage: str = ""
    figures: tuple[str, ...] = ()  # the first that the process has

    def measured_by(self, process: str, watching: bool) -> bool:
        """Whether the worker ``process`` measures this metric; ``watching``: it watches the whole stack."""
        return watching if self.measured == "once" else self.measured in ("by each", f"by {process}")

    def level(self, value: float | None) -> MetricState:
        """Say how good ``value`` is by itself."""
        if value is None:
            return "no data"
        sign = -1 if self.limit < self.target else 1
        if sign * value > sign * self.limit:
            return "breach"
        return "warn" if sign * value > sign * self.target else "ok"


def load_targets(path: Path | None = None) -> tuple[Target, ...]:
    """Read the targets that ship, with those of the file ``path`` over them.

    Raises:
        UsageError: ``FILE:LINE: message``.
    """
    shipped = load_yaml(SHIPPED)
    merged: dict[str, dict[str, Any]] = dict(shipped.value)
    own = load_yaml(path) if path is not None else None
    if own is not None:
        _lay_over(merged, own)
    if len(merged) > MOST:
        raise UsageError(f"{path}: {len(merged)} metrics; there may be {MOST}")
    files = {name: own if own is not None and name in (own.value or {}) else shipped for name in merged}
    return tuple(_target(name, fields, files[name]) for name, fields in merged.items())


def _lay_over(merged: dict[str, dict[str, Any]], own: Located) -> None:
    if own.value is None:
        return
    if not isinstance(own.value, dict):
        raise UsageError(f"{own.place()}: must be a mapping of metrics")
    for name, fields in own.value.items():
        if fields is False:
            if merged.pop(name, None) is None:
                raise UsageError(f"{own.place(name)}: {name}: there is no such metric to leave out")
        elif not isinstance(fields, dict):
            raise UsageError(f"{own.place(name)}: {name}: must be a mapping, or false to leave the metric out")
        else:
            merged[name] = {**merged.get(name, {}), **fields}


def _target(name: str, fields: dict[str, Any], file: Located) -> Target:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{file.place(name)}: {name!r}: a metric is named in small letters, digits and _")
    for key in fields:
        if key == "name" or key not in Target.__struct_fields__:
            raise UsageError(f"{file.place(name, key)}: {name}.{key}: there is no such key")
    missing = [f.name for f in msgspec.structs.fields(Target) if f.required and f.name not in (*fields, "name")]
    if missing:
        raise UsageError(f"{file.place(name)}: {name}: {missing[0]} is missing")
    try:
        target = msgspec.convert({**fields, "name": name}, Target)
    except msgspec.ValidationError as error:
        at = re.search(r"\$\.(\w+)", str(error))
        where = file.place(name, *([at[1]] if at else []))
        what = f"{name}.{at[1]}" if at else name
        raise UsageError(f"{where}: {what}: {str(error).partition(' - at')[0]}") from None
    for key, problem in _problems(target):
        raise UsageError(f"{file.place(name, key)}: {name}.{key}: {problem}")
    return target


def _problems(target: Target) -> list[tuple[str, str]]:
    """Tell what is wrong with the values together: key and message."""
    found = [
        (key, "must be a finite number")
        for key, value in (("target", target.target), ("limit", target.limit))
        if not math.isfinite(value)
    ]
    if bool(target.stage) == bool(target.figures):
        found.append(("stage" if target.stage else "figures", "a metric has either a stage or figures"))
    elif target.stage:
        if target.stage not in STAGES:
            found.append(("stage", f"{target.stage!r}: there is no such stage; there are {', '.join(STAGES)}"))
        if target.unit not in UNITS:
            found.append(("unit", f"{target.unit!r}: a latency is in {', '.join(UNITS)}"))
        if target.statistic == "mean":
            found.append(("statistic", "'mean': of a latency take p50, p99, p999 or max"))
    else:
        if target.statistic not in ("max", "mean"):
            found.append(("statistic", f"{target.statistic!r}: of figures take max or mean"))
        found += [
            ("figures", f"{figure!r}: a figure is SERVICE.NAME") for figure in target.figures
            if not _FIGURE.fullmatch(figure)
        ]  # fmt: skip
    return found
