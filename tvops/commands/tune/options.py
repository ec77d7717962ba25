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


RISK_MAX = typer.Option(RiskMax.DISRUPTIVE, help="Leave riskier knobs out.")
PROFILE = typer.Option(None, help="dev, prod, ull, or a profile file; default: $TVOPS_PROFILE.")
ONLY = typer.Option(None, metavar="KNOB", help="Only this knob, kind or pattern; repeatable.")
SKIP = typer.Option(None, metavar="KNOB", help="Leave this knob, kind or pattern out.")
ASSIGNMENTS = typer.Option(None, "--set", metavar="ID=VALUE", help="Want this instead.")
SERVERS = typer.Option(
    None,
    "--redis",
    metavar="ROLE=URL",
    help="A server; repeatable. ROLE alone: $TVOPS_ROLE_URL. Default: the stack's.",
)
ROOT = typer.Option(Path("/"), help="Act on this tree of files instead of the host.")
FORCE = typer.Option(False, "--force", help="Overwrite what somebody else changed since, too.")
WAIT = typer.Option(10.0, min=0, max=3600, help="Seconds to wait for another tune to end.")
DATA_DIR = typer.Option(None, help="Data directory of the running stack.")
CONFIG = typer.Option(None, help="Settings file (YAML); default: $TVOPS_CONFIG.")
CHECK = typer.Option(False, "--check", help="Show what would be done, change nothing.")
YES = typer.Option(False, "--yes", "-y", help="Do it without asking.")
EVERYTHING = typer.Option(False, "--all", help="List what is as wanted or left out as well.")
JSON = typer.Option(False, "--json", help="Print JSON.")
SECONDS = typer.Option(300.0, min=5, max=3600, help="How long a measurement may take.")
GATEWAY = typer.Option("", metavar="URL", help="Order gateway to measure too; its ledger gets the orders.")
