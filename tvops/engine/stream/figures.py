"""Figures of the service over time, and how Prometheus reads them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from tvops.engine.telemetry.histogram import Counts
from tvops.engine.telemetry.prometheus import add_latencies
from tvops.engine.telemetry.recorder import Recorder, Window

_BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COUNTERS = {
    "total_messages": ("records", "Records taken off the market stream."),
    "batches_sent": ("batches", "Times that something went out to sessions."),
    "messages_sent": ("messages", "WebSocket messages handed to sockets."),
    "clients_dropped": ("dropped_sessions", "Sessions closed for being too slow."),
    "conflations": ("conflations", "Times that a session had too many unsent bytes and was passed over."),
    "sessions_refused": ("refused_connections", "Connections refused for want of room."),
    "gaps": ("gaps", "Times that market data was lost before it was read."),
    "damaged_entries": ("damaged_entries", "Entries of the market stream that could not be read."),
}
_GAUGES = {
    "active_connections": ("sessions", "WebSocket sessions."),
    "ticks_per_s": ("ticks_per_second", "Ticks per second off the market stream."),
    "unsent_bytes": ("unsent_bytes", "Bytes that wait for slow sessions."),
}


class _Shown:
    """Shows the figures of one moment to Prometheus."""

    def __init__(self, stats: Mapping[str, float | int | str], latencies: Counts) -> None:
        self._stats = stats
        self._latencies = latencies

    def collect(self) -> Iterator[Metric]:
        """Give every figure as a metric."""
        for name, (metric, text) in _COUNTERS.items():
            yield CounterMetricFamily(f"tvops_stream_{metric}", text, value=float(self._stats[name]))
        for name, (metric, text) in _GAUGES.items():
            yield GaugeMetricFamily(f"tvops_stream_{metric}", text, value=float(self._stats[name]))
        family = HistogramMetricFamily(
            "tvops_stream_latency_seconds",
            "Publication by the price service to hand-over to the last session's socket.",
        )
        add_latencies(family, [], self._latencies, _BOUNDS)
        yield family


class Figures:
    """Counts what goes out and how long it took since it was published."""

    def __init__(self) -> None:
        self.batches = self.batched = self.pending = 0
        self.ticks_per_second = 0.0
        self._started_us = time.time_ns() // 1000
        self.latencies = Recorder()  # publication to hand-over to the last session's socket
        self.latency = Window(self.latencies)  # the same, of late
        self._ticks, self._ticked = 0, time.monotonic()

    def sent(self, records: int, published: list[int]) -> None:
        """Count a batch of ``records`` whose entries were published at those times (µs since the epoch)."""
        self.batches += 1
        self.batched += records
        now = time.time_ns()
        for major in published:
            # what is older than the service was read from the past
            if major >= self._started_us:
                self.latencies.record(now - 1000 * major)

    def tick(self, ticks: int, now: float) -> None:
        """Note the count of ticks at the time ``now``."""
        self.ticks_per_second = (ticks - self._ticks) / max(now - self._ticked, 1e-3)
        self._ticks, self._ticked = ticks, now

    def rotate(self) -> None:
        """Begin a new window."""
        self.latency.rotate()

    def metrics(self, stats: Mapping[str, float | int | str]) -> bytes:
        """Give the body of `/metrics`."""
        registry = CollectorRegistry()
        registry.register(_Shown(stats, self.latencies.counts()))
        return generate_latest(registry)
