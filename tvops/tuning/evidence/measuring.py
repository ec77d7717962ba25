"""Measures the pending changes of a plan: chooses changes and probes, runs the experiment, gathers evidence."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

import tvops
from tvops.engine.bus.roles import shown_url
from tvops.errors import TvopsError
from tvops.tuning.evidence.conclusions import conclude, warnings
from tvops.tuning.evidence.experiment import Experiment, Progress
from tvops.tuning.evidence.gateway_probe import OrderAck
from tvops.tuning.evidence.probes import Probe, host_probes, pinned, two_cpus
from tvops.tuning.evidence.records import Evidence, NotMeasured, ProbeSetup
from tvops.tuning.evidence.redis_probes import PrivateServer, RedisRoundTrip
from tvops.tuning.evidence.treatments import Treatment, choose
from tvops.tuning.fingerprint import fingerprint
from tvops.tuning.flips import Flipper
from tvops.tuning.host import Host
from tvops.tuning.journal import Journal
from tvops.tuning.kinds.redis_servers import RedisServer
from tvops.tuning.model import Driver, ExitCode, Item, Kind, Knob


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure."""

    seconds: float = 120.0  # that it may take
    seed: int | None = None  # None: a new one; it is in the evidence
    together: bool = False  # all changes at once too
    settle_seconds: float = 0.05  # between a change and the first sample
    servers: tuple[RedisServer, ...] = ()  # to ask; none: a private one is started
    gateway: str = ""  # URL; its ledger gets orders. Empty: `local_gateway`, if it trades a simulated market
    local_gateway: str = "http://127.0.0.1:8000"
    api_key: str = ""
    symbol: str = ""  # of the orders; empty: the first instrument


def measure(
    items: Sequence[Item],
    catalogue: Mapping[str, Knob],
    drivers: Mapping[Kind, Driver],
    run: Journal,
    options: Options,
    progress: Callable[[Progress], None],
) -> Evidence:
    """Measure what each pending change does on this host; everything is as before afterwards.

    Args:
        items: the plan. What is not pending, safe and `live` is not touched, and listed with the reason.
        catalogue: of the plan.
        drivers: of the plan.
        run: a new one of the kind `measure`; it has ended afterwards.
        options: time, seed, servers.
        progress: called before every pair of blocks; the first time with 0 pairs, then with the schedule.

    Raises:
        UsageError: the time is too short for so many changes; it says how much it takes.
        StoppedError: a signal came.
        TvopsError: nothing can be measured here, or a change could not be taken back (exit code INCOMPLETE).
    """
    cpus = two_cpus()
    probes, missing = choose_probes(options, cpus[1] if cpus else None)
    flipper = Flipper(run, catalogue, drivers)
    try:
        with flipper:
            treatments, left_out = choose(items, catalogue, drivers, flipper, options.together)
            return run_experiment(treatments, probes, [*left_out, *missing], options, progress, cpus)
    finally:
        if flipper.left:
            told = "; ".join(f"{one.name}: {one.reason}" for one in flipper.left)
            error = TvopsError(f"not everything could be put back: {told}; see tvops tune rollback {run.run.id}")
            error.exit_code = ExitCode.INCOMPLETE
            raise error


def choose_probes(options: Options, partner_cpu: int | None = None) -> tuple[list[Probe], list[NotMeasured]]:
    """Give the probes for what there is, and those that are left out."""
    probes = host_probes(partner_cpu)
    if options.servers:
        for server in options.servers:
            probes += _server_probes(server, sum(server.role == other.role for other in options.servers) > 1)
    else:
        private = PrivateServer(partner_cpu)
        probes += [RedisRoundTrip("PING", private), RedisRoundTrip("XADD", private)]
    if options.gateway:
        return [*probes, OrderAck(options.gateway, options.api_key, options.symbol)], []
    local = OrderAck(options.local_gateway)
    if local.simulated():
        return [*probes, local], []
    reason = f"no gateway was named, and none with a simulated market answers at {options.local_gateway}"
    return probes, [NotMeasured(f"probe {local.name}", reason)]


def _server_probes(server: RedisServer, is_one_of_many: bool) -> list[Probe]:
    """Give the probes of a server; where a role has several, their addresses tell them apart."""
    where = f"@{shown_url(server.url)}" if is_one_of_many else ""
    commands = ("PING",) if server.role == "ledger" else ("PING", "XADD")
    return [RedisRoundTrip(command, role=server.role, url=server.url, where=where) for command in commands]


def run_experiment(
    treatments: Sequence[Treatment],
    probes: Sequence[Probe],
    left_out: Sequence[NotMeasured],
    options: Options,
    progress: Callable[[Progress], None],
    cpus: tuple[int, int] | None = None,
) -> Evidence:
    """Measure treatments with probes, this thread on the first of ``cpus``; see `measure`."""
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    started, begun, ticks, load = datetime.now(UTC), time.monotonic(), _cpu_ticks(), os.getloadavg()[0]
    experiment = Experiment(treatments, probes, seed, options.settle_seconds, progress)
    if treatments:
        with pinned(cpus[0] if cpus else None):
            experiment.run(options.seconds)
    control, measured = conclude(experiment, seed)
    busy, stolen = (after - before for after, before in zip(_cpu_ticks(), ticks, strict=True))
    evidence = Evidence(
        version=tvops.__version__,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begun, 1),
        budget_seconds=options.seconds,
        fingerprint=fingerprint(Host()),
        load=(round(load, 2), round(os.getloadavg()[0], 2)),
        stolen_percent=round(100 * stolen / busy, 2) if busy else 0.0,
        seed=seed,
        pairs=experiment.pairs,
        settle_seconds=options.settle_seconds,
        cpus=cpus or (),
        probes=tuple(
            ProbeSetup(p.name, p.description, experiment.schedule.samples[p.name])
            for p in (experiment.probes if treatments else ())
        ),
        control=control,
        measured=measured,
        not_measured=(*left_out, *experiment.left_out),
        sent=tuple(p.sent for p in probes if p.sent and treatments),
        warnings=(),
    )
    return msgspec.structs.replace(evidence, warnings=tuple(warnings(evidence, experiment)))


def _cpu_ticks() -> tuple[int, int]:
    """Give the CPU time since the boot, and that part of it which the hypervisor took, in ticks of all CPUs."""
    with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123 - the first line of a long file
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return sum(ticks), ticks[7]
