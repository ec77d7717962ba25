"""One running stack, as all that looks at it sees it: probes, `tvops slo` and `top`, Prometheus, Locust.

It is quiet first, then under loads, then stopped and at last killed in part.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from tests.command_line import tvops
from tests.stack import Stack, free_port
from tests.test_deploy import promtool
from tests.test_telemetry_probes import by_name
from tests.test_telemetry_stalls import stop_for
from tvops.engine.telemetry import exposition
from tvops.engine.telemetry.document import Event, Telemetry
from tvops.engine.telemetry.histogram import Counts, lowest_of
from tvops.engine.telemetry.pauses import INTERVAL_MS
from tvops.engine.telemetry.processes import ProcessProbe
from tvops.engine.telemetry.targets import load_targets
from tvops.telemetry_client import TelemetryClient

pytestmark = pytest.mark.timeout(600)  # several waits of a test may take 100 s each

STOPS = 10
SHORT, LONG = 0.005, 0.3
APART = 0.03
LEAST_NS = 4_000_000
"""What a stop of 5 ms shows as at least."""
LATEST_NS = (INTERVAL_MS + 1) * 1_000_000
"""Until what measures stops is due again."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("running") / "data", "--feed", "synthetic:20") as running:
        yield running.start()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `tvops slo` wait for an answer for as long as a busy host may take."""
    monkeypatch.setattr("tvops.slo.TelemetryClient", partial(TelemetryClient, timeout=60))


def slo(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return tvops("slo", "--gateway", stack.gateway, "--market", stack.market, *arguments)


def read(stack: Stack) -> list[Telemetry]:
    """Give what engine and market tell."""

    async def poll() -> list[Telemetry | None]:
        async with TelemetryClient([stack.gateway, stack.market], timeout=60) as client:
            return [reading.telemetry for reading in await client.poll()]

    documents = asyncio.run(poll())
    assert all(documents)
    return [document for document in documents if document is not None]


def until(condition: Callable[[], Any], seconds: float = 100, every: float = 0.1) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(every)
    return found


def wake_ups(document: Telemetry) -> int:
    return int(document.stages["process_pause"].histogram.unpack().sum())


def sampled(stack: Stack) -> list[Telemetry]:
    """Give documents with all that was until now: of each process the second sample from now on."""
    documents = read(stack)
    for _ in range(2):
        documents = until(partial(newer, stack, documents), every=0.2)
    return documents


def newer(stack: Stack, before: Sequence[Telemetry]) -> list[Telemetry]:
    documents = read(stack)
    counts = zip(map(wake_ups, documents), map(wake_ups, before), strict=True)
    return documents if all(now > then for now, then in counts) else []


# Quiet


def test_a_running_stack_is_found_whole(stack: Stack) -> None:
    assert stack.process is not None
    found = by_name(ProcessProbe(stack.data_dir, stack.process.pid, "observer"))
    names = {"supervisor", "engine", "market", "ledger server", "market server", "results server"}
    assert set(found) == {*names, "observer"}
    told = stack.processes()
    assert found["engine"].pid == told["engine"].pid
    assert found["ledger server"].pid == told["valkey-ledger"].pid


def at_least(nanoseconds: int, counts: Counts) -> int:
    """Give how many samples are so long, to within the bucket that it falls into."""
    lowest = np.array([lowest_of(bucket) for bucket in range(len(counts))])
    return int(counts[lowest >= nanoseconds * 127 // 128].sum())


def exposed_at_least_2_ms(url: str) -> float:
    """Give how many wake-ups were so late, from the buckets of `/metrics`."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=60).text)
    samples = next(family.samples for family in families if family.name == "tvops_stage_seconds")
    below = {s.labels["le"]: s.value for s in samples if "le" in s.labels and s.labels["stage"] == "process_pause"}
    return below["+Inf"] - below["0.002"]


