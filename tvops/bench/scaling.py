"""Two models of how a stack carries load, fitted to what was measured, with the error of what they say.

    utilisation law     U = U0 + S X                     U: busy cores, X: operations per second, S: the
                                                         service demand of one operation in CPU seconds
    scalability law     X(N) = L N / (1 + s (N - 1) + k N (N - 1))
                                                         N: units of load at work at once, L: rate of one,
                                                         s: contention, k: coherency (N. Gunther, Guerrilla
                                                         Capacity Planning, ch. 4-6)

Both are fitted by least squares with numpy alone; demands, s and k cannot be below 0. The interval of whatever
comes out is a bootstrap interval: models are fitted again to the fitted values with resampled residuals. Residuals
are inflated for the parameters that were fitted and, as with Student's t, for how badly few points show their
spread.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from tvops.statistics import ALPHA

Values = NDArray[np.float64]

RESAMPLES: Final = 1000
_ROUNDS: Final = 30
_TINY: Final = 1e-12


class Estimate(msgspec.Struct, frozen=True):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """The utilisation law, fitted."""

    seconds: Estimate  # CPU seconds of one operation
    idle: Estimate  # busy cores without load
    points: int

    def saturation(self, cores: float) -> Estimate | None:
        """Give the rate at which so many cores are busy; None where load showed no demand."""
        if self.seconds.value <= 0:
            return None
        free = max(0.0, cores - self.idle.value)
        highest = free / self.seconds.low if self.seconds.low > 0 else float("inf")
        return Estimate(free / self.seconds.value, free / self.seconds.high, highest)


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """The scalability law, fitted; `samples` are the refits that its errors come from."""

    rate: Estimate  # L, of one unit of load
    contention: Estimate  # s
    coherency: Estimate  # k
    peak_load: float | None  # N at which the throughput is highest; None: it only ever grows
    peak_rate: Estimate | None  # of there; without coherency the limit that it grows to, L/s
    error_percent: float  # typical distance of a point from the curve
    largest_load: float  # N that was measured: beyond it the curve is a guess
    points: int
    samples: tuple[tuple[float, float, float], ...] = msgspec.field(default=(), name="_samples")

    def at(self, load: float) -> Estimate:
        """Give the throughput at a load."""
        return self._estimate(lambda rows: usl(load, rows))

    def gain(self, load: float, times: float = 2.0) -> Estimate:
        """Give what the throughput gains where ``load`` is multiplied, everything shared as it was."""
        return self._estimate(lambda rows: usl(load * times, rows) - usl(load, rows))

    def _estimate(self, figure: Callable[[Values], Values]) -> Estimate:
        best = np.array([[self.rate.value, self.contention.value, self.coherency.value]])
        return _estimate(float(figure(best)[0]), figure(np.array(self.samples or best.tolist())))


def usl(load: float | Values, parameters: Values) -> Values:
    """Give the throughput at a load for each row of (L, s, k)."""
    rate, contention, coherency = parameters.T
    return np.asarray(rate * load / (1 + contention * (load - 1) + coherency * load * (load - 1)))


def fit_scaling(loads: Values, rates: Values, seed: int) -> Scaling:
    """Fit the scalability law to throughputs at loads; the error is taken as a share of the throughput.

    Raises:
        ValueError: fewer than four points, fewer than four different loads, or one that is not positive.
    """
    loads, rates = np.asarray(loads, np.float64), np.asarray(rates, np.float64)
    if len(loads) != len(rates) or len(np.unique(loads)) < 4:
        raise ValueError("the scalability law takes the throughput at four different loads or more")
    if not (np.isfinite(loads).all() and np.isfinite(rates).all() and loads.min() > 0 and rates.min() > 0):
        raise ValueError("loads and throughputs have to be above 0")
    rng = np.random.default_rng(seed)
    best = _fit_cost(loads, (loads / rates)[None, :])
    fitted = usl(loads, best)
    logs = np.log(rates / fitted)
    spread, drawn = _resampled(logs, 3, rng)
    refits = _fit_cost(loads, loads / (fitted * np.exp(drawn)))
    rate, contention, coherency = (_estimate(float(best[0, i]), refits[:, i]) for i in range(3))
    peak, peak_rate = _peak(best, refits)
    return Scaling(
        rate=rate, contention=contention, coherency=coherency, peak_load=peak, peak_rate=peak_rate,
        error_percent=100 * spread, largest_load=float(loads.max()), points=len(loads),
        samples=tuple((float(a), float(b), float(c)) for a, b, c in refits),
    )  # fmt: skip


def _fit_cost(loads: Values, costs: Values) -> Values:
    """Give (L, s, k) for each row of costs, N/X = 1/L (1 + s (N - 1) + k N (N - 1)), by Gauss-Newton on its log.

    The cost is linear in 1/L, s/L and k/L, so that each round is a linear fit, with s and k not below 0.
    """
    base = np.stack([np.ones_like(loads), loads - 1, loads * (loads - 1)], axis=1)
    model = costs.copy()
    found = np.zeros((len(costs), 3))
    for _ in range(_ROUNDS):
        target = model * (1 + np.log(costs / model))
        latest = _not_negative(base, target, 1 / model)
        if np.allclose(latest, found, rtol=1e-9, atol=_TINY):
            break
        found = latest
        model = np.maximum(found @ base.T, _TINY)
    one = np.maximum(found[:, 0], _TINY)
    return np.stack([1 / one, found[:, 1] / one, found[:, 2] / one], axis=1)


def _not_negative(base: Values, targets: Values, weights: Values) -> Values:
    """Solve weighted least squares for each row, the first coefficient free and the others not below 0.

    With two bounds there are four sets of coefficients that are 0: the feasible one with the least error is exact.
    """
    best = np.zeros((len(targets), base.shape[1]))
    least = np.full(len(targets), np.inf)
    wanted = (targets * weights)[:, :, None]
    others = range(1, base.shape[1])
    for count in range(base.shape[1]):
        for free in itertools.combinations(others, count):
            columns = [0, *free]
            scaled = base[None, :, columns] * weights[:, :, None]
            size = np.sqrt((scaled**2).sum(axis=1))
            scaled = scaled / size[:, None, :]
            normal = scaled.transpose(0, 2, 1) @ scaled
            solved = np.linalg.solve(normal, scaled.transpose(0, 2, 1) @ wanted)
            error = ((scaled @ solved - wanted) ** 2).sum(axis=(1, 2))
            solved = solved[:, :, 0] / size
            better = (solved[:, 1:] >= 0).all(axis=1) & (error < least)
            full = np.zeros_like(best)
            full[:, columns] = solved
            best[better], least[better] = full[better], error[better]
    return best


def _peak(best: Values, refits: Values) -> tuple[float | None, Estimate | None]:
    def peak_of(rows: Values) -> tuple[Values, Values]:
        _, contention, coherency = rows.T
        with np.errstate(divide="ignore", invalid="ignore"):
            load = np.sqrt(np.maximum(1 - contention, 0) / coherency)
            top = np.where(coherency > 0, usl(np.maximum(load, 1), rows), rows[:, 0] / contention)
        return load, np.where(np.isnan(top), np.inf, top)

    load, top = (values[0] for values in peak_of(best))
    if not np.isfinite(top):
        return None, None
    tops = peak_of(refits)[1]
    return (float(max(load, 1.0)) if np.isfinite(load) else None), _estimate(float(top), tops)


def fit_demand(rates: Values, busy: Values, seed: int) -> Demand:
    """Fit the utilisation law to busy cores at rates.

    Raises:
        ValueError: fewer than three points or different rates, or a value below 0.
    """
    rates, busy = np.asarray(rates, np.float64), np.asarray(busy, np.float64)
    if len(rates) != len(busy) or len(np.unique(rates)) < 3:
        raise ValueError("the utilisation law takes the busy cores at three different rates or more")
    if not (np.isfinite(rates).all() and np.isfinite(busy).all() and rates.min() >= 0 and busy.min() >= 0):
        raise ValueError("rates and busy cores have to be 0 or above")
    rng = np.random.default_rng(seed)
    base = np.stack([np.ones_like(rates), rates], axis=1)
    even = np.ones((1, len(rates)))
    best = _not_negative(base, busy[None, :], even)[0]
    fitted = base @ best
    _, drawn = _resampled(busy - fitted, 2, rng)
    refits = _not_negative(base, fitted + drawn, np.repeat(even, RESAMPLES, axis=0))
    return Demand(
        seconds=_estimate(float(best[1]), refits[:, 1]),
        idle=_estimate(float(best[0]), refits[:, 0]),
        points=len(rates),
    )


def _resampled(residuals: Values, parameters: int, rng: np.random.Generator) -> tuple[float, Values]:
    """Give the spread of the residuals, and residuals for each refit."""
    freedom = max(1, len(residuals) - parameters)
    spread = float(np.sqrt((residuals**2).sum() / freedom))
    drawn = rng.normal(0.0, spread, (RESAMPLES, len(residuals)))
    return spread, drawn * np.sqrt(freedom / rng.chisquare(freedom, (RESAMPLES, 1)))


def _estimate(value: float, values: Values) -> Estimate:
    low, high = np.quantile(values, [ALPHA / 2, 1 - ALPHA / 2], method="nearest")
    return Estimate(value, min(value, float(low)), max(value, float(high)))
