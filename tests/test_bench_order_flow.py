"""The flow of orders that a load is made of."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tvops.bench.doors.order_flow import AMEND, CANCEL, NEW, RESTING, USUAL, Mix, OrderFlow
from tvops.bench.doors.rest_orders import OrderOptions
from tvops.bench.scenario import load_scenario, phases_of


@settings(max_examples=20)
@given(
    st.integers(0, 100),
    st.sampled_from([USUAL, Mix(new=1), Mix(new=9, cancel=1), Mix(amend=1, new=1)]),
    st.sampled_from([1, RESTING, 5_000]),
)
def test_no_more_orders_rest_than_may(seed: int, mix: Mix, most: int) -> None:
    flow, resting = OrderFlow(mix, seed, 10_000, most), set[str]()
    for number in range(10_000):
        kind, order = flow.choose(number), flow.about(number)
        assert (order in resting) == (kind in (AMEND, CANCEL)), "what is about an order finds it resting"
        if kind == NEW:
            resting.add(order)
        elif kind == CANCEL:
            resting.remove(order)
        flow.settled(number, kind, 201 if kind == NEW else 200)
        assert len(resting) <= most
    assert set(flow.leftovers()) == resting


def test_the_shares_are_those_of_the_mix_while_there_is_room() -> None:
    flow = OrderFlow(USUAL, 1, 2_000)
    kinds = Counter()
    for number in range(1_500):
        kind = flow.choose(number)
        kinds[kind] += 1
        flow.settled(number, kind, 201)
    assert 0.55 < kinds[NEW] / 1_500 < 0.65
    assert 0.20 < kinds[CANCEL] / 1_500 < 0.30


def test_the_scenario_volume_has_all_of_its_orders_rest() -> None:
    scenario = load_scenario("volume")
    (load,) = scenario.loads
    options = msgspec.convert(load.options, OrderOptions)
    count = sum(round(phase.requests) for phase in phases_of(load, 0, scenario.seconds))
    assert f"{count:,}" in scenario.text
    flow = OrderFlow(options.mix, scenario.seed, count, options.resting)
    for number in range(count):
        kind = flow.choose(number)
        flow.settled(number, kind, 201)
    assert len(flow.leftovers()) == count


def test_an_order_rests_whose_cancellation_was_never_sent_and_a_new_one_does_not() -> None:
    flow = OrderFlow(Mix(new=1), 1, 3, resting=1)
    assert flow.choose(0) == NEW
    flow.settled(0, NEW, 201)
    assert flow.choose(1) == CANCEL
    assert flow.leftovers() == []
    flow.unsent(1)
    assert flow.leftovers() == [flow.about(0)]
    assert flow.choose(2) == NEW
    flow.unsent(2)
    assert flow.leftovers() == [flow.about(0)]
