"""Bars and the significance filter against plain models."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tvops.engine.market.bars import INTERVALS, Bars
from tvops.engine.market.significance import TickFilter
from tvops.engine.records import TICK, TRADE, TickFlag

SECOND = 1_000_000_000
trades = st.tuples(st.integers(60, 260), st.integers(0, 1), st.integers(1, 50), st.integers(1, 9))


def trade_rows(rows: list[tuple[int, int, int, int]]) -> Any:
    out = np.zeros(len(rows), TRADE)
    if rows:
        times, out["instrument"], out["price"], out["quantity"] = np.array(rows).T
        out["time"] = times * SECOND
    return out


@given(st.lists(trades, max_size=60), st.sets(st.integers(1, 60)))
def test_bars(run: list[tuple[int, int, int, int]], cuts: set[int]) -> None:
    run.sort(key=lambda trade: trade[0])
    model: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for time, instrument, price, lots in run:
        for interval in INTERVALS:
            model.setdefault((instrument, interval, time // interval * interval), []).append((price, lots))
    bars, seen, closed, start = Bars(2), {}, set(), 0
    for end in [*sorted(cuts), len(run)]:
        part = run[start:end]
        bars.add_trades(trade_rows(part))
        start = max(start, end)
        for bar in bars.collect(part[-1][0] * SECOND if part else 0):
            key = (int(bar["instrument"]), int(bar["interval"]), int(bar["start"]) // SECOND)
            assert key not in closed
            seen[key] = tuple(int(bar[name]) for name in ("open", "high", "low", "close", "volume", "trades"))
            if bar["closed"]:
                closed.add(key)
    for bar in bars.collect(10**6 * SECOND):
        assert bar["closed"]
        closed.add((int(bar["instrument"]), int(bar["interval"]), int(bar["start"]) // SECOND))
    assert bars.late == 0
    assert closed == set(model)
    for key, rows in model.items():
        prices = [price for price, _ in rows]
        volume = sum(lots for _, lots in rows)
        assert seen[key] == (prices[0], max(prices), min(prices), prices[-1], volume, len(rows))
    assert not len(bars.collect(10**6 * SECOND))


def test_late_trades_change_no_closed_bar() -> None:
    bars = Bars(1)
    bars.add_trades(trade_rows([(100, 0, 5, 1)]))
    assert bars.collect(101 * SECOND)["closed"].tolist() == [1, 0]
    bars.add_trades(trade_rows([(100, 0, 7, 1), (20, 0, 7, 1)]))
    rows = bars.collect(101 * SECOND)
    assert bars.late == 2
    # the minute is still open, so the trade of second 100 belongs to it
    assert rows[["interval", "high", "closed"]].tolist() == [(60, 7, 0)]


def test_mid_prices_make_bars_without_volume() -> None:
    ticks = np.zeros(3, TICK)
    ticks["time"], ticks["bid"], ticks["ask"] = SECOND, (10, 13, 0), (11, 15, 20)
    bars = Bars(1)
    bars.add_mids(ticks)
    row = bars.collect(0)[0]
    assert [int(row[name]) for name in ("open", "high", "low", "close", "volume", "trades")] == [
        10,
        14,
        10,
        14,
        0,
        0,
    ]


def tick_rows(rows: list[tuple[int, int, int, int, int]], instrument: int = 0) -> Any:
    out = np.zeros(len(rows), TICK)
    out["instrument"] = instrument
    out["time"], out["bid"], out["bid_quantity"], out["ask"], out["ask_quantity"] = np.array(rows).reshape(-1, 5).T
    return out


NO_TICKS, NO_TRADES = np.zeros(0, TICK), np.zeros(0, TRADE)


def test_any_change_is_significant_at_zero() -> None:
    chosen = TickFilter(np.array([0]))
    rows = [(1, 10, 5, 11, 5), (2, 10, 5, 11, 5), (3, 10, 6, 11, 5), (4, 9, 6, 11, 5)]
    assert chosen.select(tick_rows(rows), NO_TICKS, NO_TRADES)["time"].tolist() == [1, 3, 4]


def test_moves_add_up_to_the_threshold() -> None:
    chosen = TickFilter(np.array([3]))
    rows = [(n, 100 + n, 5 + n, 200, 5) for n in range(8)]
    assert chosen.select(tick_rows(rows), NO_TICKS, NO_TRADES)["bid"].tolist() == [100, 103, 106]


def test_trades_and_tops_merge_by_time() -> None:
    chosen = TickFilter(np.array([1000]))
    trade = np.zeros(2, TRADE)
    trade["time"], trade["price"], trade["quantity"], trade["side"] = (2, 4), (10, 11), (7, 8), (1, 2)
    tops = tick_rows([(1, 5000, 1, 5001, 1), (3, 5000, 2, 5002, 2)])
    rows = chosen.select(NO_TICKS, tops, trade)
    assert rows[["time", "flags", "last_price", "ask", "side"]].tolist() == [
        (1, 0, 0, 5001, 0),
        (2, TickFlag.TRADE, 10, 5001, 1),
        (4, TickFlag.TRADE, 11, 5002, 2),
    ]


def test_a_ticker_takes_the_place_of_the_book_top() -> None:
    chosen = TickFilter(np.array([0, 0]))
    assert len(chosen.select(NO_TICKS, tick_rows([(1, 1, 1, 2, 1)]), NO_TRADES)) == 1
    both = chosen.select(tick_rows([(2, 3, 1, 4, 1)]), tick_rows([(3, 1, 1, 9, 1)]), NO_TRADES)
    assert both["bid"].tolist() == [3]
    assert len(chosen.select(NO_TICKS, tick_rows([(4, 1, 1, 9, 1)], instrument=1), NO_TRADES)) == 1


def test_stale_prices_are_marked_once() -> None:
    chosen, first = TickFilter(np.array([0, 0])), np.array([0, 1])
    chosen.select(tick_rows([(1, 10, 5, 11, 5)]), NO_TICKS, NO_TRADES)
    assert chosen.mark(first, True, 9)[["instrument", "flags", "time", "bid"]].tolist() == [
        (0, TickFlag.STALE, 9, 10)
    ]
    assert not len(chosen.mark(first, True, 9))
    assert chosen.select(tick_rows([(2, 9, 5, 11, 5)]), NO_TICKS, NO_TRADES)["flags"].tolist() == [TickFlag.STALE]
    assert chosen.mark(first, False, 10)["flags"].tolist() == [0]
