"""The crowd of the simulated market, in an engine without I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.local_engine import USER, LocalEngine, order
from tvops.engine.feeds.agents import ACCOUNTS
from tvops.engine.feeds.makers import MAKERS
from tvops.engine.feeds.sim import Crowd
from tvops.engine.feeds.value import STEP_SECONDS, uniform
from tvops.engine.instruments import InstrumentTable, Step, load_instruments
from tvops.engine.records import EVENT, SIM_ACCOUNTS, EventKind, Kind, Side

TABLE = load_instruments()


class World:
    """The crowd and the engine in lock step."""

    def __init__(self, seed: int = 1, table: InstrumentTable = TABLE) -> None:
        self.crowd = Crowd(table, seed)
        self.local = LocalEngine(table)
        self.engine = self.local.engine
        self.sent: list[NDArray[Any]] = []

    def step(self, user: NDArray[Any] | None = None) -> NDArray[Any]:
        """Let the crowd act, then a user; give all events."""
        commands = self.crowd.step().copy()
        self.sent.append(commands)
        events = self.local.apply(commands)
        if user is not None:
            events = np.concatenate([events, self.local.apply(user)])
        self.crowd.orders.follow(events)
        return events

    def run(self, steps: int) -> NDArray[Any]:
        return np.concatenate([self.step() for _ in range(steps)])


def test_same_seed_same_commands() -> None:
    worlds = [World(5), World(5), World(6)]
    for world in worlds:
        world.run(400)
    sent = [np.concatenate(world.sent).tobytes() for world in worlds]
    assert sent[0] == sent[1]
    assert sent[0] != sent[2]


def test_market_stays_sound_for_10_000_steps() -> None:
    world = World(3)
    reasons: Counter[int] = Counter()
    commands = spreads = 0
    wide = np.zeros(len(TABLE), np.int64)
    unit = world.crowd.markets["unit"]
    for step in range(10_000):
        events = world.step()
        commands += len(world.sent.pop())
        reasons.update(events["reason"][events["kind"] == EventKind.REJECTED].tolist())
        if step < 10:
            continue
        tops = world.crowd.orders.tops
        assert (tops[:, :, 1] > 0).all(), f"a side is empty in step {step}"
        spread = tops[:, 1, 0] - tops[:, 0, 0]
        assert (spread > 0).all()
        wide += spread > 6 * np.maximum(unit, 1)
        spreads += 1
        if step % 100 == 0:
            for instrument in range(len(TABLE)):
                bids, asks = world.engine.depth(instrument, 100)
                assert len(bids) >= 6
                assert len(asks) >= 6
    assert (wide < spreads / 500).all(), "spreads are wide for more than moments after a jump"
    assert sum(reasons.values()) < commands / 100
    assert 100 < commands / (10_000 * STEP_SECONDS) < 500
    held = world.crowd.orders.positions / world.crowd.markets["lots"]
    assert np.abs(held[:MAKERS]).max() < 300
    assert np.abs(held).max() < 300
    assert (world.crowd.orders.positions.sum(axis=0) == 0).all()
    value = world.crowd.markets["value"]
    assert (np.abs(value / world.crowd.markets["start"] - 1) < 0.3).all()


def test_prices_move_and_every_instrument_trades() -> None:
    world = World(2)
    middles = np.array([(world.step(), world.crowd.markets["middle"].copy())[1] for _ in range(6000)])
    minutes = np.diff(np.log(middles[::1200]), axis=0)
    assert (np.abs(minutes).max(axis=0) > 1e-4).all()
    assert (np.abs(minutes).max(axis=0) < 0.05).all()
    fills = np.concatenate([world.step() for _ in range(200)])
    traded = set(fills["instrument"][fills["kind"] == EventKind.TAKER_FILL].tolist())
    assert traded == set(range(len(TABLE)))


def test_what_the_crowd_knows_is_what_the_engine_has() -> None:
    world = World(4)
    world.run(1500)
    orders = world.crowd.orders
    assert orders.live == world.engine.live_orders
    assert orders.strays == 0
    for n, account in enumerate(orders.accounts):
        for instrument in range(len(TABLE)):
            assert orders.positions[n, instrument] == world.engine.position(account, instrument)
    for instrument in range(len(TABLE)):
        assert world.local.best(instrument) == tuple(orders.tops[instrument, :, 0])


def test_makers_come_back_after_a_sweep_of_the_whole_book() -> None:
    world = World(8)
    world.run(100)
    for instrument in range(len(TABLE)):
        world.step(order(instrument, Side.BUY, TABLE[instrument].max_quantity))
        assert len(world.engine.depth(instrument, 10)[1]) == 0
    world.run(20)
    for instrument in range(len(TABLE)):
        bids, asks = world.engine.depth(instrument, 100)
        assert len(asks) >= 10
        assert len(bids) >= 10
        assert asks[0, 0] - bids[0, 0] < 10 * max(1.0, world.crowd.markets["unit"][instrument])


def test_net_buying_of_users_moves_the_price_up() -> None:
    quiet, pushed = World(9), World(9)
    quiet.run(100)
    pushed.run(100)
    for _ in range(40):
        quiet.step()
        pushed.step(order(0, Side.BUY, int(20 * pushed.crowd.markets["lots"][0])))
    assert pushed.crowd.markets["log_value"][0] > quiet.crowd.markets["log_value"][0]


def test_order_in_the_way_of_the_value_is_traded() -> None:
    world = World(10)
    world.run(50)
    bid, ask = world.local.best(0)
    price = ask + 40 * int(world.crowd.markets["unit"][0])
    events = world.step(order(0, Side.BUY, 10**7, price))
    accepted = events[(events["account"] == USER) & (events["kind"] == EventKind.ACCEPTED)]
    world.run(600)
    bids, _ = world.engine.depth(0, 1)
    assert bids[0, 0] < price
    assert world.engine.position(USER, 0) == 10**7
    assert len(accepted) == 1
    assert bid < ask


def test_crowd_rests_while_an_instrument_is_halted() -> None:
    world = World(11)
    world.run(50)
    halt = order(1, Side.BUY, 1)
    halt["kind"], halt["account"] = Kind.HALT, 0
    world.step(halt)
    rejected = np.concatenate([world.step()[:] for _ in range(100)])
    count = np.count_nonzero((rejected["kind"] == EventKind.REJECTED) & (rejected["instrument"] == 1))
    assert 0 < count < 200
    halt["quantity"] = 0
    world.step(halt)
    world.run(60)
    assert len(world.engine.depth(1, 100)[0]) >= 10


def test_accounts_are_those_set_aside_for_it() -> None:
    assert set(ACCOUNTS) <= set(SIM_ACCOUNTS)


@pytest.mark.parametrize("price", [1, 70, 16_000_000])
def test_prices_stay_inside_a_narrow_band(price: int) -> None:
    band = replace(
        TABLE[0], price_low=max(1, price - 60), price_high=price + 60, sim_price=price, price=Step("tick", "1")
    )
    world = World(1, InstrumentTable([band]))
    events = world.run(3000)
    rejected = events[events["kind"] == EventKind.REJECTED]
    assert len(rejected) < len(events) / 50
    top = world.crowd.orders.tops[0, :, 0]
    assert top[0] == 0 or top[1] == 0 or top[0] < top[1]


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**63),
    users=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(Side), st.floats(0.01, 200), st.floats(0.9, 1.1)), max_size=60
    ),
)
def test_books_survive_any_user(seed: int, users: list[tuple[int, Side, float, float]]) -> None:
    world = World(seed)
    world.run(5)
    lots = world.crowd.markets["lots"]
    for instrument, side, size, where in users:
        price = int(TABLE[instrument].sim_price * where) if where < 1.05 else 0
        world.step(order(instrument, side, max(1, int(size * lots[instrument])), price))
        world.step()
        for bids, asks in (world.engine.depth(n, 1) for n in range(len(TABLE))):
            assert not len(bids) or not len(asks) or bids[0, 0] < asks[0, 0]
    orders = world.crowd.orders
    mine = sum(world.engine.open_orders(account) for account in ACCOUNTS)
    assert orders.live == mine
    assert orders.strays == 0


def test_uniform_is_uniform() -> None:
    random = np.array([1], np.uint64)
    numbers = np.array([uniform(random) for _ in range(20_000)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] - 2000).max() < 250


def test_late_and_foreign_events_change_nothing() -> None:
    world = World(12)
    world.run(20)
    before = world.crowd.orders.slots.copy()
    events = np.zeros(4, EVENT)
    events["kind"] = [EventKind.ACCEPTED, EventKind.CANCELLED, EventKind.REJECTED, EventKind.MAKER_FILL]
    events["account"] = [ACCOUNTS.start, ACCOUNTS.start, ACCOUNTS.start, USER]
    events["ref"], events["order_id"], events["leaves"] = 1 << 40, 1 << 50, 5
    events["instrument"] = [0, 1, 63, 2]
    world.crowd.orders.follow(events)
    assert (world.crowd.orders.slots == before).all()
    assert world.crowd.orders.strays == 1