def untold(stops: Sequence[tuple[int, int]], events: Sequence[Event]) -> list[tuple[int, int]]:
    """Give the stops (begin, end) that no event tells of: none by itself, nor one of several together.

    A host that lets the engine wait makes one pause of several stops, and takes lines for pauses of its own.
    """
    alone, together = [], 0.0
    for event in events:
        if by_itself := re.match(r"could not run for ([\d.]+) ms", event.text):
            alone.append((event.time - float(by_itself[1]) * 1e6, event.time))
        elif several := re.match(r"could not run .* more in .*: ([\d.]+) ms in all", event.text):
            together += float(several[1]) * 1e6
        elif once := re.match(r"could not run once more: ([\d.]+) ms", event.text):
            together += float(once[1]) * 1e6
    left = [stop for stop in stops if not any(begin <= sum(stop) / 2 <= end for begin, end in alone)]
    return left[int(together // LEAST_NS) :]


class Stopped(NamedTuple):
    """The engine with stops of 5 ms: what it told before and after, and when they were."""

    before: Telemetry
    after: Telemetry
    exposed_rise: float
    stops: list[tuple[int, int]]


@pytest.fixture(scope="module")
def stopped(stack: Stack) -> Stopped:
    before, exposed_before = sampled(stack)[0], exposed_at_least_2_ms(stack.gateway)
    pid = stack.processes()["engine"].pid
    stops = []
    for _ in range(STOPS):
        time.sleep(APART)
        stops.append(stop_for(pid, SHORT))
    after = sampled(stack)[0]
    return Stopped(before, after, exposed_at_least_2_ms(stack.gateway) - exposed_before, stops)


def test_every_stop_of_5_ms_is_seen(stopped: Stopped) -> None:
    before, after = (each.stages["process_pause"].histogram.unpack() for each in (stopped.before, stopped.after))
    assert at_least(LEAST_NS, after - before) >= STOPS
    assert stopped.exposed_rise >= 2 * STOPS  # of each, wake-ups that are late by 4 ms, 3 ms, ...


def test_a_stop_is_nobody_elses(stack: Stack) -> None:
    """The market worker has none of it, and commands before it and after it have the times that they took.

    The host may hold somebody up meanwhile: not each time, and not for as long as the stops become.
    """
    pid = stack.processes()["engine"].pid
    lengths = chain((LONG, LONG, 2 * LONG, 4 * LONG), repeat(8 * LONG))

    def is_the_engines_only() -> bool:
        length = next(lengths)
        before = sampled(stack)
        assert stack.order().status_code == 201
        time.sleep(APART)  # the reply is here before the engine has noted that it wrote it
        stop_for(pid, length)
        assert stack.order().status_code == 201
        long = {
            (now.process, name)
            for now, then in zip(sampled(stack), before, strict=True)
            for name, stage in now.stages.items()
            if name in then.stages
            and at_least(
                round(length * 1e9) - LATEST_NS, stage.histogram.unpack() - then.stages[name].histogram.unpack()
            )
        }
        assert {("engine", "process_pause"), ("engine", "loop_lag")} <= long
        return not [s for process, s in long if process != "engine" or s.startswith(("gateway_", "submit_"))]

    assert stack.order().status_code == 201  # from now on there are all stages
    until(is_the_engines_only)


def test_without_load_targets_without_data_are_told_and_not_ok(stack: Stack) -> None:
    def told() -> bool:
        done = slo(stack)
        return "  (nothing in the last" in done.stdout and done.returncode == 3

    until(told)


def test_a_port_that_is_away_is_told(stack: Stack) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    until(lambda: read(stack)[0].processes)
    done = tvops("slo", "--gateway", stack.gateway, "--market", away, "--json")
    assert done.returncode == 3
    assert f"{away}: connection refused" in done.stderr
    rows = {(row["metric"], row["process"]): row for row in json.loads(done.stdout)["rows"]}
    assert rows["tv_tick_stream_latency", "market"]["state"] == "no data"
    assert rows["tv_memory", "engine"]["value"] > 0
    left_out = tvops("slo", "--gateway", stack.gateway, "--market", "", "--json")
    assert not [row for row in json.loads(left_out.stdout)["rows"] if row["process"] == "market"]
    nobody = tvops("slo", "--gateway", away, "--market", "")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert tvops("slo", "--gateway", "", "--market", "").returncode == 2
    assert tvops("slo", "--gateway", "nonsense").returncode == 2


def test_every_stop_of_5_ms_is_told(stack: Stack, stopped: Stopped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together, where the start of the stack has used up the lines; hence after the others."""
    newest = max((event.seq for event in stopped.before.events), default=0)
    until(lambda: not untold(stopped.stops, [event for event in read(stack)[0].events if event.seq > newest]))
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("LINES", "200")
    told = [event for event in read(stack)[0].events if event.text.startswith("could not run")]
    assert {event.about for event in told} == {"engine"}
    ports = ("--gateway", stack.gateway, "--market", stack.market)
    until(lambda: told[-1].text in tvops("top", "--once", "--view", "events", *ports).stdout)
    until(lambda: "process_pause" in tvops("top", "--once", "--view", "latency", *ports).stdout)


def test_a_view_that_is_none() -> None:
    done = tvops("top", "--once", "--view", "stars")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--view stars: there is no such view; there are overview," in done.stderr
    assert done.stderr.count("\n") == 1


# Under loads


class Load:
    """Orders one after the other on some connections, and one session that follows ticks.

    Attributes:
        pause: seconds between one order and the next of a connection.
    """

    def __init__(self, stack: Stack, connections: int, pause: float) -> None:
        self.pause = pause
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
        with httpx.Client(base_url=self._stack.gateway, timeout=100, verify=False) as client:
            while not self._stop.wait(self.pause):
                placed = client.post("/v1/orders", json=body)
                if placed.status_code == 201:
                    client.delete(f"/v1/orders/{placed.json()['order_id']}")

    def _follow(self) -> None:
        with connect(f"ws://127.0.0.1:{self._stack.market_port}/ws", open_timeout=100) as session:
            session.send('{"op":"subscribe","channel":"ticks","symbols":["BTC-USDT"]}')
            while not self._stop.is_set():
                session.recv(timeout=100)


def test_rows_states_and_exit_codes_under_load(stack: Stack, tmp_path: Path) -> None:
    generous = tmp_path / "generous.yaml"
    names = [target.name for target in load_targets()]
    less = {"tv_uptime"}
    generous.write_text(
        "".join(f"{n}:\n  target: {0 if n in less else 1e9}\n  limit: {-1 if n in less else 2e9}\n" for n in names)
    )
    impossible = tmp_path / "impossible.yaml"
    impossible.write_text("tv_memory:\n  target: 1\n  limit: 2\n")

    def measured() -> dict[str, Any] | None:
        told = dict(json.loads(slo(stack, "--json").stdout))
        return None if any(row["state"] == "no data" for row in told["rows"]) else told

    with Load(stack, connections=2, pause=0.02):
        until(lambda: slo(stack, "--targets", str(generous)).returncode == 0)
        report = until(measured)
        missed = slo(stack, "--targets", str(impossible))
    assert {row["metric"] for row in report["rows"]} == set(names)
    assert all(row["state"] in ("ok", "warn", "breach") and row["value"] is not None for row in report["rows"])
    rows = {(row["metric"], row["process"]): row for row in report["rows"]}
    assert rows["tv_max_concurrent_sessions", "market"]["value"] == 1
    latency = rows["tv_order_execution_latency", "engine"]
    assert latency["p50"] <= latency["maximum"]
    assert report["ok"] == all(row["state"] == "ok" for row in report["rows"])
    assert missed.returncode == 3
    memory = next(line for line in missed.stdout.splitlines() if line.startswith("tv_memory"))
    assert "breach" in memory
    assert "\x1b" not in missed.stdout


def test_promtool_takes_what_a_live_stack_says(stack: Stack) -> None:
    assert stack.order().status_code == 201
    until(lambda: read(stack)[0].processes)
    # the one name that the linter does not like is one that operators know from other stacks
    kept = "tv_max_orders_per_sec metric names should not contain abbreviated units\n"
    with httpx.Client(timeout=60, verify=False) as client:
        for url, said in ((stack.gateway, kept), (stack.market, "")):
            text = client.get(f"{url}/metrics")
            wanted = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
            answer = client.get(f"{url}/metrics", headers=wanted)
            assert answer.headers["content-type"] == exposition.OPENMETRICS
            assert answer.text.endswith("# EOF\n")
            done = promtool("check", "metrics", text=text.content)
            assert (done.stderr.decode(), done.returncode) == (said, 3 if said else 0)
            if said:
                assert 'tvops_stage_seconds_count{stage="gateway_to_reply"}' in text.text
                assert 'tvops_process_cpu_ratio{process="market"}' in text.text
                assert 'tvops_server_up{role="ledger"} 1.0' in text.text


def test_a_few_users_of_locust_place_orders_and_read_figures(stack: Stack, tmp_path: Path) -> None:
    if importlib.util.find_spec("locust") is None:
        pytest.skip("locust is not installed")
    path = tvops("bench", "locustfile").stdout.strip()
    # A process of its own: gevent changes the standard library of the one that it runs in.
    command = [
        sys.executable, "-m", "locust", "-f", path, "--host", stack.gateway, "--headless", "--users", "4",
        "--spawn-rate", "4", "--stop-timeout", "60", "--json", "--only-summary",
    ]  # fmt: skip

    def orders() -> list[dict[str, Any]]:
        listed = stack.orders(limit=1000)
        return [order for order in listed if (order["client_order_id"] or "").startswith("locust-")]

    def names() -> set[str]:
        return {order["client_order_id"].rpartition("-")[0] for order in orders()}

    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=tmp_path) as users:
        try:
            until(lambda: users.poll() is not None or (len(names()) == 4 and len(orders()) > 8))
        finally:
            users.send_signal(signal.SIGTERM)
        printed, said = users.communicate(timeout=100)
    assert users.returncode == 0, said[-2000:]
    rows = {row["name"]: row for row in json.loads(printed)}
    assert {"new", "cancel"} <= rows.keys()
    assert sum(row["num_failures"] for row in rows.values()) == 0
    assert len(orders()) == rows["new"]["num_requests"]
    assert Counter(order["client_order_id"] for order in orders()).most_common(1)[0][1] == 1
    assert len(names()) == 4
    assert {order["status"] for order in orders()} == {"cancelled"}


# Stopped and killed


def test_a_stall_appears_in_the_stages_and_as_an_event(stack: Stack) -> None:
    """The commands that are on their way when the engine stands still take at least as long as it does."""
    engine = stack.processes()["engine"]
    before = read(stack)[0]
    newest = max((event.seq for event in before.events), default=0)
    least = round(LONG * 1e9) - LATEST_NS

    def stalled() -> bool:
        engine.suspend()
        time.sleep(LONG)
        engine.resume()
        time.sleep(0.3)
        stages = read(stack)[0].stages
        rises = (
            stages[name].histogram.unpack() - before.stages[name].histogram.unpack()
            for name in ("loop_lag", "gateway_to_reply")
        )
        return all(at_least(least, rise) for rise in rises)

    def told() -> bool:
        """Among the shorter pauses of a busy host."""
        texts = [e.text for e in read(stack)[0].events if e.seq > newest and e.text.startswith("could not run")]
        lengths = [float(length) for text in texts for length in re.findall(r"([\d.]+) ms", text)]
        return max(lengths, default=0.0) >= 1000 * LONG - 10

    with Load(stack, connections=6, pause=0.005):
        until(stalled)
        until(told)


def test_a_restart_is_an_event_and_counts_against_uptime(stack: Stack) -> None:
    assert stack.process is not None
    probe = ProcessProbe(stack.data_dir, stack.process.pid, "observer")
    before = read(stack)[1].pid
    assert by_name(probe)["market"].pid == before
    until(lambda: "ready after" in stack.log.read_text())  # the supervisor knows that it served
    os.kill(before, signal.SIGKILL)
    until(lambda: "market" in (found := by_name(probe)) and found["market"].pid != before)
    stack.wait_ready(100)

    def restarted() -> Telemetry | None:
        document = read(stack)[1]
        found = any("was restarted: signal SIGKILL" in event.text for event in document.events)
        recovered = any(row.name == "tv_recovery_time" and row.value for row in document.metrics)
        return document if document.pid != before and found and recovered else None

    document = until(restarted)
    uptime = {metric.name: metric for metric in document.metrics}["tv_uptime"].value
    assert uptime is not None
    assert 0 < uptime < 100
    gone = f"process {before} is gone"
    until(lambda: any(event.about == "market" and gone in event.text for event in read(stack)[0].events))
