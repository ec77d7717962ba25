"""A worker process: hosts the services of one name (`engine` or `market`) for the supervisor.

The supervisor talks to it over its standard streams: one JSON line with the settings and the server URLs
comes in on stdin (so that secrets are neither in argv nor in the environment), and stdin stays open: when
it closes, the supervisor is gone and the worker ends. One JSON status line per half second goes out on stdout.
Logs go to stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from tvops.engine.bus.roles import Bus
from tvops.engine.collector import WORKER_DEFAULTS, Collector
from tvops.engine.compiled import compilations
from tvops.engine.inside_profile import InsideProfiler
from tvops.engine.instruments import load_instruments
from tvops.engine.process_tuning import tune_process
from tvops.engine.services import HasKernels, Service
from tvops.engine.socket_tuning import SocketOptions, unconnected_effects
from tvops.engine.stack_tuning import Effect, StackTuning
from tvops.engine.telemetry.logs import set_up_logging
from tvops.engine.telemetry.service import TelemetryService
from tvops.engine.telemetry.uptime import Past
from tvops.errors import FencedError, HeldError, RefusedError, TvopsError, UnfitServerError, UsageError
from tvops.settings import Settings

STATUS_INTERVAL = 0.5
MAX_CONFIGURATION_BYTES = 1 << 20
PORTS = {"engine": "gateway", "market": "stream"}
"""What listens in each worker."""

FATAL = (UsageError, RefusedError, HeldError, FencedError, UnfitServerError)
"""Errors that a restart of the worker cannot mend."""

logger = logging.getLogger("tvops.engine.worker")  # __name__ is "__main__" here


class Configuration(msgspec.Struct):
    """What the supervisor sends first."""

    settings: Settings
    urls: dict[str, str]
    tuning: StackTuning = StackTuning()
    past: Past = Past()


class Status(msgspec.Struct):
    """One status line of a worker."""

    pid: int
    ready: bool
    services: dict[str, tuple[str, str]] = {}  # name -> health state, detail
    stats: dict[str, dict[str, float | int | str]] = {}
    fatal: str = ""  # why the worker ends and must not be restarted
    effects: list[Effect] = []  # what it has in force of its profile; told once


def build_services(name: str, settings: Settings, bus: Bus, options: SocketOptions, past: Past) -> list[Service]:
    """Make the services of the worker ``name``, in the order in which they start.

    Args:
        name: engine or market.
        settings: of the stack.
        bus: its servers.
        options: of the sockets of the worker's port.
        past: of the processes before this one.
    """
    table = load_instruments(Path(settings.instruments) if settings.instruments else None)
    telemetry = TelemetryService(name, settings, bus, past)
    stages = telemetry.stages
    if name == "engine":
        from tvops.engine.gateway.service import GatewayService
        from tvops.engine.ledger.service import EngineService

        engine = EngineService(settings, bus, table, stages)
        gateway = GatewayService(settings, bus, engine, options, telemetry)
        telemetry.watch((engine, gateway), gateway.listed_sessions)
        return [engine, gateway, telemetry]
    from tvops.engine.market.price import PriceService, make_feed
    from tvops.engine.stream.service import StreamService

    price = PriceService(settings, bus, table, make_feed(settings, table, bus), stages)
    services: list[Service] = [price]
    if settings.feed == "sim":
        from tvops.engine.feeds.sim import SimService

        services.append(SimService(settings, bus, table))
    elif settings.feed.startswith("replay:") and settings.mirror:
        from tvops.engine.market.mirror import MirrorService

        services.append(MirrorService(settings, bus, table, price))
    stream = StreamService(settings, bus, table, tuple(services), options, telemetry)
    services.append(stream)
    telemetry.watch(services, stream.listed_sessions)
    return [*services, telemetry]


def collect_status(services: list[Service], ready: bool) -> Status:
    """Put the health and the figures of all services into one status."""
    health = {service.name: service.health() for service in services}
    return Status(
        pid=os.getpid(),
        ready=ready and all(h.state in ("ok", "degraded") for h in health.values()),
        services={name: (h.state, h.detail) for name, h in health.items()},
        stats={service.name: service.stats() for service in services},
    )


class StatusPipe:
    """The pipe to the supervisor, which may be busy: a full pipe takes a part of a long line (pipe(7))."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""

    def write(self, status: Status) -> None:
        """Write a line; what did not fit goes out before the next one.

        Raises:
            BlockingIOError: the pipe is full, and nothing of this line was taken.
            OSError: nobody reads it any more.
        """
        if self._rest:
            self._rest = self._rest[os.write(self._descriptor, self._rest) :]
        if self._rest:
            raise BlockingIOError
        line = msgspec.json.encode(status) + b"\n"
        self._rest = line[os.write(self._descriptor, line) :]


