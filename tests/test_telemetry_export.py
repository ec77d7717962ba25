"""Exports against an independent HdrHistogram library."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st

from tvops.engine.telemetry.export import DIGITS, Interval, encode, render_hgrm, render_hlog
from tvops.engine.telemetry.histogram import BUCKETS, HIGHEST, Counts, bucket_of, empty, percentiles
from tvops.engine.telemetry.recorder import Recorder

VALUES = st.integers(0, HIGHEST.bit_length()).flatmap(lambda bits: st.integers(0, min(1 << bits, HIGHEST)))
PERCENTS = [1, 10, 25, 50, 75, 90, 95, 99, 99.9, 100]
START = 1_750_000_000_250_000_000
SECOND = 1_000_000_000


def latencies(samples: int, seed: int = 1) -> tuple[list[int], Counts]:
    """Make samples from µs to s, and count them with a recorder."""
    values = (1000 * 2 ** np.random.default_rng(seed).exponential(2, samples)).astype(np.int64)
    recorder = Recorder()
    recorder.record_many(values)
    return values.tolist(), recorder.counts()


def theirs(samples: list[int]) -> HdrHistogram:
    """Count samples with the library."""
    histogram = HdrHistogram(1, HIGHEST, DIGITS)
    for sample in samples:
        assert histogram.record_value(sample)
    return histogram


def counts_of(histogram: HdrHistogram) -> list[int]:
    return [histogram.get_count_at_index(index) for index in range(histogram.counts_len)]


def test_the_layouts_are_the_same() -> None:
    histogram = theirs([])
    assert histogram.counts_len == BUCKETS
    edges = [1 << bit for bit in range(HIGHEST.bit_length())]
    for value in [0, *edges, *(edge - 1 for edge in edges), *(edge * 3 // 2 for edge in edges[:-1]), HIGHEST]:
        assert histogram.get_counts_array_index(value) == bucket_of(value)


@settings(max_examples=50)
@given(st.lists(st.tuples(VALUES, st.integers(1, 1 << 50)), max_size=40))
def test_what_is_encoded_is_decoded_by_the_library(records: list[tuple[int, int]]) -> None:
    counts = empty()
    for value, times in records:
        counts[bucket_of(value)] += times
    decoded = HdrHistogram.decode(encode(counts).encode())
    assert counts_of(decoded) == counts.tolist()
    assert decoded.get_total_count() == counts.sum()
    assert (decoded.lowest_trackable_value, decoded.highest_trackable_value) == (1, HIGHEST)
    assert decoded.significant_figures == DIGITS


def test_percentiles_are_those_of_the_library() -> None:
    samples, counts = latencies(10_000)
    histogram = theirs(samples)
    assert counts_of(histogram) == counts.tolist()
    assert percentiles(counts, PERCENTS) == [histogram.get_value_at_percentile(percent) for percent in PERCENTS]


def test_counts_below_0_are_not_encoded() -> None:
    counts = empty()
    counts[3] = -1
    with pytest.raises(ValueError, match="below 0"):
        encode(counts)


# .hlog


def test_a_log_is_read_by_the_library(tmp_path: Path) -> None:
    file, parts = tmp_path / "x.hlog", [latencies(1000, seed) for seed in range(3)]
    intervals = [
        Interval(START + n * SECOND, SECOND, counts, "gateway_to_reply" if n else "")
        for n, (_, counts) in enumerate(parts)
    ]
    file.write_text("".join(render_hlog(START, intervals)))
    reader = HistogramLogReader(str(file), HdrHistogram(1, HIGHEST, DIGITS))
    for n, (samples, counts) in enumerate(parts):
        read = reader.get_next_interval_histogram()
        assert counts_of(read) == counts.tolist() == counts_of(theirs(samples))
        assert read.get_start_time_stamp() == pytest.approx(START / 1e6 + n * 1000, abs=0.6, rel=0)
        assert read.get_end_time_stamp() == pytest.approx(START / 1e6 + (n + 1) * 1000, abs=0.6, rel=0)
        assert read.get_tag() == ("gateway_to_reply" if n else None)
    assert reader.get_next_interval_histogram() is None
    assert reader.get_start_time_sec() == pytest.approx(START / 1e9, abs=0.0006, rel=0)
    reader.close()


def test_a_log_says_the_largest_latency_in_ms() -> None:
    counts = empty()
    counts[bucket_of(5_000_000)] = 1
    line = list(render_hlog(START, [Interval(START + 1, SECOND, counts)]))[-1]
    assert line.startswith("0.000,1.000,5.0")


@pytest.mark.parametrize("tag", ["a,b", "a b", "a\nb"])
def test_a_tag_that_would_break_the_line_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="comma or a blank"):
        list(render_hlog(START, [Interval(START, SECOND, empty(), tag)]))


# .hgrm


def rows(text: str) -> list[list[float]]:
    return [[float(field) for field in line.split()] for line in text.splitlines() if re.match(r" *\d", line)]


@settings(max_examples=50)
@given(st.lists(VALUES, min_size=1, max_size=200))
def test_a_distribution_says_what_the_library_says(samples: list[int]) -> None:
    histogram = theirs(samples)
    counts = empty()
    for sample in samples:
        counts[bucket_of(sample)] += 1
    below = np.cumsum(counts_of(histogram))
    shown = rows("".join(render_hgrm(counts, unit=1)))
    for value, percentile, count, *rest in shown:
        assert count == below[bucket_of(int(value))]
        assert count >= percentile * len(samples) - 1e-6
        assert not rest or rest[0] == pytest.approx(1 / (1 - percentile), abs=0.01)
        reached = 100 * count / len(samples)
        assert histogram.get_value_at_percentile(reached) == value or count == 0
    assert [row[1] for row in shown] == sorted(row[1] for row in shown)
    assert shown[-1][1:] == [1, len(samples)]


def test_a_distribution_is_written_as_the_library_writes_it() -> None:
    samples, counts = latencies(5000)
    out = BytesIO()
    theirs(samples).output_percentile_distribution(out, 1e6)
    expected, written = out.getvalue().decode(), "".join(render_hgrm(counts))
    assert written.splitlines()[:2] == expected.splitlines()[:2]
    mean, deviation = re.findall(r"Mean += +([\d.]+), StdDeviation += +([\d.]+)", written)[0]
    assert float(mean) == pytest.approx(theirs(samples).get_mean_value() / 1e6, abs=0.001)
    assert float(deviation) == pytest.approx(theirs(samples).get_stddev() / 1e6, abs=0.001)
    assert re.findall(r"Max += +([\d.]+), Total count += +(\d+)", written) == [
        (f"{theirs(samples).get_max_value() / 1e6:.3f}", "5000")
    ]
    assert written.splitlines()[-1] == expected.splitlines()[-1]


def test_the_steps_of_a_distribution_halve_with_the_distance_to_the_end() -> None:
    # As in every file of the original; the library in Python takes steps of its own.
    shown = rows("".join(render_hgrm(latencies(100_000)[1])))
    steps = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.775, 0.8, 0.825, 0.85, 0.875, 0.8875, 0.9]
    assert [row[1] for row in shown[: len(steps)]] == pytest.approx(steps)


def test_a_distribution_of_nothing_has_a_head_and_a_foot() -> None:
    lines = list(render_hgrm(empty()))
    assert len(lines) == 4
    assert "Total count    =            0" in lines[2]


def test_a_distribution_of_very_many_ends() -> None:
    counts = empty()
    counts[[100, 200, 300]] = 2**61, 1, 1
    shown = rows("".join(render_hgrm(counts)))
    assert len(shown) < 500
    assert shown[-1][1:] == [1, float(2**61)]
