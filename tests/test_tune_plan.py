"""The plan by table: wish and state of a place give the item; several wishes and places find each other."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from tvops.errors import UsageError
from tvops.tuning.model import ExitCode, Facts, Item, Kind, Knob, Place, Profile, State, Wish
from tvops.tuning.plan import Limits, exit_code, make_plan, verdict

FACTS = Facts(
    kernel=(6, 1, 0), release="6.1.0-test", memory_bytes=8 << 30, cpus=(0, 1, 2, 3), privileged=True,
    roles={"engine": (2, 3), "housekeeping": (0, 1)},
)  # fmt: skip


def knob(**values: Any) -> Knob:
    return Knob(
        **({"id": "a.b", "kind": "sysctl", "where": "a.b", "type": "int", "why": "w", "source": "s"} | values)
    )


class Shown:
    """Places that show what a test says."""

    def __init__(self, states: dict[str, State], objections: dict[str, str] | None = None) -> None:
        self.states = states
        self.objections = objections or {}

    def places(self, knob: Knob) -> list[Place]:
        return [Place(f"/{name or knob.id}", name) for name in self.states]

    def read(self, knob: Knob, place: Place) -> State:
        return self.states[place.name]

    def objection(self, knob: Knob, place: Place, value: str) -> str:
        return self.objections.get(place.name, "")

    def write(self, knob: Knob, place: Place, value: str) -> None:
        raise AssertionError("a plan writes nothing")

    def restore(self, knob: Knob, place: Place, before: State) -> None:
        raise AssertionError("a plan writes nothing")

    def shell(self, knob: Knob, place: Place, value: str) -> None:
        return None


def plan(
    the_knob: Knob, wishes: list[Wish], shown: Shown | None, facts: Facts = FACTS, limits: Limits | None = None
) -> list[Item]:
    profile = Profile(name="p", description="", settings={}, wishes=tuple(wishes), facts=facts)
    drivers: dict[Kind, Any] = {the_knob.kind: shown} if shown else {}
    return make_plan(profile, {the_knob.id: the_knob}, drivers, limits)


def one(
    state: State | None, value: object, facts: Facts = FACTS, limits: Limits | None = None, **values: Any
) -> Item:
    the_knob = knob(**values)
    shown = Shown({} if state is None else {"": state})
    [item] = plan(the_knob, [Wish(knob=the_knob.id, value=value)], shown, facts, limits)
    return item


UNPRIVILEGED = msgspec.structs.replace(FACTS, privileged=False)
READ_ONLY = State("present", "1", writable=False, reason="read-only here")


@pytest.mark.parametrize(
    "state, wish, values, expected, value",
    [
        (State("present", "5"), "5", {}, "met", "5"),
        (State("present", "5"), "=6", {}, "pending", "6"),
        (State("present", "5"), ">=4", {}, "met", "5"),
        (State("present", "5"), "<=4", {}, "pending", "4"),
        (State("present", "4 5 6"), "- - >=9", {"type": "ints"}, "pending", "4 5 9"),
        (State("present", "4 5 6"), "- >=9 -", {"type": "ints", "id": "net.ipv4.tcp_rmem"}, "refused", ""),
        (State("present", "4 5"), "- - >=9", {"type": "ints"}, "refused", ""),
        (State("present", "always"), "madvise|never", {"type": "choice"}, "pending", "madvise"),
        (State("present", "never"), "madvise|never", {"type": "choice"}, "met", "never"),
        (State("present", "0-3"), "$engine", {"type": "cpulist"}, "pending", "2-3"),
        (State("present", "0-3"), "$nobody", {"type": "cpulist"}, "refused", ""),
        (State("absent", reason="no such file"), "6", {}, "unsupported", ""),
        (None, "6", {}, "unsupported", ""),
        (None, "6", {"kind": "process"}, "skipped", ""),
        (None, "6", {"kind": "redis"}, "skipped", ""),
        (State("denied"), "6", {}, "unsupported", ""),
        (READ_ONLY, "6", {}, "unsupported", "6"),
        (READ_ONLY, "1", {}, "met", "1"),
        (State("present", "5"), "6", {"kernel_min": "6.11"}, "unsupported", ""),
        (State("present", "5"), "6", {"kernel_max": "6.1"}, "unsupported", ""),
        (State("present", "5"), "6", {"kernel_min": "6.1", "kernel_max": "6.2"}, "pending", "6"),
        (State("present", ""), "6", {"kind": "boot", "reboot": True}, "reboot", "6"),
        (State("present", "5", restart="the server"), "6", {"kind": "redis"}, "restart", "6"),
        (State("present", "5"), "6", {"kind": "socket"}, "serve", "6"),
        (State("present", "5"), "-", {}, "skipped", ""),
    ],
)  # fmt: skip
def test_state(state: State | None, wish: str, values: dict[str, Any], expected: str, value: str) -> None:
    item = one(state, wish, **values)
    assert (item.state, item.value) == (expected, value)
    assert item.reason or item.state in ("met", "pending")


def test_without_privilege_what_is_met_stays_met_and_the_rest_says_so() -> None:
    locked = State("present", "1", writable=False, needs="root", reason="needs root")
    assert one(locked, "1", UNPRIVILEGED).state == "met"
    assert one(locked, "2", UNPRIVILEGED).state == "privilege"
    assert one(State("denied"), "2", UNPRIVILEGED).state == "privilege"
    assert one(State("denied"), "2", UNPRIVILEGED, root=False).state == "unsupported"
    assert one(State("present", "1"), "2", UNPRIVILEGED).state == "pending"
    assert one(READ_ONLY, "2", UNPRIVILEGED).state == "unsupported"


def test_limits() -> None:
    state = State("present", "5")
    assert one(state, "6", limits=Limits(only=("a.*",))).state == "pending"
    assert one(state, "6", limits=Limits(only=("sysctl",))).state == "pending"
    assert one(state, "6", limits=Limits(only=("a.b@eth*",))).state == "skipped"
    assert one(state, "6", limits=Limits(only=("redis",))).state == "skipped"
    assert one(state, "6", limits=Limits(skip=("a.b",))).state == "skipped"
    assert one(state, "6", limits=Limits(risk_max="safe"), risk="disruptive").state == "skipped"
    assert one(state, "6", limits=Limits(risk_max="disruptive"), risk="disruptive").state == "pending"


@pytest.mark.parametrize("limits", [Limits(only=("a.bb",)), Limits(skip=("a.bb@eth0",)), Limits(skip=("*.c",))])
def test_what_is_to_be_left_out_must_be_a_knob(limits: Limits) -> None:
    [pattern] = limits.only + limits.skip
    with pytest.raises(UsageError, match=rf"{re.escape(pattern)}: there is no such knob or kind") as caught:
        one(State("present", "5"), "6", limits=limits)
    assert "do you mean a.b?" in str(caught.value) or "docs/knobs.md" in str(caught.value)


def test_an_objection_refuses_unless_forced() -> None:
    shown = Shown({"": State("present", "5")}, {"": "would evict"})
    wishes = [Wish(knob="a.b", value="6")]
    [item] = plan(knob(), wishes, shown)
    assert (item.state, item.reason) == ("refused", "would evict")
    [item] = plan(knob(), wishes, shown, limits=Limits(force=True))
    assert (item.state, item.reason) == ("pending", "would evict")


def test_a_guard_skips_and_says_why() -> None:
    [item] = plan(
        knob(), [Wish(knob="a.b", value="6", skip="bare metal only")], Shown({"": State("present", "5")})
    )
    assert (item.state, item.reason) == ("skipped", "bare metal only")


def test_each_place_takes_the_most_particular_wish() -> None:
    cpus = Shown({f"cpu{i}": State("present", "0") for i in range(4)})
    wishes = [
        Wish(knob="a.b", value="1"),
        Wish(knob="a.b", selector="$engine", value="2"),
        Wish(knob="a.b", selector="cpu3", value="3"),
    ]
    for order in (wishes, wishes[::-1]):
        values = {item.id: item.value for item in plan(knob(), order, cpus)}
        assert values == {"a.b@cpu0": "1", "a.b@cpu1": "1", "a.b@cpu2": "2", "a.b@cpu3": "3"}


def test_a_selector_without_a_place_is_told() -> None:
    [item] = plan(
        knob(kind="nic"), [Wish(knob="a.b", selector="eth9", value="1")], Shown({"eth0": State("present")})
    )
    assert (item.id, item.state) == ("a.b@eth9", "unsupported")


def test_a_kind_that_is_not_reached_is_left_out() -> None:
    [item] = plan(knob(kind="nic"), [Wish(knob="a.b", value="1")], None)
    assert item.state == "skipped"
    assert "--root" in item.reason


@pytest.mark.parametrize(
    "states, outcomes, applied, expected",
    [
        ([], [], False, ExitCode.MET),
        (["met", "skipped"], [], True, ExitCode.MET),
        (["met", "pending"], [], False, ExitCode.PENDING),
        (["pending"], ["written"], True, ExitCode.MET),
        (["pending", "unsupported"], ["written", ""], True, ExitCode.UNSUPPORTED),
        (["refused"], [], True, ExitCode.UNSUPPORTED),
        (["pending", "privilege"], [], False, ExitCode.PRIVILEGE),
        (["pending", "privilege"], ["written", ""], True, ExitCode.PRIVILEGE),
        (["pending", "reboot"], [], False, ExitCode.PENDING),
        (["pending", "reboot", "unsupported"], ["written", "", ""], True, ExitCode.REBOOT),
        (["restart"], [], True, ExitCode.REBOOT),
        (["serve"], [], True, ExitCode.REBOOT),
        (["pending"], ["failed"], True, ExitCode.UNSUPPORTED),
        (["pending", "privilege"], ["stuck", ""], True, ExitCode.INCOMPLETE),
    ],
)
def test_exit_code(states: list[Any], outcomes: list[Any], applied: bool, expected: ExitCode) -> None:
    items = [one(State("present", "1"), "1") for _ in states]
    for item, state in zip(items, states, strict=True):
        item.state = state
    for item, outcome in zip(items, outcomes, strict=False):
        item.outcome = outcome
    assert exit_code(items, applied) is expected


def test_a_required_failure_is_exit_code_1() -> None:
    item = one(State("present", "1"), "2")
    item.required, item.outcome = True, "failed"
    assert exit_code([item], applied=True) is ExitCode.FAILED
    item.outcome, item.state = "", "refused"
    assert exit_code([item], applied=True) is ExitCode.FAILED
    assert exit_code([item], applied=False) is ExitCode.FAILED
    assert verdict([item]) is ExitCode.PENDING
