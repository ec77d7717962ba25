"""Fan-out of the market data service: N sessions, R ticks/s, S seconds; latencies, losses, CPU, memory.

    python benchmarks/stream.py                                    own servers, own service, synthetic ticks
    python benchmarks/stream.py --attach ws://127.0.0.1:8001       a stack that runs, with the data that it has

The clients run in processes of their own. "publish" counts from the id of the entry in the market stream (own
service) or from the time in the tick (attached); "sent" counts from the time in the frame's header. Loss is
counted from the sequence numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import struct
import tempfile
import time
from array import array
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import picows
import psutil
import uvloop

from tvops.engine.bus.packing import pack
from tvops.engine.bus.roles import Bus
from tvops.engine.bus.servers import EmbeddedServers
from tvops.engine.bus.streams import StreamWriter
from tvops.engine.instruments import load_instruments
from tvops.engine.records import TICK, RecordType
from tvops.engine.stream.frames import FrameFlag
from tvops.engine.stream.service import STREAM, StreamService
from tvops.settings import Settings

_SEGMENT_US = 10_000_000
_FRAME = struct.Struct("<4xBxHI4xQq")
"""Flags, instrument, count, sequence and sent of a frame's header."""


@dataclass
class Tally:
    """What the sessions of one process saw."""

    published: array[int] = field(default_factory=lambda: array("q"))  # ns from publication to receipt
    sent: array[int] = field(default_factory=lambda: array("q"))  # ns from the frame's making to receipt
    records: int = 0
    messages: int = 0
    lost: int = 0
    conflated: int = 0
    closed: int = 0


class Watcher(picows.WSListener):
    """One session: checks the numbers of every frame and notes how old it is."""

    def __init__(self, tally: Tally, encoding: str) -> None:
        self.tally = tally
        self.encoding = encoding
        self.sequences: dict[int | str, int] = {}

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        request = {"op": "subscribe", "channel": "ticks", "symbols": "*", "encoding": self.encoding}
        transport.send(picows.WSMsgType.TEXT, json.dumps(request).encode())

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.tally.closed += 1

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        now = time.time_ns()
        if frame.msg_type == picows.WSMsgType.BINARY:
            self._on_binary(frame.get_payload_as_memoryview(), now)
        elif frame.msg_type == picows.WSMsgType.TEXT:
            self._on_text(json.loads(frame.get_payload_as_bytes()), now)
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.disconnect()

    def _on_binary(self, payload: memoryview, now: int) -> None:
        tally, sequences, offset = self.tally, self.sequences, 0
        tally.messages += 1
        while offset < len(payload):
            flags, instrument, count, sequence, sent = _FRAME.unpack_from(payload, offset)
            if flags:
                self._count(instrument, sequence, count, flags)
            else:
                tally.records += count
                tally.lost += sequence - count - sequences[instrument]
                sequences[instrument] = sequence
            offset += 32 + 64 * count
        if not flags:  # one sample a message: all frames of a message are made at once
            tally.sent.append(now - sent)
            tally.published.append(now - int.from_bytes(payload[32:40], "little"))

    def _on_text(self, message: dict[str, Any], now: int) -> None:
        if "rows" not in message:
            return
        self.tally.messages += 1
        flags = int(message.get("snapshot", False)) | 2 * message.get("conflated", False)
        self._count(message["symbol"], message["seq"], len(message["rows"]), flags)
        if not flags:
            self.tally.published.append(now - message["rows"][0]["time"])
            self.tally.sent.append(now - message["sent"])

    def _count(self, topic: int | str, sequence: int, count: int, flags: int) -> None:
        tally = self.tally
        if flags & FrameFlag.SNAPSHOT:
            self.sequences[topic] = sequence
            return
        tally.records += count
        tally.conflated += bool(flags & FrameFlag.CONFLATED)
        tally.lost += sequence - count - self.sequences[topic]
        self.sequences[topic] = sequence


