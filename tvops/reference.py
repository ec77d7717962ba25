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
from tvops.shipped import resource
from tvops.tuning.model import ExitCode, Knob

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
    lines += ["\n## tvops tune\n", "| code | name | when |", "|---|---|---|"]
    for line in inspect.getsource(ExitCode).splitlines():
        if match := re.match(r"    ([A-Z]+) = (\d)  # (.+)", line):
            lines.append(f"| {match[2]} | {match[1].lower()} | {match[3]} |")
    lines += [
        "\nWhere several hold, the first of 7, 1, 5, 3, 6, 4 counts. `tvops tune verify`, `drift`,",
        "`rollback --check` and `persist --check` exit with 3 where something differs or would change; so does",
        "`tvops doctor` where something is wrong.",
        "\n## tvops bench\n",
        "| code | when |",
        "|---|---|",
        "| 0 | passed |",
        "| 1 | the run failed: nothing answers, say |",
        "| 3 | targets were missed, or a condition of `--fail-if` is met |",
        "| 4 | void: the generator was late, so that the figures say nothing |",
        "\n## tvops slo\n",
        "| code | when |",
        "|---|---|",
        "| 0 | every metric is within its target |",
        "| 1 | no port answers |",
        "| 3 | some are not, or have no data |",
    ]
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


def knobs_page() -> str:
    """Render the knob catalogue file by file, what the profiles that ship want, and the dead keys."""
    from tvops.profile_files import profile_names
    from tvops.tuning.catalogue import files_of, load_catalogue
    from tvops.tuning.dead_keys import load_dead_keys

    catalogue = load_catalogue()
    wanted = {name: _wanted(name) for name in profile_names()}
    lines = [
        "# Knobs\n",
        f"The {len(catalogue)} knobs of the catalogue (`kernel-tuning/`), in the order in which they are applied.",
        "`tvops tune explain KNOB` shows one, with what this host has.\n",
        "*Disruptive* may disturb what runs now, *dangerous* may lose data or the machine. *Live* ones may be",
        "flipped on a running host, as `tvops tune measure` does. *(if)* marks wishes that depend on the host.",
    ]
    for name, ids in files_of().items():
        head = (resource("kernel-tuning") / f"{name}.yaml").read_text().partition("knobs:")[0]
        intro = "\n".join(line.removeprefix("#").strip() for line in head.strip().splitlines())
        lines.append(f"\n## {name}\n\n{intro}")
        for knob_id in ids:
            wishes = {profile: wanted[profile][knob_id] for profile in wanted if knob_id in wanted[profile]}
            lines += _knob_lines(catalogue[knob_id], wishes)
    lines += [
        "\n## Dead and fake keys\n\nA profile that asks for one of these is refused with the reason.\n",
        "| key or value | why not | source |",
        "|---|---|---|",
    ]
    lines += [f"| `{dead.key}` | {dead.reason} | {dead.source} |" for dead in load_dead_keys()]
    return HEAD + "\n".join(lines) + "\n"


def _wanted(profile: str) -> dict[str, str]:
    """Give what a profile that ships wants of each knob, as written: what is said last of a place counts."""
    from tvops.profile_files import load_profile_chain

    wishes: dict[str, dict[str, str]] = {}
    for file in load_profile_chain(profile, overlays=Path("/dev/null")):
        for entry in file.entries:
            value = " ".join(map(str, entry.value)) if isinstance(entry.value, list) else str(entry.value)
            place = f" at {entry.selector}" if entry.selector else ""
            wishes.setdefault(entry.knob, {})[place] = f"`{value}`{place}{' (if)' if entry.when else ''}"
    return {knob: ", ".join(places.values()) for knob, places in wishes.items()}


def _knob_lines(knob: Knob, wishes: dict[str, str]) -> list[str]:
    """Render one knob: facts in a line, then what it does, costs and hides."""
    type_name = f"{knob.type}, {knob.unit}" if knob.unit else knob.type
    facts = [knob.kind, type_name, f"scope {knob.scope}", knob.risk]
    facts += ["live"] if knob.live else []
    facts += [f"needs {knob.capability or 'root'}"] if knob.root else []
    facts += ["at the next boot"] if knob.reboot else []
    facts += [f"restart of {knob.restart}"] if knob.restart else []
    facts += [f"since Linux {knob.kernel_min}"] if knob.kernel_min else []
    facts += [f"gone in Linux {knob.kernel_max}"] if knob.kernel_max else []
    lines = [f"\n### {knob.id}\n", f"- {'; '.join(facts)}", f"- why: {knob.why}"]
    if knob.truth:
        lines.append(f"- truth: {knob.truth}")
    if knob.where != knob.id:
        lines.append(f"- where: `{knob.where}`")
    if knob.choices:
        lines.append(f"- values: {', '.join(f'`{choice}`' for choice in knob.choices)}")
    if knob.unlimited is not None:
        lines.append(f"- no limit: `{knob.unlimited}`")
    if knob.hazard:
        lines.append(f"- beware: {knob.hazard}")
    if wishes:
        lines.append(f"- wanted: {'; '.join(f'{profile} {wish}' for profile, wish in wishes.items())}")
    if knob.coupled:
        lines.append(f"- goes with: {', '.join(f'`{other}`' for other in knob.coupled)}")
    lines.append(f"- source: {knob.source}")
    return lines


PAGES = {
    "settings.md": settings_page,
    "exit-codes.md": errors_page,
    "commands.md": commands_page,
    "knobs.md": knobs_page,
}


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").splitlines()[0]


def main(arguments: list[str]) -> int:
    """Write the pages into the folder ``arguments[0]``; give the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        typer.echo("tvops.reference: give the folder of the pages: python -m tvops.reference docs", err=True)
        return errors.UsageError.exit_code
    for page, render in PAGES.items():
        (Path(arguments[0]) / page).write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
