"""Before/after proof: real probes, real blocks on a tree of files, and nothing left changed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Valkey
from tests.evidence_tree import CATALOGUE, DELAY, Stated, in_pairs, make_host, measured, plan, snapshot
from tests.gateway_fixtures import running_gateway
from tests.stack import free_port
from tvops.engine.bus.roles import Bus
from tvops.errors import StoppedError, TvopsError, UsageError
from tvops.tuning.evidence import experiment, measuring
from tvops.tuning.evidence.experiment import Progress
from tvops.tuning.evidence.gateway_probe import OrderAck
from tvops.tuning.evidence.measuring import Options, choose_probes, measure
from tvops.tuning.evidence.probes import Probe, ProbeError, WakeUp, host_probes, two_cpus
from tvops.tuning.evidence.records import Evidence, helpful
from tvops.tuning.evidence.redis_probes import PrivateServer, RedisRoundTrip
from tvops.tuning.evidence.report import render_markdown
from tvops.tuning.evidence.schedule import Cost, make_schedule
from tvops.tuning.evidence.treatments import TIMER_SLACK, Treatment, choose
from tvops.tuning.flips import Flipper
from tvops.tuning.host import Host
from tvops.tuning.journal import Journal, StateDirectory
from tvops.tuning.kinds.redis_servers import RedisServer
from tvops.tuning.kinds.serve import ServeDriver
from tvops.tuning.model import Driver, ExitCode, Facts, Kind, NotWrittenError, Profile, Wish
from tvops.tuning.plan import Limits, make_plan
from tvops.tuning.recovery import recover

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a busy machine for no partner that hangs."""
    for limit in (
        "probes.ANSWER_SECONDS", "gateway_probe.ANSWER_SECONDS", "redis_probes.ANSWER_SECONDS",
        "redis_probes._START_SECONDS",
    ):  # fmt: skip
        monkeypatch.setattr(f"tvops.tuning.evidence.{limit}", 60.0)


@pytest.fixture
def tree(tmp_path: Path) -> Host:
    return make_host(tmp_path / "tree")


@pytest.fixture
def run(tree: Host, tmp_path: Path) -> Iterator[Journal]:
    directory = StateDirectory(tmp_path / "state")
    with directory.lock(0, "measure"), directory.new_run("measure", command="measure", root=tree.root) as run:
        yield run


@pytest.fixture
def ten_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "make_schedule", in_pairs(10))


class Steady(Probe):
    """A probe that costs next to nothing."""

    name = "steady"
    description = "nothing"
    most_samples = 20

    def once(self) -> Callable[[], None]:
        return lambda: None


# Probes


@pytest.mark.parametrize("probe", host_probes(), ids=lambda probe: probe.name)
def test_a_probe_gives_latencies_more_than_once(probe: Probe) -> None:
    for _ in range(2):
        probe.setup()
        try:
            samples = probe.sample(50, 10)
            assert len(samples) == 50
            assert samples.dtype == np.int64
            assert samples.min() > 0
        finally:
            probe.close()
            probe.close()


def test_a_probe_is_bounded_in_time() -> None:
    assert 0 < len(WakeUp().sample(1_000_000, 0.02)) < 10_000


def test_a_private_server_is_asked_and_ends() -> None:
    server = PrivateServer()
    probes = [RedisRoundTrip("PING", server), RedisRoundTrip("XADD", server)]
    server.setup()
    assert server._partner is not None
    process = psutil.Process(server._partner.process.pid)
    assert "redis://" not in " ".join(process.cmdline())
    assert server.url.split(":")[2].partition("@")[0] not in " ".join(process.cmdline())
    for probe in probes:
        probe.setup()
        assert (probe.sample(50, 10) > 0).all()
        probe.close()
    server.close()
    assert not process.is_running()


