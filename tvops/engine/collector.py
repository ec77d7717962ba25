"""When Python's garbage collector runs in a process of ours.

Most of what a process has when it serves stays until its end, and most garbage is freed by reference counts; a
full collection in between is a pause for nothing.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Mapping

from tvops.engine.stack_tuning import Effect, outcome

ATTRIBUTES = ("gc_threshold", "gc_freeze", "gc_interval")
WORKER_DEFAULTS = {"gc_threshold": "50000 20 50", "gc_freeze": "1"}
"""The default young generation of 700 objects makes the collector run thousands of times a second under load."""


class Collector:
    """The collector of this process.

    `gc_threshold`: three numbers, as for `gc.set_threshold`; `gc_freeze` 1: what is there once everything has
    started is never looked at again; `gc_interval` ms: collect then, and never in between (0: by the thresholds).
    """

    def __init__(self, wishes: Mapping[str, str], target: str, defaults: Mapping[str, str] | None = None) -> None:
        """Set the thresholds.

        Args:
            wishes: what the profile wants.
            target: the process, for the effects.
            defaults: what counts where the profile says nothing.
        """
        self._wishes, self._target = wishes, target
        self._wanted = wanted = {**(defaults or {}), **wishes}
        self._failures: dict[str, Effect] = {}
        self._interval = 0.0
        try:
            if "gc_threshold" in wanted:
                gc.set_threshold(*map(int, wanted["gc_threshold"].split()))
        except (TypeError, ValueError):
            self._failures["gc_threshold"] = Effect(
                kind="process", name="gc_threshold", target=target, wanted=wanted["gc_threshold"],
                state="unsupported", reason="must be one to three numbers, as for gc.set_threshold",
            )  # fmt: skip

    def settle(self) -> None:
        """Take over once everything has started."""
        if self._wanted.get("gc_freeze") == "1":
            gc.collect()
            gc.freeze()
        self._interval = int(self._wanted.get("gc_interval") or 0) / 1000
        if self._interval:
            gc.disable()

    async def collect(self) -> None:
        """Collect at the interval, for ever; at once come to an end where there is none."""
        while self._interval:
            await asyncio.sleep(self._interval)
            gc.collect()

    def effects(self) -> list[Effect]:
        """Tell what is in force now."""
        got = {
            "gc_threshold": " ".join(map(str, gc.get_threshold())),
            "gc_freeze": "1" if gc.get_freeze_count() else "0",
            "gc_interval": f"{0 if gc.isenabled() else self._interval * 1000:.0f}",
        }
        return [
            outcome("process", name, self._target, self._wishes, value, self._failures.get(name), os.getpid())
            for name, value in got.items()
        ]
