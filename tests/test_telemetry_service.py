"""The telemetry of a process: its stages, pauses, uptime, events and document."""

from __future__ import annotations

import asyncio
import gc
import time

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from tests.gateway_fixtures import running_gateway
from tests.stream_client import ANY_PORT, TABLE, on_uvloop
from tvops.engine.bus.roles import Bus
from tvops.engine.gateway.auth import create_key
from tvops.engine.services import Health
from tvops.engine.stream.service import StreamService
from tvops.engine.telemetry import service as telemetry_service
from tvops.engine.telemetry.document import Process, Server, Telemetry
from tvops.engine.telemetry.events import MOST, MOST_OFTEN, EventLog, Watch
from tvops.engine.telemetry.pauses import INTERVAL_MS, SETTLED_NS, CollectionPauses, LoopLag, Pause
from tvops.engine.telemetry.recorder import Recorder
from tvops.engine.telemetry.service import TelemetryService
from tvops.engine.telemetry.stack_watch import StackWatch
from tvops.engine.telemetry.stages import STAGES, Stages
from tvops.engine.telemetry.uptime import Past, Uptime
from tvops.settings import Settings


async def test_both_encodings_of_a_gateway_with_its_stages(bus: Bus) -> None:
    async with running_gateway(bus) as gateway:
        for _ in range(3):
            assert (await gateway.order()).status_code == 201
        while True:  # until it has noted the last reply, and both tell of the same moment
            packed = await gateway.client.get("/telemetry", headers={"Accept": "application/msgpack"})
            plain = await gateway.client.get("/telemetry", headers={"Accept": "application/msgpack;q=0, */*"})
            document = msgspec.msgpack.decode(packed.content, type=Telemetry)
            same = msgspec.json.decode(plain.content, type=Telemetry)
            if same.time == document.time and document.stages["gateway_to_reply"].histogram.unpack().sum() >= 3:
                break
            await asyncio.sleep(0.05)
    assert packed.headers["content-type"] == "application/msgpack"
    assert plain.headers["content-type"] == "application/json"
    assert same.stages == document.stages
    for stage in ("gateway_to_durable", "gateway_to_reply"):
        assert document.stages[stage].histogram.unpack().sum() == 3, stage
        assert document.stages[stage].histogram.negative == 0
    assert document.stages["gateway_to_reply"].histogram.maximum > (
        document.stages["gateway_to_durable"].histogram.maximum // 2
    )


async def test_only_admins_see_the_sessions(bus: Bus) -> None:
    keys = {admin: (await create_key(bus.ledger, f"admin-{admin}", admin))[0] for admin in (True, False)}
    async with running_gateway(bus, api_keys="required") as gateway, gateway.socket() as client:
        await client.ask(op="auth", key=keys[False])
        assert (await gateway.client.get("/telemetry")).status_code == 401
        seen = {}
        for admin, key in keys.items():
            answer = await gateway.client.get("/telemetry", headers={"X-API-Key": key})
            seen[admin] = msgspec.json.decode(answer.content, type=Telemetry).sessions
    assert [session.account for session in seen[True]] != [""]
    assert len(seen[True]) == 1
    assert seen[False] == ()


@on_uvloop
async def test_only_admins_see_the_sessions_of_the_market_port(bus: Bus) -> None:
    keys = {admin: (await create_key(bus.ledger, f"admin-{admin}", admin))[0] for admin in (True, False)}
    settings = Settings(**ANY_PORT, api_keys="required")
    service = StreamService(settings, bus, TABLE)
    await service.start()
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=60, verify=False) as client,
            connect(f"ws://127.0.0.1:{service.port}/ws", additional_headers={"X-API-Key": keys[False]}),
        ):
            assert (await client.get("/telemetry")).status_code == 401
            seen = {}
            for admin, key in keys.items():
                answer = await client.get("/telemetry", headers={"X-API-Key": key})
                seen[admin] = msgspec.json.decode(answer.content, type=Telemetry)
    finally:
        await service.stop()
    assert len(seen[True].sessions) == 1
    assert seen[True].sessions[0].account
    assert seen[False].sessions == ()
    assert {"publish_to_send", "history_load"} <= set(seen[False].stages)


def counted(document: Telemetry) -> set[str]:
    """Give the stages that have samples."""
    return {name for name, stage in document.stages.items() if stage.histogram.unpack().sum()}


