"""The engine service on real servers: its streams, its inbox, restarts, and kill -9 of whatever there is."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine_child import ACCOUNT, Load, order
from tests.valkey import DURABLE, ValkeyServer
from tvops.engine.bus.packing import pack, unpack
from tvops.engine.bus.roles import Bus
from tvops.engine.bus.stream_reader import StreamReader
from tvops.engine.instruments import InstrumentTable, Step, load_instruments
from tvops.engine.ledger.ledger import Ledger
from tvops.engine.ledger.recovery import replay_digest
from tvops.engine.ledger.service import EngineService
from tvops.engine.ledger.snapshots import SnapshotStore
from tvops.engine.ledger.state import TradingState
from tvops.engine.market.book import Books
from tvops.engine.records import (
    COMMAND,
    EVENT,
    MIRROR_MAKER,
    ORDER,
    POSITION,
    SIM_ACCOUNTS,
    EventKind,
    Kind,
    Limit,
    RecordType,
    Status,
)
from tvops.errors import RefusedError
from tvops.settings import Settings

TABLE = load_instruments()
POLICIES = {"market": "allkeys-lru", "results": "volatile-lru"}


@dataclass
class Stage:
    """Three servers and what is needed to run engines on them."""

    servers: dict[str, ValkeyServer]
    bus: Bus
    settings: Settings

    def engine(self, table: InstrumentTable = TABLE, **changes: Any) -> EngineService:
        return EngineService(msgspec.structs.replace(self.settings, **changes), self.bus, table)

    async def replayed(self, start: int = 0) -> tuple[int, bytes]:
        client = self.bus.ledger
        return await replay_digest(Ledger(client), SnapshotStore(client), lambda: TradingState(65_536), start)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ValkeyServer]]:
    folder = tmp_path_factory.mktemp("servers")
    running = {"ledger": ValkeyServer(folder / "ledger", *DURABLE)}
    for role, policy in POLICIES.items():
        running[role] = ValkeyServer(folder / role, "--maxmemory", "32mb", "--maxmemory-policy", policy)
    with running["ledger"], running["market"], running["results"]:
        yield running


@pytest.fixture
async def stage(servers: dict[str, ValkeyServer]) -> AsyncIterator[Stage]:
    settings = Settings(
        state_sync_ms=20, batch_interval_ms=5, redis_socket_timeout=20.0, snapshot_commands=1_000_000
    )
    bus = await Bus.connect(settings, {role: server.url for role, server in servers.items()})
    for client in (bus.ledger, bus.market, bus.results):
        await client.flushall()
    yield Stage(servers, bus, settings)
    await bus.close()


async def ask(engine: EngineService, commands: NDArray[Any]) -> NDArray[Any]:
    answer: asyncio.Future[NDArray[Any]] = asyncio.get_running_loop().create_future()
    engine.sequencer.submit(commands, lambda events: answer.set_result(events.copy()))
    return await answer


async def until(true: Callable[[], Awaitable[bool] | bool], seconds: float = 60) -> None:
    """Wait for something that comes about by itself."""
    deadline = time.monotonic() + seconds
    while True:
        result = true()
        if result is True or (not isinstance(result, bool) and await result):
            return
        assert time.monotonic() < deadline, "it never came about"
        await asyncio.sleep(0.01)


async def read_all(client: Any, prefix: str) -> list[tuple[int, int, bytes]]:
    reader, found = StreamReader(client, prefix, start="oldest"), []
    while entries := await reader.read(0):
        found += entries
    return found


def rows_of(entries: list[tuple[int, int, bytes]], record_type: RecordType) -> NDArray[Any]:
    parts = [rows for kind, rows in (unpack(blob) for _, _, blob in entries) if kind == record_type]
    return np.concatenate(parts) if parts else np.zeros(0, EVENT)


async def test_start_sets_up_once(stage: Stage) -> None:
    engine = stage.engine()
    assert engine.health().state == "starting"
    await engine.start()
    assert engine.health().state == "ok"
    seq = engine.sequencer.seq
    for instrument in TABLE.all:
        assert engine.engine.is_defined(instrument.index)
    assert all(engine.engine.is_exempt(account) for account in (MIRROR_MAKER, *SIM_ACCOUNTS))
    assert not engine.engine.is_exempt(100)
    limit = np.zeros(1, COMMAND)
    limit["kind"], limit["param"], limit["quantity"] = Kind.SET_LIMIT, Limit.MAX_ORDER_QUANTITY, 5
    assert (await ask(engine, limit))["kind"].tolist() == [EventKind.DONE]
    await engine.stop()
    again = stage.engine()
    await again.start()
    assert again.sequencer.seq == seq + 1  # nothing was added, and the limit that an operator set still holds
    refused = await ask(again, _with(order(5), quantity=6))
    assert refused["kind"].tolist() == [EventKind.REJECTED]
    await again.stop()


def _with(rows: NDArray[Any], **fields: Any) -> NDArray[Any]:
    for name, value in fields.items():
        rows[name] = value
    return rows


def changed_table(**changes: Any) -> InstrumentTable:
    return InstrumentTable([replace(TABLE[0], **changes), *TABLE.all[1:]])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (changed_table(price=Step("tick size", "0.5")), "tick_size or lot_size"),
        (changed_table(quantity=Step("lot size", "0.5")), "tick_size or lot_size"),
        (changed_table(symbol="OTHER"), "symbol"),
        (changed_table(price_high=TABLE[0].price_high - 1), "price_low and price_high"),
        (InstrumentTable(TABLE.all[:-1]), "put the missing ones back"),
    ],
)
async def test_instruments_that_change_under_the_ledger_are_refused(
    stage: Stage, table: InstrumentTable, message: str
) -> None:
    engine = stage.engine()
    await engine.start()
    await engine.stop()
    again = stage.engine(table)
    with pytest.raises(RefusedError, match=message):
        await again.start()
    await again.stop()


async def test_limits_follow_the_settings(stage: Stage) -> None:
    engine = stage.engine()
    await engine.start()
    seq = engine.sequencer.seq
    await engine.stop()
    again = stage.engine(changed_table(max_quantity=3))
    await again.start()
    assert again.sequencer.seq == seq + 1
    assert (await ask(again, _with(order(1), quantity=4)))["kind"].tolist() == [EventKind.REJECTED]
    await again.stop()


async def test_streams_and_state_tell_what_happened(stage: Stage) -> None:
    engine = stage.engine()
    await engine.start()
    seen: list[NDArray[Any]] = []
    engine.sequencer.subscribe(lambda commands, events: seen.append(events.copy()))
    for number in range(300):
        await ask(engine, order(number))
    events = np.concatenate(seen)
    results, market = stage.bus.results, stage.bus.market
    first = int(events["command_seq"][0])

    async def published() -> bool:
        rows = rows_of(await read_all(results, "rtrs:{0}"), RecordType.EVENT)
        return rows[rows["command_seq"] >= first].tobytes() == events.tobytes()

    await until(published)
    for major, _, blob in await read_all(results, "rtrs:{0}"):
        assert unpack(blob)[1]["command_seq"][-1] == major
    assert await results.ttl("rtrs:{0}:0") > 0

    live = {b"%d" % row["order_id"]: row.tobytes() for row in engine.orders.live_rows()}
    assert live

    async def synced() -> bool:  # as many orders may live, by chance, before the last sync
        return bool(await market.hgetall("state:{0}:orders") == live)

    await until(synced)
    for account in (ACCOUNT, ACCOUNT + 1):
        fields = await market.hgetall(f"state:{{0}}:positions:{account}")
        assert b"".join(fields.values()) == engine.orders.positions(account).tobytes()
    changes = await read_all(market, "rtss:{0}")
    last = {int(row["order_id"]): row for row in rows_of(changes, RecordType.ORDER)}
    assert len(last) == 300
    for order_id, row in last.items():
        assert row.tobytes() == engine.orders.row(order_id).tobytes()
    assert rows_of(changes, RecordType.ORDER).dtype == ORDER
    assert rows_of(changes, RecordType.POSITION).dtype == POSITION
    assert engine.stats()["orders"] == 300
    await engine.stop()
    assert engine.health().state == "starting"


async def test_own_market_equals_the_engines(stage: Stage) -> None:
    engine = stage.engine()
    await engine.start()
    rng = random.Random(3)
    books, entries = Books(len(TABLE)), []
    reader = StreamReader(stage.bus.market, "own:{0}", start="oldest")
    fills = 0
    for _ in range(40):
        rows = np.concatenate([order(rng.randrange(1000)) for _ in range(20)])
        rows["key_high"] = rows["key_low"] = 0
        rows["price"] += [rng.randrange(-30, 30) for _ in rows]
        fills += int(np.count_nonzero((await ask(engine, rows))["kind"] == EventKind.TAKER_FILL))
        entries += await reader.read(0)
        await asyncio.sleep(0.002)

    async def same() -> bool:
        entries.extend(await reader.read(0))
        depth = rows_of(entries, RecordType.DEPTH)
        book = Books(len(TABLE))
        book.apply(depth)
        assert not book.gaps.any()
        expected = engine.engine.depth(0, TABLE[0].depth)
        told = book.levels(0, 1000)
        return all(a.tolist() == b[:, :2].tolist() for a, b in zip(told, expected, strict=True))

    await until(same)
    trades = rows_of(entries, RecordType.TRADE)
    assert len(trades) == fills > 100
    assert (np.diff(trades["trade_id"].astype(np.int64)) > 0).all()
    del books
    # a reader that comes now gets whole books, empty ones too, without being asked for
    late = StreamReader(stage.bus.market, "own:{0}", start="now")
    await late.open()
    fresh, entries = Books(len(TABLE)), []

    async def live() -> bool:
        depth = rows_of(await late.read(0), RecordType.DEPTH)
        if len(depth):
            fresh.apply(depth)
        return all(fresh.live(i) for i in range(len(TABLE)))

    await until(live)
    assert fresh.levels(0, 1)[0][0, 0] == engine.engine.depth(0, 1)[0][0, 0]
    await engine.stop()


def inbox_rows() -> NDArray[Any]:
    rows = np.concatenate([order(number) for number in range(6)])
    rows["account"] = [1, 2, 89, 100, 0, 1]
    rows["key_high"] = [0, 0, 0, 0, 0, 7]
    rows["key_low"] = np.arange(6) + 70
    return rows


async def test_inbox_takes_liquidity_commands_only(stage: Stage) -> None:
    market = stage.bus.market
    await market.xadd("inbox:{0}", {"p": pack(inbox_rows(), RecordType.COMMAND)})  # before the start: not read
    engine = stage.engine()
    await engine.start()
    tags: list[int] = []
    engine.sequencer.subscribe(lambda commands, events: tags.extend(commands["key_low"].tolist()))
    await market.xadd("inbox:{0}", {"p": b"garbage"})
    await market.xadd("inbox:{0}", {"q": b"no rows"})
    await market.xadd("inbox:{0}", {"p": pack(np.zeros(3, EVENT), RecordType.EVENT)})
    await market.xadd("inbox:{0}", {"p": pack(_with(inbox_rows(), kind=Kind.KILL), RecordType.COMMAND)})
    await market.xadd("inbox:{0}", {"p": pack(inbox_rows(), RecordType.COMMAND)})
    await until(lambda: len(tags) == 3)
    assert tags == [70, 71, 72]
    stats = engine.stats()
    assert (stats["inbox_commands"], stats["inbox_refused"], stats["inbox_damaged"]) == (3, 9, 3)
    assert engine.orders.placed == 0  # liquidity is not listed
    await engine.stop()


async def test_orders_go_on_while_market_and_results_are_down(stage: Stage) -> None:
    engine = stage.engine()
    await engine.start()
    for number in range(50):
        await ask(engine, order(number))
    stage.servers["market"].kill()
    stage.servers["results"].kill()
    try:
        for number in range(50, 150):
            assert len(await ask(engine, order(number)))
        await until(lambda: engine.health().state == "degraded")
    finally:
        stage.servers["market"].start()
        stage.servers["results"].start()
    await until(lambda: engine.health().state == "ok")
    for number in range(150, 200):
        await ask(engine, order(number))
    market = stage.bus.market

    async def whole_again() -> bool:
        rows = rows_of(await read_all(stage.bus.results, "rtrs:{0}"), RecordType.EVENT)
        held = await market.hgetall("state:{0}:orders")
        return (
            len(rows) > 0 and rows["command_seq"][-1] == engine.sequencer.seq and len(held) == engine.orders.live
        )

    await until(whole_again)
    # the inbox is read on the new server as well
    rows = inbox_rows()[:1]
    before = engine.sequencer.seq
    await market.xadd("inbox:{0}", {"p": pack(rows, RecordType.COMMAND)})
    await until(lambda: engine.sequencer.seq == before + 1)
    await engine.stop()


async def test_evicted_state_is_written_anew(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvops.engine.ledger.order_state._CHECK_SECONDS", 0.05)
    engine = stage.engine()
    await engine.start()
    for number in range(0, 40, 2):
        await ask(engine, order(number))
    market = stage.bus.market

    async def complete() -> bool:
        return len(await market.hgetall("state:{0}:orders")) == engine.orders.live == 20

    await until(complete)
    await market.delete("state:{0}:orders")
    await until(complete)
    await engine.stop()


async def test_restart_publishes_what_results_lack(stage: Stage) -> None:
    engine = stage.engine()
    await engine.start()
    for number in range(20):
        await ask(engine, order(number))
    before = await read_all(stage.bus.results, "rtrs:{0}")
    stage.servers["results"].kill()
    for number in range(20, 60):
        await ask(engine, order(number))
    await engine.stop()
    stage.servers["results"].start()
    await stage.bus.ledger.delete(*await stage.bus.ledger.keys("*snapshot*"))
    del before
    again = stage.engine()
    await again.start()
    seq = again.sequencer.seq

    async def complete() -> bool:
        rows = rows_of(await read_all(stage.bus.results, "rtrs:{0}"), RecordType.EVENT)
        return np.unique(rows["command_seq"]).tolist() == list(range(1, seq + 1))

    await until(complete)
    entries = len(await read_all(stage.bus.results, "rtrs:{0}"))
    await again.stop()
    third = stage.engine()
    await third.start()
    await third.stop()
    assert len(await read_all(stage.bus.results, "rtrs:{0}")) == entries
    assert await stage.replayed() == (seq, third._state.digest())


async def test_streams_of_commands_that_were_cut_off_are_dropped(stage: Stage) -> None:
    engine = stage.engine()
    await engine.start()
    for number in range(30):
        await ask(engine, order(number))
    await engine.stop()
    ledger = stage.bus.ledger
    entries = await ledger.xrange("ledger:{0}")
    await ledger.flushall()
    for name, fields in entries[:-10]:
        await ledger.xadd("ledger:{0}", fields, id=name)
    again = stage.engine()
    await again.start()
    await ask(again, order(1000))

    async def follows() -> bool:
        rows = rows_of(await read_all(stage.bus.results, "rtrs:{0}"), RecordType.EVENT)
        states = await read_all(stage.bus.market, "rtss:{0}")
        ends = [rows["command_seq"][-1] if len(rows) else 0, states[-1][0] if states else 0]
        return ends == [again.sequencer.seq] * 2

    await until(follows)
    await again.stop()


async def test_second_engine_fences_the_first(stage: Stage) -> None:
    first, second = stage.engine(), stage.engine()
    await first.start()
    await second.start()
    await ask(second, order(1))
    assert not len(await ask(first, order(2)))
    assert first.health().state == "failed"
    assert "another engine" in first.health().detail
    assert second.health().state == "ok"
    await first.stop()
    await second.stop()


async def test_killed_ledger_server_loses_nothing(stage: Stage) -> None:
    engine = stage.engine(snapshot_commands=500)
    await engine.start()
    acknowledged: dict[int, int] = {}
    stop = False

    async def client(offset: int) -> None:
        number = offset
        while not stop:
            events = await ask(engine, order(number))
            acknowledged[number] = int(events["order_id"][0])
            number += 16

    clients = [asyncio.create_task(client(offset)) for offset in range(16)]
    for _ in range(3):
        count = len(acknowledged)
        await until(lambda count=count: len(acknowledged) > count + 300)
        stage.servers["ledger"].kill()
        await until(lambda: engine.health().state == "degraded")
        await asyncio.to_thread(stage.servers["ledger"].start)
    await until(lambda: engine.health().state == "ok")
    stop = True
    await asyncio.gather(*clients)
    digest = engine._state.digest()
    await engine.stop()
    await stage.bus.ledger.connection_pool.disconnect()  # a new process has no connection to a dead server
    again = stage.engine()
    await again.start()
    assert again._state.digest() == digest
    for number, order_id in acknowledged.items():
        assert again.orders.by_client_id(ACCOUNT + number % 2, f"order-{number}")["order_id"] == order_id
        assert (await ask(again, order(number)))["kind"].tolist() == [EventKind.DUPLICATE]
        if number > 200:
            break
    assert again.orders.placed == len(acknowledged)
    await again.stop()


async def test_killed_engine_loses_nothing(stage: Stage, tmp_path: Path) -> None:
    """The engine process dies at random moments under load; what it acknowledged is there, once."""
    settings = msgspec.structs.replace(stage.settings, snapshot_commands=100)
    urls = {role: server.url for role, server in stage.servers.items()}
    rng = random.Random(11)
    acknowledged: dict[int, int] = {}
    for life in range(3):
        first = max(acknowledged, default=-1) + 1_000
        log = (tmp_path / f"{life}.log").open("wb")
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.engine_child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(msgspec.json.encode(Load(settings, urls, first)) + b"\n")
        child.stdin.flush()
        assert await asyncio.to_thread(child.stdout.readline) == b"ready\n"
        lines = [await asyncio.to_thread(child.stdout.readline) for _ in range(rng.randrange(50, 250))]
        await asyncio.sleep(rng.uniform(0, 0.02))
        child.kill()
        for line in [*lines, *child.stdout.readlines()]:
            if line.endswith(b"\n"):
                number, order_id = line.split()
                acknowledged[int(number)] = int(order_id)
        child.wait()
        child.stdin.close()
        child.stdout.close()
        log.close()
    engine = stage.engine()
    await engine.start()
    assert len(acknowledged) >= 150
    listed: dict[bytes, int] = {}
    for account in (ACCOUNT, ACCOUNT + 1):
        for row in engine.orders.select(account, limit=1 << 20):
            assert bytes(row["client_id"]) not in listed
            listed[bytes(row["client_id"])] = int(row["order_id"])
            assert row["status"] != Status.REJECTED
    assert {n: listed.get(b"order-%d" % n) for n in acknowledged} == acknowledged
    for start in await SnapshotStore(stage.bus.ledger).seqs():
        assert await stage.replayed(start) == (engine.sequencer.seq, engine._state.digest())
    await engine.stop()
