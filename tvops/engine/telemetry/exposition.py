"""`/metrics` of both ports: the telemetry of a process for Prometheus, in its own text format or as OpenMetrics.

Seconds, bytes and ratios of 1, as Prometheus has it; the operators' metrics keep their own units beside them. The
names that operators know from other stacks are kept. Nothing here is per session, order or instrument: the number
of series does not grow with use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final, get_args

import numpy as np
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from tvops.engine.knob_table import KNOB_STATES
from tvops.engine.services import State
from tvops.engine.telemetry.accepting import prefers
from tvops.engine.telemetry.document import HostLoad, Knob, MetricState, Process, Server, Stage, Telemetry
from tvops.engine.telemetry.histogram import HIGHEST_OF, MIDDLE_OF

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

BOUNDS: Final = (
    0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 5.0,
)  # fmt: skip
"""Upper bounds of the buckets of every latency, s; the limits of the targets that ship are among them."""

_LE = [*map(str, BOUNDS), "+Inf"]
_BEYOND = np.searchsorted(HIGHEST_OF, [round(bound * 1e9) for bound in BOUNDS], "right").astype(np.uint16)
_Row = tuple[str, str, str]  # figure of /stats, metric, help
_COUNTERS: dict[str, tuple[_Row, ...]] = {
    "gateway": (
        ("orders_total", "tvops_gateway_orders", "New orders answered."),
        ("requests_total", "tvops_gateway_requests", "HTTP requests answered."),
        ("timeouts_total", "tvops_gateway_timeouts", "Commands that were not answered in time."),
        ("sessions_dropped", "tvops_gateway_dropped_sessions", "Sessions closed for not reading."),
    ),
    "stream": (
        ("total_messages", "tvops_stream_records", "Records taken off the market stream."),
        ("batches_sent", "tvops_stream_batches", "Times that something went out to sessions."),
        ("messages_sent", "tvops_stream_messages", "WebSocket messages handed to sockets."),
        ("clients_dropped", "tvops_stream_dropped_sessions", "Sessions closed for being too slow."),
        (
            "conflations",
            "tvops_stream_conflations",
            "Times that a session had too much unsent and was passed over.",
        ),
        ("sessions_refused", "tvops_stream_refused_connections", "Connections refused for want of room."),
        ("gaps", "tvops_stream_gaps", "Times that market data was lost before it was read."),
        (
            "damaged_entries",
            "tvops_stream_damaged_entries",
            "Entries of the market stream that could not be read.",
        ),
    ),
}
_GAUGES: dict[str, tuple[_Row, ...]] = {
    "gateway": (
        ("sessions", "tvops_gateway_sessions", "WebSocket sessions."),
        ("connections", "tvops_gateway_connections", "HTTP connections."),
        ("waiting", "tvops_gateway_waiting", "Commands that wait for their answer."),
        ("orders_per_s", "tvops_gateway_orders_per_second", "New orders per second, over the last second."),
        ("most_orders_per_s", "tv_max_orders_per_sec", "Most new orders in one second since the start."),
        ("most_sessions", "tv_max_concurrent_sessions", "Most WebSocket sessions at a time since the start."),
    ),
    "stream": (
        ("active_connections", "tvops_stream_sessions", "WebSocket sessions."),
        ("ticks_per_s", "tvops_stream_ticks_per_second", "Ticks per second off the market stream."),
        ("unsent_bytes", "tvops_stream_unsent_bytes", "Bytes that wait for slow sessions."),
    ),
}
_ORDERS = ("tv_order_execution_latency", "Seconds from the receipt of a command to its reply.")
_ORDER_STAGES = {"gateway_to_reply": "receive_to_reply", "submit_to_reply": "submit_to_reply"}
_STREAM = (
    "tvops_stream_latency_seconds",
    "Publication by the price service to hand-over to the last session's socket.",
)
_STREAM_STAGE = "publish_to_send"


def answer(telemetry: Telemetry, accept: str) -> tuple[bytes, str]:
    """Give the body of `/metrics` and its content type, as an Accept header wants it."""
    openmetrics = prefers(accept, "application/openmetrics-text", "text/plain")
    return render(telemetry, openmetrics), OPENMETRICS if openmetrics else TEXT


def render(telemetry: Telemetry, openmetrics: bool = False) -> bytes:
    """Give the body of `/metrics`."""
    return _written(families(telemetry), openmetrics)


def families(shown: Telemetry) -> Iterator[Metric]:
    """Give every figure as a metric of prometheus_client."""
    yield InfoMetricFamily(
        "tvops", "What runs.",
        value={"version": shown.version, "process": shown.process, "profile": shown.profile},
    )  # fmt: skip
    yield GaugeMetricFamily("tvops_start_time_seconds", "When the process started.", value=shown.started / 1e9)
    yield GaugeMetricFamily("tvops_knobs_in_force", "Tuned settings in force.", value=shown.knobs_in_force)
    yield GaugeMetricFamily("tvops_knobs_left", "Wanted settings not in force.", value=shown.knobs_left)
    yield from _knobs(shown.knobs)
    newest = shown.events[-1].seq if shown.events else 0
    yield CounterMetricFamily("tvops_events", "Things told to the operators.", value=newest)
    yield _states("tvops_service_state", "Health of each service.", "service", _health(shown), get_args(State))
    yield from _figures(shown.stats)
    yield from _latencies(shown.stages)
    yield from _targets(shown)
    yield from _processes(shown.processes)
    if shown.host is not None:
        yield from _host(shown.host)
    yield from _servers(shown.servers)
    yield from _sessions(shown)


def _knobs(knobs: Sequence[Knob]) -> Iterator[Metric]:
    """Count the places of each state, where somebody looks at them."""
    if not knobs:
        return
    family = GaugeMetricFamily("tvops_knobs_places", "Places of the profile's knobs, by state.", labels=["state"])
    for state in KNOB_STATES:
        family.add_metric([state], sum(max(1, len(knob.places)) for knob in knobs if knob.state == state))
    yield family


_NAME_ENDS = {"counter": "_total", "info": "_info"}
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def _written(metrics: Iterable[Metric], openmetrics: bool) -> bytes:
    """Write metrics as prometheus_client does, to the byte, in a third to a half of its time.

    That is the event loop's time, once a scrape; prometheus_client spends it on checking each name anew.
    """
    lines = []
    for metric in metrics:
        name, kind = metric.name, metric.type
        if not openmetrics:
            name += _NAME_ENDS.get(kind, "")
            kind = "gauge" if kind in ("info", "stateset") else kind
        lines.append(f"# HELP {name} {metric.documentation}\n# TYPE {name} {kind}\n")
        for sample in metric.samples:
            labels = _labels(*sample.labels.items()) if sample.labels else ""
            lines.append(f"{sample.name}{labels} {floatToGoString(sample.value)}\n")  # type: ignore[no-untyped-call]
    if openmetrics:
        lines.append("# EOF\n")
    return "".join(lines).encode()


@lru_cache(4096)  # series come back with each scrape, and there are some hundreds
def _labels(*labels: tuple[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in sorted(labels)) + "}"


def _health(shown: Telemetry) -> dict[str, str]:
    return {service: state for service, (state, _) in shown.health.items()}


def _figures(stats: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    """Show the figures of /stats that have a name of their own, of the services that are there and serve."""
    for table, family in ((_COUNTERS, CounterMetricFamily), (_GAUGES, GaugeMetricFamily)):
        for service, rows in table.items():
            for figure, name, text in rows:
                if figure in stats.get(service, {}):
                    yield family(name, text, value=float(stats[service][figure]))


def _latencies(stages: Mapping[str, Stage]) -> Iterator[Metric]:
    seconds = HistogramMetricFamily("tvops_stage_seconds", "Latency of each stage of the path.", labels=["stage"])
    longest = GaugeMetricFamily("tvops_stage_longest_seconds", "Longest since the start.", labels=["stage"])
    skewed = CounterMetricFamily("tvops_stage_skewed", "Latencies below 0: clocks differ.", labels=["stage"])
    orders = HistogramMetricFamily(*_ORDERS, labels=["stage"])
    stream = HistogramMetricFamily(*_STREAM)
    for name, stage in stages.items():
        below, total = _buckets(stage)
        seconds.samples += _samples(seconds.name, name, below, total)
        longest.add_metric([name], stage.histogram.maximum / 1e9)
        skewed.add_metric([name], stage.histogram.negative)
        if name in _ORDER_STAGES:
            orders.samples += _samples(orders.name, _ORDER_STAGES[name], below, total)
        if name == _STREAM_STAGE:
            stream.samples += _samples(stream.name, "", below, total)
    yield from (family for family in (seconds, longest, skewed, orders, stream) if family.samples)


def _buckets(stage: Stage) -> tuple[list[float], float]:
    """Give cumulated counts at `BOUNDS` and in all, and the sum in seconds, to within the width of a bucket."""
    where, counts = stage.histogram.check()
    cumulated = np.concatenate(([0.0], np.cumsum(counts)))
    below = cumulated[np.searchsorted(where, _BEYOND)]
    return [*below.tolist(), float(cumulated[-1])], int(counts @ MIDDLE_OF[where]) / 1e9


def _samples(name: str, stage: str, below: Sequence[float], total: float) -> Iterator[Sample]:
    """Give a histogram's samples as `HistogramMetricFamily.add_metric` would, in a third of its time."""
    labels, of_buckets = _bucket_labels(stage)
    yield from (Sample(f"{name}_bucket", *row) for row in zip(of_buckets, below, strict=True))
    yield Sample(f"{name}_count", labels, below[-1])
    yield Sample(f"{name}_sum", labels, total)


