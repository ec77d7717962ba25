"""Capacity: the models give back what made the data, within the error that they state, and do not invent any."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tvops import cli
from tvops.bench.capacity import Capacity, Step, assess, search
from tvops.bench.capacity_text import sentences, summary
from tvops.bench.scaling import fit_demand, fit_scaling, usl
from tvops.bench.stolen_time import StolenTime

LOADS = np.array([1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64], float)


@pytest.fixture(autouse=True, scope="module")
def _few_refits():
    """Refit 200 times for an interval, not 1,000: no test here sees the difference but by its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tvops.bench.scaling.RESAMPLES", 200)
        yield


def throughputs(rate: float, contention: float, coherency: float, noise: float, seed: int, loads=LOADS):
    rng = np.random.default_rng(seed)
    truth = usl(loads, np.array([[rate, contention, coherency]]))
    return truth * np.exp(rng.normal(0, noise, len(loads)))


@given(
    rate=st.floats(10, 1e5),
    contention=st.floats(0, 0.9),
    coherency=st.floats(0, 0.05),
)
@settings(max_examples=40)
def test_without_noise_the_parameters_come_back(rate, contention, coherency):
    fit = fit_scaling(LOADS, throughputs(rate, contention, coherency, 0, 0), seed=1)
    assert fit.rate.value == pytest.approx(rate, rel=1e-5)
    assert fit.contention.value == pytest.approx(contention, abs=1e-5)
    assert fit.coherency.value == pytest.approx(coherency, abs=1e-6)
    assert fit.error_percent < 0.01


@pytest.mark.parametrize("noise", [0.01, 0.05])
@pytest.mark.parametrize("truth", [(900.0, 0.05, 0.0004), (250.0, 0.3, 0.002), (5000.0, 0.02, 0.0)])
def test_the_stated_error_holds_the_truth_as_often_as_it_says(truth, noise):
    inside = np.zeros(4)
    for seed in range(40):
        fit = fit_scaling(LOADS, throughputs(*truth, noise, seed), seed=1)
        estimates = (fit.rate, fit.contention, fit.coherency, fit.at(128.0))
        real = (*truth, float(usl(128.0, np.array([truth]))[0]))
        inside += [e.low - 1e-9 <= value <= e.high + 1e-9 for e, value in zip(estimates, real, strict=True)]
    assert (inside >= 0.85 * 40).all(), inside


@given(st.lists(st.floats(0.5, 2.0), min_size=11, max_size=11), st.integers(0, 5))
@settings(max_examples=15)
def test_whatever_was_measured_no_parameter_is_negative_and_every_interval_holds_its_value(factors, seed):
    fit = fit_scaling(LOADS, throughputs(900, 0.1, 0.001, 0, 0) * np.array(factors), seed)
    for estimate in (fit.rate, fit.contention, fit.coherency, fit.at(100.0), fit.gain(32.0)):
        assert estimate.low <= estimate.value <= estimate.high
    assert fit.contention.low >= 0
    assert fit.coherency.low >= 0
    assert fit.rate.low > 0
    assert fit.at(64.0).low > 0


def test_the_peak_is_where_more_load_begins_to_cost():
    fit = fit_scaling(LOADS, throughputs(1000, 0.1, 0.001, 0, 0), seed=1)
    assert fit.peak_load == pytest.approx((0.9 / 0.001) ** 0.5, rel=1e-3)
    assert fit.peak_rate is not None
    around = usl(np.array([20.0, 30.0, 45.0]), np.array([[1000, 0.1, 0.001]]))
    assert fit.peak_rate.value == pytest.approx(around[1], rel=1e-3)
    assert fit.gain(40.0).high < 0  # beyond the peak twice the load gives less


def test_without_coherency_it_grows_to_a_limit_and_without_contention_for_ever():
    limited = fit_scaling(LOADS, throughputs(1000, 0.1, 0.0, 0, 0), seed=1)
    assert limited.peak_rate is not None
    assert limited.peak_rate.value == pytest.approx(10_000, rel=0.05)
    linear = fit_scaling(LOADS, 100 * LOADS, seed=1)
    assert linear.gain(64.0).value == pytest.approx(6400, rel=1e-3)


