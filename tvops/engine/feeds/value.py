"""What the instruments of the simulated market are worth: a value process with regimes, and its random numbers.

The logarithm of value over start is a random walk that a weak pull draws back to the start, with a part that all
instruments share. A regime gives its drift and volatility: calm, a trend up or down, a burst. Now and then it
jumps. Net buying by others than the agents moves it for good (a linear, and so not exploitable, impact).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvops.engine.compiled import kernel

STEP_SECONDS = 0.05
"""Market time of one step."""

CALM, UP, DOWN, BURST = 0, 1, 2, 3
"""Regimes."""

MARKET = np.dtype(
    [
        ("start", "<f8"),  # ticks: what it was worth at first, and is drawn back to
        ("lowest", "<f8"),  # ticks: bounds of the value and of every order
        ("highest", "<f8"),
        ("unit", "<f8"),  # ticks: half a basis point, at least one tick; spreads and moves are measured in it
        ("lots", "<f8"),  # size of a usual order
        ("log_value", "<f8"),  # ln(value / start)
        ("value", "<f8"),  # ticks
        ("middle", "<f8"),  # ticks: middle of the book, the value where it has none
        ("fast", "<f8"),  # ticks: averages of the middle over some seconds and over about a minute
        ("slow", "<f8"),
        ("sentiment", "<f8"),  # above 0: noise traders rather buy
        ("excitement", "<f8"),  # how much busier than usual it is, in multiples
        ("regime", "<i8"),
        ("pause", "<i8"),  # steps for which the agents rest because the instrument is halted
    ]
)
"""State of the simulated market of one instrument."""

_PULL = 3.2e-5  # per second: half of a deviation is gone after six hours
_SHARED = 0.6  # correlation with what all instruments have in common
_LARGEST_LOG = 0.35  # how far value may get from the start
_IMPACT = 0.05  # units that a usual order of net buying moves the value by
_JUMPS_PER_SECOND, _JUMP_SIZE = 1 / 600, 0.0015
_STAY_SECONDS = (150.0, 80.0, 80.0, 15.0)  # mean length of a regime
_DRIFT = (0.0, 2.5e-5, -2.5e-5, 0.0)  # per second
_VOLATILITY = (5e-5, 8e-5, 8e-5, 2.5e-4)  # per square root of a second
_CALM_BELOW, _UP_BELOW, _DOWN_BELOW = 0.45, 0.675, 0.9  # where a uniform number leads to at a change of regime


@kernel
def uniform(random: Any) -> float:
    """Give the next number in [0, 1) of the splitmix64 generator whose state is ``random[0]`` (uint64)."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@kernel
def normal(random: Any) -> float:
    """Give a standard normal number (Box-Muller)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(random)))
    return radius * math.cos(2.0 * math.pi * uniform(random))


@kernel
def _change_regime(market: Any, random: Any) -> None:
    if uniform(random) * _STAY_SECONDS[market.regime] < STEP_SECONDS:
        draw = uniform(random)
        if draw < _CALM_BELOW:
            market.regime = CALM
        elif draw < _UP_BELOW:
            market.regime = UP
        elif draw < _DOWN_BELOW:
            market.regime = DOWN
        else:
            market.regime = BURST
            market.excitement += 3.0


@kernel
def move_value(market: Any, shared: float, bought: float, random: Any) -> None:
    """Let one step pass for the value of one instrument.

    Args:
        market: its row of MARKET.
        shared: standard normal number, the same for all instruments in a step.
        bought: lots that others bought from the agents since the last step, net.
        random: state of the generator.
    """
    _change_regime(market, random)
    noise = _SHARED * shared + math.sqrt(1.0 - _SHARED * _SHARED) * normal(random)
    change = (_DRIFT[market.regime] - _PULL * market.log_value) * STEP_SECONDS
    change += _VOLATILITY[market.regime] * math.sqrt(STEP_SECONDS) * noise
    if uniform(random) < _JUMPS_PER_SECOND * STEP_SECONDS:
        change += _JUMP_SIZE * normal(random)
        market.excitement += 4.0
    change += _IMPACT * bought / market.lots * market.unit / market.start
    market.log_value = min(max(market.log_value + change, -_LARGEST_LOG), _LARGEST_LOG)
    market.value = min(max(market.start * math.exp(market.log_value), market.lowest), market.highest)


@kernel
def observe(market: Any, bid: int, ask: int, random: Any) -> None:
    """Take the best prices (0: none) into the middle, its averages, and the mood of the market."""
    market.middle = 0.5 * (bid + ask) if bid > 0 and ask > 0 else market.value
    market.fast += (market.middle - market.fast) * (STEP_SECONDS / 4.0)
    market.slow += (market.middle - market.slow) * (STEP_SECONDS / 45.0)
    market.sentiment += -market.sentiment * (STEP_SECONDS / 6.0) + 0.16 * normal(random)
    market.excitement *= 1.0 - STEP_SECONDS / 3.0