@cache
def _bucket_labels(stage: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    labels = {"stage": stage} if stage else {}
    return labels, [{**labels, "le": bound} for bound in _LE]


def _targets(shown: Telemetry) -> Iterator[Metric]:
    """Show the operators' metrics in their own units; one without data has no value."""
    labels = ["metric", "unit"]
    value = GaugeMetricFamily("tvops_metric_value", "An operators' metric over its window.", labels=labels)
    target = GaugeMetricFamily("tvops_metric_target", "What is wanted of it.", labels=labels)
    limit = GaugeMetricFamily("tvops_metric_limit", "From where on it is a breach.", labels=labels)
    for metric in shown.metrics:
        row = [metric.name, metric.unit]
        if metric.value is not None:
            value.add_metric(row, metric.value)
        target.add_metric(row, metric.target)
        limit.add_metric(row, metric.limit)
    yield from (value, target, limit)
    states = {metric.name: metric.state for metric in shown.metrics}
    yield _states("tvops_metric_state", "How it is.", "metric", states, get_args(MetricState))


def _states(
    name: str, text: str, label: str, states: Mapping[str, str], known: Sequence[str]
) -> StateSetMetricFamily:
    family = StateSetMetricFamily(name, text, labels=[label])
    for about, state in states.items():
        family.add_metric([about], {one: one == state for one in known})
    return family


_PROCESS: tuple[tuple[str, str, Callable[[Process], float]], ...] = (
    ("cpu_ratio", "CPU over the last second; 1 is a core.", lambda p: p.cpu_percent / 100),
    ("resident_bytes", "Resident memory.", lambda p: p.rss),
    ("threads", "Threads.", lambda p: p.threads),
    ("open_files", "File descriptors.", lambda p: p.descriptors),
    ("start_time_seconds", "When it started.", lambda p: p.started / 1e9),
    ("leaking", "Whether its memory grows and grows.", lambda p: p.leaking),
)
_PROCESS_COUNTERS: tuple[tuple[str, str, Callable[[Process], float]], ...] = (
    ("voluntary_switches", "Times that its main thread waited.", lambda p: p.voluntary_switches),
    ("involuntary_switches", "Times that its main thread had to wait.", lambda p: p.involuntary_switches),
    ("major_faults", "Pages that came from a disk.", lambda p: p.major_faults),
)
_PROCESS_KNOWN: tuple[tuple[str, str, Callable[[Process], float | None]], ...] = (
    ("proportional_bytes", "Memory, shared pages counted once.", lambda p: p.pss or None),
    ("budget_bytes", "Memory that it should stay within.", lambda p: p.budget or None),
    ("growth_bytes_per_second", "What its memory grows by.", lambda p: p.slope),
)


def _processes(processes: Iterable[Process]) -> Iterator[Metric]:
    rows = [([process.name], process) for process in processes]
    if not rows:
        return
    for name, text, read in _PROCESS:
        yield _labelled(GaugeMetricFamily(f"tvops_process_{name}", text, labels=["process"]), rows, read)
    for name, text, read in _PROCESS_COUNTERS:
        yield _labelled(CounterMetricFamily(f"tvops_process_{name}", text, labels=["process"]), rows, read)
    for name, text, known in _PROCESS_KNOWN:
        yield _labelled(GaugeMetricFamily(f"tvops_process_{name}", text, labels=["process"]), rows, known)


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily,
    rows: Iterable[tuple[list[str], Any]],
    read: Callable[[Any], float | None],
) -> Metric:
    """Add what ``read`` finds in each row to a family; what is not known is not there."""
    for labels, row in rows:
        if (value := read(row)) is not None:
            family.add_metric(labels, float(value))
    return family


