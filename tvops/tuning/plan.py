"""The plan: what would change on this host, place by place. Reads the host, writes nothing.

`survey` asks the drivers; `decide` is a pure function of what they said.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import get_args

import msgspec

from tvops.errors import UsageError
from tvops.tuning.model import (
    RISKS,
    SERVE_KINDS,
    Driver,
    ExitCode,
    Facts,
    Item,
    ItemState,
    Kind,
    Knob,
    Place,
    Profile,
    Risk,
    State,
    Wish,
)
from tvops.tuning.values import parse_wanted, target

NOWHERE = Place("")
SERVED_LATER = "set by tvops serve --profile at its next start"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller leaves out, and what he insists on."""

    only: tuple[str, ...] = ()  # patterns of item ids; empty: all
    skip: tuple[str, ...] = ()
    risk_max: Risk = "dangerous"
    force: bool = False  # objections of drivers do not count


class Sight(msgspec.Struct, frozen=True):
    """One place with the wish that counts there and what it shows."""

    knob: Knob
    wish: Wish
    place: Place
    state: State
    objection: str = ""
    reached: bool = True  # whether this command has a driver for the knob's kind


def make_plan(
    profile: Profile, catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver], limits: Limits | None = None
) -> list[Item]:
    """Give the plan of a profile on this host, in the catalogue's order.

    Raises:
        UsageError: --only or --skip names no knob; a misspelt --skip would let through what it is to keep out.
    """
    limits = limits or Limits()
    for option, patterns in (("--only", limits.only), ("--skip", limits.skip)):
        for pattern in patterns:
            _check_pattern(option, pattern, catalogue)
    return [decide(sight, profile.facts, limits) for sight in survey(profile, catalogue, drivers)]


def survey(profile: Profile, catalogue: Mapping[str, Knob], drivers: Mapping[Kind, Driver]) -> list[Sight]:
    """Look at every place that the profile says something of."""
    wishes: dict[str, list[Wish]] = {}
    for wish in profile.wishes:
        wishes.setdefault(wish.knob, []).append(wish)
    sights = []
    for knob in catalogue.values():
        for wish, place in _assign(wishes.get(knob.id, ()), knob, drivers.get(knob.kind), profile.facts):
            sights.append(_look(knob, wish, place, drivers.get(knob.kind), profile.facts))
    return sights


def _assign(wishes: Sequence[Wish], knob: Knob, driver: Driver | None, facts: Facts) -> list[tuple[Wish, Place]]:
    """Give each place of a knob the most particular wish that names it; a wish without a place stands alone."""
    if not wishes:
        return []
    pairs = []
    used = set()
    for place in driver.places(knob) if driver else ():
        if best := strongest(wishes, place, facts):
            pairs.append((best, place))
            used.add(best.selector)
    pairs += [(w, Place("", w.selector)) for w in wishes if w.selector not in used and not _overruled(w, used)]
    return pairs


def strongest(wishes: Sequence[Wish], place: Place, facts: Facts) -> Wish | None:
    """Give the wish that counts at a place.

    A plain name beats a pattern or role, and either beats no selector; of equals the last one counts.
    """
    fitting = [wish for wish in wishes if matches(wish.selector, place, facts)]
    return max(reversed(fitting), key=lambda w: (w.selector == place.name, bool(w.selector)), default=None)


def _overruled(wish: Wish, used: set[str]) -> bool:
    """Whether every place of a wish went to a more particular one."""
    return bool(used) and not wish.selector


def matches(selector: str, place: Place, facts: Facts) -> bool:
    """Tell whether a selector names a place: its name, a pattern, or a role of which it is a CPU.

    Of a name in two parts, ``ledger/127.0.0.1:7001``, the first is a name as well: that of all servers of a role.
    """
    if not selector:
        return True
    if selector.startswith("$"):
        cpu = re.fullmatch(r"cpu(\d+)", place.name)
        return bool(cpu) and int(cpu[1]) in facts.roles.get(selector[1:], ())  # type: ignore[index]
    names = (place.name, place.name.partition("/")[0])
    return selector in names or any(fnmatchcase(name, selector) for name in names)


def _look(knob: Knob, wish: Wish, place: Place, driver: Driver | None, facts: Facts) -> Sight:
    if driver is None or not place.address:
        return Sight(knob, wish, place, State("absent"), reached=driver is not None)
    state = driver.read(knob, place)
    objection = ""
    if state.status == "present":
        try:
            value = target(knob, parse_wanted(knob, wish.value), state.value, facts)
            objection = driver.objection(knob, place, value) if value != state.value else ""
        except ValueError:
            pass  # told by `decide`
    return Sight(knob, wish, place, state, objection)


