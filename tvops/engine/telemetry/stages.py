"""The stages of the path in one process: their names, what they span, and their recorders."""

from __future__ import annotations

from typing import Final

from tvops.engine.telemetry.document import Stage
from tvops.engine.telemetry.recorder import Recorder

ROUND_TRIP: Final = "redis_round_trip_"

STAGES: Final = {
    "feed_to_publish": "batch of the feed received → given to the market stream, with the wait for its turn",
    "publish_to_send": "given to the market stream → handed to the last session's socket",
    "gateway_to_durable": "command received → on the ledger's disk",
    "durable_to_matched": "on the ledger's disk → matched",
    "submit_to_reply": "command given to the sequencer → durable and matched, its events here",
    "gateway_to_reply": "command received → reply written",
    "state_sync": "changed orders and positions taken → all written to the market server",
    "history_load": "subscription or resumption received → state and history handed to the socket",
    "process_pause": "a wake-up of the process due, one each millisecond → it ran; below 3.5 ms counts as 0",
    "loop_lag": "a timer of the event loop due → called",
    "gc_pause": "garbage collection begun → ended",
    **{
        f"{ROUND_TRIP}{role}": f"PING sent to the {role} server → answered"
        for role in ("ledger", "market", "results")
    },
}
"""Every stage by name; a process has those of the services that it hosts."""


class Stages:
    """The recorders of a process by the name of their stage."""

    def __init__(self) -> None:
        self._recorders: dict[str, Recorder] = {}

    def add(self, name: str) -> Recorder:
        """Give the recorder of the stage ``name``, one of `STAGES`; a second call gives the same."""
        return self._recorders.get(name) or self.adopt(name, Recorder())

    def adopt(self, name: str, recorder: Recorder) -> Recorder:
        """Have the stage ``name`` told by a recorder that there is."""
        if name not in STAGES:
            raise KeyError(name)
        self._recorders[name] = recorder
        return recorder

    def get(self, name: str) -> Recorder | None:
        """Give the recorder of a stage; None where this process does not have that stage."""
        return self._recorders.get(name)

    def packed(self) -> dict[str, Stage]:
        """Give every stage as it travels, in the order of the path."""
        return {
            name: Stage(text, self._recorders[name].packed())
            for name, text in STAGES.items()
            if name in self._recorders
        }
