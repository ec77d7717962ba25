"""What a profile wants of the stack's own processes, sockets and servers, and what came of it: plain data.

`tvops serve` makes a `StackTuning` of its profile; supervisor and workers apply it and give back `Effect`s. What
is not named in it stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

PROCESSES = ("supervisor", "engine", "market", "redis")
"""Processes that have tuning of their own; `redis`: the embedded servers of all roles."""

SOCKETS = ("gateway", "stream", "redis", "feed")
"""Whose sockets have tuning of their own: both ports, our connections to the servers, and feeds."""

EffectKind = Literal["process", "socket", "held", "redis"]

EffectState = Literal[
    "applied",  # in force, as wanted
    "clamped",  # taken, but not to the whole extent
    "denied",  # needs a privilege that the process lacks
    "unsupported",  # this kernel, library, server or kind of socket cannot have it
    "refused",  # it would not be safe
    "left",  # nobody asked for it, and `got` is what is in force; or it does not concern what there is
]


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one wish at one place, as read back; values are canonical."""

    kind: EffectKind
    name: str  # attribute, option or key
    target: str  # the process or socket that has it; the role, of a server's key
    wanted: str = ""  # empty: not asked for
    got: str = ""  # empty: not known
    state: EffectState = "left"
    reason: str = ""
    pid: int = 0  # the process that has it; 0: none in particular


class StackTuning(msgspec.Struct, frozen=True, kw_only=True):
    """What to apply: target -> name -> canonical value."""

    profile: str = "dev"
    processes: dict[str, dict[str, str]] = {}  # of PROCESSES: attribute (process_tuning.py, collector.py) -> value
    sockets: dict[str, dict[str, str]] = {}  # of SOCKETS: option (socket_tuning.py) -> value
    servers: dict[str, dict[str, str]] = {}  # role of an embedded server -> config key -> value
    dma_latency_us: int | None = None  # longest wake-up of a CPU, held while the stack runs; None: not held
    left: tuple[Effect, ...] = ()  # wishes that could not even be tried, and why

    def process(self, name: str) -> dict[str, str]:
        """Give what is wanted of the process ``name``."""
        return self.processes.get(name, {})


def settled(effects: Iterable[Effect]) -> tuple[list[Effect], list[Effect]]:
    """Part what was asked for into what is in force and what is not."""
    asked = [effect for effect in effects if effect.wanted and effect.state != "left"]
    in_force = [effect for effect in asked if effect.state == "applied"]
    return in_force, [effect for effect in asked if effect.state != "applied"]


def outcome(
    kind: EffectKind,
    name: str,
    target: str,
    wanted: Mapping[str, str],
    got: str,
    failure: Effect | None,
    pid: int = 0,
) -> Effect:
    """Put together one effect: as ``failure`` says, else by comparing what was read back."""
    wish = wanted.get(name, "")
    if failure is not None:
        return msgspec.structs.replace(failure, got=got, pid=pid)
    state: EffectState = "left" if not wish else "applied" if got == wish else "clamped"
    return Effect(kind=kind, name=name, target=target, wanted=wish, got=got, state=state, pid=pid)
