"""What becomes of runs that were killed in the middle: asked for on a terminal, chosen by --recover in scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import typer

from tvops.commands.tune.printing import can_ask
from tvops.errors import UsageError
from tvops.terminal import say
from tvops.tuning.journal import StateDirectory
from tvops.tuning.model import ExitCode
from tvops.tuning.plan import exit_code
from tvops.tuning.records import Run
from tvops.tuning.recovery import recover, unfinishable
from tvops.tuning.setup import Reach, Setup, opened


def settle_interrupted(state: StateDirectory, how: Literal["", "undo", "finish"], reach: Reach) -> ExitCode:
    """Undo or finish every interrupted run, newest first; needs the lock.

    Raises:
        UsageError: there is one, nobody can be asked, and ``how`` does not say what to do.
        RefusedError: it cannot be finished, and why.
    """
    worst = ExitCode.MET
    for run in reversed(state.interrupted()):
        with opened(msgspec.structs.replace(reach, root=Path(run.begin.root))) as setup:
            worst = max(worst, _settle(state, run, how or _ask(run, setup), setup))
    return worst


def _ask(run: Run, setup: Setup) -> Literal["undo", "finish"]:
    about = f"run {run.id} ({run.begin.command}) was interrupted after {len(run.entries)} changes"
    if not can_ask():
        raise UsageError(f"{about}: undo it with --recover undo, or finish it with --recover finish")
    say(about, err=True)
    if reason := unfinishable(run, setup.catalogue):
        say(f"it can only be undone: {reason}", err=True)
        typer.confirm("undo it?", default=True, abort=True, err=True)
        return "undo"
    choice = typer.prompt("undo or finish it?", default="undo", err=True)
    if choice not in ("undo", "finish"):
        raise UsageError(f"{choice}: answer undo or finish")
    return "finish" if choice == "finish" else "undo"


def _settle(state: StateDirectory, run: Run, how: Literal["undo", "finish"], setup: Setup) -> ExitCode:
    with state.open_run(run.id) as journal:
        done = recover(journal, how, setup.catalogue, setup.drivers)
    stuck = [one for one in done.restored if one.incomplete]
    for one in stuck:
        say(f"tvops: {one.name}: {one.reason}", err=True)
    if stuck:
        return ExitCode.INCOMPLETE
    typer.echo(f"run {run.id} was {'undone' if how == 'undo' else 'finished'}", err=True)
    return exit_code(done.items, applied=True)
