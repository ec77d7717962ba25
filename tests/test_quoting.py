"""The simulated market and the mirror as services: real servers, a real engine service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from tests.conftest import Valkey
from tests.local_engine import USER, order
from tvops.engine.bus.roles import Bus
from tvops.engine.feeds.agents import ACCOUNTS
from tvops.engine.feeds.feed import FeedBatch, FeedState
from tvops.engine.feeds.sim import SimService
from tvops.engine.instruments import load_instruments
from tvops.engine.ledger.service import EngineService
from tvops.engine.market import quoting
from tvops.engine.market.mirror import MirrorService
from tvops.engine.market.order_client import INBOX, OrderClient, UnansweredError
from tvops.engine.market.price import PriceService
from tvops.engine.records import (
    COMMAND,
    DEPTH,
    MIRROR_MAKER,
    TRADE,
    DepthFlag,
    EventKind,
    Kind,
    Reason,
    Side,
)
from tvops.settings import Settings

TABLE = load_instruments()
PRICE = TABLE[0].sim_price


@pytest.fixture(name="role_servers")
def _named_role_servers(_role_servers: dict[str, Valkey]) -> dict[str, Valkey]:
    return _role_servers


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this did not come to be"
        await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let services that stop on a machine that stands still for a while cancel their orders all the same."""
    monkeypatch.setattr(quoting, "STOP_SECONDS", 60.0)


@pytest.fixture
def setting(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path))


@pytest_asyncio.fixture
async def engine(setting: Settings, bus: Bus) -> AsyncIterator[EngineService]:
    service = EngineService(setting, bus, TABLE)
    await service.start()
    yield service
    await service.stop()


async def enter(engine: EngineService, side: Side, quantity: int, price: int = 0) -> NDArray[Any]:
    """Enter a user's order and give its events."""
    answer: asyncio.Future[NDArray[Any]] = asyncio.get_running_loop().create_future()
    engine.sequencer.submit(order(0, side, quantity, price), lambda events: answer.set_result(events.copy()))
    return await asyncio.wait_for(answer, 60)


def fills(events: NDArray[Any]) -> list[list[int]]:
    mine = (events["account"] == USER) & np.isin(events["kind"], (EventKind.MAKER_FILL, EventKind.TAKER_FILL))
    return [[int(row["price"]), int(row["quantity"])] for row in events[mine]]


def sim_orders(engine: EngineService) -> int:
    return sum(engine.engine.open_orders(account) for account in ACCOUNTS)


def tagged(**fields: Any) -> NDArray[Any]:
    rows = order(0, Side.BUY, 5, 100, ACCOUNTS.start)
    for name, value in fields.items():
        rows[name] = value
    return rows


async def test_step_gives_the_events_of_the_whole_batch(bus: Bus, engine: EngineService) -> None:
    client = OrderClient(bus, ACCOUNTS, wait_seconds=60)
    await client.reset()
    events = await client.step(np.concatenate([tagged(key_low=7), tagged(key_low=8, quantity=0)]))
    kinds = events["kind"].tolist()
    assert kinds == [EventKind.ACCEPTED, EventKind.TOP, EventKind.REJECTED]
    assert events["ref"][[0, 2]].tolist() == [7, 8]
    assert events["reason"][2] == Reason.BAD_QUANTITY
    order_id = int(events["order_id"][0])
    for change, kind in (
        ({"kind": Kind.AMEND, "quantity": 3}, EventKind.AMENDED),
        ({"kind": Kind.CANCEL}, EventKind.CANCELLED),
        ({"kind": Kind.CANCEL}, EventKind.REJECTED),
    ):
        events = await client.step(tagged(key_low=9, order_id=order_id, **change))
        assert kind in events["kind"]
    assert len(await client.step(np.zeros(0, COMMAND))) == 0


async def test_step_gives_own_events_and_tops_only(bus: Bus, engine: EngineService) -> None:
    client = OrderClient(bus, ACCOUNTS, wait_seconds=60)
    await client.reset()
    await client.step(tagged(key_low=1, side=Side.SELL, price=PRICE))
    await enter(engine, Side.BUY, 2, PRICE)
    seen = np.zeros(0, COMMAND)
    events = await client.step(seen)
    while EventKind.MAKER_FILL not in events["kind"]:
        events = await client.step(seen)
    accounts = events["account"][events["kind"] != EventKind.TOP]
    assert set(accounts.tolist()) == {ACCOUNTS.start}


