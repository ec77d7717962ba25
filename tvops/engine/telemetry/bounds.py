"""What a telemetry document may hold, as types: whoever decodes one refuses the rest at no cost of its own.

A document may come from a stranger or from a damaged file. NaN, infinities, whole numbers of four hundred digits
and lists without end are no telemetry, and break whoever adds, plots or shows them.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

MOST_STAGES: Final = 256
MOST_METRICS: Final = 256
MOST_SERVICES: Final = 64
MOST_FIGURES: Final = 1024
"""Figures of one service."""
LONGEST_UNIT: Final = 10
"""In letters: each row of a table is as wide as the longest of its column."""
MOST_ROWS: Final = 4096
"""Cores, processes, sessions, knobs, events, …"""

Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Number = Annotated[float, Meta(ge=-(2.0**63), le=2.0**63)]
"""Neither NaN nor infinite: both fail a comparison."""

Rows = Meta(max_length=MOST_ROWS)
