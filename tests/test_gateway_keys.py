"""API keys: made and revoked from the command line, needed by clients, kept as hashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import websockets

from tests.command_line import tvops
from tests.gateway_fixtures import Running, running_gateway
from tvops.engine.bus.roles import Bus
from tvops.engine.gateway.auth import KEYS, KeyRing, create_key, list_keys, revoke_key
from tvops.errors import ServerError, UsageError


@pytest_asyncio.fixture
async def gateway(bus: Bus) -> AsyncIterator[Running]:
    async with running_gateway(bus, api_keys="required") as running:
        yield running


def client_with(gateway: Running, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://localhost:{gateway.port}", headers=headers, timeout=60, verify=False
    )


async def loaded(gateway: Running) -> None:
    await gateway.service._keys.load()


async def test_a_key_opens_its_account_and_no_other(gateway: Running, bus: Bus) -> None:
    assert (await gateway.order()).status_code == 401
    assert (await gateway.client.get("/v1/orders")).headers["www-authenticate"] == "Bearer"
    assert (await gateway.client.get("/stats")).status_code == 401
    for public in ("/health", "/v1/config", "/v1/symbols", "/openapi.json"):
        assert (await gateway.client.get(public)).status_code == 200
    first, stored = await create_key(bus.ledger, "first", admin=False)
    second, _ = await create_key(bus.ledger, "second", admin=False)
    await loaded(gateway)
    async with client_with(gateway, **{"X-API-Key": first}) as one:
        placed = await gateway.order(one)
        assert placed.status_code == 201
        assert (await one.post("/v1/risk/kill", json={"account": "all", "active": True})).status_code == 403
    async with client_with(gateway, Authorization=f"Bearer {second}") as two:
        assert (await two.get(f"/v1/orders/{placed.json()['order_id']}")).status_code == 404
        assert (await two.delete(f"/v1/orders/{placed.json()['order_id']}")).status_code == 404
        assert (await two.delete("/v1/orders")).json()["cancelled"] == 0
        assert (await two.get("/v1/orders")).json()["orders"] == []
    wrong = first[:-1] + ("A" if first[-1] != "A" else "B")
    for headers in ({"X-API-Key": wrong}, {"Authorization": "Basic eA=="}, {"X-API-Key": ""}):
        async with client_with(gateway, **headers) as stranger:
            assert (await stranger.get("/v1/orders")).status_code == 401
    assert stored.account == 101


async def test_an_admin_key_sets_limits(gateway: Running, bus: Bus) -> None:
    key, _ = await create_key(bus.ledger, "boss", admin=True)
    await loaded(gateway)
    async with client_with(gateway, **{"X-API-Key": key}) as boss:
        assert (await boss.post("/v1/risk/halt", json={"symbol": "BTC-USDT", "active": True})).status_code == 200
        assert (await gateway.order(boss)).json()["code"] == "halted"


async def test_a_revoked_key_is_noticed_and_its_session_ended(gateway: Running, bus: Bus) -> None:
    key, stored = await create_key(bus.ledger, "desk", admin=False)
    await loaded(gateway)
    async with gateway.socket(additional_headers={"X-API-Key": key}) as session:
        assert (await session.ask(op="subscribe", id=1))["type"] == "snapshot"
        await revoke_key(bus.ledger, stored.id)
        with pytest.raises(websockets.ConnectionClosed):
            await session.receive()
        assert session.connection.close_reason == "the API key was revoked"
    async with client_with(gateway, **{"X-API-Key": key}) as client:
        assert (await client.get("/v1/orders")).status_code == 401


async def test_a_session_signs_in_with_its_first_message(gateway: Running, bus: Bus) -> None:
    key, _ = await create_key(bus.ledger, "desk", admin=False)
    await loaded(gateway)
    async with gateway.socket() as session:
        refused = await session.ask(op="subscribe", id=1)
        assert refused["error"]["code"] == "unauthorized"
        signed = await session.ask(op="auth", id=2, key=key)
        assert signed["result"] == {"account": 101, "name": "desk", "admin": False}
        assert (await session.ask(op="subscribe", id=3))["type"] == "snapshot"
    async with gateway.socket() as idle:
        gateway.service._sessions.sweep(asyncio.get_running_loop().time() + 1e9)
        with pytest.raises(websockets.ConnectionClosed):
            await idle.receive()


async def test_keys_are_kept_as_hashes_and_accounts_keep_their_numbers(bus: Bus) -> None:
    key, stored = await create_key(bus.ledger, "desk", admin=False)
    fields = await bus.ledger.hgetall(KEYS)
    assert not [value for value in fields.values() if key.encode() in value or key[16:].encode() in value]
    _, again = await create_key(bus.ledger, "desk", admin=True)
    assert again.account == stored.account
    _, demo = await create_key(bus.ledger, "demo", admin=False)
    assert demo.account == 100
    others = await asyncio.gather(*(create_key(bus.ledger, f"n{number % 5}", False) for number in range(20)))
    numbers = {made.name: made.account for _, made in others}
    assert len(set(numbers.values())) == 5
    assert all(made.account == numbers[made.name] for _, made in others)
    assert len(await list_keys(bus.ledger)) == 23


async def test_a_key_ring_ignores_what_is_no_key(bus: Bus) -> None:
    await bus.ledger.hset(KEYS, "key:broken", b"\xff")
    await bus.ledger.hset(KEYS, "version", 5)
    key, _ = await create_key(bus.ledger, "desk", admin=False)
    ring = KeyRing(bus.ledger)
    await ring.load()
    assert ring.account(key) == 101
    assert ring.account(key + "\ud800") is None
    for name in ("", "-x", "a b", "x" * 33, "é"):
        with pytest.raises(UsageError):
            await create_key(bus.ledger, name, admin=False)
    with pytest.raises(UsageError, match="tvops keys list"):
        await revoke_key(bus.ledger, "nope")


def test_the_command_line(role_urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVOPS_LEDGER_URL", role_urls["ledger"])
    made = tvops("keys", "create", "--account", "desk", "--admin")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("tv_")
    assert key not in made.stderr
    listed = tvops("keys", "list").stdout
    assert key not in listed
    assert listed.split()[1:4] == ["desk", "101", "admin"]
    identifier = listed.split()[0]
    assert tvops("keys", "revoke", identifier).returncode == 0
    assert tvops("keys", "list", "--json").stdout.strip() == "[]"
    again = tvops("keys", "revoke", identifier)
    assert again.returncode == 2
    assert "tvops keys list" in again.stderr


def test_the_command_line_without_a_stack(tmp_path: Path) -> None:
    result = tvops("keys", "list", "--data-dir", str(tmp_path / "none"))
    assert result.returncode == ServerError.exit_code
    assert result.stderr.strip().splitlines() == [
        f"tvops: data directory {tmp_path / 'none'}: no stack runs here; start tvops serve first"
    ]
