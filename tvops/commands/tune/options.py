"""Options that several subcommands of `tvops tune` share."""

from __future__ import annotations

import enum
from pathlib import Path

import typer


class RiskMax(enum.StrEnum):
    """What --risk-max takes."""

    SAFE = "safe"
    DISRUPTIVE = "disruptive"
    DANGEROUS = "dangerous"


RISK_MAX = typer.Option(RiskMax.DISRUPTIVE, help="Leave out knobs that are riskier than this.")
PROFILE = typer.Option(None, help="dev, prod, ull, or the path of a profile file; default: $TVOPS_PROFILE.")
ONLY = typer.Option(
    None,
    metavar="KNOB",
    help="Nothing but this: a knob, a kind (sysctl, redis, …) or a pattern ('net.*'); repeatable.",
)
SKIP = typer.Option(None, metavar="KNOB", help="All but this: a knob, a kind or a pattern; repeatable.")
ASSIGNMENTS = typer.Option(
    None, "--set", metavar="ID=VALUE", help="Want this of a knob instead, as 'vm.swappiness=<=5'; repeatable."
)
SERVERS = typer.Option(
    None,
    "--redis",
    metavar="ROLE=URL",
    help="A Redis or Valkey server, by its role: ledger, market, results, or a name of yours; repeatable. "
    "Without =URL it comes from $TVOPS_LEDGER_URL and the like. Default: the servers of the running stack.",
)
ROOT = typer.Option(Path("/"), help="Act on this tree of files instead of the host.")
FORCE = typer.Option(False, "--force", help="Overwrite what somebody else changed since, too.")
WAIT = typer.Option(10.0, min=0, max=3600, help="Seconds to wait for another tvops tune to end.")
DATA_DIR = typer.Option(None, help="Data directory of the running stack, to find it and its servers by.")
CONFIG = typer.Option(None, help="Settings file (YAML); default: $TVOPS_CONFIG.")
CHECK = typer.Option(False, "--check", help="Show what would be done, change nothing.")
YES = typer.Option(False, "--yes", "-y", help="Do it without asking.")
EVERYTHING = typer.Option(False, "--all", help="List what is as wanted, left out or not supported as well.")
JSON = typer.Option(False, "--json", help="Print JSON.")
SECONDS = typer.Option(300.0, min=5, max=3600, help="How long a measurement may take.")
GATEWAY = typer.Option("", metavar="URL", help="Order gateway to measure too; its ledger gets the orders.")
