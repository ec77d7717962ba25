"""What the subcommands of `tvops tune` print alike."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

import typer

from tvops.commands.json_output import print_json
from tvops.terminal import say
from tvops.tuning.model import ExitCode
from tvops.tuning.rollback import Restored


def this_command() -> str:
    """Give the command line of this process, for the journal and for who waits for the lock."""
    return " ".join(["tvops", *sys.argv[1:]])


def can_ask() -> bool:
    """Whether somebody sits at a terminal who can answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def tell_restored(run_id: str, restored: Sequence[Restored], as_json: bool) -> int:
    """Print what became of a rollback; give its exit code."""
    left = [one for one in restored if one.incomplete]
    code = ExitCode.INCOMPLETE if left else ExitCode.MET
    counts = Counter(one.outcome for one in restored)
    if as_json:
        print_json(
            {
                "schema": 1,
                "exit_code": int(code),
                "verdict": code.name.lower(),
                "run": run_id,
                "counts": counts,
                "restored": restored,
            }
        )
        return code
    for one in left:
        say(f"tvops: {one.name}: {one.reason}", err=True)
    if not restored:
        typer.echo("there is nothing to undo")
    else:
        done = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        typer.echo(f"run {run_id}: {done}" if run_id else done)
    return code
