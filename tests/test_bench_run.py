"""`tvops bench` against a real stack: counts, a stall, slow readers, an end in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import Stack
from tvops.bench.result import Operation, Result, decode_result
from tvops.engine.telemetry.histogram import Histogram, bucket_of

pytestmark = pytest.mark.timeout(180)

ENDINGS = (0, 3, 4)
"""Whether the machine was quick enough is no matter of a test."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("bench") / "data"
    with Stack(folder, "--feed", "synthetic:200", "--set", "log_level=error") as running:
        yield running.start()


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tvops", "bench", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert "Traceback" not in err, err
    return process.returncode, out, err


def bench(*arguments: str, codes: tuple[int, ...] = ENDINGS, **environment: str) -> Result:
    code, out, err = ended(start(*arguments, "--json", **environment))
    assert code in codes, (code, out[:500], err)
    return decode_result(out.encode(), "stdout")


def refused(*arguments: str) -> str:
    code, out, err = ended(start(*arguments))
    assert (code, out) in ((1, ""), (2, "")), (code, out)
    assert len(err.strip().splitlines()) == 1
    return err


def over(histogram: Histogram, nanoseconds: int) -> int:
    return int(histogram.unpack()[bucket_of(nanoseconds) :].sum())


def by_name(result: Result) -> dict[str, Operation]:
    return {operation.name: operation for operation in result.operations}


