"""The order gateway as its REST clients meet it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.gateway_fixtures import Running, running_gateway
from tvops.engine.bus.roles import Bus
from tvops.errors import HeldError


@pytest_asyncio.fixture
async def gateway(bus: Bus) -> AsyncIterator[Running]:
    async with running_gateway(bus) as running:
        yield running


def code(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert {"type", "title", "detail", "code"} <= set(problem)
    return str(problem["code"])


async def test_an_order_is_answered_found_and_cancelled(gateway: Running) -> None:
    response = await gateway.order(client_order_id="one", price="59000", quantity="0.1")
    assert response.status_code == 201
    placed = response.json()
    assert placed["status"] == "open"
    assert (placed["price"], placed["quantity"], placed["open_quantity"]) == ("59000.00", "0.10000", "0.10000")
    assert placed["fills"] == []
    shown = {key: value for key, value in placed.items() if key != "fills"}
    assert (await gateway.client.get(f"/v1/orders/{placed['order_id']}")).json() == shown
    assert (await gateway.client.get("/v1/orders/client:one")).json() == shown
    cancelled = (await gateway.client.delete("/v1/orders/client:one")).json()
    assert (cancelled["status"], cancelled["reason"], cancelled["open_quantity"]) == (
        "cancelled",
        "user",
        "0.00000",
    )
    again = await gateway.client.delete("/v1/orders/client:one")
    assert (again.status_code, code(again)) == (409, "order_not_open")


async def test_trades_show_in_orders_executions_and_positions(gateway: Running) -> None:
    await gateway.order(side="sell", price="100.50", quantity="0.2")
    await gateway.order(side="sell", price="100.60", quantity="0.2")
    await gateway.order(side="buy", price="100", quantity="1")
    taken = (await gateway.order(side="buy", price="101", quantity="0.3", self_trade="allow")).json()
    assert (taken["status"], taken["filled_quantity"]) == ("filled", "0.30000")
    assert taken["average_price"] == "100.533333"
    assert [fill["price"] for fill in taken["fills"]] == ["100.50", "100.60"]
    listed = (await gateway.client.get("/v1/executions", params={"symbol": "BTC-USDT"})).json()["executions"]
    assert len(listed) == 4
    assert {fill["liquidity"] for fill in listed} == {"maker", "taker"}
    page = (await gateway.client.get("/v1/executions", params={"before": listed[1]["trade_id"]})).json()
    assert [fill["trade_id"] for fill in page["executions"]] == [listed[2]["trade_id"], listed[3]["trade_id"]]
    positions = (await gateway.client.get("/v1/positions")).json()["positions"]
    assert [p["symbol"] for p in positions] == ["BTC-USDT"]
    assert positions[0]["quantity"] == "0.00000"
    assert positions[0]["mid_price"] == "100.30"
    book = (await gateway.client.get("/v1/book/BTC-USDT", params={"depth": 1})).json()
    assert book["bids"] == [["100.00", "1.00000", 1]]
    assert book["asks"] == [["100.60", "0.10000", 1]]


async def test_a_repeated_order_gets_the_first_answer(gateway: Running) -> None:
    first = await gateway.order(client_order_id="twice")
    again = await gateway.order(client_order_id="twice", quantity="7")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.json() == first.json()
    refused = await gateway.order(client_order_id="refused", quantity="101")
    repeated = await gateway.order(client_order_id="refused", quantity="1")
    assert (refused.status_code, code(refused)) == (422, "max_order_quantity")
    assert repeated.json() == refused.json()
    assert repeated.headers["idempotent-replayed"] == "true"
    assert refused.json()["order_id"]


async def test_what_the_engine_refuses_carries_its_reason(gateway: Running) -> None:
    assert code(await gateway.order(price="0")) == "bad_price"
    assert code(await gateway.order(quantity="0")) == "bad_quantity"
    await gateway.order(side="sell", price="100")
    assert code(await gateway.order(price="100", post_only=True)) == "post_only"
    killed = await gateway.order(order_type="market", price=None, quantity="0.5", time_in_force="FOK")
    assert (killed.status_code, killed.json()["status"]) == (201, "cancelled")
    assert killed.json()["reason"] == "fill_or_kill"


async def test_amend_changes_price_and_total_quantity(gateway: Running) -> None:
    order = (await gateway.order(price="100", quantity="1", client_order_id="a")).json()
    await gateway.order(side="sell", price="100", quantity="0.4", self_trade="allow")
    url = f"/v1/orders/{order['order_id']}"
    amended = (await gateway.client.patch(url, json={"quantity": "0.7"})).json()
    assert (amended["quantity"], amended["filled_quantity"], amended["open_quantity"]) == (
        "0.70000", "0.40000", "0.30000",
    )  # fmt: skip
    amended = (await gateway.client.patch(url, json={"price": "99.5"})).json()
    assert (amended["price"], amended["open_quantity"]) == ("99.50", "0.30000")
    for body, expected in (
        ({}, "missing_field"), ({"quantity": "0.4"}, "invalid_quantity"), ({"price": "1.001"}, "invalid_price"),
        ({"price": "99.5"}, "nothing_to_amend"), ({"price": 1}, "number_not_string"),
        ({"side": "buy"}, "unknown_field"),
    ):  # fmt: skip
        assert code(await gateway.client.patch(url, json=body)) == expected, body


async def test_an_amend_that_crosses_with_a_fill_does_not_overfill(gateway: Running) -> None:
    order = (await gateway.order(price="100", quantity="1")).json()
    url = f"/v1/orders/{order['order_id']}"
    # Both are in flight before either is applied: the fill comes first, the amend was made without knowing it.
    sold, amended = await asyncio.gather(
        gateway.order(side="sell", price="100", quantity="0.4", self_trade="allow"),
        gateway.client.patch(url, json={"quantity": "0.9", "price": "99"}),
    )
    assert sold.json()["filled_quantity"] == "0.40000"
    assert amended.status_code in (200, 422)
    final = (await gateway.client.get(url)).json()
    assert final["filled_quantity"] == "0.40000"
    assert float(final["quantity"]) <= 0.9 or amended.status_code == 422


async def test_mass_cancel_is_narrowed_and_never_by_a_misspelt_filter(gateway: Running) -> None:
    for symbol, side in (("BTC-USDT", "buy"), ("BTC-USDT", "sell"), ("ETH-USDT", "buy")):
        await gateway.order(symbol=symbol, side=side, price="100" if side == "buy" else "200")
    refused = await gateway.client.delete("/v1/orders", params={"symbl": "BTC-USDT"})
    assert (refused.status_code, code(refused)) == (400, "invalid_parameter")
    assert "symbl" in refused.json()["detail"]
    one = (await gateway.client.delete("/v1/orders", params={"symbol": "BTC-USDT", "side": "sell"})).json()
    assert one["cancelled"] == 1
    assert (await gateway.client.delete("/v1/orders")).json()["cancelled"] == 2
    assert (await gateway.client.get("/v1/orders", params={"status": "live"})).json()["orders"] == []


async def test_a_batch_answers_every_order_in_its_place(gateway: Running) -> None:
    order = {"symbol": "BTC-USDT", "side": "buy", "order_type": "limit", "quantity": "0.01", "price": "100"}
    batch: list[Any] = [
        order,
        {**order, "price": 5},
        {**order, "quantity": "1000"},
        {**order, "client_order_id": "b"},
    ]
    batch += [{**order, "client_order_id": "b"}, "nonsense"]
    response = await gateway.client.post("/v1/orders/batch", json=batch)
    results = response.json()["results"]
    assert [item["status"] for item in results] == [201, 422, 422, 201, 200, 422]
    assert [item.get("problem", {}).get("code") for item in results] == [
        None, "number_not_string", "max_order_quantity", None, None, "invalid_field",
    ]  # fmt: skip
    assert results[4]["replayed"]
    assert results[4]["order"]["order_id"] == results[3]["order"]["order_id"]
    assert len((await gateway.client.get("/v1/orders", params={"status": "live"})).json()["orders"]) == 2
    full = await gateway.client.post("/v1/orders/batch", json=[order] * 1000)
    assert {item["status"] for item in full.json()["results"]} == {201}
    assert code(await gateway.client.post("/v1/orders/batch", json=[order] * 1001)) == "invalid_field"
    assert code(await gateway.client.post("/v1/orders/batch", json=[])) == "invalid_field"


async def test_orders_are_listed_in_pages(gateway: Running) -> None:
    ids = [(await gateway.order(symbol=symbol)).json()["order_id"] for symbol in ["BTC-USDT", "ETH-USDT"] * 3]
    first = (await gateway.client.get("/v1/orders", params={"limit": 4})).json()
    assert [order["order_id"] for order in first["orders"]] == ids[:1:-1]
    second = (await gateway.client.get("/v1/orders", params={"limit": 4, "before": first["next"]})).json()
    assert [order["order_id"] for order in second["orders"]] == ids[1::-1]
    assert second["next"] is None
    only = (await gateway.client.get("/v1/orders", params={"symbol": "ETH-USDT", "status": "open"})).json()
    assert [order["order_id"] for order in only["orders"]] == ids[::-2]


async def test_a_wrong_parameter_is_named(gateway: Running) -> None:
    for query in (
        "limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "status=nope", "before=x", "nope=1", "symbol=%ff",
        "before=" + "9" * 30, "=&=&=",
    ):  # fmt: skip
        response = await gateway.client.get(f"/v1/orders?{query}")
        assert (response.status_code, code(response)) == (400, "invalid_parameter"), query


async def test_a_wrong_order_id_is_not_found(gateway: Running) -> None:
    for name in ("0", "x", "9" * 19, "9" * 60, "client:", "client:" + "x" * 40, "client:%00", "%ff", "-1"):
        for method in ("GET", "DELETE"):
            response = await gateway.client.request(method, f"/v1/orders/{name}")
            assert response.status_code == 404, name
            code(response)


async def test_risk_controls_hold_and_are_lifted(gateway: Running) -> None:
    put = await gateway.client.put("/v1/risk/limits", json={"symbol": "BTC-USDT", "max_order_quantity": "0.5"})
    assert put.status_code == 200
    assert code(await gateway.order(quantity="0.6")) == "max_order_quantity"
    await gateway.client.put("/v1/risk/limits", json={"account": 100, "max_open_orders": 1})
    assert (await gateway.order()).status_code == 201
    assert code(await gateway.order()) == "max_open_orders"
    own = (await gateway.client.get("/v1/risk/limits", params={"account": 100})).json()["limits"]
    assert own == [{"account": 100, "max_open_orders": 1}]
    everybody = (await gateway.client.get("/v1/risk/limits")).json()["limits"]
    btc = next(limit for limit in everybody if limit.get("symbol") == "BTC-USDT")
    assert btc["max_order_quantity"] == "0.50000"
    assert btc["max_order_notional"] == "10000000.0000000"
    killed = (await gateway.client.post("/v1/risk/kill", json={"account": 100, "active": True})).json()
    assert killed == {"ended_orders": 1}
    assert code(await gateway.order()) == "killed"
    await gateway.client.post("/v1/risk/kill", json={"account": 100, "active": False})
    await gateway.client.post("/v1/risk/halt", json={"symbol": "BTC-USDT", "active": True})
    assert code(await gateway.order()) == "halted"
    await gateway.client.post("/v1/risk/halt", json={"symbol": "BTC-USDT", "active": False})
    assert (await gateway.order()).status_code == 201
    assert code(await gateway.client.put("/v1/risk/limits", json={"symbol": "BTC-USDT"})) == "missing_field"
    assert code(await gateway.client.put("/v1/risk/limits", json={"max_position": "1"})) == "missing_field"


async def test_health_stats_metrics_and_config(gateway: Running) -> None:
    assert not [name for name in (await gateway.client.get("/stats")).json() if name.startswith("reply_")]
    await gateway.order()
    health = await gateway.client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert set(health.json()["services"]) == {
        "gateway", "engine", "ledger server", "market server", "results server",
    }  # fmt: skip
    stats = (await gateway.client.get("/stats")).json()
    assert stats["orders_total"] == 1
    assert stats["reply_p99_ms"] > 0
    metrics = (await gateway.client.get("/metrics")).text
    assert "tvops_gateway_orders_total 1.0" in metrics
    assert 'tv_order_execution_latency_bucket{le="+Inf",stage="receive_to_reply"} 1.0' in metrics
    config = (await gateway.client.get("/v1/config")).json()
    assert config["market_port"] == gateway.settings.market_port
    assert config["simulated"] is True
    assert config["symbols"][0] == "BTC-USDT"


async def test_health_says_which_server_is_gone(gateway: Running) -> None:
    gateway.engine.ready = False
    response = await gateway.client.get("/health")
    assert response.status_code == 503
    assert response.json()["services"]["engine"]["state"] == "starting"
    gateway.engine.ready = True


async def test_orders_survive_a_restart(bus: Bus) -> None:
    async with running_gateway(bus) as first:
        order = (await first.order(client_order_id="kept")).json()
    async with running_gateway(bus) as second:
        again = await second.order(client_order_id="kept")
        assert (again.status_code, again.json()["order_id"]) == (200, order["order_id"])


async def test_a_port_in_use_is_told(gateway: Running, bus: Bus) -> None:
    from tvops.engine.gateway.service import GatewayService

    second = GatewayService(gateway.settings, bus, gateway.engine)
    with pytest.raises(HeldError, match=f"{gateway.port}.*--gateway-port"):
        await second.start()
    await second.stop()


async def test_a_stop_answers_what_is_in_flight(bus: Bus) -> None:
    async with running_gateway(bus) as gateway:
        await gateway.order()
        orders = [asyncio.create_task(gateway.order()) for _ in range(20)]
        while gateway.service._entry.waiting < 5:
            await asyncio.sleep(0)
            if all(order.done() for order in orders):  # they came one by one; on their connections they do not
                orders += [asyncio.create_task(gateway.order()) for _ in range(20)]
        await gateway.service.stop()
        answers = await asyncio.gather(*orders, return_exceptions=True)
        statuses = [a.status_code for a in answers if isinstance(a, httpx.Response)]
        assert statuses.count(201) >= 5
        assert set(statuses) <= {201, 503}


async def test_the_rate_limit_says_when_to_come_back(bus: Bus) -> None:
    async with running_gateway(bus, rate_limit=2) as gateway:
        answers = await asyncio.gather(*(gateway.order() for _ in range(20)))
        limited = [answer for answer in answers if answer.status_code == 429]
        assert limited
        assert code(limited[0]) == "rate_limited"
        assert int(limited[0].headers["retry-after"]) >= 1


async def test_an_allowed_site_may_send_orders_and_another_may_not(bus: Bus) -> None:
    async with running_gateway(bus, allowed_origins=("https://desk.example",)) as gateway:
        asked = {"Origin": "https://desk.example", "Access-Control-Request-Method": "POST"}
        preflight = await gateway.client.options("/v1/orders", headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://desk.example"
        assert "x-api-key" in preflight.headers["access-control-allow-headers"]
        seen = await gateway.client.get("/v1/orders", headers={"Origin": "https://desk.example"})
        assert seen.headers["access-control-allow-origin"] == "https://desk.example"
        for origin in ("https://evil.example", "https://desk.example.evil.example", "null", ""):
            refused = await gateway.client.options("/v1/orders", headers={**asked, "Origin": origin})
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers
        behind = await gateway.client.get("/health", headers={"Host": "desk.example"})
        assert behind.status_code == 200


async def test_an_answer_that_does_not_come_is_told_and_comes_again(gateway: Running) -> None:
    waiting = asyncio.create_task(gateway.order(client_order_id="late"))
    while not gateway.service._entry.waiting:
        await asyncio.sleep(0)
    gateway.service._entry.expire(1 << 62)
    response = await waiting
    assert (response.status_code, code(response)) == (504, "fate_unknown")
    assert "same client_order_id" in response.json()["detail"]
    again = await gateway.order(client_order_id="late")
    assert (again.status_code, again.json()["status"]) == (200, "open")
    assert gateway.service._entry.late == 1


async def test_a_swallowed_cancellation_does_not_hold_up_the_stop(bus: Bus) -> None:
    async def swallow_one() -> None:
        with contextlib.suppress(asyncio.CancelledError):  # as redis-py does while it connects
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    async with asyncio.timeout(50), running_gateway(bus) as gateway:
        gateway.service._tasks.append(asyncio.create_task(swallow_one()))
        await asyncio.sleep(0)
