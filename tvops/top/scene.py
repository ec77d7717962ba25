"""What a view draws from: the moment shown and what the user has chosen. Views are pure functions of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from tvops.top.baseline import Baseline
from tvops.top.lines import Line
from tvops.top.model import Moment, Seen
from tvops.top.table import Choice, Column

WINDOWS = (1.0, 10.0, 60.0, 300.0, 0.0)
"""Seconds that percentiles of stages are of; 0: all since the last reset."""

ZOOMS = (60.0, 300.0, 900.0, 3600.0)
"""Seconds that the history shows."""


class Depth(msgspec.Struct, frozen=True):
    """A book as the gateway tells it: price, quantity, orders of each level."""

    symbol: str
    bids: list[tuple[str, str, int]]
    asks: list[tuple[str, str, int]]


class BookReading(msgspec.Struct, frozen=True):
    """What the gateway said when it was asked for a book."""

    symbols: tuple[str, ...] = ()
    depth: Depth | None = None
    error: str = ""
    received: int = 0  # monotonic ns


NO_GATEWAY = BookReading(error="no gateway among the ports that are watched")


class Scene(msgspec.Struct, frozen=True):
    """Everything that a view may draw."""

    moment: Moment
    stack: int = 0
    window: float = WINDOWS[1]
    zoom: float = ZOOMS[1]
    pan: float = 0.0  # seconds that the history ends before now
    choice: Choice = Choice()
    baseline: Baseline | None = None
    book: BookReading = BookReading()
    symbol: str = ""
    ascii_only: bool = False

    @property
    def seen(self) -> tuple[Seen, ...]:
        """The endpoints of the stack that is shown."""
        return self.moment.seen(self.stack)

    def process(self, *names: str) -> Seen | None:
        """Give the endpoint that hosts one of these services."""
        for endpoint in self.seen:
            if endpoint.document and any(name in endpoint.document.stats for name in names):
                return endpoint
        return None


class View(Protocol):
    """One view; each has a file in `tvops.top.views`."""

    @property
    def name(self) -> str:
        """How it is called."""

    @property
    def letter(self) -> str:
        """The key that shows it."""

    @property
    def columns(self) -> Sequence[Column[Any]]:
        """Those of its table, for sort, filter and choice of columns."""

    def count(self, scene: Scene) -> int:
        """Give how many rows the cursor can go through."""

    def draw(self, scene: Scene, width: int, height: int) -> list[Line]:
        """Give the lines, ``height`` at most."""
