"""Embedded servers: real processes that get killed, left over, misconfigured."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from redis.exceptions import RedisError

from tvops.engine.bus.roles import ROLES, Bus
from tvops.engine.bus.servers import EmbeddedServers
from tvops.errors import HeldError, ServerError, SettingsError
from tvops.settings import Settings


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[EmbeddedServers, Bus]]:
    servers = EmbeddedServers(settings)
    urls = await servers.start()
    watch = asyncio.create_task(servers.supervise())
    try:
        bus = await Bus.connect(settings, urls)
        try:
            yield servers, bus
        finally:
            await bus.close()
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await servers.stop()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path / "data"))


async def pids_other_than(servers: EmbeddedServers, old: list[int]) -> list[int]:
    while len(pids := servers.pids()) < 3 or set(pids) & set(old) or servers.health().state != "ok":
        await asyncio.sleep(0.02)
    return pids


def cwd(pid: int) -> str:
    return str(Path(f"/proc/{pid}/cwd").readlink())


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_roles_get_their_policy_and_persistence_and_no_port(settings: Settings) -> None:
    async with running(settings) as (servers, bus):
        for role in ROLES.values():
            config = await getattr(bus, role.name).config_get("*")
            assert config["maxmemory-policy"] == role.policy
            assert config["appendonly"] == ("yes" if role.durable else "no")
            assert config["port"] == "0"
            folder = Path(config["dir"])
            assert folder == settings.data_path / "valkey" / role.name
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            for name in ("valkey.conf", "valkey.log", "server.lock", "server.pid"):
                assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
            assert Path(config["unixsocket"]).parent.stat().st_mode & 0o077 == 0
        assert (await bus.ledger.config_get("appendfsync"))["appendfsync"] == "always"
        pids = servers.pids()
        assert all(os.getsid(pid) == pid for pid in pids)
    assert not any(alive(pid) for pid in pids)


async def test_killed_servers_come_back_with_the_ledger(settings: Settings) -> None:
    async with running(settings) as (servers, bus):
        await bus.ledger.xadd("ledger:{0}", {"p": b"kept"}, id="1-0")
        await bus.market.set("gone", b"1")
        old = servers.pids()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        await pids_other_than(servers, old)
        assert await bus.ledger.xrange("ledger:{0}") == [(b"1-0", {b"p": b"kept"})]
        assert await bus.market.get("gone") is None


async def test_no_acknowledged_append_is_lost_when_the_server_is_killed(settings: Settings) -> None:
    async with running(settings) as (servers, bus):
        acknowledged = []
        kills = 0
        for seq in range(1, 600):
            try:
                await bus.ledger.xadd("ledger:{0}", {"p": b"%d" % seq}, id=f"{seq}-0")
                acknowledged.append(seq)
            except RedisError:
                await asyncio.sleep(0.01)
            if seq % 200 == 100:
                victim = next(pid for pid in servers.pids() if cwd(pid).endswith("/ledger"))
                asyncio.get_running_loop().call_soon(os.kill, victim, signal.SIGKILL)
                kills += 1
        while servers.health().state != "ok":
            await asyncio.sleep(0.02)
        kept = {int(name.split(b"-")[0]) for name, _ in await bus.ledger.xrange("ledger:{0}")}
    assert kills == 3
    assert kept >= set(acknowledged)


SUPERVISOR = """
import asyncio, sys
from tvops.engine.bus.servers import EmbeddedServers
from tvops.settings import Settings

async def main():
    servers = EmbeddedServers(Settings(data_dir=sys.argv[1]))
    await servers.start()
    print(*servers.pids(), flush=True)
    await servers.supervise()

asyncio.run(main())
"""


async def leave_over(settings: Settings) -> list[int]:
    """Give the servers of a supervisor that was killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, settings.data_dir, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    pids = [int(pid) for pid in (await process.stdout.readline()).split()]
    with pytest.raises(HeldError, match=f"process {process.pid} supervises"):
        await EmbeddedServers(settings).start()
    process.kill()
    await process.wait()
    assert len(pids) == 3
    assert all(map(alive, pids))
    return pids


