"""Statistics of A/B measurements: paired differences, their intervals, and what may be concluded from them.

A and B are measured in pairs of neighbouring blocks, in random order within a pair. What slowly changes on a host
hits both blocks of a pair, so that their difference is free of it, and under the hypothesis that A and B are the
same every difference is as likely as its negative: the signed-rank test below needs no other assumption.

    estimate    20 % trimmed mean of the paired differences: the mean of the middle 60 %, so that no single
                disturbed block decides (R. Wilcox, Introduction to Robust Estimation and Hypothesis
                Testing, ch. 4)
    interval    percentile bootstrap of it, from a given seed (Efron & Tibshirani, An Introduction to the
                Bootstrap, ch. 13)
    test        exact Wilcoxon signed-rank test (Biometrics Bulletin 1, 1945)
    correction  Holm's step-down over all comparisons of an experiment (Scand. J. Statistics 6, 1979)
    floor       what two measurements of the same thing (A/A) differed by, at most, with the same confidence

Units are those of what is given; nothing here knows of time or of tuning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Verdict = Literal["helps", "hurts", "no measurable effect"]
NONE: Verdict = "no measurable effect"
Values = NDArray[np.float64]

ALPHA = 0.05
"""Chance that is taken of any false verdict in a whole experiment; intervals have the confidence 1 - ALPHA."""

POWER = 0.8
"""Chance with which an effect of the minimum detectable size is found."""

TAIL = 10
"""Samples that have to lie beyond a percentile for it to be told: p50 takes 20 samples, p99 takes 1000."""

RESAMPLES = 4000
_TRIM = 0.2
_CHUNK_VALUES = 1 << 22


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What paired measurements of A and B say of one figure."""

    pairs: int
    before: float  # median of A
    after: float  # median of B
    difference: float  # trimmed mean of B - A
    low: float  # of the interval around the difference
    high: float
    error: float  # standard error of the difference
    p: float  # of the signed-rank test, two-sided, before any correction


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What may be concluded from a comparison among all those of the experiment."""

    p_corrected: float
    detectable: float  # the smallest effect that would be found with the chance POWER
    floor: float  # what A/A differed by, at most
    verdict: Verdict


def needed_samples(percent: float) -> int:
    """Give how many samples a percentile takes, so that `TAIL` of them lie beyond it.

    Raises:
        ValueError: no percentile between 0 and 100.
    """
    if not 0 < percent < 100:
        raise ValueError(f"{percent} is not a percentile between 0 and 100")
    share = min(percent, 100 - percent) / 100
    return math.ceil(round(TAIL / share, 6))


def percentile(samples: NDArray[Any], percent: float) -> float:
    """Give a percentile of the samples.

    Raises:
        ValueError: there are too few samples for it to mean anything (`needed_samples`).
    """
    if len(samples) < needed_samples(percent):
        raise ValueError(f"p{percent:g} takes {needed_samples(percent)} samples, and there are {len(samples)}")
    return float(np.percentile(samples, percent))


def trimmed_mean(values: Values) -> NDArray[np.float64]:
    """Give the mean of the middle 60 % of the last axis."""
    ordered = np.sort(values, axis=-1)
    cut = int(_TRIM * values.shape[-1])
    return np.asarray(ordered[..., cut : values.shape[-1] - cut].mean(axis=-1))


def bootstrap(values: Values, seed: int, confidence: float = 1 - ALPHA) -> tuple[float, float, float]:
    """Give low and high end of the interval around the trimmed mean, and its standard error.

    The same values and seed give the same interval.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK_VALUES // len(values))
    means = np.concatenate(
        [
            trimmed_mean(values[rng.integers(0, len(values), (min(rows, RESAMPLES - first), len(values)))])
            for first in range(0, RESAMPLES, rows)
        ]
    )
    outside = (1 - confidence) / 2 * 100
    low, high = np.percentile(means, [outside, 100 - outside])
    return float(low), float(high), float(means.std(ddof=1))


def signed_rank_p(differences: Values) -> float:
    """Give the two-sided p-value of the exact Wilcoxon signed-rank test; 1 where all differences are 0.

    Differences of 0 are left out, equal ones share their mean rank; the distribution is that of all 2^n signs.
    """
    values = differences[differences != 0]
    if not len(values):
        return 1.0
    size = np.abs(values)
    ordered = np.sort(size)
    # Twice the mean rank is a whole number, ties or not.
    ranks = np.searchsorted(ordered, size, "left") + np.searchsorted(ordered, size, "right") + 1
    total = int(ranks.sum())
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    for rank in ranks:
        chances[rank:] = (chances[rank:] + chances[: total + 1 - rank]) / 2
        chances[:rank] /= 2
    positive = int(ranks[values > 0].sum())
    tail = chances[: min(positive, total - positive) + 1].sum()
    return float(min(1.0, 2 * tail))


