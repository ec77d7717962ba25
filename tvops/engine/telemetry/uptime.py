"""How much of the time a worker served, over all its processes since the stack started."""

from __future__ import annotations

import msgspec


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor tells a worker of those that came before it. Times are monotonic ns of the machine."""

    begun: int = 0  # when the process before it ended; when this one was started, where it is the first
    restarts: int = 0
    served_since: int = 0  # when the first of them served; 0: none did
    down: int = 0  # ns since then that none served, up to `begun`
    reason: str = ""  # how the one before it ended


class Uptime:
    """Adds up the time that a worker served, its past included.

    `recovery`: seconds from `Past.begun` until this process served; None while it does not.
    """

    def __init__(self, past: Past) -> None:
        self.recovery: float | None = None
        self._restarts = past.restarts
        self._begun = self._seen = past.begun
        self._since = past.served_since
        self._down = past.down
        self._serving = False

    def update(self, now: int, serving: bool) -> None:
        """Note whether the process serves at monotonic time ``now`` (ns); until then it was as noted before."""
        if self._since and not self._serving:
            self._down += now - self._seen
        if serving and self.recovery is None:
            self.recovery = (now - self._begun) / 1e9
            self._since = self._since or now
        self._seen, self._serving = now, serving

    def ended(self, now: int, reason: str) -> Past:
        """Note that the process ended at monotonic time ``now`` (ns); give what the one after it is told."""
        self.update(now, False)
        return Past(
            begun=now, restarts=self._restarts + 1, served_since=self._since, down=self._down, reason=reason
        )

    @property
    def percent(self) -> float | None:
        """The part of the time, up to the last update, that the worker served; None where it never did."""
        if not self._since:
            return None
        return 100.0 * (1 - self._down / max(1, self._seen - self._since))