def _host(host: HostLoad) -> Iterator[Metric]:
    busy = GaugeMetricFamily("tvops_core_busy_ratio", "Busy part of the last second.", labels=["core"])
    for core, percent in enumerate(host.cores):
        busy.add_metric([str(core)], percent / 100)
    yield busy
    for name, text, value in (
        ("steal_ratio", "Part of the last second that the hypervisor gave to others.", host.steal_percent / 100),
        ("load", "Load over a minute.", host.load),
        ("memory_bytes", "Memory in all, or the limit of the control group.", host.memory),
        ("available_bytes", "Memory that can still be had.", host.available),
        ("socket_queue_bytes", "Bytes that wait in the sockets of the stack's ports.", host.socket_queues),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"tvops_host_{name}", text, value=value)
    yield CounterMetricFamily("tvops_host_udp_drops", "Datagrams dropped, buffers full.", value=host.udp_drops)
    yield CounterMetricFamily(
        "tvops_host_listen_drops", "Connections dropped, queues full.", value=host.listen_drops
    )


_SERVER: tuple[tuple[str, str, Callable[[Server], float]], ...] = (
    ("memory_bytes", "Memory in use.", lambda s: s.used),
    ("memory_limit_bytes", "maxmemory; 0: none.", lambda s: s.limit),
    ("clients", "Connections.", lambda s: s.clients),
    ("commands_per_second", "Commands per second.", lambda s: s.commands),
    ("uptime_seconds", "Time since its start.", lambda s: s.uptime),
)
_SERVER_COUNTERS: tuple[tuple[str, str, Callable[[Server], float]], ...] = (
    ("evicted_keys", "Keys evicted for want of memory.", lambda s: s.evicted),
    ("expired_keys", "Keys whose time was up.", lambda s: s.expired),
)


