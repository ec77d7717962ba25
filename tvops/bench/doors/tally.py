"""What sessions saw: latencies as they come, folded into histograms and columns once a second."""

from __future__ import annotations

from array import array

import numpy as np

from tvops.bench.result import Operation, Series
from tvops.bench.samples import counts_of
from tvops.engine.telemetry.histogram import Counts, empty, pack, percentiles


class Latencies:
    """Latencies as they come, counted once a second."""

    def __init__(self) -> None:
        self.values = array("q")
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        del self.values[:]
        self.counts: Counts = empty()
        self.maximum = 0
        self.negative = 0

    def fold(self) -> tuple[int, int, int, int]:
        """Count what has come since the last time; give how many that were, their p50, p99 and maximum."""
        values = np.array(self.values, np.int64)
        del self.values[:]
        known = values[values >= 0]
        counts, maximum = counts_of(known), int(known.max(initial=0))
        self.counts += counts
        self.maximum = max(self.maximum, maximum)
        self.negative += len(values) - len(known)
        p50, p99 = percentiles(counts, [50, 99], maximum)
        return len(values), p50, p99, maximum


class Tally:
    """What the sessions of one kind saw since the beginning of the window."""

    def __init__(self, name: str, sessions: int) -> None:
        self.name = name
        self.sessions = sessions
        self.published = Latencies()
        self.sent = Latencies()
        self.closed = 0
        self.reset()

    def reset(self) -> None:
        """Begin anew, at the beginning of the window."""
        self.published.reset()
        self.sent.reset()
        self.records = self.messages = self.bytes = 0
        self.lost = self.conflated = self.gaps = 0
        self.closed_before = self.closed
        self.closed_by_second: list[int] = []
        self.columns: list[tuple[int, int, int, int]] = []

    def fold(self) -> None:
        """End a second."""
        self.sent.fold()
        self.columns.append(self.published.fold())
        self.closed_by_second.append(self.closed - self.closed_before - sum(self.closed_by_second))

    def operation(self, door: str, seconds: float, lag: Latencies, rate_seen: float) -> Operation:
        """Give what was seen."""
        messages, p50, p99, maximum = zip(*self.columns, strict=True) if self.columns else ((),) * 4
        closed = self.closed - self.closed_before
        return Operation(
            door=door,
            name=self.name,
            sent=self.messages,
            answered=self.messages,
            errors=closed,
            timeouts=0,
            outcomes={"message": self.messages} | ({"session closed": closed} if closed else {}),
            rate=self.messages / seconds,
            response=pack(self.published.counts, self.published.maximum, self.published.negative),
            service=pack(self.sent.counts, self.sent.maximum, self.sent.negative),
            lateness=pack(lag.counts, lag.maximum),
            series=Series(
                sent=messages, answered=messages, errors=tuple(self.closed_by_second), p50=p50, p99=p99,
                maximum=maximum,
            ),
            figures={
                "sessions": self.sessions,
                "closed": closed,
                "records": self.records,
                "records_per_s": self.records / seconds,
                "mb_per_s": self.bytes / seconds / 1e6,
                "lost": self.lost,
                "conflated": self.conflated,
                "gaps": self.gaps,
                "stream_rate": rate_seen,
            },
        )  # fmt: skip
