"""JSON as every command prints it for scripts."""

from __future__ import annotations

import typer

from tvops.json_text import json_indented


def print_json(document: object) -> None:
    """Print a document, indented."""
    typer.echo(json_indented(document))
