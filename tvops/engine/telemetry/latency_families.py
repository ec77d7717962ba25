"""Latencies as histograms of Prometheus: the thousands of buckets of a stage in some twenty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final

import numpy as np
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.samples import Sample

from tvops.engine.telemetry.document import Stage
from tvops.engine.telemetry.histogram import HIGHEST_OF, MIDDLE_OF

BOUNDS: Final = (
    0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 5.0,
)  # fmt: skip
"""Upper bounds of the buckets of every latency, s; the limits of the targets that ship are among them."""

_LE = [*map(str, BOUNDS), "+Inf"]
_BEYOND = np.searchsorted(HIGHEST_OF, [round(bound * 1e9) for bound in BOUNDS], "right").astype(np.uint16)
_ORDERS = ("tv_order_execution_latency", "Seconds from the receipt of a command to its reply.")
_ORDER_STAGES = {"gateway_to_reply": "receive_to_reply", "submit_to_reply": "submit_to_reply"}
_STREAM = (
    "tvops_stream_latency_seconds",
    "Publication by the price service to hand-over to the last session's socket.",
)
_STREAM_STAGE = "publish_to_send"


def latencies(stages: Mapping[str, Stage]) -> Iterator[Metric]:
    """Give the latency of each stage, and the two that operators know from other stacks, where there are any."""
    seconds = HistogramMetricFamily("tvops_stage_seconds", "Latency of each stage of the path.", labels=["stage"])
    longest = GaugeMetricFamily("tvops_stage_longest_seconds", "Longest since the start.", labels=["stage"])
    skewed = CounterMetricFamily("tvops_stage_skewed", "Latencies below 0: clocks differ.", labels=["stage"])
    orders = HistogramMetricFamily(*_ORDERS, labels=["stage"])
    stream = HistogramMetricFamily(*_STREAM)
    for name, stage in stages.items():
        below, total = _buckets(stage)
        seconds.samples += _samples(seconds.name, name, below, total)
        longest.add_metric([name], stage.histogram.maximum / 1e9)
        skewed.add_metric([name], stage.histogram.negative)
        if name in _ORDER_STAGES:
            orders.samples += _samples(orders.name, _ORDER_STAGES[name], below, total)
        if name == _STREAM_STAGE:
            stream.samples += _samples(stream.name, "", below, total)
    yield from (family for family in (seconds, longest, skewed, orders, stream) if family.samples)


def _buckets(stage: Stage) -> tuple[list[float], float]:
    """Give cumulated counts at `BOUNDS` and in all, and the sum in seconds, to within the width of a bucket."""
    where, counts = stage.histogram.check()
    cumulated = np.concatenate(([0.0], np.cumsum(counts)))
    below = cumulated[np.searchsorted(where, _BEYOND)]
    return [*below.tolist(), float(cumulated[-1])], int(counts @ MIDDLE_OF[where]) / 1e9


def _samples(name: str, stage: str, below: Sequence[float], total: float) -> Iterator[Sample]:
    """Give a histogram's samples as `HistogramMetricFamily.add_metric` would, in a third of its time."""
    labels, of_buckets = _bucket_labels(stage)
    yield from (Sample(f"{name}_bucket", *row) for row in zip(of_buckets, below, strict=True))
    yield Sample(f"{name}_count", labels, below[-1])
    yield Sample(f"{name}_sum", labels, total)


@cache
def _bucket_labels(stage: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    labels = {"stage": stage} if stage else {}
    return labels, [{**labels, "le": bound} for bound in _LE]
