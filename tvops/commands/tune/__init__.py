"""`tvops tune`: make a host fit for low latency, with a plan, proof and a way back."""

from __future__ import annotations

import enum
from pathlib import Path

import typer

from tvops.commands.tune import inspecting, measuring, options, persisting, undoing

SUBCOMMANDS = (inspecting, undoing, persisting, measuring)

app = typer.Typer()
for module in SUBCOMMANDS:
    for command in module.app.registered_commands:
        app.registered_commands.append(command)


class Recovery(enum.StrEnum):
    """What --recover takes."""

    UNDO = "undo"
    FINISH = "finish"


class Keep(enum.StrEnum):
    """What --keep takes."""

    ALL = "all"
    HELPFUL = "helpful"


@app.callback(invoke_without_command=True)
def tune(
    context: typer.Context,
    profile: str | None = options.PROFILE,
    yes: bool = options.YES,
    check: bool = options.CHECK,
    measure: bool = typer.Option(False, "--measure", help="Measure what each change does here, then apply."),
    keep: Keep = typer.Option(Keep.ALL, help="With --measure: apply everything, or only what helped."),
    seconds: float = options.SECONDS,
    gateway: str = options.GATEWAY,
    script: bool = typer.Option(False, "--script", help="Print the plain shell script that would do the same."),
    only: list[str] | None = options.ONLY,
    skip: list[str] | None = options.SKIP,
    risk_max: options.RiskMax = options.RISK_MAX,
    assignments: list[str] | None = options.ASSIGNMENTS,
    servers: list[str] | None = options.SERVERS,
    root: Path = options.ROOT,
    force: bool = typer.Option(False, "--force", help="Write what would be refused as unsafe."),
    recover: Recovery | None = typer.Option(None, help="Undo or finish a run that was interrupted."),
    retry: bool = typer.Option(False, "--retry", help="Try again what was refused since this boot."),
    wait: float = options.WAIT,
    data_dir: str | None = options.DATA_DIR,
    config: Path | None = options.CONFIG,
    everything: bool = options.EVERYTHING,
    diff: bool = typer.Option(False, "--diff", help="Show the changes in the form of a diff, too."),
    as_json: bool = options.JSON,
) -> int:
    """Bring host, interfaces and Redis to a profile: plan, ask, journal, write, read back.

    Exit codes: 0 as the profile wants it; 1 failed and rolled back; 2 usage; 3 changes pending; 4 applied, but
    some knobs are not supported here; 5 needs privilege; 6 reboot or restart pending; 7 rollback incomplete.
    """
    if context.invoked_subcommand is not None:
        return 0
    from tvops.commands.tune.applying import Order, run_tune
    from tvops.tuning.plan import Limits
    from tvops.tuning.setup import Reach

    return run_tune(
        Order(
            profile=profile, yes=yes, check=check, measure=measure, keep_helpful=keep is Keep.HELPFUL,
            seconds=seconds, gateway=gateway, script=script, wait=wait, retry=retry,
            assignments=tuple(assignments or ()),
            recover=recover.value if recover else "", everything=everything, diff=diff, as_json=as_json,
            limits=Limits(only=tuple(only or ()), skip=tuple(skip or ()), risk_max=risk_max.value, force=force),
            reach=Reach(
                root=root, servers=tuple(servers or ()), data_dir=data_dir, config=config, force=force
            ),
        )
    )  # fmt: skip
