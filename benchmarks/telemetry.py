"""What telemetry costs: a record of a latency, and all of it under a load of ticks.

    python benchmarks/telemetry.py                            both
    python benchmarks/telemetry.py --part records             the ways to record, in turns, in one process
    python benchmarks/telemetry.py --part service --rounds 6  that of both workers at 10,000 ticks/s, on and off

Records: ns of CPU time for each, the call from Python and its share of the counting included, without the loop
around it; best and median of rounds that take turns. `Plain` is a histogram in Python without any of this.
Service: the CPU time of two processes, of which one serves ticks as the market worker does, and one watches the
stack as the engine worker does (probes of processes, host and servers; without orders, which would only add their
records), over windows in which telemetry is off, on, and on with a reader that asks each for the document 4 times
a second, as `tvops top` does: there and back again; and what its records cost, which are taken in all, from how
many there were. Limits: 100 ns for a record, 2 % of a core for all.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
import uvloop
from stream import Clients, publish

from tvops.engine.bus.roles import Bus
from tvops.engine.bus.servers import EmbeddedServers
from tvops.engine.instruments import load_instruments
from tvops.engine.services import end_tasks
from tvops.engine.stream.service import StreamService
from tvops.engine.telemetry import kernels
from tvops.engine.telemetry.histogram import empty
from tvops.engine.telemetry.recorder import Recorder
from tvops.engine.telemetry.service import MSGPACK, TelemetryService
from tvops.settings import Settings
from tvops.statistics import compare

ROUNDS = 40
VALUES = (2 ** np.random.default_rng(1).uniform(10, 30, 20_000)).astype(np.int64)  # 1 µs to 1 s
RECORD_LIMIT_NS = 100
SERVICE_LIMIT = 2.0  # % of a core
READER_SECONDS = 0.25
KINDS = ("off", "on", "read")

Way = Callable[[], Any]


class Plain:
    """A histogram with 32 buckets for each power of two, as simple as Python has it."""

    def __init__(self) -> None:
        self.counts = [0] * 1888
        self.count = self.negative = self.maximum = 0

    def record(self, nanoseconds: int) -> None:
        if nanoseconds < 0:
            self.negative += 1
            return
        shift = max(nanoseconds.bit_length() - 6, 0)
        self.counts[(shift << 5) + (nanoseconds >> shift)] += 1
        self.count += 1
        if nanoseconds > self.maximum:
            self.maximum = nanoseconds


def each(record: Callable[[int], Any]) -> Way:
    """Give a loop that records every value by itself."""
    values = VALUES.tolist()

    def run() -> None:
        for value in values:
            record(value)

    return run


def ways() -> dict[str, Way]:
    """Give the ways to record `VALUES`; those that `each` loops are named as what it calls."""
    many, counts, ones = Recorder(), empty(), np.ones(len(VALUES), np.int64)
    times = Recorder().record_times
    return {
        "nothing()": each(lambda value: None),
        "Plain.record()": each(Plain().record),
        "Recorder.record()": each(Recorder().record),
        "Recorder.record_times()": each(lambda value: times(value, 3)),
        "Recorder.record_many, for each": lambda: many.record_many(VALUES),
        "the kernel, for each": lambda: kernels.count(VALUES, ones, counts),
    }


def time_ways() -> dict[str, list[float]]:
    """Give the ns of CPU time per value of every way, one for each round."""
    kernels.compile_kernels()
    tried, values = ways(), VALUES.tolist()
    found: dict[str, list[float]] = {name: [] for name in tried}
    for _ in range(ROUNDS):
        begun = time.thread_time_ns()
        for _ in values:
            pass
        loop = time.thread_time_ns() - begun
        for name, way in tried.items():
            begun = time.thread_time_ns()
            way()
            spent = time.thread_time_ns() - begun
            found[name].append((spent - loop * name.endswith("()")) / len(values))
    return found


def show_records() -> None:
    found = time_ways()
    plain = found["Plain.record()"]
    print(f"{'ns per record':32} {'best':>8} {'median':>8} {'of plain':>9}")
    for name, values in found.items():
        ratio = median(value / other for value, other in zip(values, plain, strict=True))
        print(f"{name:32} {min(values):8.1f} {median(values):8.1f} {ratio:9.2f}")
    cost = median(found["Recorder.record()"])
    print(f"limit {RECORD_LIMIT_NS} ns for Recorder.record: {'kept' if cost < RECORD_LIMIT_NS else 'NOT kept'}")


def run_worker(name: str, link: Connection, settings: Settings, urls: dict[str, str]) -> None:
    """Be a worker; for each message (kind, seconds) give CPU seconds and records of a window; None ends it."""

    async def read(telemetry: TelemetryService) -> None:
        while True:
            telemetry.encoded(MSGPACK)
            await asyncio.sleep(READER_SECONDS)

    async def window(telemetry: TelemetryService, kind: str, seconds: float) -> tuple[float, int]:
        readers = [asyncio.create_task(read(telemetry))] if kind == "read" else []
        if kind != "off":
            await telemetry.start()
        await asyncio.sleep(0.5)  # the first sample of each probe is not like the others
        before, records = time.process_time(), recorded(telemetry)
        await asyncio.sleep(seconds)
        spent, records = time.process_time() - before, recorded(telemetry) - records
        if kind != "off":
            await telemetry.stop()
        for reader in readers:
            reader.cancel()
        return spent, records

    async def serve() -> None:
        bus = await Bus.connect(settings, urls)
        telemetry = TelemetryService(name, settings, bus)
        telemetry.compile()
        service = None
        if name == "market":
            service = StreamService(settings, bus, load_instruments(), telemetry=telemetry)
            telemetry.watch([service], service.listed_sessions)
            service.compile()
            await service.start()
        link.send(service.port if service else 0)
        while (message := await asyncio.to_thread(link.recv)) is not None:
            link.send(await window(telemetry, *message))
        if service:
            await service.stop()
        await bus.close()

    uvloop.run(serve())


def recorded(telemetry: TelemetryService) -> int:
    """Give how many latencies there are in all stages."""
    return sum(int(stage.histogram.unpack().sum()) for stage in telemetry.stages.packed().values())


async def time_service(arguments: argparse.Namespace) -> list[tuple[str, float, int]]:
    """Give the windows: which of `KINDS`, % of a core, records per second."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="tvops-") as folder:
        settings = Settings(data_dir=folder, market_port=arguments.port)
        servers = EmbeddedServers(settings)
        urls = await servers.start()
        try:
            links = []
            for name in ("market", "engine"):
                ours, theirs = context.Pipe()
                context.Process(target=run_worker, args=(name, theirs, settings, urls), daemon=True).start()
                links.append(ours)
            port, _ = [await asyncio.to_thread(link.recv) for link in links]
            arguments.processes, arguments.encoding = 1, "binary"
            clients = Clients(f"http://127.0.0.1:{port}", arguments)
            await clients.start()
            bus = await Bus.connect(settings, urls)
            rounds = (KINDS if number % 2 else KINDS[::-1] for number in range(arguments.rounds))
            order = ["off", *(kind for each_round in rounds for kind in each_round)]
            length = len(order) * (arguments.seconds + 1) + 5
            load = asyncio.create_task(tick(bus, arguments, length))
            windows = []
            for kind in order:
                for link in links:
                    link.send((kind, arguments.seconds))
                told = [await asyncio.to_thread(link.recv) for link in links]
                spent, records = sum(one for one, _ in told), sum(count for _, count in told)
                windows.append((kind, 100 * spent / arguments.seconds, round(records / arguments.seconds)))
            await end_tasks([load])
            await clients.collect()
            for link in links:
                link.send(None)
            await bus.close()
        finally:
            await servers.stop()
    return windows[1:]  # the first one warms up


