"""What the market data service remembers, against small plain models; the JSON writer against decimal strings."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvops.engine.bus.packing import pack
from tvops.engine.instruments import load_instruments
from tvops.engine.records import BAR, DEPTH, TICK, TRADE, DepthFlag, RecordType, Side
from tvops.engine.stream.encoder import Encoder
from tvops.engine.stream.frames import FrameFlag, Opcode, binary_messages, message
from tvops.engine.stream.history import Bars, Channel, Encoding, Ring, split
from tvops.engine.stream.intake import Intake, Update

TABLE = load_instruments()


def numbered(first: int, size: int) -> Any:
    rows = np.zeros(size, TRADE)
    rows["trade_id"] = np.arange(first, first + size)
    return rows


@given(st.lists(st.integers(0, 25) | st.none(), max_size=30), st.integers(-2, 120))
def test_ring_keeps_the_newest(steps: list[int | None], asked: int) -> None:
    ring, model, floor = Ring(TRADE, 16), [], 0  # model: sequence -> row, None for what was never received
    for step in steps:
        if step is None:
            ring.interrupt()
            model.append(None)
            floor = len(model)
        else:
            rows = numbered(len(model) + 1, step)
            ring.append(rows)
            model += rows["trade_id"].tolist()
    assert ring.sequence == len(model)
    found = ring.since(asked)
    if max(floor, len(model) - 16) <= asked <= len(model):
        assert found is not None
        assert found["trade_id"].tolist() == model[asked:]
    else:
        assert found is None or (asked >= floor and found["trade_id"].tolist() == model[asked:])
    received = [number for number in model if number is not None]
    assert ring.newest(5)["trade_id"].tolist() == received[-5:]


@given(st.lists(st.lists(st.integers(0, 60), max_size=8), max_size=20), st.integers(1, 40))
def test_bars_replace_by_start(batches: list[list[int]], asked: int) -> None:
    bars, model, tag = Bars(24), {}, count(1)
    for batch in batches:
        rows = np.zeros(len(batch), BAR)
        rows["start"], rows["close"] = batch, [next(tag) for _ in batch]
        bars.take(rows)
        for row in rows.tolist():
            if row[0] in model or not model or row[0] > max(model):
                model[row[0]] = row[4]
    expected = sorted(model.items())[-min(asked, 24) :]
    newest = bars.newest(asked)
    assert list(zip(newest["start"].tolist(), newest["close"].tolist(), strict=True)) == expected


@given(st.lists(st.integers(0, 9), max_size=40))
def test_split_keeps_order_and_drops_the_unknown(instruments: list[int]) -> None:
    rows = numbered(0, len(instruments))
    rows["instrument"] = instruments
    found = {instrument: own["trade_id"].tolist() for instrument, own in split(rows, 6)}
    assert found == {
        i: [n for n, each in enumerate(instruments) if each == i] for i in sorted({*instruments}) if i < 6
    }


# Books: a writer that keeps a plain book and publishes it, sometimes badly


class Writer:
    """Publishes the updates of one plain book."""

    def __init__(self) -> None:
        self.update = 0
        self.levels: dict[tuple[int, int], int] = {}

    def change(self, changes: list[tuple[int, int, int]]) -> Any:
        """Give one numbered update; a bid is priced 1..20, an ask 31..50, so that the book never crosses."""
        self.update += 1
        rows = np.zeros(len(changes), DEPTH)
        for row, (side, place, quantity) in zip(rows, changes, strict=True):
            price = place if side == Side.BUY else 30 + place
            row["update"], row["price"], row["quantity"], row["side"] = self.update, price, quantity, side
            self.levels[side, price] = quantity
        self.levels = {key: quantity for key, quantity in self.levels.items() if quantity}
        return self._mark(rows)

    def snapshot(self) -> Any:
        rows = np.zeros(max(1, len(self.levels)), DEPTH)
        for row, ((side, price), quantity) in zip(rows, self.levels.items(), strict=False):
            row["price"], row["quantity"], row["side"] = price, quantity, side
        rows["update"] = self.update
        rows["flags"] = DepthFlag.SNAPSHOT
        return self._mark(rows)

    def _mark(self, rows: Any) -> Any:
        rows["flags"][0] |= DepthFlag.FIRST
        rows["flags"][-1] |= DepthFlag.LAST
        return rows


def follow(book: dict[tuple[int, int], int], update: Update) -> dict[tuple[int, int], int] | None:
    """Do what a client does with a book message; None: the book is not valid."""
    if update.flags & FrameFlag.SNAPSHOT:
        book = {}
    elif update.flags & FrameFlag.GAP:
        return None
    for row in update.rows:
        book[int(row["side"]), int(row["price"])] = int(row["quantity"])
    return {key: quantity for key, quantity in book.items() if quantity}


CHANGES = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.integers(1, 20), st.integers(0, 3)), min_size=1, max_size=6
)
STEPS = st.lists(
    st.one_of(
        CHANGES.map(lambda changes: ("change", changes)),
        st.sampled_from([("snapshot", []), ("lose", []), ("gap", []), ("bus gap", []), ("restart", [])]),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(STEPS, st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_a_follower_has_the_book_of_the_writer(steps: list[tuple[str, Any]], cuts: list[int]) -> None:
    """However the rows are cut into entries: whoever follows has the writer's book, or knows better."""
    writer, intake = Writer(), Intake(1)
    topic = intake.topics.find(Channel.BOOK, 0)
    book: dict[tuple[int, int], int] | None = None
    sequence, lost = 0, False
    for (what, changes), cut in zip(steps, [cuts[n % len(cuts)] for n in range(len(steps))], strict=True):
        updates = []
        if what == "bus gap":
            updates = intake.interrupt()
            rows = np.zeros(0, DEPTH)
        elif what == "gap":
            rows = np.zeros(1, DEPTH)
            rows["flags"] = DepthFlag.GAP
        elif what == "change":
            rows = writer.change(changes)
        elif what == "lose":
            writer.change([(1, 1, 1)])
            rows, lost = np.zeros(0, DEPTH), True
        else:
            if what == "restart":
                writer.update = 0
            rows, lost = writer.snapshot(), False
        for start in range(0, len(rows), cut):
            updates += intake.take([pack(rows[start : start + cut].copy(), RecordType.DEPTH)])
        for update in updates:
            if update.topic is not topic:
                continue
            if not update.flags & (FrameFlag.SNAPSHOT | FrameFlag.GAP):
                assert update.sequence - len(update.rows) == sequence
            assert update.sequence >= sequence
            sequence = update.sequence
            book = follow(book or {}, update)
        assert (book is not None) == intake.books.live(0)
        if book is not None and not lost:
            assert book == writer.levels
            state = intake.state(topic, 0)
            assert state.sequence == sequence
            assert follow({}, state) == writer.levels


