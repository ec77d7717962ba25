"""The widget that shows lines: it draws again only those that changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tvops.top.lines import Line


class Panel(Widget, can_focus=True):
    """A screenful of lines."""

    DEFAULT_CSS = "Panel { width: 1fr; height: 1fr; }"

    class Clicked(Message):
        """A click on something that has an action."""

        def __init__(self, action: str) -> None:
            self.action = action
            super().__init__()

    class Wheeled(Message):
        """The mouse wheel, up (-1) or down (1)."""

        def __init__(self, steps: int) -> None:
            self.steps = steps
            super().__init__()

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self.styles_by_role: dict[str, Style] = {}
        self._ground = Style()
        self._on_ground: dict[str, Style] = {}
        self._strips: dict[int, Strip] = {}  # of the lines that have been drawn since they changed

    def show(self, lines: Sequence[Line], styles: dict[str, Style]) -> None:
        """Show these lines."""
        before, self.lines = self.lines, list(lines)
        if styles is not self.styles_by_role or len(before) != len(lines):
            self.styles_by_role = styles
            self._ground = self._filtered(self.rich_style)
            self._on_ground = {role: self._filtered(self.rich_style + style) for role, style in styles.items()}
            self._strips.clear()
            self.refresh()
            return
        changed = [y for y, line in enumerate(lines) if line != before[y]]
        for y in changed:
            self._strips.pop(y, None)
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def render_lines(self, crop: Region) -> list[Strip]:
        """Give lines to the terminal: those that have not changed as they were given before.

        Textual asks for all lines from the first to the last that changed.
        """
        return [self._strip(y).crop(crop.x, crop.right) for y in range(crop.y, crop.bottom)]

    def _strip(self, y: int) -> Strip:
        strip = self._strips.get(y)
        if strip is None or strip.cell_length != self.size.width:
            strip = self._strips[y] = self.render_line(y)
        return strip

    def _filtered(self, style: Style) -> Style:
        """Give a style as Textual's filters (no colours, no dim text, 16 colours) leave it: they know no text."""
        segments, background = [Segment(" ", style)], self.background_colors[1]
        for each in self.get_line_filters():
            segments = each.apply(segments, background)
        return segments[0].style or Style.null()

    def render_line(self, y: int) -> Strip:
        """Give one line to the terminal."""
        width, ground, styles = self.size.width, self._ground, self._on_ground
        if y >= len(self.lines):
            return Strip.blank(width, ground)
        # Neighbours that look the same are one segment: each costs some microseconds on its way to the terminal.
        alike = groupby((span for span in self.lines[y] if span.text), lambda span: span.role)
        segments = [
            Segment("".join([span.text for span in spans]), styles.get(role, ground)) for role, spans in alike
        ]
        return Strip(segments).adjust_cell_length(width, ground)

    def on_click(self, event: events.Click) -> None:
        """Tell what was clicked on."""
        at = 0
        for span in self.lines[event.y] if event.y < len(self.lines) else ():
            at += len(span.text)
            if event.x < at:
                if span.action:
                    self.post_message(self.Clicked(span.action))
                return

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Tell of the wheel."""
        self.post_message(self.Wheeled(-1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Tell of the wheel."""
        self.post_message(self.Wheeled(1))
