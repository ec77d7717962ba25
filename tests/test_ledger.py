"""The ledger on a real server: appends that fail in every way, damage, snapshots, recovery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from redis.asyncio import Redis

from tests.valkey import DURABLE, ValkeyServer
from tvops.engine.bus.packing import pack
from tvops.engine.ledger.ledger import DamageError, Ledger
from tvops.engine.ledger.recovery import Recovery, recover, replay_digest
from tvops.engine.ledger.snapshots import Snapshot, SnapshotStore
from tvops.engine.ledger.snapshotter import Snapshotter
from tvops.engine.ledger.state import TradingState
from tvops.engine.records import COMMAND, EVENT, Kind, OrderType, RecordType, TimeInForce
from tvops.errors import FencedError, LedgerError, RefusedError

KEY = "ledger:{0}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path_factory.mktemp("ledger"), *DURABLE) as running:
        yield running


@pytest.fixture
async def client(server: ValkeyServer) -> AsyncIterator[Redis]:
    client = server.client(timeout=60)  # but for where a server hangs, nobody is to give it up
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


def batch(first: int, count: int) -> NDArray[np.void]:
    rng = np.random.default_rng(first)
    rows = np.zeros(count, COMMAND)
    rows["seq"] = np.arange(first, first + count)
    rows["time"] = rows["seq"]
    rows["kind"], rows["order_type"], rows["time_in_force"] = Kind.NEW, OrderType.LIMIT, TimeInForce.GTC
    rows["account"], rows["side"] = rng.integers(100, 104, count), rng.integers(1, 3, count)
    rows["price"], rows["quantity"] = rng.integers(90, 111, count), rng.integers(1, 9, count)
    if first == 1:
        rows["kind"][0], rows["price"][0], rows["quantity"][0] = Kind.DEFINE, 1, 1000
    return rows


def packed(first: int, count: int) -> bytes:
    return pack(batch(first, count), RecordType.COMMAND)


async def fill(ledger: Ledger, total: int, size: int = 10, first: int = 1) -> None:
    for start in range(first, total + 1, size):
        await ledger.append(start, packed(start, size))


async def opened(client: Redis, last: int = 0) -> Ledger:
    ledger = Ledger(client)
    await ledger.open(last)
    return ledger


def make_state() -> TradingState:
    return TradingState(1024)


def expected_digest(total: int, size: int = 10) -> bytes:
    state = make_state()
    for start in range(1, total + 1, size):
        state.apply(batch(start, size))
    return state.digest()


async def recovered(client: Redis) -> Recovery:
    ledger = Ledger(client)
    try:
        return await recover(ledger, SnapshotStore(client), make_state)
    finally:
        await ledger.close()


async def write_snapshots(client: Redis, *seqs: int, size: int = 10) -> None:
    """Write snapshots as a running engine would; trims the ledger behind the older one."""
    last = await client.xrevrange(KEY, count=1)
    ledger = await opened(client, int(last[0][0].split(b"-")[0]))
    state, store = make_state(), SnapshotStore(client)
    snapshotter = Snapshotter(ledger, store, state, 1 << 30, [])
    for start in range(1, max(seqs) + 1, size):
        state.apply(batch(start, size))
        if state.seq in seqs:
            await snapshotter.finish(10)
            assert snapshotter.trouble == ""
    await ledger.close()


async def test_append_and_recover(client: Redis) -> None:
    ledger = await opened(client)
    await fill(ledger, 200)
    assert ledger.entries == 20
    await ledger.close()
    found = await recovered(client)
    assert (found.state.seq, found.replayed, found.problems) == (200, 200, [])
    assert found.state.digest() == expected_digest(200)
    assert await replay_digest(Ledger(client), SnapshotStore(client), make_state) == (200, found.state.digest())


async def test_empty_ledger(client: Redis) -> None:
    found = await recovered(client)
    assert (found.state.seq, found.replayed, found.cut) == (0, 0, "")


async def test_second_engine_fences_the_first(client: Redis) -> None:
    first, second = await opened(client), await opened(client)
    await first.append(1, packed(1, 10))
    with pytest.raises(FencedError):
        await second.append(1, packed(1, 5))
    with pytest.raises(FencedError):
        await opened(client)
    third = await opened(client, 1)
    await third.append(11, packed(11, 10))
    with pytest.raises(FencedError):
        await first.append(11, packed(11, 5))
    assert await client.xlen(KEY) == 2
    for ledger in (first, second, third):
        await ledger.close()


async def test_reply_that_was_lost_is_no_second_append(client: Redis) -> None:
    ledger = await opened(client)
    await client.xadd(KEY, {"p": packed(1, 10)}, id="1-0")  # what the lost reply was about
    await ledger.append(1, packed(1, 10))
    await ledger.append(11, packed(11, 10))
    assert (await client.xlen(KEY), ledger.entries) == (2, 2)
    await ledger.close()


@pytest.mark.parametrize("loss", ["flushall", "delete", "lost entries", "other start", "extra entry", "trimmed"])
async def test_ledger_that_changes_under_the_engine_is_noticed(client: Redis, loss: str) -> None:
    ledger = await opened(client)
    await fill(ledger, 50)
    if loss == "flushall":
        await client.flushall()
    elif loss == "delete":
        await client.delete(KEY)
    elif loss == "lost entries":
        await client.xdel(KEY, "41-0")
    elif loss == "other start":
        await client.delete(KEY)
        await client.xadd(KEY, {"p": packed(1, 10)}, id="1-0")
    elif loss == "extra entry":
        await client.xadd(KEY, {"p": packed(1, 10)}, id="45-0")
    else:
        await client.xtrim(KEY, maxlen=0, approximate=False)
    with pytest.raises(LedgerError):
        await ledger.append(51, packed(51, 10))
    await ledger.close()


async def test_rollback_is_noticed_after_a_reconnect(client: Redis, server: ValkeyServer) -> None:
    ledger = await opened(client)
    await fill(ledger, 50)
    await client.delete(KEY)
    for start in (1, 11, 21, 31):
        await client.xadd(KEY, {"p": packed(start, 10)}, id=f"{start}-0")
    await client.client_kill_filter(skipme=True, _type="normal")
    with pytest.raises(LedgerError, match="entries are lost"):
        await ledger.append(51, packed(51, 10))
    await ledger.close()


async def test_append_waits_for_a_server_that_cannot_write(client: Redis) -> None:
    ledger = await opened(client)
    await fill(ledger, 20)
    await client.config_set("maxmemory", 1)  # whatever it frees by itself meanwhile
    try:
        append = asyncio.create_task(ledger.append(21, packed(21, 10)))
        while not ledger.trouble:
            await asyncio.sleep(0.01)
        assert "memory" in ledger.trouble
        assert not append.done()
    finally:
        await client.config_set("maxmemory", 0)
    await append
    assert ledger.trouble == ""
    assert (await recovered(client)).state.seq == 30
    await ledger.close()


async def test_append_survives_a_killed_and_a_hanging_server(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path, *DURABLE) as server:
        client = server.client(timeout=5)
        ledger = await opened(client)
        await fill(ledger, 50)
        server.kill()
        append = asyncio.create_task(ledger.append(51, packed(51, 10)))
        while not ledger.trouble:
            await asyncio.sleep(0.01)
        server.start()
        await append
        server.pause()
        append = asyncio.create_task(ledger.append(61, packed(61, 10)))
        while not ledger.trouble:
            await asyncio.sleep(0.01)
        server.resume()
        await append
        await ledger.append(71, packed(71, 10))
        await ledger.close()
        found = await recovered(client)
        assert (found.state.seq, found.problems) == (80, [])
        assert found.state.digest() == expected_digest(80)
        await client.aclose(close_connection_pool=True)


async def damage(client: Redis, seq: int, how: str) -> None:
    """Write the stream anew with one entry damaged."""
    entries = await client.xrange(KEY)
    await client.delete(KEY)
    for name, fields in entries:
        start, blob = int(name.split(b"-")[0]), fields[b"p"]
        if start == seq:
            if how == "missing":
                continue
            blob = {
                "bit": blob[:40] + bytes([blob[40] ^ 1]) + blob[41:],
                "short": blob[:-1],
                "empty": b"",
                "type": pack(np.zeros(3, EVENT), RecordType.EVENT),
                "seqs": packed(seq + 1, 10),
                "none": pack(np.zeros(0, COMMAND), RecordType.COMMAND),
                "field": blob,
            }[how]
        field = "q" if start == seq and how == "field" else "p"
        await client.xadd(KEY, {field: blob}, id=name)


@pytest.mark.parametrize("how", ["bit", "short", "empty", "type", "seqs", "none", "field", "missing"])
@pytest.mark.parametrize("seq", [1, 71, 191])
async def test_damage_is_cut_off_and_kept_aside(client: Redis, how: str, seq: int) -> None:
    ledger = await opened(client)
    await fill(ledger, 200)
    await ledger.close()
    if (how, seq) == ("missing", 191):
        return  # a ledger without its last entry is a whole ledger
    await damage(client, seq, how)
    damaged = await client.xrange(KEY, min=f"{seq}-0")
    if (how, seq) == ("missing", 1):
        with pytest.raises(LedgerError, match="begins with entry 11-0"):
            await recovered(client)
        return
    found = await recovered(client)
    assert found.state.seq == seq - 1
    assert len(found.problems) == 1
    assert found.state.digest() == expected_digest(seq - 1)
    assert found.cut == f"{KEY}:cut:{seq}"
    assert await client.xrange(found.cut) == damaged
    ledger = Ledger(client)
    found = await recover(ledger, SnapshotStore(client), make_state)
    assert (found.state.seq, found.problems) == (seq - 1, [])
    await fill(ledger, 200, first=seq)
    await ledger.close()
    assert (await recovered(client)).state.digest() == expected_digest(200)


async def test_second_cut_at_the_same_place_keeps_the_first(client: Redis) -> None:
    for number in ("", ":2"):
        ledger = Ledger(client)
        found = await recover(ledger, SnapshotStore(client), make_state)
        await fill(ledger, 100, first=found.state.seq + 1)
        await ledger.close()
        await damage(client, 51, "bit")
        found = await recovered(client)
        assert found.cut == f"{KEY}:cut:51{number}"
    assert await client.xlen(f"{KEY}:cut:51") == await client.xlen(f"{KEY}:cut:51:2") == 5


async def test_entry_of_another_version_is_refused_not_cut(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await opened(client)
    await fill(ledger, 50)
    with monkeypatch.context() as patch:
        patch.setattr("tvops.engine.bus.packing.VERSION", 77)
        await ledger.append(51, packed(51, 10))
    await ledger.close()
    with pytest.raises(RefusedError, match="version 77"):
        await recovered(client)
    assert await client.xlen(KEY) == 6


async def test_snapshots_trim_and_recover(client: Redis) -> None:
    ledger = await opened(client)
    await fill(ledger, 300)
    await ledger.close()
    await write_snapshots(client, 100, 200, 250)
    assert await SnapshotStore(client).seqs() == [250, 200]
    assert (await client.xrange(KEY, count=1))[0][0] == b"201-0"
    found = await recovered(client)
    assert (found.state.seq, found.replayed, found.snapshots, found.problems) == (300, 50, [250, 200], [])
    assert found.state.digest() == expected_digest(300)
    digests = [await replay_digest(Ledger(client), SnapshotStore(client), make_state, seq) for seq in (200, 250)]
    assert digests == [(300, found.state.digest())] * 2


@pytest.mark.parametrize("how", ["bit", "short", "empty", "other"])
async def test_damaged_snapshot_falls_back_to_the_one_before(client: Redis, how: str) -> None:
    ledger = await opened(client)
    await fill(ledger, 300)
    await ledger.close()
    await write_snapshots(client, 200, 250)
    store = SnapshotStore(client)
    blob = await client.get(store.key(250))
    assert isinstance(blob, bytes)
    changed = {
        "bit": blob[:-5] + bytes([blob[-5] ^ 1]) + blob[-4:],
        "short": blob[:-9],
        "empty": b"",
        "other": await client.get(store.key(200)),
    }[how]
    await client.set(store.key(250), changed or b"")
    found = await recovered(client)
    assert (found.state.seq, found.replayed, found.snapshots) == (300, 100, [200])
    assert store.key(250) in found.problems[0]
    assert found.state.digest() == expected_digest(300)
    await client.set(store.key(200), b"nothing")
    with pytest.raises(LedgerError, match="begins with entry 201-0"):
        await recovered(client)


async def test_snapshot_of_another_version_is_refused(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await opened(client)
    await fill(ledger, 100)
    await ledger.close()
    with monkeypatch.context() as patch:
        patch.setattr("tvops.engine.ledger.snapshots.VERSION", 77)
        await write_snapshots(client, 50)
    with pytest.raises(RefusedError, match="version 77"):
        await recovered(client)


async def test_ledger_that_ends_before_its_snapshot_is_refused(client: Redis) -> None:
    ledger = await opened(client)
    await fill(ledger, 100)
    await ledger.close()
    await write_snapshots(client, 100)
    await client.xdel(KEY, "91-0")
    with pytest.raises(LedgerError, match="ends with seq 90"):
        await recovered(client)
    await client.delete(KEY)
    with pytest.raises(LedgerError, match="has no entries"):
        await recovered(client)


async def test_damage_that_a_snapshot_covers_costs_nothing(client: Redis) -> None:
    ledger = await opened(client)
    await fill(ledger, 100)
    await ledger.close()
    await write_snapshots(client, 100)
    await damage(client, 91, "bit")
    found = await recovered(client)
    assert (found.state.seq, found.cut, len(found.problems)) == (100, "", 1)
    assert found.state.digest() == expected_digest(100)


async def test_snapshot_that_cannot_be_written_trims_nothing(client: Redis) -> None:
    ledger = await opened(client)
    state = make_state()
    snapshotter = Snapshotter(ledger, SnapshotStore(client), state, 50, [])
    for start in range(1, 201, 10):
        await ledger.append(start, packed(start, 10))
        state.apply(batch(start, 10))
    await client.config_set("maxmemory", 1)
    try:
        await snapshotter.finish(5)
    finally:
        await client.config_set("maxmemory", 0)
    assert "snapshot of seq 200 not written" in snapshotter.trouble
    assert await client.xlen(KEY) == 20
    assert await client.keys("*snapshot*") == []
    await snapshotter.finish(5)
    assert (snapshotter.trouble, snapshotter.seq) == ("", 200)
    await ledger.close()


async def test_snapshots_that_cannot_be_listed_trim_nothing(client: Redis) -> None:
    ledger = await opened(client)
    state = make_state()
    snapshotter = Snapshotter(ledger, SnapshotStore(client), state, 50, [])
    for start in (1, 11, 21):
        await ledger.append(start, packed(start, 10))
        state.apply(batch(start, 10))
        await client.execute_command("ACL", "SETUSER", "default", "-scan")
        try:
            await snapshotter.finish(5)
        finally:
            await client.execute_command("ACL", "SETUSER", "default", "+scan")
        assert f"snapshot of seq {start + 9} written, what it replaces not removed" in snapshotter.trouble
        assert await client.xlen(KEY) == start // 10 + 1
    assert await SnapshotStore(client).seqs() == [30, 20, 10]
    await ledger.close()


async def test_running_engine_takes_snapshots_by_itself(client: Redis) -> None:
    ledger = await opened(client)
    state = make_state()
    snapshotter = Snapshotter(ledger, SnapshotStore(client), state, 50, [])
    for start in range(1, 401, 10):
        await ledger.append(start, packed(start, 10))
        state.apply(batch(start, 10))
        snapshotter.after_batch()
    await snapshotter.finish(5)
    assert await SnapshotStore(client).seqs() == [400, (await SnapshotStore(client).seqs())[1]]
    assert ledger.entries == await client.xlen(KEY) < 40
    await ledger.close()
    found = await recovered(client)
    assert (found.state.seq, found.replayed) == (400, 0)
    assert found.state.digest() == expected_digest(400)


def test_snapshot_parts_that_do_not_fit_are_refused() -> None:
    captured = make_state().capture()
    good = Snapshot.decode(captured.encode())
    bad = [Snapshot(0, 0, {**good.blocks, "engine": (100, b"x")}), Snapshot(0, 0, {})]
    parts = {name: good.part(name) for name in good.blocks}
    for name in parts:
        bad.append(Snapshot.of(0, 0, {**parts, name: b"\xc1"}.items()))
    for snapshot in bad:
        with pytest.raises(LedgerError):
            make_state().restore(snapshot)


async def test_damage_stops_a_proof(client: Redis) -> None:
    ledger = await opened(client)
    await fill(ledger, 100)
    await ledger.close()
    await damage(client, 51, "bit")
    with pytest.raises(DamageError):
        await replay_digest(Ledger(client), SnapshotStore(client), make_state)
    assert await client.xlen(KEY) == 10


async def test_reading_without_a_server_is_a_ledger_error(tmp_path: Path) -> None:
    client = ValkeyServer(tmp_path).client()
    with pytest.raises(LedgerError):
        await recovered(client)
    with pytest.raises(LedgerError):
        await opened(client)
    await client.aclose(close_connection_pool=True)
