"""The order table, executions and positions against plain models, fed by the real engine."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tvops.engine.ledger.idempotency import client_key
from tvops.engine.ledger.snapshots import Snapshot
from tvops.engine.ledger.state import TradingState
from tvops.engine.projections.executions import Executions
from tvops.engine.projections.index import find, make_table, put, remove
from tvops.engine.projections.orders import OrderTable, pack_state
from tvops.engine.projections.positions import LARGEST, Positions, share
from tvops.engine.records import (
    ALL_INSTRUMENTS,
    COMMAND,
    EVENT,
    FIRST_USER_ACCOUNT,
    EventKind,
    Kind,
    OrderType,
    Side,
    Status,
    TimeInForce,
)
from tvops.errors import LedgerError

INSTRUMENTS = 2
USERS = (100, 101, 102)
LIQUIDITY = 1


def rows_of(commands: list[dict[str, Any]], first: int = 1) -> NDArray[Any]:
    rows = np.zeros(len(commands), COMMAND)
    for n, command in enumerate(commands):
        for name, value in command.items():
            rows[name][n] = value
        if "client_id" in command:
            rows["key_high"][n], rows["key_low"][n] = client_key(command["account"], command["client_id"])
    rows["seq"] = np.arange(first, first + len(rows))
    rows["time"] = 1000 + rows["seq"]
    return rows


DEFINES = [
    {"kind": Kind.DEFINE, "instrument": i, "price": 1, "quantity": 1000, "order_id": 7} for i in range(INSTRUMENTS)
]


@st.composite
def workloads(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Commands around one price, so that a good part trades; `run` fills in what amends and cancels are for."""
    commands = []
    for n in range(draw(st.integers(1, 60))):
        kind = draw(st.sampled_from([Kind.NEW] * 6 + [Kind.AMEND, Kind.CANCEL, Kind.MASS_CANCEL]))
        command: dict[str, Any] = {
            "kind": kind,
            "account": draw(st.sampled_from((*USERS, LIQUIDITY, 5000))),
            "instrument": draw(st.integers(0, INSTRUMENTS)),  # one that does not exist among them
            "price": draw(st.integers(98, 102)),
            "quantity": draw(st.integers(0, 5)),
            "side": draw(st.sampled_from(list(Side))),
        }
        if kind == Kind.NEW:
            command["order_type"] = draw(st.sampled_from(list(OrderType)))
            command["time_in_force"] = draw(st.sampled_from(list(TimeInForce)))
            if draw(st.booleans()):
                command["client_id"] = f"id-{draw(st.integers(0, n))}"
        elif kind == Kind.MASS_CANCEL:
            command["instrument"], command["side"] = ALL_INSTRUMENTS, 0
        else:
            command["pick"] = draw(st.integers(0, 1 << 30))
        commands.append(command)
    return commands


