"""`tvops tune rollback`: put back what a run changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tvops.commands.tune import options
from tvops.terminal import say

if TYPE_CHECKING:
    from tvops.tuning.journal import StateDirectory
    from tvops.tuning.records import Run

app = typer.Typer()


@app.command()
def rollback(
    run_id: str | None = typer.Argument(None, metavar="[ID]", help="The run to undo; default: the last one."),
    check: bool = options.CHECK,
    yes: bool = options.YES,
    force: bool = options.FORCE,
    servers: list[str] | None = options.SERVERS,
    root: Path = options.ROOT,
    wait: float = options.WAIT,
    data_dir: str | None = options.DATA_DIR,
    config: Path | None = options.CONFIG,
    as_json: bool = options.JSON,
) -> int:
    """Put back what a run changed, and nothing else.

    What somebody else changed since is left alone and named.

    Exit codes: 0 everything is as it was; 7 something is not, and why.
    """
    from tvops.commands.tune.printing import can_ask, tell_restored, this_command
    from tvops.tuning.journal import StateDirectory, state_directory
    from tvops.tuning.rollback import roll_back
    from tvops.tuning.setup import Reach, opened

    state = StateDirectory(state_directory())
    if check:
        return _preview(_choose(state, run_id, root), as_json)
    with state.lock(wait, this_command()):
        run = _choose(state, run_id, root)
        if run is None:
            return tell_restored("", [], as_json)
        if not yes and not as_json and can_ask():
            say("\n".join(_preview_lines(run)))
            typer.confirm("put these back?", default=True, abort=True, err=True)
        reach = Reach(
            root=Path(run.begin.root), servers=tuple(servers or ()), data_dir=data_dir, config=config, force=force
        )
        with opened(reach) as setup, state.open_run(run.id) as journal:
            restored = roll_back(journal, setup.catalogue, setup.drivers, force, reason="tvops tune rollback")
            if journal.failure:
                say(f"tvops: {journal.failure}; run this again then, so that the journal knows", err=True)
        return tell_restored(run.id, restored, as_json)


def _choose(state: StateDirectory, run_id: str | None, root: Path) -> Run | None:
    """Give the run that is named, or the last one of this root of which something is left."""
    if run_id:
        return state.load(run_id)
    left = [
        run for run in state.runs()
        if run.live and run.begin.kind != "persist" and run.begin.root == str(root.resolve())
    ]  # fmt: skip
    return left[-1] if left else None


def _preview_lines(run: Run) -> list[str]:
    from tvops.tuning.records import Write

    lines = []
    for entry in reversed(run.live):
        write = entry.write
        told = f"{write.value} → {write.before.value}" if isinstance(write, Write) else "as it was before"
        lines.append(f"{write.name}  {told}")
    return lines


def _preview(run: Run | None, as_json: bool) -> int:
    from tvops.commands.json_output import print_json

    lines = _preview_lines(run) if run else []
    code = 3 if lines else 0
    if as_json:
        names = [line.partition("  ")[0] for line in lines]
        print_json({"schema": 1, "exit_code": code, "run": run.id if run else "", "would_restore": names})
    else:
        say("\n".join(lines) if lines else "there is nothing to undo")
    return code