def test_loads_below_one_are_loads_too():
    loads = np.array([0.2, 0.4, 0.8, 1.5, 3, 6, 12])
    fit = fit_scaling(loads, throughputs(500, 0.2, 0.01, 0, 0, loads), seed=1)
    assert fit.contention.value == pytest.approx(0.2, abs=1e-4)


def test_refusals():
    with pytest.raises(ValueError, match="four different loads"):
        fit_scaling(np.array([1.0, 2, 2, 2]), np.array([1.0, 2, 2, 2]), 0)
    with pytest.raises(ValueError, match="above 0"):
        fit_scaling(np.array([1.0, 2, 3, 4]), np.array([1.0, 0, 2, 2]), 0)
    with pytest.raises(ValueError, match="above 0"):
        fit_scaling(np.array([1.0, 2, 3, 4]), np.array([1.0, np.nan, 2, 2]), 0)
    with pytest.raises(ValueError, match="three different rates"):
        fit_demand(np.array([1.0, 1.0]), np.array([1.0, 1.0]), 0)


@given(st.floats(1e-6, 1e-3), st.floats(0, 0.5))
@settings(max_examples=40)
def test_the_utilisation_law_gives_the_demand_back(seconds, idle):
    rates = np.array([100, 300, 500, 700, 900], float)
    demand = fit_demand(rates, idle + seconds * rates, seed=1)
    assert demand.seconds.value == pytest.approx(seconds, rel=1e-6)
    assert demand.idle.value == pytest.approx(idle, abs=1e-9)
    saturation = demand.saturation(1.0)
    assert saturation is not None
    assert saturation.value == pytest.approx((1 - idle) / seconds, rel=1e-5)


def test_the_error_of_the_demand_holds_the_truth_as_often_as_it_says():
    rates = np.linspace(100, 1500, 6)
    inside = 0
    for seed in range(150):
        busy = 0.05 + 4e-4 * rates + np.random.default_rng(seed).normal(0, 0.01, len(rates))
        demand = fit_demand(rates, busy, seed=2)
        inside += demand.seconds.low <= 4e-4 <= demand.seconds.high
    assert inside >= 0.88 * 150
    assert inside < 150  # an interval that always holds it says nothing


def test_load_that_costs_nothing_has_no_saturation():
    demand = fit_demand(np.array([1.0, 2, 3, 4]), np.array([0.3, 0.2, 0.2, 0.1]), seed=1)
    assert demand.seconds.value == 0
    assert demand.saturation(2.0) is None


def knee_at(limit: float, void: bool = False):
    tried = []

    def measure(load: float) -> Step:
        tried.append(load)
        kept, achieved = load <= limit, min(load, 1.1 * limit)
        return Step(
            load=load, achieved=achieved, kept=kept or void, why="" if kept else "p99 was 41",
            void="late" if void and not kept else "", busy=0.1 + 5e-4 * achieved, busiest=4e-4 * achieved,
            process="engine",
        )  # fmt: skip

    return measure, tried


@given(st.floats(250, 40_000))
def test_the_search_closes_in_on_the_knee_and_no_more(limit):
    measure, tried = knee_at(limit)
    steps = search(measure, 200, 50_000)
    found = assess("orders", "orders/s", steps, [], "", 4, 1)
    assert found.carried is not None
    assert found.carried.low <= limit <= found.carried.high
    assert found.carried.high / found.carried.low < 1.15
    assert [step.load for step in steps] == sorted(tried)
    assert all(tried.count(load) == (1 if load <= limit else 2) for load in tried)
    assert max(tried) <= 50_000


@given(st.floats(250, 40_000), st.sets(st.integers(0, 20)))
def test_one_bad_moment_of_a_load_is_no_knee(limit, bad):
    measure, tried = knee_at(limit)

    def now_and_then(load: float) -> Step:
        first = load not in tried
        step = measure(load)
        return replace(step, kept=False) if first and len(set(tried)) in bad else step

    steps = search(now_and_then, 200, 50_000)
    found = assess("orders", "orders/s", steps, [], "", 4, 1)
    assert found.carried is not None
    assert found.carried.low <= limit <= found.carried.high
    assert found.carried.high / found.carried.low < 1.15


