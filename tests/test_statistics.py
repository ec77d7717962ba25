"""Statistics by simulation: intervals cover, nothing is found where nothing is, and an effect that is there is."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvops import statistics as stats


def blocks(rng: np.random.Generator, pairs: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Medians of blocks on a shared host: slow drift, noise with a heavy tail, 50 us in the middle."""
    drift = np.cumsum(rng.normal(0, 0.3, pairs))
    noise = rng.standard_t(3, (2, pairs)) * 0.5
    return 50 + drift + noise[0], (50 + drift) * (1 + effect) + noise[1]


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(0.0, 1.0, 20),
        lambda rng: rng.standard_t(3, 20),
        lambda rng: rng.laplace(0.0, 2.0, 30),
    ],
    ids=["normal", "heavy tails", "laplace"],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(draw):
    rng = np.random.default_rng(7)
    inside = 0
    for seed in range(200):
        low, high, _ = stats.bootstrap(draw(rng), seed)
        inside += low <= 0 <= high
    assert 0.90 <= inside / 200 <= 0.985


def test_the_interval_comes_from_the_seed():
    values = np.random.default_rng(1).normal(size=15)
    assert stats.bootstrap(values, 3) == stats.bootstrap(values, 3)
    assert stats.bootstrap(values, 3) != stats.bootstrap(values, 4)


def verdicts(rng: np.random.Generator, effect: float) -> list[str]:
    """One experiment: 14 figures, each with an A/A control and a comparison, 20 pairs."""
    controls = [stats.compare(*blocks(rng, 20), seed=1) for _ in range(14)]
    figures = [stats.compare(*blocks(rng, 20, effect), seed=2) for _ in range(14)]
    return [j.verdict for j in stats.judge(figures, [stats.noise_floor(c) for c in controls])]


def test_a_change_without_effect_gets_no_verdict():
    rng = np.random.default_rng(11)
    quiet = sum(set(verdicts(rng, 0.0)) == {"no measurable effect"} for _ in range(20))
    assert quiet >= 19


@pytest.mark.parametrize("effect, verdict", [(0.1, "hurts"), (-0.1, "helps")])
def test_an_effect_of_ten_percent_is_found_and_has_the_right_direction(effect, verdict):
    rng = np.random.default_rng(13)
    found = [v for _ in range(5) for v in verdicts(rng, effect)]
    assert found.count(verdict) >= 0.95 * len(found)
    assert set(found) <= {verdict, "no measurable effect"}


def test_what_is_more_is_better_where_that_is_said():
    rng = np.random.default_rng(5)
    comparison = stats.compare(*blocks(rng, 20, 0.1), seed=0)
    (judgement,) = stats.judge([comparison], [0.0], lower_is_better=False)
    assert judgement.verdict == "helps"


def test_an_effect_within_the_noise_of_the_control_is_none():
    rng = np.random.default_rng(5)
    comparison = stats.compare(*blocks(rng, 20, 0.1), seed=0)
    (judgement,) = stats.judge([comparison], [abs(comparison.difference) + 0.1])
    assert judgement.verdict == "no measurable effect"
    assert judgement.detectable >= judgement.floor > abs(comparison.difference)


def test_an_effect_of_the_detectable_size_is_found_four_times_in_five():
    rng, found = np.random.default_rng(17), 0
    for _ in range(150):
        noise = rng.normal(0, 1, 30)
        smallest = stats.detectable(1 / math.sqrt(30) * 1.09)  # a trimmed mean of normal values is 9 % less sharp
        _, _, error = stats.bootstrap(noise, 0)
        found += stats.signed_rank_p(noise + smallest) < stats.ALPHA
        assert error < 1
    assert 0.72 <= found / 150 <= 0.92


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_the_signed_rank_test_counts_all_signs(values):
    """Against the definition: the share of all sign patterns that are at least as extreme."""
    given_values = [v for v in values if v]
    if not given_values:
        assert stats.signed_rank_p(np.array(values, float)) == 1.0
        return
    sizes = [abs(v) for v in given_values]
    ranks = [sum(s < size for s in sizes) + (sum(s == size for s in sizes) + 1) / 2 for size in sizes]
    half = sum(ranks) / 2
    seen = abs(sum(r for r, v in zip(ranks, given_values, strict=True) if v > 0) - half)
    patterns = [
        abs(sum(r for r, up in zip(ranks, signs, strict=True) if up) - half)
        for signs in product((False, True), repeat=len(ranks))
    ]
    expected = sum(p >= seen for p in patterns) / len(patterns)
    assert stats.signed_rank_p(np.array(values, float)) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_only_ever_raises_and_keeps_the_order(p_values):
    corrected = stats.holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert all(corrected[a] <= corrected[b] for a, b in pairwise(order))
    assert min(corrected) == pytest.approx(min(1.0, min(p_values) * len(p_values)))


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_percentile_takes_ten_samples_beyond_it():
    assert [stats.needed_samples(p) for p in (50, 90, 99, 99.9)] == [20, 100, 1000, 10_000]
    with pytest.raises(ValueError, match="p99 takes 1000 samples, and there are 999"):
        stats.percentile(np.arange(999), 99)
    assert stats.percentile(np.arange(1001), 99) == 990
    with pytest.raises(ValueError, match="not a percentile"):
        stats.needed_samples(100)


@given(st.integers(1, 1000))
def test_with_the_needed_pairs_a_verdict_is_possible(comparisons):
    pairs = stats.needed_pairs(comparisons)
    assert stats.least_p(pairs) * comparisons < stats.ALPHA
    assert stats.signed_rank_p(np.arange(1.0, pairs + 1)) == pytest.approx(stats.least_p(pairs))


def test_pairs_have_to_be_pairs():
    with pytest.raises(ValueError, match="no pairs"):
        stats.compare(np.ones(3), np.ones(4), 0)
    with pytest.raises(ValueError, match="no pairs"):
        stats.compare(np.ones(1), np.ones(1), 0)


def test_values_that_never_differ_have_no_effect():
    comparison = stats.compare(np.ones(20), np.ones(20), 0)
    (judgement,) = stats.judge([comparison], [0.0])
    assert (comparison.p, judgement.verdict) == (1.0, "no measurable effect")
