"""The telemetry of a process as metrics of prometheus_client.

Seconds, bytes and ratios of 1, as Prometheus has it; the operators' metrics keep their own units beside them. The
names that operators know from other stacks are kept. Nothing here is per session, order or instrument: the number
of series does not grow with use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)

from tvops.engine.knob_table import KNOB_STATES
from tvops.engine.services import State
from tvops.engine.telemetry.document import HostLoad, Knob, MetricState, Process, Server, Telemetry
from tvops.engine.telemetry.latency_families import latencies

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
    yield from latencies(shown.stages)
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


def _health(shown: Telemetry) -> dict[str, str]:
    return {service: state for service, (state, _) in shown.health.items()}


def _figures(stats: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    """Show the figures of /stats that have a name of their own, of the services that are there and serve."""
    for table, family in ((_COUNTERS, CounterMetricFamily), (_GAUGES, GaugeMetricFamily)):
        for service, rows in table.items():
            for figure, name, text in rows:
                if figure in stats.get(service, {}):
                    yield family(name, text, value=float(stats[service][figure]))


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