def run_clients(link: Connection, url: str, sessions: int, encoding: str) -> None:
    """Open the sessions, say so, watch until told to stop, send the tally back."""

    async def watch() -> None:
        tally = Tally()
        transports = []
        for _ in range(sessions):
            transport, _ = await picows.ws_connect(
                lambda: Watcher(tally, encoding), f"{url}/ws", max_frame_size=1 << 24
            )
            transports.append(transport)
        link.send("ready")
        await asyncio.to_thread(link.recv)
        own = psutil.Process().cpu_times()
        link.send((tally, own.user + own.system))
        for transport in transports:
            transport.disconnect(graceful=False)

    uvloop.run(watch())


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


def percentiles(values: np.ndarray[Any, Any]) -> str:
    if not len(values):
        return "no samples"
    marks = np.percentile(values, [50, 99, 99.9, 100]) / 1e6
    return "p50 {:.2f}  p99 {:.2f}  p99.9 {:.2f}  max {:.2f} ms".format(*marks)


def _received(link: Connection) -> Any:
    try:
        return link.recv()
    except EOFError:
        raise SystemExit("a client process has ended; is the service up, and did its sessions last?") from None


class Clients:
    """The client processes."""

    def __init__(self, context: Any, url: str, arguments: argparse.Namespace) -> None:
        self.links: list[Connection] = []
        self.processes = []
        counts = np.bincount(np.arange(arguments.sessions) % arguments.processes, minlength=arguments.processes)
        for count in counts.tolist():
            ours, theirs = context.Pipe()
            target = (theirs, url, count, arguments.encoding)
            process = context.Process(target=run_clients, args=target, daemon=True)
            process.start()
            theirs.close()  # so that the death of the process is the end of the link
            self.links.append(ours)
            self.processes.append(process)
        for link in self.links:
            _received(link)

    def collect(self) -> tuple[list[Tally], float]:
        for link in self.links:
            link.send("stop")
        found = [_received(link) for link in self.links]
        return [tally for tally, _ in found], sum(cpu for _, cpu in found)


def report(tallies: list[Tally], seconds: float, expected: int | None, sessions: int) -> None:
    published = np.concatenate([np.frombuffer(t.published, np.int64) for t in tallies])
    sent = np.concatenate([np.frombuffer(t.sent, np.int64) for t in tallies])
    records, messages = sum(t.records for t in tallies), sum(t.messages for t in tallies)
    print(f"received   {records:,} ticks in {messages:,} messages, {records * 64 / seconds / 1e6:.0f} MB/s")
    print(f"publish    {percentiles(published)}")
    print(f"sent       {percentiles(sent)}")
    lost, conflated = sum(t.lost for t in tallies), sum(t.conflated for t in tallies)
    short = f", {expected * sessions - records:,} not there at the end" if expected is not None else ""
    closed = sum(t.closed for t in tallies)
    print(f"lost       {lost:,} by number{short}, {conflated} conflated frames, {closed} closed")


def attached(arguments: argparse.Namespace) -> None:
    context = multiprocessing.get_context("spawn")
    clients = Clients(context, arguments.attach, arguments)
    time.sleep(arguments.seconds)
    tallies, cpu = clients.collect()
    report(tallies, arguments.seconds, None, arguments.sessions)
    print(f"clients    {cpu / arguments.seconds:.0%} CPU")


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
            clients = await asyncio.to_thread(Clients, context, f"ws://127.0.0.1:{port}", arguments)
            await asyncio.sleep(0.5)
            process = psutil.Process(service.pid)
            before, begun = process.cpu_times(), time.monotonic()
            bus = await Bus.connect(settings, urls)
            expected, late = await publish(bus, arguments.rate, arguments.batch, arguments.seconds)
            await asyncio.sleep(0.5)
            seconds, after = time.monotonic() - begun, process.cpu_times()
            rss = process.memory_info().rss / 2**20
            tallies, cpu = await asyncio.to_thread(clients.collect)
            ours.send("stop")
            stats = await asyncio.to_thread(ours.recv)
            await bus.close()
            report(tallies, arguments.seconds, expected, arguments.sessions)
            own = after.user + after.system - before.user - before.system
            print(f"service    {own / seconds:.0%} CPU, {rss:.0f} MB; {stats['batches_sent']} batches", end=" ")
            print(f"of {stats['avg_batch_size']}, its own p99 {stats['latency_p99_ms']} ms,", end=" ")
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
