"""The mirror of an external market, in an engine without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.local_engine import USER, LocalEngine, order
from tvops.engine.instruments import load_instruments
from tvops.engine.market.book import Books
from tvops.engine.market.mirror import Mirror
from tvops.engine.market.mirror_kernels import RUN, RUNS, gather_runs
from tvops.engine.records import (
    DEPTH,
    MIRROR_MAKER,
    MIRROR_TAKER,
    TRADE,
    DepthFlag,
    EventKind,
    Kind,
    Side,
)

TABLE = load_instruments()
BTC = 0
Level = tuple[int, int]


class External:
    """An external market: what its feed would say about its book and its trades."""

    def __init__(self) -> None:
        self.books = Books(len(TABLE))
        self.update = 0

    def snapshot(self, bids: Sequence[Level], asks: Sequence[Level], instrument: int = BTC) -> None:
        rows = np.zeros(max(1, len(bids) + len(asks)), DEPTH)
        self.update += 1
        for row, (side, price, lots) in zip(
            rows, [(Side.BUY, *level) for level in bids] + [(Side.SELL, *level) for level in asks], strict=False
        ):
            row["side"], row["price"], row["quantity"] = side, price, lots
        rows["instrument"], rows["update"], rows["flags"] = instrument, self.update, DepthFlag.SNAPSHOT
        rows["flags"][0] |= DepthFlag.FIRST
        rows["flags"][-1] |= DepthFlag.LAST
        self.books.apply(rows)

    def gap(self, instrument: int = BTC) -> None:
        rows = np.zeros(1, DEPTH)
        rows["instrument"], rows["flags"] = instrument, DepthFlag.GAP
        self.books.apply(rows)


def trades(*rows: tuple[Side, int, int], instrument: int = BTC) -> NDArray[Any]:
    made = np.zeros(len(rows), TRADE)
    for row, (side, price, quantity) in zip(made, rows, strict=True):
        row["side"], row["price"], row["quantity"], row["instrument"] = side, price, quantity, instrument
    return made


class World:
    """An external market, its mirror, and our engine."""

    def __init__(self, levels: int = 5) -> None:
        self.external = External()
        self.mirror = Mirror(TABLE, levels)
        self.local = LocalEngine(TABLE)
        self.sent = np.zeros(0)

    def user(self, side: Side, quantity: int, price: int = 0) -> NDArray[Any]:
        events = self.local.apply(order(BTC, side, quantity, price))
        self.mirror.orders.follow(events)
        return fills(events)

    def round(self, traded: NDArray[Any] | None = None, alive: bool = True) -> NDArray[Any]:
        """Do what the service does in an interval; give the user's fills."""
        events = []
        if traded is not None:
            events.append(self.local.apply(self.mirror.sweep(traded)))
            self.mirror.orders.follow(events[-1])
        self.sent = self.mirror.reflect(self.external.books, alive).copy()
        events.append(self.local.apply(self.sent))
        self.mirror.orders.follow(events[-1])
        self.mirror.rest_where_halted(3)
        return fills(np.concatenate(events))


def fills(events: NDArray[Any]) -> NDArray[Any]:
    """Give the (price, quantity) of the user's fills."""
    mine = (events["account"] == USER) & np.isin(events["kind"], (EventKind.MAKER_FILL, EventKind.TAKER_FILL))
    return np.array(events[mine][["price", "quantity"]].tolist()).reshape(-1, 2)


BIDS, ASKS = [(999, 10), (998, 20)], [(1001, 10), (1002, 30)]


@pytest.fixture
def world() -> World:
    world = World()
    world.external.snapshot(BIDS, ASKS)
    world.round()
    return world


def test_the_external_levels_stand_in_our_book(world: World) -> None:
    assert world.local.levels(BTC) == [[list(level) for level in side] for side in (BIDS, ASKS)]
    world.round()
    assert len(world.sent) == 0, "nothing changed, nothing is sent"


