"""`tvops settings`: every setting, its value and where it comes from."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer()


@app.command()
def settings(
    config: Path | None = typer.Option(None, help="Settings file (YAML); default: $TVOPS_CONFIG."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show every setting as `tvops serve` would see it here, checked."""
    import msgspec

    from tvops.commands.json_output import print_json
    from tvops.settings import load_settings

    values = {
        key: _shown(key, value) for key, value in msgspec.structs.asdict(load_settings({}, file=config)).items()
    }
    if as_json:
        print_json(values)
        return
    width = max(map(len, values))
    for key, value in values.items():
        shown = ", ".join(value) if isinstance(value, tuple) else value
        typer.echo(f"{key:<{width}}  {'' if shown is None else shown}".rstrip())


def _shown(key: str, value: object) -> object:
    """Hide what a URL may hold of a password."""
    if key.endswith("_url") and isinstance(value, str) and "@" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://***@{rest.rpartition('@')[2]}"
    return value
