"""The leak detector on made-up series: steady, sawtooth, step, noise, leaks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tvops.engine.telemetry.growth import (
    HOLD,
    JUDGED,
    LEAST_GROWTH,
    SHOWN,
    WARM_UP,
    WINDOW,
    Growth,
    theil_sen,
)

MIB = 1 << 20
BASE = 100 * MIB
EVERY = 5.0  # seconds between samples
Series = Callable[[float], float]  # minutes -> bytes


def followed(series: Series, minutes: float = 90, offset: float = 0) -> tuple[Growth, bool]:
    """Give the detector at the end, and whether it ever spoke of a leak."""
    growth, ever = Growth(), False
    for step in range(int(minutes * 60 / EVERY)):
        growth.add(offset + step * EVERY, int(series(step * EVERY / 60)))
        ever = ever or growth.leaking
    return growth, ever


@given(size=st.integers(0, 1 << 40))
@settings(max_examples=10)
def test_what_stays_the_same_is_no_leak(size: int) -> None:
    growth, ever = followed(lambda _: size, 30)
    assert (growth.slope, ever) == (0.0, False)


@given(period=st.floats(0.1, 3.0), height=st.floats(0.1, 100.0), phase=st.floats(0, 1))
@settings(max_examples=25)
def test_a_sawtooth_is_no_leak(period: float, height: float, phase: float) -> None:
    _, ever = followed(lambda minute: BASE + height * MIB * ((minute / period + phase) % 1))
    assert not ever


@given(at=st.floats(0, 60), height=st.floats(-80, 500))
@settings(max_examples=25)
def test_one_step_is_no_leak(at: float, height: float) -> None:
    _, ever = followed(lambda minute: BASE + height * MIB * (minute >= at))
    assert not ever


@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.001, 20))
@settings(max_examples=25)
def test_noise_is_no_leak(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    _, ever = followed(lambda _: BASE + spread * MIB * float(rng.random()))
    assert not ever


def test_a_cache_that_fills_at_the_start_is_no_leak() -> None:
    _, ever = followed(lambda minute: BASE + 50 * MIB * (1 - math.exp(-minute)))
    assert not ever


@given(
    rate=st.floats(0.5, 100),  # MiB a minute
    period=st.floats(0.1, 1.0),
    height=st.floats(0, 20),
    begin=st.floats(0, 20),
    offset=st.floats(0, 1e9),
)
@settings(max_examples=25)
def test_a_leak_is_found_through_a_sawtooth(
    rate: float, period: float, height: float, begin: float, offset: float
) -> None:
    def sawtooth(minute: float) -> float:
        return height * ((minute / period) % 1)

    def series(minute: float) -> float:
        return BASE + MIB * (rate * max(0.0, minute - begin) + sawtooth(minute))

    floors = [min(sawtooth(minute + second / 60) for second in range(0, 60, int(EVERY))) for minute in range(90)]
    assume(max(floors) - min(floors) <= 6 * rate)  # where its period and ours beat more, it may hide the leak
    growth, _ = followed(series, begin + WARM_UP + WINDOW + HOLD + 2, offset)
    assert growth.leaking
    assert growth.slope == pytest.approx(rate * MIB / 60, rel=0.15, abs=height * MIB / 60 / 20)


def test_a_leak_in_steps_of_the_allocator_is_found() -> None:
    growth, _ = followed(lambda minute: BASE + MIB * math.floor(minute / 2), 80)
    assert growth.leaking
    assert growth.slope == pytest.approx(MIB / 120, rel=0.1)


def test_a_leak_that_ends_is_taken_back() -> None:
    growth, ever = followed(lambda minute: BASE + 5 * MIB * min(minute, 40), 40 + 2 * WINDOW)
    assert ever
    assert not growth.leaking
    assert growth.slope == 0


def test_growth_too_small_to_matter_is_not_told() -> None:
    per_minute = 0.5 * LEAST_GROWTH / WINDOW
    growth, ever = followed(lambda minute: BASE + per_minute * minute)
    assert not ever
    assert growth.slope is not None
    assert growth.slope > 0


def test_nothing_is_said_before_enough_is_known() -> None:
    leak: Series = lambda minute: BASE + 10 * MIB * minute  # noqa: E731
    assert followed(leak, WARM_UP + SHOWN)[0].slope is None
    assert followed(leak, WARM_UP + SHOWN + 1.1)[0].slope == pytest.approx(10 * MIB / 60, rel=0.01)
    assert not followed(leak, WARM_UP + JUDGED + HOLD - 1)[1]
    assert followed(leak, WARM_UP + JUDGED + HOLD + 0.1)[0].leaking


def test_a_pause_in_the_samples_does_no_harm() -> None:
    growth = Growth()
    for minute in [*range(20), *range(200, 240)]:
        growth.add(minute * 60.0, BASE)
    assert (growth.slope, growth.leaking) == (0.0, False)


@given(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=30), st.floats(-1e6, 1e6))
@settings(max_examples=50)
def test_theil_sen_moves_with_its_data(values: list[float], slope: float) -> None:
    data = np.array(values)
    tilted = data + slope * np.arange(len(data))
    assert theil_sen(tilted) == pytest.approx(theil_sen(data) + slope, rel=1e-6, abs=1e-2)
    assert theil_sen(-data) == pytest.approx(-theil_sen(data), rel=1e-9, abs=1e-9)


def test_theil_sen_is_not_led_astray_by_a_few() -> None:
    data = np.arange(30.0)
    data[[3, 11, 20]] = 1e9
    assert theil_sen(data) == pytest.approx(1.0)
