"""Latencies as Prometheus has them: cumulated counts at a few bounds, in seconds."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.metrics_core import HistogramMetricFamily

from tvops.engine.telemetry.histogram import Counts, reached, sum_of


def add_latencies(
    family: HistogramMetricFamily, labels: Sequence[str], counts: Counts, bounds: Sequence[float]
) -> None:
    """Add a histogram with ``bounds`` (seconds, ascending) to a family."""
    below = reached(counts, [round(bound * 1e9) for bound in bounds])
    rows = [(str(float(bound)), float(count)) for bound, count in zip(bounds, below, strict=True)]
    family.add_metric(list(labels), [*rows, ("+Inf", float(counts.sum()))], sum_of(counts) / 1e9)
