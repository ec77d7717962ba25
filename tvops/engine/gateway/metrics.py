"""Figures of the gateway for Prometheus. The names that operators know from other stacks are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from tvops.engine.telemetry.latency import LatencyHistogram

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

    def __init__(self, stats: Mapping[str, float | int | str], latencies: Mapping[str, LatencyHistogram]) -> None:
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
        for stage, histogram in self._latencies.items():
            family.add_metric([stage], *_buckets(histogram))
        yield family


def render_metrics(stats: Mapping[str, float | int | str], latencies: Mapping[str, LatencyHistogram]) -> bytes:
    """Give the body of `/metrics`."""
    registry = CollectorRegistry()
    registry.register(_Shown(stats, latencies))
    return generate_latest(registry)


def _buckets(histogram: LatencyHistogram) -> tuple[list[tuple[str, float]], float]:
    """Give cumulated counts at `_BOUNDS`, and the sum in seconds (exact within a bucket's width)."""
    counts = [0] * len(_BOUNDS)
    total = 0.0
    for upper, count in histogram.buckets():
        seconds = upper / 1e9
        total += seconds * count
        for index, bound in enumerate(_BOUNDS):
            if seconds <= bound:
                counts[index] += count
    rows = [(f"{bound:g}", float(count)) for bound, count in zip(_BOUNDS, counts, strict=True)]
    return [*rows, ("+Inf", float(histogram.count))], total
