"""The whole screen as lines: one of status, one of tabs, the view, one of keys."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import msgspec

from tvops.terminal import clean
from tvops.top.filter import filter_of
from tvops.top.lines import NO_BREAK, Line, Span, between, clock, cut, fit, length, span_of
from tvops.top.model import Seen
from tvops.top.scene import Scene, View
from tvops.top.views.book import BookLadder
from tvops.top.views.events import Events
from tvops.top.views.history import History
from tvops.top.views.knobs import Knobs
from tvops.top.views.latency import Latency
from tvops.top.views.orders import Orders
from tvops.top.views.overview import Overview
from tvops.top.views.redis import Servers
from tvops.top.views.sessions import Sessions

VIEWS: tuple[View, ...] = (
    Overview(), Latency(), History(), Sessions(), Orders(), BookLadder(), Servers(), Events(), Knobs(),
)  # fmt: skip
BRAND = " tvops top "
LEAST = (60, 12)
"""Columns and lines below which nothing can be read."""

MOST_MESSAGE_LINES = 4

CONNECTIONS = {"live": ("●", "ok"), "stale": ("◌", "warn"), "lost": ("✕", "breach"), "connecting": ("◌", "dim")}


KEYS = (
    ("/", "filter", "press /"), ("o", "sort", "press o"), ("f", "freeze", "press f"), ("p", "pause", "press p"),
    ("r", "reset", "press r"), ("w", "window", "press w"), ("?", "help", "press ?"),
    ("q", "quit", "press q"), ("b", "baseline", "press b"), ("c", "columns", "press c"),
)  # fmt: skip


class Status(msgspec.Struct, frozen=True):
    """What the frame around a view tells."""

    view: View
    mode: str = ""  # FROZEN, PAUSED, or where a replay stands
    message: str = ""
    recording: str = ""
    typing: bool = False  # the last line is covered by the one in which a filter is typed
    now: int = 0  # ns since 1970


def draw(scene: Scene, status: Status, width: int, height: int) -> list[Line]:
    """Give exactly ``height`` lines."""
    if width < LEAST[0] or height < LEAST[1]:
        lines: list[Line] = [
            (Span(f"{width}x{height} is too small: tvops top needs {LEAST[0]}x{LEAST[1]}", "warn"),)
        ]
        return [*lines, *([()] * (height - 1))][:height]
    above = [_status(scene, status, width), _tabs(scene, status, width)]
    if len(scene.moment.stacks) > 1:
        above.append(_stacks(scene, width))
    room = height - len(above) - 1
    lines = [cut(line, width) for line in status.view.draw(scene, width, room)][:room]
    whole = [*above, *lines, *([()] * (room - len(lines)))]
    below = _message(status.message, width)
    if status.typing or not below:
        below = [*below, _keys(scene, status, width)]
    return [*whole[: height - len(below)], *below]


def _status(scene: Scene, status: Status, width: int) -> Line:
    """Give the first line. The clock gives way first, then what is said of the ports; mode and REC stay."""
    marks: list[Line] = []
    if status.recording:
        marks.append((Span("● REC", "breach"), Span("  ")))
    if status.mode:
        marks.append((Span(f" {status.mode} ", "mode"), Span("  ")))
    more: list[Line] = [(Span(f"{clean(status.recording)}  ", "dim"),)] if status.recording else []
    names = [_name(seen, scene.ascii_only) for seen in scene.seen]
    told = [_trouble(seen) for seen in scene.seen]
    room = width - 1 - len(BRAND) - sum(length(part) for part in (*names, *marks))
    if sum(length(part) for part in told) > room:
        troubles = sum(1 for part in told if part)
        told = [cut(part, max(0, room) // troubles) for part in told]
    left: list[Span] = [Span(BRAND, "brand")]
    for name, part in zip(names, told, strict=True):
        left += [*name, *part]
    clock_piece: Line = (Span(f"{clock(status.now)} UTC ", "dim"),) if status.now else ()
    return between(tuple(left), [*marks, *more, clock_piece], width)


def _name(seen: Seen, ascii_only: bool) -> Line:
    mark, role = CONNECTIONS[seen.state]
    mark = {"live": "*", "lost": "x"}.get(seen.state, "o") if ascii_only else mark
    name = seen.document.process if seen.document else seen.source.url.partition("://")[2]
    return Span("  "), Span(f"{mark} ", role), Span(clean(name), "" if seen.fresh else "dim")


def _trouble(seen: Seen) -> Line:
    """Give what is to be said of a connection that is not live."""
    if seen.state == "lost":
        known = f", data {span_of(seen.age / 1e9)} old" if seen.document else ""
        return (Span(f" lost: {clean(seen.error)[:48]}{known}", "breach"),)
    if seen.state == "stale":
        return (Span(f" {span_of(seen.age / 1e9)} old", "warn"),)
    return (Span(" connecting", "dim"),) if seen.state == "connecting" else ()


def _tabs(scene: Scene, status: Status, width: int) -> Line:
    gap = " " if width >= 100 else ""
    spans: list[Span] = [Span(" ")]
    for view in VIEWS:
        here, action = view is status.view, f"view {view.name}"
        spans += [Span(f"{gap}{view.letter}", "tab" if here else "key", action)]
        spans += [Span(f"{gap}{view.name}{gap}", "tab" if here else "dim", action), Span(" ")]
    return cut(tuple(spans), width)


def _stacks(scene: Scene, width: int) -> Line:
    spans: list[Span] = [Span(" stacks ", "head")]
    for index, (stack, seen) in enumerate(scene.moment.stacks):
        text, role = _worst(seen)
        spans += [
            Span(" ", ""),
            Span(f" {clean(stack.name)} ", "tab" if index == scene.stack else "", f"stack {index}"),
            Span(text, role),
        ]
    return cut(tuple(spans), width)


def _worst(seen: Sequence[Seen]) -> tuple[str, str]:
    states = {endpoint.state for endpoint in seen}
    if "lost" in states or "stale" in states:
        return ("lost", "breach") if "lost" in states else ("stale", "warn")
    metrics = {metric.state for endpoint in seen if endpoint.document for metric in endpoint.document.metrics}
    for state, role in (("breach", "breach"), ("warn", "warn"), ("ok", "ok")):
        if state in metrics:
            return state.upper() if state != "ok" else state, role
    return "no data", "dim"


def _message(text: str, width: int) -> list[Line]:
    """Give a message in as many lines as it takes; they lie over the last ones of the view."""
    texts = [part.replace(NO_BREAK, " ") for part in wrap(text, width - 2)]
    return [(Span(f" {clean(part)}", "message"),) for part in texts[:MOST_MESSAGE_LINES]]


def _keys(scene: Scene, status: Status, width: int) -> Line:
    pattern = scene.choice.pattern
    shown = fit(pattern, min(len(pattern), width // 3))
    notes = [f"filter {shown}{' as plain text' if filter_of(pattern).wrong else ''}  "] if pattern else []
    notes += [f"baseline {scene.baseline.name}  "] if scene.baseline else []
    room = width - sum(len(note) for note in notes) - 1 if notes else width
    spans: list[Span] = [Span(" ")]
    for key, text, action in KEYS:
        if length(tuple(spans)) + len(key) + len(text) + 3 > room:
            break
        spans += [Span(key, "key", action), Span(f" {text}  ", "dim", action)]
    notes.append(f"window {span_of(scene.window)}  " if scene.window else "since reset  ")
    return between(tuple(spans), [(Span(note, "dim"),) for note in notes], width)
