"""Text for a terminal."""

from __future__ import annotations

import typer


def printable(text: str) -> str:
    """Give text of several lines without control characters: what a host shows must not steer a terminal.

    They are shown as Python writes them, so that a name or value can be told from another.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def clean(text: str) -> str:
    """Give what a stranger says as it may stand in a line of a screen: a "?" for each letter that is none."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def say(text: str, *, err: bool = False) -> None:
    """Print a line, or several, of what may hold text from elsewhere: values, names, contents of files."""
    typer.echo(printable(text), err=err)
