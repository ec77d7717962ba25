"""`tvops profiles`: what profiles there are, what one says on this host, and how two differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tvops.tuning.model import Facts, Profile

app = typer.Typer(no_args_is_help=True, help="Profiles of `tvops tune` and `tvops serve`: list, show, compare.")

_ROOT = typer.Option(Path("/"), help="Resolve for this tree of files instead of the host.")
_ASSIGNMENTS = typer.Option(None, "--set", metavar="ID=VALUE", help="Want this of a knob instead; repeatable.")
_JSON = typer.Option(False, "--json", help="Print JSON.")


@app.command("list")
def list_all(as_json: bool = _JSON) -> None:
    """List the profiles that ship."""
    from tvops.commands.json_output import print_json
    from tvops.tuning.profiles import list_profiles

    profiles = list_profiles()
    if as_json:
        print_json({"schema": 1, "profiles": profiles})
        return
    for profile in profiles:
        extends = f" (extends {', '.join(profile.extends)})" if profile.extends else ""
        typer.echo(f"{profile.name:<6}  {profile.description}{extends}")


@app.command()
def show(
    name: str = typer.Argument(..., metavar="PROFILE", help="dev, prod, ull, or a profile file."),
    assignments: list[str] | None = _ASSIGNMENTS,
    root: Path = _ROOT,
    as_json: bool = _JSON,
) -> None:
    """Show a profile (dev, prod, ull or a YAML file) as it holds on this host.

    Every knob with its value, the line that it comes from, and what a guard says.
    """
    from tvops.commands.json_output import print_json

    profile = _resolve(root, name, assignments or [])
    if as_json:
        document = {
            "schema": 1,
            "name": profile.name,
            "description": profile.description,
            "roles": profile.facts.roles,
            "settings": profile.settings,
            "knobs": [
                {"knob": wish.knob, "place": wish.selector, "value": wish.value, "required": wish.required,
                 "skip": wish.skip, "why": wish.why, "origin": wish.origin}
                for wish in profile.wishes
            ],
        }  # fmt: skip
        print_json(document)
        return
    typer.echo(f"{profile.name}: {profile.description}")
    typer.echo(f"host: {_describe(profile.facts)}")
    _print_columns("roles", [(role, f"CPU {_cpus(profile, role)}") for role in profile.facts.roles])
    _print_columns("settings", [(key, _shown(value)) for key, value in profile.settings.items()])
    rows = []
    for wish in profile.wishes:
        verdict = f"left out: {wish.skip}" if wish.skip else "required" if wish.required else ""
        rows.append((_label(wish.knob, wish.selector), _shown(wish.value), wish.origin, verdict))
    _print_columns("knobs", rows)


@app.command()
def diff(
    one: str = typer.Argument(..., metavar="A", help="A profile."),
    other: str = typer.Argument(..., metavar="B", help="The profile to compare it with."),
    assignments: list[str] | None = _ASSIGNMENTS,
    root: Path = _ROOT,
    as_json: bool = _JSON,
) -> None:
    """Show what two profiles say differently on this host.

    --set changes the second one. The exit code is 0 whether they differ or not.
    """
    from tvops.commands.json_output import print_json

    first, second = _resolve(root, one, []), _resolve(root, other, assignments or [])
    before, after = _content(first), _content(second)
    changes = [
        {"kind": kind, "name": name, "a": before.get((kind, name)), "b": after.get((kind, name))}
        for kind, name in sorted(before.keys() | after.keys(), key=lambda key: (_KINDS.index(key[0]), key[1]))
        if before.get((kind, name)) != after.get((kind, name))
    ]
    if as_json:
        document = {"schema": 1, "a": first.name, "b": second.name, "changes": changes}
        print_json(document)
        return
    for kind in _KINDS:
        rows = [
            (change["name"] or "", f"{_absent(change['a'])} → {_absent(change['b'])}")
            for change in changes
            if change["kind"] == kind
        ]
        _print_columns(kind, rows)
    if not changes:
        typer.echo(f"{first.name} and {second.name} say the same on this host")


_KINDS = ("roles", "settings", "knobs")


def _resolve(root: Path, name: str, assignments: list[str]) -> Profile:
    from tvops.tuning.catalogue import load_catalogue
    from tvops.tuning.facts import read_facts
    from tvops.tuning.host import Host
    from tvops.tuning.profiles import resolve_profile

    return resolve_profile(name, read_facts(Host(root)), load_catalogue(), assignments)


def _content(profile: Profile) -> dict[tuple[str, str], str]:
    """Give everything that a profile says as text, by kind and name."""
    content = {("roles", role): _cpus(profile, role) for role in profile.facts.roles}
    content |= {("settings", key): _shown(value) for key, value in profile.settings.items()}
    for wish in profile.wishes:
        left_out = " (left out here)" if wish.skip else ""
        content["knobs", _label(wish.knob, wish.selector)] = f"{_shown(wish.value)}{left_out}"
    return content


def _label(knob: str, selector: str) -> str:
    return f"{knob}@{selector}" if selector else knob


def _cpus(profile: Profile, role: str) -> str:
    from tvops.tuning.values import format_cpus

    return format_cpus(profile.facts.roles[role])


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _absent(value: object) -> str:
    return "(nothing)" if value is None else str(value)


def _describe(facts: Facts) -> str:
    cpus = f"{len(facts.cpus)} CPU" + ("s" if len(facts.cpus) > 1 else "")
    parts = [f"kernel {facts.release}", facts.virtual or "bare metal", cpus]
    parts += ["SMT"] if facts.smt else []
    parts += [f"{facts.numa_nodes} NUMA nodes"] if facts.numa_nodes > 1 else []
    parts += [f"{facts.memory_bytes / 2**30:.1f} GiB"]
    parts += [f"container ({facts.container})"] if facts.container else []
    return ", ".join([*parts, "may change the host" if facts.privileged else "may not change the host"])


def _print_columns(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows below a title, in columns; nothing where there are none."""
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    typer.echo(f"{title}:")
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        typer.echo(f"  {'  '.join(cells)}".rstrip())