def test_only_the_top_levels_stand() -> None:
    world = World(levels=2)
    world.external.snapshot([(990 - n, 5) for n in range(10)], [(1000 + n, 5) for n in range(10)])
    world.round()
    assert world.local.levels(BTC) == [[[990, 5], [989, 5]], [[1000, 5], [1001, 5]]]
    world.external.snapshot([(992 - n, 5) for n in range(10)], [(1002 + n, 5) for n in range(10)])
    world.round()
    assert world.local.levels(BTC) == [[[992, 5], [991, 5]], [[1002, 5], [1003, 5]]]


def test_cancels_come_before_amends_before_new_orders(world: World) -> None:
    world.external.snapshot([(1001, 7), (998, 25)], [(1002, 29), (1003, 4)])
    world.round()
    kinds = world.sent["kind"].tolist()
    assert kinds == sorted(kinds, key=[Kind.CANCEL, Kind.AMEND, Kind.NEW].index)
    assert world.local.levels(BTC) == [[[1001, 7], [998, 25]], [[1002, 29], [1003, 4]]]
    assert world.local.engine.position(MIRROR_MAKER, BTC) == 0


def test_market_order_meets_the_external_depth_at_its_prices(world: World) -> None:
    assert world.user(Side.BUY, 25).tolist() == [[1001, 10], [1002, 15]]


def test_what_a_user_took_comes_back_only_with_a_new_external_quantity(world: World) -> None:
    world.user(Side.BUY, 25)
    world.round()
    assert len(world.sent) == 0
    assert world.local.levels(BTC)[1] == [[1002, 15]]
    world.external.snapshot(BIDS, [(1001, 11), (1002, 30)])
    world.round()
    assert world.local.levels(BTC)[1] == [[1001, 11], [1002, 15]]
    world.external.snapshot(BIDS, [(1002, 30)])
    world.round()
    world.external.snapshot(BIDS, ASKS)
    world.round()
    assert world.local.levels(BTC)[1] == [[1001, 10], [1002, 15]]


def test_order_inside_the_spread_is_filled_when_a_trade_prints_through_it(world: World) -> None:
    assert world.user(Side.BUY, 5, 1000).tolist() == []
    assert world.round(trades((Side.SELL, 999, 3))).tolist() == [[1000, 3]]
    assert world.round(trades((Side.SELL, 999, 3))).tolist() == [[1000, 2]]
    assert world.local.engine.position(USER, BTC) == 5


def test_order_behind_the_price_of_a_trade_is_not_filled(world: World) -> None:
    world.user(Side.BUY, 5, 997)
    assert world.round(trades((Side.SELL, 999, 30), (Side.BUY, 1001, 30))).tolist() == []


def test_order_at_a_level_waits_for_the_queue_before_it(world: World) -> None:
    world.user(Side.SELL, 5, 1001)
    assert world.round(trades((Side.BUY, 1001, 4))).tolist() == []
    world.external.snapshot(BIDS, [(1001, 6), (1002, 30)])
    assert world.round().tolist() == []
    assert len(world.sent) == 0, "the sweep did already what the new level says"
    assert world.round(trades((Side.BUY, 1001, 8))).tolist() == [[1001, 2]]


def test_order_is_filled_by_a_trade_at_its_price_behind_levels_that_vanished(world: World) -> None:
    world.user(Side.SELL, 5, 1002)
    world.external.snapshot(BIDS, [(1002, 1), (1003, 5)])
    filled = world.round(trades((Side.BUY, 1002, 33)))
    assert filled.tolist() == [[1002, 3]]
    assert world.local.levels(BTC)[1][-1] == [1003, 5]


def test_order_that_the_external_book_moves_through_is_filled(world: World) -> None:
    world.user(Side.BUY, 5, 1000)
    world.external.snapshot([(990, 10)], [(995, 3), (996, 10)])
    assert world.round().tolist() == [[1000, 3], [1000, 2]]
    assert world.local.levels(BTC) == [[[990, 10]], [[996, 8]]]


def test_quotes_vanish_with_a_gap_and_come_back_with_a_snapshot(world: World) -> None:
    world.user(Side.BUY, 5, 900)
    world.external.gap()
    world.round()
    assert world.local.levels(BTC) == [[[900, 5]], []]
    assert world.round(trades((Side.SELL, 800, 3))).tolist() == [], "a dead market fills nobody"
    assert len(world.sent) == 0
    world.external.snapshot(BIDS, ASKS)
    world.round()
    assert world.local.levels(BTC)[1] == [list(level) for level in ASKS]


