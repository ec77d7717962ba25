"""`tvops slo`: rows, states and outages, without a stack (`test_running_stack` has one)."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import msgspec
import pytest

from tests.endpoints import Handler, answer, endpoint, says
from tvops import slo
from tvops.engine.telemetry.document import Metric, Telemetry
from tvops.engine.telemetry.targets import load_targets
from tvops.slo import Port, Row, lines, rows_of, with_outages, worst
from tvops.telemetry_client import Reading, TelemetryClient

HANGING = """
import socket, sys, time
from tvops import cli
from tvops.bench.addresses import fetch
from tvops.errors import ServerError
socket.getaddrinfo = lambda *about, **more: time.sleep(600)
code = cli.run(["slo", "--gateway", "http://hangs.invalid:1", "--market", ""])
try:
    fetch("http://hangs.invalid:1", "/v1/symbols", timeout=0.2)
except ServerError as error:
    print(error)
sys.exit(code)
"""


def test_a_resolver_that_hangs_holds_up_nobody() -> None:
    """Nor does it keep a process from its end."""
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr == (
        "tvops: http://hangs.invalid:1: has a name that is not resolved within 2 s\n"
        "tvops: no port of the stack gives telemetry; is it up? (tvops serve)\n"
    )
    assert done.stdout == "http://hangs.invalid:1/v1/symbols: does not answer within 0.2 s; is the stack up?\n"


def metric(name: str, state: str, value: float | None = 1.0) -> Metric:
    return Metric(name=name, text="t", unit="ms", value=value, target=1, limit=2, state=state, since=0)  # type: ignore[arg-type]


def reading(url: str, process: str, *metrics: Metric) -> Reading:
    document = Telemetry(
        process=process,
        version="",
        pid=1,
        started=0,
        time=0,
        health={},
        stats={},
        stages={},
        metrics=metrics,
        events=(),
    )
    return Reading(url, document, "", 0, True)


def telling(process: str, *metrics: Metric) -> Handler:
    document = reading("", process, *metrics).telemetry
    return says(answer(msgspec.msgpack.encode(document)), keep=True)


async def test_an_outage_that_is_over_is_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    """The market worker breaks off at the first of two looks; they are counted by a clock of 10 ms each."""
    calls, connections = itertools.count(), itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 0.01 * next(calls), time_ns=time.time_ns)
    monkeypatch.setattr(slo, "time", clock)
    monkeypatch.setattr(slo, "TelemetryClient", partial(TelemetryClient, timeout=60))
    name = "tv_max_concurrent_sessions"
    answers = telling("market", metric(name, "ok"))

    async def market(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if next(connections):
            await answers(reader, writer)

    async with endpoint(telling("engine", metric(name, "ok"))) as gateway, endpoint(market) as away:
        ports = [Port(gateway, "engine"), Port(away, "market")]
        report = await slo.watch(ports, load_targets(), False, "", 0.015)
    assert not report.ok
    assert report.answered
    why = "ended the connection without an answer (1 of 2 times)"
    assert report.unreachable == {away: why}
    rows = {(row.metric, row.process): (row.state, row.detail) for row in report.rows}
    assert rows[name, "market"] == ("no data", f"{away} {why}")
    assert rows[name, "engine"] == ("ok", "")


def test_the_stack_decides_what_there_is_unless_the_caller_does() -> None:
    ports = [Port("http://g", "engine"), Port("http://m", "market")]
    targets = [t for t in load_targets() if t.name in ("tv_order_execution_latency", "tv_tick_stream_latency")]
    both = [
        reading("http://g", "engine", metric("tv_order_execution_latency", "ok", 22)),
        reading("http://m", "market"),
    ]
    rows = rows_of(ports, both, targets, own=False)
    assert [(row.metric, row.state) for row in rows] == [("tv_order_execution_latency", "ok")]
    rows = rows_of(ports, both, targets, own=True)
    assert {row.metric: (row.state, row.detail) for row in rows} == {
        "tv_tick_stream_latency": ("no data", "the stack does not measure it"),
        "tv_order_execution_latency": ("warn", ""),
    }
    away = [both[0], Reading("http://m", None, "connection refused", 0, False)]
    assert {row.metric for row in rows_of(ports, away, targets, own=False)} == {target.name for target in targets}


def test_the_worst_state_stays() -> None:
    fields = {"metric": "m", "text": "", "process": "p", "unit": "", "target": 1, "limit": 2}

    def row(state: str, value: float | None) -> Row:
        return Row(**fields, state=state, value=value)  # type: ignore[arg-type]

    rows: list[Row] = []
    for state, value in (("ok", 1.0), ("breach", 9.0), ("ok", 1.0), ("no data", None)):
        rows = worst(rows, [row(state, value)])
    assert [(kept.state, kept.value) for kept in rows] == [("breach", 1.0)]
    assert lines(rows)[1].split()[-1] == "breach"


def test_an_outage_hides_what_was_ok_and_not_what_was_seen_to_be_bad() -> None:
    fields = {"metric": "m", "text": "", "unit": "", "target": 1, "limit": 2, "value": 1.0}
    rows = [
        Row(**fields, process=process, state=state)  # type: ignore[arg-type]
        for process, state in (("engine", "ok"), ("market", "ok"), ("market", "warn"), ("market", "breach"))
    ]
    after = with_outages(rows, {"market": "away"})
    assert [(row.state, row.detail) for row in after] == [
        ("ok", ""), ("no data", "away"), ("warn", ""), ("breach", ""),
    ]  # fmt: skip
