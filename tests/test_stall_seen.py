"""A stop of 5 ms of the engine, on a real stack: seen everywhere that it should be, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.stack import Stack
from tests.test_telemetry_stalls import stop_for
from tvops.engine.telemetry.document import Telemetry
from tvops.engine.telemetry.histogram import Counts, lowest_of
from tvops.engine.telemetry.pauses import INTERVAL_MS
from tvops.engine.telemetry.stalls import BURST, TOGETHER_SECONDS

INJECTIONS = 15
SHORT, LONG = 0.005, 0.3
APART = 0.05
LEAST_NS = 4_000_000
"""What a stop of 5 ms shows as at least."""
LATEST_NS = (INTERVAL_MS + 1) * 1_000_000
"""Until what measures stops is due again."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stalls") / "data") as running:
        yield running.start()


def read(url: str) -> Telemetry:
    answer = httpx.get(f"{url}/telemetry", headers={"Accept": "application/msgpack"}, timeout=10)
    return msgspec.msgpack.decode(answer.content, type=Telemetry)


def at_least(nanoseconds: int, counts: Counts) -> int:
    """Give how many samples are so long, to within the bucket that it falls into."""
    lowest = np.array([lowest_of(bucket) for bucket in range(len(counts))])
    return int(counts[lowest >= nanoseconds * 127 // 128].sum())


def sampled() -> None:
    """Wait until telemetry has taken a sample of what was, and a new document is due."""
    time.sleep(1.5)


def exposed_at_least_2_ms(url: str) -> float:
    """Give how many wake-ups were so late, from the buckets of `/metrics`."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=10).text)
    samples = next(family.samples for family in families if family.name == "tvops_stage_seconds")
    below = {s.labels["le"]: s.value for s in samples if "le" in s.labels and s.labels["stage"] == "process_pause"}
    return below["+Inf"] - below["0.002"]


def told(document: Telemetry) -> int:
    """Give how many pauses the events tell of, one by one and together."""
    texts = [event.text for event in document.events if event.text.startswith("could not run")]
    together = [text.removeprefix("could not run ").split()[0] for text in texts if " more" in text]
    return len(texts) + sum(int(word) - 1 for word in together if word != "once")


def test_every_stop_of_5_ms_is_seen(stack: Stack) -> None:
    sampled()
    before, exposed_before = read(stack.gateway), exposed_at_least_2_ms(stack.gateway)
    pid = stack.processes()["engine"].pid
    for _ in range(INJECTIONS):
        time.sleep(APART)
        stop_for(pid, SHORT)
    sampled()
    after = read(stack.gateway)
    rise = after.stages["process_pause"].histogram.unpack() - before.stages["process_pause"].histogram.unpack()
    assert at_least(LEAST_NS, rise) >= INJECTIONS
    exposed_rise = exposed_at_least_2_ms(stack.gateway) - exposed_before
    assert exposed_rise >= 2 * INJECTIONS  # of each, wake-ups that are late by 4 ms, 3 ms, ...
    every = [event for event in after.events if event.text.startswith("could not run for")]
    newest = max((event.seq for event in before.events), default=0)
    lines = [event for event in every if event.seq > newest]
    if len(lines) < INJECTIONS:  # others on this host have used up the lines: they are told together
        assert len(every) >= BURST
        time.sleep(TOGETHER_SECONDS + 1)
        assert told(read(stack.gateway)) - told(before) >= INJECTIONS
    assert {event.about for event in every} == {"engine"}
    shown = top(stack, "events")
    assert every[-1].text in shown
    assert "process_pause" in top(stack, "latency")


def top(stack: Stack, view: str) -> str:
    command = [sys.executable, "-m", "tvops", "top", "--once", "--view", view]
    ports = ["--gateway", stack.gateway, "--market", stack.market]
    done = subprocess.run(
        [*command, *ports], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "COLUMNS": "150", "LINES": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_stop_is_nobody_elses(stack: Stack) -> None:
    """The market worker has none of it, and commands before it and after it have the times that they took."""
    order = {"symbol": "BTC-USDT", "side": "buy", "order_type": "limit", "quantity": "0.01", "price": "100"}
    pid = stack.processes()["engine"].pid
    sampled()
    before = [read(url) for url in (stack.gateway, stack.market)]
    for _ in range(3):
        assert stack.client.post("/v1/orders", json=order).status_code == 201
        time.sleep(APART)  # the reply is here before the engine has noted that it wrote it
        stop_for(pid, LONG)
    assert stack.client.post("/v1/orders", json=order).status_code == 201
    sampled()
    after = [read(url) for url in (stack.gateway, stack.market)]
    long = {
        (now.process, name)
        for now, then in zip(after, before, strict=True)
        for name, stage in now.stages.items()
        if at_least(round(LONG * 1e9) - LATEST_NS, stage.histogram.unpack() - then.stages[name].histogram.unpack())
    }
    assert {("engine", "process_pause"), ("engine", "loop_lag")} <= long
    assert not [
        stage for process, stage in long if process != "engine" or stage.startswith(("gateway_", "submit_"))
    ]


def test_a_view_that_is_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tvops", "top", "--once", "--view", "stars"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "--view stars: there is no such view; there are overview," in done.stderr
    assert done.stderr.count("\n") == 1
