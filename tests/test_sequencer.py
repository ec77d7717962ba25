"""The sequencer on a real ledger server: order, groups, replies, limits, the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from redis.asyncio import Redis

from tests.valkey import DURABLE, ValkeyServer
from tvops.engine.bus.packing import unpack
from tvops.engine.ledger.ledger import Ledger
from tvops.engine.ledger.recovery import recover, replay_digest
from tvops.engine.ledger.sequencer import MAX_BATCH, BusyError, Sequencer
from tvops.engine.ledger.snapshots import SnapshotStore
from tvops.engine.ledger.state import TradingState
from tvops.engine.records import COMMAND, EventKind, Kind, OrderType, TimeInForce
from tvops.errors import LedgerError

KEY = "ledger:{0}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path_factory.mktemp("ledger"), *DURABLE) as running:
        yield running


@pytest.fixture
async def client(server: ValkeyServer) -> AsyncIterator[Redis]:
    client = server.client(timeout=30)
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


def make_state() -> TradingState:
    return TradingState(1024)


class Running:
    """A sequencer on an empty ledger with one instrument."""

    def __init__(self, client: Redis, capacity: int = 1 << 15) -> None:
        self.client = client
        self.ledger = Ledger(client)
        self.state = make_state()
        self.capacity = capacity

    async def __aenter__(self) -> Running:
        await recover(self.ledger, SnapshotStore(self.client), make_state)
        self.sequencer = Sequencer(self.ledger, self.state, self.capacity)
        self.sequencer.start()
        define = np.zeros(1, COMMAND)
        define["kind"], define["price"], define["quantity"] = Kind.DEFINE, 1, 1000
        assert (await self.ask(define))["kind"].tolist() == [EventKind.DONE]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sequencer.stop(2)
        await self.ledger.close()

    def ask(self, commands: NDArray[Any]) -> asyncio.Future[NDArray[Any]]:
        answer: asyncio.Future[NDArray[Any]] = asyncio.get_running_loop().create_future()
        self.sequencer.submit(commands, lambda events: answer.set_result(events.copy()))
        return answer


def orders(count: int, tag: int = 0, price: int = 100, side: int = 1) -> NDArray[Any]:
    rows = np.zeros(count, COMMAND)
    rows["kind"], rows["order_type"], rows["time_in_force"] = Kind.NEW, OrderType.LIMIT, TimeInForce.GTC
    rows["account"], rows["side"], rows["price"], rows["quantity"] = 100 + tag % 5, side, price, 1 + tag % 7
    rows["key_low"] = tag * 10_000 + np.arange(count)
    return rows


async def test_everybody_gets_the_events_of_their_own_commands(client: Redis) -> None:
    rng = np.random.default_rng(7)
    async with Running(client) as running:
        told: list[tuple[NDArray[Any], NDArray[Any]]] = []
        running.sequencer.subscribe(lambda c, e: told.append((c.copy(), e.copy())))
        answers = []
        for tag in range(1, 201):
            rows = orders(int(rng.integers(1, 30)), tag, int(rng.integers(95, 106)), int(rng.integers(1, 3)))
            answers.append((rows, running.ask(rows)))
            rows["price"] = 0  # what was submitted was copied
            if tag % 20 == 0:
                await asyncio.sleep(0)
        for rows, answer in answers:
            events = await answer
            accepted = events[events["kind"] == EventKind.ACCEPTED]
            assert accepted["ref"].tolist() == rows["key_low"].tolist()
            seqs = np.unique(events["command_seq"])
            assert seqs.tolist() == list(range(int(seqs[0]), int(seqs[0]) + len(rows)))
        commands = np.concatenate([c for c, _ in told])
        assert commands["seq"].tolist() == list(range(2, 2 + len(commands)))
        assert (np.diff(commands["time"]) >= 0).all()
        assert running.sequencer.seq == running.state.seq == len(commands) + 1
        assert running.sequencer.commands == len(commands) + 1
        assert running.sequencer.batches < 100  # what came while an append was in flight went together
        entries = [unpack(fields[b"p"])[1] for _, fields in await client.xrange(KEY)]
        assert np.concatenate(entries)[1:].tobytes() == commands.tobytes()
        for histogram in (running.sequencer.durable, running.sequencer.matched, running.sequencer.answered):
            assert histogram.total == len(commands) + 1
            assert 0 < histogram.percentile(50) <= histogram.percentile(99)
    found = await recover(Ledger(client), SnapshotStore(client), make_state)
    assert found.state.digest() == running.state.digest()
    assert (await replay_digest(Ledger(client), SnapshotStore(client), make_state))[1] == running.state.digest()


async def test_time_never_goes_back(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Running(client) as running:
        before = int((await running.ask(orders(1)))["time"][0])
        monkeypatch.setattr("tvops.engine.ledger.sequencer.time.time_ns", lambda: before - 10**9)
        assert int((await running.ask(orders(1)))["time"][0]) == before


async def test_failing_callbacks_hurt_nobody(client: Redis, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug elsewhere")

    async with Running(client) as running:
        running.sequencer.subscribe(fail)
        seen: list[int] = []
        end = running.sequencer.subscribe(lambda commands, events: seen.append(len(commands)))
        running.sequencer.submit(orders(1), fail)
        answer = running.ask(orders(2))
        running.sequencer.submit(orders(1))
        assert len(await answer) >= 2
        await running.ask(orders(1))
        end()
        await running.ask(orders(1))
        assert sum(seen) == 5
    assert "a bug elsewhere" in caplog.text


async def test_waiting_commands_are_bounded_while_the_server_is_away(client: Redis, server: ValkeyServer) -> None:
    async with Running(client, capacity=MAX_BATCH) as running:
        server.kill()
        try:
            taken = [running.ask(orders(1000, tag)) for tag in range(3)]
            await asyncio.sleep(0.05)  # the first ones are tried now
            while running.sequencer.pending + 1000 <= MAX_BATCH:
                taken.append(running.ask(orders(1000)))
            with pytest.raises(BusyError):
                running.sequencer.submit(orders(1000))
            room = asyncio.create_task(running.sequencer.room(1000))
            while not running.ledger.trouble:
                await asyncio.sleep(0.01)
            assert not room.done()
            assert not any(answer.done() for answer in taken)
        finally:
            server.start()
        await room
        for answer in taken:
            assert len(await answer) >= 1000
        assert running.sequencer.seq == 1 + 1000 * len(taken)
        await running.ask(orders(MAX_BATCH))


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
async def test_batches_of_an_impossible_size_are_refused(client: Redis, count: int) -> None:
    async with Running(client) as running:
        with pytest.raises(ValueError):
            running.sequencer.submit(orders(count))


async def test_stop_answers_what_was_taken(client: Redis) -> None:
    async with Running(client) as running:
        answers = [running.ask(orders(50, tag)) for tag in range(100)]
        await running.sequencer.stop(60)
        assert all(len(answer.result()) >= 50 for answer in answers)
        with pytest.raises(LedgerError):
            running.sequencer.submit(orders(1))
    assert (await recover(Ledger(client), SnapshotStore(client), make_state)).state.seq == 5001


async def test_stop_without_a_server_says_that_the_fate_is_not_known(client: Redis, server: ValkeyServer) -> None:
    async with Running(client) as running:
        server.pause()
        try:
            answers = [running.ask(orders(5, tag)) for tag in range(3)]
            await asyncio.sleep(0.02)
            answers.append(running.ask(orders(5)))
            await running.sequencer.stop(0.1)
            assert [len(answer.result()) for answer in answers] == [0, 0, 0, 0]
        finally:
            server.resume()


async def test_fenced_engine_stops_and_tells_everybody(client: Redis) -> None:
    async with Running(client) as running:
        await client.xadd(KEY, {"p": b"another engine's"}, id=f"{running.sequencer.seq + 1}-0")
        answers = [running.ask(orders(5, tag)) for tag in range(3)]
        assert [len(await answer) for answer in answers] == [0, 0, 0]
        assert "another engine" in running.sequencer.failure
        with pytest.raises(LedgerError, match="another engine"):
            running.sequencer.submit(orders(1))
        await running.sequencer.room(1 << 20)  # does not wait for what never comes
        assert running.state.seq == 1
