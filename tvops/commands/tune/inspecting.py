"""Subcommands that only look: verify, drift, history, explain."""

from __future__ import annotations

from pathlib import Path

import typer

from tvops.commands.tune import options
from tvops.terminal import say

app = typer.Typer()


@app.command()
def verify(
    profile: str | None = options.PROFILE,
    only: list[str] | None = options.ONLY,
    skip: list[str] | None = options.SKIP,
    risk_max: options.RiskMax = options.RISK_MAX,
    assignments: list[str] | None = options.ASSIGNMENTS,
    servers: list[str] | None = options.SERVERS,
    root: Path = options.ROOT,
    data_dir: str | None = options.DATA_DIR,
    config: Path | None = options.CONFIG,
    everything: bool = options.EVERYTHING,
    as_json: bool = options.JSON,
) -> int:
    """Compare the host with a profile.

    Knob by knob, and file by file where the profile is persisted; changes nothing.

    Exit codes: 0 as wanted; 3 something differs; 4 some knobs are not supported here; 5 something cannot be read
    without privilege; 6 a reboot or restart is pending.
    """
    from tvops.commands.tune.persisting import stale_files
    from tvops.tuning.listing import as_json as to_json
    from tvops.tuning.listing import print_plan, summary
    from tvops.tuning.model import ExitCode
    from tvops.tuning.plan import Limits, verdict
    from tvops.tuning.profiles import chosen_profile
    from tvops.tuning.setup import Reach, opened

    reach = Reach(root=root, servers=tuple(servers or ()), data_dir=data_dir, config=config)
    with opened(reach) as setup:
        resolved = setup.resolve(chosen_profile(profile), assignments or ())
        items = setup.plan(
            resolved, Limits(only=tuple(only or ()), skip=tuple(skip or ()), risk_max=risk_max.value)
        )
        stale = stale_files(setup, resolved, chosen_profile(profile), assignments or (), items)
    code = ExitCode.PENDING if stale else verdict(items)
    if as_json:
        typer.echo(to_json(resolved.name, items, code, files=stale))
    else:
        print_plan(items, everything)
        for change in stale:
            say(f"{change.path}: {change.reason or 'is not as the profile has it'} (tvops tune persist)")
        say(f"profile {resolved.name}: {summary(items)}")
    return code


@app.command()
def drift(
    servers: list[str] | None = options.SERVERS,
    root: Path = options.ROOT,
    data_dir: str | None = options.DATA_DIR,
    config: Path | None = options.CONFIG,
    as_json: bool = options.JSON,
) -> int:
    """Tell what changed since tvops wrote it.

    And which file, program or later run may have done it. Changes nothing.

    Exit codes: 0 everything is as tvops left it; 3 something is not.
    """
    from tvops.commands.json_output import print_json
    from tvops.tuning.history import drift as find_drift
    from tvops.tuning.journal import StateDirectory, state_directory
    from tvops.tuning.setup import Reach, opened

    reach = Reach(root=root, servers=tuple(servers or ()), data_dir=data_dir, config=config)
    with opened(reach) as setup:
        runs = StateDirectory(state_directory()).runs()
        drifted = find_drift(runs, setup.catalogue, setup.drivers, root)
    code = 3 if drifted else 0
    if as_json:
        print_json({"schema": 1, "exit_code": code, "drifted": drifted})
        return code
    for one in drifted:
        found = "gone" if one.found is None else one.found
        what = f"is {found}, tvops wrote {one.ours}" if one.ours else "is no longer as tvops wrote it"
        reason = f" ({one.reason})" if one.reason else ""
        say(f"{one.name}: {what} in run {one.run}{reason}")
    typer.echo(f"{len(drifted)} drifted" if drifted else "everything is as tvops left it")
    return code


@app.command()
def history(as_json: bool = options.JSON) -> int:
    """List the runs that changed this host."""
    from datetime import datetime

    from tvops.commands.json_output import print_json
    from tvops.tuning.history import history as list_runs
    from tvops.tuning.journal import StateDirectory, state_directory

    runs = list_runs(StateDirectory(state_directory()))
    if as_json:
        print_json({"schema": 1, "runs": runs})
        return 0
    if not runs:
        typer.echo("tvops has changed nothing on this host", err=True)
        return 0
    form = "{:<20}  {:<16}  {:<8}  {:<8}  {:<11}  {:>8}  {}"
    typer.echo(form.format("run", "when", "what", "profile", "state", "in force", "who"))
    for run in runs:
        when = datetime.fromtimestamp(run.at).strftime("%Y-%m-%d %H:%M") if run.at else ""
        who = f"{run.user}  {run.reason}".rstrip()
        say(form.format(run.id, when, run.kind, run.profile, run.state, run.written, who))
    return 0


@app.command()
def explain(
    knob: str = typer.Argument(help="Id of a knob, as plans show it."),
    profile: str | None = options.PROFILE,
    as_json: bool = options.JSON,
) -> int:
    """Tell what a knob does and costs.

    And where that is written, what the profiles want of it, and how it stands here.
    """
    from tvops.commands.json_output import print_json
    from tvops.tuning.explanation import explain_knob, render
    from tvops.tuning.setup import Reach, opened

    with opened(Reach()) as setup:
        explanation = explain_knob(setup, knob, profile)
    if as_json:
        print_json(explanation)
    else:
        say(render(explanation))
    return 0