async def test_left_over_servers_are_adopted(settings: Settings) -> None:
    old = await leave_over(settings)
    async with running(settings) as (servers, bus):
        assert sorted(servers.pids()) == sorted(old)
        os.kill(old[0], signal.SIGKILL)
        new = await pids_other_than(servers, old[:1])
        assert set(new) & set(old) == set(old[1:])
        assert {health.state for health in (await bus.health()).values()} == {"ok"}
    assert not any(map(alive, {*old, *new}))


async def test_left_over_servers_with_other_settings_are_replaced(settings: Settings) -> None:
    old = await leave_over(settings)
    async with running(msgspec.structs.replace(settings, ledger_memory_mb=77, valkey_binary="")) as (servers, bus):
        new = servers.pids()
        assert len(set(new) & set(old)) == 2
        assert (await bus.ledger.config_get("maxmemory"))["maxmemory"] == str(77 << 20)
    assert not any(map(alive, {*old, *new}))


async def test_a_hung_left_over_server_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvops.engine.bus.server._ANSWER_SECONDS", 2.0)
    old = await leave_over(settings)
    os.kill(old[0], signal.SIGSTOP)
    said = ""
    try:
        while f"process {old[0]} has the files" not in said:  # another one may be held up for as long
            with pytest.raises(HeldError, match="has the files") as held:
                await EmbeddedServers(settings).start()
            said = str(held.value)
    finally:
        for pid in old:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_two_stacks_run_side_by_side(tmp_path: Path) -> None:
    one, two = Settings(data_dir=str(tmp_path / "a b")), Settings(data_dir=str(tmp_path / "ü'\""))
    async with running(one) as (_, first), running(two) as (_, second):
        await first.market.set("k", b"1")
        assert await second.market.get("k") is None


