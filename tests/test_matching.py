"""The engine against the plain model: every event of every command, however the commands are cut into batches."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.matching_model import Model
from tvops.engine.matching.engine import Engine
from tvops.engine.records import ALL_ACCOUNTS, ALL_INSTRUMENTS, COMMAND, EVENT, Kind, Limit

SIZES = {"max_orders": 12, "max_accounts": 6, "max_keys": 4}
QUICK = settings(max_examples=150)


def command(**fields):
    row = np.zeros(1, COMMAND)
    for name, value in fields.items():
        row[0][name] = value
    return row


def define(instrument=0, low=90, size=30):
    return command(kind=Kind.DEFINE, instrument=instrument, price=low, quantity=size, order_id=7)


def order(account, side, price, quantity, order_type=1, time_in_force=1, **fields):
    return command(
        kind=Kind.NEW, account=account, side=side, price=price, quantity=quantity,
        order_type=order_type, time_in_force=time_in_force, **fields,
    )  # fmt: skip


def limit(which, value, account=0, instrument=0):
    return command(kind=Kind.SET_LIMIT, param=which, quantity=value, account=account, instrument=instrument)


EDGES = [-(1 << 63), -1, 0, 1, 100, (1 << 24) - 1, 1 << 24, (1 << 37) - 1, 1 << 37, 1 << 38, (1 << 38) + 1]
EDGES += [(1 << 62) - 1, 1 << 62, (1 << 63) - 1]


def new_order(pick):
    fields = {
        "kind": Kind.NEW, "account": pick(1, 2, 3, 4), "instrument": pick(0, 0, 1), "side": pick(1, 2),
        "quantity": pick(*range(1, 8)), "self_trade": pick(0, 1, 2, 3),
    }  # fmt: skip
    if pick(*range(8)) == 0:
        return fields | {"order_type": 2, "time_in_force": pick(1, 2, 3), "quantity": pick(1, 5, 20)}
    fields |= {"order_type": 1, "time_in_force": pick(1, 1, 1, 1, 2, 3), "price": pick(*range(95, 106))}
    return fields | {"flags": pick(0, 0, 0, 1) if fields["time_in_force"] == 1 else 0}


def change(pick):
    return {
        "kind": pick(Kind.AMEND, Kind.CANCEL), "target": pick(*range(30)), "stranger": pick(0, 0, 0, 0, 0, 1),
        "price": pick(0, 0, *range(95, 106), 89, 120), "quantity": pick(0, *range(1, 8)),
        "flags": pick(0, 0, 0, 0, 1), "self_trade": pick(0, 1, 2, 3),
    }  # fmt: skip


def set_limit(pick):
    which = pick(*Limit)
    values = {
        Limit.MAX_ORDER_QUANTITY: (3, 5), Limit.MAX_ORDER_NOTIONAL: (300, 500), Limit.MAX_POSITION: (8, 15),
        Limit.MAX_OPEN_ORDERS: (2, 3), Limit.COLLAR: (150, 400), Limit.EXEMPT: (1,),
    }  # fmt: skip
    account = 0 if which == Limit.COLLAR else pick(0, 1, 2) if which != Limit.EXEMPT else pick(1, 2)
    instrument = pick(0, 1, ALL_INSTRUMENTS)
    return {
        "kind": Kind.SET_LIMIT, "param": which, "account": account, "instrument": instrument,
        "quantity": pick(0, *values[which]),
    }  # fmt: skip


def switch(pick):
    kind = pick(Kind.MASS_CANCEL, Kind.KILL, Kind.KILL, Kind.HALT, Kind.HALT, Kind.CLOCK, Kind.DEFINE)
    fields = {"kind": kind, "instrument": pick(0, 1, ALL_INSTRUMENTS), "account": pick(1, 2, 3, 4, ALL_ACCOUNTS)}
    if kind == Kind.MASS_CANCEL:
        return fields | {"side": pick(0, 1, 2)}
    if kind == Kind.DEFINE:
        return fields | {"instrument": pick(0, 0, 63), "price": pick(90, 91), "quantity": 30, "order_id": 7}
    return fields | {"quantity": pick(0, 0, 0, 1)}


def spoilt(pick):
    fields = pick(new_order, change, set_limit, switch)(pick)
    wild = {
        "kind": range(256), "account": (0, 5, 6, 1 << 31, ALL_ACCOUNTS), "side": (0, 3, 129, 255),
        "instrument": (2, 62, 64, 1 << 15, ALL_INSTRUMENTS), "price": EDGES, "quantity": EDGES, "order_id": EDGES,
        "order_type": (0, 3, 255), "time_in_force": (0, 4, 255), "flags": (1, 2, 255), "self_trade": (4, 255),
        "param": (0, 7, 255),
    }  # fmt: skip
    name = pick(*wild)
    fields.pop("target", None)
    fields.pop("stranger", None)
    return fields | {name: pick(*wild[name])}


KINDS_OF_STEP = (*[new_order] * 12, *[change] * 6, set_limit, set_limit, switch, spoilt)


def steps(seed, count):
    """Give (fields, idempotency key) of random commands of every kind, good and bad."""
    source = random.Random(seed)

    def pick(*choices):
        return source.choice(choices)

    keys = [0] * 12 + [1, 2, 3, 4, 5, (1 << 64) - 1]
    return [(pick(*KINDS_OF_STEP)(pick), pick(*keys)) for _ in range(count)]


def run_model(drawn):
    """Turn drawn steps into commands, order ids resolved, while the model answers them."""
    model = Model(**SIZES)
    rows, events, seen = [define(0, 90, 30), define(1, 1, (1 << 24) - 1)], [], [(1, 1)]
    for row in rows:
        events.append(model.apply(row))
    for fields, key in drawn:
        fields = dict(fields)
        if "target" in fields:
            order_id, account = seen[-1 - fields.pop("target") % len(seen)]
            stranger = fields.pop("stranger")
            fields |= {"order_id": order_id, "account": account % 5 + 1 if stranger else account}
        row = command(
            seq=len(rows) + 1, time=len(rows) * 10, key_high=key, key_low=len(rows) if not key else 9, **fields
        )
        rows.append(row)
        events.append(model.apply(row))
        if fields["kind"] == Kind.NEW:
            seen.append((int(events[-1][0]["order_id"]), fields.get("account", 0) % 6))
    return np.concatenate(rows), np.concatenate(events), model


def assert_same(got, expected, commands):
    """Compare event bytes; where they differ, say at which command."""
    if got.tobytes() == expected.tobytes():
        return
    for i in range(max(len(got), len(expected))):
        ours = got[i] if i < len(got) else None
        theirs = expected[i] if i < len(expected) else None
        seq = (theirs if theirs is not None else ours)["command_seq"]
        assert ours == theirs, f"event {i} of command {commands[commands['seq'] == seq]}"
    raise AssertionError("reserved bytes are not zero")


def one_by_one(engine, commands):
    return np.concatenate(
        [np.zeros(0, EVENT)] + [engine.apply(commands[i : i + 1]).copy() for i in range(len(commands))]
    )


@QUICK
@given(st.integers(0, 1 << 32), st.integers(0, 150), st.integers(0, 150))
def test_every_event_equals_the_models_and_cuts_do_not_matter(seed, count, cut):
    commands, expected, model = run_model(steps(seed, count))
    whole, single, halves = Engine(**SIZES), Engine(**SIZES), Engine(**SIZES)
    assert_same(whole.apply(commands), expected, commands)
    assert_same(one_by_one(single, commands), expected, commands)
    assert whole.digest() == single.digest()

    first = halves.apply(commands[:cut]).copy()
    restored = Engine(**SIZES)
    restored.import_state(halves.export_state())
    assert restored.digest() == halves.digest()
    assert_same(np.concatenate([first, restored.apply(commands[cut:])]), expected, commands)
    assert restored.digest() == whole.digest()

    for (account, instrument), lots in model.positions.items():
        assert whole.position(account, instrument) == lots
    for instrument, book in model.books.items():
        assert whole.last_price(instrument) == book.last
        assert whole.is_halted(instrument) == book.halted
        assert whole.limit(Limit.COLLAR, instrument=instrument) == (book.collar or 0)
        for which, value in book.limits.items():
            assert whole.limit(which, instrument=instrument) == value
        for side, rows in zip((1, 2), whole.depth(instrument, 100), strict=True):
            levels = {}
            for resting in book.queue(side):
                lots, orders = levels.get(resting.price, (0, 0))
                levels[resting.price] = (lots + resting.left, orders + 1)
            assert [tuple(row) for row in rows] == [(price, *level) for price, level in levels.items()]
    assert whole.live_orders == len(model.live) == len(whole.orders())
    assert whole.is_killed() == model.all_killed
    for (account, instrument, which), value in model.account_limits.items():
        assert whole.limit(which, account, instrument) == value
    for account, value in model.open_limits.items():
        assert whole.limit(Limit.MAX_OPEN_ORDERS, account) == value
    for account in range(1, 6):
        assert whole.open_orders(account) == len(model.resting(account))
        assert whole.is_killed(account) == (account in model.killed)
        assert whole.is_exempt(account) == (account in model.exempt)
    for order_id, account, instrument, side, price, left in whole.orders().tolist():
        o = model.live[order_id]
        assert (account, instrument, side, price, left) == (o.account, o.instrument, o.side, o.price, o.left)


@QUICK
@given(
    st.binary(min_size=0, max_size=COMMAND.itemsize * 20), st.lists(st.integers(0, 10), min_size=20, max_size=20)
)
def test_random_bytes_are_answered_as_the_model_says(garbage, kinds):
    rows = np.frombuffer(garbage[: len(garbage) // COMMAND.itemsize * COMMAND.itemsize], COMMAND).copy()
    rows["kind"][: len(rows)] = kinds[: len(rows)]
    commands = np.concatenate([define(), order(1, 1, 100, 5), rows])
    engine, model = Engine(**SIZES), Model(**SIZES)
    assert_same(engine.apply(commands), model.apply(commands), commands)


def random_flow(rng, count, accounts=20, instruments=2):
    """Plain order flow around a wandering price, with cancels and amends by order number."""
    rows = np.zeros(count, COMMAND)
    rows["seq"] = np.arange(1, count + 1)
    rows["kind"] = rng.choice([1, 1, 1, 3, 2], count)
    rows["account"] = rng.integers(1, accounts, count)
    rows["instrument"] = rng.integers(0, instruments, count)
    rows["side"] = rng.integers(1, 3, count)
    middle = 5000 + np.cumsum(rng.integers(-3, 4, count))
    away = rng.geometric(0.1, count) - 3
    rows["price"] = middle + np.where(rows["side"] == 1, -away, away)
    rows["quantity"] = rng.integers(1, 100, count)
    rows["order_type"] = rng.choice([1, 1, 1, 1, 2], count)
    rows["price"][(rows["order_type"] == 2) & (rows["kind"] == 1)] = 0
    rows["time_in_force"] = rng.choice([1, 1, 1, 1, 2, 3], count)
    rows["self_trade"] = rng.integers(0, 4, count)
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_long_flow_equals_the_model(seed):
    rng = np.random.default_rng(seed)
    model, engine = Model(max_orders=300), Engine(max_orders=300)
    head = np.concatenate(
        [
            define(0, 1, 16_000_000),
            define(1, 4000, 3000),
            limit(Limit.MAX_POSITION, 900),
            limit(Limit.MAX_OPEN_ORDERS, 12),
            limit(Limit.COLLAR, 200),
            limit(Limit.MAX_ORDER_NOTIONAL, 450_000, instrument=1),
        ]
    )
    assert_same(engine.apply(head), model.apply(head), head)
    seen = [(1, 1)]
    for row in np.split(random_flow(rng, 2500), 2500):
        if row[0]["kind"] != Kind.NEW:
            recent = list(model.live.values()) if rng.random() < 0.9 else []
            target = recent[rng.integers(len(recent))] if recent else None
            row["order_id"], row["account"] = (
                (target.id, target.account) if target else seen[rng.integers(len(seen))]
            )
        expected = model.apply(row)
        assert_same(engine.apply(row), expected, row)
        if row[0]["kind"] == Kind.NEW:
            seen.append((expected[0]["order_id"], row[0]["account"]))
    blob = engine.export_state()
    other = Engine(max_orders=300)
    other.import_state(blob)
    assert other.export_state() == blob