@given(st.floats(20, 199))
def test_where_the_first_load_fails_a_lower_one_is_looked_for(limit):
    measure, tried = knee_at(limit)
    found = assess("orders", "orders/s", search(measure, 200, 50_000, least=20), [], "", 4, 1)
    assert found.carried is not None
    assert found.carried.low <= limit <= found.carried.high
    assert min(tried) >= 20
    measure, tried = knee_at(1)
    assert assess("orders", "orders/s", search(measure, 200, 50_000, least=20), [], "", 4, 1).carried is None
    assert min(tried) == 20


def test_what_others_do_on_the_host_is_told():
    about = {"started": 1, "seed": 1, "seconds": 5, "cores": 2, "fingerprint": None, "dimensions": ()}
    busy, quiet = (
        Capacity(targets=("orders: p99 at most 20 ms, no errors",), others=cores, **about) for cores in (1.44, 0.1)
    )
    assert "Other processes kept 1.4 of the 2 cores busy" in summary(busy)
    assert "Other processes" not in summary(quiet)
    assert "2 cores, steps of 5 s; orders: p99 at most 20 ms" in summary(quiet)


def test_time_that_the_hypervisor_took_is_told():
    about = {
        "started": 1,
        "seed": 1,
        "seconds": 5,
        "cores": 2,
        "fingerprint": None,
        "dimensions": (),
        "targets": (),
    }
    assert "gave 12.3 % of the cores' time to others" in summary(Capacity(stolen_percent=12.345, **about))
    assert "hypervisor" not in summary(Capacity(stolen_percent=0.9, **about))
    assert 0 <= StolenTime().percent() <= 100


@pytest.mark.parametrize(
    ("after", "percent"), [((11.0, 108.0), 12.5), ((10.03, 100.0), 100), ((10.0, 99.0), 0), ((9.0, 101.0), 0)]
)
def test_stolen_time_is_a_part_of_the_time_also_where_a_counter_goes_back(after, percent, monkeypatch):
    monkeypatch.setattr("tvops.bench.stolen_time._ticks", iter([(10.0, 100.0), after]).__next__)
    assert StolenTime().percent() == percent


def test_loads_that_are_counted_stay_whole():
    measure, tried = knee_at(37)
    search(measure, 5, 500, whole=True)
    assert all(load == round(load) for load in tried)
    assert 36 in tried or 37 in tried or 38 in tried


def test_what_ended_the_search_is_told():
    first = assess("orders", "orders/s", search(knee_at(100)[0], 200, 1000), [], "", 4, 1)
    assert first.carried is None
    assert "nothing inside the targets: at 200 orders/s p99 was 41" in sentences(first)[0]
    never = assess("orders", "orders/s", search(knee_at(1e9)[0], 200, 1000), [], "", 4, 1)
    assert "not reached: 1,000 orders/s" in sentences(never)[0]
    late = assess("orders", "orders/s", search(knee_at(500, void=True)[0], 200, 1000), [], "", 4, 1)
    assert "the generator, not the stack" in sentences(late)[0]
    assert late.carried is not None
    assert late.carried.value <= 500


def test_the_next_instance_is_bounded_by_the_cores_that_are_left():
    steps = search(knee_at(1000)[0], 200, 5000)
    on_one, on_many = (assess("orders", "orders/s", steps, [], "", cores, 1).next_instance for cores in (1, 16))
    assert on_one is not None
    assert on_one.this_host is not None
    # 0.2 cores for two at rest, 5e-4 an order: (1 - 0.2) / 5e-4 = 1600, less the 990 that the first one takes
    assert on_one.this_host.value == pytest.approx(1600 - on_one.own_host.value, rel=0.01)
    assert on_many is not None
    assert on_many.this_host is not None
    assert on_many.this_host.value == on_many.own_host.value


def test_the_command_says_what_it_does_not_know(capsys):
    assert cli.run(["bench", "capacity", "coffee"]) == 2
    assert "'coffee' is no kind of load" in capsys.readouterr().err
