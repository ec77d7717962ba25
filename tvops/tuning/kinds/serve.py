"""Knobs of kinds held, process and socket: what the running `tvops serve` has in force.

Its processes apply them and write down what came of it (`tuning.json` in the data directory). What /proc shows of
a process is looked up there, since somebody may have changed it meanwhile. Nothing is ever written here.
"""

from __future__ import annotations

from pathlib import Path

from tvops.engine.latency_hold import DEVICE
from tvops.engine.process_attributes import ATTRIBUTES, read_attribute
from tvops.engine.stack_tuning import PROCESSES, SOCKETS, Effect
from tvops.engine.tuning_report import FILE_NAME, Report, read_report
from tvops.tuning.model import Kind, Knob, NotWrittenError, Place, State

TARGETS: dict[Kind, tuple[str, ...]] = {"process": PROCESSES, "socket": SOCKETS, "held": ("supervisor",)}
"""Who has the knobs of each kind."""

_NOT_RUNNING = "tvops serve is not running"
_LIVE = frozenset(ATTRIBUTES) - {"mlockall", "numa_node"}
"""What /proc shows of another process in full."""


class ServeDriver:
    """Reads what the stack on one data directory reports."""

    def __init__(self, data_path: Path) -> None:
        self._folder = data_path

    def places(self, knob: Knob) -> list[Place]:
        """Give the processes or sockets that have the knob."""
        return [Place(f"{self._folder}#{name}", name) for name in TARGETS.get(knob.kind, ())]

    def read(self, knob: Knob, place: Place) -> State:
        """Tell what is in force."""
        try:
            report = read_report(self._folder)
        except PermissionError:
            return State("denied", reason=f"{self._folder / FILE_NAME} belongs to another user")
        if report is None:
            return State("absent", reason=_NOT_RUNNING)
        told = [e for e in report.effects if (e.kind, e.name, e.target) == (knob.kind, knob.where, place.name)]
        if knob.kind == "held":
            return _held(report, told)
        if knob.kind == "process":
            told = [_as_seen(effect) for effect in told]
        return _worst(told, _missing(report, knob, place))

    def write(self, knob: Knob, place: Place, value: str) -> None:
        """Refuse: only the process itself can have it."""
        raise NotWrittenError("set by tvops serve --profile")

    def restore(self, knob: Knob, place: Place, before: State) -> None:
        """Refuse: nothing was written."""
        raise NotWrittenError("set by tvops serve --profile")

    def objection(self, knob: Knob, place: Place, value: str) -> str:
        """Object to nothing: nothing is written."""
        return ""

    def shell(self, knob: Knob, place: Place, value: str) -> str | None:
        """Know no command."""
        return None


def _missing(report: Report, knob: Knob, place: Place) -> str:
    """Say why the report has nothing of a place."""
    if place.name == "feed":
        return "no feed has a socket"
    if knob.kind == "process" and not report.processes.get(place.name):
        return f"the running stack has no {place.name} process"
    return "the running stack does not tell"


def value_now(effect: Effect) -> str | None:
    """Give what the kernel shows now of an attribute of a process; None where it does not show it to us."""
    if effect.name not in _LIVE:
        return None
    now = read_attribute(effect.name, effect.pid)
    return None if effect.name == "timer_slack" and now == "0" else now  # a real-time process shows none


def still_held(pid: int) -> bool:
    """Tell whether a process holds the wake-up latency of the CPUs; also where that cannot be seen."""
    try:
        return DEVICE in [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return True


def _as_seen(effect: Effect) -> Effect:
    """Put what the kernel shows now into an effect."""
    now = value_now(effect)
    if now is None:
        return effect
    return Effect(
        kind=effect.kind, name=effect.name, target=effect.target, wanted=effect.wanted, got=now,
        state=effect.state, reason=effect.reason, pid=effect.pid,
    )  # fmt: skip


def _worst(told: list[Effect], missing: str) -> State:
    """Give the value of several processes or connections: one that is not as wanted, if there is one."""
    known = [effect for effect in told if effect.got]
    if not known:
        return State("absent", writable=False, reason=next((e.reason for e in told if e.reason), missing))
    worst = next((effect for effect in known if effect.wanted and effect.got != effect.wanted), known[0])
    hindered = worst.state not in ("applied", "left")
    return State("present", worst.got, worst.got, writable=False, reason=worst.reason if hindered else "")


def _held(report: Report, told: list[Effect]) -> State:
    """Tell what is held: by the open file of the supervisor, where that can be seen."""
    effect = next((effect for effect in told if effect.state == "applied"), None)
    if effect is None:
        reason = next((e.reason for e in told if e.reason), "the running stack does not hold it")
        return State("absent", writable=False, reason=reason)
    if not still_held(report.pid):
        return State("absent", writable=False, reason="the running stack has let go of it")
    return State("present", effect.got, effect.got, writable=False)