def decide(sight: Sight, facts: Facts, limits: Limits) -> Item:
    """Say what is to be done at one place."""
    knob, wish, place, state = sight.knob, sight.wish, sight.place, sight.state
    current = state.value if state.status == "present" else None
    item = Item(
        knob=knob.id, kind=knob.kind, place=place, scope=knob.scope, risk=knob.risk, required=wish.required,
        current=current, wanted="", value="", state="met", why=wish.why or knob.why, origin=wish.origin,
    )  # fmt: skip
    try:
        wanted = parse_wanted(knob, wish.value)
        item.wanted = wanted.text
        if wanted.text == "-":
            item.state, item.reason = "skipped", "the profile leaves it alone"
        elif reason := wish.skip or _left_out(item, limits):
            item.state, item.reason = "skipped", reason
        elif not sight.reached:
            item.state, item.reason = "skipped", f"{knob.kind} knobs are not reached below --root"
        elif reason := unfit_kernel(knob, facts):
            item.state, item.reason = "unsupported", reason
        else:
            if current is not None:
                item.value = target(knob, wanted, current, facts)
            item.state, item.reason = _verdict(item, knob, sight, facts, limits)
    except ValueError as error:
        item.state, item.reason = "refused", str(error)
    return item


def _left_out(item: Item, limits: Limits) -> str:
    if limits.only and not any(names(pattern, item) for pattern in limits.only):
        return "not among --only"
    if any(names(pattern, item) for pattern in limits.skip):
        return "left out by --skip"
    if RISKS.index(item.risk) > RISKS.index(limits.risk_max):
        return f"{item.risk}, above --risk-max {limits.risk_max}"
    return ""


def names(pattern: str, item: Item) -> bool:
    """Tell whether a pattern of --only or --skip means an item: an id, a knob, a kind, or a pattern of them."""
    return any(fnmatchcase(text, pattern) for text in (item.id, item.knob, item.kind))


def _check_pattern(option: str, pattern: str, catalogue: Mapping[str, Knob]) -> None:
    knob = pattern.partition("@")[0]
    if knob in get_args(Kind) or any(fnmatchcase(known, knob) for known in catalogue):
        return
    near = difflib.get_close_matches(knob, (*catalogue, *get_args(Kind)), 3)
    hint = f"do you mean {' or '.join(near)}?" if near else "docs/knobs.md lists all knobs and kinds"
    raise UsageError(f"{option} {pattern}: there is no such knob or kind; {hint}")


def unfit_kernel(knob: Knob, facts: Facts) -> str:
    """Tell why this kernel does not have a knob; empty where it should."""
    have = facts.kernel
    if knob.kernel_min and have < _version(knob.kernel_min):
        return f"needs kernel {knob.kernel_min}, this is {facts.release}"
    if knob.kernel_max and have >= _version(knob.kernel_max):
        return f"gone since kernel {knob.kernel_max}, this is {facts.release}"
    return ""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _verdict(item: Item, knob: Knob, sight: Sight, facts: Facts, limits: Limits) -> tuple[ItemState, str]:
    state = sight.state
    lacks_privilege = knob.root and not facts.privileged
    if state.status == "absent":
        if knob.kind in SERVE_KINDS:
            return "skipped", state.reason or "set by tvops serve --profile when it runs"
        if knob.kind == "redis" and not item.place.address:
            return "skipped", state.reason or "no server of this role was named"
        return "unsupported", state.reason or "not on this host"
    if state.status == "denied":
        return ("privilege" if lacks_privilege else "unsupported"), state.reason or "cannot be read"
    if item.value == item.current:
        return "met", ""
    if knob.kind in SERVE_KINDS:
        # a reason: the running stack was asked for it and could not have it; a new start changes nothing
        return ("unsupported", state.reason) if state.reason else ("serve", SERVED_LATER)
    if knob.reboot:
        return "reboot", "takes effect at the next boot: tvops tune persist"
    if restart := state.restart or knob.restart:
        return "restart", f"takes a restart of {restart}"
    if not state.writable:
        return ("privilege" if state.needs else "unsupported"), state.reason or "cannot be changed"
    if sight.objection and not limits.force:
        return "refused", sight.objection
    return "pending", sight.objection


def verdict(items: Sequence[Item]) -> ExitCode:
    """Give the exit code of `verify`: what differs counts as pending, whoever may write it."""
    if hindrances(items) or any(i.state in ("pending", "privilege") and i.current is not None for i in items):
        return ExitCode.PENDING
    return exit_code(items, applied=False)


def hindrances(items: Sequence[Item]) -> list[Item]:
    """Give the required items that cannot be had here at all: with one of them nothing is to be applied."""
    return [item for item in items if item.required and item.state in ("unsupported", "refused")]


def exit_code(items: Sequence[Item], applied: bool) -> ExitCode:
    """Give the exit code of a plan, or of a run that ``applied`` it; the gravest thing counts."""
    states = {item.state for item in items}
    if any(item.outcome == "stuck" for item in items):
        return ExitCode.INCOMPLETE
    if hindrances(items) or any(i.outcome in ("undone", "failed") and i.required for i in items):
        return ExitCode.FAILED
    if "privilege" in states:
        return ExitCode.PRIVILEGE
    if "pending" in states and not applied:
        return ExitCode.PENDING
    if states & {"reboot", "restart", "serve"}:
        return ExitCode.REBOOT
    if states & {"unsupported", "refused"} or any(item.outcome == "failed" for item in items):
        return ExitCode.UNSUPPORTED
    return ExitCode.MET
