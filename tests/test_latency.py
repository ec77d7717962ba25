"""Percentiles of the histogram against the sorted samples."""

from hypothesis import given
from hypothesis import strategies as st

from tvops.engine.telemetry.latency import LatencyHistogram


@given(st.lists(st.integers(0, 1 << 50), min_size=1, max_size=300), st.floats(0.1, 100))
def test_percentile_is_within_the_stated_error(samples: list[int], percent: float) -> None:
    histogram = LatencyHistogram("x")
    for sample in samples:
        histogram.record(sample)
    exact = sorted(samples)[max(1, -int(-len(samples) * percent // 100)) - 1]
    assert exact <= histogram.percentile(percent) <= exact * (1 + 1 / 32)
    assert histogram.percentile(100) == max(samples)


def test_clock_skew_is_counted_apart() -> None:
    histogram = LatencyHistogram("x")
    histogram.record(-5)
    assert (histogram.count, histogram.negative, histogram.percentile(99)) == (0, 1, 0)
