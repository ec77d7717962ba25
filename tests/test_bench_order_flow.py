"""The flow of orders that a load is made of."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tvops.bench.doors.order_flow import AMEND, CANCEL, MOST_RESTING, NEW, USUAL, Mix, OrderFlow


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.sampled_from([USUAL, Mix(new=1), Mix(new=9, cancel=1), Mix(amend=1, new=1)]))
def test_a_long_run_leaves_room_for_orders(seed: int, mix: Mix) -> None:
    flow, resting = OrderFlow(mix, seed, 10_000), set[str]()
    for number in range(10_000):
        kind, order = flow.choose(number), flow.about(number)
        assert (order in resting) == (kind in (AMEND, CANCEL)), "what is about an order finds it resting"
        if kind == NEW:
            resting.add(order)
        elif kind == CANCEL:
            resting.remove(order)
        flow.settled(number, kind, 201 if kind == NEW else 200)
        assert len(resting) <= MOST_RESTING
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
