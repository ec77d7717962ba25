"""Socket options on real sockets: what an accepted connection has, and what is said of it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gateway_fixtures import running_gateway
from tests.stream_client import client, serving
from tvops.engine.bus.roles import Bus
from tvops.engine.socket_tuning import DEFAULTS, OPTIONS, SocketOptions, default_value, unconnected_effects
from tvops.engine.stack_tuning import Effect, settled
from tvops.settings import Settings
from tvops.tuning.catalogue import load_catalogue

WISHES = {
    "TCP_NODELAY": "1", "TCP_USER_TIMEOUT": "9000", "TCP_NOTSENT_LOWAT": "16384", "TCP_THIN_LINEAR_TIMEOUTS": "1",
    "TCP_KEEPIDLE": "10", "TCP_KEEPINTVL": "1", "TCP_KEEPCNT": "3", "SO_KEEPALIVE": "1", "SO_RCVBUF": "65536",
    "SO_SNDBUF": "65536", "SO_TIMESTAMPNS": "1", "IP_TOS": "184", "SO_PRIORITY": "6",
}  # fmt: skip


@contextmanager
def accepted(options: SocketOptions, adopt: bool = True, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """Give a connection that a listener with the options has accepted."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        options.prepare(listener)
        listener.bind((host, 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2]):
            connection, _ = listener.accept()
            with connection:
                if adopt:
                    options.adopt(connection)
                yield connection


def got(connection: socket.socket, name: str) -> int:
    return connection.getsockopt(OPTIONS[name].level, OPTIONS[name].number)


@pytest.mark.parametrize("name", list(WISHES))
def test_an_option_of_the_listener_is_one_of_the_connection(name: str) -> None:
    with accepted(SocketOptions("gateway", {name: WISHES[name]})) as connection:
        assert got(connection, name) == int(WISHES[name]) * (2 if OPTIONS[name].buffer else 1)


@pytest.mark.parametrize("name", list(WISHES))
def test_what_is_said_to_be_inherited_is(name: str) -> None:
    with accepted(SocketOptions("gateway", {name: WISHES[name]}), adopt=False) as connection:
        inherited = got(connection, name) == int(WISHES[name]) * (2 if OPTIONS[name].buffer else 1)
        assert inherited == OPTIONS[name].inherited


def test_all_of_them_at_once_are_in_force_and_said_to_be() -> None:
    effects = {e.name: e for e in SocketOptions("gateway", WISHES).try_out("127.0.0.1")}
    in_force, left = settled(effects.values())
    assert {e.name: e.got for e in in_force} == WISHES
    assert left == []
    assert "TCP does not adjust it" in effects["SO_SNDBUF"].reason
    assert effects["TCP_CONGESTION"].state == "left"
    assert effects["TCP_CONGESTION"].got


def test_over_ipv6_the_traffic_class_is_that_of_ipv6() -> None:
    try:
        with accepted(SocketOptions("gateway", {"IP_TOS": "184"}), host="::1") as connection:
            assert connection.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 184
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert settled(SocketOptions("gateway", {"IP_TOS": "184"}).try_out("::"))[1] == []


@pytest.mark.parametrize("name, ceiling", [("SO_RCVBUF", "rmem_max"), ("SO_SNDBUF", "wmem_max")])
def test_a_buffer_above_the_ceiling_is_told_with_the_ceiling(name: str, ceiling: str) -> None:
    most = int(Path(f"/proc/sys/net/core/{ceiling}").read_text())
    [effect] = [e for e in SocketOptions("stream", {name: str(most * 2)}).try_out("127.0.0.1") if e.name == name]
    assert (effect.state, effect.got) == ("clamped", str(most))
    assert f"net.core.{ceiling} allows {most}" in effect.reason


