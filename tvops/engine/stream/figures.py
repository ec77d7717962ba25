"""Figures of the service over time."""

from __future__ import annotations

import time

from tvops.engine.telemetry.recorder import Recorder, Window


class Figures:
    """Counts what goes out and how long it took since it was published."""

    def __init__(self) -> None:
        self.batches = self.batched = self.pending = 0
        self.ticks_per_second = 0.0
        self._started_us = time.time_ns() // 1000
        self.latencies = Recorder()  # publication to hand-over to the last session's socket
        self.latency = Window(self.latencies)  # the same, of late
        self._ticks, self._ticked = 0, time.monotonic()

    def sent(self, records: int, published: list[int]) -> None:
        """Count a batch of ``records`` whose entries were published at those times (µs since the epoch)."""
        self.batches += 1
        self.batched += records
        now = time.time_ns()
        for major in published:
            # what is older than the service was read from the past
            if major >= self._started_us:
                self.latencies.record(now - 1000 * major)

    def taken(self, ticks: int, published: int) -> None:
        """Note the count of ticks after a batch whose first entry was published then (µs since the epoch)."""
        if published < self._started_us:  # read from the past, which is no rate of now
            self._ticks, self._ticked = ticks, time.monotonic()

    def tick(self, ticks: int, now: float) -> None:
        """Note the count of ticks at the time ``now``."""
        self.ticks_per_second = (ticks - self._ticks) / max(now - self._ticked, 1e-3)
        self._ticks, self._ticked = ticks, now

    def rotate(self) -> None:
        """Begin a new window."""
        self.latency.rotate()
