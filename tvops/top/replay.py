"""Plays a recording: time runs, stands, jumps back and forth; the model is fed with what was polled until then."""

from __future__ import annotations

import bisect

from tvops.top.model import Model
from tvops.top.recording import Recording

BEHIND_NS = 300_000_000_000
"""How much of what came before a jump is read again, for histories and windows."""

JUMP_FRAMES = 2400
"""Frames that are read at once at most, those of a jump as well."""

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 60.0)


class Replay:
    """Where a replay stands, and the model as of then. Times are ns since 1970, clocks monotonic ns."""

    def __init__(self, recording: Recording) -> None:
        """Stand at the begin of a recording, playing."""
        self.recording = recording
        self.model = Model(recording.stacks)
        self.begin = recording.times[0] if recording.times else 0
        self.end = recording.times[-1] if recording.times else 0
        self.at = self.begin
        self.playing = True
        self.speed = 1.0
        self._next = 0  # the first frame that is not fed yet
        self._clock: int | None = None
        self._feed()

    def advance(self, clock: int) -> bool:
        """Go on to what the caller's clock says; give whether anything changed."""
        before, self._clock = self._clock, clock
        if not self.playing or before is None or self.at >= self.end:
            return False
        self.at = min(self.end, self.at + int((clock - before) * self.speed))
        return self._feed()

    def toggle(self) -> None:
        """Play or stand; at the end, play again from the begin."""
        if self.at >= self.end:
            self.seek(self.begin)
            self.playing = True
        else:
            self.playing = not self.playing

    def seek(self, time: int) -> None:
        """Stand at ``time``, with as much of what came before as histories need."""
        time = max(self.begin, min(self.end, time))
        if time < self.at or time - self.at > BEHIND_NS:
            window = self.model.window_seconds
            self.model = Model(self.recording.stacks)
            self.model.window_seconds = window
            self._next = bisect.bisect_left(self.recording.times, time - BEHIND_NS)
        self.at = time
        self._feed()

    def move(self, seconds: float) -> None:
        """Go back or forth."""
        self.seek(self.at + int(seconds * 1e9))

    def faster(self, steps: int) -> None:
        """Take the next speed up or down."""
        self.speed = SPEEDS[max(0, min(len(SPEEDS) - 1, SPEEDS.index(self.speed) + steps))]

    def _feed(self) -> bool:
        last = bisect.bisect_right(self.recording.times, self.at)
        fed = self._next < last
        self._next = max(self._next, last - JUMP_FRAMES)
        while self._next < last:
            self.model.take(self.recording.frame(self._next))
            self._next += 1
        return fed
