"""`tvops serve` as its user meets it: starts, serves, refuses what it must, ends cleanly."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack import Stack, free_port, free_ports
from tvops.cli import run

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("serve") / "data") as running:
        yield running.start()


@pytest.fixture(scope="module")
def second(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a stack beside the first; the test that ends it starts it again."""
    with Stack(tmp_path_factory.mktemp("second") / "data", "--json") as running:
        yield running.start()


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the logging of the tests as it is, whatever a command sets up in their process."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    yield
    root.setLevel(level)


def last_line(errors: str) -> str:
    """Give the one plain line behind the log that says why a stack ended."""
    last = errors.strip().splitlines()[-1]
    assert last.startswith("tvops: ")
    assert errors.count(last.removeprefix("tvops: ")) == 1
    assert "Traceback" not in errors
    return last


def tvops(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tvops", *arguments],
        capture_output=True, text=True, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def on_free_ports() -> list[str]:
    gateway, market = free_ports(2)
    return ["--gateway-port", str(gateway), "--market-port", str(market)]


def ignored(pid: int) -> set[int]:
    """Give the signals that a process ignores."""
    [mask] = [line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in line]
    return {number for number in range(1, 65) if int(mask, 16) >> number - 1 & 1}


@pytest.mark.usefixtures("own_logging")
def test_a_port_in_use_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = run(["serve", "--data-dir", str(tmp_path / "d"), "--gateway-port", str(port)])
    assert code == 1
    told = last_line(capfd.readouterr().err)
    assert f"127.0.0.1:{port}" in told
    assert "--gateway-port" in told


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--profile", "nope"], "nope"),
        (["--set", "nope=1"], "nope"),
        (["--set", "nope"], "KEY=VALUE"),
        (["--set", "ledger_url=redis://user:secret@localhost"], "TVOPS_LEDGER_URL"),
        (["nope"], "services"),
        (["--valkey-binary", "/bin/false"], "/bin/false"),
        (["--data-dir", "/proc/nope"], "/proc/nope"),
    ],
)
@pytest.mark.usefixtures("own_logging")
def test_wrong_input_is_one_plain_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    directory = [] if "--data-dir" in arguments else ["--data-dir", str(tmp_path / "d")]
    code = run(["serve", *arguments, *on_free_ports(), *directory])
    errors = capfd.readouterr().err
    assert code == (1 if named == "/proc/nope" else 2), errors
    assert named in last_line(errors)


def test_what_a_worker_refuses_ends_it_with_the_reason(tmp_path: Path, start_server: Callable[..., Any]) -> None:
    """One of each worker and exit code; what else they refuse, the tests of their services have."""
    unfit = start_server("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "allkeys-lru")
    wrong: tuple[tuple[list[str], dict[str, str], int, str], ...] = (
        (["market", "--symbols", "NOPE-USD"], {}, 2, "NOPE-USD"),
        (["engine"], {"TVOPS_LEDGER_URL": unfit.url}, 1, "it would evict"),
    )
    for arguments, environment, code, reason in wrong:
        result = tvops("serve", *arguments, *on_free_ports(), "--data-dir", str(tmp_path / "d"), **environment)
        assert result.returncode == code, result.stderr
        assert reason in last_line(result.stderr)


def test_both_ports_are_healthy_and_the_addresses_were_printed(stack: Stack) -> None:
    deadline = time.monotonic() + 60
    for url in (stack.gateway, stack.market):  # which are "degraded" for a while where the machine stood still
        while (status := stack.client.get(f"{url}/health").json()["status"]) != "ok":
            assert time.monotonic() < deadline, status
            time.sleep(0.1)
    text = stack.log.read_text()
    assert f"http://127.0.0.1:{stack.gateway_port}/" in text
    assert "simulated" in text


def test_an_order_goes_in_and_comes_back(stack: Stack) -> None:
    response = stack.order(client_order_id="serve-1", price="59000", quantity="0.5")
    assert response.status_code == 201, response.text
    order_id = response.json()["order_id"]
    assert stack.client.get(f"/v1/orders/{order_id}").json()["client_order_id"] == "serve-1"
    again = stack.order(client_order_id="serve-1", price="59000", quantity="0.5")
    assert (again.status_code, again.json()["order_id"]) == (200, order_id)
    assert stack.client.delete(f"/v1/orders/{order_id}").status_code == 200


def test_the_simulated_market_moves(stack: Stack) -> None:
    seen = set()
    deadline = time.monotonic() + 60
    while len(seen) < 3 and time.monotonic() < deadline:
        book = stack.client.get("/v1/book/BTC-USDT").json()
        if book["bids"] and book["asks"]:
            seen.add((tuple(book["bids"][0]), tuple(book["asks"][0])))
        time.sleep(0.1)
    assert len(seen) >= 3


@pytest.mark.usefixtures("own_logging")
def test_a_second_serve_on_the_data_directory_says_who_holds_it(
    stack: Stack, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "--data-dir", str(stack.data_dir), "--gateway-port", str(free_port())]) == 1
    assert stack.process is not None
    assert f"is held by tvops serve, pid {stack.process.pid}" in last_line(capfd.readouterr().err)