async def test_many_commands_go_as_several_entries(bus: Bus, engine: EngineService) -> None:
    client = OrderClient(bus, ACCOUNTS, wait_seconds=60)
    await client.reset()
    commands = np.concatenate([tagged(key_low=n + 1, price=100 + n % 50) for n in range(3000)])
    events = await client.step(commands)
    assert np.count_nonzero(events["kind"] == EventKind.ACCEPTED) == 3000
    await client.reset()
    assert sim_orders(engine) == 0


async def test_no_engine_is_told(bus: Bus) -> None:
    client = OrderClient(bus, ACCOUNTS, wait_seconds=0.1)
    with pytest.raises(UnansweredError):
        await client.step(tagged(key_low=1))
    with pytest.raises(UnansweredError):
        await client.reset()


async def test_market_runs_and_a_user_trades_in_it(
    setting: Settings, bus: Bus, engine: EngineService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrderClient.__init__, "__defaults__", (60.0,))  # no stall makes it start afresh
    sim = SimService(setting, bus, TABLE)
    assert sim.health().state == "starting"
    await sim.start()
    await until(lambda: sim_orders(engine) > 250 and sim.stats()["fills"])
    assert sim.health().state == "ok"
    filled = fills(await enter(engine, Side.BUY, 1000))
    assert sum(quantity for _, quantity in filled) == 1000
    await sim.stop()
    assert sim_orders(engine) == 0
    assert sim.stats()["resyncs"] == 0


async def test_prices_go_on_where_they_were(setting: Settings, bus: Bus, engine: EngineService) -> None:
    Path(setting.data_dir, "sim.json").write_text('{"BTC-USDT": "61234.56", "GONE-USDT": "1"}')
    sim = SimService(setting, bus, TABLE)
    await sim.start()
    await until(lambda: len(engine.engine.depth(0, 9)[0]))
    await sim.stop()
    saved = Path(setting.data_dir, "sim.json").read_text()
    assert '"BTC-USDT":"61' in saved


@pytest.mark.parametrize("saved", ["", '{"BTC-USDT": "x"}', '{"BTC-USDT": 5}'])
@pytest.mark.usefixtures("engine")
async def test_damaged_saved_prices_are_left_aside(saved: str, setting: Settings, bus: Bus) -> None:
    Path(setting.data_dir, "sim.json").write_text(saved)
    sim = SimService(setting, bus, TABLE)
    await sim.start()
    await sim.stop()


async def test_market_outlives_its_engine(setting: Settings, bus: Bus) -> None:
    first = EngineService(setting, bus, TABLE)
    await first.start()
    sim = SimService(setting, bus, TABLE)
    await sim.start()
    await until(lambda: sim_orders(first) > 250)
    await first.stop()
    await until(lambda: sim.health().state == "degraded")
    second = EngineService(setting, bus, TABLE)
    await second.start()
    await until(lambda: sim.health().state == "ok" and sim_orders(second) > 250)
    assert sim.stats()["resyncs"] >= 1
    await sim.stop()
    assert sim_orders(second) == 0
    await second.stop()


@pytest.mark.parametrize("role", ["market", "results"])
async def test_market_outlives_a_server(
    role: str, setting: Settings, bus: Bus, engine: EngineService, role_servers: dict[str, Valkey]
) -> None:
    sim = SimService(setting, bus, TABLE)
    await sim.start()
    await until(lambda: sim_orders(engine) > 250)
    role_servers[role].kill()
    await asyncio.sleep(0.3)
    role_servers[role].start()
    sent = sim.stats()["commands"]
    await until(lambda: sim.health().state == "ok" and sim.stats()["commands"] > sent + 300)
    await until(lambda: sim_orders(engine) > 250)
    await sim.stop()
    assert sim_orders(engine) == 0


async def test_batch_that_arrives_twice_is_noticed(setting: Settings, bus: Bus, engine: EngineService) -> None:
    sim = SimService(setting, bus, TABLE)
    await sim.start()
    await until(lambda: sim_orders(engine) > 250)
    for _ in range(50):
        entries = await bus.market.xrevrange(INBOX, count=1)
        await bus.market.xadd(INBOX, entries[0][1])
        await asyncio.sleep(0.02)
        if sim.stats()["resyncs"]:
            break
    await until(lambda: sim.stats()["resyncs"])
    await until(lambda: sim.health().state == "ok" and sim_orders(engine) > 250)
    await sim.stop()
    assert sim_orders(engine) == 0


