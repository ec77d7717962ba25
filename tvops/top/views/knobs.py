"""What is in force: the knobs of the profile with those that drifted first, services and processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tvops.engine.knob_table import KNOB_STATES, place_text
from tvops.engine.telemetry.document import Knob, Telemetry
from tvops.terminal import clean
from tvops.top.lines import DASH, Line, Span, fit, span_of, title
from tvops.top.model import Seen
from tvops.top.scene import Scene
from tvops.top.table import Column, arrange, body, columns_for, head, page
from tvops.top.views.processes import process_lines

Row = tuple[Seen, Knob]

ROLES = {"in force": "ok", "drifted": "warn", "differs": "", "not here": ""}
SERVICE_ROLES = {"ok": "ok", "degraded": "warn", "failed": "breach"}
LEAST_ROWS = 14
"""Rows of the table that services and processes leave room for."""

ANY_WIDTH = 80
"""How many lines there are does not depend on it."""

STALE_LOOKS = 3
"""A value that was not read again for so many times the interval is stale."""


def _look_age(row: Row) -> float:
    """Give how long ago a knob was read, s."""
    return (row[0].until + row[0].age - row[1].looked) / 1e9


def _stale(row: Row) -> bool:
    seen, knob = row
    seconds = seen.document.knobs_seconds if seen.document else 0.0
    return not seen.fresh or (not knob.told and _look_age(row) > STALE_LOOKS * seconds)


def _state(row: Row) -> Span:
    state = row[1].state
    return Span(state.upper() if state == "drifted" else state, ROLES.get(state, ""))


def _value(text: str | None) -> str:
    return DASH if text is None else clean(text) or "(none)"


def _places(row: Row) -> str:
    return clean(place_text(row[1].places)) or "host"


def _since(row: Row) -> float:
    """Give for how long a knob has been in its state, s."""
    return (row[0].until - row[1].since) / 1e9


def _about(seconds: float) -> str:
    """Give a length of time in its largest unit."""
    unit = next((unit for unit in (86_400, 3600, 60) if seconds >= unit), 1)
    return span_of(seconds - seconds % unit)


class Knobs:
    """Every knob that the profile has a wish for, with what became of it."""

    name, letter = "knobs", "9"
    columns: tuple[Column[Any], ...] = (
        Column("knob", "k", "knob", 0, lambda row: clean(row[1].knob), lambda row: row[1].knob, right=False),
        Column("place", "p", "place", 12, _places, _places, right=False),
        Column("wanted", "w", "wanted", 12, lambda row: _value(row[1].wanted), right=False),
        Column("now", "n", "now", 12, lambda row: _value(row[1].now), right=False),
        Column("state", "s", "state", 8, _state, lambda row: KNOB_STATES.index(row[1].state), right=False),
        Column("since", "f", "for", 9, lambda row: _about(_since(row)), _since, rank=1),
        Column(
            "looked",
            "l",
            "read",
            8,
            lambda row: "at start" if row[1].told else _about(_look_age(row)),
            _look_age,
            rank=2,
        ),
        Column(
            "reason", "r", "why", 22, lambda row: clean(row[1].reason), lambda row: row[1].reason, False, rank=3
        ),
        Column("kind", "i", "kind", 7, lambda row: clean(row[1].kind), lambda row: row[1].kind, False, rank=4),
    )

    def count(self, scene: Scene) -> int:
        """Give the number of rows that the filter lets through, and of the lines below them."""
        return len(self._rows(scene)) + sum(len(lines) for lines in _below(scene, ANY_WIDTH))

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give a line for each port, the table, and below it services and processes.

        What there is no room for below the table comes when the cursor goes on past its last row.
        """
        lines: list[Line] = [_port(seen) for seen in scene.seen]
        services, processes = _below(scene, width)
        rows = self._rows(scene)
        if any(seen.document.knobs for seen in scene.seen if seen.document):
            room = height - len(lines)
            for below in (services, processes):
                if room - len(below) < LEAST_ROWS + 4:
                    break
                room -= len(below)
            lines += self._table(scene, rows, width, room)
        else:
            lines += [title("knobs", width), (Span("  no port tells of the knobs of its profile", "dim"),)]
        past = scene.choice.cursor - len(rows)
        at = len(lines) + past
        return page([*lines, *services, *processes], at if past >= 0 else 0, past >= 0, height)

    def _table(self, scene: Scene, rows: list[Row], width: int, height: int) -> list[Line]:
        columns = columns_for(self.columns, width - 2, scene.choice.hidden, least=26)
        left = width - 2 - sum(column.width + 1 for column in columns)
        columns = [c._replace(width=c.width + max(0, left)) if c.key == "reason" else c for c in columns]
        lines = [title("knobs", width, _counted(rows)), head(columns, scene.choice)]
        if not rows:
            return [*lines, (Span("  no knob matches the filter", "dim"),)]
        detail = _detail(rows[min(scene.choice.cursor, len(rows) - 1)], width)
        return [*lines, *body(columns, rows, height - len(lines) - len(detail), scene.choice, _stale), *detail]

    def _rows(self, scene: Scene) -> list[Row]:
        rows = [(seen, knob) for seen in scene.seen if seen.document for knob in seen.document.knobs]
        return arrange(self.columns, rows, scene.choice)


