"""The market data service with real sessions: subscriptions, order, books, bars, resumption, slow clients."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from tests.conftest import Valkey
from tests.stream_client import Client, Publisher, client, frames, on_uvloop, serving, until
from tests.test_stream_state import Writer, numbered
from tvops.engine.bus.packing import pack
from tvops.engine.bus.roles import Bus
from tvops.engine.records import BAR, TICK, RecordType
from tvops.engine.stream import hub
from tvops.settings import Settings


def bids(messages: list[dict[str, Any]]) -> list[int]:
    """Give the bids of tick messages, in ticks of 0.01."""
    return [
        round(100 * float(row["bid"])) if isinstance(row, dict) else int(row["bid"])
        for message in messages
        for row in message["rows"]
    ]


@pytest.mark.parametrize("encoding", ["json", "binary"])
@on_uvloop
async def test_ticks_arrive_in_order_without_holes(bus: Bus, encoding: str) -> None:
    publisher = Publisher(bus)
    await publisher.ticks(3, first=1)
    async with serving(bus) as service, client(service) as c:
        answer = await c.ask(op="subscribe", channel="ticks", symbols=["BTC-USDT"], encoding=encoding, id="a")
        epoch = c.welcome["epoch"]
        assert answer == {
            "op": "subscribed", "id": "a", "channel": "ticks", "symbols": ["BTC-USDT"], "encoding": encoding,
            "epoch": epoch,
        }  # fmt: skip
        (state,) = await c.collect(1)
        assert (state["seq"], state["snapshot"], bids([state])) == (3, True, [3])
        for n in range(30):
            await publisher.ticks(1 + n, first=1000 * n + 1)
            await publisher.ticks(1, instrument=1)
        await c.follow(lambda: c.last["seq"] == 3 + sum(range(1, 31)))
        sequence = 3
        for message in c.data:
            assert message["symbol"] == "BTC-USDT"
            assert message["seq"] - len(message["rows"]) == sequence
            sequence = message["seq"]
        assert bids(c.data) == [1000 * n + 1 + i for n in range(30) for i in range(1 + n)]


@on_uvloop
async def test_every_channel_of_every_symbol_in_one_session(bus: Bus) -> None:
    publisher, writer = Publisher(bus), Writer()
    async with serving(bus) as service, client(service) as c:
        for channel in ("ticks", "trades", "book", "bars"):
            answer = await c.ask(op="subscribe", channel=channel, symbols="*", encoding="binary")
            assert len(answer["symbols"]) == len(c.welcome["symbols"])
        await c.collect(4 * len(c.welcome["symbols"]))
        bar = np.zeros(1, BAR)
        bar["interval"], bar["start"] = 60, 60
        await publisher.publish(
            (RecordType.TICK, np.zeros(1, TICK)),
            (RecordType.TRADE, numbered(1, 2)),
            (RecordType.DEPTH, writer.snapshot()),
            (RecordType.BAR, bar),
        )
        messages = await c.collect(4)
        assert [m["channel"] for m in messages] == ["ticks", "trades", "book", "bars"]
        answer = await c.ask(op="unsubscribe", channel="trades", symbols="*", id=5)
        assert (answer["op"], answer["id"], len(answer["symbols"])) == (
            "unsubscribed",
            5,
            len(c.welcome["symbols"]),
        )
        await publisher.publish((RecordType.TRADE, numbered(3, 2)), (RecordType.TICK, np.zeros(1, TICK)))
        assert [m["channel"] for m in await c.collect(1)] == ["ticks"]
        assert (await c.ask(op="unsubscribe", channel="trades", symbols="*"))["code"] == "not_subscribed"


def apply(book: dict[tuple[str, str], str], message: dict[str, Any]) -> dict[tuple[str, str], str]:
    if message.get("snapshot"):
        book = {}
    for side in ("bids", "asks"):
        book |= {(side, price): quantity for price, quantity in message[side]}
    return {key: quantity for key, quantity in book.items() if float(quantity)}


@on_uvloop
async def test_snapshot_and_deltas_make_the_book(bus: Bus) -> None:
    """Sessions that come at any time, in both encodings and with limited depth, see the book of the writer."""
    chance, publisher, writer = random.Random(5), Publisher(bus), Writer()
    books: list[dict[Any, Any]] = []
    clients: list[Client] = []

    def change() -> Any:
        return writer.change(
            [(chance.choice([1, 2]), chance.randint(1, 20), chance.randint(0, 3)) for _ in range(5)]
        )

    await publisher.publish((RecordType.DEPTH, writer.snapshot()))
    async with serving(bus) as service, client(service) as a, client(service) as b, client(service) as limited:
        for n in range(60):
            if n in (0, 25):
                await (c := (a, b)[len(clients)]).ask(op="subscribe", channel="book", symbols=["BTC-USDT"])
                clients.append(c)
            if n == 10:
                await limited.ask(op="subscribe", channel="book", symbols=["BTC-USDT"], depth=5)
            rows = writer.snapshot() if n % 20 == 19 else change()
            await publisher.publish((RecordType.DEPTH, rows))
        for c in clients:
            book: dict[tuple[str, str], str] = {}
            await c.follow(lambda c=c: c.last.get("update") == writer.update)  # type: ignore[misc]
            sequence = None
            for message in c.data:
                if not message.get("snapshot"):
                    assert message["seq"] - message["count"] == sequence
                sequence = message["seq"]
                book = apply(book, message)
            assert sum("snapshot" in message for message in c.data) == 1  # those of the stream say nothing new
            books.append(book)
        plain = {
            (("bids", "asks")[side - 1], f"{price / 100:.2f}"): f"{quantity / 100_000:.5f}"
            for (side, price), quantity in writer.levels.items()
        }
        assert books == [plain, plain]
        best = sorted((key for key in plain if key[0] == "bids"), key=lambda key: -float(key[1]))[:5]
        await limited.follow(lambda: limited.last.get("bids") == [[k[1], plain[k]] for k in best])
        assert all(message["snapshot"] and message["depth"] == 5 for message in limited.data)


@on_uvloop
async def test_a_gap_is_told_and_heals_with_a_snapshot(bus: Bus) -> None:
    publisher, writer = Publisher(bus), Writer()
    await publisher.publish((RecordType.DEPTH, writer.snapshot()))
    async with serving(bus) as service, client(service) as c:
        await c.ask(op="subscribe", channel="book", symbols=["BTC-USDT"])
        writer.change([(1, 1, 1)])
        await publisher.publish((RecordType.DEPTH, writer.change([(1, 2, 1)])))
        gap = (await c.collect(2))[1]
        assert (gap["gap"], gap["bids"], gap["asks"]) == (True, [], [])
        async with client(service) as late:
            await late.ask(op="subscribe", channel="book", symbols=["BTC-USDT"])
            assert (await late.collect(1))[0]["gap"] is True
            await publisher.publish((RecordType.DEPTH, writer.snapshot()))
            for each in (c, late):
                (healed,) = await each.collect(1)
                assert (healed["snapshot"], healed["bids"]) == (True, [["0.02", "0.00001"], ["0.01", "0.00001"]])
                assert healed["seq"] > gap["seq"]
        answer = await c.ask(
            op="resume", channel="book", epoch=c.welcome["epoch"], symbols={"BTC-USDT": gap["seq"] - 1}
        )
        assert answer["symbols"]["BTC-USDT"]["recovered"] is False


@on_uvloop
async def test_bars_with_history_and_the_open_one(bus: Bus) -> None:
    publisher = Publisher(bus)
    bars = np.zeros(500, BAR)
    bars["interval"], bars["closed"], bars["close"] = 1, 1, 100
    bars["start"] = np.arange(500) * 1_000_000_000
    bars["closed"][-1] = 0
    await publisher.publish((RecordType.BAR, bars))
    async with serving(bus) as service, client(service) as c:
        await c.ask(op="subscribe", channel="bars", interval="1s", symbols=["BTC-USDT"], history=450)
        (state,) = await c.collect(1)
        assert [row["start"] for row in state["rows"]] == bars["start"][50:].tolist()
        assert [row["closed"] for row in state["rows"][-2:]] == [True, False]
        assert state["interval"] == "1s"
        change = bars[-1:].copy()
        change["high"], change["trades"] = 12_345, 7
        await publisher.publish((RecordType.BAR, change))
        (update,) = await c.collect(1)
        assert update["seq"] == state["seq"] + 1
        assert update["rows"] == [{**state["rows"][-1], "high": "123.45", "trades": 7}]
        answer = await c.ask(op="subscribe", channel="bars", interval="1s", symbols="*", history=3600)
        assert answer["code"] == "bad_history"


@on_uvloop
async def test_resume_gives_what_was_missed_or_says_that_it_cannot(bus: Bus) -> None:
    publisher = Publisher(bus)
    async with serving(bus) as service:
        async with client(service) as c:
            await c.ask(op="subscribe", channel="trades", symbols=["BTC-USDT"])
            await publisher.more_trades(10)
            await c.follow(lambda: c.last["seq"] == 10)
            epoch = c.welcome["epoch"]
        await publisher.more_trades(100)
        async with client(service) as c:
            await until(lambda: service.stats()["total_messages"] == 110)
            answer = await c.ask(
                op="resume",
                channel="trades",
                epoch=epoch,
                symbols={"BTC-USDT": 10, "ETH-USDT": 3},
                encoding="binary",
            )
            assert answer["symbols"] == {
                "BTC-USDT": {"recovered": True, "seq": 110},
                "ETH-USDT": {"recovered": False, "seq": 0},
            }
            missed, state = await c.collect(2)
            assert (missed["rows"]["trade_id"].tolist(), missed["seq"]) == (list(range(11, 111)), 110)
            assert state["snapshot"]
            await publisher.more_trades(1)
            assert (await c.collect(1))[0]["rows"]["trade_id"].tolist() == [111]
        async with client(service) as c:
            answer = await c.ask(op="resume", channel="trades", epoch=epoch + 1, symbols={"BTC-USDT": 10})
            assert answer["symbols"]["BTC-USDT"] == {"recovered": False, "seq": 111}
            assert [row["trade_id"] for row in (await c.collect(1))[0]["rows"]][-1] == "111"


# Slow clients


class Sleeper:
    """A client that subscribes to everything and never reads."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        for channel in ("ticks", "trades"):
            request = {"op": "subscribe", "channel": channel, "symbols": ["BTC-USDT"], "encoding": "binary"}
            text = json.dumps(request).encode()
            self.socket.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)

    def read_all(self) -> bytes:
        """Read until the connection ends."""
        self.socket.settimeout(60)
        data = bytearray()
        try:
            while piece := self.socket.recv(1 << 16):
                data += piece
        except OSError:
            pass
        return bytes(data)


