"""What `tvops top` knows: differences of histograms, rates, events, freeze, recordings, replay, lines, charts."""

from __future__ import annotations

import json
import random
import stat
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.top_documents import (
    BEGIN,
    GATEWAY,
    MARKET,
    SECOND,
    STACK,
    Engine,
    Market,
    counts_of,
    histogram_of,
    latencies,
    model_after,
)
from tvops.engine.telemetry.document import Stage
from tvops.engine.telemetry.histogram import RELATIVE_ERROR, Histogram, percentiles
from tvops.errors import UsageError
from tvops.telemetry_client import Reading
from tvops.terminal import clean
from tvops.top.addresses import Stack, find_stacks
from tvops.top.baseline import read_baseline, take_baseline
from tvops.top.charts import Plot, bars
from tvops.top.filter import LINE, Filter
from tvops.top.history import Series, StageHistory, largest
from tvops.top.lines import Span, duration, fit, number, plain, span_of, spark
from tvops.top.model import KEPT_SERIES, KEPT_STAGES, Model, metrics_of, stages_of
from tvops.top.plain import csv_head, csv_rows, to_json
from tvops.top.recording import HEADER, MAGIC, Recording, Writer
from tvops.top.replay import Replay
from tvops.top.table import Choice, Column, arrange, columns_for


@given(st.lists(st.lists(st.integers(0, 10**11), max_size=30), min_size=1, max_size=12))
def test_a_window_holds_what_was_counted_in_it(seconds: list[list[int]]) -> None:
    history, samples = StageHistory("a → b"), [777]
    history.add(BEGIN, histogram_of(samples))
    for number_, more in enumerate(seconds, 1):
        samples += more
        history.add(BEGIN + number_ * SECOND, histogram_of(samples))
    until = BEGIN + len(seconds) * SECOND
    for window in (1, 3, 100):
        expected = counts_of([value for more in seconds[-window:] for value in more])
        assert (history.window(until, window) == expected).all()
    assert (history.since_reset == counts_of([value for more in seconds for value in more])).all()
    assert (sum(c for c in history.columns(until, len(seconds), 4) if c is not None) == history.since_reset).all()


def test_percentiles_of_a_window_are_those_of_its_samples() -> None:
    samples, history = latencies(1, 500, 2e6), StageHistory("x")
    history.add(BEGIN, histogram_of(samples))
    new = latencies(2, 4000, 5e6)
    history.add(BEGIN + SECOND, histogram_of(samples + new))
    found = percentiles(history.window(BEGIN + SECOND, 10), [50, 99])
    for value, percent in zip(found, (50, 99), strict=True):
        exact = np.percentile(new, percent, method="inverted_cdf")
        assert exact <= value <= exact * (1 + RELATIVE_ERROR) + 1


