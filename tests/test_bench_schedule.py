"""When requests are meant to be sent, and what their times come to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvops.bench.checks import allowed_lateness_ms, check, drift_percent, memory_slope, void_reason
from tvops.bench.children import split
from tvops.bench.figures import figure_of
from tvops.bench.plan import Load, Plan
from tvops.bench.result import MemorySample, Operation
from tvops.bench.samples import LOST, NOT_CONNECTED, Samples, Window, added, counts_of, merged, packed
from tvops.bench.schedule import MAX_REQUESTS, Phase, arrivals
from tvops.engine.telemetry.histogram import HIGHEST, bucket_of
from tvops.errors import UsageError

SECOND = 1_000_000_000
TIMEOUT = 2 * SECOND

phases = st.lists(
    st.builds(
        Phase,
        seconds=st.floats(0.1, 20),
        rate=st.floats(0, 500),
        to=st.none() | st.floats(0, 500),
    ),
    min_size=1,
    max_size=5,
)


def test_a_constant_rate_is_evenly_spaced() -> None:
    times = arrivals([Phase(2, 1000)])
    assert len(times) == 2000
    assert times[0] == 0
    assert set(np.diff(times).tolist()) <= {999_999, 1_000_000, 1_000_001}


@given(phases)
def test_arrivals_are_as_many_as_the_rate_comes_to_and_in_order(given_phases: list[Phase]) -> None:
    times = arrivals(given_phases)
    total = sum(phase.requests for phase in given_phases)
    assert total - 1e-6 <= len(times) <= total + 1
    assert np.all(np.diff(times) >= 0)
    assert not len(times) or 0 <= times[0] <= times[-1] <= sum(phase.seconds for phase in given_phases) * 1e9 + 1


@given(phases, st.integers(0, 1000))
def test_a_phase_has_its_share_of_the_arrivals(given_phases: list[Phase], which: int) -> None:
    which %= len(given_phases)
    begin = sum(phase.seconds for phase in given_phases[:which]) * 1e9
    end = begin + given_phases[which].seconds * 1e9
    times = arrivals(given_phases)
    inside = int(((times >= begin - 1) & (times < end - 1)).sum())
    assert abs(inside - given_phases[which].requests) <= 2


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    times = arrivals([Phase(100, 1000)], seed=7)
    assert abs(len(times) - 100_000) < 5 * 100_000**0.5
    gaps = np.diff(times) / 1e9
    assert gaps.mean() == pytest.approx(0.001, rel=0.02)
    assert gaps.std() == pytest.approx(0.001, rel=0.02)
    assert np.array_equal(times, arrivals([Phase(100, 1000)], seed=7))
    assert not np.array_equal(times[:100], arrivals([Phase(100, 1000)], seed=8)[:100])


# Where the rate is almost nothing, what rounding does to a request is seconds of time.
brisk = st.builds(Phase, seconds=st.floats(0.1, 20), rate=st.floats(1, 500), to=st.none() | st.floats(1, 500))


@given(st.lists(brisk, min_size=1, max_size=5), st.integers(2, 7))
def test_even_arrivals_of_several_processes_are_even_together(given_phases: list[Phase], count: int) -> None:
    load = Load(door="redis", rate=1.0)
    plan = Plan(
        load=load, url="", phases=tuple(given_phases), warm_up=0, seconds=1, seed=1, core=None, clean_up=False
    )
    parts = [arrivals(part.phases, None, part.share) for part in split(plan, count)]
    together, alone = np.sort(np.concatenate(parts)), arrivals(given_phases)
    assert len(together) == len(alone)
    assert np.abs(together - alone).max(initial=0) < 1_000


def test_a_ramp_reaches_its_rate() -> None:
    times = arrivals([Phase(10, 0, 1000)])
    by_second = np.bincount(times // SECOND, minlength=10)
    assert by_second.tolist() == pytest.approx([50 + 100 * n for n in range(10)], abs=1)


def test_too_many_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="more than a run can hold"):
        arrivals([Phase(100, MAX_REQUESTS / 50)])


@given(st.lists(st.integers(0, 2 * HIGHEST), max_size=200))
def test_values_are_counted_into_the_buckets_of_histograms(values: list[int]) -> None:
    counts = counts_of(np.array(values, np.int64))
    expected = np.bincount([bucket_of(value) for value in values], minlength=len(counts))
    assert np.array_equal(counts, expected)


@given(st.lists(st.lists(st.integers(0, HIGHEST), max_size=50), min_size=1, max_size=4))
def test_histograms_of_processes_add_up(parts: list[list[int]]) -> None:
    whole = packed(np.array([value for part in parts for value in part], np.int64))
    assert added([packed(np.array(part, np.int64)) for part in parts]) == whole


def operation(
    response: list[int], *, lateness: int = 0, sent: bool = True, outcome: int = 201, door: str = "rest_orders"
) -> Operation:
    """Give an operation of which one request was meant for every 10 ms."""
    samples = Samples(SECOND + np.arange(len(response), dtype=np.int64) * 10_000_000)
    for n, value in enumerate(response):
        samples.begun[n] = samples.intended[n] + lateness
        samples.sent[n] = samples.begun[n] if sent else 0
        samples.done[n] = samples.intended[n] + value if value else 0
        samples.outcome[n] = outcome if value else 0
    window = Window(SECOND, SECOND + len(response) * 10_000_000)
    (found,) = samples.operations(door, ("new",), window, TIMEOUT, len(response))
    return found


def test_an_answer_counts_from_the_intended_time_and_from_the_sending() -> None:
    found = operation([5_000_000] * 200, lateness=1_000_000)
    assert (found.sent, found.answered, found.errors) == (200, 200, 0)
    assert found.response.maximum == 5_000_000
    assert found.service.maximum == 4_000_000
    assert found.lateness.maximum == 1_000_000
    assert found.series.sent == (100, 100)
    assert found.series.p99 == (5_000_000, 5_000_000)
    assert found.rate == 100


def test_timeouts_and_late_answers_are_samples_at_the_timeout() -> None:
    found = operation([1_000_000] * 98 + [0, TIMEOUT + 1])
    assert (found.answered, found.errors, found.timeouts) == (98, 2, 2)
    assert found.outcomes == {"timeout": 2, "201": 98}
    assert found.response.maximum == found.service.maximum == TIMEOUT
    assert int(found.response.unpack().sum()) == 100


def test_a_request_that_waited_too_long_for_a_connection_has_its_own_service_time() -> None:
    found = operation([TIMEOUT + 3_000_000] * 10, lateness=TIMEOUT)
    assert (found.answered, found.errors, found.outcomes) == (0, 10, {"timeout": 10})
    assert found.response.maximum == TIMEOUT
    assert found.service.maximum == 3_000_000
    found = operation([TIMEOUT + 3_000_000] * 10, lateness=TIMEOUT, outcome=-503)
    assert found.service.maximum == TIMEOUT, "a failure is no fast answer"


@pytest.mark.parametrize(("outcome", "name"), [(-LOST, "lost connection"), (-NOT_CONNECTED, "not connected")])
def test_failures_are_no_fast_answers(outcome: int, name: str) -> None:
    found = operation([1000] * 10, outcome=outcome, sent=outcome == -LOST)
    assert (found.errors, found.timeouts, found.outcomes) == (10, 0, {name: 10})
    assert figure_of(found, "error_rate") == 100
    assert found.response.maximum == TIMEOUT
    assert int(found.service.unpack().sum()) == (10 if outcome == -LOST else 0)


def test_what_was_meant_for_the_warm_up_does_not_count() -> None:
    samples = Samples(np.arange(10, dtype=np.int64) * SECOND)
    for n in range(10):
        samples.begun[n] = samples.sent[n] = samples.intended[n]
        samples.done[n], samples.outcome[n] = samples.intended[n] + 1000 + n, 200
    (found,) = samples.operations("redis", ("ping",), Window(3 * SECOND, 8 * SECOND), TIMEOUT, 10)
    assert (found.sent, found.response.maximum) == (5, 1007)


def test_merging_adds_counts_and_rates() -> None:
    whole = merged([operation([1_000_000] * 100), operation([3_000_000] * 100)])
    assert (whole.sent, whole.rate, whole.response.maximum) == (200, 200, 3_000_000)
    assert whole.series.sent == (200,)


def test_a_late_generator_makes_the_run_void() -> None:
    targets = {"rest_orders": {"p99_ms": 20.0}}
    assert allowed_lateness_ms("rest_orders", targets) == 2.0
    assert void_reason([operation([1_000_000] * 200, lateness=1_900_000)], targets) == ""
    assert "rest_orders was late" in void_reason([operation([9_000_000] * 200, lateness=2_100_000)], targets)
    assert "nothing was measured" in void_reason([], targets)
    assert allowed_lateness_ms("rest_orders", {"rest_orders": {"p99_ms": 5.0}}) == 1.0
    assert allowed_lateness_ms("sessions", {"sessions": {"service_p99_ms": 10.0}}) == 5.0


def test_targets_without_samples_are_not_met() -> None:
    few, many = operation([1_000_000] * 10), operation([1_000_000] * 200)
    targets = {"rest_orders": {"p99_ms": 20.0}}
    (missed,) = check(targets, [few], [])
    assert (missed.met, missed.seen) == (False, None)
    (met,) = check(targets, [many], [])
    assert met.met
    assert met.seen == pytest.approx(1.0, rel=0.01)


def test_drift_and_memory_slope() -> None:
    steady = operation([1_000_000] * 900)
    rising = operation([1_000_000] * 600 + [3_000_000] * 300)
    assert drift_percent(steady) == pytest.approx(0, abs=1)
    assert drift_percent(rising) == pytest.approx(200, abs=3)
    growing = [MemorySample(second=n, process=p, bytes=(n << 20)) for n in range(20) for p in ("a", "b")]
    assert memory_slope(growing) == pytest.approx(120)
    assert memory_slope(growing[:6]) is None
