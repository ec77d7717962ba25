"""Which servers the bus takes for which role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis as SyncRedis

from tvops.engine.bus.fitness import _check_any, _Facts
from tvops.engine.bus.roles import Bus, shown_url
from tvops.errors import ServerError, SettingsError, UnfitServerError
from tvops.settings import Settings

PATIENT = Settings(redis_connect_timeout=60.0, redis_socket_timeout=60.0)  # takes no stall for a reason
GOOD = ("--appendonly", "yes", "--appendfsync", "always")


async def refusal(urls: dict[str, str], **changes: str) -> str:
    with pytest.raises((ServerError, SettingsError)) as error:
        await Bus.connect(PATIENT, {**urls, **changes})
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "appendonly is no: it would lose acknowledged orders when it restarts; CONFIG SET appendonly yes"),
        (("--appendonly", "yes"), "appendfsync is everysec: it would lose the last acknowledged orders"),
        (("--appendonly", "yes", "--appendfsync", "no"), "appendfsync is no: it would lose"),
        ((*GOOD, "--maxmemory-policy", "allkeys-lru"), "maxmemory-policy is allkeys-lru: it would evict"),
        ((*GOOD, "--no-appendfsync-on-rewrite", "yes"), "no-appendfsync-on-rewrite is yes"),
        ((*GOOD, "--replicaof", "127.0.0.1", "1"), "is a replica"),
        ((*GOOD, "--user", "default", "on", "nopass", "~*", "+@all", "-config"), "allow CONFIG GET"),
        ((*GOOD, "--user", "default", "on", "nopass", "~*", "+@all", "-info"), "lacks a right"),
        ((*GOOD, "--requirepass", "secret"), "refuses user or password of its URL: Authentication required"),
    ],
)
async def test_an_unfit_ledger_is_refused(
    role_urls: dict[str, str], start_server: Callable[..., Any], arguments: tuple[str, ...], reason: str
) -> None:
    message = await refusal(role_urls, ledger=start_server(*arguments).url)
    assert message.startswith("ledger server unix://")
    assert reason in message


async def test_a_password_is_used_and_never_shown(
    role_urls: dict[str, str], start_server: Callable[..., Any]
) -> None:
    url = start_server(*GOOD, "--requirepass", "secret").url
    bus = await Bus.connect(PATIENT, {**role_urls, "ledger": url.replace("unix://", "unix://:secret@")})
    await bus.close()
    message = await refusal(role_urls, ledger=url.replace("unix://", "unix://:secret2@"))
    assert "refuses user or password" in message


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1", "unix://:secret@/nowhere/s"])
async def test_a_server_that_is_away_is_named(role_urls: dict[str, str], url: str) -> None:
    for role in ("ledger", "market"):
        assert shown_url(url) in await refusal(role_urls, **{role: url})


@pytest.mark.parametrize(
    "url", ["http://:secret@localhost", "secret", "redis://:secret@localhost:99999", "redis://:secret@a:x"]
)
async def test_a_wrong_url_is_refused(role_urls: dict[str, str], url: str) -> None:
    await refusal(role_urls, results=url)


async def test_a_shared_ledger_is_refused(role_urls: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    message = await refusal(role_urls, market=role_urls["ledger"])
    assert "is also the market server" in message
    bus = await Bus.connect(PATIENT, {**role_urls, "results": role_urls["market"]})
    await bus.close()
    assert "maxmemory-policy is allkeys-lru, better is volatile-lru" in caplog.text
    assert "is also the results server" in caplog.text


@pytest.mark.parametrize("version", ["6.2.14", "", "x.y"])
def test_an_old_server_is_refused(version: str) -> None:
    with pytest.raises(UnfitServerError, match="too old"):
        _check_any("market server", _Facts({"redis_version": version, "role": "master"}, None))


async def test_figures_and_health_tell_of_a_dead_server(
    role_urls: dict[str, str], start_server: Callable[..., Any]
) -> None:
    url = start_server().url
    bus = await Bus.connect(PATIENT, {**role_urls, "market": url})
    assert (await bus.figures())["market"]["memory"] > 0
    with SyncRedis.from_url(url) as client:
        client.shutdown(nosave=True)
    health = await bus.health()
    assert {name for name, state in health.items() if state.state == "ok"} == {"ledger", "results"}
    assert "market server does not answer" in health["market"].detail
    assert set(await bus.figures()) == {"ledger", "results"}
    await bus.close()
