"""`tvops bench` against a real stack: counts, a stall, slow readers, an end in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.stack import Stack
from tvops import cli
from tvops.bench.conduct import Order, conduct
from tvops.bench.doors.sessions import Listener, ListenOptions, Sessions
from tvops.bench.plan import Load, Plan
from tvops.bench.printing import render
from tvops.bench.result import Operation, Result, decode_result
from tvops.bench.samples import Window
from tvops.bench.scenario import Scenario
from tvops.engine.telemetry.histogram import Histogram, bucket_of
from tvops.signals import SIGNALS

pytestmark = pytest.mark.timeout(180)

ENDINGS = (0, 3, 4)
"""Passed, missed, void: whether the machine was quick enough is no matter of a test."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("bench") / "data"
    with Stack(folder, "--feed", "synthetic:200", "--set", "log_level=error") as running:
        yield running.start()


def bench(*arguments: str, codes: tuple[int, ...] = ENDINGS) -> Result:
    """Run a command in this process, which spares its start."""
    out = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(out):
        code = cli.run(["bench", *arguments, "--json"])
    out.seek(0)
    text = out.read()
    assert code in codes, (code, text[:500])
    return decode_result(text.encode(), "stdout")


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tvops", "bench", *arguments, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def ended(process: subprocess.Popen[str], codes: tuple[int, ...] = ENDINGS) -> Result:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert "Traceback" not in err, err
    assert process.returncode in codes, (process.returncode, err)
    return decode_result(out.encode(), "stdout")


def over(histogram: Histogram, nanoseconds: int) -> int:
    return int(histogram.unpack()[bucket_of(nanoseconds) :].sum())


def by_name(result: Result) -> dict[str, Operation]:
    return {operation.name: operation for operation in result.operations}


def orders_total(stack: Stack) -> int:
    return int(stack.client.get("/stats").json()["orders_total"])


def wait_for_orders(stack: Stack, process: subprocess.Popen[str], count: int) -> None:
    """Wait until the stack has answered so many new orders since its start."""
    deadline = time.monotonic() + 100
    while orders_total(stack) < count:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)


# One run of a scenario with every door, which several tests look at


SCENARIO = """
seconds: 2
warm_up: 0.3
loads:
  - {door: rest_orders, rate: 100, processes: 2, timeout: 60, options: {connections: 4}}
  - door: websocket_orders
    arrivals: poisson
    phases: [{seconds: 1, rate: 50, to: 150}]
    timeout: 60
    options: {sessions: 2}
  - {door: sessions, options: {sessions: 8, slow_share: 0.25, slow_kb_per_second: 1}}
targets:
  rest_orders: {error_rate: 0, p99_ms: 0.000001}
  sessions: {lost: 0}
"""