def test_quotes_vanish_when_the_feed_ends(world: World) -> None:
    world.round(alive=False)
    assert world.local.levels(BTC) == [[], []]
    assert world.mirror.quoted == 0


def test_halted_instrument_is_left_alone_and_then_quoted_anew(world: World) -> None:
    halt = order(BTC, Side.BUY, 1)
    halt["kind"], halt["account"] = Kind.HALT, 0
    world.local.apply(halt)
    moved = [(1005, 10), (1006, 30)]
    world.external.snapshot(BIDS, moved)
    sent = 0
    for _ in range(8):
        world.round()
        sent += len(world.sent)
    assert sent < 12
    halt["quantity"] = 0
    world.local.apply(halt)
    for _ in range(8):
        world.round()
    assert world.local.levels(BTC)[1] == [list(level) for level in moved]


def test_levels_that_our_engine_cannot_have_are_left_out(world: World) -> None:
    high = TABLE[BTC].price_high
    world.external.snapshot([(998, 1 << 50)], [(high, 2), (high + 1, 3)])
    events = world.round()
    assert len(events) == 0
    assert world.local.levels(BTC) == [[[998, 1 << 38]], [[high, 2]]]


def test_runs_sum_up_and_are_bounded() -> None:
    runs, counts, first = np.zeros((2, 2, RUNS), RUN), np.zeros((2, 2), np.int64), np.zeros(2, np.int64)
    many = [(Side.BUY, 100 + n, 1) for n in range(40)]
    rows = trades((Side.SELL, 50, 2), (Side.SELL, 50, 3), (Side.SELL, 49, 1), *many)
    rows["instrument"][0:3] = 1
    gather_runs(rows, runs, counts, first)
    assert counts.tolist() == [[RUNS, 0], [0, 2]]
    assert first[1] == 1
    assert runs[1, 1, :2].tolist() == [(50, 5), (49, 1)]
    assert runs[0, 0]["quantity"].sum() == 40
    assert runs[0, 0, -1]["price"] == 139


prices = st.integers(1, 12)
sides = st.sampled_from(Side)
printed = st.lists(st.tuples(sides, st.integers(90, 110), st.integers(1, 12)), max_size=6)
books = st.tuples(
    st.integers(95, 105), st.dictionaries(prices, st.integers(1, 9)), st.dictionaries(prices, st.integers(1, 9))
)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("book"), books),
        st.tuples(st.just("trades"), printed),
        st.tuples(st.just("user"), st.tuples(sides, st.integers(1, 15), st.integers(88, 112))),
        st.tuples(st.just("gap"), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(actions)
def test_mirror_agrees_with_the_engine_and_the_external_book(script: list[tuple[str, Any]]) -> None:
    world = World(levels=4)
    external: tuple[list[Level], list[Level]] = ([], [])
    touched = False
    for action, value in script:
        traded = None
        if action == "book":
            middle, bids, asks = value
            external = (
                sorted(((middle - away, lots) for away, lots in bids.items()), reverse=True)[:4],
                sorted((middle + away, lots) for away, lots in asks.items())[:4],
            )
            world.external.snapshot(*external)
        elif action == "trades":
            traded = trades(*value)
            touched = True
        elif action == "user":
            world.user(value[0], value[1], value[2])
            touched = True
        else:
            world.external.gap()
        world.round(traded)
        live = world.external.books.live(BTC)
        assert world.local.engine.open_orders(MIRROR_TAKER) == 0
        assert world.local.engine.open_orders(MIRROR_MAKER) == world.mirror.orders.live
        assert world.mirror.orders.strays == 0
        if not live:
            assert world.mirror.orders.live == 0
        elif not touched:
            assert world.local.levels(BTC) == [[list(level) for level in side] for side in external]
        slots = world.mirror.orders.slots[BTC]
        for own in slots[slots["state"] != 0]:
            assert (own["price"], own["quantity"]) <= max(
                (level for level in external[own["side"] - 1] if level[0] == own["price"]), default=(0, 0)
            ), "a quote is never more than its external level"
