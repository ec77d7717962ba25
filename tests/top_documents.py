"""Made-up telemetry for tests of `tvops top`: a stack of two ports whose every figure is known."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvops.engine.telemetry.document import (
    Event,
    HostLoad,
    Knob,
    Metric,
    Process,
    Server,
    Session,
    Stage,
    Telemetry,
)
from tvops.engine.telemetry.histogram import Counts, Histogram, bucket_of, empty, pack
from tvops.telemetry_client import Reading
from tvops.top.addresses import Stack
from tvops.top.model import Model

BEGIN = 1_790_000_000_000_000_000
SECOND = 1_000_000_000
GATEWAY, MARKET = "http://127.0.0.1:8000", "http://127.0.0.1:8001"
STACK = Stack("127.0.0.1:8000,8001", (GATEWAY, MARKET))


def counts_of(samples: Sequence[int]) -> Counts:
    counts = empty()
    for sample in samples:
        counts[bucket_of(int(sample))] += 1
    return counts


class Samples:
    """The samples of a stage: all of them as counts, the last ones as they are."""

    def __init__(self) -> None:
        self.counts, self.recent, self.maximum = empty(), list[int](), 0

    def add(self, more: tuple[int, ...], counts: Counts) -> None:
        self.counts += counts
        self.recent = [*self.recent, *more][-9000:]
        self.maximum = max([self.maximum, *more])

    def packed(self) -> Histogram:
        return pack(self.counts, self.maximum)


def histogram_of(samples: Sequence[int]) -> Histogram:
    return pack(counts_of(samples), max(samples, default=0))


def metric(
    name: str, unit: str, value: float | None, target: float, limit: float, state: str = "ok", **more: Any
) -> Metric:
    return Metric(
        name=name, text=name, unit=unit, value=value, target=target, limit=limit, state=state, since=BEGIN, **more
    )  # type: ignore[arg-type]


def latencies(seed: int, count: int, middle: float, spread: float = 0.45) -> list[int]:
    """Give ``count`` latencies around ``middle`` ns, always the same for the same seed."""
    return [int(value) for value in np.random.default_rng(seed).lognormal(np.log(middle), spread, count)]


@functools.cache
def counted(seed: int, count: int, middle: float, spread: float = 0.45) -> tuple[tuple[int, ...], Counts]:
    """Give `latencies` and their counts; most tests begin with the same seconds, so those are kept."""
    samples = latencies(seed, count, middle, spread)
    return tuple(samples), counts_of(samples)


def knobs_at(time: int) -> tuple[Knob, ...]:
    """Give the knobs of a tuned host on which somebody has been: two have drifted."""
    looked = time - (time - BEGIN) % (30 * SECOND)

    def row(kind: str, knob: str, places: str, wanted: str, now: str | None, state: str, **more: Any) -> Knob:
        fields = {"since": BEGIN - 2400 * SECOND, "looked": looked, **more}
        return Knob(
            kind=kind, knob=knob, places=tuple(places.split()), wanted=wanted, now=now, state=state, **fields
        )  # type: ignore[arg-type]

    cpus = " ".join(f"cpu{number}" for number in range(16))
    return (
        row("sysctl", "net.core.somaxconn", "", ">=4096", "128", "drifted", since=BEGIN - 95 * SECOND,
            reason="/etc/sysctl.d/90-web.conf:3 sets it to 128"),
        row("process", "process.nice", "engine", "-5", "5", "drifted", since=BEGIN - 20 * SECOND),
        row("sysctl", "net.ipv4.tcp_wmem", "", "- - >=16777216", "4096 16384 4194304", "differs"),
        row("sysctl", "vm.swappiness", "", "<=10", "60", "differs"),
        row("file", "vm.thp.khugepaged_defrag", "", "0", "1", "differs"),
        row("process", "process.oom_score_adj", "supervisor redis engine market", "-500", "0", "not here",
            reason="Permission denied; needs CAP_SYS_RESOURCE"),
        row("socket", "socket.rcvbuf", "feed", "8388608", None, "not here", reason="no feed has a socket"),
        row("process", "process.timer_slack_ns", "supervisor redis engine market", "1000", "1000", "in force"),
        row("process", "process.gc_threshold", "engine market", "50000 20 50", "50000 20 50", "in force",
            told=True, looked=BEGIN - 2400 * SECOND),
        row("process", "process.nice", "redis market", "-5", "-5", "in force"),
        row("held", "cpu.dma_latency", "supervisor", "30", "30", "in force"),
        row("redis", "redis.maxmemory", "ledger", "134217728", "134217728", "in force"),
        row("redis", "redis.maxmemory-policy", "results", "volatile-lru", "volatile-lru", "in force",
            looked=BEGIN - 300 * SECOND),
        row("redis", "redis.client-output-buffer-limit.pubsub", "ledger market results", "268435456 67108864 60",
            "268435456 67108864 60", "in force"),
        row("redis", "redis.appendfsync", "ledger", "always", "always", "in force"),
        row("socket", "socket.tcp_user_timeout_ms", "gateway stream", "10000", "10000", "in force", told=True,
            looked=BEGIN - 2400 * SECOND),
        row("file", "cpu.scaling_governor", cpus, "performance", "performance", "in force"),
        row("nic", "nic.feature.gro", "eth0", "on", "on", "in force"),
        row("sysctl", "net.core.busy_read", "", "0", "0", "in force"),
        row("file", "vm.thp.enabled", "", "madvise", "madvise", "in force"),
    )  # fmt: skip


class Engine:
    """The engine's process, second by second."""

    def __init__(self, started: int = BEGIN, pid: int = 4101, per_second: int = 400) -> None:
        self.started, self.pid, self.per_second = started, pid, per_second
        self._samples = {
            name: Samples()
            for name in (
                "gateway_to_durable",
                "durable_to_matched",
                "gateway_to_reply",
                "state_sync",
                "loop_lag",
                "redis_round_trip_ledger",
            )
        }
        self._second = 0

    def document(self, time: int) -> Telemetry:
        self._second += 1
        middles = {
            "gateway_to_durable": 1.9e6,
            "durable_to_matched": 0.16e6,
            "gateway_to_reply": 2.4e6,
            "state_sync": 3.1e6,
            "loop_lag": 0.08e6,
            "redis_round_trip_ledger": 0.21e6,
        }
        for index, (name, middle) in enumerate(middles.items()):
            count = self.per_second // 50 if name == "state_sync" else self.per_second
            self._samples[name].add(*counted(1000 * index + self._second, count, middle))
        reply = self._samples["gateway_to_reply"].recent[-10 * self.per_second :]
        p50, p99, p999 = (float(np.percentile(reply, percent)) / 1e6 for percent in (50, 99, 99.9))
        orders = self._second * self.per_second
        return Telemetry(
            process="engine",
            version="0.4.0",
            pid=self.pid,
            started=self.started,
            time=time,
            health={
                "gateway": ("ok", ""),
                "engine": ("ok", ""),
                "ledger server": ("ok", ""),
                "results server": ("degraded", "answers slowly"),
            },
            stats={
                "gateway": {
                    "orders_total": orders,
                    "orders_per_s": float(self.per_second),
                    "waiting": 3,
                    "timeouts_total": 0,
                    "sessions": 12,
                    "requests_total": orders + 40,
                },
                "engine": {
                    "commands": orders * 3,
                    "commands_per_second": self.per_second * 3.0,
                    "events": orders * 4,
                    "pending": 2,
                    "live_orders": 412,
                },
            },
            stages={
                name: Stage(name.replace("_to_", " → ").replace("_", " "), samples.packed())
                for name, samples in self._samples.items()
            },
            metrics=(
                metric(
                    "tv_order_execution_latency",
                    "ms",
                    round(p99, 3),
                    20,
                    25,
                    samples=10 * self.per_second,
                    p50=round(p50, 3),
                    p99=round(p99, 3),
                    p999=round(p999, 3),
                    maximum=round(max(reply) / 1e6, 3),
                ),
                metric(
                    "tv_order_state_sync_latency",
                    "ms",
                    7.84,
                    5,
                    10,
                    "warn",
                    samples=480,
                    p50=3.12,
                    p99=7.84,
                    maximum=8.13,
                ),
                metric("tv_max_orders_per_sec", "1/s", float(self.per_second), 1000, 1500),
                metric("tv_memory", "MB", 561.2, 512, 512, "breach"),
                metric("tv_cpu", "%", 11.8, 25, 25),
                metric("tv_redis_memory", "%", 41.3, 70, 70),
                metric("tv_uptime", "s", (time - self.started) / 1e9, 0, 0),
                metric("tv_recovery_time", "s", None, 5, 10, "no data", detail="nothing was recovered"),
            ),
            events=(
                Event(0, BEGIN + SECOND, "info", "engine", "started"),
                Event(1, BEGIN + 9 * SECOND, "breach", "tv_memory", "561 MB, limit 512 MB for 5 s"),
                Event(
                    2,
                    BEGIN + 12 * SECOND,
                    "warn",
                    "tv_order_state_sync_latency",
                    "p99 7.84 ms, target 5 ms for 5 s",
                ),
            ),
            processes=(
                Process(
                    name="engine",
                    pid=self.pid,
                    started=self.started,
                    cpu_percent=11.8,
                    rss=188 << 20,
                    pss=171 << 20,
                    threads=9,
                    descriptors=61,
                    voluntary_switches=90_000,
                    involuntary_switches=1_204,
                    major_faults=0,
                    budget=256 << 20,
                    slope=12.0,
                ),
                Process(
                    name="market",
                    pid=4102,
                    started=self.started,
                    cpu_percent=8.1,
                    rss=183 << 20,
                    pss=166 << 20,
                    threads=8,
                    descriptors=540,
                    voluntary_switches=70_000,
                    involuntary_switches=804,
                    major_faults=0,
                    budget=256 << 20,
                    slope=2800.0,
                    leaking=True,
                ),
                Process(
                    name="ledger server",
                    pid=4105,
                    started=self.started,
                    cpu_percent=3.2,
                    rss=31 << 20,
                    pss=0,
                    threads=6,
                    descriptors=22,
                    voluntary_switches=9_000,
                    involuntary_switches=99,
                    major_faults=0,
                ),
            ),
            host=HostLoad(
                cores=(31.0, 12.5),
                steal_percent=0.3,
                load=0.82,
                memory=8 << 30,
                available=5 << 30,
                udp_drops=0,
                listen_drops=0,
                socket_queues=4096,
            ),
            servers=(
                Server(
                    role="ledger",
                    address="unix ledger.sock",
                    up=True,
                    used=52 << 20,
                    limit=128 << 20,
                    policy="noeviction",
                    clients=6,
                    commands=2210,
                    uptime=4000,
                    latency=(("aof-fsync-always", 12, 31), ("command", 4, 11)),
                    slow=((BEGIN // SECOND - 40, 12_400, "XADD orders * …"),),
                ),
                Server(
                    role="market",
                    address="unix market.sock",
                    up=True,
                    used=26 << 20,
                    limit=32 << 20,
                    policy="allkeys-lru",
                    evicted=18,
                    clients=9,
                    commands=5400,
                    uptime=4000,
                ),
                Server(role="results", address="10.0.0.9:6379", up=False, limit=24 << 20),
            ),
            profile="prod",
            knobs_in_force=41,
            knobs_left=3,
            knobs=knobs_at(time),
            knobs_seconds=30.0,
        )


class Market:
    """The market data process, second by second."""

    def __init__(self, started: int = BEGIN, pid: int = 4102, sessions: int = 40) -> None:
        self.started, self.pid, self.sessions = started, pid, sessions
        self._samples = Samples()
        self._second = 0

    def document(self, time: int) -> Telemetry:
        self._second += 1
        self._samples.add(*counted(self._second, 900, 0.9e6, 0.6))
        recent = self._samples.recent
        p50, p99, p999 = (round(float(np.percentile(recent, percent)) / 1e6, 3) for percent in (50, 99, 99.9))
        rate = 9_600.0 + 300 * (self._second % 5)
        return Telemetry(
            process="market",
            version="0.4.0",
            pid=self.pid,
            started=self.started,
            time=time,
            health={"price": ("ok", "simulated market: live"), "stream": ("ok", "")},
            stats={
                "price": {},
                "stream": {
                    "active_connections": self.sessions,
                    "messages_sent": self._second * 38_000,
                    "ticks_per_s": rate,
                    "conflations": 4,
                    "clients_dropped": 1,
                    "unsent_bytes": 18_432,
                    "gaps": 0,
                },
            },
            stages={
                "publish_to_send": Stage("published → sent to sessions", self._samples.packed()),
                "history_load": Stage("history asked for → sent", histogram_of([])),
            },
            metrics=(
                metric(
                    "tv_tick_stream_latency",
                    "ms",
                    p99,
                    10,
                    15,
                    samples=9000,
                    p50=p50,
                    p99=p99,
                    p999=p999,
                    maximum=round(max(recent) / 1e6, 3),
                ),
                metric("tv_historical_data_load_time", "ms", None, 500, 1000, "no data", detail="nobody asked"),
                metric("tv_max_concurrent_sessions", "sessions", float(self.sessions), 500, 1000),
                metric("tv_max_ticks_per_sec", "1/s", rate, 10_000, 15_000),
            ),
            events=(Event(0, BEGIN + 4 * SECOND, "warn", "session 7", "dropped: 10 conflations in a row"),),
            sessions=tuple(
                Session(
                    id=number,
                    peer=f"10.1.0.{number}:5{number:04}",
                    account=f"desk-{number % 4}",
                    seconds=60.0 * number,
                    subscriptions=1 + number % 7,
                    messages=1000 * number,
                    unsent=4096 if number % 13 == 3 else 0,
                    conflations=number % 13 if number % 13 > 9 else 0,
                    slow=number % 13 == 12,
                )
                for number in range(1, self.sessions + 1)
            ),
            profile="prod",
            knobs_in_force=41,
        )


@functools.cache
def readings_of(seconds: int) -> tuple[Reading, ...]:
    """Give what both ports tell in so many seconds, once in each; what does not change is kept."""
    engine, market, readings = Engine(), Market(), list[Reading]()
    for second in range(1, seconds + 1):
        for url, process in ((GATEWAY, engine), (MARKET, market)):
            document = process.document(BEGIN + second * SECOND)
            readings.append(Reading(url, document, "", second * SECOND, True))
    return tuple(readings)


def model_after(seconds: int = 30, stacks: tuple[Stack, ...] = (STACK,)) -> tuple[Model, int]:
    """Give a model that has watched for so long, and the monotonic time that it is then."""
    model = Model(stacks)
    for reading in readings_of(seconds):
        model.take(reading)
    return model, seconds * SECOND