async def tick(bus: Bus, arguments: argparse.Namespace, seconds: float) -> None:
    """Publish ticks."""
    await publish(bus, arguments.rate, arguments.batch, seconds)


def show_service(arguments: argparse.Namespace) -> None:
    windows = uvloop.run(time_service(arguments))
    off, on, read = (np.array([share for kind, share, _ in windows if kind == wanted]) for wanted in KINDS)
    records = median(count for kind, _, count in windows if kind != "off")
    each_ns = median(time_ways()["Recorder.record()"])
    share = records * each_ns / 1e7
    load = f"{arguments.rate:,} ticks/s, {arguments.sessions} sessions"
    print(f"{load}, {arguments.rounds} rounds of {arguments.seconds:g} s; % of a core, of both workers together")
    print(f"off {np.mean(off):.2f}, on {np.mean(on):.2f}, with a reader {np.mean(read):.2f}")
    print(f"its records: {share:.3f} % of a core ({records:,.0f}/s of {each_ns:.0f} ns)")
    for what, values in (("telemetry", on), (f"with a reader every {READER_SECONDS * 1000:.0f} ms", read)):
        found = compare(off, values, seed=1)
        total = found.difference + share
        verdict = "kept" if total < SERVICE_LIMIT else "NOT kept"
        print(f"{what}: {found.difference:+.2f} % of a core ({found.low:+.2f} to {found.high:+.2f}), ", end="")
        print(f"{total:.2f} % with its records: limit {SERVICE_LIMIT:g} % {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["records", "service", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=8, help="each with a window of every kind")
    parser.add_argument("--seconds", type=float, default=5, help="length of a window")
    parser.add_argument("--rate", type=int, default=10_000, help="ticks per second")
    parser.add_argument("--batch", type=int, default=100, help="ticks per entry")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--port", type=int, default=18011)
    arguments = parser.parse_args()
    if arguments.part != "service":
        show_records()
    if arguments.part != "records":
        show_service(arguments)


if __name__ == "__main__":
    main()