def test_books_of_limited_depth_are_told_when_they_change() -> None:
    writer, intake = Writer(), Intake(1)
    topic = intake.topics.find(Channel.BOOK, 0, depth=5)
    topic.subscribers[Encoding.JSON] = 1

    def take(rows: Any) -> list[Update]:
        return [u for u in intake.take([pack(rows, RecordType.DEPTH)]) if u.topic is topic]

    take(writer.snapshot())
    (update,) = take(writer.change([(1, place, 1) for place in range(10, 17)]))
    assert update.rows["price"].tolist() == [16, 15, 14, 13, 12]
    assert update.flags == FrameFlag.SNAPSHOT
    assert take(writer.change([(1, 3, 1)])) == []
    (update,) = take(writer.change([(2, 3, 9), (1, 16, 0)]))
    assert update.rows["price"].tolist() == [15, 14, 13, 12, 11, 33]
    assert update.sequence == topic.ring.sequence


def test_damaged_entries_are_told_as_a_gap() -> None:
    intake = Intake(1)
    ticks = np.zeros(2, TICK)
    good = pack(ticks, RecordType.TICK)
    (first,) = intake.take([good])
    (second,) = intake.take([good[:-1] + b"x" if good[-1:] != b"x" else good[:-1] + b"y", good])
    assert (first.flags, second.flags) == (0, FrameFlag.GAP)
    assert second.sequence == 5  # two, one for what was lost, two
    assert intake.missed(second.topic, 2) is None
    assert intake.damaged == 1