async def test_a_service_samples_its_process_its_servers_and_its_sessions(bus: Bus) -> None:
    measured = {"loop_lag", "redis_round_trip_ledger"}
    async with running_gateway(bus) as gateway:
        telemetry = TelemetryService("engine", gateway.settings, bus, Past(begun=time.monotonic_ns()))
        telemetry.compile()
        telemetry.watch((gateway.engine, gateway.service), gateway.service.listed_sessions)
        async with gateway.socket() as client:
            await client.ask(op="ping")
            await telemetry.start()
            try:
                async with asyncio.timeout(60):
                    while True:
                        whole = msgspec.msgpack.decode(telemetry.encoded("application/msgpack")[0], type=Telemetry)
                        if whole.servers and whole.metrics and measured <= counted(whole):
                            break
                        await asyncio.sleep(0.05)
                part = msgspec.json.decode(telemetry.encoded("text/html", whole=False)[0], type=Telemetry)
            finally:
                await telemetry.stop()
    assert {server.role: server.up for server in whole.servers} == dict.fromkeys(
        ("ledger", "market", "results"), True
    )
    assert [session.messages for session in whole.sessions] == [1]
    assert part.sessions == ()
    assert whole.host is not None
    assert "engine" in {process.name for process in whole.processes}
    states = {metric.name: metric.state for metric in whole.metrics}
    assert states["tv_uptime"] == states["tv_max_concurrent_sessions"] == "ok"
    assert states["tv_order_execution_latency"] == "no data"
    assert set(whole.stages) <= set(STAGES)
    assert not any(callback.__qualname__.startswith("CollectionPauses") for callback in gc.callbacks)


async def test_a_blocked_loop_shows_in_its_lag() -> None:
    recorder = Recorder()
    lag = LoopLag(recorder)
    begun = time.monotonic_ns()
    lag.start()
    await asyncio.sleep(0.05)
    time.sleep(0.1)
    await asyncio.sleep(0.01)
    lag.stop()
    now = time.monotonic_ns()
    taken = lag.take(now + SETTLED_NS)
    assert max(stall.length for stall in taken) == recorder.maximum >= (99 - INTERVAL_MS) * 1_000_000
    assert all(begun < stall.end < now for stall in taken)
    assert lag.take(now + SETTLED_NS) == []
    before = recorder.total
    await asyncio.sleep(0.05)
    assert recorder.total == before


async def test_a_lag_is_given_once_its_cause_is_known() -> None:
    lag = LoopLag(Recorder())
    lag.start()
    await asyncio.sleep(0.01)
    time.sleep(0.05)
    await asyncio.sleep(0.001)
    lag.stop()
    end = lag.take(time.monotonic_ns() + SETTLED_NS)[-1].end
    lag._lags.append(Pause(end, 7_000_000))
    assert lag.take(end + SETTLED_NS - 1) == []
    assert lag.take(end + SETTLED_NS) == [(end, 7_000_000)]


def test_collections_show_as_pauses() -> None:
    recorder = Recorder()
    pauses = CollectionPauses(recorder)
    pauses.start()
    gc.collect(0)
    pauses.stop()
    gc.collect(0)
    pauses.flush()
    assert recorder.total >= 1
    count = recorder.total
    pauses.flush()
    assert recorder.total == count


def test_stages_have_one_recorder_each() -> None:
    stages = Stages()
    assert stages.add("loop_lag") is stages.add("loop_lag")
    assert stages.get("gc_pause") is None
    with pytest.raises(KeyError):
        stages.add("warp")
    stages.add("feed_to_publish")
    assert list(stages.packed()) == ["feed_to_publish", "loop_lag"]


@given(st.lists(st.tuples(st.integers(1, 10**9), st.booleans()), max_size=40), st.booleans())
def test_uptime_is_the_time_served_since_it_first_was(steps: list[tuple[int, bool]], again: bool) -> None:
    past = Past(begun=1000, restarts=1, served_since=400, down=100) if again else Past(begun=1000)
    uptime, now = Uptime(past), 1000
    served, whole = (500, 600) if again else (0, 0)
    serving, known = False, again
    for pause, state in steps:
        now += pause
        if known:
            served, whole = served + (pause if serving else 0), whole + pause
        known, serving = known or state, state
        uptime.update(now, state)
    assert (uptime.recovery is None) == (not any(state for _, state in steps))
    if not known:
        assert uptime.percent is None
    elif whole:
        assert uptime.percent == pytest.approx(100 * served / whole)


@given(st.lists(st.tuples(st.integers(1, 10**9), st.sampled_from(["serves", "waits", "ends"])), max_size=60))
def test_uptime_goes_on_over_restarts(steps: list[tuple[int, str]]) -> None:
    """Also of the time that a process before did not serve while it was there."""
    uptime, now, restarts = Uptime(Past(begun=1000)), 1000, 0
    served = whole = 0
    serving = known = False
    for pause, step in steps:
        now += pause
        if known:
            served, whole = served + (pause if serving else 0), whole + pause
        serving = step == "serves"
        known = known or serving
        if step == "ends":
            past = uptime.ended(now, "a test")
            restarts += 1
            assert (past.begun, past.restarts, past.reason) == (now, restarts, "a test")
            uptime = Uptime(past)
        else:
            uptime.update(now, serving)
    assert uptime.percent == (pytest.approx(100 * served / whole) if whole else 100.0 if known else None)