def _servers(servers: Sequence[Server]) -> Iterator[Metric]:
    if not servers:
        return
    up = GaugeMetricFamily("tvops_server_up", "Whether the server of a role answers.", labels=["role"])
    yield _labelled(up, [([server.role], server) for server in servers], lambda s: s.up)
    rows = [([server.role], server) for server in servers if server.up and server.told]
    for name, text, read in _SERVER:
        yield _labelled(GaugeMetricFamily(f"tvops_server_{name}", text, labels=["role"]), rows, read)
    for name, text, read in _SERVER_COUNTERS:
        yield _labelled(CounterMetricFamily(f"tvops_server_{name}", text, labels=["role"]), rows, read)
    worst = GaugeMetricFamily(
        "tvops_server_longest_seconds", "Longest of each event that stalled it.", labels=["role", "event"]
    )
    for server in servers:
        for event, _, longest in server.latency:
            worst.add_metric([server.role, event], longest / 1e3)
    yield worst


def _sessions(shown: Telemetry) -> Iterator[Metric]:
    sessions = shown.sessions
    yield GaugeMetricFamily(
        "tvops_sessions_slow", "Sessions that do not keep up.", value=sum(s.slow for s in sessions)
    )
    most = max((session.unsent for session in sessions), default=0)
    yield GaugeMetricFamily("tvops_sessions_most_unsent_bytes", "Most bytes that wait for one.", value=most)
