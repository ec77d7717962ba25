"""What a load leaves in a stack: nothing, or a word of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import msgspec
import numpy as np
import psutil
import pytest

from tests.conftest import Valkey
from tests.gateway_fixtures import Running, running_gateway
from tvops.bench.doors import DOORS, taking_back
from tvops.bench.doors.base import come_true
from tvops.bench.doors.redis import Redis, RedisOptions
from tvops.bench.doors.rest_orders import RestOrders
from tvops.bench.doors.taking_back import TakingBack
from tvops.bench.doors.websocket_orders import WebsocketOrders
from tvops.bench.open_orders import left_behind
from tvops.bench.plan import Load, Plan
from tvops.bench.samples import Samples
from tvops.engine.bus.roles import Bus

ORDER_DOORS = ["rest_orders", "websocket_orders"]


def door_of(name: str, url: str, count: int) -> RestOrders | WebsocketOrders:
    """Give a door that can send so many new orders."""
    kind = DOORS[name]
    assert issubclass(kind, RestOrders | WebsocketOrders)
    plan = Plan(load=Load(door=name), url=url, phases=(), warm_up=0, seconds=1, seed=1, core=None, clean_up=True)
    options = msgspec.convert({"mix": {"new": 1}}, kind.options_type)
    return kind(plan, options, Samples(np.zeros(count, np.int64)))  # type: ignore[arg-type]


async def resting(gateway: Running) -> set[str]:
    """Give the client ids of the orders that rest."""
    answer = await gateway.client.get("/v1/orders", params={"status": "live", "limit": 1000})
    return {order["client_order_id"] for order in answer.json()["orders"]}


@pytest.mark.parametrize("name", ORDER_DOORS)
async def test_a_stack_that_takes_few_commands_a_second_is_asked_again(bus: Bus, name: str) -> None:
    async with running_gateway(bus, rate_limit=40) as gateway:  # of which it takes 80 at once
        door = door_of(name, f"http://127.0.0.1:{gateway.port}", 60)
        await door.open()
        for number in range(60):
            door.send(number)
        door.used = 60
        assert await come_true(lambda: door.pending == 0, 60)
        assert door.answered == len(await resting(gateway)) == 60
        await door.close()
        assert door.left is None
        assert await resting(gateway) == set()


@pytest.mark.parametrize("name", ORDER_DOORS)
async def test_orders_that_are_under_way_are_taken_back_when_they_have_come(bus: Bus, name: str) -> None:
    async with running_gateway(bus) as gateway:
        door = door_of(name, f"http://127.0.0.1:{gateway.port}", 40)
        await door.open()
        for number in range(40):
            door.send(number)
        door.used = 40
        await door.close()  # as an interrupt does: nothing has been answered yet
        assert door.left is None
        await asyncio.sleep(0.2)
        assert await resting(gateway) == set()


@pytest.mark.parametrize("name", ORDER_DOORS)
@pytest.mark.parametrize(("limit", "stopped"), [("taking_back._SECONDS", False), ("base._STOPPED_SECONDS", True)])
async def test_orders_that_stay_are_told(
    bus: Bus, name: str, limit: str, stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"tvops.bench.doors.{limit}", 0.2)
    monkeypatch.setattr("tvops.engine.gateway.limits.BURST_SECONDS", 2e9)
    async with running_gateway(bus, rate_limit=1e-9) as gateway:  # two at once, and then no other for years
        url = f"http://127.0.0.1:{gateway.port}"
        door = door_of(name, url, 2)
        await door.open()
        for number in range(2):
            door.send(number)
        door.used = 2
        assert await come_true(lambda: door.pending == 0, 60)
        if stopped:
            asyncio.get_running_loop().call_later(0.05, door.hurry)
        await door.close()
        assert door.left is not None
        assert door.left.count == len(await resting(gateway)) == 2
        (check,) = left_behind(name, door.left)
        assert not check.met
        assert check.detail == f"2 orders with client ids {door.flow.run}-* may still rest at {url}"


@pytest.mark.parametrize(
    ("answers", "seen"),
    [([200], 1), ([409], 1), ([404, 404], 2), ([404, 200], 2), ([429, 503, 200], 3), ([500, 404, 404], 3)],
    ids=str,
)
async def test_an_order_is_cancelled_until_it_is_gone(
    answers: list[int], seen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_back, "_AGAIN_SECONDS", 0.01)
    sent = []

    def send(number: int, order: str) -> None:
        sent.append(order)
        asyncio.get_running_loop().call_soon(lambda: orders.answered(number, answers[len(sent) - 1]))

    orders = TakingBack(["one"], send, lambda: False)
    assert await orders.carry_out(lambda: True) == 0
    assert sent == ["one"] * seen


async def test_that_there_is_no_such_order_counts_when_nothing_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(taking_back, "_AGAIN_SECONDS", 0.01)
    sent = []

    def send(number: int, order: str) -> None:
        sent.append(order)
        asyncio.get_running_loop().call_soon(lambda: orders.answered(number, 404))

    orders = TakingBack(["one"], send, lambda: len(sent) < 4)
    assert await orders.carry_out(lambda: True) == 0
    assert sent == ["one"] * 5


@pytest.mark.parametrize("connections", [[True], [True, False, True]])
async def test_a_process_that_stood_still_has_lost_no_connection(
    connections: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=10.0)  # it stands still between any two looks
    monkeypatch.setattr(taking_back, "monotonic", lambda: next(clock))
    monkeypatch.setattr(taking_back, "_SECONDS", 1000.0)
    monkeypatch.setattr(taking_back, "_AWAY_SECONDS", 15.0)
    answers, looks = iter([503, 200]), itertools.chain(connections, itertools.repeat(True))

    def send(number: int, order: str) -> None:
        asyncio.get_running_loop().call_soon(lambda: orders.answered(number, next(answers)))

    orders = TakingBack(["one"], send, lambda: False)
    assert await orders.carry_out(lambda: next(looks)) == 0


async def test_without_a_connection_it_is_given_up_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking_back, "_AWAY_SECONDS", 0.02)
    assert (
        await TakingBack(["one", "two"], lambda number, order: None, lambda: False).carry_out(lambda: False) == 2
    )


async def test_a_generator_that_is_killed_says_what_may_rest(bus: Bus) -> None:
    async with running_gateway(bus) as gateway:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tvops", "bench", "orders", "--rate", "50", "--seconds", "20", "--warm-up", "0",
            "--gateway", f"http://127.0.0.1:{gateway.port}",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            while not (found := await resting(gateway)):
                await asyncio.sleep(0.05)
        (generator,) = psutil.Process(process.pid).children()
        os.kill(generator.pid, signal.SIGKILL)
        _, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 1
        run = found.pop().rpartition("-")[0]
        assert err.decode().splitlines()[-1] == (
            f"tvops: rest_orders: the generator ended with -9; up to 1,000 orders with client ids {run}-* "
            f"may still rest at http://127.0.0.1:{gateway.port}"
        )


async def test_keys_that_stay_are_told(start_server: Callable[..., Valkey]) -> None:
    server = start_server()
    load = Load(door="redis")
    plan = Plan(load=load, url=server.url, phases=(), warm_up=0, seconds=1, seed=1, core=None, clean_up=True)
    door = Redis(plan, RedisOptions(), Samples(np.zeros(1, np.int64)))
    await door.open()
    server.kill()
    await door.close()
    assert door.left == door.traces
    assert door.prefix in door.traces.what
