"""Which changes of a plan can be measured, and how each is made and taken back."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence

from tvops.tuning.evidence.records import NotMeasured
from tvops.tuning.flips import Flipper
from tvops.tuning.model import Driver, Item, Kind, Knob, NotWrittenError
from tvops.tuning.values import parse_number

TIMER_SLACK = "process.timer_slack_ns"
"""The one knob of the stack's processes that is tried: on the measuring process, and so on its partners."""

TOGETHER = "all together"
_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30


class Treatment:
    """One change that is measured. This one changes nothing: the A/A control."""

    name = "A/A control"
    knobs: tuple[str, ...] = ()
    places = 0
    change = "nothing"

    def on(self) -> None:
        """Make the change; raise NotWrittenError with nothing of it left, as far as that is possible."""

    def off(self) -> None:
        """Take back what of the change was made; raise NotWrittenError."""


class Change(Treatment):
    """A knob at all its places, or all knobs together."""

    def __init__(self, name: str, items: Sequence[Item], flipper: Flipper) -> None:
        self.name = name
        self.knobs = tuple(dict.fromkeys(item.knob for item in items))
        self.places = len(items)
        changes = dict.fromkeys(f"{item.current or '(none)'} → {item.value or '(none)'}" for item in items)
        self.change = next(iter(changes)) if len(changes) == 1 else f"{len(items)} values"
        self._items, self._flipper = items, flipper
        self._made: list[Item] = []

    def on(self) -> None:
        """Flip every place."""
        for item in self._items:
            self._flipper.on(item)  # puts its place back itself where it fails
            self._made.append(item)

    def off(self) -> None:
        """Put every place back, newest first, and all of them even where one fails."""
        failed: NotWrittenError | None = None
        while self._made:
            item = self._made.pop()
            try:
                self._flipper.off(item)
            except NotWrittenError as error:
                failed = failed or NotWrittenError(f"{item.id}: {error}")
        if failed is not None:
            raise failed


class TimerSlack(Treatment):
    """The timer slack of this process, which the partners that it starts inherit."""

    name = TIMER_SLACK
    knobs = (TIMER_SLACK,)
    places = 1

    def __init__(self, wanted: int) -> None:
        self._wanted, self._before = wanted, _prctl(_PR_GET_TIMERSLACK, 0)
        self.change = f"{self._before} → {wanted} (of the measuring process and its partners)"

    def on(self) -> None:
        """Set it."""
        _prctl(_PR_SET_TIMERSLACK, self._wanted)

    def off(self) -> None:
        """Set it as it was."""
        _prctl(_PR_SET_TIMERSLACK, self._before)


def choose(
    items: Sequence[Item],
    catalogue: Mapping[str, Knob],
    drivers: Mapping[Kind, Driver],
    flipper: Flipper,
    together: bool = False,
) -> tuple[list[Treatment], list[NotMeasured]]:
    """Give the changes that can be measured, one a knob, and those that cannot with the reason.

    With ``together`` there is one more that makes all of them at once. What is met already is in neither.
    """
    groups: dict[str, list[Item]] = {}
    slack: set[int] = set()
    left_out: dict[NotMeasured, None] = {}
    for item in items:
        if item.state == "met":
            continue
        if (wanted := _timer_slack(item, catalogue, drivers)) is not None:
            slack.add(wanted)
        elif reason := obstacle(item, catalogue[item.knob]):
            left_out[NotMeasured(item.knob, reason)] = None
        else:
            groups.setdefault(item.knob, []).append(item)
    changes = [Change(knob, group, flipper) for knob, group in groups.items()]
    if together and len(groups) > 1:
        changes.append(Change(TOGETHER, [item for group in groups.values() for item in group], flipper))
    own = min(slack, default=None)
    return [*changes, *([] if own is None else [TimerSlack(own)])], list(left_out)


def obstacle(item: Item, knob: Knob) -> str:
    """Tell why an item must not be flipped to measure it; empty where it may."""
    if item.state != "pending":
        return item.reason or item.state
    if item.risk != "safe":
        return f"{item.risk}: only what is safe is flipped to measure it"
    if not knob.live:
        return "cannot be flipped back and forth on a running host"
    return ""


def _timer_slack(item: Item, catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver]) -> int | None:
    """Give the timer slack in ns that an item wants of a process of the stack, and that this process has not got.

    None where the item is another knob's, was left out by whoever made the plan, or wants no plain number.
    """
    if item.knob != TIMER_SLACK or item.kind not in drivers:
        return None
    state = drivers[item.kind].read(catalogue[item.knob], item.place)
    is_without_stack = item.state == "skipped" and state.status == "absent" and state.reason == item.reason
    if item.state != "serve" and not is_without_stack:
        return None
    try:
        wanted = parse_number(item.value or item.wanted.lstrip("=<>"), "ns")
    except ValueError:
        return None
    return wanted if wanted != _prctl(_PR_GET_TIMERSLACK, 0) else None


def _prctl(option: int, value: int) -> int:
    """Call prctl(2) for this thread."""
    call = ctypes.CDLL(None, use_errno=True).prctl
    call.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    result = int(call(option, value, 0, 0, 0))
    if result < 0:
        raise NotWrittenError(os.strerror(ctypes.get_errno()))
    return result
