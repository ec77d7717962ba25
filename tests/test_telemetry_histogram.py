"""Histograms and recorders against numpy on the raw samples."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tvops.engine.telemetry import kernels
from tvops.engine.telemetry.histogram import (
    BUCKETS,
    HIGHEST,
    HIGHEST_OF,
    RELATIVE_ERROR,
    Counts,
    Histogram,
    bucket_of,
    empty,
    highest_of,
    lowest_of,
    pack,
    percentiles,
    samples_needed,
    shown_percentiles,
    sum_of,
)
from tvops.engine.telemetry.recorder import ENOUGH, Recorder, Window

# As many digits as there are, so that no size of value is rare.
VALUES = st.integers(0, HIGHEST.bit_length()).flatmap(lambda bits: st.integers(0, min(1 << bits, HIGHEST)))
SAMPLES = st.lists(VALUES, min_size=1, max_size=300)
BOUNDARIES = [value for bucket in range(BUCKETS) for value in (lowest_of(bucket), highest_of(bucket))]


def counts_of(samples: list[int]) -> Counts:
    """Count with the plain definition of a bucket."""
    counts = empty()
    for sample in samples:
        counts[bucket_of(sample)] += 1
    return counts


# Buckets


def test_buckets_follow_each_other_without_gap_or_overlap() -> None:
    assert lowest_of(0) == 0
    for bucket in range(BUCKETS - 1):
        assert lowest_of(bucket) <= highest_of(bucket) == lowest_of(bucket + 1) - 1
    assert bucket_of(HIGHEST) < BUCKETS


@given(VALUES)
def test_a_value_is_within_its_bucket_which_is_as_narrow_as_stated(value: int) -> None:
    bucket = bucket_of(value)
    assert lowest_of(bucket) <= value <= highest_of(bucket)
    assert highest_of(bucket) - lowest_of(bucket) <= value * RELATIVE_ERROR


@given(st.integers(-(1 << 62), 1 << 62))
def test_what_is_out_of_range_is_in_the_bucket_of_the_nearest(value: int) -> None:
    assert bucket_of(value) == bucket_of(min(max(value, 0), HIGHEST))


# Percentiles


@given(SAMPLES, st.decimals(0, 100, places=3))
def test_percentiles_are_those_of_numpy_within_the_stated_error(samples: list[int], percent: Decimal) -> None:
    shown = percentiles(counts_of(samples), [float(percent)])[0]
    # Where a percent falls between two samples as exactly as a decimal can, numpy's floats may take either.
    least = np.percentile(samples, max(float(percent) - 1e-9, 0), method="inverted_cdf")
    most = np.percentile(samples, min(float(percent) + 1e-9, 100), method="inverted_cdf")
    assert least <= shown <= most * (1 + RELATIVE_ERROR)
    exact = sorted(samples)[max(1, math.ceil(percent * len(samples) / 100)) - 1]
    assert exact <= shown <= exact * (1 + RELATIVE_ERROR)
    assert percentiles(counts_of(samples), [100], max(samples)) == [max(samples)]


def test_percentiles_of_nothing_are_0() -> None:
    assert percentiles(empty(), [50, 99]) == [0, 0]
    assert Recorder().percentile(99) == 0


@pytest.mark.parametrize(("percent", "rank"), [(99.9, 999), (99, 990), (50, 500), (0, 1), (100, 1000)])
def test_a_percent_that_hits_a_sample_gives_that_one(percent: float, rank: int) -> None:
    counts = empty()
    counts[:100] = 10  # 1,000 samples, ten of each value
    assert percentiles(counts, [percent]) == [(rank - 1) // 10]


@pytest.mark.parametrize(("percent", "samples"), [(50, 2), (90, 10), (99, 100), (99.9, 1000), (99.99, 10_000)])
def test_a_percentile_is_shown_from_so_many_samples_on(percent: float, samples: int) -> None:
    counts = empty()
    assert shown_percentiles(counts) == ()
    counts[7] = samples - 1
    assert percent not in shown_percentiles(counts)
    counts[9] = 1
    assert shown_percentiles(counts)[-1] == percent
    assert samples_needed(percent) == samples


# Sums


@given(SAMPLES)
def test_a_sum_is_right_to_half_a_bucket(samples: list[int]) -> None:
    error = abs(sum_of(counts_of(samples)) - sum(samples))
    assert error <= sum(samples) * RELATIVE_ERROR / 2 + len(samples)


# On its way


@given(SAMPLES, st.integers(0, HIGHEST), st.integers(0, 1 << 40))
def test_what_is_packed_comes_out_again(samples: list[int], maximum: int, negative: int) -> None:
    counts = counts_of(samples)
    packed = pack(counts, maximum, negative)
    assert (packed.unpack() == counts).all()
    assert (packed.maximum, packed.negative) == (maximum, negative)


@pytest.mark.parametrize(
    "packed",
    [
        Histogram(b"\0\0", b""),
        Histogram(b"", bytes(8)),
        Histogram(b"\0", bytes(8)),
        Histogram(b"\0\0", bytes(7)),
        Histogram(BUCKETS.to_bytes(2, "little"), bytes(8)),
        Histogram(bytes(2), (-1).to_bytes(8, "little", signed=True)),
        Histogram(bytes(2), (2**53).to_bytes(8, "little")),
    ],
)
def test_what_is_no_histogram_is_told(packed: Histogram) -> None:
    with pytest.raises(ValueError, match=r"."):
        packed.unpack()


# Recorders


@given(arrays.arrays(np.int64, st.integers(0, 50), elements=st.integers(-(1 << 62), 1 << 62)))
def test_the_kernel_counts_as_defined(values: NDArray[np.int64]) -> None:
    counts = empty()
    maximum, negative = kernels.count(values, np.full(len(values), 3), counts)
    kept = [int(value) for value in values if value >= 0]
    assert (counts == 3 * counts_of(kept)).all()
    assert maximum == max([min(value, HIGHEST) for value in kept], default=0)
    assert negative == 3 * (len(values) - len(kept))


def test_the_kernel_knows_every_bucket() -> None:
    counts = empty()
    kernels.count(np.array(BOUNDARIES), np.ones(len(BOUNDARIES), np.int64), counts)
    assert (counts == counts_of(BOUNDARIES)).all()
    assert HIGHEST_OF.tolist() == BOUNDARIES[1::2]


@given(st.lists(st.tuples(st.integers(-5, HIGHEST + 5), st.integers(1, 3)), max_size=20))
def test_however_it_is_recorded_it_is_the_same(records: list[tuple[int, int]]) -> None:
    single, times, many, mixed = Recorder(), Recorder(), Recorder(), Recorder()
    for value, count in records:
        times.record_times(value, count)
        mixed.record(value)
        mixed.record_times(value, count - 1)
        mixed.counts()
        for _ in range(count):
            single.record(value)
    many.record_many(np.array([value for value, count in records for _ in range(count)], np.int64))
    assert single.packed() == times.packed() == many.packed() == mixed.packed()


@pytest.mark.parametrize("method", ["record", "record_times"])
def test_a_recorder_goes_on_when_its_buffer_is_full(method: str) -> None:
    recorder = Recorder()
    record_one = recorder.record if method == "record" else lambda value: recorder.record_times(value, 1)
    values = np.random.default_rng(5).integers(-10, 1 << 40, 5_000)
    for n, value in enumerate(values.tolist()):
        record_one(value)
        if n % 700 == 0:
            assert recorder.total + recorder.negative == n + 1
    kept = values[values >= 0]
    assert (recorder.counts() == counts_of(kept.tolist())).all()
    assert (recorder.total, recorder.negative) == (len(kept), len(values) - len(kept))
    assert recorder.maximum == recorder.percentile(100) == kept.max()


def test_clock_skew_is_counted_apart_and_never_as_fast() -> None:
    recorder = Recorder()
    recorder.record(-5)
    assert (recorder.total, recorder.negative, recorder.percentile(99), recorder.maximum) == (0, 1, 0, 0)


# Windows


def record(recorder: Recorder, value: int, times: int) -> None:
    recorder.record_many(np.full(times, value))


def test_a_window_shows_what_came_since_it_began() -> None:
    recorder = Recorder()
    record(recorder, 100, ENOUGH)
    window = Window(recorder)
    record(recorder, 7, 3)
    record(recorder, -1, 2)
    assert (window.counts().sum(), window.maximum, window.negative) == (3, 7, 2)
    assert recorder.total == ENOUGH + 3


def test_a_young_window_leaves_the_stage_to_the_one_before() -> None:
    recorder = Recorder()
    window = Window(recorder)
    record(recorder, 50, 30)
    record(recorder, -1, 2)
    window.rotate()
    record(recorder, 7, ENOUGH - 1)
    assert (window.counts().sum(), window.percentile(50), window.negative) == (30, 50, 2)
    record(recorder, 7, 1)
    assert (window.counts().sum(), window.percentile(100), window.negative) == (ENOUGH, 7, 0)
    window.rotate()
    window.rotate()
    assert (window.counts().sum(), window.maximum) == (0, 0)
