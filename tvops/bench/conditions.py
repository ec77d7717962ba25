"""`--fail-if`: conditions on a comparison, for gates in scripts.

    condition  [operation.]figure OP number          p99>+5%   rest_orders.new.p50>+0.2ms   errors>0   rate<-2%
    OP         > >= < <=
    number     with a sign: the change from A to B, as a percentage of A or in the figure's unit;
               without a sign: what B itself shows

An operation is named by its door and name (``rest_orders.new``), its door or its name; without one, the condition
is checked for each. Latencies take a unit (ns, us, ms, s), everything else takes none.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from tvops.bench.figures import UNITS, Unit, figure_of, text_of
from tvops.bench.result import Operation, Result
from tvops.errors import UsageError

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_SCALES: Final = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}
_NUMBER: Final = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)\s*(%|[a-z]*)", re.ASCII)
_COMPARES: Final = re.compile(r"[<>]=?")


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One parsed condition."""

    text: str
    operation: str  # empty: each
    figure: str
    comparison: str  # an operator
    number: float  # ns of latencies
    change: bool  # of B against A; else B itself
    relative: bool  # the change in percent of A

    def names(self, operation: Operation) -> bool:
        """Whether the condition speaks of an operation."""
        return self.operation in ("", operation.key, operation.door, operation.name)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A condition checked for one operation."""

    condition: str
    operation: str
    met: bool  # then the gate fails
    detail: str


def parse_condition(text: str) -> Condition:
    """Read a condition; raise UsageError that says at which character it goes wrong."""
    found = _COMPARES.search(text)
    if found is None:
        raise _wrong(text, len(text), "has no >, >=, < or <=")
    operation, figure = _subject(text, found.start())
    tail = text[found.end() :]
    begin = found.end() + len(tail) - len(tail.lstrip())
    number = _NUMBER.fullmatch(tail.strip())
    if number is None or not math.isfinite(float(number[2])):
        raise _wrong(text, begin, "takes a number there, such as +5%, +0.2ms or 0")
    sign, digits, suffix = number.groups()
    place = begin + number.start(3)
    relative = suffix == "%"
    if relative and not sign:
        raise _wrong(text, begin, f"says {digits}% of what? Write +{digits}% or -{digits}% for a change from A")
    scale = _scale(text, place, suffix, UNITS[figure])
    return Condition(
        text=text.strip(), operation=operation, figure=figure, comparison=found[0],
        number=float(sign + digits) * scale, change=bool(sign), relative=relative,
    )  # fmt: skip


def _subject(text: str, end: int) -> tuple[str, str]:
    subject = text[:end].strip()
    begin = len(text[:end]) - len(text[:end].lstrip())
    # Both operations and figures have dots in them: the longest figure at the end counts.
    for figure in sorted(UNITS, key=len, reverse=True):
        if subject == figure:
            return "", figure
        if subject.endswith(f".{figure}"):
            return subject.removesuffix(f".{figure}"), figure
    raise _wrong(text, begin, f"knows no figure {subject[:60]!r}; there are {', '.join(UNITS)}")


def _scale(text: str, place: int, suffix: str, unit: Unit) -> float:
    if suffix == "%":
        return 1.0
    if unit != "ns":
        if suffix:
            raise _wrong(text, place, f"takes no unit there, and not {suffix!r}")
        return 1.0
    if suffix not in _SCALES:
        asked = f"and not {suffix!r}" if suffix else "and there is none"
        raise _wrong(text, place, f"takes %, ns, us, ms or s after the number, {asked}")
    return _SCALES[suffix]


def _wrong(text: str, place: int, what: str) -> UsageError:
    return UsageError(f"--fail-if {text!r:.120}: character {place + 1}: {what}")


def check(conditions: Sequence[Condition], before: Result, after: Result) -> list[Outcome]:
    """Check every condition for every operation that it speaks of.

    What cannot be checked, because an operation is missing in one run or has too few samples, counts as met: a
    gate that saw nothing must not open.

    Raises:
        UsageError: a condition names an operation that neither run has.
    """
    keys = dict.fromkeys(operation.key for result in (before, after) for operation in result.operations)
    outcomes = []
    for condition in conditions:
        concerned = [key for key in keys if any(_named(condition, result, key) for result in (before, after))]
        if not concerned:
            raise UsageError(
                f"--fail-if {condition.text!r}: there is no operation {condition.operation[:60]!r}; "
                f"there are {', '.join(keys) or 'none'}"
            )
        outcomes += [_check(condition, key, before, after) for key in concerned]
    return outcomes


def _named(condition: Condition, result: Result, key: str) -> bool:
    operation = result.operation(key)
    return operation is not None and condition.names(operation)


def _check(condition: Condition, key: str, before: Result, after: Result) -> Outcome:
    unit = UNITS[condition.figure]
    old, new = (_value(result, key, condition.figure) for result in (before, after))
    if new is None or (condition.change and old is None):
        which = "B" if new is None else "A"
        return Outcome(
            condition=condition.text, operation=key, met=True,
            detail=f"cannot be checked: {which} has too few samples, or no such operation",
        )  # fmt: skip
    seen, detail = new, text_of(new, unit)
    if condition.change:
        assert old is not None
        seen = new - old
        detail = f"{text_of(old, unit)} → {text_of(new, unit)}, {text_of(seen, unit, signed=True)}"
        if condition.relative:
            seen = _percent(old, new)
            detail = f"{text_of(old, unit)} → {text_of(new, unit)}, {seen:+.2f} %"
    met = _OPERATORS[condition.comparison](seen, condition.number)
    return Outcome(condition=condition.text, operation=key, met=met, detail=detail)


def _value(result: Result, key: str, figure: str) -> float | None:
    operation = result.operation(key)
    return None if operation is None else figure_of(operation, figure)


def _percent(old: float, new: float) -> float:
    if old == 0:
        return 0.0 if new == 0 else float("inf")
    return 100 * (new - old) / old
