"""Charts of letters: columns, and curves of braille dots (stars where there is only ASCII)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from tvops.top.lines import ASCII_SPARKS, SPARKS, Line, Span, duration

LABEL = 8  # columns of the scale at the left

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = " " + "".join(chr(0x2800 + dots) for dots in range(1, 256))
_NOTHING = (0, "")


def bars(heights: Sequence[float], rows: int, ascii_only: bool = False) -> list[str]:
    """Give columns from 0 to the largest, ``rows`` lines high."""
    letters = ASCII_SPARKS if ascii_only else SPARKS
    largest = max(heights, default=0.0) or 1.0
    eighths = [min(rows * 8, math.ceil(height / largest * rows * 8)) for height in heights]
    return [
        "".join(letters[max(0, min(8, filled - (rows - 1 - row) * 8))] for filled in eighths)
        for row in range(rows)
    ]


class Plot:
    """Curves over the same axes; later ones lie on top."""

    def __init__(self, width: int, height: int, low: float, high: float, ascii_only: bool = False) -> None:
        """Give an empty plot of values from ``low`` to ``high`` (above 0), on a logarithmic scale."""
        self.width, self.height = width, height
        self.points = width * (1 if ascii_only else 2)  # columns of dots
        self._low = math.log10(max(low, 1.0))
        self._high = max(math.log10(max(high, 1.0)), self._low + 0.3)
        self._ascii = ascii_only
        self._cells: dict[tuple[int, int], tuple[int, str]] = {}

    def curve(self, values: Sequence[float | None], role: str) -> None:
        """Draw one value for each column of dots, joined; None leaves a gap."""
        before: int | None = None
        for column, value in enumerate(values[: self.points]):
            if value is None:
                before = None
                continue
            row = self._row(value)
            steps = range(
                min(row, row if before is None else before), max(row, row if before is None else before) + 1
            )
            for step in steps:
                self._dot(column, step, role)
            before = row

    def lines(self) -> list[Line]:
        """Give the plot with its scale at the left."""
        marks = (
            {round((self.height - 1) * part / 3): part / 3 for part in range(4)} if self.height > 3 else {0: 0.0}
        )
        made = []
        for row in range(self.height):
            value = 10 ** (self._high - (self._high - self._low) * marks[row]) if row in marks else None
            scale = duration(value).rjust(LABEL - 1) + "┤" if value is not None else " " * (LABEL - 1) + "│"
            made.append((Span(scale, "dim"), *self._spans(row)))
        return made

    def _spans(self, row: int) -> list[Span]:
        letters = " *" if self._ascii else _BRAILLE
        cells = [self._cells.get((row, column), _NOTHING) for column in range(self.width)]
        return [
            Span("".join([letters[dots] for dots, _ in alike]), role)
            for role, alike in groupby(cells, itemgetter(1))
        ]

    def _row(self, value: float) -> int:
        levels = self.height * (1 if self._ascii else 4)
        share = (math.log10(max(value, 1.0)) - self._low) / (self._high - self._low)
        return max(0, min(levels - 1, round((1 - share) * (levels - 1))))

    def _dot(self, column: int, row: int, role: str) -> None:
        if self._ascii:
            self._cells[row, column] = (1, role)
            return
        place = (row // 4, column // 2)
        self._cells[place] = (self._cells.get(place, (0, ""))[0] | _DOTS[column % 2][row % 4], role)