def run(workload: list[dict[str, Any]], state: TradingState, cuts: list[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Apply a workload in batches; amends and cancels pick one of the orders accepted before their batch."""
    all_commands, all_events, known = [], [], [0]
    plain = [{k: v for k, v in c.items() if k != "pick"} for c in [*DEFINES, *workload]]
    picks = [c.get("pick") for c in [*DEFINES, *workload]]
    rows = rows_of(plain)
    start = 0
    for end in [*cuts, len(rows)]:
        batch = rows[start:end]
        for n in range(start, end):
            if picks[n] is not None:
                # only orders of earlier batches of the reference cut: the same pick whatever the batches
                rows["order_id"][n] = known[picks[n] % len(known)]
        if len(batch):
            events = state.apply(batch).copy()
            known += [int(e["order_id"]) for e in events if e["kind"] == EventKind.ACCEPTED]
            all_commands.append(batch.copy())
            all_events.append(events)
        start = end
    return np.concatenate(all_commands), np.concatenate(all_events)


def model_orders(commands: NDArray[Any], events: NDArray[Any]) -> dict[int, dict[str, Any]]:
    """Order id -> what the order is, by the obvious reading of the events."""
    by_seq = {int(c["seq"]): c for c in commands}
    orders: dict[int, dict[str, Any]] = {}
    for e in events:
        command, kind, order_id = by_seq[int(e["command_seq"])], EventKind(int(e["kind"])), int(e["order_id"])
        if kind in (EventKind.ACCEPTED, EventKind.REJECTED) and command["kind"] == Kind.NEW:
            if not FIRST_USER_ACCOUNT <= command["account"] < 4096:
                continue
            orders[order_id] = {
                "account": int(command["account"]), "price": int(command["price"]), "filled": 0, "notional": 0,
                "quantity": int(command["quantity"]), "client_id": bytes(command["client_id"]),
                "status": Status.OPEN if kind == EventKind.ACCEPTED else Status.REJECTED,
                "reason": int(e["reason"]), "seq": int(e["command_seq"]), "instrument": int(command["instrument"]),
            }  # fmt: skip
        elif order_id in orders and kind in (EventKind.MAKER_FILL, EventKind.TAKER_FILL):
            order = orders[order_id]
            order["filled"] += int(e["quantity"])
            order["notional"] += int(e["quantity"]) * int(e["price"])
            order["status"] = Status.PARTIALLY_FILLED if e["leaves"] else Status.FILLED
        elif order_id in orders and kind == EventKind.CANCELLED:
            orders[order_id]["status"], orders[order_id]["reason"] = Status.CANCELLED, int(e["reason"])
        elif order_id in orders and kind == EventKind.AMENDED:
            order = orders[order_id]
            order["price"], order["quantity"] = int(e["price"]), order["filled"] + int(e["leaves"])
    return orders


LIVE = {Status.OPEN, Status.PARTIALLY_FILLED}


@settings(max_examples=60)
@given(workloads(), st.data())
def test_orders_and_positions_equal_engine_and_model(workload: list[dict[str, Any]], data: st.DataObject) -> None:
    total = len(workload) + len(DEFINES)
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=8)))
    state = TradingState(1024)
    commands, events = run(workload, state, cuts)
    expected = model_orders(commands, events)
    for order_id, order in expected.items():
        row = state.orders.row(order_id)
        assert row is not None
        assert {name: (row[name].item() if name != "client_id" else bytes(row[name])) for name in order} == order
    for account in USERS:
        newest = sorted((i for i, o in expected.items() if o["account"] == account), reverse=True)
        assert state.orders.select(account)["order_id"].tolist() == newest
        live = [i for i in newest if expected[i]["status"] in LIVE]
        assert state.orders.select(account, LIVE)["order_id"].tolist() == live
        assert state.orders.open_count(account) == len(live) == state.engine.open_orders(account)
        first = [i for i in newest if expected[i]["instrument"] == 0]
        assert state.orders.select(account, instrument=0, limit=3)["order_id"].tolist() == first[:3]
        for n, order_id in enumerate(newest):
            assert (
                state.orders.select(account, before=order_id, limit=2)["order_id"].tolist()
                == newest[n + 1 : n + 3]
            )
            by_name = {o["client_id"]: i for i, o in sorted(expected.items()) if o["account"] == account}
            name = expected[order_id]["client_id"]
            if name:
                found = state.orders.by_client_id(account, name)
                assert found is not None
                assert found["order_id"] == by_name[name]
        fills = events[(events["account"] == account) & np.isin(events["kind"], (3, 4))]
        assert state.orders.executions(account, limit=1000).tobytes() == fills[::-1].tobytes()
    assert not len(state.orders.select(LIQUIDITY))
    assert state.orders.row(0) is None
    assert state.orders.by_client_id(100, "nothing") is None
    check_positions(state, events)


def check_positions(state: TradingState, events: NDArray[Any]) -> None:
    model: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for e in events:
        if e["kind"] in (EventKind.MAKER_FILL, EventKind.TAKER_FILL):
            signed = int(e["quantity"]) * (1 if e["side"] == Side.BUY else -1)
            trade_in_model(model[int(e["account"]), int(e["instrument"])], signed, int(e["price"]))
    for account in (*USERS, LIQUIDITY):
        rows = {int(r["instrument"]): r for r in state.orders.positions(account)}
        assert set(rows) == {i for a, i in model if a == account}
        for instrument, row in rows.items():
            assert [int(row[n]) for n in ("quantity", "cost", "realized")] == model[account, instrument]
            assert row["quantity"] == state.engine.position(account, instrument)


@settings(max_examples=40)
@given(workloads(), st.data())
def test_state_is_the_same_in_any_batches_and_through_snapshots(
    workload: list[dict[str, Any]], data: st.DataObject
) -> None:
    whole = TradingState(1024)
    commands, events = run(workload, whole, [len(DEFINES)])
    cuts = sorted(set(data.draw(st.lists(st.integers(1, len(commands) - 1), max_size=8))))
    parts = TradingState(1024)
    seen = []
    for batch in np.split(commands, cuts):
        seen.append(parts.apply(batch).copy())
        if data.draw(st.booleans()):
            snapshot = Snapshot.decode(parts.capture().encode())
            parts = TradingState(1024)
            parts.restore(snapshot)
    assert np.concatenate(seen).tobytes() == events.tobytes()
    assert parts.digest() == whole.digest()


def trade_in_model(held: list[int], signed: int, price: int) -> None:
    """Average cost, with exact fractions cut towards zero; saturating."""
    clamp = lambda value: max(-LARGEST, min(LARGEST, value))  # noqa: E731
    quantity, cost, _ = held
    if quantity * signed < 0:
        closing = min(abs(quantity), abs(signed))
        released = int(Fraction(cost * closing, abs(quantity)))
        proceeds = clamp(price * closing) * (1 if quantity > 0 else -1)
        held[2] = clamp(held[2] + clamp(proceeds - released))
        held[1] = cost - released
        opening = signed + closing if signed < 0 else signed - closing
    else:
        opening = signed
    amount = clamp(price * abs(opening))
    held[1] = clamp(held[1] + (amount if opening > 0 else -amount))
    held[0] = clamp(quantity + signed)


@given(
    st.lists(
        st.tuples(st.integers(-(1 << 38), 1 << 38).filter(bool), st.integers(1, (1 << 24) - 1)),
        min_size=1,
        max_size=40,
    )
)
def test_positions_of_any_size(trades: list[tuple[int, int]]) -> None:
    positions, model = Positions(128), [0, 0, 0]
    events = np.zeros(len(trades), EVENT)
    for n, (signed, price) in enumerate(trades):
        events["kind"][n], events["account"][n] = EventKind.TAKER_FILL, 100
        events["side"][n] = Side.BUY if signed > 0 else Side.SELL
        events["quantity"][n], events["price"][n] = abs(signed), price
        trade_in_model(model, signed, price)
    positions.apply(events)
    (row,) = positions.of(100)
    assert [int(row[n]) for n in ("quantity", "cost", "realized")] == model
    assert positions.take_changed().tobytes() == positions.export().tobytes()
    assert not len(positions.take_changed())


@given(st.integers(-LARGEST, LARGEST), st.integers(0, 1 << 62), st.integers(1, 1 << 62))
def test_share_is_exact(amount: int, part: int, whole: int) -> None:
    part = min(part, whole)
    assert share(amount, part, whole) == int(Fraction(amount * part, whole))


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 3), st.integers(0, 3)), max_size=200))
def test_index_equals_a_dict(steps: list[tuple[int, int, int]]) -> None:
    table, keys = make_table(16), np.zeros((16, 2), np.int64)
    model: dict[tuple[int, int], int] = {}
    used: set[int] = set()
    for slot, high, low in steps:
        if slot in used:
            remove(table, keys, slot)
            used.discard(slot)
            model = {key: s for key, s in model.items() if s != slot}
        else:
            keys[slot] = (high << 40, low)
            put(table, keys, slot)
            used.add(slot)
            model[high << 40, low] = slot
    for high in range(4):
        for low in range(4):
            assert find(table, keys, high << 40, low) == model.get((high << 40, low), -1)


def fill_table(table: OrderTable, count: int, first: int, live_every: int) -> None:
    """Enter orders of which one in ``live_every`` stays live and the others are cancelled."""
    commands = rows_of([{"kind": Kind.NEW, "account": 100, "quantity": 5}] * count, first)
    events = np.zeros(2 * count, EVENT)
    events["command_seq"] = np.repeat(commands["seq"], 2)
    events["order_id"] = events["command_seq"]
    events["account"], events["quantity"] = 100, 5
    events["kind"] = np.tile([EventKind.ACCEPTED, EventKind.CANCELLED], count)
    table.apply(
        commands, events[(events["kind"] == EventKind.ACCEPTED) | (events["command_seq"] % live_every != 0)]
    )


def test_history_evicts_the_oldest_closed_orders_only() -> None:
    table = OrderTable(1024)
    for first in range(1, 20_001, 1000):
        fill_table(table, 1000, first, 5)
    rows = table.select(100, limit=100_000)
    live = rows[rows["status"] == Status.OPEN]["order_id"].tolist()
    closed = rows[rows["status"] == Status.CANCELLED]["order_id"].tolist()
    assert live == [n for n in range(20_000, 0, -1) if n % 5 == 0]
    assert closed == [n for n in range(20_000, 0, -1) if n % 5][:1024]
    assert table.live == table.open_count(100) == 4000
    assert table.row(1) is None
    assert table.row(20_000) is not None
    assert len(table.live_rows()) == 4000
    _, _, missed = table.take_changed()
    assert missed  # rows were evicted before anybody took them
    fill_table(table, 10, 20_001, 5)
    changed, _, missed = table.take_changed()
    assert not missed
    assert sorted(changed["order_id"].tolist()) == list(range(20_001, 20_011))


def test_table_grows_and_a_shorter_history_drops_the_oldest() -> None:
    table = OrderTable(1024)
    for first in range(1, 40_001, 8000):
        fill_table(table, 8000, first, 2)
    assert table.live == 20_000
    assert table.row(2) is not None
    shorter = OrderTable(100)
    shorter.restore(pack_state(table.capture()))
    same = OrderTable(1024)
    same.restore(pack_state(table.capture()))
    assert same.digest() == table.digest()
    assert len(shorter.select(100, limit=100_000)) == 20_100
    assert shorter.select(100, {Status.CANCELLED}, limit=1000)["order_id"].tolist() == list(
        range(39_999, 39_799, -2)
    )
    fill_table(shorter, 500, 40_001, 2)
    assert len(shorter.select(100, {Status.CANCELLED}, limit=1000)) == 100


@pytest.mark.parametrize("blob", [b"", b"x" * 48, b"\xff" * 200])
def test_damaged_state_is_refused(blob: bytes) -> None:
    with pytest.raises(LedgerError):
        OrderTable(1024).restore(blob)


def test_executions_keep_the_newest() -> None:
    ring = Executions(8)
    events = np.zeros(20, EVENT)
    events["kind"], events["ref"] = EventKind.TAKER_FILL, np.arange(20)
    events["account"], events["instrument"] = np.where(np.arange(20) % 4 == 0, 99, 100), np.arange(20) % 2
    ring.apply(events)
    assert ring.select(100, None, 100)["ref"].tolist() == [19, 18, 17, 15, 14, 13, 11, 10]
    assert ring.select(100, 1, 2)["ref"].tolist() == [19, 17]
    again = Executions(8)
    again.restore(ring.export())
    assert again.export().tobytes() == ring.export().tobytes()
    shorter = Executions(3)
    shorter.restore(ring.export())
    assert shorter.select(100, None, 100)["ref"].tolist() == [19, 18, 17]


def test_client_keys() -> None:
    assert client_key(100, "a") == client_key(100, b"a")
    assert client_key(100, "a") != client_key(101, "a")
    assert client_key(1, "a")[0] != 0
    for bad in ("", "x" * 37, "é"):
        with pytest.raises(ValueError):
            client_key(100, bad)