async def test_a_long_path_gets_a_short_socket(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    settings = Settings(data_dir=str(tmp_path / ("long" * 30)))
    async with running(settings) as (_, bus):
        socket = Path((await bus.market.config_get("unixsocket"))["unixsocket"])
        assert len(str(socket)) <= 107
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert str(socket) in caplog.text
    assert not socket.parent.exists()


async def test_a_torn_ledger_file_is_cut_and_told(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async with running(settings) as (_, bus):
        for seq in (1, 2):
            await bus.ledger.xadd("ledger:{0}", {"p": b"x" * 100}, id=f"{seq}-0")
    (file,) = (settings.data_path / "valkey/ledger/appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 50)
    async with running(settings) as (_, bus):
        assert await bus.ledger.xlen("ledger:{0}") == 1
        assert "cut off" in caplog.text


@pytest.mark.parametrize("tail", [bytes(300), b"\xff\x00garbage" * 30])
async def test_garbage_behind_the_ledger_file_is_cut_and_told(
    settings: Settings, caplog: pytest.LogCaptureFixture, tail: bytes
) -> None:
    async with running(settings) as (_, bus):
        for seq in (1, 2):
            await bus.ledger.xadd("ledger:{0}", {"p": b"x" * 100}, id=f"{seq}-0")
    (file,) = (settings.data_path / "valkey/ledger/appendonlydir").glob("*.incr.aof")
    with file.open("ab") as damaged:
        damaged.write(tail)
    async with running(settings) as (_, bus):
        assert await bus.ledger.xlen("ledger:{0}") == 2
    assert f"cut {len(tail)} damaged bytes" in caplog.text
    assert file.with_name(f"{file.name}.cut").read_bytes() == tail


# redis-py loses a connection that is being made when its task is cancelled, as happens to the other servers
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_broken_ledger_file_is_an_error_that_says_so(settings: Settings) -> None:
    async with running(settings) as (_, bus):
        for seq in (1, 2, 3):
            await bus.ledger.xadd("ledger:{0}", {"p": b"x" * 100}, id=f"{seq}-0")
    (file,) = (settings.data_path / "valkey/ledger/appendonlydir").glob("*.incr.aof")
    data = bytearray(file.read_bytes())
    data[len(data) // 3] = ord("$")
    file.write_bytes(data.replace(b"*5", b"?5"))
    servers = EmbeddedServers(settings)
    with pytest.raises(ServerError, match=r"ledger server: does not run: .*Bad file format.*valkey.log"):
        await servers.start()
    assert servers.pids() == []
    gc.collect()  # here, where that is known, and not in the middle of some other test


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (None, 0, "there is no such program"),
        ("", 0o600, "cannot be executed"),
        ("#!/bin/sh\necho hello", 0o700, "neither"),
        ("no interpreter", 0o700, "does not run"),
        ("#!/bin/sh\necho Redis server v=6.2.14 sha=0:0 malloc=libc bits=64", 0o700, "Redis 6.2.14 is too old"),
    ],
)
async def test_a_wrong_binary_is_refused(
    settings: Settings, tmp_path: Path, content: str | None, mode: int, reason: str
) -> None:
    program = tmp_path / "server"
    if content is not None:
        program.write_text(content)
        program.chmod(mode)
    servers = EmbeddedServers(msgspec.structs.replace(settings, valkey_binary=str(program)))
    with pytest.raises(SettingsError, match=reason) as error:
        await servers.start()
    assert "\n" not in str(error.value)


async def test_a_binary_that_does_not_start_is_an_error(settings: Settings, tmp_path: Path) -> None:
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\n[ $1 = --version ] && echo 'Redis server v=7.0.1' || { echo no luck; exit 3; }")
    program.chmod(0o700)
    with pytest.raises(ServerError, match=r"does not run: no luck \(exit code 3\); see"):
        await EmbeddedServers(msgspec.structs.replace(settings, valkey_binary=str(program))).start()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs a redis-server on PATH")
async def test_redis_takes_our_configuration(settings: Settings) -> None:
    async with running(msgspec.structs.replace(settings, valkey_binary="redis-server")) as (_, bus):
        info = await bus.ledger.info("server")
        assert "valkey_version" not in info


async def test_the_log_is_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(settings):
        pass
    log = settings.data_path / "valkey/ledger/valkey.log"
    monkeypatch.setattr("tvops.engine.bus.server_log.MAX_LOG_BYTES", 100)
    size = log.stat().st_size
    async with running(settings):
        assert log.with_suffix(".log.1").stat().st_size == size


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
async def test_a_full_disk_is_an_error_not_a_loss(settings: Settings) -> None:
    settings.data_path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", settings.data_dir]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small file system")
    acknowledged = []
    try:
        async with running(settings) as (_, bus):
            try:
                for seq in range(1, 100):
                    await bus.ledger.xadd("ledger:{0}", {"p": os.urandom(20_000)}, id=f"{seq}-0")
                    acknowledged.append(seq)
            except RedisError:
                pass
            assert 5 < len(acknowledged) < 50
        (settings.data_path / "valkey/market/valkey.log").unlink()
        subprocess.run(["mount", "-o", "remount,size=2m", settings.data_dir], check=True)
        async with running(settings) as (_, bus):
            kept = [int(name.split(b"-")[0]) for name, _ in await bus.ledger.xrange("ledger:{0}")]
            assert kept[: len(acknowledged)] == acknowledged
    finally:
        subprocess.run(["umount", settings.data_dir], check=True)


async def test_a_failed_start_leaves_the_sockets_of_left_over_servers(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path / ("long" * 30)))
    old = await leave_over(settings)
    try:
        with pytest.raises(SettingsError, match="results_memory_mb"):
            await EmbeddedServers(msgspec.structs.replace(settings, results_memory_mb=1)).start()
        async with running(settings) as (servers, _):
            assert sorted(servers.pids()) == sorted(old)
    finally:
        for pid in old:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
