"""`tvops tune persist` and `unpersist`: files that make the host so at every boot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tvops.commands.tune import options
from tvops.terminal import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tvops.tuning.model import Item, Profile
    from tvops.tuning.persist import FileChange
    from tvops.tuning.setup import Setup

app = typer.Typer()


@app.command()
def persist(
    profile: str | None = options.PROFILE,
    check: bool = options.CHECK,
    yes: bool = options.YES,
    force: bool = typer.Option(False, "--force", help="Replace files at our paths that are not ours, too."),
    assignments: list[str] | None = options.ASSIGNMENTS,
    root: Path = options.ROOT,
    wait: float = options.WAIT,
    as_json: bool = options.JSON,
) -> int:
    """Make the host so at every boot.

    Writes files of sysctl.d, tmpfiles.d, udev and systemd, rendered from the profile. The boot loader is never
    touched: what it needs is written to a file, with an instruction.
    Exit codes: 0 the files are there; 1 a file is not ours; 3 with --check, something would change; 5 needs root.
    """
    from tvops.commands.tune.printing import can_ask, this_command
    from tvops.commands.tune.recovering import settle_interrupted
    from tvops.tuning.journal import StateDirectory, state_directory
    from tvops.tuning.persist import next_steps, persisted, plan_files
    from tvops.tuning.persist import persist as write_files
    from tvops.tuning.profiles import chosen_profile
    from tvops.tuning.setup import Reach, opened

    state = StateDirectory(state_directory())
    with opened(Reach(root=root)) as setup:
        resolved = setup.resolve(chosen_profile(profile), assignments or ())
        files = render(setup, resolved, chosen_profile(profile), assignments or (), setup.plan(resolved))
        changes = plan_files(files, setup.host, persisted(state, setup.host))
        differing = [change for change in changes if change.state != "same"]
        if not as_json:
            _show(changes)
        if check or not differing:
            return _tell(changes, [], 3 if differing else 0, as_json)
        if not yes and (as_json or not can_ask()):
            typer.echo("tvops: nothing was changed; --yes writes the files", err=True)
            return _tell(changes, [], 3, as_json)
        if setup.host.live and not setup.facts.privileged:
            typer.echo("tvops: nothing was changed; files below /etc need root", err=True)
            return _tell(changes, [], 5, as_json)
        if not yes:
            typer.confirm(f"write {len(differing)} files?", abort=True, err=True)
        with state.lock(wait, this_command()):
            settle_interrupted(state, "", Reach(root=root))
            changes = write_files(state, setup.host, resolved, files, this_command(), force)
    return _tell(changes, next_steps([change.path for change in changes]), 0, as_json)


def render(
    setup: Setup, resolved: Profile, profile: str, assignments: Sequence[str], items: Sequence[Item]
) -> dict[str, str]:
    """Give the files of a profile that was asked for as ``profile`` and with ``assignments``."""
    from tvops.tuning.persist import render_files

    name = str(Path(profile).resolve()) if Path(profile).is_file() else resolved.name
    arguments = ["--profile", name, *(word for value in assignments for word in ("--set", value))]
    return render_files(resolved, setup.catalogue, items, setup.drivers, setup.host, arguments)


def stale_files(
    setup: Setup, resolved: Profile, profile: str, assignments: Sequence[str], items: Sequence[Item]
) -> list[FileChange]:
    """Give the persisted files that are not as the profile has them; nothing where it is not persisted."""
    from tvops.tuning.journal import StateDirectory, state_directory
    from tvops.tuning.persist import persist_runs, persisted, plan_files

    state = StateDirectory(state_directory())
    runs = persist_runs(state, setup.host)
    if not runs or runs[-1].begin.profile != resolved.name:
        return []
    files = render(setup, resolved, profile, assignments, items)
    changes = plan_files(files, setup.host, persisted(state, setup.host))
    return [change for change in changes if change.state != "same"]


@app.command()
def unpersist(
    check: bool = options.CHECK,
    yes: bool = options.YES,
    force: bool = options.FORCE,
    root: Path = options.ROOT,
    wait: float = options.WAIT,
    as_json: bool = options.JSON,
) -> int:
    """Take the files of persist away again.

    What was there before them is put back.

    Exit codes: 0 everything is as it was; 3 with --check, something would change; 7 a file was left, and why.
    """
    from tvops.commands.json_output import print_json
    from tvops.commands.tune.printing import can_ask, tell_restored, this_command
    from tvops.tuning.host import Host
    from tvops.tuning.journal import StateDirectory, state_directory
    from tvops.tuning.persist import persisted
    from tvops.tuning.persist import unpersist as take_away

    state = StateDirectory(state_directory())
    host = Host(root)
    if check:
        paths = sorted(persisted(state, host))
        code = 3 if paths else 0
        if as_json:
            print_json({"schema": 1, "exit_code": code, "would_restore": paths})
        else:
            say("\n".join(paths) or "nothing is persisted")
        return code
    with state.lock(wait, this_command()):
        paths = sorted(persisted(state, host))
        if paths and not yes and not as_json and can_ask():
            say("\n".join(paths))
            typer.confirm("take these away?", default=True, abort=True, err=True)
        restored = take_away(state, host, force)
    return tell_restored("", restored, as_json)


def _show(changes: list[FileChange]) -> None:
    for change in changes:
        if change.state != "same":
            say(f"{change.state}: {change.path}{f' ({change.reason})' if change.reason else ''}")
            say(change.diff)


def _tell(changes: list[FileChange], steps: list[str], code: int, as_json: bool) -> int:
    from collections import Counter

    from tvops.commands.json_output import print_json

    counts = Counter(change.state for change in changes)
    if as_json:
        print_json({"schema": 1, "exit_code": code, "counts": counts, "files": changes, "next": steps})
        return code
    typer.echo(", ".join(f"{count} {state}" for state, count in counts.items()) or "nothing to persist")
    for step in steps:
        say(f"next: {step}", err=True)
    return code
