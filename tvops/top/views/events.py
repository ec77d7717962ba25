"""What happened: breaches and their ends, restarts, connections lost; the newest first."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from tvops.engine.telemetry.document import Event
from tvops.terminal import clean
from tvops.top.lines import Line, Span, clock, title
from tvops.top.model import Seen
from tvops.top.scene import Scene
from tvops.top.table import Column, arrange, body, head

Row = tuple[Seen, Event]
ROLES = {"info": "dim", "warn": "warn", "breach": "breach"}
MOST_DETAIL_LINES = 3
RANKS = {"breach": 0, "warn": 1, "info": 2}


class Events:
    """The events of every endpoint, and what top itself saw of them."""

    name, letter = "events", "8"
    columns: tuple[Column[Any], ...] = (
        Column("time", "t", "UTC", 8, lambda row: clock(row[1].time), lambda row: row[1].time, right=False),
        Column(
            "severity",
            "s",
            "",
            7,
            lambda row: Span(_word(row[1].severity), ROLES.get(row[1].severity, "")),
            lambda row: RANKS.get(row[1].severity, 3),
            right=False,
        ),
        Column(
            "about",
            "a",
            "about",
            26,
            lambda row: clean(row[1].about.removeprefix("tv_")),
            lambda row: row[1].about,
            right=False,
        ),
        Column("text", "x", "what", 200, lambda row: clean(row[1].text), lambda row: row[1].text, right=False),
    )

    def count(self, scene: Scene) -> int:
        """Give the number of events that the filter lets through."""
        return len(_rows(self.columns, scene))

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give the table."""
        rows = _rows(self.columns, scene)
        columns = [*self.columns[:-1], self.columns[-1]._replace(width=max(10, width - 46))]
        lines = [title("events", width, f"{len(rows)}, newest first"), head(columns, scene.choice)]
        if not rows:
            return [*lines, (Span("  nothing has happened", "dim"),)]
        detail = _detail(rows[min(scene.choice.cursor, len(rows) - 1)], columns[-1].width, width)
        return [*lines, *body(columns, rows, height - len(lines) - len(detail), scene.choice), *detail]


def _detail(row: Row, room: int, width: int) -> list[Line]:
    """Give in full what the table cuts of the row at the cursor; nothing where it cuts nothing."""
    text = clean(row[1].text)
    if len(text) <= room:
        return []
    lines = wrap(f"{clean(row[1].about.removeprefix('tv_'))}: {text}", width - 2)
    return [(Span(f"  {line}", "title"),) for line in lines[:MOST_DETAIL_LINES]]


def _word(severity: str) -> str:
    return severity if severity == "info" else severity.upper()


def _rows(columns: tuple[Column[Any], ...], scene: Scene) -> list[Row]:
    rows = [
        (seen, event) for seen in scene.seen for event in seen.source.events if event.time <= scene.moment.time
    ]
    rows.sort(key=lambda row: row[1].time, reverse=True)
    return arrange(columns, rows, scene.choice)