def _counted(rows: Sequence[Row]) -> str:
    counts: Counter[str] = Counter()
    for _, knob in rows:
        counts[knob.state] += max(1, len(knob.places))
    words = {"differs": "differ" if counts["differs"] > 1 else "differs"}
    return ", ".join(f"{counts[state]} {words.get(state, state)}" for state in KNOB_STATES if counts[state])


def _detail(row: Row, width: int) -> list[Line]:
    """Give in full what the table cuts of the row at the cursor."""
    seen, knob = row
    assert seen.document is not None
    where = f" ({clean(', '.join(knob.places))})" if knob.places else ""
    now = "not known" if knob.now is None else clean(knob.now) or "empty"
    wish = f"{now}, {clean(seen.document.profile)} wants {clean(knob.wanted) or 'nothing'}"
    read = "when its process started" if knob.told else f"{span_of(_look_age(row))} ago"
    about = [
        f"{knob.state} for {span_of(_since(row))}",
        f"read {read}",
        *([clean(knob.reason)] if knob.reason else []),
    ]
    return [
        (Span(fit(f"  {clean(knob.knob)}{where}: {wish}", width), "title"),),
        (Span(fit(f"  {', '.join(about)}", width), "dim"),),
    ]


def _port(seen: Seen) -> Line:
    document = seen.document
    if document is None:
        return (
            Span(f" {clean(seen.source.url)}  ", "head"),
            Span(clean(seen.error) or "nothing is known yet", "dim"),
        )
    faded = "" if seen.fresh else "dim"
    up = span_of((document.time - document.started) / 1e9)
    about = f"{document.pid}, {clean(document.version)}, up for {up}"
    return (
        Span(f" {clean(document.process)} ", faded or "title"),
        Span(about, faded),
        *((Span("   profile ", "head"), Span(clean(document.profile), faded)) if document.profile else ()),
        Span(_summary(document), faded),
    )


def _summary(document: Telemetry) -> str:
    """Count what the stack applied itself, where there is no table that says more."""
    if document.knobs or not (document.knobs_in_force or document.knobs_left):
        return ""
    return f"   {document.knobs_in_force} in force, {document.knobs_left or 'none'} left out"


def _below(scene: Scene, width: int) -> tuple[list[Line], list[Line]]:
    return _services(scene, width), _processes(scene, width)


def _services(scene: Scene, width: int) -> list[Line]:
    lines: list[Line] = []
    for seen in scene.seen:
        faded = "" if seen.fresh else "dim"
        for name, (state, detail) in seen.document.health.items() if seen.document else ():
            role = faded or SERVICE_ROLES.get(state, "")
            lines.append(
                (
                    Span(f"  {clean(name):<16}", "head"),
                    Span(f"{clean(state):<9}", role),
                    Span(clean(detail), "dim"),
                )
            )
    return [(), title("services", width), *lines] if lines else []


def _processes(scene: Scene, width: int) -> list[Line]:
    lines = process_lines(scene, width)
    return [(), title("processes", width), *lines] if lines else []