def test_documents_that_come_often_share_a_bin_of_a_second() -> None:
    history, samples = StageHistory("x"), []
    for quarter in range(41):
        samples.append(1000 + quarter)
        history.add(BEGIN + quarter * SECOND // 4, histogram_of(samples))
    assert len(history.bins) == 10
    assert [kept.total for kept in history.bins] == [4] * 10
    assert history.rate(BEGIN + 10 * SECOND, 100) == pytest.approx(4.0)


def test_history_is_bounded() -> None:
    history, series = StageHistory("x"), Series()
    for second in range(9000):
        history.add(BEGIN + second * SECOND, histogram_of([5] * (second % 7)))
        series.add(BEGIN + second * SECOND, float(second))
    assert len(history.bins) == 3600
    assert len(series.last(BEGIN + 9000 * SECOND, 100_000)) <= 7200
    assert series.last(BEGIN + 9000 * SECOND, 2) == [8998.0, 8999.0]


def test_counts_that_went_down_are_of_another_process() -> None:
    history = StageHistory("x")
    history.add(BEGIN, histogram_of([100] * 50))
    history.add(BEGIN + SECOND, histogram_of([100] * 3))
    assert int(history.since_reset.sum()) == 3


def test_the_largest_is_exact_where_it_can_be() -> None:
    counts = counts_of([1_000_003])
    assert largest(counts, 1_000_003) == 1_000_003
    assert largest(counts, 9_000_000) - 1_000_003 < 1_000_003 * RELATIVE_ERROR
    assert largest(counts_of([]), 5) == 0


def test_rates_are_differences_over_time_and_unknown_before_two_documents() -> None:
    model = Model((STACK,))
    market = Market()
    model.take(Reading(MARKET, market.document(BEGIN), "", 0, True))
    source = model.sources[MARKET]
    assert source.rate(BEGIN, "stream", "messages_sent") is None
    model.take(Reading(MARKET, market.document(BEGIN + 2 * SECOND), "", 0, True))
    assert source.rate(BEGIN + 2 * SECOND, "stream", "messages_sent") == pytest.approx(19_000)


def test_a_restart_is_told_and_counts_from_zero() -> None:
    model, now = model_after(5)
    old = len(model.sources[GATEWAY].events)
    engine = Engine(started=BEGIN + 6 * SECOND, pid=77)
    model.take(Reading(GATEWAY, engine.document(BEGIN + 7 * SECOND), "", now, True))
    model.take(Reading(GATEWAY, engine.document(BEGIN + 8 * SECOND), "", now, True))
    events = model.sources[GATEWAY].events
    assert events[old].text == "engine has restarted (process 77)"
    assert [event.seq for event in events[old + 1 :]] == [0, 1, 2]  # of the new process, each once
    stage = model.sources[GATEWAY].stages["gateway_to_reply"]
    assert int(stage.window(BEGIN + 8 * SECOND, 2).sum()) == 800


def test_connections_that_are_lost_stale_and_back() -> None:
    model, now = model_after(3)
    engine, market = model.moment(now).seen(0)
    assert (engine.state, engine.fresh) == ("live", True)
    late = model.moment(now + 4 * SECOND).seen(0)[0]
    assert (late.state, late.fresh) == ("stale", False)
    model.take(Reading(GATEWAY, None, "connection refused", now, False))
    assert model.moment(now).seen(0)[0].state == "lost"
    assert model.moment(now).seen(0)[0].document is engine.document
    assert model.moment(now).seen(0)[1].state == market.state == "live"
    again = msgspec.structs.replace(engine.document, time=BEGIN + 9 * SECOND)
    model.take(Reading(GATEWAY, again, "", now, True))
    assert model.moment(now).seen(0)[0].state == "live"
    assert Model((STACK,)).moment(0).seen(0)[0].state == "connecting"


def test_an_old_document_changes_nothing() -> None:
    model, now = model_after(5)
    source = model.sources[GATEWAY]
    before = source.document
    model.take(Reading(GATEWAY, msgspec.structs.replace(before, time=BEGIN), "", now, True))
    assert source.document is before


def test_what_is_told_of_no_more_goes_before_what_still_is() -> None:
    first = Engine().document(BEGIN)
    stage, metric = first.stages["loop_lag"], msgspec.structs.replace(first.metrics[0], value=1.0, p99=None)
    model = Model((STACK,))
    for second in range(20):
        document = msgspec.structs.replace(
            first,
            time=BEGIN + second * SECOND,
            stages={"loop_lag": stage, **{f"s{second}.{number}": stage for number in range(200)}},
            metrics=(metric, *(msgspec.structs.replace(metric, name=f"m{second}.{n}") for n in range(200))),
        )
        model.take(Reading(GATEWAY, document, "", second * SECOND, True))
    source = model.sources[GATEWAY]
    assert len(source.stages) == KEPT_STAGES
    assert len(source.series) == KEPT_SERIES
    assert len(source.stages["loop_lag"].bins) == 19
    assert len(source.trend(f"metric.{metric.name}", BEGIN + 20 * SECOND, 99)) == 20
    assert {f"s19.{number}" for number in range(200)} < set(source.stages)


def test_freeze_keeps_the_moment_and_reset_forgets() -> None:
    model, now = model_after(5)
    model.freeze(now)
    frozen = model.moment(now)
    counts = [stage.window(seen.until, 10) for seen, _, stage in stages_of(frozen.seen(0))]
    engine = Engine()
    for second in range(1, 9):
        model.take(Reading(GATEWAY, engine.document(BEGIN + second * SECOND), "", now, True))
    assert model.moment(now + 60 * SECOND) is frozen
    after = [stage.window(seen.until, 10) for seen, _, stage in stages_of(frozen.seen(0))]
    assert all((one == other).all() for one, other in zip(counts, after, strict=True))
    model.freeze(now)
    assert model.moment(now).seen(0)[0].until == BEGIN + 8 * SECOND
    model.reset()
    assert all(int(stage.since_reset.sum()) == 0 for _, _, stage in stages_of(model.moment(now).seen(0)))


def test_of_a_metric_that_several_measure_the_worst_is_shown() -> None:
    model, now = model_after(2)
    document = model.sources[GATEWAY].document
    assert document is not None
    mine = msgspec.structs.replace(document.metrics[0], name="tv_max_concurrent_sessions", value=3.0)
    worse = msgspec.structs.replace(document, time=document.time + 1, metrics=(mine,))
    model.take(Reading(GATEWAY, worse, "", now, True))
    found = {metric.name: metric.value for _, metric in metrics_of(model.moment(now).seen(0))}
    assert found["tv_max_concurrent_sessions"] == 40.0


def test_addresses_stand_for_stacks() -> None:
    def urls(*given: str, gateway: str | None = None, market: str | None = None) -> list[tuple[str, ...]]:
        return [stack.urls for stack in find_stacks(given, gateway, market, 8000, 8001)]

    assert urls() == [("http://127.0.0.1:8000", "http://127.0.0.1:8001")]
    assert urls("trade-1") == [("http://trade-1:8000", "http://trade-1:8001")]
    assert urls("http://a:9000,b:9001/", "[::1]") == [
        ("http://a:9000", "http://b:9001"),
        ("http://[::1]:8000", "http://[::1]:8001"),
    ]
    assert urls(gateway="https://g:1", market="https://m:2") == [("https://g:1", "https://m:2")]
    for wrong in ("ftp://a", "http://", "a:99999", "http://a/path", "http://user:secret@a"):
        with pytest.raises(UsageError) as failure:
            urls(wrong)
        assert "secret" not in str(failure.value)
    with pytest.raises(UsageError, match="twice"):
        urls("a:1", "a:1")


def written(path: Path, seconds: int = 200, **options: int) -> Writer:
    writer, engine, market = Writer(path, (STACK,), **options), Engine(per_second=20), Market(sessions=2)
    for second in range(1, seconds + 1):
        for url, process in ((GATEWAY, engine), (MARKET, market)):
            document = process.document(BEGIN + second * SECOND)
            writer.add(Reading(url, document, "", 0, True), document.time)
    writer.close()
    return writer


def test_a_recording_gives_back_what_was_polled_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "a.top"
    written(path, 100)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    recording = Recording(path)
    assert recording.stacks == (STACK,)
    assert len(recording.times) == 200
    engine = Engine(per_second=20)
    documents = [engine.document(BEGIN + second * SECOND) for second in range(1, 101)]
    order = list(range(100))
    random.Random(3).shuffle(order)
    for second in order:
        assert recording.frame(2 * second).telemetry == documents[second]
    recording.close()
    with pytest.raises(UsageError, match="exists already"):
        Writer(path, (STACK,))


def test_a_recording_ends_at_its_largest_size(tmp_path: Path) -> None:
    writer = written(tmp_path / "a.top", 60, max_bytes=30_000)
    assert writer.full
    assert (tmp_path / "a.top").stat().st_size <= 30_000
    recording = Recording(tmp_path / "a.top")
    assert 0 < len(recording.times) < 120
    assert recording.frame(len(recording.times) - 1).telemetry is not None
    recording.close()


def test_a_document_that_did_not_change_is_kept_once(tmp_path: Path) -> None:
    writer, document = Writer(tmp_path / "a.top", (STACK,)), Engine().document(BEGIN)
    for _ in range(5):
        writer.add(Reading(GATEWAY, document, "", 0, True), BEGIN)
    writer.add(Reading(GATEWAY, None, "gone", 0, False), BEGIN + 1)
    writer.close()
    recording = Recording(tmp_path / "a.top")
    assert len(recording.times) == 2
    assert recording.frame(1) == Reading(GATEWAY, None, "gone", BEGIN + 1, False)
    recording.close()


def test_a_torn_recording_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.top"
    written(path, 20)
    whole = path.read_bytes()
    for keep in random.Random(5).sample(range(len(MAGIC), len(whole)), 40):
        path.write_bytes(whole[:keep])
        try:
            recording = Recording(path)
        except UsageError:
            assert keep < len(MAGIC) + HEADER.size + 200
            continue
        assert all(recording.frame(index).telemetry is not None for index in range(len(recording.times)))
        recording.close()


def test_a_damaged_or_strange_recording_is_told_and_never_fails_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.top"
    written(path, 10)
    whole = path.read_bytes()
    chance = random.Random(7)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            recording = Recording(path)
        except UsageError:
            continue
        for index in range(len(recording.times)):
            recording.frame(index)
        recording.close()
    for content in (b"", b"no", MAGIC, MAGIC + b"\x01" + b"\xff" * 40):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="no recording"):
            Recording(path)
    with pytest.raises(UsageError, match="cannot be read"):
        Recording(tmp_path / "nothing")