def wait_for_orders(stack: Stack, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    before = {order["order_id"] for order in stack.orders(limit=5)}
    while {order["order_id"] for order in stack.orders(limit=5)} <= before:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.parametrize("door", ["rest_orders", "websocket_orders"])
def test_every_order_is_answered_and_none_stays(stack: Stack, door: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    result = bench(
        "orders", "--door", door, "--rate", "100", "--count", "200", "--warm-up", "0.5", "--connections", "4",
        "--gateway", stack.gateway, "--save", str(file),
    )  # fmt: skip
    found = by_name(result)
    assert set(found) == {"new", "amend", "cancel", "ioc"}
    assert sum(operation.sent for operation in result.operations) == 200
    assert {code: n for o in result.operations for code, n in o.outcomes.items() if not code.startswith("2")} == {}
    assert sum(sum(operation.series.answered) for operation in result.operations) == 200
    for operation in result.operations:
        assert int(operation.response.unpack().sum()) == operation.sent
        assert operation.response.maximum >= operation.service.maximum > 0
    assert result.after
    assert stack.orders(status="live") == []
    assert decode_result(file.read_bytes(), "file") == result


def test_a_stall_is_seen_by_every_request_that_should_have_been_sent_meanwhile(stack: Stack) -> None:
    rate, stall, connections = 200, 0.3, 4
    process = start(
        "orders", "--rate", str(rate), "--seconds", "4", "--warm-up", "0", "--connections", str(connections),
        "--mix", "new=100", "--gateway", stack.gateway, "--json",
    )  # fmt: skip
    wait_for_orders(stack, process)
    time.sleep(0.5)
    engine = stack.processes()["engine"]
    engine.suspend()
    time.sleep(stall)
    engine.resume()
    _, out, _ = ended(process)
    (operation,) = decode_result(out.encode(), "stdout").operations
    assert (operation.sent, operation.errors) == (rate * 4, 0)
    # Those meant for the first two thirds of the stall waited for at least the last third of it.
    waited = over(operation.response, int(stall / 3 * 1e9))
    assert waited >= rate * stall * 2 / 3 - 2
    # A connection has one request under way: the others were sent when the stall was over.
    assert over(operation.service, int(stall / 3 * 1e9)) < waited / 2


def test_a_closed_loop_has_as_many_under_way_as_there_are_places(stack: Stack) -> None:
    result = bench(
        "orders", "--closed", "--seconds", "1", "--warm-up", "0.3", "--connections", "3",
        "--gateway", stack.gateway,
    )  # fmt: skip
    assert result.loop == "closed"
    assert sum(operation.answered for operation in result.operations) > 20
    assert all(operation.lateness.maximum == 0 for operation in result.operations)


def test_sessions_count_messages_and_slow_ones_stand_apart(stack: Stack) -> None:
    result = bench(
        "ticks", "--sessions", "8", "--slow", "0.25", "--slow-kb", "5", "--seconds", "3", "--warm-up", "0.5",
        "--market", stack.market,
    )  # fmt: skip
    found = by_name(result)
    fast, slow = found["ticks"], found["slow_ticks"]
    assert (fast.figures["sessions"], slow.figures["sessions"]) == (6, 2)
    assert (fast.figures["lost"], fast.figures["gaps"], fast.errors) == (0, 0, 0)
    assert fast.figures["records"] / 6 == pytest.approx(600, rel=0.4)
    assert fast.figures["stream_rate"] == pytest.approx(200, rel=0.4)
    assert slow.figures["records"] / 2 < fast.figures["records"] / 6
    assert fast.response.maximum > 0
    assert len(fast.series.sent) == 3


def test_json_sessions_see_the_same_stream(stack: Stack) -> None:
    result = bench(
        "ticks", "--sessions", "2", "--encoding", "json", "--seconds", "2", "--warm-up", "0.3",
        "--market", stack.market,
    )  # fmt: skip
    assert by_name(result)["ticks"].figures["records"] / 2 == pytest.approx(400, rel=0.4)
    assert by_name(result)["ticks"].figures["lost"] == 0


def server_url(stack: Stack, role: str) -> str:
    (socket,) = (stack.data_dir / "valkey" / role).rglob("*.sock")
    return f"unix://{socket}"


def test_redis_is_loaded_and_left_as_it_was(stack: Stack) -> None:
    result = bench("redis", "--redis", server_url(stack, "results"), "--rate", "200", "--seconds", "1")
    assert {name: operation.errors for name, operation in by_name(result).items()} == {
        "ping": 0,
        "xadd": 0,
        "get": 0,
    }
    assert sum(operation.answered for operation in result.operations) == 200
    import redis

    with redis.Redis.from_url(server_url(stack, "results")) as client:
        assert list(client.scan_iter("tvops:bench:*")) == []


def test_the_ledger_server_is_never_loaded(stack: Stack) -> None:
    assert "keeps a ledger" in refused("redis", "--redis", server_url(stack, "ledger"), "--seconds", "1")


def test_an_interrupt_ends_the_run_with_what_there_is(stack: Stack) -> None:
    process = start(
        "orders", "--rate", "50", "--seconds", "60", "--warm-up", "0", "--gateway", stack.gateway, "--json"
    )
    wait_for_orders(stack, process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    code, out, _ = ended(process)
    result = decode_result(out.encode(), "stdout")
    assert (code if not result.void else 130) == 130
    assert "interrupted" in result.partial
    assert 0 < result.seconds < 60
    assert sum(operation.answered for operation in result.operations) > 0
    assert stack.orders(status="live") == []


def test_a_scenario_runs_and_its_targets_are_held(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "seconds: 2\nwarm_up: 0.3\nloads:\n"
        "  - {door: rest_orders, phases: [{seconds: 1, rate: 20, to: 60}], arrivals: poisson}\n"
        "  - {door: sessions, options: {sessions: 3}}\n"
        "targets:\n  rest_orders: {error_rate: 0, p99_ms: 0.000001}\n  sessions: {lost: 0}\n"
    )
    result = bench("run", str(file), "--gateway", stack.gateway, "--market", stack.market, codes=(3, 4))
    checks = {(check.about, check.figure): check.met for check in result.checks}
    assert checks == {
        ("rest_orders", "error_rate"): True, ("rest_orders", "p99_ms"): False, ("sessions", "lost"): True,
    }  # fmt: skip
    assert {operation.door for operation in result.operations} == {"rest_orders", "sessions"}
    assert result.name == "mine"


def test_a_search_stops_where_the_targets_are_missed(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "knee.yaml"
    file.write_text(
        "seconds: 1\nwarm_up: 0.2\nloads: [{door: rest_orders, rate: 1}]\n"
        "targets: {rest_orders: {p99_ms: 0.000001}}\nsearch: {from: 50, to: 100}\n"
    )
    result = bench("run", str(file), "--gateway", stack.gateway, codes=(3, 4))
    assert [step.rate for step in result.steps] == [50, 50]  # a bad moment is given another chance
    assert result.knee is None
    assert not result.steps[0].kept


def test_text_report_names_every_operation(stack: Stack) -> None:
    code, out, _ = ended(
        start("orders", "--rate", "50", "--seconds", "1", "--mix", "new=1", "--gateway", stack.gateway)
    )
    assert code in ENDINGS
    assert "rest_orders.new" in out
    assert "verdict: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("orders", "--gateway", "http://127.0.0.1:1"), "does not answer"),
        (("orders", "--gateway", "nonsense"), "is no address of a stack"),
        (("orders", "--mix", "new"), "--mix new: must be KIND=SHARE"),
        (("orders", "--mix", "old=1"), "there is no such key"),
        (("redis",), "give the server with --redis"),
        (("redis", "--redis", "redis://:secret@localhost"), "TVOPS_BENCH_REDIS_URL"),
        (("run", "nothing"), "no scenario that ships"),
        (("orders", "--save", "a b"), "is no name of a result"),
    ],
)
def test_what_cannot_run_says_why_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(*arguments)


def test_the_end_of_the_stack_in_the_middle_is_counted(stack: Stack) -> None:
    """The last test of this stack."""
    process = start(
        "orders", "--rate", "100", "--seconds", "4", "--warm-up", "0", "--timeout", "1",
        "--gateway", stack.gateway, "--json",
    )  # fmt: skip
    wait_for_orders(stack, process)
    time.sleep(0.5)
    stack.kill_all()
    code, out, _ = ended(process)
    result = decode_result(out.encode(), "stdout")
    assert code in (3, 4)
    outcomes: dict[str, int] = {}
    for operation in result.operations:
        for name, count in operation.outcomes.items():
            outcomes[name] = outcomes.get(name, 0) + count
    assert outcomes["not connected"] > 50
    assert sum(outcomes.values()) == 400


def test_without_an_address_bench_starts_its_own_stack(tmp_path: Path) -> None:
    result = bench("orders", "--rate", "50", "--seconds", "1", "--warm-up", "0.5", TVOPS_GATEWAY_PORT="1")
    assert result.spawned
    assert sum(operation.sent for operation in result.operations) == 50