def test_conflation_keeps_the_newest_and_counts_the_rest() -> None:
    intake = Intake(1)
    ticks, trades, bars = np.zeros(10, TICK), numbered(1, 700), np.zeros(6, BAR)
    ticks["bid"] = range(10)
    bars["interval"], bars["start"], bars["close"] = 1, [1, 1, 1, 2, 2, 3], range(6)
    intake.take([pack(ticks, RecordType.TICK), pack(trades, RecordType.TRADE), pack(bars, RecordType.BAR)])

    tick = intake.conflated(intake.topics.find(Channel.TICKS, 0), 4)
    assert (tick.rows["bid"].tolist(), tick.missed, tick.flags) == ([9], 5, FrameFlag.CONFLATED)
    trade = intake.conflated(intake.topics.find(Channel.TRADES, 0), 300)
    assert (trade.rows["trade_id"].tolist(), trade.missed, trade.flags) == (list(range(301, 701)), 0, 0)
    trade = intake.conflated(intake.topics.find(Channel.TRADES, 0), 100)
    assert (len(trade.rows), trade.missed, trade.flags) == (512, 88, FrameFlag.CONFLATED)
    bar = intake.conflated(intake.topics.find(Channel.BARS, 0, interval=1), 1)
    assert (bar.rows["start"].tolist(), bar.rows["close"].tolist(), bar.missed) == ([1, 2, 3], [2, 4, 5], 2)


# Messages


def payload(data: bytes) -> bytes:
    size = data[1]
    start = 2 if size < 126 else 4 if size == 126 else 10
    assert len(data) - start == (size if size < 126 else int.from_bytes(data[2:start], "big"))
    return data[start:]


@given(st.sampled_from([0, 1, 125, 126, 65_535, 65_536, 70_000]))
def test_message_lengths(size: int) -> None:
    data = message(Opcode.BINARY, b"a" * size)
    assert data[0] == 0x82
    assert payload(data) == b"a" * size


def test_binary_messages_are_bounded() -> None:
    frames = [bytes([n]) * 100_000 for n in range(7)]
    data, messages = binary_messages(frames)
    assert messages == 4
    assert len(data) == 700_000 + 4 * 10
    assert binary_messages([b"x" * 2_000_000])[1] == 1


INT = st.integers(-(1 << 40), 1 << 40)


@given(st.lists(st.tuples(INT, INT, INT), max_size=12), st.sampled_from(TABLE.all))
def test_text_is_what_the_instrument_formats(values: list[tuple[int, int, int]], instrument: Any) -> None:
    encoder, intake = Encoder(TABLE.all, epoch=7), Intake(len(TABLE))
    rows = np.zeros(len(values), TICK)
    for row, (bid, quantity, time) in zip(rows, values, strict=True):
        row["bid"], row["ask_quantity"], row["time"], row["flags"] = bid, quantity, time, abs(time) % 4
        row["side"] = abs(bid) % 3
    topic = intake.topics.find(Channel.TICKS, instrument.index)
    (text,) = encoder.texts(Update(topic, rows, len(values)), sent=5)
    decoded = json.loads(payload(text))
    assert decoded["symbol"] == instrument.symbol
    assert (decoded["seq"], decoded["sent"], decoded["epoch"]) == (len(values), 5, 7)
    for row, (bid, quantity, time) in zip(decoded["rows"], values, strict=True):
        assert row["bid"] == (instrument.price.format(bid) if bid else None)
        assert row["ask_quantity"] == (instrument.quantity.format(quantity) if quantity else None)
        assert row["time"] == time
        assert (row["trade"], row["stale"]) == (bool(abs(time) & 1), bool(abs(time) & 2))
        assert row["side"] == [None, "buy", "sell"][abs(bid) % 3]


def test_long_updates_are_cut_and_snapshots_are_not() -> None:
    encoder, topic = Encoder(TABLE.all, epoch=7), Intake(1).topics.find(Channel.TRADES, 0)
    update = Update(topic, numbered(1, 2500), 2600, int(FrameFlag.GAP))
    texts = [json.loads(payload(text)) for text in encoder.texts(update, sent=5)]
    assert [(len(t["rows"]), t["seq"], t.get("gap")) for t in texts] == [
        (1024, 1124, True),
        (1024, 2148, None),
        (452, 2600, None),
    ]
    assert len(encoder.frames(update, sent=5)) == 3
    assert len(encoder.frames(update._replace(flags=int(FrameFlag.SNAPSHOT)), sent=5)) == 1
