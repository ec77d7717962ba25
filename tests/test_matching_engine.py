"""The engine's edges: what it is given, what it gives back, memory, snapshots that do not fit."""

import sys

import numpy as np
import pytest

from tests.test_matching import command, define, limit, order
from tvops.engine.matching import layout as at
from tvops.engine.matching.engine import Engine
from tvops.engine.matching.snapshot import SnapshotError
from tvops.engine.records import ALL_ACCOUNTS, ALL_INSTRUMENTS, COMMAND, EventKind, Kind, Limit, Reason

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")


def resident():
    """Resident memory in bytes."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


def resting(count, side=1, price=1000, account=1):
    rows = np.repeat(order(account, side, price, 1), count)
    rows["seq"] = np.arange(1, count + 1)
    return rows


def kinds(events):
    return [EventKind(kind).name for kind in events["kind"]]


def test_answers_carry_the_tag_and_fills_the_makers_price():
    engine = Engine()
    engine.apply(np.concatenate([define(), order(1, 2, 100, 5, key_low=77), order(1, 2, 101, 5)]))
    events = engine.apply(order(2, 1, 105, 7, key_low=78, seq=9, time=123))
    assert kinds(events) == ["ACCEPTED", "MAKER_FILL", "TAKER_FILL", "MAKER_FILL", "TAKER_FILL", "TOP"]
    assert events["price"].tolist() == [105, 100, 100, 101, 101, 101]
    assert events["quantity"].tolist() == [7, 5, 5, 2, 2, 3]
    assert events["leaves"].tolist() == [7, 0, 2, 3, 0, 0]
    assert events["account"].tolist() == [2, 1, 2, 1, 2, 0]
    assert events["ref"].tolist() == [78, 1, 1, 2, 2, 0]
    assert set(events["time"]) == {123}
    assert set(events["command_seq"]) == {9}
    assert engine.seq == 9
    assert engine.position(2, 0) == 7
    assert engine.position(1, 0) == -7


def test_amend_keeps_or_loses_priority():
    engine = Engine()
    events = engine.apply(np.concatenate([define(), *[order(account, 1, 100, 5) for account in (1, 2, 3)]]))
    ids = dict(zip(events["account"].tolist(), events["order_id"].tolist(), strict=True))

    def queue():
        return engine.orders()[:, 1].tolist()

    def amend(account, price, quantity):
        row = command(kind=Kind.AMEND, account=account, order_id=ids[account], price=price, quantity=quantity)
        return kinds(engine.apply(row))

    assert amend(1, 100, 4) == ["AMENDED", "TOP"]
    assert queue() == [1, 2, 3]
    assert amend(1, 0, 6) == ["AMENDED", "TOP"]
    assert queue() == [2, 3, 1]
    assert amend(2, 99, 0) == ["AMENDED", "TOP"]
    assert amend(2, 100, 5) == ["AMENDED", "TOP"]
    assert queue() == [3, 1, 2]


def test_orders_of_others_are_unknown():
    engine = Engine()
    order_id = engine.apply(np.concatenate([define(), order(1, 1, 100, 5)]))[1]["order_id"]
    for kind in (Kind.CANCEL, Kind.AMEND):
        for account in (0, 2, ALL_ACCOUNTS):
            events = engine.apply(command(kind=kind, account=account, order_id=order_id, price=99, quantity=1))
            assert events["reason"].tolist() == [Reason.UNKNOWN_ORDER]
    assert engine.open_orders(1) == 1


@pytest.mark.parametrize("spoil", ["read only", "strided", "unaligned"])
def test_commands_may_lie_anyhow_in_memory(spoil):
    rows = np.concatenate([define(), order(1, 1, 100, 5), order(2, 2, 100, 5)])
    expected = Engine().apply(rows)
    if spoil == "read only":
        rows = np.frombuffer(rows.tobytes(), COMMAND)
    elif spoil == "strided":
        rows = np.repeat(rows, 2)[::2]
    else:
        rows = np.frombuffer(b"x" + rows.tobytes(), COMMAND, offset=1)
    assert Engine().apply(rows).tobytes() == expected.tobytes()


def test_other_rows_are_refused():
    with pytest.raises(TypeError, match="COMMAND"):
        Engine().apply(np.zeros(3, np.int64))
    assert len(Engine().apply(np.zeros(0, COMMAND))) == 0


@pytest.mark.parametrize(
    "sizes", [{"max_orders": 0}, {"max_orders": 1 << 20}, {"max_accounts": 1}, {"max_keys": 3}]
)
def test_sizes_are_checked(sizes):
    with pytest.raises(ValueError, match=next(iter(sizes))):
        Engine(**sizes)


@linux
def test_wide_ladders_cost_what_they_use():
    engine = Engine()
    engine.apply(define(0, 1, 100))
    before = resident()
    ladders = [define(i, 1, (1 << 24) - 1) for i in range(1, 64)]
    events = engine.apply(np.concatenate([*ladders, order(1, 1, 8_000_000, 5, instrument=63)]))
    assert (events["kind"][:63] == EventKind.DONE).all()
    assert engine.depth(63, 5)[0].tolist() == [[8_000_000, 5, 1]]
    assert resident() - before < 8 << 20


@linux
def test_huge_batches_and_huge_commands_give_their_memory_back():
    count = 100_000
    engine = Engine(max_orders=count + 10)
    engine.apply(define(0, 1, 2000))
    assert len(engine.apply(resting(count))) == 2 * count
    engine.apply(resting(1, price=999))
    before = resident()

    events = engine.apply(order(2, 2, 1000, count // 2))
    assert (events["kind"] == EventKind.MAKER_FILL).sum() == count // 2
    events = engine.apply(command(kind=Kind.MASS_CANCEL, account=1, instrument=ALL_INSTRUMENTS))
    assert (events["kind"] == EventKind.CANCELLED).sum() == count // 2 + 1
    assert events[-2]["quantity"] == count // 2 + 1
    assert engine.live_orders == 0

    del events
    engine.apply(order(1, 1, 1000, 1))
    assert resident() - before < 1 << 20


def test_a_batch_of_any_size_gives_the_same_as_its_parts():
    rows = np.concatenate([define(0, 1, 2000), resting(40_000)])
    whole, parts = Engine(), Engine()
    got = b"".join(parts.apply(part).tobytes() for part in np.array_split(rows, 7))
    assert whole.apply(rows).tobytes() == got
    assert whole.digest() == parts.digest()


def test_snapshots_that_do_not_fit_are_refused_and_change_nothing():
    engine = Engine(max_orders=10, max_accounts=10)
    engine.apply(np.concatenate([define(), *[order(9, 1, 100, 5) for _ in range(5)]]))
    blob, digest = engine.export_state(), engine.digest()
    for bad in (b"", blob[:-8], blob[:-1], blob[:40] + b"\xff" + blob[41:], b"ABCD" + blob[4:], blob + b"\0" * 8):
        with pytest.raises(SnapshotError):
            engine.import_state(bad)
    for sizes in ({"max_orders": 4}, {"max_accounts": 9}):
        with pytest.raises(SnapshotError, match=next(iter(sizes))):
            Engine(**sizes).import_state(blob)
    assert engine.digest() == digest
    larger = Engine(max_orders=50, max_accounts=20, max_keys=2)
    larger.import_state(blob)
    assert larger.digest() == digest


def test_keys_are_forgotten_oldest_first_across_a_snapshot():
    engine = Engine(max_keys=64)
    engine.apply(define())
    for i in range(200):
        engine.apply(order(1, 1, 95, 1, key_high=i + 1, key_low=1))
        if i % 50 == 0:
            other = Engine(max_keys=64)
            other.import_state(engine.export_state())
            engine = other
    for i, known in ((136, True), (199, True), (135, False)):
        events = engine.apply(order(1, 1, 95, 1, key_high=i + 1, key_low=1))
        assert kinds(events)[0] == ("DUPLICATE" if known else "ACCEPTED"), i


def test_positions_never_overflow():
    engine = Engine()
    engine.apply(np.concatenate([define(), limit(Limit.EXEMPT, 1, account=1), limit(Limit.EXEMPT, 1, account=2)]))
    trade = np.concatenate([order(1, 1, 100, 1 << 38), order(2, 2, 100, 1 << 38)])
    for _ in range(3):
        engine.apply(np.tile(trade, 10_000))
    assert engine.position(1, 0) == 30_000 << 38
    engine._arena.words[engine._arena.words[at.H_POSITIONS] + at.POSITION_WORDS] = (1 << 62) - 5
    events = engine.apply(np.concatenate([order(1, 1, 100, 6), order(1, 1, 100, 5)]))
    assert events["reason"].tolist()[0] == Reason.MAX_POSITION
    assert kinds(events)[1] == "ACCEPTED"
