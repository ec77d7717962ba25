"""The telemetry of one process of the stack: what `/telemetry` gives, and `tvops top`, `slo` and `bench` read.

Everything counts from the start of the process, so that a reader who missed a while misses nothing: what happened
in between is the difference of two documents. MessagePack for readers of ours, JSON for people.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tvops.engine.knob_table import Knob as Knob
from tvops.engine.telemetry.histogram import Histogram

SCHEMA = 1
MetricState = Literal["ok", "warn", "breach", "no data"]


class Stage(msgspec.Struct, frozen=True):
    """Latencies of one stage of the path, in ns."""

    text: str  # "request received → reply written"
    histogram: Histogram


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One of the operators' metrics against its target."""

    name: str  # tv_order_execution_latency, …
    text: str
    unit: str  # ms, MB, %, 1/s, sessions, s
    value: float | None  # of the window; None: no data
    target: float
    limit: float  # above it is a breach
    state: MetricState
    since: int  # when it came into this state, ns since 1970
    samples: int = 0  # in the window, of latencies
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    maximum: float | None = None
    detail: str = ""  # why there are no data


class Event(msgspec.Struct, frozen=True):
    """Something that an operator wants to know of."""

    seq: int  # counts up within a process
    time: int  # ns since 1970
    severity: Literal["info", "warn", "breach"]
    about: str  # a metric, a process, a role
    text: str


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the stack."""

    name: str  # supervisor, engine, market, ledger server, …
    pid: int
    started: int  # ns since 1970
    cpu_percent: float  # of one core, over the last second
    rss: int  # bytes
    pss: int  # bytes, shared pages counted once; 0: not known
    threads: int
    descriptors: int
    voluntary_switches: int  # since its start
    involuntary_switches: int
    major_faults: int
    budget: int = 0  # bytes that it should stay within; 0: none
    slope: float | None = None  # bytes per second that it grows by; None: not known yet
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

    cores: tuple[float, ...]  # busy percent of each, over the last second
    steal_percent: float
    load: float  # of one minute
    memory: int  # bytes in all (of the cgroup where that is less)
    available: int
    udp_drops: int  # since boot
    listen_drops: int
    socket_queues: int | None  # bytes that wait in the sockets of the stack's ports; None: not known


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The Valkey or Redis server of a role."""

    role: str
    address: str  # without secrets
    up: bool
    told: bool = True  # False: it refused INFO, and what comes from that is not known
    used: int = 0  # bytes
    limit: int = 0  # bytes; 0: none
    policy: str = ""
    evicted: int = 0
    expired: int = 0
    clients: int = 0
    commands: int = 0  # per second
    uptime: int = 0  # s
    latency: tuple[tuple[str, int, int], ...] = ()  # LATENCY LATEST: event, latest ms, worst ms
    latency_threshold: int | None = None  # ms from which on events are kept; 0: they are not; None: not known
    slow: tuple[tuple[int, int, str], ...] = ()  # SLOWLOG: time (s), us, command without its values


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One session of a client."""

    id: int
    peer: str
    account: str = ""
    seconds: float = 0.0
    subscriptions: int = 0
    messages: int = 0
    unsent: int = 0  # bytes
    conflations: int = 0  # in a row
    slow: bool = False


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """One process at one moment."""

    schema: int = SCHEMA
    process: str  # engine, market
    version: str
    pid: int
    started: int  # ns since 1970
    time: int  # ns since 1970
    health: dict[str, tuple[str, str]]  # service -> state, detail
    stats: dict[str, dict[str, float | int | str]]  # service -> the figures of /stats
    stages: dict[str, Stage]
    metrics: tuple[Metric, ...]
    events: tuple[Event, ...]  # the newest, oldest first
    processes: tuple[Process, ...] = ()  # in the document of the process that watches the others
    host: HostLoad | None = None
    servers: tuple[Server, ...] = ()
    sessions: tuple[Session, ...] = ()  # the slowest first, at most 1,000
    profile: str = ""
    knobs_in_force: int = 0
    knobs_left: int = 0
    knobs: tuple[Knob, ...] = ()  # of the profile, as they were when last looked at; those that drifted come first
    knobs_seconds: float = 0.0  # between two looks at them