async def _report(pipe: StatusPipe, services: list[Service], stop: asyncio.Event, effects: list[Effect]) -> None:
    """Tell the supervisor the state until the end; raise where a service has failed for good."""
    while not stop.is_set():
        for service in services:
            health = service.health()
            if health.state == "failed":
                kind = RefusedError if health.final else TvopsError
                raise kind(f"{service.name}: {health.detail}")
        try:
            status = collect_status(services, ready=True)
            status.effects = effects
            pipe.write(status)
            effects = []
        except BlockingIOError:
            pass  # the supervisor is busy: the next line tells the same
        except OSError:
            stop.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), STATUS_INTERVAL)


async def _watch_supervisor(stop: asyncio.Event) -> None:
    """End with the supervisor: its end of stdin closes when it dies, however it dies."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    stop.set()


async def serve(
    name: str, configuration: Configuration, pipe: StatusPipe, tuned: list[Effect], collector: Collector
) -> None:
    """Run the services until SIGTERM, or until the supervisor is gone.

    Args:
        name: engine or market.
        configuration: what the supervisor sent.
        pipe: for the status lines.
        tuned: what this process has in force already.
        collector: of its garbage.
    """
    settings, sockets = configuration.settings, configuration.tuning.sockets
    options = SocketOptions(PORTS[name], sockets.get(PORTS[name]))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    InsideProfiler(settings.data_path, name).install(loop)
    watcher = asyncio.create_task(_watch_supervisor(stop))
    bus = await Bus.connect(settings, configuration.urls, SocketOptions("redis", sockets.get("redis")))
    services = build_services(name, settings, bus, options, configuration.past)
    started: list[Service] = []
    try:
        await asyncio.to_thread(_compile, services)
        if compilations() and not stop.is_set():
            _start_over(name, configuration)
        for service in services:
            if stop.is_set():
                break
            started.append(service)
            await service.start()
        collector.settle()
        collecting = asyncio.create_task(collector.collect())
        effects = [*tuned, *collector.effects(), *options.try_out(settings.host), *bus.socket_effects()]
        if name == "market":
            effects += unconnected_effects("feed", sockets.get("feed", {}), "no feed has a socket")
        await _report(pipe, services, stop, effects)
        collecting.cancel()
    finally:
        for service in reversed(started):
            begun = time.monotonic()
            await service.stop()
            logger.info("%s stopped in %.2f s", service.name, time.monotonic() - begun)
        await bus.close()
        watcher.cancel()


def _compile(services: list[Service]) -> None:
    for service in services:
        if isinstance(service, HasKernels):
            service.compile()


def _start_over(name: str, configuration: Configuration) -> None:
    """Replace this process by one that finds every kernel in the cache: the compiler leaves 60 MB behind."""
    if not configuration.past.restarts:  # what is compiled once is no part of a recovery
        configuration.past = msgspec.structs.replace(configuration.past, begun=time.monotonic_ns())
    memory = os.memfd_create("configuration", 0)
    os.write(memory, msgspec.json.encode(configuration) + b"\n")
    os.lseek(memory, 0, os.SEEK_SET)
    os.set_blocking(sys.stdin.fileno(), True)
    os.execv(sys.executable, [sys.executable, "-m", "tvops.engine.worker", name, str(memory)])  # noqa: S606


def _read_line(descriptor: int) -> bytes:
    """Read one line without taking anything behind it out of the pipe."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < MAX_CONFIGURATION_BYTES:
        byte = os.read(descriptor, 1)
        if not byte:
            break
        line += byte
    return bytes(line)


def main(arguments: list[str]) -> int:
    """Run the worker ``arguments[0]``, configured from stdin or from the descriptor ``arguments[1]``.

    Returns:
        0 after a clean stop, the error's exit code otherwise.
    """
    name = arguments[0]
    source = int(arguments[1]) if len(arguments) > 1 else sys.stdin.fileno()
    configuration = msgspec.json.decode(_read_line(source), type=Configuration)
    if source != sys.stdin.fileno():
        os.close(source)
    set_up_logging(configuration.settings.log_level, name, configuration.settings.log_format)
    pipe = StatusPipe(sys.stdout.fileno())
    wishes = configuration.tuning.process(name)
    tuned = tune_process(wishes, name)
    collector = Collector(wishes, name, WORKER_DEFAULTS)
    try:
        uvloop.run(serve(name, configuration, pipe, tuned, collector))
    except TvopsError as error:
        fatal = str(error) if isinstance(error, FATAL) else ""
        if not fatal:  # else the supervisor ends with it, and says so
            logger.error("%s", error)
        with contextlib.suppress(OSError):
            pipe.write(Status(pid=os.getpid(), ready=False, fatal=fatal))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
