"""Durable order entry without a network: what the ledger, the sequencer and the projections give and cost.

    python benchmarks/ledger.py --orders 1000 --liquidity 10000 --seconds 20

Servers and engine service are real, in a temporary directory; clients are in the engine's process, liquidity
comes through the inbox. Prints latencies from submit to reply (on disk and matched), what a snapshot costs the
event loop, and how fast a recovery replays.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import uvloop
from numpy.typing import NDArray
from redis import Redis

from tvops.engine.bus.packing import pack
from tvops.engine.bus.roles import Bus
from tvops.engine.bus.servers import EmbeddedServers
from tvops.engine.instruments import load_instruments
from tvops.engine.ledger.ledger import Ledger
from tvops.engine.ledger.recovery import recover
from tvops.engine.ledger.service import EngineService
from tvops.engine.ledger.snapshots import SnapshotStore
from tvops.engine.ledger.state import TradingState
from tvops.engine.records import COMMAND, Kind, OrderType, RecordType, TimeInForce
from tvops.engine.telemetry.recorder import Recorder, Window
from tvops.settings import Settings

TABLE = load_instruments()


def orders(rng: np.random.Generator, count: int, accounts: tuple[int, int]) -> NDArray[Any]:
    """Make limit orders around the middle of random instruments; about one in three trades at once."""
    rows = np.zeros(count, COMMAND)
    rows["kind"], rows["order_type"], rows["time_in_force"] = Kind.NEW, OrderType.LIMIT, TimeInForce.GTC
    rows["account"], rows["side"] = rng.integers(*accounts, count), rng.integers(1, 3, count)
    rows["instrument"], rows["quantity"] = rng.integers(0, len(TABLE), count), rng.integers(1, 10, count)
    middles = np.array([instrument.sim_price for instrument in TABLE.all])
    rows["price"] = middles[rows["instrument"]] + rng.integers(-10, 11, count)
    return rows


def write_liquidity(url: str, rate: int, seconds: float) -> None:
    """Write orders of liquidity accounts into the inbox, in 200 entries a second."""
    rng, client = np.random.default_rng(2), Redis.from_url(url)
    begun = time.monotonic()
    for n in range(int(seconds * 200)):
        time.sleep(max(0.0, begun + n / 200 - time.monotonic()))
        rows = orders(rng, rate // 200, (10, 90))
        rows["kind"][::25] = Kind.MASS_CANCEL
        client.xadd("inbox:{0}", {"p": pack(rows, RecordType.COMMAND)}, maxlen=10_000)


def show(name: str, latencies: Recorder | Window, count: int, seconds: float) -> None:
    """Print a line."""
    p50, p99, p999 = (latencies.percentile(p) / 1e6 for p in (50, 99, 99.9))
    print(f"{name:34} {count / seconds:10,.0f}/s   p50 {p50:.2f}  p99 {p99:.2f}  p99.9 {p999:.2f} ms")


async def ask(engine: EngineService, rows: NDArray[Any]) -> None:
    """Submit rows and wait for the reply."""
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    await engine.sequencer.room(len(rows))
    engine.sequencer.submit(rows, lambda events: answer.set_result(None))
    await answer


async def closed_loop(engine: EngineService, name: str, clients: int, size: int, seconds: float) -> None:
    """Have every client send its next batch when the last one is answered."""
    rows, done, end = orders(np.random.default_rng(1), 4096, (100, 200)), 0, time.monotonic() + seconds
    window = Window(engine.sequencer.answered)

    async def client(number: int) -> None:
        nonlocal done
        while time.monotonic() < end:
            start = (number * 7919 + done) % (len(rows) - size)
            await ask(engine, rows[start : start + size])
            done += size

    await asyncio.gather(*(client(number) for number in range(clients)))
    show(name, window, done, seconds)


async def open_loop(engine: EngineService, url: str, rate: int, liquidity: int, seconds: float) -> None:
    """Send single orders at a fixed rate beside the liquidity."""
    writer = multiprocessing.get_context("spawn").Process(target=write_liquidity, args=(url, liquidity, seconds))
    writer.start()
    rows, answered = orders(np.random.default_rng(3), 4096, (100, 200)), Recorder()
    before, begun, sent, stall = engine.sequencer.commands, time.perf_counter_ns(), 0, 0
    worst: list[float] = []
    while sent < rate * seconds:
        due = begun + sent * 1_000_000_000 // rate
        await asyncio.sleep(max(0, due - time.perf_counter_ns()) / 1e9)
        while (due := begun + sent * 1_000_000_000 // rate) <= time.perf_counter_ns():
            engine.sequencer.submit(rows[sent % 4096 : sent % 4096 + 1], recorder(answered, due))
            sent += 1
        if (new := int(float(engine.stats()["snapshot_stall_ms"]) * 1000)) != stall:
            stall = new
            worst.append(new / 1000)
    show("open loop, one order each", answered, sent, seconds)
    total = engine.sequencer.commands - before
    print(f"{'  with liquidity':34} {total / seconds:10,.0f}/s   snapshots stalled for {worst} ms")
    writer.join()


def recorder(latencies: Recorder, due: int) -> Callable[[NDArray[Any]], None]:
    """Give a reply that records the time since ``due``."""
    return lambda events: latencies.record(time.perf_counter_ns() - due)


async def main(options: argparse.Namespace) -> None:
    """Run every part in turn."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=folder)
        servers = EmbeddedServers(settings)
        urls = await servers.start()
        bus = await Bus.connect(settings, urls)
        engine = EngineService(settings, bus, TABLE)
        await engine.start()
        await closed_loop(engine, "(warming up)", 1, 1, 0.5)
        await closed_loop(engine, "1 client, one order each", 1, 1, 2)
        await closed_loop(engine, "64 clients, one order each", 64, 1, 2)
        await closed_loop(engine, "16 clients, 100 orders each", 16, 100, 2)
        await open_loop(engine, urls["market"], options.orders, options.liquidity, options.seconds)
        for name, figure in engine.stats().items():
            print(f"  {name:32} {figure}")
        print(f"  resident memory                  {psutil.Process().memory_info().rss >> 20} MB")
        begun = time.perf_counter()
        await engine.stop()
        print(f"stop: {time.perf_counter() - begun:.2f} s")
        store = SnapshotStore(bus.ledger)
        await store.keep((await store.seqs())[1:])
        found = await recover(Ledger(bus.ledger), store, lambda: TradingState(settings.order_history))
        print(f"recovery: {found.replayed:,} commands replayed on a snapshot in {found.seconds:.2f} s")
        await bus.close()
        await servers.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=1000, help="single orders per second in the open loop")
    parser.add_argument("--liquidity", type=int, default=10_000, help="commands per second through the inbox")
    parser.add_argument("--seconds", type=float, default=20, help="length of the open loop")
    uvloop.run(main(parser.parse_args()))
