"""The probes against real processes, sockets and servers, and against what psutil says of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from redis.asyncio import Redis

from tests.conftest import Valkey
from tests.stack import free_port
from tvops.control_groups import group_folders
from tvops.engine.bus.roles import ROLES, Bus
from tvops.engine.telemetry import servers as server_probe
from tvops.engine.telemetry.document import Process
from tvops.engine.telemetry.host_load import HostProbe
from tvops.engine.telemetry.processes import ProcessProbe
from tvops.engine.telemetry.servers import ServerProbe, shown_command
from tvops.engine.telemetry.socket_queues import queued_bytes

WORKER = """
import sys, time
held = [open("/dev/null") for _ in range(7)]
block = bytearray(int(sys.argv[3]) << 20)
print("ready", flush=True)
while sys.argv[4] == "busy":
    pass
time.sleep(600)
"""


def worker(name: str, megabytes: int = 1, what: str = "idle") -> subprocess.Popen[bytes]:
    """Start a process that looks like the worker ``name``; this one is its supervisor."""
    command = [sys.executable, "-c", WORKER, "tvops.engine.worker", name, str(megabytes), what]
    command[3:5] = ["tvops.engine.worker", name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.fixture
def start_worker() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, megabytes: int = 1, what: str = "idle") -> subprocess.Popen[bytes]:
        started.append(worker(name, megabytes, what))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def by_name(probe: ProcessProbe) -> dict[str, Process]:
    return {process.name: process for process in probe.sample()}


def test_a_process_is_as_psutil_sees_it(
    start_worker: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    child = start_worker("market", 40)
    probe = ProcessProbe(tmp_path, os.getpid(), "engine", {"market": 1234})
    told = psutil.Process(child.pid)
    # its first sleep may come at any time, and others may share its pages and cease to
    switches, pss = told.num_ctx_switches().voluntary, told.memory_full_info().pss
    while not (found := by_name(probe)["market"]).pss:
        time.sleep(0.01)
    assert found.pid == child.pid
    assert abs(found.started / 1e9 - told.create_time()) < 1.1
    assert found.rss == pytest.approx(told.memory_info().rss, rel=0.05)
    low, high = sorted((pss, told.memory_full_info().pss))
    assert 0.95 * low <= found.pss <= 1.05 * high
    assert 40 << 20 < found.pss < found.rss
    assert found.threads == told.num_threads()
    assert found.descriptors == told.num_fds() >= 10
    assert switches <= found.voluntary_switches <= told.num_ctx_switches().voluntary
    assert (found.budget, found.slope, found.leaking) == (1234, None, False)


def spent(pid: int) -> int:
    """Give the CPU time that a process has taken, ns (clock_getcpuclockid(3))."""
    return time.clock_gettime_ns(~pid << 3 | 2)


def test_cpu_is_of_one_core(start_worker: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    pids = {"engine": start_worker("engine", 1, "busy").pid, "market": start_worker("market").pid}

    def clocks() -> NDArray[np.int64]:
        """Give what both have spent, and the time that it is."""
        return np.array([*map(spent, pids.values()), time.monotonic_ns()])

    probe = ProcessProbe(tmp_path, os.getpid(), "test")
    before = clocks()
    first = by_name(probe)
    assert [first[name].cpu_percent for name in pids] == [0.0, 0.0], "there is nothing to compare with yet"
    after = clocks()
    while spent(pids["engine"]) < after[0] + 100_000_000:
        time.sleep(0.01)
    least = clocks() - after
    found = by_name(probe)
    most = clocks() - before
    # each process was read between two of our own readings, whatever a busy machine did in between
    for n, name in enumerate(pids):
        assert 100 * least[n] / most[2] <= found[name].cpu_percent <= 100 * most[n] / least[2]
        assert found[name].pid == pids[name]
    assert found["market"].cpu_percent < found["engine"].cpu_percent


def test_processes_that_go_and_come_back(
    start_worker: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    first = start_worker("market")
    probe = ProcessProbe(tmp_path, os.getpid(), "engine")
    assert by_name(probe)["market"].pid == first.pid
    first.kill()
    first.wait()
    assert "market" not in by_name(probe)
    second = start_worker("market")
    found = by_name(probe)["market"]
    assert (found.pid, found.cpu_percent) == (second.pid, 0.0)
    os.kill(second.pid, signal.SIGKILL)
    os.waitid(os.P_PID, second.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert "market" not in by_name(probe)


def test_other_children_and_stale_pid_files_are_not_of_the_stack(tmp_path: Path) -> None:
    folder = tmp_path / "valkey" / "ledger"
    folder.mkdir(parents=True)
    probe = ProcessProbe(tmp_path, os.getpid(), "engine")
    for text in (b"", b"nonsense\n", b"-1", b"999999999", str(os.getpid()).encode()):
        (folder / "server.pid").write_bytes(text)
        probe = ProcessProbe(tmp_path, os.getpid(), "engine")
        with subprocess.Popen(["sleep", "60"]) as other:
            try:
                assert set(by_name(probe)) == {"engine"}
            finally:
                other.kill()
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert set(by_name(ProcessProbe(tmp_path, gone.pid, "engine"))) == {"engine"}


# The host


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


STAT = "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 {} 0 0 {} 50 0 0 {} 7 7\ncpu1 0 0 0 {} 0 0 0 0 0 0\nintr 5\n"
MEMINFO = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 600 kB\n"


def test_cores_are_busy_since_the_last_sample(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/stat": STAT.format(100, 100, 0, 100), "proc/meminfo": MEMINFO})
    probe = HostProbe(root=root)
    assert probe.sample().cores == (0.0, 0.0)
    tree(root, {"proc/stat": STAT.format(130, 160, 10, 200)})
    load = probe.sample()
    assert load.cores == (40.0, 0.0)
    assert load.steal_percent == 5.0
    assert (load.memory, load.available) == (1000 * 1024, 600 * 1024)
    tree(root, {"proc/stat": "cpu0 1 1 1 1 1 1 1 1 0 0\n"})  # a core was taken away
    assert probe.sample().cores == (0.0,)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (1000, 600)),
        ({"memory.max": "max\n", "memory.current": "5\n", "memory.stat": ""}, (1000, 600)),
        (
            {
                "memory.max": "409600\n",
                "memory.current": "307200\n",
                "memory.stat": "anon 1\ninactive_file 102400\n",
            },
            (400, 200),
        ),
        ({"memory.max": "819200\n", "memory.current": "0\n", "memory.stat": ""}, (800, 600)),
        ({"memory.max": "409600\n", "memory.current": "999999\n", "memory.stat": ""}, (400, 0)),
        ({"memory.max": "409600\n"}, (400, 600)),  # nothing is known but the limit
        ({"memory.max": "much\n"}, (1000, 600)),
    ],
)
def test_memory_is_that_of_the_control_group(
    files: dict[str, str], expected: tuple[int, int], tmp_path: Path
) -> None:
    group = "sys/fs/cgroup/stack.slice"
    files = {f"{group}/{name}": text for name, text in files.items()}
    root = tree(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/stack.slice\n", **files})
    load = HostProbe(root=root).sample()
    assert (load.memory // 1024, load.available // 1024) == (expected[0], min(expected))


def test_memory_of_a_v1_group(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory"
    root = tree(tmp_path, {
        "proc/meminfo": MEMINFO, "proc/self/cgroup": "9:name=systemd:/\n8:memory:/a/b\n",
        f"{group}/memory.limit_in_bytes": "9223372036854771712\n", f"{group}/memory.usage_in_bytes": "5\n",
        f"{group}/a/memory.limit_in_bytes": "204800\n", f"{group}/a/memory.usage_in_bytes": "102400\n",
        f"{group}/a/memory.stat": "total_inactive_file 0\n",
    })  # fmt: skip
    load = HostProbe(root=root).sample()
    assert (load.memory, load.available) == (204800, 102400)


def test_folders_of_control_groups() -> None:
    assert group_folders(["0::/a/b"], "memory")[:3] == [
        "/sys/fs/cgroup/unified/a/b", "/sys/fs/cgroup/unified/a", "/sys/fs/cgroup/unified",
    ]  # fmt: skip
    assert group_folders(["3:cpu,cpuacct:/x"], "cpu")[0] == "/sys/fs/cgroup/cpu,cpuacct/x"
    assert group_folders(["3:cpu,cpuacct:/x", "", "nonsense"], "memory") == group_folders(
        ["", "nonsense"], "memory"
    )
    assert all(".." not in folder for folder in group_folders(["0::/../../x"], "memory"))


def test_counters_of_drops(tmp_path: Path) -> None:
    root = tree(tmp_path, {
        "proc/net/snmp": "Tcp: a\nTcp: 1\nUdp: InErrors RcvbufErrors\nUdp: 1 7\n",
        "proc/net/snmp6": "Udp6InErrors 3\nUdp6RcvbufErrors 5\n",
        "proc/net/netstat": "TcpExt: ListenOverflows ListenDrops\nTcpExt: 2 9\n",
    })  # fmt: skip
    load = HostProbe(root=root).sample()
    assert (load.udp_drops, load.listen_drops) == (12, 9)


def test_the_real_host() -> None:
    probe = HostProbe()
    probe.sample()
    load = probe.sample()
    assert len(load.cores) == psutil.cpu_count()
    assert 0 < load.available < load.memory <= psutil.virtual_memory().total
    assert load.socket_queues in (0, None)


def test_an_empty_tree_has_no_host(tmp_path: Path) -> None:
    load = HostProbe(root=tmp_path).sample()
    assert (load.cores, load.memory, load.udp_drops) == ((), 0, 0)


# Sockets


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_bytes_that_nobody_reads_are_counted(family: socket.AddressFamily, host: str) -> None:
    with ExitStack() as sockets:
        server = sockets.enter_context(socket.socket(family))
        try:
            server.bind((host, 0))
        except OSError as error:
            pytest.skip(f"{host}: {error.strerror}")
        server.listen(300)
        port = server.getsockname()[1]
        if queued_bytes((port,)) is None:
            pytest.skip("the kernel does not list sockets (sock_diag)")
        for _ in range(200):
            sockets.enter_context(socket.create_connection((host, port)))
            accepted, _ = server.accept()
            sockets.enter_context(accepted)
        assert queued_bytes((port,)) == 0, "a listener's backlog is not bytes"
        client = sockets.enter_context(socket.create_connection((host, port)))
        accepted, _ = server.accept()
        sockets.enter_context(accepted)
        client.sendall(b"x" * 5000)
        for _ in range(500):
            if queued_bytes((port,)) == 5000:
                break
            time.sleep(0.01)
        assert queued_bytes((port,)) == 5000
        for ports in ((free_port(), port), (port, free_port()), (free_port(), port, free_port())):
            assert queued_bytes(ports) == 5000
        assert queued_bytes((free_port(),)) == queued_bytes(()) == 0
        assert accepted.recv(5000)
        assert queued_bytes((port,)) == 0


# Servers


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (b"SET key secret", "SET (2 more)"),
        (b"ping", "PING"),
        (b"config set requirepass secret", "CONFIG SET (2 more)"),
        (b"CONFIG", "CONFIG"),
        (b"XADD ledger:{0} 1-1 p \xff\xfe bytes", "XADD (5 more)"),
        (b"", ""),
    ],
)
def test_slow_commands_are_shown_without_keys_and_values(command: bytes, shown: str) -> None:
    assert shown_command(command) == shown


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the answer of a server for as long as a busy host may take."""
    monkeypatch.setattr(server_probe, "SECONDS", 60.0)


