"""Figures of the gateway for Prometheus. The names that operators know from other stacks are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from tvops.engine.telemetry.prometheus import add_latencies
from tvops.engine.telemetry.recorder import Recorder

_BOUNDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_COUNTERS = {
    "orders_total": ("tvops_gateway_orders", "New orders answered."),
    "requests_total": ("tvops_gateway_requests", "HTTP requests answered."),
    "timeouts_total": ("tvops_gateway_timeouts", "Commands that were not answered in time."),
    "sessions_dropped": ("tvops_gateway_dropped_sessions", "Sessions closed for not reading."),
}
_GAUGES = {
    "sessions": ("tvops_gateway_sessions", "WebSocket sessions."),
    "connections": ("tvops_gateway_connections", "HTTP connections."),
    "waiting": ("tvops_gateway_waiting", "Commands that wait for their answer."),
    "memory_mb": ("tvops_gateway_memory_mb", "Resident memory of the process in MiB."),
    "orders_per_s": ("tvops_gateway_orders_per_second", "New orders per second, over the last second."),
    "most_orders_per_s": ("tv_max_orders_per_sec", "Most new orders in one second since the start."),
    "most_sessions": ("tv_max_concurrent_sessions", "Most WebSocket sessions at a time since the start."),
}


class _Shown:
    """Shows the figures of one moment to Prometheus."""

    def __init__(self, stats: Mapping[str, float | int | str], latencies: Mapping[str, Recorder]) -> None:
        self._stats = stats
        self._latencies = latencies

    def collect(self) -> Iterator[Metric]:
        """Give every figure as a metric."""
        for name, (metric, text) in _COUNTERS.items():
            yield CounterMetricFamily(metric, text, value=float(self._stats[name]))
        for name, (metric, text) in _GAUGES.items():
            yield GaugeMetricFamily(metric, text, value=float(self._stats[name]))
        family = HistogramMetricFamily(
            "tv_order_execution_latency", "Seconds from the receipt of a command to its reply.", labels=["stage"]
        )
        for stage, recorder in self._latencies.items():
            add_latencies(family, [stage], recorder.counts(), _BOUNDS)
        yield family


def render_metrics(stats: Mapping[str, float | int | str], latencies: Mapping[str, Recorder]) -> bytes:
    """Give the body of `/metrics`."""
    registry = CollectorRegistry()
    registry.register(_Shown(stats, latencies))
    return generate_latest(registry)
