"""What a profile does to processes: real child processes, and a real stack, looked at from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis

from tests.stack import Stack
from tvops.cpu_lists import format_cpus
from tvops.engine.bus.roles import ROLES
from tvops.engine.bus.server_config import default_config
from tvops.engine.bus.server_tuning import cpu_lines, part, unknown_key
from tvops.engine.bus.servers import EmbeddedServers
from tvops.engine.collector import WORKER_DEFAULTS
from tvops.engine.in_force import InForce
from tvops.engine.latency_hold import LatencyHold
from tvops.engine.process_attributes import read_attribute
from tvops.engine.process_tuning import bequeathed, tune_child
from tvops.engine.stack_tuning import Effect, StackTuning, settled
from tvops.engine.tuning_report import FILE_NAME, read_report, started
from tvops.settings import Settings
from tvops.tuning.catalogue import load_catalogue
from tvops.tuning.kinds.serve import ServeDriver
from tvops.tuning.model import Facts, Knob, NotWrittenError, Place, Profile, Wish
from tvops.tuning.plan import make_plan
from tvops.tuning.stack import TARGETS, stack_tuning, summary

pytestmark = pytest.mark.timeout(600)  # several waits of a test may take 60 s each

CHILD = """
import ctypes, json, os, sys
from tvops.engine.process_tuning import tune_process
from tvops.engine.collector import Collector
import msgspec
request = json.loads(sys.argv[1])
if request["uid"]:
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # its own /proc files belong to it again, as after an exec
collector = Collector(request["wishes"], "engine", request["defaults"])
effects = tune_process(request["wishes"], "engine")
collector.settle()
print(msgspec.json.encode(effects + collector.effects()).decode(), flush=True)
sys.stdin.read()
"""
ALL = {
    "affinity": "0", "nice": "-5", "sched_fifo": "10", "timer_slack": "1000", "mlockall": "all",
    "thp_disable": "1",
}  # fmt: skip
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
capabilities = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)


class Child:
    """A process that has applied some wishes and goes on until it is let go."""

    def __init__(self, wishes: dict[str, str], uid: int = 0, defaults: dict[str, str] | None = None) -> None:
        request = {"wishes": wishes, "uid": uid, "defaults": defaults or {}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(request)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        effects = msgspec.json.decode(self.process.stdout.readline(), type=list[Effect])
        self.effects = {effect.name: effect for effect in effects}
        self.pid = self.process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)


def line(path: str, start: str) -> str:
    return next(x for x in Path(path).read_text().splitlines() if x.startswith(start))


@root
def test_everything_is_in_force_as_proc_shows_it() -> None:
    with Child(ALL) as child:
        pid = child.pid
        for name, value in ALL.items():
            assert (child.effects[name].state, child.effects[name].got) == ("applied", value)
            assert child.effects[name].pid == pid
        assert os.sched_getaffinity(pid) == {0}
        assert os.getpriority(os.PRIO_PROCESS, pid) == -5
        assert os.sched_getscheduler(pid) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        assert os.sched_getparam(pid).sched_priority == 10
        assert line(f"/proc/{pid}/status", "VmLck").split()[1] != "0"
        assert line(f"/proc/{pid}/status", "THP_enabled").split()[1] == "0"


@root
def test_timer_slack_is_in_force_as_proc_shows_it() -> None:
    with Child({"timer_slack": "1000"}) as child:
        assert Path(f"/proc/{child.pid}/timerslack_ns").read_text().strip() == "1000"


@root
def test_nobody_gets_what_needs_no_privilege_and_is_told_what_the_rest_needs() -> None:
    with Child({**ALL, "oom_score_adj": "-500"}, uid=65534) as child:
        states = {name: child.effects[name].state for name in (*ALL, "oom_score_adj")}
        assert states == {
            "affinity": "applied", "timer_slack": "applied", "thp_disable": "applied", "nice": "denied",
            "sched_fifo": "denied", "mlockall": "denied", "oom_score_adj": "denied",
        }  # fmt: skip
        for name, capability in (
            ("nice", "CAP_SYS_NICE"), ("sched_fifo", "CAP_SYS_NICE"), ("mlockall", "CAP_IPC_LOCK"),
            ("oom_score_adj", "CAP_SYS_RESOURCE"),
        ):  # fmt: skip
            assert capability in child.effects[name].reason
        assert os.sched_getaffinity(child.pid) == {0}
        assert line(f"/proc/{child.pid}/status", "VmLck").split()[1] == "0"


def test_a_limit_above_the_hard_one_goes_as_far_as_it_can() -> None:
    with Child({"nofile": str(1 << 30)}) as child:
        effect = child.effects["nofile"]
        soft, hard = line(f"/proc/{child.pid}/limits", "Max open files").split()[3:5]
        assert effect.state == "clamped"
        assert effect.got == soft == hard
        assert "CAP_SYS_RESOURCE" in effect.reason


def test_nothing_wanted_changes_nothing_and_still_tells() -> None:
    with Child({}) as child:
        assert {e.state for e in child.effects.values()} == {"left"}
        assert child.effects["affinity"].got == format_cpus(tuple(os.sched_getaffinity(0)))
        assert child.effects["timer_slack"].got == read_attribute("timer_slack", os.getpid())
        assert child.effects["nice"].got == str(os.getpriority(os.PRIO_PROCESS, 0))


def test_the_collector_of_a_worker_is_as_before_where_nobody_says_otherwise() -> None:
    with Child({}, defaults=WORKER_DEFAULTS) as child:
        told = {name: child.effects[name].got for name in ("gc_threshold", "gc_freeze", "gc_interval")}
        assert told == {"gc_threshold": "50000 20 50", "gc_freeze": "1", "gc_interval": "0"}
        assert {child.effects[name].wanted for name in told} == {""}


def test_the_collector_collects_on_time_only() -> None:
    with Child({"gc_interval": "250", "gc_threshold": "nonsense", "gc_freeze": "0"}) as child:
        assert (child.effects["gc_interval"].state, child.effects["gc_interval"].got) == ("applied", "250")
        assert child.effects["gc_threshold"].state == "unsupported"
        assert child.effects["gc_freeze"].got == "0"


@pytest.mark.parametrize(
    "wishes",
    [
        {"affinity": "8000"},
        {"affinity": "x", "nice": "x", "timer_slack": "-", "numa_node": "7", "mlockall": "nonsense",
         "oom_score_adj": "5000"},
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_told_and_harms_nothing(wishes: dict[str, str]) -> None:
    with Child(wishes) as child:
        for name in wishes:
            assert child.effects[name].state != "applied", name
            assert child.effects[name].reason, name


def test_a_child_inherits_what_it_is_given_and_its_parent_keeps_its_own() -> None:
    before = {name: read_attribute(name, os.getpid()) for name in ("timer_slack", "thp_disable", "nofile")}
    wishes = {"timer_slack": "2000", "thp_disable": "1", "nofile": "512", "numa_node": "99", "mlockall": "all"}
    with bequeathed(wishes, "redis") as born:
        child = subprocess.Popen(["sleep", "60"])
    try:
        effects = {e.name: e for e in tune_child(wishes, "redis", child.pid, born)}
        assert {name: read_attribute(name, os.getpid()) for name in before} == before
        assert [effects[name].state for name in ("timer_slack", "thp_disable", "nofile")] == ["applied"] * 3
        assert read_attribute("thp_disable", child.pid) == "1"
        assert read_attribute("nofile", child.pid) == "512"
        assert effects["numa_node"].state == effects["mlockall"].state == "unsupported"
    finally:
        child.kill()
        child.wait()


def test_what_the_supervisor_has_is_put_back_in_its_children(tmp_path: Path) -> None:
    wishes = {"supervisor": {"nice": "3", "sched_fifo": "5"}, "engine": {"nice": "7"}}
    in_force = InForce(StackTuning(processes=wishes), tmp_path)
    nice = str(os.getpriority(os.PRIO_PROCESS, 0))
    children = in_force.for_children.processes
    assert children == {"engine": {"nice": "7"}, "market": {"nice": nice}, "redis": {"nice": nice}}
    undone = Effect(kind="process", name="nice", target="market", wanted=nice, got=nice, state="applied")
    assert settled(in_force.effects([undone])) == ([], [])


@root
def test_fifo_is_not_inherited() -> None:
    code = (
        "import os,subprocess,sys;from tvops.engine.process_tuning import tune_process;"
        "tune_process({'sched_fifo':'3'},'supervisor');"
        "assert os.sched_getparam(0).sched_priority==3;"
        "print(subprocess.check_output([sys.executable,'-c','import os;"
        "print(os.sched_getscheduler(0))']).decode())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == str(os.SCHED_OTHER)


# /dev/cpu_dma_latency


@root
def test_the_latency_is_held_as_long_as_asked(tmp_path: Path) -> None:
    hold = LatencyHold()
    if not Path("/dev/cpu_dma_latency").exists():
        pytest.skip("no /dev/cpu_dma_latency here")
    effect = hold.acquire(500)
    try:
        assert (effect.state, effect.wanted) == ("applied", "500")
        assert Path("/dev/cpu_dma_latency") in [
            p.readlink() for p in Path("/proc/self/fd").iterdir() if p.is_symlink()
        ]
    finally:
        hold.release()
    assert LatencyHold(tmp_path / "none").acquire(5).state == "unsupported"


# Servers


def test_a_role_keeps_what_it_stands_for() -> None:
    wishes = {
        "maxmemory-policy": "allkeys-lru", "appendfsync": "everysec", "appendonly": "no", "dir": "/", "hz": "50",
        "no-appendfsync-on-rewrite": "yes", "maxmemory": "1000", "slowlog-max-len": "1\nrequirepass x",
        "port": "6379",
        "tcp-backlog": "1024", "save": "", "client-output-buffer-limit pubsub": "1 2 3",
    }  # fmt: skip
    taken, others = part(ROLES["ledger"], wishes, default_config(ROLES["ledger"]))
    states = {effect.name: effect.state for effect in others}
    # A backlog is that of the unix socket as well.
    assert taken == {"hz": "50", "client-output-buffer-limit pubsub": "1 2 3", "tcp-backlog": "1024"}
    assert states.pop("save") == "left"  # it is so anyway
    assert set(states.values()) == {"refused"}
    assert len(states) == 8
    assert all(effect.reason for effect in others if effect.state == "refused")


@pytest.mark.parametrize("role", list(ROLES))
def test_memory_without_end_is_for_the_ledger_alone(role: str) -> None:
    taken, _ = part(ROLES[role], {"maxmemory": "0"}, default_config(ROLES[role]))
    assert bool(taken) == (role == "ledger")


def test_servers_are_pinned_and_what_they_fork_is_not() -> None:
    assert cpu_lines({"affinity": "1"}, "0-1") == {
        "server_cpulist": "1", "bio_cpulist": "1", "bgsave_cpulist": "0-1", "aof_rewrite_cpulist": "0-1",
    }  # fmt: skip
    assert cpu_lines({"nice": "1"}, "0-1") == {}


@pytest.mark.parametrize("version", ["Redis 7.0.15", "Version 9.1.0"])
def test_the_key_that_a_server_does_not_know_is_found_in_its_last_words(version: str) -> None:
    log = (
        f"\n*** FATAL CONFIG FILE ERROR ({version}) ***\nReading the configuration file, at line 46\n"
        ">>> 'activedefrag yes'\nActive defragmentation cannot be enabled\n"
    )
    assert unknown_key(log) == "activedefrag"
    assert unknown_key("# Server initialized") is None


async def test_a_key_that_a_server_does_not_know_is_left_out(tmp_path: Path) -> None:
    wishes = {"market": {"no-such-key": "1", "hz": "20"}, "ledger": {"appendfsync": "no"}}
    servers = EmbeddedServers(Settings(data_dir=str(tmp_path)), StackTuning(servers=wishes))
    urls = await servers.start()
    try:
        told = {(e.target, e.name): e.state for e in servers.effects() if e.kind == "redis"}
        assert told == {
            ("market", "no-such-key"): "unsupported", ("market", "hz"): "applied",
            ("ledger", "appendfsync"): "refused",
        }  # fmt: skip
        async with Redis.from_url(urls["market"], protocol=2) as client:
            assert (await client.config_get("hz"))["hz"] == "20"
    finally:
        await servers.stop()


async def test_a_server_of_an_earlier_run_keeps_what_it_was_born_with(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path))
    first, second = (
        EmbeddedServers(settings, StackTuning(processes={"redis": {"thp_disable": value}})) for value in "10"
    )
    await first.start()
    pids = sorted(first.pids())
    assert {e.state for e in first.effects() if e.name == "thp_disable"} == {"applied"}
    assert first._lock is not None
    os.close(first._lock)  # as if its supervisor had been killed
    first._lock = None
    await second.start()
    try:
        assert sorted(second.pids()) == pids
        effects = [effect for effect in second.effects() if effect.name == "thp_disable"]
        assert {effect.state for effect in effects} == {"unsupported"}
        assert all("left over" in effect.reason for effect in effects)
    finally:
        await second.stop()
        for server in first._servers.values():
            server._lifeline[1].close()  # type: ignore[index]
            server._process.wait()  # type: ignore[union-attr]


# From a profile


def a_profile(*wishes: Wish, **facts: Any) -> Profile:
    base = {"kernel": (6, 18, 0), "release": "6.18", "memory_bytes": 8 << 30}
    return Profile(name="test", description="", settings={}, wishes=wishes, facts=Facts(**{**base, **facts}))


def test_wishes_go_to_the_processes_that_their_selectors_name() -> None:
    tuning = stack_tuning(
        a_profile(
            Wish(knob="process.timer_slack_ns", value="1us"),
            Wish(knob="process.timer_slack_ns", value="1", selector="engine"),
            Wish(knob="process.nice", value=-5, selector="e*"),
            Wish(knob="process.gc_freeze", value=1),
            Wish(knob="socket.timestampns", value=1),
            Wish(knob="process.affinity", value="$engine", selector="engine"),
            Wish(knob="process.nofile", value=">=1", selector="market"),
            Wish(knob="process.oom_score_adj", value=-5, skip="not on a virtual machine"),
            Wish(knob="socket.sndbuf", value=">=8mb", selector="gateway"),
            Wish(knob="socket.sndbuf", value="<=1mb", selector="stream"),
            Wish(knob="redis.maxmemory", value="25%", selector="ledger"),
            Wish(knob="redis.save", value='""'),
            Wish(knob="cpu.dma_latency", value="30us"),
            Wish(knob="vm.swappiness", value=1),
            roles={"engine": (1,)},
        ),
        load_catalogue(),
    )
    assert tuning.processes["engine"] == {
        "timer_slack": "1", "nice": "-5", "affinity": "1", "gc_freeze": "1",
    }  # fmt: skip
    assert tuning.processes["market"] == {
        "timer_slack": "1000", "nofile": read_attribute("nofile", os.getpid()), "gc_freeze": "1",
    }  # fmt: skip
    assert tuning.processes["supervisor"] == tuning.processes["redis"] == {"timer_slack": "1000"}
    assert tuning.sockets == {
        "gateway": {"SO_SNDBUF": str(8 << 20), "SO_TIMESTAMPNS": "1"},
        "stream": {"SO_SNDBUF": str(128 << 10), "SO_TIMESTAMPNS": "1"},
        "redis": {"SO_TIMESTAMPNS": "1"},
    }
    assert tuning.servers["ledger"] == {"maxmemory": str(2 << 30), "save": ""}
    assert tuning.dma_latency_us == 30
    assert tuning.left == ()


def test_what_cannot_be_meant_here_is_left_with_its_reason() -> None:
    tuning = stack_tuning(
        a_profile(
            Wish(knob="process.affinity", value="$nowhere", selector="engine"),
            Wish(knob="socket.prefer_busy_poll", value=1, selector="gateway"),
            Wish(knob="process.gc_interval_ms", value="1s", selector="supervisor"),
            kernel=(5, 4, 0), release="5.4",
        ),
        load_catalogue(),
    )  # fmt: skip
    reasons = {effect.name: effect.reason for effect in tuning.left}
    assert "$nowhere" in reasons["affinity"]
    assert "5.11" in reasons["SO_PREFER_BUSY_POLL"]
    assert "engine and market" in reasons["gc_interval"]
    assert not tuning.processes
    assert not tuning.sockets


def test_the_summary_names_each_knob_once_with_its_reason() -> None:
    def effect(target: str, **fields: Any) -> Effect:
        return Effect(kind="process", name="nofile", target=target, wanted="9", **fields)

    bad = [effect(target, state="clamped", reason="the hard limit is 5") for target in ("engine", "market")]
    said = summary("prod", [effect("redis", got="9", state="applied")], bad, {"nofile": "process.nofile"})
    assert said == (
        "profile prod: 1 settings in force, 2 left: process.nofile (engine, market: the hard limit is 5)"
    )
    assert summary("dev", [], [], {}) == ""


# A real stack


@pytest.fixture(scope="module")
def catalogue() -> dict[str, Knob]:
    return load_catalogue()


@pytest.fixture(scope="module")
def own_profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give prod with what needs few CPUs, without its shares of the host's memory."""
    path = tmp_path_factory.mktemp("profile") / "own.yaml"
    path.write_text(
        "extends: prod\n"
        "settings: {ledger_memory_mb: 64, market_memory_mb: 32, results_memory_mb: 24}\n"
        "knobs:\n"
        "  process.affinity@engine: '0'\n"
        "  process.affinity@redis: '0'\n"
        "  process.nofile: '-'\n"
        "  redis.activedefrag@market: 'yes'\n"
        "  socket.tos@gateway: 184\n"
    )
    return path


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, own_profile: Path) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("tuned") / "data", "--profile", str(own_profile)) as running:
        yield running.start()


