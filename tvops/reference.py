"""Renders the reference pages of `docs/` from the code: ``python -m tvops.reference docs`` writes them.

A test holds the committed pages to what this module renders.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import typer

from tvops import errors, settings
from tvops.cli import COMMANDS, build_app

HEAD = "<!-- Rendered from the code by `python -m tvops.reference docs`; edit the code instead. -->\n\n"


def settings_page() -> str:
    """Render the settings with default and meaning, from the comments in `tvops/settings.py`."""
    names = {field: alias for alias, field in settings.ENVIRONMENT_ALIASES.items()}
    lines = [
        "# Settings\n",
        "A value is taken from the first of: command line (`--name` or `--set name=value`), environment, settings",
        "file (`--config FILE` or `TVOPS_CONFIG`), profile, default.\n",
        "| setting | environment | default | meaning |",
        "|---|---|---|---|",
    ]
    for line in inspect.getsource(settings.Settings).splitlines():
        match = re.match(r"    (\w+): .* = (.+?),?  # (.+)", line)
        if match:
            name, default, meaning = match.groups()
            variable = f"`TVOPS_{name.upper()}`" + (f", `{names[name]}`" if name in names else "")
            default = "engine, market" if default == "SERVICES" else default.strip('"').replace("()", "")
            lines.append(f"| `{name}` | {variable} | {default} | {meaning} |")
    return HEAD + "\n".join(lines) + "\n"


def errors_page() -> str:
    """Render the exit codes of the command line, from the exception tree."""
    lines = ["# Exit codes\n", "| code | when |", "|---|---|", "| 0 | the command did what it was asked to |"]
    for kind in (errors.TvopsError, errors.UsageError):
        lines.append(f"| {kind.exit_code} | {_first_line(kind).rstrip('.')} |")
    lines += ["| 130 | interrupted by Ctrl-C |", "| 141 | whoever read the output has gone |"]
    return HEAD + "\n".join(lines) + "\n"


def commands_page() -> str:
    """Render the help of every command."""
    from typer.testing import CliRunner

    lines = ["# Commands\n"]
    for words in _calls():
        environment = {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "100", "TERMINAL_WIDTH": "100"}
        result = CliRunner().invoke(build_app(words), [*words, "--help"], prog_name="tvops", env=environment)
        text = "\n".join(line.rstrip() for line in result.output.strip("\n").splitlines())
        lines.append(f"## tvops {' '.join(words)}\n\n```text\n{text}\n```\n")
    return HEAD + "\n".join(lines)


def _calls() -> list[list[str]]:
    """Give the words of every command and subcommand."""
    calls = []
    for name in COMMANDS:
        calls.append([name])
        group = typer.main.get_command(build_app([name])).commands[name]  # type: ignore[attr-defined]
        calls += [[name, sub] for sub in getattr(group, "commands", ())]
    return calls


PAGES = {"settings.md": settings_page, "exit-codes.md": errors_page, "commands.md": commands_page}


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    for page, render in PAGES.items():
        (Path(sys.argv[1]) / page).write_text(render())
