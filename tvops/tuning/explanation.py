"""What `tvops tune explain` tells of one knob."""

from __future__ import annotations

import difflib

import msgspec

from tvops.errors import UsageError
from tvops.profile_files import profile_names
from tvops.tuning.catalogue import dead_key
from tvops.tuning.model import Item, Knob
from tvops.tuning.setup import Setup


class Explanation(msgspec.Struct, frozen=True):
    """A knob of the catalogue, what the profiles want of it, and how it stands on this host."""

    knob: Knob
    wanted: dict[str, str]  # profile -> wish, as written; with its selector where there is one
    here: list[Item]


def explain_knob(setup: Setup, name: str, profile: str | None) -> Explanation:
    """Look a knob up; a place behind an @ is taken off.

    Raises:
        UsageError: there is no such knob, or it is known to be dead, and why.
    """
    name = name.partition("@")[0]
    if reason := dead_key(name):
        raise UsageError(f"{name}: is not a knob: {reason}")
    if name not in setup.catalogue:
        close = difflib.get_close_matches(name, setup.catalogue, 3, 0.5)
        hint = f"; did you mean {', '.join(close)}?" if close else "; docs/knobs.md lists them all"
        raise UsageError(f"{name}: there is no such knob{hint}")
    wanted = {}
    here: list[Item] = []
    for shipped in dict.fromkeys([*profile_names(), *([profile] if profile else [])]):
        resolved = setup.resolve(shipped)
        wishes = [wish for wish in resolved.wishes if wish.knob == name]
        if wishes:
            wanted[shipped] = ", ".join(f"{w.value}{f' at {w.selector}' if w.selector else ''}" for w in wishes)
        if wishes and shipped == (profile or "prod"):
            here = [item for item in setup.plan(resolved) if item.knob == name]
    return Explanation(setup.catalogue[name], wanted, here)


def render(explanation: Explanation) -> str:
    """Write an explanation as text."""
    knob = explanation.knob
    needs = [
        *(["root" + (f" ({knob.capability})" if knob.capability else "")] if knob.root else []),
        *(["a reboot"] if knob.reboot else []),
        *([f"a restart of {knob.restart}"] if knob.restart else []),
        *([f"kernel {knob.kernel_min} or newer"] if knob.kernel_min else []),
        *([f"a kernel before {knob.kernel_max}"] if knob.kernel_max else []),
    ]
    facts = {
        "where": f"{knob.kind} {knob.where}",
        "type": f"{knob.type}{f' in {knob.unit}' if knob.unit else ''}",
        "choices": ", ".join(knob.choices),
        "scope": knob.scope,
        "risk": knob.risk,
        "needs": ", ".join(needs) or "nothing",
        "why": knob.why,
        "truth": knob.truth,
        "hazard": knob.hazard,
        "goes with": ", ".join(knob.coupled),
        "source": knob.source,
    }
    lines = [knob.id, *(f"  {name:<10} {text}" for name, text in facts.items() if text)]
    lines += [f"  {name:<10} {wish}" for name, wish in explanation.wanted.items()]
    for item in explanation.here:
        reason = f" ({item.reason})" if item.reason else ""
        lines.append(
            f"  here       {item.id} = {'?' if item.current is None else item.current}: {item.state}{reason}"
        )
    return "\n".join(lines)