def effects_of(stack: Stack) -> dict[tuple[str, str], Effect]:
    report = read_report(stack.data_dir)
    assert report is not None
    return {(effect.name, effect.target): effect for effect in report.effects}


def wait_for_effects(stack: Stack) -> dict[tuple[str, str], Effect]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (stack.data_dir / FILE_NAME).exists():
            told = effects_of(stack)
            if {("affinity", "market"), ("affinity", "engine")} <= told.keys():
                return told
        time.sleep(0.02)
    raise AssertionError(f"no report:\n{stack.tail()}")


def summary_of(stack: Stack) -> str:
    """Wait for the one line that says what is in force and what is left."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if said := [x for x in stack.log.read_text().splitlines() if "settings in force" in x]:
            assert len(said) == 1
            return said[0]
        time.sleep(0.02)
    raise AssertionError(f"nothing was said:\n{stack.tail()}")


def test_the_stack_has_what_its_profile_says(stack: Stack) -> None:
    told = wait_for_effects(stack)
    processes = stack.processes()
    assert processes["engine"].cpu_affinity() == [0]
    assert told["affinity", "engine"].state == "applied"
    assert len(processes["market"].cpu_affinity()) == len(os.sched_getaffinity(0))
    for name in ("serve", "engine", "market"):
        if os.geteuid() == 0:  # the slack of others is for root to see
            slack = Path(f"/proc/{processes[name].pid}/timerslack_ns").read_text().strip()
            assert slack == "1000", name
    nice = -5 if os.geteuid() == 0 else os.getpriority(os.PRIO_PROCESS, 0)
    assert processes["engine"].nice() == nice
    assert told["nice", "engine"].got == str(nice)
    assert processes["serve"].nice() == os.getpriority(os.PRIO_PROCESS, 0)
    assert told["TCP_USER_TIMEOUT", "gateway"].got == "10000"
    assert told["IP_TOS", "gateway"].got == "184"
    assert told["SO_SNDBUF", "stream"].got == str(128 << 10)  # as without a profile
    assert stat.S_IMODE((stack.data_dir / FILE_NAME).stat().st_mode) == 0o600


def test_servers_have_their_configuration_and_their_background_jobs_all_cpus(stack: Stack) -> None:
    wait_for_effects(stack)
    with BlockingRedis(unix_socket_path=str(stack.data_dir / "valkey/ledger/valkey.sock"), protocol=2) as client:
        config = client.config_get("*")
        pid = int(client.info("server")["process_id"])
    assert config["maxmemory"] == str(64 << 20)  # the setting is more particular than redis.maxmemory
    assert config["appendfsync"] == "always"
    assert config["tcp-keepalive"] == "60"
    assert config["latency-tracking-info-percentiles"] == "50 99 99.9 99.99"
    assert "pubsub 268435456 67108864 60" in config["client-output-buffer-limit"]
    assert psutil.Process(pid).cpu_affinity() == [0]
    every = format_cpus(tuple(os.sched_getaffinity(0)))
    assert {config.get(f"{job}_cpulist") or config[f"{job}-cpulist"] for job in ("bgsave", "aof_rewrite")} == {
        every
    }


def test_connections_keep_alive_as_ss_shows_it(stack: Stack) -> None:
    if shutil.which("ss") is None:
        pytest.skip("needs ss")
    stack.client.get("/health")
    shown, deadline = "", time.monotonic() + 60
    # 10 s, or what is left of them; as the host has it, it would be minutes. Another timer runs until the client's
    # kernel has told that the answer came.
    while not re.search(r"timer:\(keepalive,[\d.]+(sec|ms)", shown):
        assert time.monotonic() < deadline, shown
        shown = subprocess.run(
            ["ss", "-tno", "state", "established", f"sport = :{stack.gateway_port}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip


def test_health_is_as_ever_and_the_log_says_what_is_in_force_and_what_is_left(stack: Stack) -> None:
    assert set(stack.client.get("/health").json()) == {"status", "services"}
    said = summary_of(stack)
    assert "profile own: " in said
    assert "socket.rcvbuf (feed: no feed has a socket)" in said
    assert "redis.activedefrag" not in said or "does not take it" in said


@root
def test_the_driver_sees_what_the_supervisor_holds(stack: Stack, catalogue: dict[str, Knob]) -> None:
    if not Path("/dev/cpu_dma_latency").exists():
        pytest.skip("no /dev/cpu_dma_latency here")
    wait_for_effects(stack)
    driver, knob = ServeDriver(stack.data_dir), catalogue["cpu.dma_latency"]
    [place] = driver.places(knob)
    assert (place.name, driver.read(knob, place).value) == ("supervisor", "30")


@pytest.mark.parametrize(
    "knob, place, value",
    [
        ("process.affinity", "engine", "0"),
        ("process.gc_threshold", "market", "50000 20 50"),
        ("process.thp_disable", "redis", "0"),
        ("process.fifo_priority", "supervisor", "0"),
        ("socket.keepalive_idle", "stream", "10"),
        ("socket.congestion", "gateway", Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()),
    ],
)
def test_the_driver_reads_what_is_in_force(
    stack: Stack, catalogue: dict[str, Knob], knob: str, place: str, value: str
) -> None:
    wait_for_effects(stack)
    driver = ServeDriver(stack.data_dir)
    places = {p.name: p for p in driver.places(catalogue[knob])}
    assert tuple(places) == TARGETS[catalogue[knob].kind]
    state = driver.read(catalogue[knob], places[place])
    assert (state.status, state.value) == ("present", value)
    with pytest.raises(NotWrittenError):
        driver.write(catalogue[knob], places[place], value)
    assert driver.shell(catalogue[knob], places[place], value) is None


def test_the_driver_tells_what_somebody_changed_since(stack: Stack, catalogue: dict[str, Knob]) -> None:
    wait_for_effects(stack)
    driver, knob = ServeDriver(stack.data_dir), catalogue["process.affinity"]
    market = stack.processes()["market"]
    before = market.cpu_affinity()
    market.cpu_affinity([0])
    try:
        assert driver.read(knob, Place("", "market")).value == "0"
    finally:
        market.cpu_affinity(before)


def test_a_plan_sees_what_is_met_what_takes_a_new_start_and_what_cannot_be(
    stack: Stack, catalogue: dict[str, Knob]
) -> None:
    wait_for_effects(stack)
    driver = ServeDriver(stack.data_dir)
    profile = a_profile(
        Wish(knob="process.affinity", value="0", selector="engine"),
        Wish(knob="process.gc_threshold", value="1 2 3", selector="engine"),
        Wish(knob="process.oom_score_adj", value=-500, selector="engine"),
        Wish(knob="socket.keepalive", value=1, selector="redis"),
        Wish(knob="socket.rcvbuf", value="8mb", selector="feed"),
    )
    items = make_plan(profile, catalogue, {"process": driver, "socket": driver})
    states = {item.knob: item.state for item in items}
    adjusted = read_attribute("oom_score_adj", stack.processes()["engine"].pid) == "-500"
    assert states == {
        "process.affinity": "met", "process.gc_threshold": "serve",
        "process.oom_score_adj": "met" if adjusted else "unsupported", "socket.keepalive": "skipped",
        "socket.rcvbuf": "skipped",
    }  # fmt: skip


def test_a_worker_that_was_restarted_has_it_again_and_says_so(stack: Stack) -> None:
    old = wait_for_effects(stack)["affinity", "engine"].pid
    psutil.Process(old).kill()
    stack.wait_ready()
    deadline = time.monotonic() + 60
    while (effect := effects_of(stack)["affinity", "engine"]).pid == old and time.monotonic() < deadline:
        time.sleep(0.02)
    assert effect.pid == stack.processes()["engine"].pid
    assert os.sched_getaffinity(effect.pid) == {0}


VOLATILE = {"ns_last_pid", "perf_event_max_sample_rate", "pty", "random", "tcp_fastopen_key"}


def read_host() -> dict[str, str]:
    """Give what a host has that `tvops serve` must not touch."""
    found = {}
    for folder in ("/proc/sys/net/core", "/proc/sys/net/ipv4", "/proc/sys/vm", "/proc/sys/kernel",
                   "/sys/kernel/mm/transparent_hugepage"):  # fmt: skip
        for path in sorted(Path(folder).iterdir()):
            if path.is_file() and path.name not in VOLATILE:
                try:
                    found[str(path)] = path.read_text()
                except OSError:
                    continue
    return found


@capabilities
def test_without_a_capability_the_rest_is_in_force_nothing_host_wide_changes_and_it_ends_cleanly(
    tmp_path: Path, own_profile: Path
) -> None:
    before = read_host()
    stack = Stack(tmp_path / "data", "--profile", str(own_profile))
    stack.prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
    with stack:
        stack.start()
        told = wait_for_effects(stack)
        engine = stack.processes()["engine"]
        assert line(f"/proc/{engine.pid}/status", "CapEff").split()[1] == "0" * 16
        assert engine.cpu_affinity() == [0]
        assert told["affinity", "engine"].state == "applied"
        assert told["timer_slack", "market"].state == "applied"
        assert Path(f"/proc/{engine.pid}/timerslack_ns").read_text().strip() == "1000"
        assert (told["nice", "engine"].state, engine.nice()) == ("denied", os.getpriority(os.PRIO_PROCESS, 0))
        assert "CAP_SYS_NICE" in told["nice", "engine"].reason
        assert read_host() == before
        assert "process.nice (" in summary_of(stack)
        catalogue, driver = load_catalogue(), ServeDriver(stack.data_dir)
        assert driver.read(catalogue["process.nice"], Place("", "engine")).reason
        stack.stop()
        assert not (stack.data_dir / FILE_NAME).exists()
        state = driver.read(catalogue["process.nice"], Place("", "engine"))
        assert (state.status, state.reason) == ("absent", "tvops serve is not running")


def test_a_report_of_a_stack_that_was_killed_counts_for_nothing(
    tmp_path: Path, catalogue: dict[str, Knob]
) -> None:
    child = subprocess.Popen(["sleep", "60"])
    driver, knob = ServeDriver(tmp_path), catalogue["process.nice"]
    effect = Effect(
        kind="process", name="nice", target="engine", wanted="0", got="0", state="applied", pid=child.pid
    )
    report: dict[str, Any] = {
        "profile": "prod", "pid": child.pid, "started": started(child.pid), "time": 1.0,
        "processes": {"engine": [child.pid]}, "effects": [msgspec.to_builtins(effect)],
    }  # fmt: skip
    try:
        (tmp_path / FILE_NAME).write_text(json.dumps(report))
        assert driver.read(knob, Place("", "engine")).value == str(os.getpriority(os.PRIO_PROCESS, child.pid))
        (tmp_path / FILE_NAME).write_text(json.dumps({**report, "started": report["started"] - 1}))
        assert driver.read(knob, Place("", "engine")).status == "absent"  # the pid is used again
        (tmp_path / FILE_NAME).write_text("{")
        assert driver.read(knob, Place("", "engine")).status == "absent"
        (tmp_path / FILE_NAME).write_text(json.dumps(report))
    finally:
        child.kill()
        child.wait()
    assert driver.read(knob, Place("", "engine")).status == "absent"
