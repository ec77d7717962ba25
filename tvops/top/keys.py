"""What each key does, and chords: a key that waits for the letter of a column."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvops.top.desk import Desk
from tvops.top.feed import Feed
from tvops.top.frame import VIEWS

Act = Callable[[], None]

FAR = 1 << 20
"""More rows than any table has."""


class Keys:
    """The keys of the screen."""

    def __init__(
        self, desk: Desk, feed: Feed, clock: Callable[[], int], others: Mapping[str, Act], keep: Act
    ) -> None:
        """Have keys act on ``desk``.

        Args:
            desk: what is shown.
            feed: that `p` pauses.
            clock: monotonic ns.
            others: keys that act on the screen itself.
            keep: called when columns or order have changed.
        """
        self._desk = desk
        self._feed = feed
        self._clock = clock
        self._keep = keep
        self._chord = ""
        views: dict[str, Act] = {view.letter: lambda name=view.name: desk.show(name) for view in VIEWS}  # type: ignore[misc]
        self._acts = {**self._table(), **views, **others}

    def press(self, key: str, letter: str) -> bool:
        """Do what a key is for, or what its letter is within a chord; give whether it is for anything."""
        if self._chord:
            self._end_chord(letter)
            return True
        name = key if key in self._acts else letter
        if name in self._acts:
            self.do(name)
        return name in self._acts

    def do(self, key: str) -> None:
        """Do what a key is for outside of chords."""
        self._acts[key]()

    def _table(self) -> dict[str, Act]:
        desk = self._desk

        def move(steps: int) -> Act:
            return lambda: desk.move(steps, self._clock())

        def page(direction: int) -> Act:
            return lambda: desk.move(direction * max(1, desk.height // 2), self._clock())

        return {
            "j": move(1), "down": move(1), "k": move(-1), "up": move(-1),
            "g": move(-FAR), "home": move(-FAR), "G": move(FAR), "end": move(FAR),
            "ctrl+d": page(1), "pagedown": page(1), "ctrl+u": page(-1), "pageup": page(-1),
            "h": lambda: desk.sideways(-1), "left": lambda: desk.sideways(-1),
            "l": lambda: desk.sideways(1), "right": lambda: desk.sideways(1),
            "H": lambda: desk.sideways(-1, True), "shift+left": lambda: desk.sideways(-1, True),
            "L": lambda: desk.sideways(1, True), "shift+right": lambda: desk.sideways(1, True),
            "plus": lambda: desk.zoom_by(-1), "+": lambda: desk.zoom_by(-1), "=": lambda: desk.zoom_by(-1),
            "minus": lambda: desk.zoom_by(1), "-": lambda: desk.zoom_by(1),
            "<": lambda: self._speed(-1), ">": lambda: self._speed(1),
            "tab": lambda: desk.next_view(1), "shift+tab": lambda: desk.next_view(-1),
            "[": lambda: desk.show_stack(desk.stack - 1), "]": lambda: desk.show_stack(desk.stack + 1),
            "f": lambda: desk.freeze(self._clock()), "r": lambda: desk.reset(self._clock()),
            "p": self._feed.pause, "space": self._feed.pause,
            "w": desk.next_window, "b": lambda: desk.take_baseline(self._clock()),
            "o": lambda: self._begin_chord("sort"), "c": lambda: self._begin_chord("columns"),
            "enter": self._enter, "escape": self._escape,
        }  # fmt: skip

    def _speed(self, steps: int) -> None:
        if self._desk.replay:
            self._desk.replay.faster(steps)

    def _enter(self) -> None:
        desk = self._desk
        if desk.view.name == "latency":
            cursor = desk.choice.cursor
            desk.show("history")
            desk.go_to(cursor, self._clock())
        elif desk.view.name == "overview":
            desk.show("latency")

    def _escape(self) -> None:
        if self._desk.choice.pattern:
            self._desk.filter_by("")
        else:
            self._desk.show("overview")

    def _begin_chord(self, kind: str) -> None:
        letters = self._desk.column_letters(kind == "sort")
        if letters:
            self._chord = kind
            text = "sort by" if kind == "sort" else "show or hide"
            self._desk.say(f"{text}: {letters}", self._clock(), 60)

    def _end_chord(self, letter: str) -> None:
        kind, self._chord = self._chord, ""
        self._desk.hush()
        if kind == "sort":
            self._desk.sort_by(letter)
        elif self._desk.toggle_column(letter):
            self._begin_chord("columns")
        self._keep()
