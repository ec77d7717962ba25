"""Prints lines on the ordinary screen: what stays when top has ended."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.style import Style
from rich.text import Text

from tvops.top.lines import Line


def print_lines(lines: Sequence[Line], styles: dict[str, Style]) -> None:
    """Print lines with the colours that the terminal has."""
    console = Console(highlight=False, markup=False, emoji=False)
    for line in lines:
        text = Text(no_wrap=True, overflow="crop")
        for span in line:
            text.append(span.text, styles.get(span.role))
        text.rstrip()
        console.print(text)
