"""What comes to the desk: readings of ports, which may be recorded, and the book that is shown; or a replay."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from tvops.errors import TvopsError
from tvops.telemetry_client import Reading
from tvops.top.desk import Desk
from tvops.top.recording import Writer
from tvops.top.scene import NO_GATEWAY, BookReading


class Source(Protocol):
    """Where readings come from."""

    readings: deque[Reading]
    book: BookReading
    wanted: tuple[str, str] | None
    paused: bool

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""


class Feed:
    """Takes what there is to a desk, at every tick of its screen."""

    def __init__(self, desk: Desk, source: Source | None, writer: Writer | None = None) -> None:
        """Feed ``desk``.

        Args:
            desk: what is shown.
            source: where readings come from; none: from the desk's replay.
            writer: keeps every reading.
        """
        self._desk = desk
        self._source = source
        self._writer = writer

    def start(self) -> None:
        """Begin to poll."""
        if self._source is not None:
            self._source.start()

    def stop(self) -> None:
        """Stop to poll."""
        if self._source is not None:
            self._source.stop()

    def pause(self) -> None:
        """Poll no more, or again; a replay stands or plays."""
        if self._desk.replay:
            self._desk.replay.toggle()
        elif self._source is not None:
            self._desk.paused = self._source.paused = not self._source.paused

    def take(self, now: int) -> bool:
        """Take in what came until ``now`` (monotonic ns); give whether that changes what is shown."""
        source = self._source
        if self._desk.replay:
            return self._desk.replay.advance(now)
        if source is None:
            return False
        changed = False
        while source.readings:
            reading = source.readings.popleft()
            self._desk.model.take(reading)
            self._record(reading, now)
            changed = True
        source.wanted = None
        if self._desk.view.name == "book":
            changed = self._take_book(source, now) or changed
        return changed

    def _take_book(self, source: Source, now: int) -> bool:
        desk = self._desk
        gateway = desk.scene(now).process("gateway")
        if gateway is None:
            desk.book = NO_GATEWAY
            return False
        changed = desk.book is not source.book
        desk.book = source.book
        source.wanted = (gateway.source.url, desk.symbol)
        return changed

    def _record(self, reading: Reading, now: int) -> None:
        if self._writer is None:
            return
        try:
            self._writer.add(reading, time.time_ns())
        except TvopsError as error:
            self._end_recording(str(error), now)
            return
        if self._writer.full:
            self._end_recording("the recording has reached its largest size and has ended", now)

    def _end_recording(self, why: str, now: int) -> None:
        self._writer, self._desk.recording = None, ""
        self._desk.say(why, now, 30)