def test_the_stream_on_a_users_server_is_deleted(valkey: Valkey) -> None:
    import redis

    probe = RedisRoundTrip("XADD", role="market", url=valkey.url)
    probe.setup()
    probe.sample(30, 10)
    with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        [key] = client.keys()
        assert key.startswith(b"tvops:measure:")
        assert 0 < client.ttl(key) <= 900
        probe.close()
        assert client.keys() == []
    assert "XADD" in probe.sent
    assert "market" in probe.sent


def test_nothing_is_written_to_a_ledger(valkey: Valkey) -> None:
    import redis

    with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        client.xadd("ledger:{0}", {"p": "x"})
        for role in ("ledger", "market"):
            probe = RedisRoundTrip("XADD", role=role, url=valkey.url)
            with pytest.raises(ProbeError, match="holds a ledger"):
                probe.setup()
            probe.close()
        assert client.keys() == [b"ledger:{0}"]
    servers = (RedisServer("ledger", valkey.url), RedisServer("market", valkey.url))
    probes, _ = choose_probes(Options(servers=servers, local_gateway=f"http://127.0.0.1:{free_port()}"))
    names = [probe.name for probe in probes if probe.name.startswith("redis")]
    assert names == ["redis_ping:ledger", "redis_ping:market", "redis_xadd:market"]
    twins = (RedisServer("cache", "redis://:secret@a:1"), RedisServer("cache", "redis://b"))
    names = [probe.name for probe in choose_probes(Options(servers=twins, local_gateway="127.0.0.1:1"))[0]]
    assert names[-4:] == [
        "redis_ping:cache@redis://a:1", "redis_xadd:cache@redis://a:1", "redis_ping:cache@redis://b",
        "redis_xadd:cache@redis://b",
    ]  # fmt: skip


def test_a_server_that_is_away_or_refuses_is_told_in_one_clause(start_server: Callable[..., Valkey]) -> None:
    locked = start_server("--requirepass", "secret")
    for url, reason in (
        (locked.url, "(?i)auth"),
        (f"redis://:hidden@127.0.0.1:{free_port()}", "refused"),
        ("nonsense://", "is no server URL"),
    ):
        probe = RedisRoundTrip("PING", role="market", url=url)
        with pytest.raises(ProbeError, match=reason) as error:
            probe.setup()
        assert "hidden" not in str(error.value) + probe.description + probe.sent
        probe.close()


async def test_an_order_is_answered_and_leaves_nothing_in_the_book(bus: Bus) -> None:
    async with running_gateway(bus) as gateway:
        url = f"http://127.0.0.1:{gateway.port}"
        probe = OrderAck(url)
        assert await asyncio.to_thread(probe.simulated)
        await asyncio.to_thread(probe.setup)
        samples = await asyncio.to_thread(probe.sample, 25, 60)
        probe.close()
        assert len(samples) == 25
        orders = (await gateway.client.get("/v1/orders")).json()["orders"]
        assert [order["status"] for order in orders] == ["cancelled"] * 25
        assert (await gateway.client.get(f"/v1/book/{orders[0]['symbol']}")).json()["bids"] == []
        assert (await gateway.client.get("/v1/positions")).json()["positions"] == []
        wrong = OrderAck(url, symbol="NO-SUCH")
        with pytest.raises(ProbeError, match="no instrument NO-SUCH"):
            await asyncio.to_thread(wrong.setup)
        wrong.close()


async def test_a_gateway_that_is_not_of_a_simulated_market_is_not_asked_by_itself(bus: Bus) -> None:
    async with running_gateway(bus, feed="replay:x.gz") as gateway:
        local = f"http://127.0.0.1:{gateway.port}"
        probes, missing = await asyncio.to_thread(choose_probes, Options(local_gateway=local))
        assert [left.what for left in missing] == ["probe order_ack"]
        named, _ = await asyncio.to_thread(choose_probes, Options(gateway=local))
        assert [probe.name for probe in named[len(probes) :]] == ["order_ack"]