def test_a_document_that_no_port_may_tell_is_damage_of_a_recording(tmp_path: Path) -> None:
    good = Engine().document(BEGIN)
    negative = Histogram(b"\1\0", np.array([-5], np.int64).tobytes())
    documents = (
        good,
        msgspec.structs.replace(good, time=1, stats={"gateway": {"orders_total": float("nan")}}),
        msgspec.structs.replace(good, time=2, stages={"loop_lag": Stage("lag", negative)}),
        msgspec.structs.replace(good, time=3, stats={f"s{number}": {} for number in range(65)}),
        msgspec.structs.replace(good, time=4, process="../x"),
    )
    writer = Writer(tmp_path / "a.top", (STACK,))
    for document in documents:
        writer.add(Reading(GATEWAY, document, "", 0, True), BEGIN)
    writer.close()
    recording = Recording(tmp_path / "a.top")
    errors = [recording.frame(number).error for number in range(len(documents))]
    assert errors == ["", *["the recording is damaged here"] * 4]
    recording.close()


def test_a_replay_shows_the_same_however_it_got_there(tmp_path: Path) -> None:
    written(tmp_path / "a.top", 200)
    one, other = Replay(Recording(tmp_path / "a.top")), Replay(Recording(tmp_path / "a.top"))
    one.seek(BEGIN + 150 * SECOND)
    for place in (199, 20, 160, 3, 140):
        other.seek(BEGIN + place * SECOND)
    other.move(10)
    moments = [replay.model.moment(replay.at).seen(0) for replay in (one, other)]
    assert moments[0][0].document == moments[1][0].document
    windows = [[stage.window(seen.until, 60) for seen, _, stage in stages_of(moment)] for moment in moments]
    assert all((a == b).all() for a, b in zip(*windows, strict=True))
    one.move(10_000)
    assert one.at == one.end
    one.toggle()
    assert (one.at, one.playing) == (one.begin, True)
    for replay in (one, other):
        replay.recording.close()


