"""What is in force: the profile with its knobs, the services and what each port says of itself."""

from __future__ import annotations

from tvops.top.lines import DASH, Line, Span, clean, span_of, title
from tvops.top.model import Seen
from tvops.top.scene import Scene
from tvops.top.table import Column
from tvops.top.views.resources import process_lines

STATES = {"ok": "ok", "degraded": "warn", "failed": "breach"}


class Knobs:
    """Profile and knobs in force, processes, health of the services."""

    name, letter = "knobs", "9"
    columns: tuple[Column[str], ...] = ()

    def count(self, scene: Scene) -> int:
        """Give nothing: there is no table with a cursor."""
        return 0

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give a block for each port, then the processes."""
        lines: list[Line] = []
        for seen in scene.seen:
            lines += [title(seen.source.url, width), *_port(seen), ()]
        processes = process_lines(scene, width)
        if processes:
            lines += [title("processes", width), *processes]
        return lines[:height]


def _port(seen: Seen) -> list[Line]:
    document = seen.document
    if document is None:
        return [(Span(f"  {clean(seen.error) or 'nothing is known yet'}", "dim"),)]
    faded = "" if seen.fresh else "dim"
    up = span_of((document.time - document.started) / 1e9)
    lines: list[Line] = [
        (
            Span("  process   ", "head"),
            Span(
                f"{clean(document.process)} {document.pid}, version {clean(document.version)}, up for {up}", faded
            ),
        ),
        (
            Span("  profile   ", "head"),
            Span(clean(document.profile) or DASH, faded),
            *_knobs(document.knobs_in_force, document.knobs_left, faded),
        ),
    ]
    for name, (state, detail) in document.health.items():
        lines.append(
            (
                Span(f"  {clean(name):<16}", "head"),
                Span(f"{clean(state):<9}", faded or STATES.get(state, "")),
                Span(clean(detail), "dim"),
            )
        )
    return lines


def _knobs(in_force: int, left: int, faded: str) -> tuple[Span, ...]:
    if not in_force and not left:
        return ()
    differs = Span(f"   {left} left out", faded or "warn") if left else Span("   none left out", faded or "ok")
    return (Span(f"   {in_force} knobs in force", faded), differs)
