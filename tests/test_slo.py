"""`tvops slo`, and what a stall and a restart look like, on a real stack under a small load."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from tests.stack import Stack, free_port
from tvops.engine.telemetry.document import Metric, Telemetry
from tvops.engine.telemetry.targets import load_targets
from tvops.slo import Port, Row, lines, rows_of, with_outages, worst
from tvops.telemetry_client import Reading, TelemetryClient

STALL_SECONDS = 0.3


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("slo") / "data") as running:
        yield running.start()


def slo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tvops", "slo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env={**os.environ, **environment})


def read(stack: Stack) -> list[Telemetry]:
    async def poll() -> list[Reading]:
        async with TelemetryClient([stack.gateway, stack.market], timeout=10) as client:
            return await client.poll()

    documents = [reading.telemetry for reading in asyncio.run(poll())]
    assert all(documents)
    return [document for document in documents if document is not None]


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


class Load:
    """Orders one after the other on some connections, and one session that follows ticks."""

    def __init__(self, stack: Stack, connections: int) -> None:
        self._stack = stack
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._order) for _ in range(connections)]
        self._threads.append(threading.Thread(target=self._follow))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _order(self) -> None:
        body = {"symbol": "BTC-USDT", "side": "buy", "order_type": "limit", "quantity": "0.01", "price": "100"}
        with httpx.Client(base_url=self._stack.gateway, timeout=20) as client:
            while not self._stop.is_set():
                order = client.post("/v1/orders", json=body).json()["order_id"]
                client.delete(f"/v1/orders/{order}")

    def _follow(self) -> None:
        with connect(f"ws://127.0.0.1:{self._stack.market_port}/ws") as session:
            session.send('{"op":"subscribe","channel":"ticks","symbols":["BTC-USDT"]}')
            while not self._stop.is_set():
                session.recv(timeout=20)


def test_rows_states_and_exit_codes_under_load(stack: Stack, tmp_path: Path) -> None:
    generous = tmp_path / "generous.yaml"
    names = [target.name for target in load_targets()]
    less = {"tv_uptime"}
    generous.write_text(
        "".join(f"{n}:\n  target: {0 if n in less else 1e9}\n  limit: {-1 if n in less else 2e9}\n" for n in names)
    )
    impossible = tmp_path / "impossible.yaml"
    impossible.write_text("tv_memory:\n  target: 1\n  limit: 2\n")
    ports = ("--gateway", stack.gateway, "--market", stack.market)
    with Load(stack, connections=2):
        until(lambda: slo(*ports, "--targets", str(generous)).returncode == 0)
        report = json.loads(slo(*ports, "--json").stdout)
        missed = slo(*ports, "--targets", str(impossible))
    assert {row["metric"] for row in report["rows"]} == set(names)
    assert all(row["state"] in ("ok", "warn", "breach") and row["value"] is not None for row in report["rows"])
    rows = {(row["metric"], row["process"]): row for row in report["rows"]}
    assert rows["tv_max_concurrent_sessions", "market"]["value"] == 1
    assert (
        rows["tv_order_execution_latency", "engine"]["p50"]
        <= rows["tv_order_execution_latency", "engine"]["maximum"]
    )
    assert report["ok"] == all(row["state"] == "ok" for row in report["rows"])
    assert missed.returncode == 3
    memory = next(line for line in missed.stdout.splitlines() if line.startswith("tv_memory"))
    assert "breach" in memory
    assert "\x1b" not in missed.stdout


def test_a_port_that_is_away_is_told(stack: Stack) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    done = slo("--gateway", stack.gateway, "--market", away, "--json")
    assert done.returncode == 3
    assert f"{away}: connection refused" in done.stderr
    rows = {(row["metric"], row["process"]): row for row in json.loads(done.stdout)["rows"]}
    assert rows["tv_tick_stream_latency", "market"]["state"] == "no data"
    assert rows["tv_memory", "engine"]["value"] > 0
    left_out = slo("--gateway", stack.gateway, "--market", "", "--json")
    assert not [row for row in json.loads(left_out.stdout)["rows"] if row["process"] == "market"]
    nobody = slo("--gateway", away, "--market", "")
    assert nobody.returncode == 1
    assert nobody.stdout == ""
    assert "Traceback" not in nobody.stderr
    assert slo("--gateway", "", "--market", "").returncode == 2
    assert slo("--gateway", "nonsense").returncode == 2


def test_a_resolver_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\n"
        "found = socket.getaddrinfo\n"
        "def hang(host, *about, **more):\n"
        "    if host == 'hangs.invalid':\n"
        "        time.sleep(60)\n"
        "    return found(host, *about, **more)\n"
        "socket.getaddrinfo = hang\n"
    )
    ports = (
        ("slo", "--gateway", "http://hangs.invalid:1", "--market", ""),
        ("top", "--json", "hangs.invalid:1"),
        ("bench", "orders", "--gateway", "http://hangs.invalid:1"),
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-m", "tvops", *words], stdout=-1, stderr=-1, text=True, env=environment)
        for words in ports
    ]
    (_, said), (shown, _), (_, told) = [asked.communicate(timeout=50) for asked in started]
    assert [asked.returncode for asked in started] == [1, 1, 1]
    assert said == (
        "tvops: http://hangs.invalid:1: has a name that is not resolved within 2 s\n"
        "tvops: no port of the stack gives telemetry; is it up? (tvops serve)\n"
    )
    assert json.loads(shown)["stacks"][0]["endpoints"][0]["error"] == "has a name that is not resolved within 2 s"
    assert "http://hangs.invalid:1/v1/symbols: does not answer within 5 s; is the stack up?" in told


def test_an_outage_that_is_over_is_not_ok(stack: Stack) -> None:
    """The market worker stands still for longer than a look waits, and answers again for the rest of the watch."""
    command = [sys.executable, "-m", "tvops", "slo", "--gateway", stack.gateway, "--market", stack.market]
    market = stack.processes()["market"]
    market.suspend()
    with subprocess.Popen([*command, "--watch", "6", "--json"], stdout=-1, stderr=-1, text=True) as watching:
        asked = psutil.Process(watching.pid)
        until(lambda: any(c.raddr and c.raddr.port == stack.market_port for c in asked.net_connections("tcp4")))
        time.sleep(2.5)
        market.resume()
        printed, said = watching.communicate(timeout=60)
    report = json.loads(printed)
    assert watching.returncode == 3
    assert not report["ok"]
    assert list(report["unreachable"]) == [stack.market]
    assert re.search(r"does not answer within 2 s \(\d of \d times\)", said)
    rows = {(row["metric"], row["process"]): row for row in report["rows"]}
    sessions = rows["tv_max_concurrent_sessions", "market"]
    assert sessions["state"] == "no data"
    assert sessions["detail"].startswith(f"{stack.market} does not answer")
    assert rows["tv_max_concurrent_sessions", "engine"]["state"] == "ok"


def test_without_load_targets_without_data_are_told_and_not_ok(stack: Stack) -> None:
    def told() -> bool:
        done = slo("--gateway", stack.gateway, "--market", stack.market)  # a state lasts for some seconds at least
        return "  (nothing in the last" in done.stdout and done.returncode == 3

    until(told)


def test_a_stall_appears_in_the_stages_and_as_an_event(stack: Stack) -> None:
    """The commands that are on their way when the engine stands still take at least as long as it does."""
    engine = stack.processes()["engine"]

    def stalled() -> bool:
        engine.suspend()
        time.sleep(STALL_SECONDS)
        engine.resume()
        time.sleep(0.3)
        stages = read(stack)[0].stages
        lag, reply = stages["loop_lag"].histogram, stages["gateway_to_reply"].histogram
        least = STALL_SECONDS * 1e9
        return reply.maximum >= least and lag.maximum >= least - 10e6  # a timer may have been about to be due

    def told() -> bool:
        """Among the shorter pauses of a busy host."""
        texts = [e.text for e in read(stack)[0].events if "could not run" in e.text and "engine" in e.about]
        lengths = [float(length) for text in texts for length in re.findall(r"([\d.]+) ms", text)]
        return max(lengths, default=0.0) >= 1000 * STALL_SECONDS - 10

    with Load(stack, connections=8):
        until(stalled)
        until(told)


def test_a_restart_is_an_event_and_counts_against_uptime(stack: Stack) -> None:
    before = read(stack)[1].pid
    until(lambda: "ready after" in stack.log.read_text())  # the supervisor knows that it served
    stack.processes()["market"].kill()
    time.sleep(0.5)
    stack.wait_ready()

    def restarted() -> Telemetry | None:
        document = read(stack)[1]
        found = any("was restarted: signal SIGKILL" in event.text for event in document.events)
        recovered = any(row.name == "tv_recovery_time" and row.value for row in document.metrics)
        return document if document.pid != before and found and recovered else None

    document = until(restarted)
    metrics = {metric.name: metric for metric in document.metrics}
    uptime = metrics["tv_uptime"].value
    assert uptime is not None
    assert 0 < uptime < 100
    gone = f"process {before} is gone"
    until(lambda: any(event.about == "market" and gone in event.text for event in read(stack)[0].events))


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
