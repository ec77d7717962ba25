"""JSON as every command prints it for scripts."""

from __future__ import annotations

import msgspec
import typer


def print_json(document: object) -> None:
    """Print a document, indented."""
    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