def test_two_stacks_run_side_by_side(stack: Stack, second: Stack) -> None:
    assert second.order(client_order_id="other").status_code == 201
    assert [o for o in stack.orders() if o["client_order_id"] == "other"] == []
    assert stack.order(client_order_id="first").status_code == 201
    assert [o for o in second.orders() if o["client_order_id"] == "first"] == []


def test_json_status_lines(second: Stack) -> None:
    deadline = time.monotonic() + 60
    ready: list[dict[str, Any]] = []
    while not ready and time.monotonic() < deadline:
        time.sleep(0.1)
        whole = second.log.read_text().rpartition("\n")[0].splitlines()
        ready = [line for line in (json.loads(line) for line in whole if line.startswith("{")) if line["ready"]]
    assert {"ticks_per_s", "orders_per_s", "sessions", "memory_mb"} <= set(ready[-1])


def test_a_signal_ends_it_with_nothing_lost(second: Stack) -> None:
    order_id = second.order(client_order_id="kept", price="50000").json()["order_id"]
    end_cleanly(second, signal.SIGINT)
    second.prefix = ("nohup",)
    second.start()
    assert second.client.get(f"/v1/orders/{order_id}").json()["status"] == "open"
    assert second.order(client_order_id="kept", price="50000").json()["order_id"] == order_id
    assert second.process is not None
    assert signal.SIGHUP in ignored(second.process.pid)
    end_cleanly(second, signal.SIGTERM)


def end_cleanly(stack: Stack, number: int) -> None:
    """End it; where the machine stood still so long that a part was killed, once more."""
    for _ in range(3):
        stack.log.write_text("")
        stack.stop(number)
        assert stack.process is not None
        assert stack.process.returncode == 0
        if "killed" not in stack.tail():
            return
        stack.start()
    raise AssertionError(stack.tail())


def test_what_has_to_be_killed_is_named_at_the_end(stack: Stack) -> None:
    stack.processes()["market"].suspend()
    stack.stop()
    assert stack.process is not None
    assert stack.process.returncode == 0
    last = stack.tail().splitlines()[-1]
    assert last.startswith("stopped; killed, not ended in time: ")
    assert "market worker" in last


SHOW = """
import asyncio, os, sys
from pathlib import Path
from tvops.engine.supervisor import Supervisor
from tvops import serving
from tvops.settings import Settings
serving.addresses = lambda settings: []
sys.stdout.isatty = lambda: True
asyncio.run(serving._show(Supervisor(Settings(data_dir=sys.argv[1])), False))
os._exit(0)
"""

PASS_ON = """
import asyncio, os, subprocess, sys
from tvops.engine.supervisor import _pass_on_log
async def main():
    lines = "import sys; sys.stderr.write('line' * 50_000)"
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", lines, stderr=subprocess.PIPE)
    await _pass_on_log(worker)
    return await worker.wait()
os._exit(asyncio.run(main()))
"""


def test_a_terminal_that_goes_away_ends_the_status_line_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SHOW, str(tmp_path)]
    with open("/dev/full", "wb") as gone:  # noqa: PTH123 - a device
        shown = subprocess.run(
            command, stdout=gone, stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm"}, check=False
        )
    assert shown.returncode == 0, shown.stderr


def test_a_log_that_nobody_reads_is_read_from_the_worker_all_the_same() -> None:
    with subprocess.Popen([sys.executable, "-c", PASS_ON], stderr=subprocess.PIPE) as passed_on:
        assert passed_on.stderr is not None
        passed_on.stderr.close()
        assert passed_on.wait() == 0