@pytest.mark.parametrize(
    "name, value, reason",
    [
        ("TCP_QUICKACK", "1", "every read"),
        ("TCP_NODELAY", "0", "always switches it on"),
        ("TCP_CONGESTION", "nope", "No such file"),
        ("TCP_NOTSENT_LOWAT", "much", "'much' is not a value"),
        ("SO_SNDBUF", str(1 << 40), "is not a value"),
        ("TCP_KEEPIDLE", "0", "Invalid argument"),
        ("SO_NOTHING", "1", "no such socket option"),
    ],
)
def test_what_cannot_be_is_told_and_the_rest_is_in_force(name: str, value: str, reason: str) -> None:
    in_force, left = settled(SocketOptions("gateway", {name: value, "SO_KEEPALIVE": "1"}).try_out("127.0.0.1"))
    assert [effect.name for effect in in_force] == ["SO_KEEPALIVE"]
    assert [(effect.name, effect.state) for effect in left] == [(name, "unsupported")]
    assert reason in left[0].reason


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nobody_is_told_which_privilege_is_missing() -> None:
    code = (
        "import encodings.idna,os;from tvops.engine.socket_tuning import SocketOptions;import msgspec;"
        "os.setgroups([]);os.setresgid(65534,65534,65534);os.setresuid(65534,65534,65534);"
        "wishes={'SO_PREFER_BUSY_POLL':'1','SO_PRIORITY':'7','SO_KEEPALIVE':'1'};"
        "print(msgspec.json.encode(SocketOptions('gateway',wishes).try_out('127.0.0.1')).decode())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout
    in_force, left = settled(msgspec.json.decode(out, type=list[Effect]))
    assert [effect.name for effect in in_force] == ["SO_KEEPALIVE"]
    assert {effect.name: effect.state for effect in left} == {
        "SO_PREFER_BUSY_POLL": "denied", "SO_PRIORITY": "denied",
    }  # fmt: skip
    assert all("CAP_NET_ADMIN" in effect.reason for effect in left)


def test_a_unix_socket_is_not_asked_for_what_it_has_not() -> None:
    options = SocketOptions("redis", {"TCP_NODELAY": "1", "SO_SNDBUF": "65536", "TCP_KEEPIDLE": "5"})
    one, other = socket.socketpair()
    with one, other:
        assert options.prepare(one) == {}
        effects = {effect.name: effect for effect in options.effects(one, {})}
    assert (effects["SO_SNDBUF"].state, effects["SO_SNDBUF"].got) == ("applied", "65536")
    assert effects["TCP_NODELAY"].state == effects["TCP_KEEPIDLE"].state == "left"
    assert [effect.name for effect in settled(effects.values())[0]] == ["SO_SNDBUF"]


def test_feeds_without_a_socket_say_so() -> None:
    [effect] = unconnected_effects("feed", {"SO_RCVBUF": "8388608"}, "no feed has a socket")
    assert (effect.state, effect.target, effect.reason) == ("unsupported", "feed", "no feed has a socket")


def test_every_socket_knob_of_the_catalogue_is_an_option_here() -> None:
    knobs = [knob for knob in load_catalogue().values() if knob.kind == "socket"]
    assert {knob.where for knob in knobs} == set(OPTIONS)
    for knob in knobs:
        assert default_value(knob.where) is not None, knob.where


# The services


async def test_the_gateway_has_them_on_its_connections(bus: Bus) -> None:
    async with running_gateway(bus, options=SocketOptions("gateway", WISHES)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.settings.gateway_port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert b"200" in await reader.readline()
        assert running.service._server is not None
        [connection] = running.service._server.connections
        accepted = connection.transport.get_extra_info("socket")
        for name, value in WISHES.items():
            assert got(accepted, name) == int(value) * (2 if OPTIONS[name].buffer else 1), name
        writer.close()


async def test_market_data_bounds_what_the_kernel_holds_also_by_default(bus: Bus) -> None:
    async with serving(bus) as service, client(service):
        [session] = service._hub.sessions.values()
        connection = session.transport.underlying_transport.get_extra_info("socket")
        assert got(connection, "SO_SNDBUF") == 2 * int(DEFAULTS["stream"]["SO_SNDBUF"]) == 256 * 1024


async def test_connections_to_a_server_have_them_over_tcp(
    start_server: Callable[..., Any], role_urls: dict[str, str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start_server("--port", str(port), "--maxmemory-policy", "volatile-lru")
    urls = {**role_urls, "results": f"redis://127.0.0.1:{port}"}
    bus = await Bus.connect(Settings(), urls, SocketOptions("redis", {"TCP_USER_TIMEOUT": "7000"}))
    try:
        await bus.results.ping()
        connection = await bus.results.connection_pool.get_connection()
        opened = connection._writer.get_extra_info("socket")
        defaults = {name: int(value) for name, value in DEFAULTS["redis"].items()}
        assert {name: got(opened, name) for name in defaults} == defaults
        assert got(opened, "TCP_USER_TIMEOUT") == 7000
        await bus.results.connection_pool.release(connection)
        effects = bus.socket_effects()
    finally:
        await bus.close()
    in_force, left = settled(effects)
    assert [(e.name, e.got) for e in in_force] == [("TCP_USER_TIMEOUT", "7000")]
    assert left == []
    assert sum(e.name == "TCP_USER_TIMEOUT" and e.state == "left" for e in effects) == 1  # the unix sockets