@pytest.fixture(scope="module")
def saved(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenario")
    (folder / "mine.yaml").write_text(SCENARIO)
    addresses = ("--gateway", stack.gateway, "--market", stack.market)
    result = bench("run", str(folder / "mine.yaml"), *addresses, "--save", str(folder / "mine.json"), codes=(3, 4))
    assert decode_result((folder / "mine.json").read_bytes(), "file") == result
    return folder / "mine.json"


@pytest.fixture(scope="module")
def whole(saved: Path) -> Result:
    return decode_result(saved.read_bytes(), "file")


def check_records(ticks: Operation) -> None:
    """See that the sessions had the whole stream: by the numbers in it, since its rate is the machine's affair."""
    figures = ticks.figures
    assert (figures["lost"], figures["gaps"], ticks.errors) == (0, 0, 0)
    assert figures["records"] > figures["sessions"]
    assert figures["records_per_s"] / figures["sessions"] == pytest.approx(figures["stream_rate"], rel=0.4)


@pytest.mark.parametrize("door", ["rest_orders", "websocket_orders"])
def test_every_order_is_answered_and_none_stays(stack: Stack, whole: Result, door: str) -> None:
    operations = [operation for operation in whole.operations if operation.door == door]
    assert {operation.name for operation in operations} == {"new", "amend", "cancel", "ioc"}
    assert {code for o in operations for code in o.outcomes if not code.startswith("2")} == set()
    sent = sum(operation.sent for operation in operations)
    assert sent == sum(operation.answered for operation in operations)
    assert sent == sum(sum(operation.series.answered) for operation in operations)
    assert sent == 200 if door == "rest_orders" else 120 < sent < 280, "a Poisson process of 200"
    for operation in operations:
        assert int(operation.response.unpack().sum()) == operation.sent
        assert operation.response.maximum >= operation.service.maximum > 0
    assert stack.orders(status="live") == []


def test_sessions_count_messages_and_slow_ones_stand_apart(whole: Result) -> None:
    found = by_name(whole)
    fast, slow = found["ticks"], found["slow_ticks"]
    assert (fast.figures["sessions"], slow.figures["sessions"]) == (6, 2)
    check_records(fast)
    # What waited since a session was opened comes at once, in one of the seconds.
    assert 4 * min(slow.series.sent) / 2 < max(fast.series.sent) / 6
    assert fast.response.maximum > 0
    assert len(fast.series.sent) == 2


def test_the_targets_of_a_scenario_are_held(whole: Result) -> None:
    checks = {(check.about, check.figure): check.met for check in whole.checks}
    checks.pop(("websocket_orders", "p99_ms"))  # the operators' own, which a slow machine misses
    assert checks == {
        ("rest_orders", "error_rate"): True, ("rest_orders", "p99_ms"): False, ("sessions", "lost"): True,
        ("websocket_orders", "error_rate"): True,
    }  # fmt: skip
    assert whole.name == "mine"
    assert whole.after
    assert len(whole.generators) == 4


def test_the_text_report_names_every_operation(whole: Result) -> None:
    text = render(whole)
    assert [operation.key for operation in whole.operations if operation.key not in text] == []
    assert "verdict: " in text


def test_a_stall_is_seen_by_every_request_meant_for_it_and_an_interrupt_ends_the_run(stack: Stack) -> None:
    rate, stall, connections = 100, 0.9, 4
    engine = stack.processes()["engine"]
    process = start(
        "orders", "--rate", str(rate), "--seconds", "100", "--warm-up", "0", "--connections", str(connections),
        "--mix", "new=100", "--timeout", "60", "--gateway", stack.gateway,
    )  # fmt: skip
    wait_for_orders(stack, process, orders_total(stack) + 10)
    answered, begun = orders_total(stack), time.monotonic()
    engine.suspend()
    time.sleep(stall)
    engine.resume()
    meant = int(rate * (time.monotonic() - begun))
    wait_for_orders(stack, process, answered + meant + rate // 2)
    for _ in range(3):  # only the first one counts: what comes after it must not cut the ending short
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    result = ended(process, (130,))
    assert "interrupted" in result.partial
    assert stall < result.seconds < 100
    (operation,) = result.operations
    assert operation.answered > meant
    # Those meant for the first two thirds of the stall waited for at least the last third of it.
    waited = over(operation.response, int(stall / 3 * 1e9))
    assert waited >= rate * stall * 2 / 3 - 2
    # A connection has one request under way: the others were sent when the stall was over.
    assert over(operation.service, int(stall / 3 * 1e9)) < waited / 2
    assert stack.orders(status="live") == []


def test_a_closed_loop_has_as_many_under_way_as_there_are_places(stack: Stack) -> None:
    result = bench(
        "orders", "--closed", "--seconds", "1", "--warm-up", "0.1", "--connections", "3",
        "--gateway", stack.gateway,
    )  # fmt: skip
    assert result.loop == "closed"
    assert sum(operation.answered for operation in result.operations) > 3
    assert all(operation.lateness.maximum == 0 for operation in result.operations)


def test_json_sessions_see_the_same_stream(stack: Stack) -> None:
    result = bench(
        "ticks", "--sessions", "2", "--encoding", "json", "--seconds", "2", "--warm-up", "0.3",
        "--market", stack.market,
    )  # fmt: skip
    check_records(by_name(result)["ticks"])


async def test_sessions_whose_beginning_was_late_end_with_the_window() -> None:
    plan = Plan(
        load=Load(door="sessions"), url="http://127.0.0.1:1", phases=(), warm_up=0, seconds=30, seed=1, core=None,
        clean_up=False,
    )  # fmt: skip
    door = Sessions(plan, ListenOptions(sessions=1))
    door.listeners = [Listener(door.fast, door.options)]
    now = time.monotonic_ns()
    window = Window(now - 30_000_000_000, now)
    await door.begin(window)
    for _ in range(1000):  # what is due by the window needs no further second
        await asyncio.sleep(0)
    (ticks,) = door.operations(window)
    assert len(ticks.series.sent) >= 30
    assert door.task is not None
    door.task.cancel()


def server_url(stack: Stack, role: str) -> str:
    (socket,) = (stack.data_dir / "valkey" / role).rglob("*.sock")
    return f"unix://{socket}"


def test_redis_is_loaded_and_left_as_it_was(stack: Stack) -> None:
    result = bench(
        "redis", "--redis", server_url(stack, "results"), "--rate", "200", "--seconds", "1", "--warm-up", "0"
    )
    assert {name: operation.errors for name, operation in by_name(result).items()} == dict.fromkeys(
        ("ping", "xadd", "get"), 0
    )
    assert sum(operation.answered for operation in result.operations) == 200
    with redis.Redis.from_url(server_url(stack, "results")) as client:
        assert list(client.scan_iter("tvops:bench:*")) == []


def test_a_search_stops_where_the_targets_are_missed(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "knee.yaml"
    file.write_text(
        "seconds: 0.3\nwarm_up: 0\nloads: [{door: rest_orders, rate: 1}]\n"
        "targets: {rest_orders: {p99_ms: 0.000001}}\nsearch: {from: 50, to: 100}\n"
    )
    result = bench("run", str(file), "--gateway", stack.gateway, codes=(3, 4))
    assert [step.rate for step in result.steps] == [50, 50]  # a bad moment is given another chance
    assert result.knee is None
    assert not result.steps[0].kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("orders", "--gateway", "http://127.0.0.1:1"), "does not answer"),
        (("orders", "--gateway", "nonsense"), "is no address of a stack"),
        (("orders", "--mix", "new"), "--mix new: must be KIND=SHARE"),
        (("orders", "--mix", "old=1"), "there is no such key"),
        (("redis", "--redis", "{ledger}", "--seconds", "1"), "keeps a ledger"),
        (("redis",), "give the server with --redis"),
        (("redis", "--redis", "redis://:secret@localhost"), "TVOPS_BENCH_REDIS_URL"),
        (("run", "nothing"), "no scenario that ships"),
        (("orders", "--save", "a b"), "is no name of a result"),
        (("orders", "--seed", "9" * 30), "--seed: Expected `int` <= 9007199254740992"),
        (("run", "steady", "--seed", "9" * 30), "--seed: has to be at most 9007199254740992"),
        (("run", "steady", "--seconds", "0.1", "--gateway", "http://127.0.0.1:1"), "market: give --market, too"),
        (("ticks", "--sessions", "2", "--processes", "3"), "--processes: 3 cannot share 2 sessions"),
        (("orders", "--rate", "0.1", "--seconds", "2"), "there is nothing to measure in 2 s"),
    ],
)
def test_what_cannot_run_says_why_in_one_line(
    stack: Stack, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = server_url(stack, "ledger")
    assert cli.run(["bench", *(ledger if word == "{ledger}" else word for word in arguments)]) in (1, 2)
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err


def test_a_wrong_argument_that_the_generator_finds_is_one(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["bench", "orders", "--gateway", stack.gateway, "--symbol", "FOO"]) == 2
    assert "rest_orders: symbol: 'FOO' is not traded" in capsys.readouterr().err
    assert cli.run(["bench", "redis", "--redis", "foo"]) == 2
    assert capsys.readouterr().err.startswith("tvops: redis: Redis URL must specify")


def test_the_end_of_the_stack_in_the_middle_is_counted(stack: Stack) -> None:
    """The last test of this stack."""
    seen: list[str] = []

    def told(progress: str) -> None:
        """End the stack when there are orders, and the run when orders have failed for that."""
        if not seen:
            stack.kill_all()
        elif "failed" in progress and "failed" not in seen[-1]:
            signal.raise_signal(signal.SIGINT)
        seen.append(progress)

    load = Load(door="rest_orders", rate=100, timeout=1)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        result = conduct(
            Order(
                scenario=Scenario(name="end", seconds=100, warm_up=0, loads=(load,)),
                gateway=stack.gateway,
                told=told,
            )
        )
    finally:  # an interrupted run leaves them ignored
        for number, handler in before.items():
            signal.signal(number, handler)
    outcomes: Counter[str] = Counter()
    for operation in result.operations:
        outcomes.update(operation.outcomes)
    assert outcomes["not connected"] > 10
    assert sum(outcomes.values()) == sum(operation.answered + operation.errors for operation in result.operations)
    (left,) = (check for check in result.checks if check.figure == "left_behind")
    assert left.detail.endswith(f"may still rest at {stack.gateway}")
    assert "left_behind" in render(result)


def test_without_an_address_bench_starts_its_own_stack_and_cleans_up_after_killed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TVOPS_GATEWAY_PORT", "1")
    for name in ("dead", "alive", "young"):
        (tmp_path / f"tvops-bench-{name}").mkdir()
        (tmp_path / f"tvops-bench-{name}" / "serve.log").touch()
    (tmp_path / "tvops-bench-other").mkdir()
    for name in ("dead", "alive", "other"):
        os.utime(tmp_path / f"tvops-bench-{name}", (0, 0))
    with (tmp_path / "tvops-bench-alive" / "serve.log").open() as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        result = bench(
            "orders", "--rate", "50", "--seconds", "1", "--warm-up", "0", "--hlog", str(tmp_path / "x.hlog")
        )
    assert result.spawned
    assert sum(operation.sent for operation in result.operations) == 50
    assert {path.name for path in tmp_path.iterdir()} == {
        "tvops-bench-alive", "tvops-bench-young", "tvops-bench-other", "x.hlog",
    }  # fmt: skip
    assert "Tag=rest_orders.new.service," in (tmp_path / "x.hlog").read_text()
