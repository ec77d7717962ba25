"""`tvops slo`: whether a running stack keeps its targets."""

from __future__ import annotations

import os
from pathlib import Path

import typer

app = typer.Typer()

_COLOURS = {"ok": "green", "warn": "yellow", "breach": "red", "no data": "magenta"}


@app.command()
def slo(
    gateway: str | None = typer.Option(
        None, metavar="URL", help="Gateway; '' leaves it out. Default: this machine's."
    ),
    market: str | None = typer.Option(
        None, metavar="URL", help="Market data port; '' leaves it out. Default: this machine's."
    ),
    targets: Path | None = typer.Option(
        None, metavar="FILE", help="Judge by these targets instead of the stack's own."
    ),
    watch: float = typer.Option(
        0.0, metavar="SECONDS", min=0, max=86_400, help="Watch so long and judge by the worst state."
    ),
    config: Path | None = typer.Option(None, help="Settings file (YAML); default: $TVOPS_CONFIG."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> int:
    """Print the operators' metrics against their targets, once.

    Exit code: 0 every row is ok; 3 some are not (a metric without data is not ok, nor is a port that does not
    answer at some time of the watch); 1 no port answers. An API key, where the stack wants one, comes from
    $TVOPS_API_KEY.
    """
    import asyncio

    from tvops.commands.json_output import print_json
    from tvops.engine.telemetry.targets import load_targets
    from tvops.errors import ServerError, UsageError
    from tvops.settings import load_settings
    from tvops.slo import Port, lines
    from tvops.slo import watch as watched
    from tvops.terminal import say

    settings = load_settings({}, file=config)
    gateway = f"http://127.0.0.1:{settings.gateway_port}" if gateway is None else gateway
    market = f"http://127.0.0.1:{settings.market_port}" if market is None else market
    ports = [Port(url, process) for url, process in ((gateway, "engine"), (market, "market")) if url]
    if not ports:
        raise UsageError("--gateway and --market are both empty; give at least one address")
    judged = load_targets(targets)
    key = os.environ.get("TVOPS_API_KEY", "")
    report = asyncio.run(watched(ports, judged, targets is not None, key, watch))
    for url, error in report.unreachable.items():
        say(f"tvops: {url}: {error}", err=True)
    if not report.answered:
        raise ServerError("no port of the stack gives telemetry; is it up? (tvops serve)")
    if as_json:
        print_json(report)
    else:
        for line in lines(report.rows, lambda state: typer.style(f"{state:7}", fg=_COLOURS[state])):
            typer.echo(line, color=False if "NO_COLOR" in os.environ else None)
    return 0 if report.ok else 3