async def test_servers_tell_of_themselves(bus: Bus) -> None:
    await bus.market.config_set("slowlog-log-slower-than", 0)
    await bus.market.set("account:7", "secret")
    servers = {server.role: server for server in await ServerProbe(bus).sample()}
    await bus.market.config_set("slowlog-log-slower-than", 10_000)
    assert set(servers) == set(ROLES)
    market = servers["market"]
    assert market.up
    assert market.used > 100_000
    assert market.clients >= 1
    assert market.address.startswith("unix:///")
    assert "SET (2 more)" in [command for _, _, command in market.slow]
    assert "secret" not in repr(servers)
    assert "account" not in repr(servers)


async def test_events_of_latency_are_told(bus: Bus) -> None:
    await bus.results.config_set("latency-monitor-threshold", 1)
    await bus.results.eval("local n = 0; for i = 1, 3000000 do n = n + i end return n", 0)
    servers = {server.role: server for server in await ServerProbe(bus).sample()}
    await bus.results.config_set("latency-monitor-threshold", 0)
    await bus.results.latency_reset()
    assert servers["results"].latency_threshold == 1
    [(last, worst)] = [times for event, *times in servers["results"].latency if event == "command"]
    assert worst >= last >= 1


async def test_what_an_access_list_refuses_is_not_known(bus: Bus, start_server: Callable[..., Valkey]) -> None:
    server = start_server()
    admin, careful = Redis.from_url(server.url), Redis.from_url(server.url, username="careful", password="x")
    probe = ServerProbe(bus)
    probe._clients["ledger"] = careful
    try:
        await admin.acl_setuser("careful", enabled=True, passwords=["+x"], commands=["+ping", "+latency", "-info"])
        told = (await probe.sample())[0]
        await admin.acl_setuser("careful", commands=["+info", "+config"])
        known = (await probe.sample())[0]
    finally:
        await admin.aclose()
        await careful.aclose()
    assert told.up
    assert (told.told, told.latency_threshold) == (False, None)
    assert (known.told, known.latency_threshold) == (True, 0)
    assert known.used > 0


@pytest.mark.parametrize("what", ["dead", "hung"])
async def test_a_server_that_does_not_answer_is_down(
    what: str, bus: Bus, start_server: Callable[..., Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server()
    away = Redis.from_url(server.url, socket_timeout=30)
    probe = ServerProbe(bus)
    probe._clients["ledger"] = away
    assert server.process is not None
    try:
        assert (await probe.sample())[0].up
        server.process.send_signal(signal.SIGKILL if what == "dead" else signal.SIGSTOP)
        if what == "dead":
            server.process.wait()
        monkeypatch.setattr(server_probe, "SECONDS", 0.3)
        expected = [("ledger", False), ("market", True), ("results", True)]
        while [(s.role, s.up) for s in await probe.sample()] != expected:
            pass  # a busy host kept the others from an answer in time
        if what == "hung":
            monkeypatch.setattr(server_probe, "SECONDS", 60.0)
            server.process.send_signal(signal.SIGCONT)
            assert (await probe.sample())[0].up, "the connection that was given up does no harm"
    finally:
        server.process.send_signal(signal.SIGCONT)
        await away.aclose()
