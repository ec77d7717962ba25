"""L2 books, and what readers see of them, against plain dictionaries."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvops.engine.market.book import Books, BookState
from tvops.engine.market.window import Windows
from tvops.engine.records import DEPTH, DepthFlag, Side

INSTRUMENTS, CAPACITY, DEPTHS = 3, 12, (1, 3, 20)
SNAPSHOT, FIRST, LAST, GAP = DepthFlag.SNAPSHOT, DepthFlag.FIRST, DepthFlag.LAST, DepthFlag.GAP

levels = st.lists(st.tuples(st.sampled_from(Side), st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=6)
kinds = st.sampled_from(("delta", "delta", "delta", "snapshot", "skip", "repeat", "gap"))
steps = st.tuples(st.integers(0, INSTRUMENTS - 1), kinds, levels)


def rows_of(instrument: int, update: int, flags: int, rows: list[tuple[int, int, int]]) -> Any:
    out = np.zeros(len(rows), DEPTH)
    out["instrument"], out["update"], out["flags"], out["time"] = instrument, update, flags, update
    out["side"], out["price"], out["quantity"] = np.array(rows).T
    out["flags"][0] |= FIRST
    out["flags"][-1] |= LAST
    return out


class Model:
    """One book as two dictionaries."""

    def __init__(self) -> None:
        self.sides: dict[Side, dict[int, int]] = {Side.BUY: {}, Side.SELL: {}}
        self.state, self.update = BookState.SYNCING, 0

    def take(self, kind: str, rows: list[tuple[Side, int, int]]) -> tuple[int, int]:
        """Apply a step; give the update number and the flags of its rows."""
        if kind == "gap":
            if self.state == BookState.LIVE:
                self.state = BookState.GAP
            return self.update, GAP
        number = self.update + {"skip": 2, "repeat": 0}.get(kind, 1)
        if kind == "snapshot":
            self.sides = {Side.BUY: {}, Side.SELL: {}}
        elif self.state != BookState.LIVE or kind == "repeat":
            return number, 0
        elif kind == "skip":
            self.state = BookState.GAP
            return number, 0
        for side, price, quantity in rows:
            self.sides[side].pop(price, None)
            if quantity:
                self.sides[side][price] = quantity
        self.update = number
        bids, asks = self.sides[Side.BUY], self.sides[Side.SELL]
        self.state = BookState.GAP if bids and asks and max(bids) >= min(asks) else BookState.LIVE
        return number, SNAPSHOT if kind == "snapshot" else 0

    def levels(self, count: int) -> tuple[list[list[int]], list[list[int]]]:
        bids = sorted(self.sides[Side.BUY].items(), reverse=True)
        asks = sorted(self.sides[Side.SELL].items())
        return [list(level) for level in bids[:count]], [list(level) for level in asks[:count]]


def shifted(side: Side, price: int) -> int:
    """Bids 1-9, asks 8-16: they cross now and then."""
    return price if side == Side.BUY else price + 7


def reader_takes(rows: Any, books: list[Model]) -> None:
    """Follow the published rows as a client does, by the rules of the window module."""
    for row in rows:
        model, flags = books[row["instrument"]], int(row["flags"])
        if flags & GAP:
            model.state = BookState.GAP
            assert row["update"] == model.update
            continue
        if model.state == BookState.SYNCING and not flags & SNAPSHOT:
            continue
        if flags & FIRST:
            if flags & SNAPSHOT:
                assert int(row["update"]) - model.update in (0, 1)
                model.sides = {Side.BUY: {}, Side.SELL: {}}
                model.state = BookState.LIVE
            else:
                assert model.state == BookState.LIVE
                assert row["update"] == model.update + 1
            model.update = int(row["update"])
        assert model.update == row["update"]
        if row["price"]:
            side = model.sides[Side(int(row["side"]))]
            had = side.pop(int(row["price"]), None)
            if row["quantity"]:
                side[int(row["price"])] = int(row["quantity"])
            else:
                assert had
        if flags & LAST and model.sides[Side.BUY] and model.sides[Side.SELL]:
            assert max(model.sides[Side.BUY]) < min(model.sides[Side.SELL])


@settings(max_examples=150)
@given(st.lists(steps, max_size=40), st.lists(st.booleans(), min_size=40, max_size=40), st.booleans())
def test_books_and_windows(run: list[Any], cuts: list[bool], with_snapshots: bool) -> None:
    books, models = Books(INSTRUMENTS, CAPACITY + 8), [Model() for _ in range(INSTRUMENTS)]
    windows, readers = Windows(np.array(DEPTHS)), [Model() for _ in range(INSTRUMENTS)]
    changed, pending = np.zeros(INSTRUMENTS, bool), []
    for (instrument, kind, raw), cut in zip([*run, (0, "gap", [(1, 1, 1)])], [*cuts, True], strict=False):
        rows = [(side, shifted(side, price), quantity) for side, price, quantity in raw]
        number, flags = models[instrument].take(kind, rows)
        pending.append(rows_of(instrument, number, flags, [(0, 0, 0)] if kind == "gap" else rows))
        if not cut:
            continue
        books.apply(np.concatenate(pending))
        pending.clear()
        changed |= books.changed
        out = windows.publish(books, changed, np.full(INSTRUMENTS, with_snapshots), 1)
        changed[:] = False
        reader_takes(out, readers)
        for i, (model, reader) in enumerate(zip(models, readers, strict=True)):
            assert books.states[i] == model.state
            assert [side.tolist() for side in books.levels(i, 5)] == list(model.levels(5))
            assert (reader.state == BookState.LIVE) == (model.state == BookState.LIVE)
            if model.state == BookState.LIVE:
                assert reader.levels(99) == model.levels(DEPTHS[i])
                assert list(books.top(i)[:2]) == (model.levels(1)[0] or [[0, 0]])[0]


def test_ticks_say_every_change_of_the_top() -> None:
    books = Books(1)
    ticks = books.apply(
        np.concatenate(
            [
                rows_of(0, 1, SNAPSHOT, [(1, 10, 5), (2, 12, 6)]),
                rows_of(0, 2, 0, [(1, 9, 5)]),
                rows_of(0, 3, 0, [(1, 11, 1), (2, 12, 0)]),
            ]
        )
    )
    assert ticks[["bid", "bid_quantity", "ask", "ask_quantity"]].tolist() == [(10, 5, 12, 6), (11, 1, 0, 0)]
    assert ticks["time"].tolist() == [1, 3]


def test_a_full_side_keeps_its_best_levels() -> None:
    books = Books(1, capacity=4)
    books.apply(rows_of(0, 1, SNAPSHOT, [(1, price, 1) for price in (5, 1, 9, 3, 7, 2, 8)]))
    assert books.levels(0, 9)[0][:, 0].tolist() == [9, 8, 7, 5]
    assert books.dropped[0] == 3


def test_a_crossed_book_is_never_live_or_published() -> None:
    books, windows = Books(1), Windows(np.array([5]))
    books.apply(rows_of(0, 1, SNAPSHOT, [(1, 10, 5), (2, 12, 6)]))
    one = np.ones(1, bool)
    assert len(windows.publish(books, one, ~one, 1)) == 2
    books.apply(rows_of(0, 2, 0, [(1, 12, 1)]))
    assert (books.live(0), books.crossed[0], books.top(0)) == (False, 1, (10, 5, 12, 6))
    rows = windows.publish(books, one, ~one, 1)
    assert rows[["flags", "price", "update"]].tolist() == [(GAP | FIRST | LAST, 0, 1)]
    assert not len(windows.publish(books, one, one, 1))
    books.apply(rows_of(0, 7, SNAPSHOT, [(1, 10, 5), (2, 12, 6)]))
    rows = windows.publish(books, one, ~one, 1)
    assert rows["update"].tolist() == [2, 2]
    assert rows["flags"].tolist() == [SNAPSHOT | FIRST, SNAPSHOT | LAST]


def test_an_empty_snapshot_is_one_row() -> None:
    books, windows = Books(1), Windows(np.array([5]))
    books.apply(rows_of(0, 1, SNAPSHOT, [(0, 0, 0)]))
    assert books.live(0)
    rows = windows.publish(books, np.ones(1, bool), np.ones(1, bool), 1)
    assert rows[["price", "quantity", "update"]].tolist() == [(0, 0, 1)]
    assert rows["flags"].tolist() == [SNAPSHOT | FIRST | LAST]


def test_unknown_instruments_are_ignored() -> None:
    books = Books(1)
    assert not len(books.apply(rows_of(7, 1, SNAPSHOT, [(1, 10, 5)])))
