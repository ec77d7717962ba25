"""Lines of text with roles instead of colours: what views make, and terminals, files and tests show.

A role says what a piece of text is (`ok`, `warn`, `breach`, `dim`, `title`, `head`, `cursor`, `bar`, `before`);
what that looks like is the theme's affair. An action is what a click on it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

SPARKS: Final = " ▁▂▃▄▅▆▇█"
ASCII_SPARKS: Final = " ._-=+*#@"
DASH: Final = "–"
NO_BREAK: Final = "\N{NO-BREAK SPACE}"


class Span(NamedTuple):
    """A piece of a line."""

    text: str
    role: str = ""
    action: str = ""


Line = tuple[Span, ...]


def plain(line: Line) -> str:
    """Give a line without its roles."""
    return "".join(span.text for span in line).rstrip()


def fit(text: str, width: int, right: bool = False) -> str:
    """Give ``text`` in exactly ``width`` columns; what is cut ends in an ellipsis."""
    if len(text) > width:
        return text[: width - 1] + "…" if width > 0 else ""
    return text.rjust(width) if right else text.ljust(width)


def cut(line: Line, width: int) -> Line:
    """Give the first ``width`` columns of a line; text that is cut in its midst ends in an ellipsis."""
    spans, left = [], width
    for span in line:
        if left <= 0:
            break
        spans.append(span if len(span.text) <= left else span._replace(text=_cut_text(span.text, left)))
        left -= len(span.text)
    return tuple(spans)


def _cut_text(text: str, width: int) -> str:
    return text[:width] if not text[width:].strip() else f"{text[: width - 1]}…"


def length(line: Line) -> int:
    """Give the columns of a line."""
    return sum(len(span.text) for span in line)


def between(left: Line, right: Sequence[Line], width: int) -> Line:
    """Give a line with a part at its left and one at its right end; of that pieces give way, the last first."""
    tail: Line = ()
    for piece in right:
        if length(left) + length(tail) + length(piece) >= width:
            break
        tail += piece
    return cut((*left, Span(" " * max(0, width - length(left) - length(tail))), *tail), width)


def beside(left: Sequence[Line], right: Sequence[Line], width: int, gap: int = 2) -> list[Line]:
    """Give two columns of lines; the left one is ``width`` wide."""
    rows = []
    for index in range(max(len(left), len(right))):
        line = cut(left[index], width) if index < len(left) else ()
        rows.append(
            (*line, Span(" " * (width - length(line) + gap)), *(right[index] if index < len(right) else ()))
        )
    return rows


def title(text: str, width: int, note: str = "") -> Line:
    """Give a heading with a rule behind it."""
    tail = f" {note} " if note and len(note) + len(text) + 8 < width else ""
    return (
        Span(f"─ {text} ", "title"),
        Span("─" * max(0, width - len(text) - 4 - len(tail)), "dim"),
        Span(tail, "dim"),
        Span("─", "dim"),
    )


def spark(values: Sequence[float | None], width: int, ascii_only: bool = False, top: float | None = None) -> str:
    """Give the last ``width`` values as one row of bars from 0 to the largest; blank where there is none."""
    letters = ASCII_SPARKS if ascii_only else SPARKS
    shown = list(values)[-width:]
    highest = top or max((value for value in shown if value is not None), default=0.0)
    row = "".join(_bar(value, highest, letters) for value in shown)
    return row.rjust(width)


def gauge(share: float, width: int, ascii_only: bool = False) -> str:
    """Give a bar of ``width`` columns that is filled by ``share`` (0 to 1)."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if ascii_only:
        return ("#" * (eighths // 8)).ljust(width, ".")
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(width)


def duration(ns: float | None) -> str:
    """Give a latency in 7 columns at most: 812 ns, 12.3 µs, 4.56 ms, 1.2 s."""
    if ns is None:
        return DASH
    if ns < 1000:
        return f"{ns:.0f} ns"
    for factor, unit in ((1e3, "µs"), (1e6, "ms"), (1e9, "s")):
        if ns < factor * 999.5 or unit == "s":
            return f"{three(ns / factor)} {unit}"
    return DASH


def three(value: float) -> str:
    """Give a number with three significant digits, or all those before the point."""
    if value == 0:
        return "0"
    size = abs(value)
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    if size < 0.995:
        digits = min(3, 2 - math.floor(math.log10(size)))
    return f"{value:.{digits}f}"


def number(value: float | None) -> str:
    """Give a figure in 7 columns at most: 0.655, 12.3, 812, 12 345, 1.23M."""
    if value is None:
        return DASH
    size = abs(value)
    if size >= 999_500:
        for factor, letter in ((1e6, "M"), (1e9, "G"), (1e12, "T")):
            if size < factor * 999.5 or letter == "T":
                return f"{three(value / factor)}{letter}"
    if size >= 999.5 or value == int(value):
        return f"{value:,.0f}".replace(",", " ")
    return three(value)


def data_size(count: float | None) -> str:
    """Give bytes: 812 B, 12.3 kB, 180 MB."""
    if count is None:
        return DASH
    for factor, unit in ((1, "B"), (2**10, "kB"), (2**20, "MB"), (2**30, "GB")):
        if count < factor * 1023.5 or unit == "GB":
            return f"{count:.0f} B" if factor == 1 else f"{three(count / factor)} {unit}"
    return DASH


def span_of(seconds: float) -> str:
    """Give a length of time: 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    whole = int(max(0, seconds))
    for size, unit, smaller, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit} {rest} {name}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def clock(time: int) -> str:
    """Give a time of the day (UTC) of ns since 1970."""
    seconds = time // 10**9 % 86_400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _bar(value: float | None, highest: float, letters: str) -> str:
    if value is None:
        return " "
    if highest <= 0 or value <= 0:
        return letters[1]
    return letters[max(1, min(8, math.ceil(value / highest * 8)))]