def test_a_baseline_is_the_medians_of_a_recording(tmp_path: Path) -> None:
    written(tmp_path / "a.top", 30)
    baseline = read_baseline(tmp_path / "a.top")
    assert baseline.figure("tv_cpu", "value") == 11.8
    assert baseline.figure("tv_cpu", "p99") is None
    assert baseline.figure("nothing", "value") is None
    assert int(baseline.stages["engine gateway_to_reply"].sum()) == 29 * 20
    model, now = model_after(5)
    taken = take_baseline(model.moment(now), 0, "now")
    assert taken.figure("tv_memory", "value") == 561.2


def test_json_and_csv_are_for_programs() -> None:
    model, now = model_after(3)
    moment = model.moment(now)
    document = json.loads(to_json(moment))
    engine = document["stacks"][0]["endpoints"][0]
    assert engine["state"] == "live"
    assert engine["telemetry"]["stages"]["gateway_to_reply"]["samples"] == 1200
    assert set(engine["telemetry"]["stages"]["state_sync"]["percentiles"]) == {"50", "90"}
    assert "99.9" in engine["telemetry"]["stages"]["gateway_to_reply"]["percentiles"]
    head, rows = csv_head().split(","), [line.split(",") for line in csv_rows(moment)]
    assert len(rows) == 12
    recovery = next(row for row in rows if "tv_recovery_time" in row)
    assert recovery[-10:] == ["", "s", "5", "10", "0", "", "", "", "", ""]
    assert len(head) == 15
    stale = list(csv_rows(model.moment(now + 10 * SECOND)))
    assert all(",stale," in line for line in stale)


def test_numbers_fit_their_columns_and_say_their_unit() -> None:
    assert [duration(value) for value in (None, 0, 812, 12_340, 999_499, 4_560_000, 61_000_000_000)] == [
        "–", "0 ns", "812 ns", "12.3 µs", "999 µs", "4.56 ms", "61.0 s",
    ]  # fmt: skip
    assert [number(value) for value in (None, 0, 0.655, 12.34, 812, 12_345, 1_234_567, 0.0021)] == [
        "–", "0", "0.655", "12.3", "812", "12 345", "1.23M", "0.002",
    ]  # fmt: skip
    assert [span_of(value) for value in (0, 59.9, 60, 200, 7500, 90_000)] == [
        "0 s", "59 s", "1 min", "3 min 20 s", "2 h 5 min", "1 d 1 h",
    ]  # fmt: skip
    assert clean("a\x1b[31mb\n") == "a?[31mb?"


@given(st.floats(0, 1e13))
def test_a_latency_never_takes_more_than_its_column(value: float) -> None:
    assert len(duration(min(value, 999e9))) <= 7


def test_sparks_grow_with_their_values() -> None:
    assert spark([0, 1, None, 4, 8], 6) == " ▁▁ ▄█"
    assert spark([], 3) == "   "
    assert bars([0, 8, 4], 2) == [" █ ", " ██"]


