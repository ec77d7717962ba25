"""Replays captures of Binance combined streams at their own pace, or a multiple of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tvops.engine.feeds.binance import BinanceParser, Frame
from tvops.engine.feeds.capture import Captures
from tvops.engine.feeds.feed import FeedBatch, FeedState
from tvops.engine.instruments import Instrument, InstrumentTable

WAKE_NS = 5_000_000
"""Time between two looks at what is due."""

MAX_FRAMES = 1024
"""Most frames of one batch, so that a replay that is behind leaves the event loop to others."""

LONGEST_PAUSE_NS = 60_000_000_000
"""Longer pauses between two lines (and steps back) are skipped: a broken time must not stop the replay."""

LOOP_PAUSE_NS = 100_000_000
HEARTBEAT_NS = 100_000_000
BEHIND_NS = 250_000_000
"""Lag from which on the figures say that the replay does not keep up."""

TELL_BEHIND_NS = 1_000_000_000
"""Lag from which on the log says it, once."""

logger = logging.getLogger(__name__)


class ReplayFeed:
    """A `Feed` of captures. Record times are those of the replay: start + (capture time - its first) / speed."""

    has_trades = True

    def __init__(
        self,
        captures: Captures,
        table: InstrumentTable,
        instruments: dict[str, Instrument],
        speed: float = 1.0,
        loop: bool = False,
    ) -> None:
        """Replay ``captures`` for ``instruments`` (by their name at Binance), ``speed`` times as fast."""
        self.name = "replay"
        self.parser = BinanceParser(table, instruments)
        self._captures = captures
        self._speed = speed
        self._loop = loop
        self._ended = False
        self._passes = 0
        self._behind = 0
        self._told = False
        self._last_due = -1
        self._wall = time.time_ns() - time.monotonic_ns()  # steps of the wall clock do not reach the replay
        self._time_jumps = 0
        self._lost: list[NDArray[Any]] = []  # GAP rows of `resync`, for the next batch

    def describe(self) -> str:
        """Say what is replayed, and how."""
        names = ", ".join(path.name for path in self._captures.paths)
        return f"replay of {names} at {self._speed:g}x{', looping' if self._loop else ''}"

    def state(self) -> FeedState:
        """Tell the state of the worst book, or that the replay has ended."""
        return "ended" if self._ended else self.parser.state()

    def stats(self) -> dict[str, float | int | str]:
        """Give what was read and skipped, and how far the replay is behind its schedule."""
        counts, lines, syncs = self.parser.counts, self._captures.counts, self.parser.syncs.values()
        return {
            "frames": counts["frames"],
            "skipped": counts["malformed"] + counts["inexact"] + counts["crossed"] + lines["garbage"],
            "ignored": counts["ignored"] + counts["unattributed"],
            "cut_quantities": self.parser.cut_quantities,
            "sync_gaps": sum(sync.gaps for sync in syncs),
            "passes": self._passes,
            "behind_ms": round(self._behind / 1e6, 1),
            "keeps_up": int(self._behind < BEHIND_NS),
            "damaged_files": lines["damaged"],
            "time_jumps": self._time_jumps,
        }

    def resync(self, instrument: int) -> None:
        """Wait for the next snapshot of ``instrument`` in the capture."""
        self._lost += self.parser.resync(instrument, time.time_ns())

    async def batches(self) -> AsyncIterator[FeedBatch]:
        """Give what is due every 5 ms, on a schedule that does not drift."""
        origin = time.monotonic_ns()
        while True:
            self._passes += 1
            self._last_due = -1
            async for batch in self._one_pass(origin):
                yield batch
            if not self._loop or self._last_due < 0:
                break
            origin = self._next_origin(origin)
            yield self.parser.restart(self._wall + origin - 1)
        self._ended = True
        logger.info("the replay has ended after %d frames", self.parser.counts["frames"])

    async def _one_pass(self, origin: int) -> AsyncIterator[FeedBatch]:
        frames = self._scheduled()
        head = next(frames, None)
        heard = 0
        while head is not None:
            now = time.monotonic_ns() - origin
            self._note_lag(now - head[0])
            taken: list[Frame] = []
            while head is not None and head[0] <= now and len(taken) < MAX_FRAMES:
                self._last_due = head[0]
                taken.append((self._wall + origin + head[0], head[1]))
                head = next(frames, None)
            late = head is not None and head[0] <= now
            if taken or self._lost or now - heard >= HEARTBEAT_NS:
                heard = now
                reached = head[0] if head is not None and late else now
                yield self._batch(taken, self._wall + origin + reached)
            now = time.monotonic_ns() - origin
            await asyncio.sleep(0 if late else (WAKE_NS - now % WAKE_NS) / 1e9)

    def _scheduled(self) -> Iterator[Frame]:
        """Give the frames with when each is due, in ns after the start of the pass."""
        elapsed, before = 0, None
        for received, frame in self._captures.frames():
            step = 0 if before is None else received - before
            if 0 <= step <= LONGEST_PAUSE_NS:
                elapsed += step
            else:
                self._time_jumps += 1
            before = received
            yield int(elapsed / self._speed), frame

    def _batch(self, frames: list[Frame], reached: int) -> FeedBatch:
        batch = self.parser.parse(frames, reached)
        if self._lost:
            lost, self._lost = self._lost, []
            batch = replace(batch, depth=np.concatenate([*lost, batch.depth]))
        return batch

    def _note_lag(self, lag: int) -> None:
        self._behind = max(0, lag)
        if self._behind > TELL_BEHIND_NS and not self._told:
            self._told = True
            logger.warning("the replay cannot keep up with %gx: it is %.1f s behind", self._speed, lag / 1e9)

    def _next_origin(self, origin: int) -> int:
        """Give when the next pass starts: on schedule, or now if the schedule is out of reach."""
        scheduled = origin + self._last_due + LOOP_PAUSE_NS
        now = time.monotonic_ns()
        return now if now - scheduled > TELL_BEHIND_NS else scheduled
