"""`tvops doctor`: what is wrong with this host for low latency."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer()


@app.command()
def doctor(
    profile: str = typer.Option("prod", help="Profile that the host is held to."),
    servers: list[str] | None = typer.Option(
        None, "--redis", metavar="ROLE=URL", help="A server to look at; again for more. Default: the stack's."
    ),
    seconds: float = typer.Option(1.0, min=0.1, max=60.0, help="How long counters are watched."),
    data_dir: str | None = typer.Option(None, help="Data directory of the stack."),
    config: Path | None = typer.Option(None, help="Settings file (YAML); default: $TVOPS_CONFIG."),
    everything: bool = typer.Option(False, "--all", help="Show notes as well."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> int:
    """Say what is wrong with this host, its servers and settings for low latency, worst first, each with its fix.

    Changes nothing. Exit code: 0 nothing is wrong, 3 something is.
    """
    from tvops.tuning.doctor.examination import examine, render, to_json
    from tvops.tuning.doctor.finding import WRONG
    from tvops.tuning.setup import Reach

    findings = examine(Reach(servers=tuple(servers or ()), data_dir=data_dir, config=config), profile, seconds)
    if as_json:
        typer.echo(to_json(profile, findings))
    else:
        typer.echo(render(findings, everything))
    return 3 if any(finding.severity in WRONG for finding in findings) else 0
