"""What a generator process is told, and what it says: JSON lines on its stdin and stdout."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from tvops.bench.result import Operation
from tvops.bench.schedule import Phase, Rate

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The load at one door."""

    door: str
    rate: Rate | None = None  # per second, over the whole time
    phases: tuple[Phase, ...] = ()  # rates over time, in place of `rate`
    arrivals: Literal["constant", "poisson"] = "constant"
    closed: bool = False  # the next request goes out when an answer is there: capacity, not latency
    timeout: Annotated[float, msgspec.Meta(ge=0.05, le=120)] = 5.0  # s; what takes longer counts as this
    processes: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1
    options: dict[str, Any] = {}  # of the door


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one generator process needs."""

    load: Load
    url: str
    phases: tuple[Phase, ...]  # warm-up included; empty: the door has no schedule, or the loop is closed
    warm_up: float
    seconds: float  # measured
    seed: int
    share: float = 0.0  # of an interval, after which even arrivals begin
    core: int | None  # to stand on
    clean_up: bool  # leave nothing behind; not needed in a stack that ends anyway
    most: int = 0  # requests of a closed loop, warm-up apart; 0: as many as the time allows


class Start(msgspec.Struct, frozen=True, tag=True):
    """Go, at a time of the monotonic clock."""

    at: int  # ns


class Traces(msgspec.Struct, frozen=True):
    """What a load leaves in a stack: so many things, and in words what they are and where."""

    count: int
    what: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The door is open."""

    detail: str = ""
    traces: Traces | None = None  # that may stay where the process ends before it can take them back


class Progress(msgspec.Struct, frozen=True, tag=True):
    """So far; once a second."""

    sent: int
    answered: int
    failed: int


class Finished(msgspec.Struct, frozen=True, tag=True):
    """What came of it."""

    operations: tuple[Operation, ...]
    end: int  # of what was measured, ns of the monotonic clock
    cpu_seconds: float
    detail: str = ""
    left: Traces | None = None  # that could not be taken back


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Why there is nothing."""

    message: str
    usage: bool = False  # the user has to change something


Said = Ready | Progress | Finished | Failed
