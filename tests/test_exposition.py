"""`/metrics` from a document: what Prometheus's own readers make of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from tvops.engine.telemetry import document, exposition, latency_families, metric_families
from tvops.engine.telemetry.histogram import bucket_of, empty, pack

STATS: dict[str, dict[str, float | int | str]] = {
    "gateway": {
        "orders_total": 7, "requests_total": 9, "timeouts_total": 0, "sessions_dropped": 1, "sessions": 2,
        "connections": 3, "waiting": 0, "memory_mb": 120.5, "orders_per_s": 4.0, "most_orders_per_s": 5.0,
        "most_sessions": 2, "epoch": 77,
    },
    "stream": {
        "total_messages": 10, "batches_sent": 2, "messages_sent": 3, "clients_dropped": 0, "conflations": 0,
        "sessions_refused": 0, "gaps": 0, "damaged_entries": 0, "active_connections": 1, "ticks_per_s": 2.5,
        "unsent_bytes": 0,
    },
}  # fmt: skip
NAMES_OF_OLD = {
    "tvops_gateway_orders_total", "tvops_gateway_requests_total", "tvops_gateway_timeouts_total",
    "tvops_gateway_dropped_sessions_total", "tvops_gateway_sessions", "tvops_gateway_connections",
    "tvops_gateway_waiting", "tvops_gateway_orders_per_second", "tv_max_orders_per_sec",
    "tv_max_concurrent_sessions", "tv_order_execution_latency_bucket", "tv_order_execution_latency_sum",
    "tv_order_execution_latency_count", "tvops_stream_records_total", "tvops_stream_batches_total",
    "tvops_stream_messages_total", "tvops_stream_dropped_sessions_total", "tvops_stream_conflations_total",
    "tvops_stream_refused_connections_total", "tvops_stream_gaps_total", "tvops_stream_damaged_entries_total",
    "tvops_stream_sessions", "tvops_stream_ticks_per_second", "tvops_stream_unsent_bytes",
    "tvops_stream_latency_seconds_bucket", "tvops_stream_latency_seconds_sum",
    "tvops_stream_latency_seconds_count",
}  # fmt: skip


def stage(*values: int, negative: int = 0) -> document.Stage:
    counts = empty()
    for value in values:
        counts[bucket_of(int(value))] += 1
    return document.Stage("somewhere → elsewhere", pack(counts, max(values, default=0), negative))


def telemetry(**fields: object) -> document.Telemetry:
    """Give a document with something of everything."""
    shown = {
        "process": "engine",
        "version": "1.2",
        "pid": 1,
        "started": 1_700_000_000_000_000_000,
        "time": 1_700_000_001_000_000_000,
        "health": {"gateway": ("ok", ""), "led\\ger \n\"x\"": ("degraded", 'it "lags"\n')},
        "stats": STATS,
        "stages": {
            "gateway_to_reply": stage(900_000, 1_900_000, 3_000_000_000, negative=2),
            "publish_to_send": stage(30_000),
            "gc_pause": stage(),
        },
        "metrics": (
            document.Metric(
                name="tv_order_execution_latency", text="", unit="ms", value=1.5, target=20, limit=25, state="ok",
                since=0, samples=3,
            ),
            document.Metric(
                name="tv_tick_stream_latency", text="", unit="ms", value=None, target=10, limit=15,
                state="no data", since=0,
            ),
        ),
        "events": (document.Event(41, 0, "warn", "x", "y"),),
        "processes": (
            document.Process(
                name="engine", pid=1, started=0, cpu_percent=12.5, rss=100 << 20, pss=80 << 20, threads=3,
                descriptors=20, voluntary_switches=5, involuntary_switches=6, major_faults=7, slope=-3.5,
            ),
            document.Process(
                name="ledger server", pid=2, started=0, cpu_percent=0, rss=1, pss=0, threads=3, descriptors=20,
                voluntary_switches=5, involuntary_switches=6, major_faults=7, budget=9, leaking=True,
            ),
        ),
        "host": document.HostLoad(
            cores=(50.0, 0.0), steal_percent=1.0, load=0.5, memory=1, available=1, udp_drops=3, listen_drops=4,
            socket_queues=None,
        ),
        "servers": (
            document.Server(role="ledger", address="unix:///x", up=True, used=5, latency=(("fork", 1, 20),)),
            document.Server(role="market", address="unix:///y", up=False),
            document.Server(role="results", address="unix:///z", up=True, told=False),
        ),
        "sessions": (document.Session(id=1, peer="p", unsent=9, slow=True),),
        "knobs": (
            document.Knob(
                kind="process", knob="process.nice", places=("engine", "market"), wanted="-5", now="0",
                state="drifted", since=0, looked=0,
            ),
        ),
    }  # fmt: skip
    return document.Telemetry(**{**shown, **fields})  # type: ignore[arg-type]


def samples(body: bytes, openmetrics: bool = False) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    parse = parse_openmetrics if openmetrics else parse_text
    rows = [row for family in parse(body.decode()) for row in family.samples]
    found = {(row.name, frozenset(row.labels.items())): row.value for row in rows}
    assert len(found) == len(rows), "a series is there twice"
    return found


def value(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


@pytest.mark.parametrize("openmetrics", [False, True])
def test_both_formats_say_the_same(openmetrics: bool) -> None:
    found = samples(exposition.render(telemetry(), openmetrics), openmetrics)
    assert value(found, "tvops_gateway_orders_total") == 7
    assert value(found, "tvops_metric_value", metric="tv_order_execution_latency", unit="ms") == 1.5
    assert value(found, "tvops_metric_limit", metric="tv_tick_stream_latency", unit="ms") == 15
    state = {"metric": "tv_tick_stream_latency"}
    assert value(found, "tvops_metric_state", tvops_metric_state="no data", **state) == 1
    assert value(found, "tvops_metric_state", tvops_metric_state="ok", **state) == 0
    assert value(found, "tvops_process_cpu_ratio", process="engine") == 0.125
    assert value(found, "tvops_core_busy_ratio", core="0") == 0.5
    assert value(found, "tvops_server_longest_seconds", role="ledger", event="fork") == 0.02
    assert value(found, "tvops_events_total") == 41
    assert value(found, "tvops_knobs_places", state="drifted") == 2
    assert value(found, "tvops_knobs_places", state="in force") == 0


class _Families(Collector):
    def collect(self) -> Iterable[Metric]:
        return metric_families.families(telemetry())


def test_it_is_what_prometheus_client_would_write() -> None:
    assert exposition.render(telemetry()).decode() == generate_latest(_Families()).decode()
    assert exposition.render(telemetry(), True).decode() == generate_openmetrics(_Families()).decode()


def test_names_of_old_are_all_there() -> None:
    assert {name for name, _ in samples(exposition.render(telemetry()))} >= NAMES_OF_OLD


def test_what_is_not_known_is_not_there() -> None:
    found = samples(exposition.render(telemetry()))
    assert value(found, "tvops_metric_value", metric="tv_tick_stream_latency", unit="ms") is None
    assert value(found, "tvops_host_socket_queue_bytes") is None
    assert value(found, "tvops_process_proportional_bytes", process="ledger server") is None
    assert value(found, "tvops_process_budget_bytes", process="engine") is None
    assert value(found, "tvops_process_growth_bytes_per_second", process="ledger server") is None
    assert value(found, "tvops_server_up", role="market") == 0
    assert value(found, "tvops_server_memory_bytes", role="market") is None
    assert value(found, "tvops_server_up", role="results") == 1
    assert value(found, "tvops_server_memory_bytes", role="results") is None
    alone = samples(exposition.render(telemetry(processes=(), host=None, servers=(), stats={}, stages={})))
    names = {name for name, _ in alone}
    assert not any(name.startswith(("tvops_process_", "tvops_host_", "tvops_server_")) for name in names)
    assert "tvops_gateway_orders_total" not in names


@pytest.mark.parametrize("name", ["tvops_stage_seconds", "tv_order_execution_latency"])
def test_latencies_are_cumulated(name: str) -> None:
    found = samples(exposition.render(telemetry()))
    labels = {"stage": "receive_to_reply" if name.startswith("tv_") else "gateway_to_reply"}
    below = {float(le): value(found, f"{name}_bucket", le=le, **labels) for le in ("0.001", "0.002", "1.0", "5.0")}
    assert below == {0.001: 1, 0.002: 2, 1.0: 2, 5.0: 3}
    assert value(found, f"{name}_bucket", le="+Inf", **labels) == value(found, f"{name}_count", **labels) == 3
    assert value(found, f"{name}_sum", **labels) == pytest.approx(3.0028, rel=0.01)


def test_buckets_agree_with_the_samples_themselves() -> None:
    rng = np.random.default_rng(5)
    values = rng.lognormal(13, 3, 5000).astype(np.int64)
    found = samples(exposition.render(telemetry(stages={"gc_pause": stage(*values)})))
    for bound in latency_families.BOUNDS:
        count = value(found, "tvops_stage_seconds_bucket", le=str(bound), stage="gc_pause")
        assert count is not None
        least, most = (np.count_nonzero(values <= bound * 1e9 * (1 + part)) for part in (-1 / 128, 1 / 128))
        assert least <= count <= most


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4;q=0.5", False),
        ("application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("text/html, Application/OpenMetrics-Text", True),
        ("application/openmetrics-textual", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", False),
        ("application/openmetrics-text; Q=0.5,text/*;q=0.5", True),
        ("application/openmetrics-text;q=0.5,*/*", False),
        ("application/openmetrics-text;q=nan", False),
    ],
)
def test_the_reader_chooses_the_format(accept: str, openmetrics: bool) -> None:
    body, kind = exposition.answer(telemetry(), accept)
    assert kind == (exposition.OPENMETRICS if openmetrics else exposition.TEXT)
    assert body.endswith(b"# EOF\n") == openmetrics


def test_promtool_has_nothing_to_say_but_of_one_name() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool (Debian package prometheus) is not here")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition.render(telemetry()), capture_output=True, check=False
    )
    # that name operators know from other stacks
    assert done.stderr.decode() == "tv_max_orders_per_sec metric names should not contain abbreviated units\n"
    assert done.returncode == 3
