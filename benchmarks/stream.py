"""Fan-out of the market data service: N sessions, R ticks/s, S seconds; latencies, losses, CPU, memory.

    python benchmarks/stream.py                                    own servers, own service, synthetic ticks
    python benchmarks/stream.py --attach ws://127.0.0.1:8001       a stack that runs, with the data that it has

The clients are generators of `tvops bench` (docs/bench.md), in processes of their own. Response counts from the
time in the tick (of our own publisher: the id of its entry in the market stream), service from the time in the
frame's header. Loss is counted from the sequence numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection

import numpy as np
import psutil
import uvloop

from tvops.bench.children import Child, split
from tvops.bench.conduct import Order, conduct
from tvops.bench.figures import figure_of, text_of
from tvops.bench.plan import Load, Plan
from tvops.bench.printing import render
from tvops.bench.result import Operation
from tvops.bench.samples import merged
from tvops.bench.scenario import Scenario
from tvops.engine.bus.packing import pack
from tvops.engine.bus.roles import Bus
from tvops.engine.bus.servers import EmbeddedServers
from tvops.engine.bus.stream_writer import StreamWriter
from tvops.engine.instruments import load_instruments
from tvops.engine.records import TICK, RecordType
from tvops.engine.stream.relay import STREAM
from tvops.engine.stream.service import StreamService
from tvops.settings import Settings

_SEGMENT_US = 10_000_000
_LONGEST = 86_400.0


def run_service(link: Connection, settings: Settings, urls: dict[str, str]) -> None:
    """Serve until told to stop; sends the port first."""

    async def serve() -> None:
        bus = await Bus.connect(settings, urls)
        service = StreamService(settings, bus, load_instruments())
        await service.start()
        link.send(service.port)
        await asyncio.to_thread(link.recv)
        link.send(service.stats())
        await service.stop()
        await bus.close()

    uvloop.run(serve())


async def publish(bus: Bus, rate: int, batch: int, seconds: float) -> tuple[int, float]:
    """Write ``rate`` ticks/s in entries of ``batch`` on a fixed schedule; give how many and the worst lateness."""
    writer = StreamWriter(bus.market, STREAM, segment_span=_SEGMENT_US)
    rows = np.zeros(batch, TICK)
    rows["instrument"] = np.arange(batch) % len(load_instruments())
    rows["bid"], rows["ask"], rows["bid_quantity"], rows["ask_quantity"] = 6_000_000, 6_000_001, 1000, 2000
    chance = np.random.default_rng(1)
    entries, last, late = int(rate * seconds / batch), 0, 0.0
    begun = time.monotonic()
    for n in range(entries):
        due = begun + n * batch / rate
        wait = due - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        late = max(late, time.monotonic() - due)
        rows["bid"] += chance.integers(-3, 4, batch)
        rows["ask"] = rows["bid"] + 1
        last = max(last + 1, time.time_ns() // 1000)
        rows["time"] = last * 1000
        await writer.write([(last, 0, pack(rows, RecordType.TICK))])
    return entries * batch, late


def load_of(arguments: argparse.Namespace) -> Load:
    options = {"sessions": arguments.sessions, "encoding": arguments.encoding}
    return Load(door="sessions", processes=arguments.processes, options=options)


class Clients:
    """Sessions that listen from `start` to `collect`, in processes of their own."""

    def __init__(self, url: str, arguments: argparse.Namespace) -> None:
        plan = Plan(
            load=load_of(arguments), url=url, phases=(), warm_up=0.0, seconds=_LONGEST, seed=1, core=None,
            clean_up=False,
        )  # fmt: skip
        self.children = [Child(part) for part in split(plan, arguments.processes)]

    async def start(self) -> None:
        await asyncio.gather(*(child.start() for child in self.children))
        for child in self.children:
            child.begin(time.monotonic_ns())

    async def collect(self) -> tuple[Operation, float]:
        """Give what they saw, and the CPU seconds that they took."""
        for child in self.children:
            child.stop()
        ended = await asyncio.gather(*(child.finished(60, lambda: None) for child in self.children))
        return merged([end.operations[0] for end in ended]), sum(end.cpu_seconds for end in ended)


def attached(arguments: argparse.Namespace) -> None:
    scenario = Scenario(name="stream", seconds=arguments.seconds, warm_up=0.0, loads=(load_of(arguments),))
    print(render(conduct(Order(scenario=scenario, market=arguments.attach))))


def report(operation: Operation, expected: int, sessions: int) -> None:
    figures = operation.figures
    print(f"received   {figures['records']:,.0f} ticks in {operation.sent:,} messages,", end=" ")
    print(f"{figures['mb_per_s']:.0f} MB/s")
    for title, prefix in (("publish", ""), ("sent", "service_"), ("clients", "lateness_")):
        marks = [
            f"{mark} {text_of(figure_of(operation, prefix + mark), 'ns')}"
            for mark in ("p50", "p99", "p99.9", "max")
        ]
        print(f"{title:<11}{'  '.join(marks)}")
    short = expected * sessions - figures["records"]
    print(f"lost       {figures['lost']:,.0f} by number, {short:,.0f} not there at the end,", end=" ")
    print(f"{figures['conflated']:,.0f} conflated frames, {figures['closed']:,.0f} closed")


async def alone(arguments: argparse.Namespace) -> None:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="tvops-") as folder:
        settings = Settings(
            data_dir=folder, market_port=arguments.port, max_sessions=arguments.sessions + 10,
            session_buffer_kb=arguments.buffer_kb,
        )  # fmt: skip
        servers = EmbeddedServers(settings)
        urls = await servers.start()
        try:
            ours, theirs = context.Pipe()
            service = context.Process(target=run_service, args=(theirs, settings, urls), daemon=True)
            service.start()
            port = await asyncio.to_thread(ours.recv)
            clients = Clients(f"http://127.0.0.1:{port}", arguments)
            await clients.start()
            await asyncio.sleep(0.5)
            process = psutil.Process(service.pid)
            before, begun = process.cpu_times(), time.monotonic()
            bus = await Bus.connect(settings, urls)
            expected, late = await publish(bus, arguments.rate, arguments.batch, arguments.seconds)
            await asyncio.sleep(0.5)
            seconds, after = time.monotonic() - begun, process.cpu_times()
            rss = process.memory_info().rss / 2**20
            seen, cpu = await clients.collect()
            ours.send("stop")
            stats = await asyncio.to_thread(ours.recv)
            await bus.close()
            report(seen, expected, arguments.sessions)
            own = after.user + after.system - before.user - before.system
            print(f"service    {own / seconds:.0%} CPU, {rss:.0f} MB; {stats['batches_sent']} batches", end=" ")
            print(f"of {stats['avg_batch_size']}, its own p99 {stats.get('latency_p99_ms', '-')} ms,", end=" ")
            print(f"{stats['conflations']} conflations, {stats['clients_dropped']} dropped")
            print(f"clients    {cpu / seconds:.0%} CPU; the publisher was up to {1000 * late:.1f} ms late")
        finally:
            await servers.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attach", metavar="URL", help="ws://host:port of a service that runs")
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--rate", type=int, default=10_000, help="ticks per second")
    parser.add_argument("--batch", type=int, default=100, help="ticks per entry, as max_batch_size")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--processes", type=int, default=1, help="client processes")
    parser.add_argument("--encoding", choices=["binary", "json"], default="binary")
    parser.add_argument("--buffer-kb", type=int, default=1024, help="session_buffer_kb")
    parser.add_argument("--port", type=int, default=18001)
    arguments = parser.parse_args()
    if arguments.attach:
        attached(arguments)
    else:
        uvloop.run(alone(arguments))


if __name__ == "__main__":
    main()
