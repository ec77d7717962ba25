"""Scenarios and saved results: what ships is right, and what is wrong is named by its line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from tvops.bench import result as results
from tvops.bench.children import split
from tvops.bench.conduct import Order, conduct
from tvops.bench.doors import DOORS
from tvops.bench.plan import Load, Plan
from tvops.bench.result import Result, load_result, place_to_save, save_result, saved_path
from tvops.bench.scenario import check_amount, load_scenario, phases_of, shipped
from tvops.commands.bench import loading
from tvops.commands.bench.outputs import Outputs
from tvops.errors import UsageError
from tvops.whole_files import check_place, write_whole

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", shipped())
def test_scenario_that_ships_is_right_and_documented(name: str) -> None:
    scenario = load_scenario(name)
    assert (scenario.name, bool(scenario.text), bool(scenario.targets)) == (name, True, True)
    assert f"`{name}`" in (ROOT / "docs" / "bench.md").read_text()


def test_scenarios_are_those_that_are_promised() -> None:
    assert {"steady", "ramp", "spike", "stress", "endurance", "volume", "mix"} <= set(shipped())


@pytest.mark.parametrize("name", DOORS)
def test_every_door_and_its_options_are_documented(name: str) -> None:
    page = (ROOT / "docs" / "bench.md").read_text()
    assert f"`{name}`" in page
    assert [field for field in DOORS[name].options_type.__struct_fields__ if f"`{field}`" not in page] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stack:\n  settings: {data_dir: /tmp}\nloads:\n  - {door: sessions}",
            "2: stack.settings.data_dir: a stack that bench starts has its own",
        ),
        (
            "loads:\n  - {door: sessions}\ntargets:\n  sessions: {p99_ms: .nan}",
            "4: '.nan' must be a finite number",
        ),
        ("loads: []", "1: loads: Expected `array` of length >= 1"),
        ("loads:\n  - {door: back_door, rate: 1}", "2: loads[0].door: there is no door 'back_door'"),
        ("loads:\n  - door: redis\n    rte: 1", "3: loads[0].rte: there is no such key"),
        ("loads:\n  - door: redis\n    rate: much", "3: loads[0].rate: Expected `float | null`, got `str`"),
        ("loads:\n  - door: redis", "2: loads[0]: needs exactly one of rate"),
        ("loads:\n  - {door: redis, rate: 1, closed: true}", "2: loads[0]: needs exactly one of rate"),
        ("loads:\n  - {door: sessions, rate: 1}", "2: loads[0]: sessions listens"),
        (
            "loads:\n  - door: redis\n    rate: 1\n    options:\n      mix: {pong: 1}",
            "5: loads[0].options.mix.pong: there is no such key",
        ),
        *(
            (
                f"loads:\n  - door: {door}\n    rate: 1\n    options:\n      mix: {{{kind}: 0}}",
                "5: loads[0].options.mix: at least one share has to be above 0",
            )
            for door, kind in (("redis", "ping"), ("rest_orders", "new"), ("websocket_orders", "cancel"))
        ),
        (
            "loads:\n  - {door: redis, rate: 1}\ntargets:\n  sessions: {lost: 0}",
            "4: targets.sessions: is neither stack nor a door",
        ),
        (
            "loads:\n  - {door: redis, rate: 1}\ntargets:\n  redis:\n    p98_ms: 0",
            "5: targets.redis.p98_ms: there is no such figure",
        ),
        ("loads:\n  - {door: redis, rate: 1}\nsearch: {load: 1}", "3: search.load: there are only 1 loads"),
        ("loads: [{door: redis, rate: 1}]\nsearch: {from: 9, to: 8}", "2: search.from: has to be below search.to"),
        ("- 1", "1: the file: Expected `object`, got `array`"),
        ('name: "a\\x9bb"\nloads: [{door: sessions}]', "1: name: has to be a line without control characters"),
        (
            "loads:\n  - door: redis\n    phases:\n      - {seconds: 1, rate: 0}",
            "3: loads[0].phases: need a rate above 0 in one of them",
        ),
        ("loads:\n  - {door: sessions, processes: 0}", "2: loads[0].processes: Expected `int` >= 1"),
        (
            "loads:\n  - {door: sessions, processes: 3, options: {sessions: 2}}",
            "2: loads[0].processes: 3 cannot share 2 sessions",
        ),
        ("loads:\n  - {door: websocket_orders, rate: 1, processes: 5}", "2: loads[0].processes: 5 cannot share 4"),
        (f"seed: {10**30}\nloads: [{{door: sessions}}]", "1: seed: Expected `int` <= 9007199254740992"),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_scenario(str(file))
    assert str(caught.value).startswith(f"{file}:{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seconds: 0.5\nloads: [{door: sessions}]", "there is nothing to measure in 0.5 s"),
        ("seconds: 0.5\nwarm_up: 9\nloads: [{door: redis, rate: 1}]", "there is nothing to measure in 0.5 s"),
        (
            "seconds: 0.5\nloads: [{door: redis, rate: 9}]\nsearch: {from: 1, to: 9}",
            "there is nothing to measure in 0.5 s",
        ),
        ("seconds: 80\nloads: [{door: redis, rate: 1000000}]", "82,000,000 requests are more than a run can hold"),
        (
            "seconds: 80\nloads: [{door: redis, rate: 1}]\nsearch: {to: 1000000}",
            "82,000,000 requests are more than a run can hold",
        ),
    ],
)
def test_what_no_run_can_measure_is_told_before_anything_starts(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        conduct(Order(scenario=load_scenario(str(file)), told=pytest.fail))


@pytest.mark.parametrize(
    "text",
    [
        "seconds: 0.5\nloads: [{door: sessions}, {door: redis, rate: 2}]",
        "seconds: 0.1\nloads: [{door: redis, closed: true}]",
        "seconds: 1\nloads: [{door: sessions}]",
        "seconds: 80\nloads: [{door: redis, rate: 1000000, processes: 9}]",
        "seconds: 0.5\nloads: [{door: redis, rate: 1}]\nsearch: {from: 2, to: 9}",
    ],
)
def test_what_can_be_measured_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    check_amount(load_scenario(str(file)))


def test_processes_share_the_sessions_that_nobody_named() -> None:
    load = Load(door="sessions", processes=3)
    plan = Plan(load=load, url="", phases=(), warm_up=0, seconds=1, seed=1, core=None, clean_up=False)
    assert [part.load.options["sessions"] for part in split(plan, 3)] == [4, 3, 3]


def test_phases_are_stretched_to_the_time(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("loads: [{door: redis, phases: [{seconds: 1, rate: 10, to: 20}, {seconds: 3, rate: 5}]}]")
    (load,) = load_scenario(str(file)).loads
    phases = phases_of(load, 2.0, 40.0)
    assert [(phase.seconds, phase.rate, phase.to) for phase in phases] == [
        (2, 10, None),
        (10, 10, 20),
        (30, 5, None),
    ]


def a_result() -> Result:
    return Result(
        name="orders", started=1, seconds=1.0, warm_up=0.0, seed=1, targets_of={}, spawned=False, scenario={},
        operations=(),
    )  # fmt: skip


def test_a_result_survives_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVOPS_DATA_DIR", str(tmp_path))
    path = save_result(a_result(), "before")
    assert path == tmp_path / "bench" / "before.json" == saved_path("before")
    assert load_result("before") == load_result(str(path)) == a_result()
    assert [file.name for file in path.parent.iterdir()] == ["before.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no result of tvops bench"),
        (b"[]", "is no result of tvops bench"),
        (b'{"schema": 99}', "has schema 99, this tvops reads 1"),
        (b'{"schema": 1}', "is no result of tvops bench"),
        (b"\xff\xfe", "is no result of tvops bench"),
        (b"[" * 100_000, "is no result of tvops bench"),
    ],
)
def test_what_is_no_result_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_result(str(file))


def test_a_result_that_finds_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.json"
    file.write_text("before")
    with monkeypatch.context() as patched:
        patched.setattr("tvops.whole_files.Path.replace", full)
        with pytest.raises(UsageError, match=r"x\.json: cannot be written: No space left on device"):
            save_result(a_result(), str(file))
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("x.json", "before")]


def full(*about: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_device_is_written_to_and_not_replaced() -> None:
    with pytest.raises(UsageError, match="/dev/full: cannot be written: No space left on device"):
        write_whole(Path("/dev/full"), b"x")
    assert Path("/dev/full").is_char_device()


def test_a_histogram_log_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.hlog").write_text("of yesterday")
    with pytest.raises(UsageError, match=r"x\.hlog: exists already; name another file"):
        Outputs(hlog=tmp_path / "x.hlog").check()
    Outputs(hlog=tmp_path / "y.hlog").check()


def test_where_nothing_can_be_written_is_told_before_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="there is no folder"):
        place_to_save(str(tmp_path / "new" / "deep" / "x.json"))
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="file is no folder"):
        place_to_save(str(tmp_path / "file" / "x.json"))
    with pytest.raises(UsageError, match="file is no folder"):
        check_place(tmp_path / "file" / "x.html")
    with pytest.raises(UsageError, match="there is no folder"):
        check_place(tmp_path / "other" / "x.html")
    with pytest.raises(UsageError, match="it is a folder"):
        check_place(tmp_path)
    with pytest.raises(UsageError, match=r"/proc/tvops/x\.json: cannot be written: "):
        write_whole(Path("/proc/tvops/x.json"), b"x")


def test_huge_and_missing_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_FILE_BYTES", 10)
    file = tmp_path / "x.json"
    file.write_bytes(msgspec.json.encode(a_result()))
    with pytest.raises(UsageError, match="is larger than"):
        load_result(str(file))
    with pytest.raises(UsageError, match="there is no such result"):
        load_result(str(tmp_path / "y.json"))
    with pytest.raises(UsageError, match="is no name of a result"):
        load_result("a b")


def test_a_scenario_is_named_like_its_file_whatever_that_has_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.yaml"
    path.write_text("loads:\n- {door: redis, rate: 10}\n")
    assert load_scenario(str(path)).name == "a?b"


@pytest.mark.parametrize(
    ("void", "partial", "code"), [("", "", 0), ("late", "", 4), ("", "cut", 130), ("late", "cut", 130)]
)
def test_a_run_that_was_interrupted_says_so_whatever_else_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], void: str, partial: str, code: int
) -> None:
    result = msgspec.structs.replace(a_result(), void=void, partial=partial, checks=())
    monkeypatch.setattr("tvops.bench.conduct.conduct", lambda _: result)
    assert loading._carry_out(Order(scenario=load_scenario("steady")), Outputs(), False) == code
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert all(reason in verdict for reason in (void, partial))