def test_a_curve_goes_up_where_its_values_do() -> None:
    plot = Plot(10, 5, 1e3, 1e6)
    plot.curve([10 ** (3 + 3 * index / 19) for index in range(20)], "bar")
    rows = [plain(line)[8:] for line in plot.lines()]
    places = [len(row) - len(row.lstrip()) for row in rows]
    assert places == sorted(places, reverse=True)
    assert places[-1] == 0


COLUMNS: tuple[Column[tuple[str, float | None]], ...] = (
    Column("name", "n", "name", 10, lambda row: row[0], lambda row: row[0], right=False),
    Column("value", "v", "value", 6, lambda row: Span(f"{row[1]}"), lambda row: row[1]),
    Column("more", "m", "more", 30, lambda row: "x", None, rank=1),
)
ROWS: list[tuple[str, float | None]] = [("b", 2.0), ("c", None), ("a", 10.0)]


def test_rows_are_sorted_filtered_and_what_is_unknown_comes_last() -> None:
    def names(**choice: object) -> str:
        return "".join(row[0] for row in arrange(COLUMNS, ROWS, Choice(**choice)))  # type: ignore[arg-type]

    assert names() == "bca"
    assert names(sort="name") == "abc"
    assert names(sort="value") == "bac"
    assert names(sort="value", descending=True) == "abc"
    assert names(sort="more") == names(sort="nothing") == "bca"
    assert names(pattern="^B ") == "b"
    assert names(pattern="!10") == "bc"
    assert names(pattern="((") == ""


def test_columns_give_way_by_their_rank() -> None:
    assert [column.key for column in columns_for(COLUMNS, 60, frozenset())] == ["name", "value", "more"]
    assert [column.key for column in columns_for(COLUMNS, 30, frozenset())] == ["name", "value"]
    assert [column.key for column in columns_for(COLUMNS, 60, frozenset({"value", "name"}))] == ["name", "more"]


@given(st.text(), st.text())
def test_a_filter_and_its_inverse_part_all_lines(pattern: str, text: str) -> None:
    body = pattern.lstrip("!") or "a"
    assert Filter(body).keep([text]) != Filter(f"!{body}").keep([text])
    assert len(fit(text, 7)) == 7


@pytest.mark.parametrize(
    "pattern",
    [
        "([a-z ]|[a-z ]|[a-z ])+!", "(a+)+$", "(a|a)*b", "(.*a){20}", "!(a+)+$", "(a?){40}b", "(?>(a|a)*)b",
        "a?" * 40 + "b", "(a|a)" * 20 + "b", "a*" * 8 + "b", "(?=(a+)+$)b", "(?:(?:(?:a*)*)*)*b",
        "(x)?(?(1)(a+)+|(a+)+)b",
    ],
)  # fmt: skip
def test_a_pattern_that_could_try_for_ever_is_plain_text(pattern: str) -> None:
    found = Filter(pattern)
    assert "too many ways" in found.wrong
    body = pattern.removeprefix("!")
    assert found.keep(["a" * 5000, f"x{body}y"]) == ([True, False] if pattern[0] == "!" else [False, True])


@pytest.mark.parametrize(
    "pattern, text",
    [
        ("engine|market", "the MARKET"), (".*lag.*", "loop_lag 3"), ("^tv_(tick|order)", "tv_order_x"),
        ("(engine|market)?.*lost.*refused", "connection lost: refused"), (r"\d{1,3}(\.\d{1,3}){3}", "at 10.0.0.7"),
        ("[[a]", "a"), (r"(e)ngin\1", "engine"),
    ],
)  # fmt: skip
def test_ordinary_patterns_are_regular_expressions(pattern: str, text: str) -> None:
    found = Filter(pattern)
    assert found.wrong == ""
    assert found.keep([text, "nothing"]) == [True, False]


def test_a_pass_over_the_rows_has_a_budget() -> None:
    found = Filter(".*.*!", seconds=0.0)
    assert found.keep(["a" * LINE] * 3 + [".*.*!"]) == [False, False, False, True]
    assert found.wrong == "takes too long"
    assert not Filter("a{99999999999999}").keep(["a"])[0]
    assert Filter(f"{'x' * LINE}y").keep(["x" * LINE + "y"]) == [False]


def test_stacks_without_a_port_are_named_by_their_host() -> None:
    assert find_stacks(["https://trade"], None, None, 8000, 8001)[0] == Stack(
        "trade:8000,8001", ("https://trade:8000", "https://trade:8001")
    )
