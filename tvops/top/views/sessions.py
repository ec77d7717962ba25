"""The sessions of clients, slow ones first."""

from __future__ import annotations

from typing import Any

from tvops.engine.telemetry.document import Session
from tvops.terminal import clean
from tvops.top.lines import DASH, Line, Span, data_size, number, span_of, title
from tvops.top.model import Seen
from tvops.top.scene import Scene
from tvops.top.table import Column, arrange, body, columns_for, head

Row = tuple[Seen, Session]


class Sessions:
    """Every session that the documents name."""

    name, letter = "sessions", "4"
    columns: tuple[Column[Any], ...] = (
        Column("peer", "p", "peer", 22, lambda row: clean(row[1].peer), lambda row: row[1].peer, right=False),
        Column(
            "state",
            "s",
            "state",
            6,
            lambda row: Span("SLOW", "warn") if row[1].slow else Span("ok", "ok"),
            lambda row: row[1].slow,
            right=False,
        ),
        Column("unsent", "u", "unsent", 8, lambda row: data_size(row[1].unsent), lambda row: row[1].unsent),
        Column(
            "conflations",
            "c",
            "conflated",
            10,
            lambda row: Span(number(row[1].conflations), "warn" if row[1].conflations else ""),
            lambda row: row[1].conflations,
        ),
        Column("messages", "m", "messages", 9, lambda row: number(row[1].messages), lambda row: row[1].messages),
        Column(
            "subscriptions",
            "b",
            "subs",
            5,
            lambda row: number(row[1].subscriptions),
            lambda row: row[1].subscriptions,
        ),
        Column(
            "age", "a", "open for", 13, lambda row: span_of(row[1].seconds), lambda row: row[1].seconds, rank=1
        ),
        Column(
            "account",
            "o",
            "account",
            16,
            lambda row: clean(row[1].account) or DASH,
            lambda row: row[1].account,
            right=False,
            rank=2,
        ),
        Column(
            "port",
            "t",
            "port",
            8,
            lambda row: Span(clean(row[0].document.process), "dim"),
            lambda row: row[0].source.url,
            right=False,
            rank=3,
        ),
        Column("id", "i", "id", 7, lambda row: str(row[1].id), lambda row: row[1].id, rank=3),
    )

    def count(self, scene: Scene) -> int:
        """Give the number of sessions that the filter lets through."""
        return len(self._rows(scene))

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give the table."""
        rows = self._rows(scene)
        slow = sum(row[1].slow for row in rows)
        columns = columns_for(self.columns, width - 2, scene.choice.hidden)
        note = f"{len(rows)} shown, {slow} slow"
        lines = [title("sessions", width, note), head(columns, scene.choice)]
        if not rows:
            text = "no sessions" if not scene.choice.pattern else "no session matches the filter"
            return [*lines, (Span(f"  {text}", "dim"),)]
        return [*lines, *body(columns, rows, height - len(lines), scene.choice, lambda row: not row[0].fresh)]

    def _rows(self, scene: Scene) -> list[Row]:
        rows = [(seen, session) for seen in scene.seen if seen.document for session in seen.document.sessions]
        if not scene.choice.sort:
            rows.sort(key=lambda row: (not row[1].slow, -row[1].conflations, -row[1].unsent, row[1].id))
        return arrange(self.columns, rows, scene.choice)