def messages_of(data: bytes) -> list[tuple[int, bytes]]:
    """Cut a server's bytes behind the handshake into opcodes and payloads."""
    found, at = [], data.index(b"\r\n\r\n") + 4
    while at + 2 <= len(data):
        size, start = data[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, start = int.from_bytes(data[start : start + width], "big"), start + width
        if start + size > len(data):
            break
        found.append((data[at] & 15, data[start : start + size]))
        at = start + size
    return found


@on_uvloop
async def test_a_client_that_never_reads_is_dropped_and_costs_the_others_nothing(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "STUCK_SECONDS", 1.0)
    monkeypatch.setattr("tvops.engine.stream.service.SWEEP_SECONDS", 0.1)
    publisher = Publisher(bus)
    async with serving(bus, session_buffer_kb=64) as service, client(service) as good:
        await good.ask(op="subscribe", channel="trades", symbols=["BTC-USDT"], encoding="binary")
        sleeper = await asyncio.to_thread(Sleeper, service.port)
        with sleeper.socket:
            await until(lambda: [c["subscriptions"] for c in service.clients()] == [1, 2])
            for _ in range(100):
                await publisher.more_trades(500)
                assert int(service.stats()["unsent_bytes"]) < 200_000
                await good.follow(lambda: good.last["seq"] == publisher.trades)
            assert [c["conflations"] for c in service.clients() if c["subscriptions"] == 1] == [0]
            await until(lambda: service.stats()["clients_dropped"] == 1)
            await until(lambda: len(service.clients()) == 1)
        ids = np.concatenate([message["rows"]["trade_id"] for message in good.data])
        assert (ids == np.arange(1, publisher.trades + 1)).all()


@on_uvloop
async def test_a_client_that_reads_again_gets_the_newest_state_and_is_told_what_it_missed(bus: Bus) -> None:
    publisher = Publisher(bus)
    async with serving(bus, session_buffer_kb=64) as service:
        sleeper = await asyncio.to_thread(Sleeper, service.port)
        with sleeper.socket:
            await until(lambda: [c["subscriptions"] for c in service.clients()] == [2])
            while service.clients()[0]["state"] != "slow":
                await publisher.more_trades(500)
            await publisher.ticks(5, first=70)
            for _ in range(4):
                await publisher.more_trades(500)
            await until(lambda: service.stats()["total_messages"] == publisher.trades + 5)
            reading = asyncio.create_task(asyncio.to_thread(sleeper.read_all))
            await until(lambda: service.clients()[0]["state"] == "ok")
            await publisher.more_trades(3)
            await until(lambda: service.stats()["total_messages"] == publisher.trades + 5)
            await until(lambda: service.stats()["unsent_bytes"] == 0)
            await service.stop()
            data = await reading
        found = [frame for kind, payload in messages_of(data) if kind == 2 for frame in frames(payload)]
        ticks = [frame for frame in found if frame["channel"] == "ticks"]
        assert ticks[-1]["conflated"]
        assert (ticks[-1]["rows"]["bid"].tolist(), ticks[-1]["seq"]) == ([74], 5)
        sequence, holes = 0, []
        for frame in (frame for frame in found if frame["channel"] == "trades"):
            first = frame["seq"] - len(frame["rows"])
            assert frame["rows"]["trade_id"].tolist() == list(range(first + 1, frame["seq"] + 1))
            if first != sequence:
                holes.append(frame)
            sequence = frame["seq"]
        assert sequence == publisher.trades
        assert len(holes) == 1
        assert holes[0]["conflated"]
        assert len(holes[0]["rows"]) == 512


@on_uvloop
async def test_strikes_end_a_session(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "CLOSE_SECONDS", 60.0)  # a pause of the machine may not take the goodbye away
    publisher = Publisher(bus)
    async with serving(bus, session_buffer_kb=16, slow_client_threshold=1) as service:
        sleeper = await asyncio.to_thread(Sleeper, service.port)
        with sleeper.socket:
            await until(lambda: [c["subscriptions"] for c in service.clients()] == [2])
            while not service.stats()["clients_dropped"]:
                await publisher.more_trades(500)
            reading = asyncio.create_task(asyncio.to_thread(sleeper.read_all))
            await until(lambda: service.stats()["unsent_bytes"] == 0)
            monkeypatch.setattr(hub, "CLOSE_SECONDS", 0.0)
            kind, payload = messages_of(await reading)[-1]
        assert (kind, int.from_bytes(payload[:2], "big")) == (8, 1013)
        assert payload[2:].startswith(b"too slow: 1 times over 16 kB")


# Many, and the end


@on_uvloop
async def test_two_hundred_sessions_lose_nothing(bus: Bus) -> None:
    publisher = Publisher(bus)
    async with serving(bus) as service:
        async with asyncio.TaskGroup() as group:
            ready = asyncio.Barrier(201)

            async def watch(encoding: str) -> None:
                async with client(service) as c:
                    await c.ask(op="subscribe", channel="trades", symbols=["BTC-USDT"], encoding=encoding)
                    await ready.wait()
                    await c.follow(lambda: c.last["seq"] == 2000)
                    assert sum(len(message["rows"]) for message in c.data) == 2000

            for n in range(200):
                group.create_task(watch(("json", "binary")[n % 8 > 0]))
            await ready.wait()
            for _ in range(20):
                await publisher.more_trades(100)
        await until(lambda: service.clients() == [])
        assert service.stats()["messages_sent"] >= 200 * 3


@on_uvloop
async def test_silent_peers_are_closed_and_pings_measure(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PING_SECONDS", 0.0)
    monkeypatch.setattr("tvops.engine.stream.service.SWEEP_SECONDS", 0.05)
    async with serving(bus) as service, client(service):
        sleeper = await asyncio.to_thread(Sleeper, service.port)
        with sleeper.socket:
            await until(lambda: len(service.clients()) == 2)
            await until(lambda: service.clients()[0].get("latency_ms", 0) > 0)
            answering, silent = service._hub.sessions[1], service._hub.sessions[2]
            answering.heard = answering.latency_ns = 0
            await until(lambda: answering.latency_ns > 0)
            assert answering.heard > 0, "an answer to a ping counts"
            await until(lambda: len(silent.subscriptions) == 2)
            silent.heard = silent.resumed_at = silent.opened - hub.SILENCE_SECONDS
            await until(lambda: [c["id"] for c in service.clients()] == [1])


@on_uvloop
async def test_stop_says_goodbye(bus: Bus) -> None:
    async with serving(bus) as service, client(service) as c:
        await service.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await c.socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the service stops")


@on_uvloop
async def test_a_damaged_entry_does_no_harm(bus: Bus) -> None:
    publisher = Publisher(bus)
    async with serving(bus) as service, client(service) as c:
        await c.ask(op="subscribe", channel="ticks", symbols=["BTC-USDT"])
        await publisher.ticks(1)
        await publisher.writer.write([(publisher.last + 1, 0, pack(np.zeros(1, TICK), RecordType.TICK)[:-1])])
        publisher.last += 1
        await publisher.ticks(1)
        assert [message.get("gap") for message in await c.collect(3)] == [None, None, True]
        assert service.stats()["damaged_entries"] == 1


@on_uvloop
async def test_a_lost_server_degrades_and_heals(bus: Bus, role_urls: dict[str, str], valkey: Valkey) -> None:
    own = await Bus.connect(Settings(redis_connect_timeout=30), {**role_urls, "market": valkey.url})
    publisher = Publisher(own)
    await publisher.ticks(1)
    try:
        async with serving(own) as service, client(service) as c:
            await c.ask(op="subscribe", channel="ticks", symbols=["BTC-USDT"])
            valkey.kill()
            await until(lambda: service.health().state == "degraded")
            valkey.start()
            await until(lambda: service.health().state == "ok")
            await Publisher(own).ticks(1, first=7)
            state, tick = await c.collect(2)
            assert (state["seq"], tick["gap"], bids([tick])) == (1, True, [7])
            answer = await c.ask(op="resume", channel="ticks", epoch=state["epoch"], symbols={"BTC-USDT": 1})
            assert answer["symbols"]["BTC-USDT"]["recovered"] is False
    finally:
        await own.close()


@on_uvloop
async def test_a_part_that_failed_stays_told(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvops.engine.stream.service.SWEEP_SECONDS", 0.01)
    async with serving(bus) as service:
        monkeypatch.setattr(service._hub, "sweep", lambda: 1 // 0)
        await until(lambda: service.health().state == "failed")
        await Publisher(bus).ticks(1)
        await until(lambda: service.stats()["total_messages"] == 1)
        assert service.health().detail.startswith("ZeroDivisionError")
