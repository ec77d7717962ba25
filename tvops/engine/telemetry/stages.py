"""The stages of the path in one process: their names, what they span, and their recorders."""

from __future__ import annotations

from tvops.engine.telemetry.document import Stage


class Stages:
    """The recorders of a process by the name of their stage, in the order in which they were added."""

    def packed(self) -> dict[str, Stage]:
        """Give every stage as it travels."""
        return {}
