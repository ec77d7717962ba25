"""Knobs that drift: on a tree of files that stands for a host, and on a real stack."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.command_line import tvops
from tests.stack import Stack
from tests.top_documents import BEGIN, Engine
from tests.tuning_tree import CATALOGUE, FACTS, Tree
from tvops.engine.knob_table import FILE_NAME, Knob, KnobTable, TableReader, place_text, write_table
from tvops.engine.stack_tuning import Effect
from tvops.engine.telemetry.document import Telemetry
from tvops.engine.telemetry.events import EventLog
from tvops.engine.telemetry.knob_events import MOST_A_LOOK, KnobEvents
from tvops.engine.tuning_report import started
from tvops.settings import Settings
from tvops.tuning.apply import apply_plan
from tvops.tuning.host import Host
from tvops.tuning.model import Profile, Wish
from tvops.tuning.rollback import roll_back
from tvops.tuning.values import canonical, parse_wanted
from tvops.tuning.watch.memory import KnobWatch

pytestmark = pytest.mark.timeout(600)  # several waits of a test may take 100 s each
SWAPPINESS = "/proc/sys/vm/swappiness"


def watch(tree: Tree, **wishes: object) -> KnobWatch:
    """Watch over wishes, `_` for `.` in their names."""
    listed = tuple(
        Wish(knob=next(name for name in CATALOGUE if name.replace(".", "_") == knob), value=value)
        for knob, value in wishes.items()
    )
    profile = Profile(name="test", description="", settings={}, wishes=listed, facts=FACTS)
    settings = Settings(data_dir=str(tree.root.parent / "data"))
    looks = count(1)  # a clock that only goes forward, whatever is done to that of the host
    return KnobWatch(profile, CATALOGUE, Host(tree.root), settings, tree.state, lambda: next(looks))


def states(knobs: tuple[Knob, ...]) -> dict[tuple[str, tuple[str, ...]], str]:
    return {(knob.knob, knob.places): knob.state for knob in knobs}


def test_what_nobody_tuned_differs_and_what_cannot_be_had_says_why(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    (tree.root / "sys/kernel/mm/transparent_hugepage/enabled").unlink()
    found = watch(tree, vm_swappiness="<=10", vm_thp="never", net_core_rmem_max=">=1mb").look(())
    assert states(found) == {
        ("vm.swappiness", ()): "differs",
        ("vm.thp", ()): "not here",
        ("net.core.rmem_max", ()): "in force",
    }
    assert [knob.state for knob in found] == ["differs", "not here", "in force"]
    by_name = {knob.knob: knob for knob in found}
    assert (by_name["vm.swappiness"].now, by_name["vm.swappiness"].wanted) == ("60", "<=10")
    assert by_name["net.core.rmem_max"].wanted == ">=1048576"
    assert (by_name["vm.thp"].now, bool(by_name["vm.thp"].reason)) == (None, True)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 20), max_size=12))
def test_a_knob_has_drifted_where_it_was_in_force_and_is_not(
    tmp_path_factory: pytest.TempPathFactory, values: list[int]
) -> None:
    tree = Tree(tmp_path_factory.mktemp("host"), {SWAPPINESS: "60\n"})
    looks = watch(tree, vm_swappiness="<=10")
    ever, before = False, None
    for value in [60, *values]:
        tree.write(SWAPPINESS, f"{value}\n")
        [knob] = looks.look(())
        ever = ever or value <= 10
        assert knob.now == str(value)
        assert knob.state == ("in force" if value <= 10 else "drifted" if ever else "differs")
        if before is not None:
            assert (knob.since == before.since) == (knob.state == before.state)
            assert knob.looked > before.looked
        before = knob


def test_what_the_last_run_wrote_has_drifted_at_the_first_look(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    items = tree.plan({"vm.swappiness": "<=10", "net.core.rmem_max": ">=16mb"})
    with tree.state.lock(1, "tvops tune"), tree.begin(items) as journal:
        apply_plan(items, CATALOGUE, tree.drivers, journal)
    tree.write(SWAPPINESS, "60\n")
    tree.write("/etc/sysctl.d/90-other.conf", "vm.swappiness = 60\n")
    looks = watch(tree, vm_swappiness="<=10", net_core_rmem_max=">=16mb", vm_nr_hugepages=8)
    found = {knob.knob: knob for knob in looks.look(())}
    assert {name: knob.state for name, knob in found.items()} == {
        "vm.swappiness": "drifted", "net.core.rmem_max": "in force", "vm.nr_hugepages": "differs",
    }  # fmt: skip
    assert "/etc/sysctl.d/90-other.conf:1 sets it to 60" in found["vm.swappiness"].reason
    again = {knob.knob: knob for knob in looks.look(())}
    assert again["vm.swappiness"].reason == found["vm.swappiness"].reason
    tree.write(SWAPPINESS, "10\n")
    assert {knob.state for knob in looks.look(()) if knob.knob == "vm.swappiness"} == {"in force"}


def test_what_a_run_wrote_counts_no_more_once_it_was_rolled_back(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    items = tree.plan({"vm.swappiness": "<=10"})
    with tree.state.lock(1, "tvops tune"), tree.begin(items) as journal:
        apply_plan(items, CATALOGUE, tree.drivers, journal)
        tree.write(SWAPPINESS, "55\n")
        looks = watch(tree, vm_swappiness="<=10")
        assert [knob.state for knob in looks.look(())] == ["drifted"]
        roll_back(journal, CATALOGUE, tree.drivers, force=True)
    assert [(knob.state, knob.now) for knob in looks.look(())] == [("differs", "60")]


def test_journals_that_cannot_be_read_count_as_none(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    items = tree.plan({"vm.swappiness": "<=10"})
    with tree.state.lock(1, "tvops tune"), tree.begin(items) as journal:
        apply_plan(items, CATALOGUE, tree.drivers, journal)
    tree.write(SWAPPINESS, "60\n")
    path = tree.state.path / "journal" / f"{journal.run.id}.jsonl"
    path.write_text("damaged\n" + path.read_text())
    assert [knob.state for knob in watch(tree, vm_swappiness="<=10").look(())] == ["differs"]


def test_places_of_which_the_same_holds_are_one_row(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    looks = watch(tree, irq_affinity="0-3")
    assert states(looks.look(())) == {("irq.affinity", ("irq24", "irq25")): "in force"}
    tree.write("/proc/irq/25/smp_affinity_list", "1\n")
    assert states(looks.look(())) == {
        ("irq.affinity", ("irq24",)): "in force",
        ("irq.affinity", ("irq25",)): "drifted",
    }


def effect(**fields: object) -> Effect:
    told = {"kind": "process", "name": "nice", "target": "engine", "wanted": "0", "got": "0", "state": "applied"}
    return Effect(**{**told, **fields})  # type: ignore[arg-type]


def test_the_stack_is_read_again_and_what_nobody_can_read_stays_as_told(tmp_path: Path) -> None:
    looks = watch(Tree(tmp_path))
    child = subprocess.Popen(["sleep", "60"])
    nice = str(os.getpriority(os.PRIO_PROCESS, child.pid))
    lower = str(int(nice) + 3)
    effects = [
        effect(wanted=nice, got=nice, pid=child.pid),
        effect(kind="socket", name="TCP_NODELAY", target="gateway", wanted="1", got="1"),
        effect(kind="redis", name="hz", target="ledger", wanted="10", got="10"),
        effect(name="oom_score_adj", wanted="-500", got="0", state="denied", reason="needs root", pid=child.pid),
        effect(name="nofile", wanted="9", state="left"),
    ]
    try:
        found = looks.look(effects)
        assert [(knob.state, knob.told) for knob in found] == [
            ("not here", False), ("in force", False), ("in force", True), ("in force", True),
        ]  # fmt: skip
        assert found[0].reason == "needs root"
        os.setpriority(os.PRIO_PROCESS, child.pid, int(lower))
        drifted = looks.look(effects)[0]
        assert (drifted.knob, drifted.now, drifted.state) == ("nice", lower, "drifted")
        told = {knob.knob: knob.looked for knob in found if knob.told}
        assert {knob.knob: knob.looked for knob in looks.look(effects) if knob.told} == told
    finally:
        child.kill()
        child.wait()


def test_what_is_wanted_reads_in_canonical_form() -> None:
    def shown(knob: str, value: object) -> str:
        return canonical(CATALOGUE[knob], parse_wanted(CATALOGUE[knob], value), FACTS)

    assert shown("net.core.rmem_max", ">=16mb") == ">=16777216"
    assert shown("net.ipv4.tcp_rmem", "4096 - >=1024") == "4096 - >=1024"
    assert shown("vm.thp", "madvise|never") == "madvise|never"
    assert shown("irq.affinity", "$irq") == "0"
    assert shown("irq.affinity", "-") == "-"


def row(state: str, now: str | None = "1", places: tuple[str, ...] = (), **more: object) -> Knob:
    fields = {"kind": "sysctl", "knob": "net.core.somaxconn", "wanted": ">=4096", "since": 1, "looked": 2}
    return Knob(places=places, now=now, state=state, **{**fields, **more})  # type: ignore[arg-type]


def test_drift_that_comes_and_goes_is_an_event_and_nothing_else_is() -> None:
    log = EventLog()
    events = KnobEvents()
    tables = [
        (row("in force", "4096"),),
        (row("drifted", "128", reason="x.conf sets it"),),
        (row("drifted", "128", reason="x.conf sets it"),),
        (),  # nobody looks
        (row("drifted", "64"),),
        (row("in force", "4096"),),
        (row("differs", "5", ("a", "b")),),
        (row("drifted", "5", ("a", "b")),),
        (row("drifted", "5", ("a",)), row("not here", None, ("b",))),
    ]
    for table in tables:
        events.compare("prod", table)
        events.tell(log)
    assert [(event.severity, event.about, event.text) for event in log.newest] == [
        ("warn", "net.core.somaxconn", "128, profile prod wants >=4096; drifted: x.conf sets it"),
        ("warn", "net.core.somaxconn", "64, profile prod wants >=4096; drifted"),
        ("info", "net.core.somaxconn", "4096 again, as profile prod wants"),
        ("warn", "net.core.somaxconn", "a, b: 5, profile prod wants >=4096; drifted"),
        ("info", "net.core.somaxconn", "b: not known, profile prod wants >=4096; not here"),
    ]


def test_places_of_which_different_things_are_to_be_said_have_events_of_their_own() -> None:
    log = EventLog()
    events = KnobEvents()
    rows = [row("drifted", "1", (place,), wanted=wanted) for place, wanted in (("a", "2"), ("b", "3"), ("c", "2"))]
    events.compare("prod", rows)
    events.tell(log)
    events.tell(log)
    assert [event.text for event in log.newest] == [
        "a, c: 1, profile prod wants 2; drifted",
        "b: 1, profile prod wants 3; drifted",
    ]


def test_one_look_makes_a_bounded_number_of_events() -> None:
    log = EventLog()
    events = KnobEvents()
    places = tuple(f"cpu{number}" for number in range(4096))
    events.compare("prod", [row("drifted", "0", places, knob=f"cpu.{number}") for number in range(30)])
    events.tell(log)
    assert log.count == MOST_A_LOOK + 1
    assert log.newest[0].text == "cpu0 … cpu4095 (4096): 0, profile prod wants >=4096; drifted"
    last = log.newest[-1]
    assert (last.severity, last.about) == ("warn", "knobs")
    assert last.text == "and 10 more changes, which the table of knobs shows"


def test_a_table_counts_for_as_long_as_its_supervisor_lives(tmp_path: Path) -> None:
    reader = TableReader(tmp_path)
    assert reader.read() is None
    table = KnobTable(pid=os.getpid(), started=started(os.getpid()), every=30.0, knobs=(row("in force"),))
    write_table(tmp_path, table)
    found = reader.read()
    assert found == table
    assert reader.read() is found
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    write_table(tmp_path, msgspec.structs.replace(table, started=1))
    assert reader.read() is None
    (tmp_path / FILE_NAME).write_bytes(b"{")
    assert reader.read() is None


def test_what_somebody_put_in_place_of_a_table_is_no_table(tmp_path: Path) -> None:
    table = KnobTable(pid=os.getpid(), started=started(os.getpid()), every=30.0, knobs=(row("in force"),))
    write_table(tmp_path, table)
    path, kept = tmp_path / FILE_NAME, tmp_path / "kept.json"
    reader = TableReader(tmp_path)
    assert reader.read() == table
    path.rename(kept)
    path.symlink_to(kept)
    assert reader.read() is None
    path.unlink()
    os.mkfifo(path)  # opened for reading as other files are, it would wait for a writer for ever
    assert reader.read() is None
    path.unlink()
    path.mkdir()
    assert reader.read() is None
    path.rmdir()
    path.write_bytes(b'{"x":' + b"[" * 500_000)
    assert reader.read() is None
    kept.replace(path)
    assert reader.read() == table


def test_a_table_is_not_written_through_a_link(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("kept")
    (tmp_path / f"{FILE_NAME}.new").symlink_to(theirs)
    table = KnobTable(pid=os.getpid(), started=started(os.getpid()), every=30.0, knobs=())
    write_table(tmp_path, table)
    assert theirs.read_text() == "kept"
    assert TableReader(tmp_path).read() == table


def test_a_document_of_before_has_no_table() -> None:
    whole = msgspec.msgpack.decode(msgspec.msgpack.encode(Engine().document(BEGIN)))
    assert whole["knobs"]
    old = msgspec.msgpack.encode({name: whole[name] for name in whole if name not in ("knobs", "knobs_seconds")})
    assert msgspec.msgpack.decode(old, type=Telemetry).knobs == ()


def test_many_places_are_named_by_the_first_and_the_last() -> None:
    assert place_text(()) == ""
    assert place_text(("engine", "market")) == "engine, market"
    assert place_text([f"cpu{number}" for number in range(8)]) == "cpu0 … cpu7 (8)"


# A real stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("watched")
    profiles = folder / "profiles.d"
    profiles.mkdir()
    (profiles / "own.yaml").write_text(
        "applies_to: dev\nknobs:\n  process.affinity@engine: '0'\n  redis.slowlog-max-len: 300\n"
        "  net.core.somaxconn: '>=1'\n"
    )
    environment = {"TVOPS_STATE_DIR": str(folder / "state"), "TVOPS_PROFILES_DIR": str(profiles)}
    with Stack(
        folder / "data", "--set", "knobs_seconds=1", "--feed", "synthetic:20", environment=environment
    ) as running:
        yield running.start()


def wait_for(stack: Stack, knob: str, place: str, state: str) -> Telemetry:
    """Wait until a place is in a state; give the document that says so."""
    deadline = time.monotonic() + 100
    while True:
        answer = httpx.get(
            f"{stack.gateway}/telemetry", headers={"Accept": "application/msgpack"}, timeout=60, verify=False
        )
        document = msgspec.msgpack.decode(answer.content, type=Telemetry)
        found = [row for row in document.knobs if row.knob == knob and place in (row.places or ("",))]
        if [row.state for row in found] == [state]:
            return document
        assert time.monotonic() < deadline, document.knobs
        time.sleep(0.1)


def test_a_stack_tells_of_its_knobs_and_those_of_its_host(stack: Stack) -> None:
    wait_for(stack, "net.core.somaxconn", "", "in force")
    deadline = time.monotonic() + 100
    while True:  # of a server that did not answer the first look in time, it is known as it was told
        document = wait_for(stack, "process.affinity", "engine", "in force")
        rows = [row for row in document.knobs if row.knob == "redis.slowlog-max-len"]
        if not any(row.told for row in rows):
            break
        assert time.monotonic() < deadline, rows
        time.sleep(0.1)
    assert document.knobs_seconds >= 1
    assert [(row.places, row.now) for row in rows] == [(("ledger", "market", "results"), "300")]
    metrics = httpx.get(f"{stack.gateway}/metrics", timeout=60, verify=False).text
    assert 'tvops_knobs_places{state="drifted"} 0.0' in metrics
    assert httpx.get(f"{stack.market}/telemetry", timeout=60, verify=False).json()["knobs"] == []


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_a_process_that_somebody_moved_has_drifted_until_it_is_put_back(stack: Stack) -> None:
    wait_for(stack, "process.affinity", "engine", "in force")
    engine: psutil.Process = stack.processes()["engine"]
    engine.cpu_affinity([0, 1])
    try:
        document = wait_for(stack, "process.affinity", "engine", "drifted")
        assert document.knobs[0].now == "0-1"  # what drifted comes first
        assert (
            'tvops_knobs_places{state="drifted"} 1.0'
            in httpx.get(f"{stack.gateway}/metrics", timeout=60, verify=False).text
        )
    finally:
        engine.cpu_affinity([0])
    document = wait_for(stack, "process.affinity", "engine", "in force")
    told = [event.text for event in document.events if event.about == "process.affinity"]
    assert told == ["engine: 0-1, profile dev wants 0; drifted", "engine: 0 again, as profile dev wants"]


def test_a_server_that_somebody_configured_by_hand_has_drifted_until_it_is_put_back(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvops.top.plain.PATIENCE", 60.0)
    wait_for(stack, "redis.slowlog-max-len", "market", "in force")
    path = stack.data_dir / "valkey" / "market" / "valkey.sock"
    with Redis(unix_socket_path=str(path), protocol=2) as client:
        client.config_set("slowlog-max-len", "17")
        document = wait_for(stack, "redis.slowlog-max-len", "market", "drifted")
        shown = tvops("top", "--json", f"{stack.gateway},{stack.market}").stdout
        client.config_set("slowlog-max-len", "300")
    assert {row.places for row in document.knobs if row.knob == "redis.slowlog-max-len"} == {
        ("market",), ("ledger", "results"),
    }  # fmt: skip
    rows = [row for port in json.loads(shown)["stacks"][0]["endpoints"] for row in port["telemetry"]["knobs"]]
    assert [row["now"] for row in rows if row["state"] == "drifted"] == ["17"]
    wait_for(stack, "redis.slowlog-max-len", "market", "in force")


def test_a_table_that_cannot_be_written_is_told_once_and_written_when_it_can(stack: Stack) -> None:
    in_the_way = stack.data_dir / f"{FILE_NAME}.new"
    in_the_way.mkdir()
    message = f"{FILE_NAME} could not be written, so the knobs shown stay old: Is a directory"
    deadline = time.monotonic() + 100
    try:
        while message not in stack.log.read_text():
            assert time.monotonic() < deadline, stack.tail()
            time.sleep(0.1)
    finally:
        in_the_way.rmdir()
    written = (stack.data_dir / FILE_NAME).stat().st_ino
    while (stack.data_dir / FILE_NAME).stat().st_ino == written:
        assert time.monotonic() < deadline, stack.tail()
        time.sleep(0.1)
    assert stack.log.read_text().count(message) == 1
    assert "could not be compared" not in stack.log.read_text()


def test_the_table_goes_with_the_stack(stack: Stack) -> None:
    wait_for(stack, "process.affinity", "engine", "in force")
    stack.stop()
    assert not (stack.data_dir / FILE_NAME).exists()