@pytest.mark.parametrize("url", ["http://localhost:nonsense", "http://[::1", "127.0.0.1:99999"])
def test_a_gateway_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no address such as"):
        OrderAck(url)


@pytest.mark.parametrize(
    "body, reason",
    [
        (b"[]", "answers 200 to GET /v1/symbols"),
        (b"<html>", "does not answer"),
        (b'{"symbols": 3}', "no tvops gateway"),
        (b'{"symbols": [{"symbol": "A"}]}', "no tvops gateway"),
        (b'{"symbols": []}', "has no instrument"),
    ],
)
def test_what_is_no_gateway_is_told(body: bytes, reason: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        probe = OrderAck(f"127.0.0.1:{server.server_port}")
        try:
            assert not probe.simulated()
            with pytest.raises(ProbeError, match=reason):
                probe.setup()
        finally:
            probe.close()
            server.shutdown()


# The schedule


@given(
    st.integers(1, 30),
    st.floats(1e-6, 2e-3),
    st.floats(0, 0.1),
    st.floats(0, 0.5),
)
def test_the_time_that_a_schedule_asks_for_is_enough(
    changes: int, sample: float, setup: float, settle: float
) -> None:
    probes = host_probes()
    costs = {probe.name: Cost(setup, sample) for probe in probes}
    with pytest.raises(UsageError, match=r"take at least \d+ s") as error:
        make_schedule(probes, costs, changes, 0.0, settle)
    least = float(str(error.value).split("at least ")[1].split(" s")[0])
    schedule = make_schedule(probes, costs, changes, least, settle)
    assert schedule.pairs >= schedule.least_pairs
    assert schedule.seconds <= least
    assert all(schedule.percentiles(probe.name) for probe in probes)


def test_p99_is_told_where_the_time_allows_it() -> None:
    probes = host_probes()
    costs = {probe.name: Cost(0.02, 50e-6) for probe in probes}
    assert make_schedule(probes, costs, 1, 60, 0.05).percentiles("wakeup") == (50.0, 99.0)
    short = make_schedule(probes, costs, 1, 10, 0.05)
    assert short.percentiles("wakeup") == (50.0,)


# Changes


def test_only_pending_safe_and_live_changes_are_measured(tree: Host, run: Journal) -> None:
    items, drivers = plan(tree)
    treatments, left_out = choose(items, CATALOGUE, drivers, Flipper(run, CATALOGUE, drivers))
    assert [(t.name, t.places, t.change) for t in treatments] == [
        (DELAY, 1, "0 → 300"), ("vm.quiet", 1, "10 → 20"), ("irq.list", 2, "2 values"),
    ]  # fmt: skip
    assert {left.what: left.reason for left in left_out} == {
        "vm.risky": "disruptive: only what is safe is flipped to measure it",
        "vm.fixed": "cannot be flipped back and forth on a running host",
    }
    [*singles, together], _ = choose(items, CATALOGUE, drivers, Flipper(run, CATALOGUE, drivers), together=True)
    assert [t.name for t in singles] == [t.name for t in treatments]
    assert (together.knobs, together.places) == ((DELAY, "vm.quiet", "irq.list"), 4)


def test_a_change_at_many_places_is_taken_back_where_one_fails(tree: Host, run: Journal) -> None:
    items, drivers = plan(tree)
    before = snapshot(tree.root)
    with Flipper(run, CATALOGUE, drivers) as flipper:
        change = next(t for t in choose(items, CATALOGUE, drivers, flipper)[0] if t.name == "irq.list")
        change.on()
        assert tree.read_text("/sys/irq/1/list").strip() == tree.read_text("/sys/irq/2/list").strip() == "0-1"
        change.off()
        assert snapshot(tree.root) == before
        last = tree.root / "sys/irq/2/list"
        last.unlink()
        with pytest.raises(NotWrittenError):
            change.on()
        change.off()
        assert tree.read_text("/sys/irq/1/list") == "0\n"
        last.write_text("1\n")
    assert flipper.left == []
    assert snapshot(tree.root) == before


def test_timer_slack_is_tried_on_the_measuring_process(tree: Host, run: Journal, tmp_path: Path) -> None:
    slack = msgspec.structs.replace(CATALOGUE["vm.quiet"], id=TIMER_SLACK, kind="process", where="timer_slack")
    catalogue = {TIMER_SLACK: slack}
    drivers: dict[Kind, Driver] = {"process": ServeDriver(tmp_path)}
    facts = Facts(kernel=(6, 18, 0), release="6.18.0", memory_bytes=1 << 30)
    wishes = (Wish(knob=TIMER_SLACK, value="3000"),)
    profile = Profile(name="p", description="", settings={}, wishes=wishes, facts=facts)
    flipper = Flipper(run, catalogue, drivers)

    def chosen(limits: Limits) -> list[Treatment]:
        return choose(make_plan(profile, catalogue, drivers, limits), catalogue, drivers, flipper)[0]

    own = Path(f"/proc/{os.getpid()}/timerslack_ns")
    before = int(own.read_text())
    [treatment] = chosen(Limits())
    treatment.on()
    assert int(own.read_text()) == 3000
    treatment.off()
    assert int(own.read_text()) == before
    assert chosen(Limits(skip=("process.*",))) == []


# Whole experiments


@pytest.mark.usefixtures("ten_pairs")
def test_a_delay_is_found(tree: Host, run: Journal) -> None:
    before = snapshot(tree.root)
    evidence = measured(run, tree, [Stated(tree.root / "proc/sys/vm/delay")], 8, wishes={DELAY: "300"})
    [delayed] = evidence.measured
    assert (delayed.knob, delayed.change, delayed.verdict) == (DELAY, "0 → 300", "hurts")
    [figure] = delayed.figures
    assert (figure.probe, figure.percentile, figure.samples) == ("stated", 50.0, 60)
    assert figure.pairs == evidence.pairs == 10
    assert figure.low == figure.difference == figure.high == 300_000
    assert figure.detectable < figure.difference
    assert helpful(evidence) == set()
    assert snapshot(tree.root) == before
    assert run.run.state == "rolled back"
    assert not run.run.live
    assert "hurts" in render_markdown(evidence)


@pytest.mark.usefixtures("ten_pairs")
def test_a_delay_that_goes_away_helps(tree: Host, run: Journal) -> None:
    tree.write_text("/proc/sys/vm/delay", "300")
    evidence = measured(run, tree, [Stated(tree.root / "proc/sys/vm/delay")], 6, wishes={DELAY: "0"})
    assert helpful(evidence) == {DELAY}
    assert tree.read_text("/proc/sys/vm/delay").strip() == "300"


def test_a_whole_measurement_tells_everything(tree: Host, run: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "make_schedule", in_pairs(2))
    items, drivers = plan(tree, {"vm.quiet": "20", "vm.risky": "2", "vm.done": "7"})
    before, told = snapshot(tree.root), list[Progress]()
    affinity = os.sched_getaffinity(0)
    options = Options(settle_seconds=0.0, local_gateway=f"http://127.0.0.1:{free_port()}")
    evidence = measure(items, CATALOGUE, drivers, run, options, told.append)
    assert msgspec.json.decode(msgspec.json.encode(evidence), type=Evidence) == evidence
    assert [m.knob for m in evidence.measured] == ["vm.quiet"]
    probes = ["wakeup", "tcp_round_trip", "udp_round_trip", "unix_round_trip", "redis_ping", "redis_xadd"]
    assert [(f.probe, f.percentile) for f in evidence.control] == [(probe, 50.0) for probe in probes]
    assert all(f.pairs == evidence.pairs and f.floor > 0 and f.detectable > 0 for f in evidence.control)
    assert [left.what for left in evidence.not_measured] == ["vm.risky", "probe order_ack"]
    assert evidence.cpus == (two_cpus() or ())
    assert os.sched_getaffinity(0) == affinity
    assert told[0].pairs == 0
    assert told[1].seconds_left > 0
    assert told[-1].done == told[-1].pairs == 2 * evidence.pairs
    assert snapshot(tree.root) == before
    assert run.run.state == "rolled back"
    report = render_markdown(evidence)
    for text in (f"seed {evidence.seed}", "A/A control", "`vm.risky`", "noise floor", "detectable", "## The host"):
        assert text in report


@pytest.mark.usefixtures("ten_pairs")
def test_the_same_seed_makes_the_same_order(tree: Host, tmp_path: Path) -> None:
    class Told(Steady):
        def __init__(self, order: list[str]) -> None:
            self.order = order

        def setup(self) -> None:
            self.order.append(tree.read_text("/proc/sys/vm/quiet").strip())

    orders: list[list[str]] = []
    directory = StateDirectory(tmp_path / "state")
    for seed in (1, 1, 2):
        orders.append([])
        with directory.lock(0, "m"), directory.new_run("measure", command="m", root=tree.root) as run:
            measured(run, tree, [Told(orders[-1])], 5, seed=seed, wishes={"vm.quiet": "20"})
    assert orders[0] == orders[1] != orders[2]
    assert (len(orders[0]), orders[0].count("20")) == (1 + 2 * 2 * 10, 10)


@pytest.mark.parametrize("later_seconds, pairs", [(0.001, 100), (0.1, 10)])
def test_the_time_is_kept(
    tree: Host, run: Journal, monkeypatch: pytest.MonkeyPatch, later_seconds: float, pairs: int
) -> None:
    """By a clock of the test's own, which goes on where a probe is set up."""

    class Slowing(Steady):
        clock, takes = 0.0, 0.001

        def setup(self) -> None:
            self.clock += self.takes
            self.takes = later_seconds

    probe = Slowing()
    monkeypatch.setattr(experiment, "time", SimpleNamespace(monotonic=lambda: probe.clock, sleep=lambda _: None))
    evidence = measured(run, tree, [probe], 1, wishes={"vm.quiet": "20"})
    assert evidence.pairs == pairs
    assert evidence.measured[0].figures[0].pairs == evidence.pairs <= evidence.control[0].pairs


@pytest.mark.usefixtures("ten_pairs")
def test_a_probe_that_fails_on_the_way_is_left_out(tree: Host, run: Journal) -> None:
    class Failing(Steady):
        name = "failing"
        left = 9

        def setup(self) -> None:
            self.left -= 1
            if not self.left:
                raise ProbeError("its server was shut down")

    evidence = measured(run, tree, [Steady(), Failing()], 2, wishes={"vm.quiet": "20"})
    assert [(left.what, left.reason) for left in evidence.not_measured] == [
        ("probe failing", "its server was shut down")
    ]
    assert {figure.probe for figure in evidence.control} == {"steady"}
    assert {figure.probe for figure in evidence.measured[0].figures} == {"steady"}


def test_without_any_probe_nothing_can_be_measured(tree: Host, run: Journal) -> None:
    class Failing(Steady):
        def setup(self) -> None:
            raise ProbeError("no sockets here")

    with pytest.raises(TvopsError, match="nothing can be measured here: probe steady: no sockets here"):
        measured(run, tree, [Failing()], 2, wishes={"vm.quiet": "20"})


@pytest.mark.usefixtures("ten_pairs")
def test_a_change_that_fails_on_the_way_is_left_out(tree: Host, run: Journal) -> None:
    class Removing(Steady):
        left = 28

        def setup(self) -> None:
            self.left -= 1
            if not self.left:
                (tree.root / "sys/irq/2/list").unlink()

    wishes = {"vm.quiet": "20", "irq.list": "0-1"}
    evidence = measured(run, tree, [Removing()], 2, wishes=wishes)
    assert [m.knob for m in evidence.measured] == ["vm.quiet"]
    [left] = evidence.not_measured
    assert left.what == "irq.list"
    assert left.reason.startswith("could not be changed: ")


@pytest.mark.usefixtures("ten_pairs")
def test_what_cannot_be_put_back_is_told_with_its_own_exit_code(
    tree: Host, run: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Removing(Steady):
        def setup(self) -> None:
            if tree.read_text("/proc/sys/vm/quiet").strip() == "20":
                (tree.root / "proc/sys/vm/quiet").unlink()

    monkeypatch.setattr(measuring, "choose_probes", lambda options, cpu: ([Removing()], []))
    items, drivers = plan(tree, {"vm.quiet": "20"})
    with pytest.raises(TvopsError, match=r"vm\.quiet: .*see tvops tune rollback") as error:
        measure(items, CATALOGUE, drivers, run, Options(seconds=5, settle_seconds=0.0), lambda progress: None)
    assert error.value.exit_code == ExitCode.INCOMPLETE
    assert run.run.state == "incomplete"


def test_with_nothing_to_measure_nothing_is_done(tree: Host, run: Journal) -> None:
    evidence = measured(run, tree, [Steady()], 60, wishes={"vm.done": "7", "vm.fixed": "2"})
    assert (evidence.measured, evidence.control, evidence.pairs) == ((), (), 0)
    assert [left.what for left in evidence.not_measured] == ["vm.fixed"]
    assert "No change was measured" in render_markdown(evidence)


def test_too_short_a_time_is_refused_before_anything_is_changed(tree: Host, run: Journal) -> None:
    with pytest.raises(UsageError, match=r"--seconds 0\.1: 3 changes and the control take at least"):
        measured(run, tree, [WakeUp()], 0.1)
    assert run.run.entries == {}


# However it ends


def start_measuring(tree: Path, state: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a measurement; give it once a change is in force, and the partners that it has started."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.evidence_tree", str(tree), str(state)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    quiet = snapshot(tree)
    partners: list[int] = []
    for line in process.stdout:
        partners.append(int(line))
        if snapshot(tree) != quiet:
            return process, partners
        process.stdin.write("go on\n")
        process.stdin.flush()
    process.communicate()
    raise AssertionError("the measurement ended before a change was seen")


def test_after_kill_9_the_next_call_puts_everything_back(tree: Host, tmp_path: Path) -> None:
    before = snapshot(tree.root)
    process, partners = start_measuring(tree.root, tmp_path / "state")
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in partners):
        assert time.monotonic() < deadline, "a partner outlives the measurement"
        time.sleep(0.01)
    _, drivers = plan(tree)
    directory = StateDirectory(tmp_path / "state")
    with directory.lock(5, "recover"):
        [interrupted] = directory.interrupted()
        with directory.open_run(interrupted.id) as run:
            recovered = recover(run, "undo", CATALOGUE, drivers)
            assert not [one for one in recovered.restored if one.incomplete]
    assert snapshot(tree.root) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_puts_everything_back(tree: Host, tmp_path: Path, number: signal.Signals) -> None:
    before = snapshot(tree.root)
    process, _ = start_measuring(tree.root, tmp_path / "state")
    process.send_signal(number)
    process.communicate(timeout=60)  # its input ends, so that it goes on
    assert process.returncode not in (0, 9)
    assert snapshot(tree.root) == before
    [run] = StateDirectory(tmp_path / "state").runs()
    assert run.state == "rolled back"


@pytest.mark.usefixtures("ten_pairs")
def test_a_signal_is_told(tree: Host, run: Journal) -> None:
    class Interrupting(Steady):
        left = 25

        def setup(self) -> None:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGTERM)

    before = snapshot(tree.root)
    with pytest.raises(StoppedError, match="SIGTERM"):
        measured(run, tree, [Interrupting()], 5)
    assert snapshot(tree.root) == before