def least_p(pairs: int) -> float:
    """Give the smallest p-value that so many pairs can have: that of differences which all have one sign."""
    return min(1.0, 2.0 ** (1 - pairs))


def needed_pairs(comparisons: int, alpha: float = ALPHA) -> int:
    """Give how many pairs it takes for a verdict to be possible at all among so many comparisons.

    Two pairs more than the bare minimum, with which a single pair of the wrong sign would forbid every verdict.
    """
    return math.ceil(1 + math.log2(max(1, comparisons) / alpha)) + 2


def holm(p_values: Sequence[float]) -> list[float]:
    """Give the p-values as corrected for their number, in the given order."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = largest
    return corrected


def detectable(error: float, comparisons: int = 1) -> float:
    """Give the smallest effect that is found with the chance POWER, from the standard error of a difference.

    (z(1 - alpha / 2m) + z(power)) x standard error: Bloom, Minimum Detectable Effects, Evaluation Review 19, 1995.
    """
    normal = NormalDist()
    return (normal.inv_cdf(1 - ALPHA / (2 * max(1, comparisons))) + normal.inv_cdf(POWER)) * error


def compare(before: Values, after: Values, seed: int) -> Comparison:
    """Compare paired values of A and B.

    Raises:
        ValueError: there are fewer than two pairs, or not as many of A as of B.
    """
    if len(before) != len(after) or len(before) < 2:
        raise ValueError(f"{len(before)} values of A and {len(after)} of B are no pairs to compare")
    differences = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    low, high, error = bootstrap(differences, seed)
    return Comparison(
        pairs=len(differences),
        before=float(np.median(before)),
        after=float(np.median(after)),
        difference=float(trimmed_mean(differences)),
        low=low,
        high=high,
        error=error,
        p=signed_rank_p(differences),
    )


def noise_floor(control: Comparison) -> float:
    """Give what an A/A control allows a difference to be without any cause: the far end of its interval."""
    return max(abs(control.low), abs(control.high))


def judge(
    comparisons: Sequence[Comparison], floors: Sequence[float], lower_is_better: bool = True
) -> list[Judgement]:
    """Conclude from all comparisons of an experiment at once.

    There is an effect where all three hold: the corrected p-value is below ALPHA, the interval excludes 0, and the
    difference is larger than the noise floor.
    """
    judgements = []
    corrected = holm([c.p for c in comparisons])
    for comparison, floor, p_corrected in zip(comparisons, floors, corrected, strict=True):
        verdict = NONE
        if (
            p_corrected < ALPHA
            and not comparison.low <= 0 <= comparison.high
            and abs(comparison.difference) > floor
        ):
            verdict = "helps" if (comparison.difference < 0) == lower_is_better else "hurts"
        judgements.append(
            Judgement(
                p_corrected=p_corrected,
                detectable=max(detectable(comparison.error, len(comparisons)), floor),
                floor=floor,
                verdict=verdict,
            )
        )
    return judgements


def block_bootstrap(
    before: Values, after: Values, seed: int, confidence: float = 1 - ALPHA
) -> tuple[float, float]:
    """Give the interval around the difference of two series' means, where neighbouring values hang together.

    Blocks of neighbours (as long as the cube root of the series) are drawn from each series by itself: the moving
    block bootstrap (H. Kuensch, The Annals of Statistics 17, 1989).

    Raises:
        ValueError: a series is empty.
    """
    rng = np.random.default_rng(seed)
    means = _block_means(after, rng) - _block_means(before, rng)
    outside = (1 - confidence) / 2 * 100
    low, high = np.percentile(means, [outside, 100 - outside])
    return float(low), float(high)


def _block_means(values: Values, rng: np.random.Generator) -> Values:
    count = len(values)
    if not count:
        raise ValueError("an empty series has no mean")
    length = max(1, round(count ** (1 / 3)))
    blocks = -(-count // length)
    firsts = rng.integers(0, count - length + 1, (RESAMPLES, blocks))
    # A block's sum is the difference of two running sums: no block is ever written out.
    running = np.concatenate(([0.0], np.cumsum(values)))
    sums = (running[length:] - running[:-length])[firsts[:, :-1]].sum(axis=1)
    last, rest = firsts[:, -1], count - (blocks - 1) * length  # as many values as the series has
    return np.asarray((sums + running[last + rest] - running[last]) / count)
