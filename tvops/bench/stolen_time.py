"""CPU time that the hypervisor gave to other machines while something was measured (proc(5), stat, steal)."""

from __future__ import annotations

from typing import Final

import psutil

WORTH_TELLING: Final = 1.0
"""Percent from which on it is told: what waits for a core then waits for milliseconds."""


class StolenTime:
    """Counts from its making on, or from the last `begin`."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._stolen, self._all = _ticks()

    def percent(self) -> float:
        """Give which part of the time of all cores was stolen; 0 on a machine of its own."""
        stolen, whole = _ticks()
        share = (stolen - self._stolen) / max(whole - self._all, 0.01)  # idle time goes back at times (proc(5))
        return round(100 * min(max(share, 0.0), 1.0), 2)


def stolen_told(percent: float) -> tuple[str, ...]:
    """Say it, where it is worth that."""
    if percent < WORTH_TELLING:
        return ()
    return (f"The hypervisor gave {percent:.1f} % of the cores' time to others: latencies have that in them.",)


def _ticks() -> tuple[float, float]:
    times = psutil.cpu_times()
    spent = times.user + times.nice + times.system + times.idle + times.iowait + times.irq + times.softirq
    return times.steal, spent + times.steal