def test_a_restart_after_a_week_costs_next_to_nothing() -> None:
    second = 10**9
    first = Uptime(Past(begun=second))
    first.update(2 * second, True)
    week = 7 * 86_400 * second
    uptime = Uptime(first.ended(week, "signal SIGKILL"))
    uptime.update(week + 3 * second, False)
    uptime.update(week + 4 * second, True)
    uptime.update(week + 5 * second, True)
    assert uptime.recovery == 4
    assert uptime.percent is not None
    assert 99.999 < uptime.percent < 100


def test_the_newest_events_are_kept() -> None:
    log = EventLog()
    for number in range(MOST + 50):
        log.add("info", "test", str(number))
    assert [event.seq for event in log.newest] == list(range(51 + MOST_OFTEN, MOST + 51))


def texts(log: EventLog) -> list[tuple[str, str, str]]:
    return [(event.severity, event.about, event.text) for event in log.newest]


def test_those_that_come_often_displace_no_others() -> None:
    log = EventLog()
    log.add("warn", "test", "the first")
    for number in range(MOST):
        log.add("warn", "test", f"often {number}", moment=number, often=True)
    log.add("warn", "test", "the last")
    kept = log.newest
    assert [event.text for event in kept if not event.text.startswith("often")] == ["the first", "the last"]
    assert [event.time for event in kept[1:-1]] == list(range(MOST - MOST_OFTEN, MOST))
    assert [event.seq for event in kept] == sorted(event.seq for event in kept)
    assert log.count == MOST + 2


async def test_a_sample_that_hangs_shows_in_the_health(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = asyncio.Event()

    async def hang(watch: StackWatch) -> None:
        await answered.wait()

    monkeypatch.setattr(StackWatch, "sample", hang)
    monkeypatch.setattr(telemetry_service, "LATE_SECONDS", 0.2)
    async with running_gateway(bus) as gateway:
        telemetry = TelemetryService("engine", gateway.settings, bus)
        telemetry.compile()
        assert telemetry.health() == Health("ok")
        await telemetry.start()
        try:
            async with asyncio.timeout(60):
                while telemetry.health().state == "ok":
                    await asyncio.sleep(0.01)
                state, detail = telemetry.document().health["telemetry"]
                assert state == "degraded"
                assert "something that it reads does not answer" in detail
                monkeypatch.setattr(telemetry_service, "LATE_SECONDS", 600.0)
                answered.set()
                while not telemetry.document().metrics:
                    await asyncio.sleep(0.01)
            assert telemetry.health() == Health("ok")
        finally:
            await telemetry.stop()


def test_what_changes_is_noted() -> None:
    log = EventLog()
    watch = Watch(log)
    fields = dict.fromkeys(("started", "rss", "pss", "threads", "descriptors"), 1) | {
        "voluntary_switches": 0, "involuntary_switches": 0, "major_faults": 0, "cpu_percent": 1.0,
    }  # fmt: skip
    first = Process(name="market", pid=1, **fields)  # type: ignore[arg-type]
    watch.processes([first])
    watch.processes([msgspec.structs.replace(first, pid=2)])
    watch.processes([msgspec.structs.replace(first, pid=2, leaking=True, slope=2**20 / 3600)])
    watch.processes([])
    up = Server(role="ledger", address="a", up=True, uptime=9)
    for server in (up, msgspec.structs.replace(up, up=False), up, msgspec.structs.replace(up, uptime=1)):
        watch.servers([server])
    for state in ("starting", "ok", "degraded", "degraded"):
        watch.services({"price": Health(state, "why")})  # type: ignore[arg-type]
    for gaps in (0.0, 0.0, 2.0, 2.0, 3.0):
        watch.figures({"price.gaps": gaps})
    assert texts(log) == [
        ("warn", "market", "process 1 is gone, 2 has taken its place"),
        ("warn", "market", "its memory grows by 1.0 MiB an hour"),
        ("warn", "market", "process 2 is gone"),
        ("breach", "ledger server", "does not answer any more at a"),
        ("info", "ledger server", "answers again"),
        ("warn", "ledger server", "was restarted"),
        ("info", "price", "ok: why"),
        ("warn", "price", "degraded: why"),
        ("warn", "price", "a book of the feed lost its continuity (2 times)"),
        ("warn", "price", "a book of the feed lost its continuity"),
    ]
