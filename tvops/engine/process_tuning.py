"""Applies to processes what a profile wants of them, and reads it back.

A privilege that is missing, or a kernel that has no such thing, is an `Effect` that says so, never an error. What
threads and children inherit has to be applied before they start; affinity and niceness are set for the threads
that are there as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping

from tvops.engine.process_attributes import ATTRIBUTES, NotPossibleError, read_attribute
from tvops.engine.stack_tuning import Effect, EffectState, outcome


def tune_process(wishes: Mapping[str, str], target: str) -> list[Effect]:
    """Apply what is wanted of this process and tell what it has now, attribute by attribute."""
    pid = os.getpid()
    failures = _attempt(wishes, target, pid, ATTRIBUTES)
    return _effects(wishes, target, pid, failures)


@contextlib.contextmanager
def bequeathed(wishes: Mapping[str, str], target: str) -> Iterator[dict[str, Effect]]:
    """Have in the calling thread what a child is to inherit, while it is started; then have our own again.

    Yields:
        What could not be had, for `tune_child`.
    """
    pid = os.getpid()
    names = [name for name in wishes if name in ATTRIBUTES and ATTRIBUTES[name].to_child == "birth"]
    before = {name: value for name in names if (value := read_attribute(name, pid)) is not None}
    failures = _attempt(wishes, target, pid, before)
    try:
        yield failures
    finally:
        _attempt(before, target, pid, before)


def left_over(wishes: Mapping[str, str], target: str, pid: int) -> dict[str, Effect]:
    """Give what a process that was started by somebody else does not have, for `tune_child`."""
    reason = "left over from an earlier run, it goes on with what it has"
    return {
        name: _failure(name, target, value, "unsupported", reason)
        for name, value in wishes.items()
        if name in ATTRIBUTES and ATTRIBUTES[name].to_child == "birth" and read_attribute(name, pid) != value
    }


def tune_child(wishes: Mapping[str, str], target: str, pid: int, born: Mapping[str, Effect]) -> list[Effect]:
    """Apply what can be set from outside to a process that was started within `bequeathed`; tell what it has now.

    Its CPUs are not set but only read: servers set their own, those of their background jobs apart.

    Args:
        wishes: what is wanted of it.
        target: what it is called in the effects.
        pid: the process.
        born: what `bequeathed` could not have.
    """
    names = [name for name, a in ATTRIBUTES.items() if a.to_child == "pid" and name != "affinity"]
    failures = {**born, **_attempt(wishes, target, pid, names)}
    if wishes.get("mlockall", "none") != "none":
        reason = "a process can lock its memory only itself"
        failures["mlockall"] = _failure("mlockall", target, wishes["mlockall"], "unsupported", reason)
    return _effects(wishes, target, pid, failures)


def _attempt(wishes: Mapping[str, str], target: str, pid: int, names: Iterable[str]) -> dict[str, Effect]:
    """Set what is wanted of ``names``; give the failures."""
    failures: dict[str, Effect] = {}
    for name in names:
        value = wishes.get(name, "")
        if not value or read_attribute(name, pid) == value:
            continue
        attribute = ATTRIBUTES[name]
        try:
            attribute.write(pid, value)
        except NotPossibleError as error:
            failures[name] = _failure(name, target, value, error.state, str(error))
        except ValueError as error:
            failures[name] = _failure(name, target, value, "unsupported", str(error))
        except OSError as error:
            denied = error.errno in (errno.EPERM, errno.EACCES, errno.ENOMEM)
            needs = f"; needs {attribute.needs}" if denied and attribute.needs else ""
            state: EffectState = "denied" if denied else "unsupported"
            failures[name] = _failure(name, target, value, state, f"{error.strerror}{needs}")
    return failures


def _failure(name: str, target: str, wanted: str, state: EffectState, reason: str) -> Effect:
    return Effect(kind="process", name=name, target=target, wanted=wanted, state=state, reason=reason)


def _effects(wishes: Mapping[str, str], target: str, pid: int, failures: Mapping[str, Effect]) -> list[Effect]:
    return [
        _settle(outcome("process", name, target, wishes, read_attribute(name, pid) or "", failures.get(name), pid))
        for name in ATTRIBUTES
    ]


def _settle(effect: Effect) -> Effect:
    """Judge what plain comparison gets wrong."""
    if effect.state != "clamped":
        return effect
    if effect.name == "timer_slack" and effect.got in ("", "0"):
        reason = (
            "inherited at its start" if not effect.got else "real-time processes, and what they start, have none"
        )
        return _with(effect, "applied", effect.wanted, reason)
    if effect.name == "numa_node" and not effect.got:
        return _with(effect, "applied", effect.wanted, "inherited at its start")
    return effect if effect.reason else _with(effect, "clamped", effect.got, f"the kernel left it at {effect.got}")


def _with(effect: Effect, state: EffectState, got: str, reason: str) -> Effect:
    return Effect(
        kind=effect.kind, name=effect.name, target=effect.target, wanted=effect.wanted, got=got, state=state,
        reason=reason, pid=effect.pid,
    )  # fmt: skip
