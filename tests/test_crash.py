"""Kills real processes under order load: what was acknowledged is there afterwards, once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.stack import Stack

pytestmark = pytest.mark.timeout(400)


class Load:
    """Sends orders without pause and remembers which client order ids were acknowledged, with which order id."""

    def __init__(self, stack: Stack, prefix: str) -> None:
        self.stack = stack
        self.prefix = prefix
        self.acknowledged: dict[str, str] = {}
        self.sent: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with httpx.Client(base_url=self.stack.gateway, timeout=30) as client:
            number = 0
            while not self._stop.is_set():
                client_id = f"{self.prefix}-{number}"
                number += 1
                self.sent.append(client_id)
                body = {
                    "symbol": "ETH-USDT", "side": "buy", "order_type": "limit", "quantity": "0.001",
                    "price": f"{1000 + number % 500}", "client_order_id": client_id,
                }  # fmt: skip
                try:
                    response = client.post("/v1/orders", json=body)
                except httpx.HTTPError:
                    time.sleep(0.02)
                    continue
                if response.status_code in (200, 201):
                    self.acknowledged[client_id] = response.json()["order_id"]

    def wait(self, count: int) -> None:
        """Wait until that many more orders were acknowledged."""
        wanted = len(self.acknowledged) + count
        deadline = time.monotonic() + 120
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline, f"{len(self.acknowledged)} of {wanted} were acknowledged"
            time.sleep(0.01)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def check(stack: Stack, load: Load) -> None:
    """Every acknowledged order is there once, under its id; a re-sent one is answered with the first answer."""
    listed: dict[str, list[str]] = {}
    before = None
    while page := stack.orders(limit=1000, **({"before": before} if before else {})):
        for order in page:
            listed.setdefault(order["client_order_id"], []).append(order["order_id"])
        before = page[-1]["order_id"]
    assert {c: listed.get(c) for c in load.acknowledged} == {c: [i] for c, i in load.acknowledged.items()}
    assert all(len(ids) == 1 for client_id, ids in listed.items() if client_id.startswith(load.prefix))
    for client_id in list(load.acknowledged)[-3:]:
        number = int(client_id.rsplit("-", 1)[1]) + 1
        again = stack.order(
            symbol="ETH-USDT", quantity="0.001", price=f"{1000 + number % 500}", client_order_id=client_id
        )
        assert (again.status_code, again.json()["order_id"]) == (200, load.acknowledged[client_id])


def runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture(scope="module")
def one_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = ("--set", "snapshot_commands=500")
    with Stack(tmp_path_factory.mktemp("crash") / "data", *settings) as stack:
        yield stack


@pytest.fixture
def victims_stack(one_stack: Stack) -> Stack:
    """Give a stack that runs, whatever the test before did to it."""
    if one_stack.process is None or one_stack.process.poll() is not None:
        one_stack.start()
    return one_stack


@pytest.mark.parametrize("victim", ["engine", "market", "valkey-ledger", "valkey-market", "valkey-results"])
def test_kill_one_process(victims_stack: Stack, victim: str) -> None:
    stack = victims_stack
    with Load(stack, victim) as load:
        load.wait(50)
        process = stack.processes()[victim]
        process.kill()
        process.wait(60)
        stack.wait_ready()
        load.wait(20)
    check(stack, load)


def test_kill_all_processes(victims_stack: Stack) -> None:
    stack = victims_stack
    with Load(stack, "all") as load:
        load.wait(100)
        stack.kill_all()
    stack.start()
    check(stack, load)


def test_kill_the_supervisor_leaves_no_second_stack_behind(victims_stack: Stack) -> None:
    stack = victims_stack
    with Load(stack, "super") as load:
        load.wait(100)
        workers = [p for name, p in stack.processes().items() if name in ("engine", "market")]
        servers = {p.pid for name, p in stack.processes().items() if name.startswith("valkey")}
        stack.processes()["serve"].kill()
        assert stack.process is not None
        stack.process.wait()
        deadline = time.monotonic() + 60
        while any(runs(worker) for worker in workers):
            assert time.monotonic() < deadline, "a worker outlives its supervisor"
            time.sleep(0.05)
    with contextlib.suppress(httpx.HTTPError):
        assert not stack.healthy(stack.gateway)
    stack.start()
    adopted = {p.pid for name, p in stack.processes().items() if name.startswith("valkey")}
    assert adopted == servers
    check(stack, load)


def test_orders_are_refused_while_the_ledger_does_not_answer(victims_stack: Stack) -> None:
    stack = victims_stack
    server = stack.processes()["valkey-ledger"]
    server.suspend()
    try:
        waiting = stack.order(client_order_id="waited")  # taken before it was clear that nobody answers
        assert waiting.status_code == 504
        deadline = time.monotonic() + 60
        refused = waiting
        while refused.status_code != 503 and time.monotonic() < deadline:
            refused = stack.order(client_order_id="refused")
        assert refused.json()["code"] == "ledger_unavailable"
    finally:
        server.resume()
    stack.wait_ready()
    again = stack.order(client_order_id="waited")
    assert (again.status_code, again.json()["status"]) == (200, "open")
    assert [o["client_order_id"] for o in stack.orders(limit=1000)].count("waited") == 1
