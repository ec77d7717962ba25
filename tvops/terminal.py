"""Text for a terminal."""

from __future__ import annotations

import typer


def printable(text: str) -> str:
    """Give text without control characters: what a host or server shows must not steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def say(text: str, *, err: bool = False) -> None:
    """Print a line, or several, of what may hold text from elsewhere: values, names, contents of files."""
    typer.echo(printable(text), err=err)
