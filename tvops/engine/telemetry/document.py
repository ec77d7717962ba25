"""The telemetry of one process of the stack: what `/telemetry` gives, and `tvops top`, `slo` and `bench` read.

Everything counts from the start of the process, so that a reader who missed a while misses nothing: what happened
in between is the difference of two documents. MessagePack for readers of ours, JSON for people.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tvops.engine.knob_table import Knob as Knob
from tvops.engine.telemetry.bounds import (
    LONGEST_UNIT,
    MOST_FIGURES,
    MOST_METRICS,
    MOST_SERVICES,
    MOST_STAGES,
    Number,
    Rows,
    Whole,
)
from tvops.engine.telemetry.histogram import Histogram

SCHEMA = 1
Services = Meta(max_length=MOST_SERVICES)
Figures = Annotated[dict[str, Number | Whole | str], Meta(max_length=MOST_FIGURES)]
MetricState = Literal["ok", "warn", "breach", "no data"]


class Stage(msgspec.Struct, frozen=True):
    """Latencies of one stage of the path, in ns."""

    text: str  # "request received → reply written"
    histogram: Histogram


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One of the operators' metrics against its target."""

    name: str  # tv_order_execution_latency, …
    text: str
    unit: Annotated[str, Meta(max_length=LONGEST_UNIT)]  # ms, MB, %, 1/s, sessions, s
    value: Number | None  # of the window; None: no data
    target: Number
    limit: Number  # above it is a breach
    state: MetricState
    since: Whole  # when it came into this state, ns since 1970
    samples: Whole = 0  # in the window, of latencies
    p50: Number | None = None
    p99: Number | None = None
    p999: Number | None = None
    maximum: Number | None = None
    detail: str = ""  # why there are no data


class Event(msgspec.Struct, frozen=True):
    """Something that an operator wants to know of."""

    seq: Whole  # counts up within a process
    time: Whole  # ns since 1970
    severity: Literal["info", "warn", "breach"]
    about: str  # a metric, a process, a role
    text: str


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the stack."""

    name: str  # supervisor, engine, market, ledger server, …
    pid: Whole
    started: Whole  # ns since 1970
    cpu_percent: Number  # of one core, over the last second
    rss: Whole  # bytes
    pss: Whole  # bytes, shared pages counted once; 0: not known
    threads: Whole
    descriptors: Whole
    voluntary_switches: Whole  # since its start
    involuntary_switches: Whole
    major_faults: Whole
    budget: Whole = 0  # bytes that it should stay within; 0: none
    slope: Number | None = None  # bytes per second that it grows by; None: not known yet
    leaking: bool = False

    @property
    def memory(self) -> int:
        """Bytes that a budget is of: PSS where it is known, else RSS."""
        return self.pss or self.rss

    @property
    def over_budget(self) -> bool:
        """Whether it takes more than it should."""
        return 0 < self.budget < self.memory


class HostLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The machine."""

    cores: Annotated[tuple[Number, ...], Rows]  # busy percent of each, over the last second
    steal_percent: Number
    load: Number  # of one minute
    memory: Whole  # bytes in all (of the cgroup where that is less)
    available: Whole
    udp_drops: Whole  # since boot
    listen_drops: Whole
    socket_queues: Whole | None  # bytes that wait in the sockets of the stack's ports; None: not known


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The Valkey or Redis server of a role."""

    role: str
    address: str  # without secrets
    up: bool
    told: bool = True  # False: it refused INFO, and what comes from that is not known
    used: Whole = 0  # bytes
    limit: Whole = 0  # bytes; 0: none
    policy: str = ""
    evicted: Whole = 0
    expired: Whole = 0
    clients: Whole = 0
    commands: Whole = 0  # per second
    uptime: Whole = 0  # s
    # LATENCY LATEST: event, latest ms, worst ms
    latency: Annotated[tuple[tuple[str, Whole, Whole], ...], Rows] = ()
    latency_threshold: Whole | None = None  # ms from which on events are kept; 0: they are not; None: not known
    # SLOWLOG: time (s), us, command without its values
    slow: Annotated[tuple[tuple[Whole, Whole, str], ...], Rows] = ()


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One session of a client."""

    id: Whole
    peer: str
    account: str = ""
    seconds: Number = 0.0
    subscriptions: Whole = 0
    messages: Whole = 0
    unsent: Whole = 0  # bytes
    conflations: Whole = 0  # in a row
    slow: bool = False


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """One process at one moment."""

    schema: Whole = SCHEMA
    process: str  # engine, market
    version: str
    pid: Whole
    started: Whole  # ns since 1970
    time: Whole  # ns since 1970
    health: Annotated[dict[str, tuple[str, str]], Services]  # service -> state, detail
    stats: Annotated[dict[str, Figures], Services]  # service -> the figures of /stats
    stages: Annotated[dict[str, Stage], Meta(max_length=MOST_STAGES)]
    metrics: Annotated[tuple[Metric, ...], Meta(max_length=MOST_METRICS)]
    events: Annotated[tuple[Event, ...], Rows]  # the newest, oldest first
    processes: Annotated[tuple[Process, ...], Rows] = ()  # in the document of the process that watches the others
    host: HostLoad | None = None
    servers: Annotated[tuple[Server, ...], Rows] = ()
    sessions: Annotated[tuple[Session, ...], Rows] = ()  # the slowest first, at most 1,000
    profile: str = ""
    knobs_in_force: Whole = 0
    knobs_left: Whole = 0
    # of the profile, as they were when last looked at; those that drifted come first
    knobs: Annotated[tuple[Knob, ...], Rows] = ()
    knobs_seconds: Number = 0.0  # between two looks at them
