"""The screen of `tvops top` on made-up data: what a test reads on it, and the keys and the mouse that it uses."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from tests.top_documents import SECOND, model_after
from tvops.telemetry_client import Reading
from tvops.top.app import Top
from tvops.top.desk import Desk
from tvops.top.lines import plain
from tvops.top.scene import BookReading, Depth

BOOK = BookReading(
    ("BTC-USDT", "ETH-USDT", "SOL-USDT"),
    Depth(
        "BTC-USDT",
        [
            (f"{59_999 - level * 1.25:.2f}", f"{0.12 + level * level % 7 * 0.31:.5f}", 1 + level % 3)
            for level in range(40)
        ],
        [
            (f"{60_001 + level * 1.25:.2f}", f"{0.21 + level * level % 5 * 0.27:.5f}", 1 + level % 4)
            for level in range(40)
        ],
    ),
    "",
    30 * SECOND,
)


class Readings:
    """A source whose readings the test gives."""

    def __init__(self) -> None:
        self.readings: deque[Reading] = deque()
        self.book = BookReading()
        self.wanted: tuple[str, str] | None = None
        self.paused = False
        self.running = False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False


class Clock:
    """A clock that stands until the test moves it."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class Screen:
    """The program, and what its screen says."""

    def __init__(self, pilot: Pilot[None], app: Top, source: Readings, clock: Clock) -> None:
        self.pilot, self.app, self.source, self.clock = pilot, app, source, clock

    @property
    def desk(self) -> Desk:
        return self.app.desk

    @property
    def lines(self) -> list[str]:
        return [plain(line) for line in self.app.last_lines]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def settle(self) -> str:
        """Let everything happen that was set off, drawing included; give the text of the screen."""
        for _ in range(3):  # a new style changes the layout, and that what is drawn
            await self.pilot.pause()
        return self.text

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what comes of threads and timers."""
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, self.text
            await self.pilot.pause(0.01)
        await self.settle()

    async def press(self, *keys: str) -> str:
        for key in keys:
            await self.pilot.press(key)
            await self.settle()
        return self.text

    async def click(self, column: int, row: int) -> str:
        await self.pilot.click(offset=(column, row))
        return await self.settle()

    async def resize(self, width: int, height: int) -> str:
        await self.pilot.resize_terminal(width, height)
        return await self.settle()

    async def feed(self, *readings: Reading) -> str:
        self.source.readings.extend(readings)
        self.clock.now = max(self.clock.now, *(reading.received for reading in readings))
        self.app.tick()
        return await self.settle()


async def nothing_runs(*_: float) -> None:
    """Return when no task of this loop can go on: whatever is left waits for a timer, a thread or a socket."""
    ready = asyncio.get_running_loop()._ready
    await asyncio.sleep(0)
    while ready:
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(
    app: Top, size: tuple[int, int], source: Readings | None = None, clock: Clock | None = None
) -> AsyncIterator[Screen]:
    """Run the program without a terminal; the test says what its source tells and its clock shows."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("app", "pilot"):  # theirs watches the CPU time of the process, for 40 ms per key
            patch.setattr(f"textual.{module}.wait_for_idle", nothing_runs)
        async with app.run_test(size=size) as pilot:
            screen = Screen(pilot, app, source or Readings(), clock or Clock(0))
            await screen.settle()
            yield screen


@contextlib.asynccontextmanager
async def showing(
    size: tuple[int, int] = (80, 24),
    desk: Desk | None = None,
    now: int = 30 * SECOND,
    path: Path | None = None,
    theme: str = "",
) -> AsyncIterator[Screen]:
    """Run the program on readings of the test, by default after half a minute of `model_after`."""
    source, clock = Readings(), Clock(now)
    source.book = BOOK
    app = Top(desk or Desk(model_after(30)[0]), source, 4.0, theme, None, path, clock)
    async with running(app, size, source, clock) as screen:
        yield screen
    assert not source.running
