"""The terminal program: keys, mouse, palette and the clock's ticks, passed on to the desk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import Key, Resize
from textual.screen import Screen
from textual.theme import ThemeProvider
from textual.widgets import Input

from tvops.errors import TvopsError
from tvops.top.choices import write_choices
from tvops.top.desk import Desk
from tvops.top.feed import Feed, Source
from tvops.top.frame import VIEWS
from tvops.top.help import Help
from tvops.top.keys import Keys
from tvops.top.lines import Line
from tvops.top.palette import Palette
from tvops.top.panel import Panel
from tvops.top.recording import Writer
from tvops.top.styles import styles_of

PACES = {"overview": 2, "orders": 2, "latency": 3, "history": 4}
"""In the views that cost most new figures are drawn with every so many-th tick; slices of history are seconds."""

ORDINARY_HERTZ = 4.0


class Top(App[None]):
    """`tvops top`."""

    TITLE = "tvops top"
    ENABLE_COMMAND_PALETTE = True
    ESCAPE_TO_MINIMIZE = False
    CSS = """
    Screen { layers: base above; }
    #filter { dock: bottom; height: 1; border: none; padding: 0 1; display: none; layer: above; }
    #filter.-open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "quit", "Quit", show=False, priority=True)]

    def __init__(
        self,
        desk: Desk,
        source: Source | None,
        hertz: float = ORDINARY_HERTZ,
        theme: str = "",
        writer: Writer | None = None,
        choices_path: Path | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        told: str = "",
    ) -> None:
        """Show ``desk``, fed by ``source`` (none: by its replay).

        Args:
            desk: what is shown.
            source: where readings come from.
            hertz: how often the screen is looked at; it is drawn only where something changed.
            theme: name of a theme of Textual.
            writer: keeps every reading.
            choices_path: where columns, order and theme are kept; none: nowhere.
            clock: monotonic ns.
            told: a message to begin with.
        """
        super().__init__()
        self.desk = desk
        self.panel = Panel()
        self.last_lines: list[Line] = []
        self._feed = Feed(desk, source, writer)
        self._hertz = hertz
        self._choices_path = choices_path
        self._clock = clock
        self._told = told
        self._stale_second = 0
        self._changed = False
        self._drawn = 0
        self._wanted_theme = theme
        others = {
            "/": self._open_filter, "?": self._help, "f1": self._help, "q": self.exit,
            ":": self.action_command_palette,
        }  # fmt: skip
        self._keys = Keys(desk, self._feed, clock, others, self._keep)

    def compose(self) -> ComposeResult:
        """Put the panel on the screen, and the line in which a filter is typed."""
        yield self.panel
        field = Input(placeholder="regular expression; ! in front turns it over", id="filter", compact=True)
        field.cursor_blink = False
        yield field

    def on_mount(self) -> None:
        """Begin to poll and to draw."""
        self.animation_level = "none"
        if self._wanted_theme in self.available_themes:
            self.theme = self._wanted_theme
        self.role_styles = styles_of(self.current_theme, self.theme_variables)
        self.theme_changed_signal.subscribe(self, lambda theme: self._theme_changed())
        self.panel.focus()
        if self._told:
            self.desk.say(self._told, self._clock(), 10)
        self._feed.start()
        self.set_interval(1 / self._hertz, self.tick)
        self.draw()

    def on_unmount(self) -> None:
        """Stop to poll."""
        self._feed.stop()

    def tick(self) -> None:
        """Take in what was polled, and draw where that changes anything."""
        now = self._clock()
        self._changed = self._feed.take(now) or self._changed
        second = now // 1_000_000_000
        if self._changed and now - self._drawn < self.pace(self.desk.view.name):
            return
        if self._changed or second != self._stale_second:
            self._stale_second = second
            self.draw()

    def pace(self, view: str) -> int:
        """Give the least time between two drawings of new figures in a view, ns: at low rates that of 4 Hz."""
        ticks = PACES.get(view, 1) - 0.2  # a tick may come a little early
        return int(ticks / max(self._hertz, ORDINARY_HERTZ) * 1e9) if view in PACES else 0

    def draw(self) -> None:
        """Draw the screen as it is now."""
        width, height = self.size
        self._changed, self._drawn = False, self._clock()
        self.last_lines = self.desk.lines(width, height, self._clock())
        self.panel.show(self.last_lines, self.role_styles)

    def on_resize(self, event: Resize) -> None:
        """Fit the new size."""
        self.call_after_refresh(self.draw)

    def on_key(self, event: Key) -> None:
        """Do what a key is for."""
        if len(self.screen_stack) > 1:
            return
        if self.desk.typing:
            self._type(event)
            return
        if not self._keys.press(event.key, event.character or ""):
            return
        event.stop()
        event.prevent_default()
        self.draw()

    def _type(self, event: Key) -> None:
        """Take a key of a filter. A burst of keys is here before the field has the focus that it was given."""
        if event.key == "escape":
            self._close_filter()
        elif not (field := self.query_one("#filter", Input)).has_focus:
            if event.key == "enter":
                self._close_filter()
            elif event.key == "backspace":
                field.action_delete_left()
            elif event.is_printable and event.character:
                field.insert_text_at_cursor(event.character)

    def on_panel_clicked(self, message: Panel.Clicked) -> None:
        """Do what was clicked on."""
        verb, _, what = message.action.partition(" ")
        now = self._clock()
        if verb == "view":
            self.desk.show(what)
        elif verb == "stack":
            self.desk.show_stack(int(what))
        elif verb == "row":
            self.desk.go_to(int(what), now)
        elif verb == "sort":
            self.desk.sort_by(what)
            self._keep()
        elif verb == "press":
            self._keys.do(what)
        self.draw()

    def on_panel_wheeled(self, message: Panel.Wheeled) -> None:
        """Move the cursor with the wheel."""
        self.desk.move(3 * message.steps, self._clock())
        self.draw()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self._filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter."""
        self._close_filter()

    def action_command_palette(self) -> None:
        """Open the command palette."""
        if not isinstance(self.screen, Palette):
            self.push_screen(Palette())

    def search_themes(self) -> None:
        """Open the palette of themes."""
        self.push_screen(Palette(providers=[ThemeProvider], placeholder="Search for themes…"))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Offer views and actions in the command palette."""
        theirs = ("Keys", "Maximize")  # Textual's speak of widgets; ? is the help
        yield from (command for command in super().get_system_commands(screen) if command.title not in theirs)
        for view in VIEWS:
            yield SystemCommand(
                f"Show {view.name}", f"key {view.letter}", lambda key=view.letter: self._press(key)
            )
        for text, about, key in (
            ("Freeze", "show this moment, collect on (f)", "f"),
            ("Reset", "count from here (r)", "r"),
            ("Pause", "poll no more, or again (p)", "p"),
            ("Baseline", "compare with this moment (b)", "b"),
        ):
            yield SystemCommand(text, about, lambda key=key: self._press(key))

    def _press(self, key: str) -> None:
        self._keys.do(key)
        self.draw()

    def _help(self) -> None:
        self.push_screen(Help(self.role_styles))

    def _open_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = self.desk.choice.pattern
        self.desk.typing = True
        field.add_class("-open")
        field.focus()

    def _close_filter(self) -> None:
        self.desk.typing = False
        self.query_one("#filter", Input).remove_class("-open")
        self.panel.focus()
        self.draw()

    def _filter(self, pattern: str) -> None:
        if wrong := self.desk.filter_by(pattern[:200]):
            self.desk.say(wrong, self._clock())
        self.draw()

    def _theme_changed(self) -> None:
        self.role_styles = styles_of(self.current_theme, self.theme_variables)
        self._keep()
        self.draw()

    def _keep(self) -> None:
        if self._choices_path is None:
            return
        try:
            write_choices(self._choices_path, self.desk.kept_choices(self.theme))
        except TvopsError as error:
            self.desk.say(str(error), self._clock())


def plain_terminal() -> bool:
    """Whether the terminal has 16 colours and few letters, as the Linux console."""
    return os.environ.get("TERM", "") in ("linux", "vt100", "vt220", "dumb", "ansi")
