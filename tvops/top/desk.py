"""What the user has chosen and what is shown of the model: everything of the screen that is no terminal."""

from __future__ import annotations

from typing import Any

from tvops.top import frame
from tvops.top.baseline import Baseline, take_baseline
from tvops.top.choices import Choices, TableChoice
from tvops.top.filter import filter_of
from tvops.top.frame import VIEWS, Status
from tvops.top.lines import NO_BREAK, Line, clock, span_of
from tvops.top.model import Model
from tvops.top.replay import Replay
from tvops.top.scene import WINDOWS, ZOOMS, BookReading, Scene, View
from tvops.top.table import Choice


class Desk:
    """The state of the screen. Times are monotonic ns of the caller's clock."""

    def __init__(
        self,
        model: Model,
        choices: Choices | None = None,
        baseline: Baseline | None = None,
        replay: Replay | None = None,
        ascii_only: bool = False,
    ) -> None:
        choices = choices or Choices()
        self.replay = replay
        self.baseline = baseline
        self.view: View = VIEWS[0]
        self.stack = 0
        self.window = WINDOWS[1]
        self.zoom = ZOOMS[0]
        self.pan = 0.0
        self.paused = False
        self.recording = ""
        self.typing = False
        self.book = self._book_before()
        self.height = 24
        self._model = model
        self._ascii = ascii_only
        self._message = ("", 0)
        self.tables = {view.name: _kept(choices.tables.get(view.name, TableChoice())) for view in VIEWS}

    @property
    def model(self) -> Model:
        """The model that is shown: that of the replay, where one runs."""
        return self.replay.model if self.replay else self._model

    @property
    def choice(self) -> Choice:
        """What is chosen in the table of the view."""
        return self.tables[self.view.name]

    @property
    def symbol(self) -> str:
        """The symbol whose book is wanted; empty while none is known."""
        symbols = self.book.symbols
        return symbols[min(self.tables["book"].cursor, len(symbols) - 1)] if symbols else ""

    def scene(self, now: int) -> Scene:
        """Give what the view draws from."""
        now = self.replay.at if self.replay else now
        return Scene(
            self.model.moment(now), self.stack, self.window, self.zoom, self.pan, self.choice, self.baseline,
            self.book, self.symbol, self._ascii,
        )  # fmt: skip

    def lines(self, width: int, height: int, now: int) -> list[Line]:
        """Give the whole screen."""
        self.height = height
        scene = self.scene(now)
        text, until = self._message
        message = text if now < until else ""
        status = Status(self.view, self._mode(), message, self.recording, self.typing, scene.moment.time)
        return frame.draw(scene, status, width, height)

    def say(self, text: str, now: int, seconds: float = 4.0) -> None:
        """Show a message in the last line for a while."""
        self._message = (text, now + int(seconds * 1e9))

    def hush(self) -> None:
        """Take the message away."""
        self._message = ("", 0)

    def show(self, name: str) -> None:
        """Show a view."""
        self.view = next(view for view in VIEWS if name in (view.name, view.letter))

    def next_view(self, steps: int) -> None:
        """Show the view beside this one."""
        self.view = VIEWS[(VIEWS.index(self.view) + steps) % len(VIEWS)]

    def show_stack(self, index: int) -> None:
        """Show another stack, if there is one."""
        if 0 <= index < len(self.model.stacks) and index != self.stack:
            self.stack = index
            self.book = self._book_before()

    def move(self, steps: int, now: int) -> None:
        """Move the cursor."""
        count = self.view.count(self.scene(now))
        cursor = max(0, min(count - 1, min(self.choice.cursor, count - 1) + steps))
        self._choose(cursor=cursor)

    def go_to(self, row: int, now: int) -> None:
        """Put the cursor on a row."""
        self.move(row - self.choice.cursor, now)

    def filter_by(self, pattern: str) -> str:
        """Show the rows that match; give what is wrong with the pattern, which then counts as plain text."""
        self._choose(pattern=pattern, cursor=0)
        wrong = filter_of(pattern).wrong
        return f"{pattern}: {wrong}; taken as plain text" if wrong else ""

    def sort_by(self, key: str) -> bool:
        """Sort by the column of this key or letter, again: turned, then not. False where there is none."""
        column = next((c for c in self.view.columns if key in (c.key, c.letter) and c.order is not None), None)
        if column is None:
            return False
        again = self.choice.sort == column.key
        if again and self.choice.descending != column.right:
            self._choose(sort="", descending=False)
        else:
            self._choose(sort=column.key, descending=not self.choice.descending if again else column.right)
        return True

    def toggle_column(self, letter: str) -> bool:
        """Show or hide a column; False where there is none with this letter, or it is the first one."""
        column = next((c for c in self.view.columns[1:] if c.letter == letter), None)
        if column is None:
            return False
        self._choose(hidden=self.choice.hidden ^ {column.key})
        return True

    def column_letters(self, sortable: bool) -> str:
        """Give the columns of the view with their letters, as a hint; each stays whole where a line is wrapped."""
        columns: list[Any] = [column for column in self.view.columns if not sortable or column.order is not None]
        marks = []
        for column in columns if sortable else columns[1:]:
            text = column.title or column.key
            mark = f"{column.letter} {f'({text})' if column.key in self.choice.hidden else text}"
            marks.append(mark.replace(" ", NO_BREAK))
        return "  ".join(marks)

    def next_window(self) -> None:
        """Take the next length of the window that percentiles are of."""
        self.window = WINDOWS[(WINDOWS.index(self.window) + 1) % len(WINDOWS)]

    def zoom_by(self, steps: int) -> None:
        """Show less (-1) or more of the history."""
        self.zoom = ZOOMS[max(0, min(len(ZOOMS) - 1, ZOOMS.index(self.zoom) + steps))]

    def pan_by(self, steps: float) -> None:
        """Move the stretch that the history shows into the past (1) or back."""
        self.pan = max(0.0, min(3600.0, self.pan + steps * self.zoom / 4))

    def sideways(self, steps: int, far: bool = False) -> None:
        """Scrub in a replay, else move the history."""
        if self.replay:
            self.replay.playing = False
            self.replay.move(steps * (30.0 if far else 1.0))
        else:
            self.pan_by(-steps * (4 if far else 1))

    def freeze(self, now: int) -> None:
        """Keep what is shown, or go on."""
        self.model.freeze(self.replay.at if self.replay else now)

    def reset(self, now: int) -> None:
        """Count from here."""
        self.model.reset()
        self.say("counted from here on", now)

    def take_baseline(self, now: int) -> None:
        """Compare with what is shown now from here on, or compare no more."""
        if self.baseline is not None:
            self.baseline = None
            self.say("baseline removed", now)
            return
        scene = self.scene(now)
        self.baseline = take_baseline(scene.moment, self.stack, f"of {clock(scene.moment.time)}")
        self.say("baseline taken: changes are against it; b removes it", now)

    def kept_choices(self, theme: str) -> Choices:
        """Give what is kept for the next time."""
        tables = {
            name: TableChoice(sorted(choice.hidden), choice.sort, choice.descending)
            for name, choice in self.tables.items()
            if choice.hidden or choice.sort
        }
        return Choices(theme, tables)

    def _choose(self, **changes: Any) -> None:
        self.tables[self.view.name] = self.choice._replace(**changes)

    def _book_before(self) -> BookReading:
        """Give what is known of a book before it was asked for; of a recording that is all there will be."""
        return BookReading(error="books are not recorded" if self.replay else "")

    def _mode(self) -> str:
        if self.replay:
            sign = "▶" if self.replay.playing else "‖"
            done = span_of((self.replay.at - self.replay.begin) / 1e9)
            whole = span_of((self.replay.end - self.replay.begin) / 1e9)
            return f"REPLAY {sign} {done} of {whole} x{self.replay.speed:g}"
        modes = ["FROZEN"] if self.model.frozen else []
        return " ".join([*modes, "PAUSED"] if self.paused else modes)


def _kept(kept: TableChoice) -> Choice:
    return Choice(sort=kept.sort, descending=kept.descending, hidden=frozenset(kept.hidden))
