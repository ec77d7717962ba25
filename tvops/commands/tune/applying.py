"""The main command: settle what was interrupted, plan, ask, measure, apply, tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import msgspec
import typer

from tvops.commands.tune.printing import can_ask, this_command
from tvops.commands.tune.recovering import settle_interrupted
from tvops.errors import UsageError
from tvops.terminal import say
from tvops.tuning.apply import apply_plan
from tvops.tuning.journal import StateDirectory, state_directory
from tvops.tuning.listing import as_json, diff_lines, print_plan, summary
from tvops.tuning.model import ExitCode, Item, Profile
from tvops.tuning.plan import Limits, exit_code, hindrances
from tvops.tuning.profiles import chosen_profile
from tvops.tuning.setup import Reach, Setup, opened


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the command line asks for."""

    profile: str | None
    yes: bool
    check: bool
    script: bool
    measure: bool
    keep_helpful: bool
    seconds: float
    gateway: str
    assignments: tuple[str, ...]
    recover: Literal["", "undo", "finish"]
    wait: float
    retry: bool
    everything: bool
    diff: bool
    as_json: bool
    limits: Limits
    reach: Reach


def run_tune(order: Order) -> int:
    """Carry out one call of `tvops tune`; give its exit code."""
    if order.keep_helpful and not order.measure:
        raise UsageError("--keep helpful: needs --measure, which finds out what helps")
    if order.measure and order.reach.root != Path("/"):
        raise UsageError(f"--root {order.reach.root}: a tree of files cannot be measured; leave --measure out")
    state = StateDirectory(state_directory())
    if order.check or order.script:
        if order.measure:
            raise UsageError("--measure: changes the host for a while; leave --check and --script out")
        return _look(order, state)
    with state.lock(order.wait, this_command()):
        settled = settle_interrupted(state, order.recover, order.reach)
        if order.recover and order.profile is None:
            return settled
        if settled is ExitCode.INCOMPLETE:
            return settled
        return _change(order, state)


def _look(order: Order, state: StateDirectory) -> int:
    """Show the plan or the script; nothing is changed and the lock is not needed."""
    with opened(order.reach) as setup:
        profile = setup.resolve(chosen_profile(order.profile), order.assignments)
        items = setup.plan(profile, order.limits, order.retry)
        if order.script:
            from tvops.tuning.script import render_script

            typer.echo(render_script(items, setup.catalogue, setup.drivers, profile), nl=False)
            return ExitCode.MET
    if not order.as_json:
        _show(items, order)
    if not state.holder() and (left := state.interrupted()):
        typer.echo(f"tvops: run {left[-1].id} was interrupted; settle it with --recover undo or finish", err=True)
    return _tell(order, profile, items, exit_code(items, applied=False))


def _change(order: Order, state: StateDirectory) -> int:
    with opened(order.reach) as setup:
        profile = setup.resolve(chosen_profile(order.profile), order.assignments)
        items = setup.plan(profile, order.limits, order.retry)
        pending = sum(item.state == "pending" for item in items)
        if not order.as_json:
            _show(items, order)
        if hindrances(items):
            return _tell(order, profile, items, ExitCode.FAILED)
        if not pending:
            return _tell(order, profile, items, exit_code(items, applied=True))
        if not _agreed(order, pending):
            return _tell(order, profile, items, exit_code(items, applied=False))
        more: dict[str, object] = {}
        if order.measure:
            more["evidence"] = _measure(order, state, setup, profile, items)
        for item in items:
            if item.state == "pending":
                item.before = item.current
        if not any(item.state == "pending" for item in items):  # nothing helped
            return _tell(order, profile, items, exit_code(items, applied=True), **more)
        with state.new_run(
            "apply", command=this_command(), root=setup.host.root, profile=profile.name,
            items=items,
        ) as run:  # fmt: skip
            apply_plan(items, setup.catalogue, setup.drivers, run)
            more["run"] = run.run.id
    if not order.as_json:
        _show([item for item in items if item.outcome], order)
    return _tell(order, profile, items, exit_code(items, applied=True), **more)


def _agreed(order: Order, pending: int) -> bool:
    if order.yes:
        return True
    if order.as_json or not can_ask():
        typer.echo("tvops: nothing was changed; --yes applies the plan", err=True)
        return False
    return typer.confirm(f"apply {pending} change{'s' if pending != 1 else ''}?", err=True)


def _measure(
    order: Order, state: StateDirectory, setup: Setup, profile: Profile, items: list[Item]
) -> dict[str, str]:
    """Measure the pending items; with --keep helpful leave out what did not help. Gives where the report is."""
    from tvops.commands.tune.measuring import measure_items, measurement
    from tvops.tuning.evidence.records import helpful

    wanted = measurement(setup, order.seconds, order.gateway)
    evidence, files = measure_items(state, setup, profile, items, wanted, None)
    if not order.as_json:
        from tvops.tuning.evidence.report import render_markdown

        say(render_markdown(evidence))
    if order.keep_helpful:
        kept, measured = helpful(evidence), {one.knob for one in evidence.measured}
        for item in items:
            if item.state == "pending" and item.knob not in kept and not item.required:
                item.state = "skipped"
                item.reason = "did not measurably help here" if item.knob in measured else "was not measured"
    return files


def _show(items: Sequence[Item], order: Order) -> None:
    print_plan(items, order.everything)
    if order.diff:
        say("\n".join(diff_lines(items)))


def _tell(order: Order, profile: Profile, items: list[Item], code: ExitCode, **more: object) -> int:
    if hindered := hindrances(items):
        reasons = "; ".join(f"{item.id}: {item.reason}" for item in hindered)
        say(f"tvops: nothing can be changed, because the profile requires what cannot be had: {reasons}", err=True)
    if order.as_json:
        typer.echo(as_json(profile.name, items, code, root=str(order.reach.root), **more))
        return code
    say(f"profile {profile.name}: {summary(items)}")
    if evidence := cast(dict[str, str], more.get("evidence", {})):
        say(f"report: {evidence['markdown']} and {evidence['json']}", err=True)
    if (run := more.get("run")) and any(item.outcome == "written" for item in items):
        typer.echo(f"tvops tune rollback {run} undoes this run", err=True)
    return code
