"""The keys, on a screen above the others."""

from __future__ import annotations

from rich.style import Style
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Static

KEYS = """\
 1 … 9   views (Tab: the next)     j k ↑ ↓     move the cursor
 Enter   details of the row        g G         first, last row
 Esc     filter off, overview      ^d ^u       half a screen
 /       filter by a regular expression; ! in front turns it over
 o …     sort by a column (its letter); again: turn, off
 c …     show or hide columns; kept for the next time
 f       freeze: show this moment, collect on
 p Space pause: poll no more       r           reset: count anew
 w       window of percentiles: 1 s, 10 s, 1 min, 5 min, all
 b       baseline: compare with this moment; again: no more
 + -     zoom of the history       h l ← →     move it
 [ ]     another stack             ^p :        palette, themes
 q       quit; the last screen stays

 replay: Space plays and stops, ← → 1 s, shift+← → 30 s,
         < > speed

 jitter  p99 - p50 of the window
 –       not measured, or too few samples for this percentile
 dimmed  the data are older than three seconds"""


class Help(ModalScreen[None]):
    """Shows the keys until one is pressed."""

    CSS = """
    Help { align: center middle; }
    Help VerticalScroll { width: 70; height: auto; max-height: 100%; border: round $primary; padding: 0 1; }
    """

    def __init__(self, styles: dict[str, Style]) -> None:
        super().__init__()
        self._styles = styles

    def compose(self) -> ComposeResult:
        """Put the keys into a box."""
        with VerticalScroll():
            yield Static(KEYS, markup=False)

    def on_key(self, event: Key) -> None:
        """Go away; a key that came right behind the one that did that is not for the help any more."""
        if event.key in ("up", "down", "pageup", "pagedown") or not self.is_current:
            return
        event.stop()
        self.dismiss()
