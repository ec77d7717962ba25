"""`tvops doctor`: symptoms on trees of files, servers for real, the command's exit codes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from redis import Redis

from tests.machines import make_machine, write
from tests.valkey import ValkeyServer
from tvops.cli import run
from tvops.settings import Settings
from tvops.tuning.doctor.finding import SEVERITIES, Finding, worst_first
from tvops.tuning.doctor.machine import advice, rivals, storage
from tvops.tuning.doctor.servers import examine_server
from tvops.tuning.doctor.symptoms import COUNTERS, judge_counters, pressure, read_counters, symptoms, table_full
from tvops.tuning.facts import read_facts
from tvops.tuning.host import Host
from tvops.tuning.kinds.redis_facts import ServerFacts, server_facts
from tvops.tuning.kinds.redis_servers import RedisServer

SNMP = "Udp: InDatagrams NoPorts RcvbufErrors\nUdp: 10 0 {errors}\nUdpLite: RcvbufErrors\nUdpLite: 9\n"
NETSTAT = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 {overflows} 3\n"
SOFTNET = "00000010 00000002 0000000a 00000000\n00000010 00000001 00000000 00000000\n"
STAT = "cpu  100 0 100 700 0 0 0 {steal} 0 0\ncpu0 1 1 1 1 1 1 1 1\n"


def counters(host: Host, **values: int) -> dict[str, int]:
    write(host.root, "/proc/net/snmp", SNMP.format(errors=values.get("errors", 0)))
    write(host.root, "/proc/net/netstat", NETSTAT.format(overflows=values.get("overflows", 0)))
    write(host.root, "/proc/net/softnet_stat", SOFTNET)
    write(host.root, "/proc/stat", STAT.format(steal=values.get("steal", 0)))
    write(host.root, "/proc/vmstat", "pswpin 7\nallocstall_normal 2\nallocstall_movable 3\n")
    return read_counters(host)


def test_counters_are_read_from_where_the_kernel_shows_them(tmp_path: Path) -> None:
    host = make_machine(tmp_path)
    assert counters(host, errors=4, overflows=5, steal=6) == {
        "udp.rcvbuf_errors": 4, "tcp.listen_overflows": 5, "net.softnet_dropped": 3, "net.softnet_squeezed": 10,
        "vm.swapped_in": 7, "vm.allocstall": 5, "cpu.total": 906, "cpu.steal": 6,
    }  # fmt: skip


def test_what_grows_is_a_warning_and_what_stands_a_note(tmp_path: Path) -> None:
    host = make_machine(tmp_path)
    before, after = counters(host, errors=4, overflows=5), counters(host, errors=9, overflows=5)
    told = {f.about: f for f in judge_counters(before, after, 1.0)}
    assert told["udp.rcvbuf_errors"].severity == "warning"
    assert "5 datagrams" in told["udp.rcvbuf_errors"].what
    assert "(9 since boot)" in told["udp.rcvbuf_errors"].what
    assert told["tcp.listen_overflows"].severity == "note"
    assert set(told) <= {counter.name for counter in COUNTERS}
    assert judge_counters({}, {}, 1.0) == []


def test_a_quiet_host_has_no_symptoms(tmp_path: Path) -> None:
    assert symptoms(make_machine(tmp_path), 0.01) == []


@pytest.mark.parametrize(
    "resource, line, found",
    [
        ("memory", "some avg10=6.00 avg60=0.00 avg300=0.00 total=1", 1),
        ("memory", "some avg10=4.00 avg60=9.00 avg300=0.00 total=1", 0),
        ("cpu", "some avg10=19.0 avg60=0.00 avg300=0.00 total=1", 0),
        ("cpu", "some avg10=21.0 avg60=0.00 avg300=0.00 total=1", 1),
        ("io", "full avg10=50.0 avg60=0.00 avg300=0.00 total=1", 0),
        ("io", "garbage", 0),
    ],
)
def test_pressure(tmp_path: Path, resource: str, line: str, found: int) -> None:
    host = make_machine(tmp_path)
    write(tmp_path, f"/proc/pressure/{resource}", f"{line}\n")
    assert len(pressure(host)) == found


@pytest.mark.parametrize("used, severities", [(799, []), (800, ["critical"])])
def test_a_full_connection_table(tmp_path: Path, used: int, severities: list[str]) -> None:
    host = make_machine(tmp_path)
    write(tmp_path, "/proc/sys/net/netfilter/nf_conntrack_count", f"{used}\n")
    write(tmp_path, "/proc/sys/net/netfilter/nf_conntrack_max", "1000\n")
    assert [f.severity for f in table_full(host)] == severities


def test_programs_that_tune_as_well(tmp_path: Path) -> None:
    host = make_machine(tmp_path)
    write(tmp_path, "/proc/77/comm", "irqbalance\n")
    write(tmp_path, "/proc/78/comm", "bash\n")
    [finding] = rivals(host)
    assert "irqbalance runs (pid 77)" in finding.what


def test_advice_is_of_this_machine(tmp_path: Path) -> None:
    bare = make_machine(tmp_path / "bare", threads=2, nodes=2, driver="e1000e")
    write(bare.root, "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "3\n")
    assert {f.about for f in advice(bare, read_facts(bare))} == {"firmware", "smt", "numa", "thermal", "nic"}
    guest = make_machine(tmp_path / "guest", virtual="QEMU", driver="virtio_net")
    assert {f.about for f in advice(guest, read_facts(guest))} == {"hypervisor"}


def test_a_ledger_in_memory_is_critical() -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm")
    assert "data_dir.volatile" in {f.about for f in storage(Settings(data_dir="/dev/shm/nonesuch/tvops"))}


def test_worst_first() -> None:
    found = [Finding(severity=s, about=s, what="") for s in reversed(SEVERITIES)]
    assert [f.severity for f in worst_first(found)] == list(SEVERITIES)


def facts(**values: object) -> ServerFacts:
    good = {"maxmemory": 1000, "used_memory": 1, "policy": "noeviction", "latency_threshold_ms": 10}
    return ServerFacts(role="ledger", address="unix:///x", **(good | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values, about, severity",
    [
        ({"trouble": "does not answer"}, "redis.down@ledger", "critical"),
        ({"aof_failing": True}, "redis.disk@ledger", "critical"),
        ({"used_memory": 700}, "redis.memory@ledger", "critical"),
        ({"used_memory": 700, "policy": "allkeys-lru"}, "redis.memory@ledger", "warning"),
        ({"maxmemory": 0}, "redis.maxmemory@ledger", "warning"),
        ({"holds_ledger": True, "aof": False}, "redis.aof@ledger", "critical"),
        ({"holds_ledger": True, "aof": True, "evicted_keys": 1}, "redis.evicted@ledger", "critical"),
        ({"fork_us": 30_000}, "redis.fork@ledger", "warning"),
        ({"latency_threshold_ms": 0}, "redis.latency-monitor@ledger", "tuning"),
        (
            {"fragmentation": 2.0, "used_memory": 200 << 20, "maxmemory": 1 << 30},
            "redis.fragmentation@ledger",
            "warning",
        ),
        ({"clients": 95, "maxclients": 100}, "redis.clients@ledger", "warning"),
        ({"rejected_connections": 1}, "redis.refused@ledger", "note"),
    ],
)
def test_each_trouble_of_a_server(values: dict[str, object], about: str, severity: str) -> None:
    [finding] = examine_server(facts(**values), "prod")
    assert (finding.about, finding.severity) == (about, severity)
    assert finding.fix
    assert finding.why


def test_a_server_in_order_has_no_finding() -> None:
    assert examine_server(facts(aof=True, holds_ledger=True, clients=1, maxclients=100), "prod") == []


def test_a_real_server_near_its_limit(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "server")
    server.start()
    try:
        with Redis(unix_socket_path=server.socket) as client:
            client.setrange("x", 4 << 20, "y")
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]) * 9 // 8)
            client.config_set("latency-monitor-threshold", 0)
        found = examine_server(server_facts(RedisServer("cache", server.url)), "prod")
        assert {"redis.memory@cache", "redis.latency-monitor@cache"} <= {f.about for f in found}
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVOPS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TVOPS_DATA_DIR", str(tmp_path / "data"))


def test_the_command_on_this_host(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["doctor", "--seconds", "0.1", "--json"])
    report = json.loads(capsys.readouterr().out)
    ranks = [SEVERITIES.index(f["severity"]) for f in report["findings"]]
    assert ranks == sorted(ranks)
    wrong = any(f["severity"] in ("critical", "warning", "tuning") for f in report["findings"])
    assert (code, report["exit_code"]) == ((3, 3) if wrong else (0, 0))
    assert all(f["fix"] for f in report["findings"])
    assert run(["doctor", "--seconds", "0.1"]) in (0, 3)  # a busy host may have got worse
    assert "fix: " in capsys.readouterr().out


def test_the_fix_that_is_told_fixes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def findings() -> dict[str, str]:
        run(["doctor", "--seconds", "0.1", "--json", "--redis", f"market={server.url}"])
        report = json.loads(capsys.readouterr().out)
        return {f["about"]: f["fix"] for f in report["findings"] if "@market" in f["about"]}

    server = ValkeyServer(tmp_path / "server")
    server.start()
    try:
        with Redis(unix_socket_path=server.socket) as client:
            client.config_set("latency-monitor-threshold", 0)
        found = findings()
        fix = shlex.split(found["redis.latency-monitor@market"])
        assert fix[:2] == ["tvops", "tune"]
        run([*fix[1:], "--yes"])
        capsys.readouterr()
        left = findings()
        assert {"redis.latency-monitor@market", "redis.maxmemory@market"} <= found.keys() - left.keys()
        assert all(fix.startswith("tvops tune persist --profile prod; takes a restart") for fix in left.values())
    finally:
        server.stop()


def test_a_dead_server_is_a_finding_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--seconds", "0.1", "--redis", "cache=redis://127.0.0.1:1"]) == 3
    captured = capsys.readouterr()
    assert captured.out.startswith("critical")
    assert "cache server redis://127.0.0.1:1" in captured.out


def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--profile", "nonesuch"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