class ScriptedFeed:
    """A feed that says what a test puts into it."""

    name = "replay"
    has_trades = True

    def __init__(self) -> None:
        self.queue: asyncio.Queue[FeedBatch | None] = asyncio.Queue()
        self.ended = False
        self.update = 0

    def describe(self) -> str:
        return "script"

    def state(self) -> FeedState:
        return "ended" if self.ended else "live"

    def stats(self) -> dict[str, float | int | str]:
        return {}

    def resync(self, instrument: int) -> None:
        return

    async def batches(self) -> AsyncIterator[FeedBatch]:
        while (batch := await self.queue.get()) is not None:
            yield batch
        self.ended = True

    def book(self, *levels: tuple[Side, int, int]) -> None:
        self.update += 1
        rows = np.zeros(len(levels), DEPTH)
        for row, (side, price, lots) in zip(rows, levels, strict=True):
            row["side"], row["price"], row["quantity"] = side, price, lots
        rows["update"], rows["flags"], rows["time"] = self.update, DepthFlag.SNAPSHOT, time.time_ns()
        rows["flags"][0] |= DepthFlag.FIRST
        rows["flags"][-1] |= DepthFlag.LAST
        self.queue.put_nowait(FeedBatch(time.time_ns(), depth=rows))

    def trade(self, side: Side, price: int, quantity: int) -> None:
        rows = np.zeros(1, TRADE)
        rows["side"], rows["price"], rows["quantity"], rows["time"] = side, price, quantity, time.time_ns()
        self.queue.put_nowait(FeedBatch(time.time_ns(), trades=rows))

    def gap(self) -> None:
        rows = np.zeros(1, DEPTH)
        rows["flags"] = DepthFlag.GAP
        self.queue.put_nowait(FeedBatch(time.time_ns(), depth=rows))


BOOK = (
    (Side.BUY, PRICE - 1, 10), (Side.BUY, PRICE - 2, 20), (Side.SELL, PRICE + 1, 10), (Side.SELL, PRICE + 2, 30),
)  # fmt: skip


def mirrored(engine: EngineService) -> list[list[int]]:
    bids, asks = engine.engine.depth(0, 100)
    return [
        [int(side), int(price), int(lots)] for side, levels in ((1, bids), (2, asks)) for price, lots, _ in levels
    ]


@pytest_asyncio.fixture
async def feed(setting: Settings, bus: Bus, engine: EngineService) -> AsyncIterator[ScriptedFeed]:
    """Give a feed that is mirrored; its first book stands already."""
    feed = ScriptedFeed()
    price = PriceService(setting, bus, TABLE, feed)
    mirror = MirrorService(setting, bus, TABLE, price)
    await price.start()
    await mirror.start()
    feed.book(*BOOK)
    await until(lambda: mirrored(engine) == [list(level) for level in BOOK])
    yield feed
    await mirror.stop()
    assert engine.engine.open_orders(MIRROR_MAKER) == 0
    assert mirror.stats()["rejected"] == 0
    await price.stop()


async def test_market_order_meets_the_mirrored_depth(feed: ScriptedFeed, engine: EngineService) -> None:
    assert fills(await enter(engine, Side.BUY, 25)) == [[PRICE + 1, 10], [PRICE + 2, 15]]


async def test_order_inside_the_spread_is_filled_by_an_external_trade(
    feed: ScriptedFeed, engine: EngineService
) -> None:
    assert fills(await enter(engine, Side.BUY, 5, PRICE)) == []
    feed.trade(Side.SELL, PRICE - 1, 5)
    await until(lambda: engine.engine.position(USER, 0) == 5)


async def test_external_book_moves_through_an_order(feed: ScriptedFeed, engine: EngineService) -> None:
    await enter(engine, Side.SELL, 4, PRICE)
    feed.book((Side.BUY, PRICE + 5, 3), (Side.BUY, PRICE + 4, 3), (Side.SELL, PRICE + 6, 1))
    await until(lambda: engine.engine.position(USER, 0) == -4)


async def test_gap_and_end_take_the_quotes_away(feed: ScriptedFeed, engine: EngineService) -> None:
    feed.gap()
    await until(lambda: mirrored(engine) == [])
    feed.book(*BOOK)
    await until(lambda: len(mirrored(engine)) == len(BOOK))
    feed.queue.put_nowait(None)
    await until(lambda: mirrored(engine) == [])
