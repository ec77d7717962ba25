"""Targets as data, and states that need a minimum duration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvops.engine.telemetry.document import MetricState
from tvops.engine.telemetry.evaluation import Evaluator, Judge
from tvops.engine.telemetry.histogram import RELATIVE_ERROR
from tvops.engine.telemetry.stages import Stages
from tvops.engine.telemetry.targets import Target, load_targets
from tvops.errors import UsageError

LEVELS: list[MetricState] = ["no data", "ok", "warn", "breach"]
RANK = {"ok": 0, "warn": 1, "breach": 2}


def test_the_operators_targets_ship() -> None:
    shipped = {target.name: (target.target, target.limit, target.unit) for target in load_targets()}
    assert shipped == {
        "tv_tick_stream_latency": (10, 15, "ms"),
        "tv_order_execution_latency": (20, 25, "ms"),
        "tv_order_state_sync_latency": (5, 10, "ms"),
        "tv_historical_data_load_time": (500, 1000, "ms"),
        "tv_max_concurrent_sessions": (500, 1000, "sessions"),
        "tv_max_ticks_per_sec": (10_000, 15_000, "1/s"),
        "tv_max_orders_per_sec": (1000, 1500, "1/s"),
        "tv_memory": (512, 768, "MB"),
        "tv_cpu": (25, 80, "%"),
        "tv_redis_memory": (70, 90, "%"),
        "tv_uptime": (99.9, 99, "%"),
        "tv_recovery_time": (10, 30, "s"),
    }


def written(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text)
    return path


def test_a_file_goes_over_what_ships(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "tv_cpu: false\n"
        "tv_memory:\n  target: 100\n"
        "busy_loop:\n  text: lag\n  unit: us\n  target: 1\n  limit: 2\n  for_seconds: 0\n  window_seconds: 5\n"
        "  measured: by each\n  stage: loop_lag\n  statistic: max\n",
    )
    targets = {target.name: target for target in load_targets(path)}
    assert "tv_cpu" not in targets
    assert (targets["tv_memory"].target, targets["tv_memory"].limit) == (100, 768)
    assert targets["busy_loop"].stage == "loop_lag"
    assert load_targets(written(tmp_path, "# nothing\n")) == load_targets()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("- 1\n", 1, "must be a mapping"),
        ("tv_cpu: {}\n\ntv_nothing: false\n", 3, "there is no such metric to leave out"),
        ("tv_cpu: 5\n", 1, "must be a mapping, or false"),
        ("tv_cpu:\n  target: many\n", 2, "tv_cpu.target: Expected `float`, got `str`"),
        ("tv_cpu:\n  target: .nan\n", 2, "must be a finite number"),
        ("tv_cpu:\n  limit: .inf\n", 2, "must be a finite number"),
        ("tv_cpu:\n  for_seconds: -1\n", 2, "tv_cpu.for_seconds: Expected `float` >= 0"),
        ("tv_cpu:\n  window_seconds: 4000\n", 2, "<= 3600"),
        ("tv_cpu:\n  targte: 5\n", 2, "tv_cpu.targte: there is no such key"),
        ("tv_cpu:\n  name: tv_x\n", 2, "there is no such key"),
        ("tv_cpu:\n  statistic: p95\n", 2, "tv_cpu.statistic: Invalid enum value 'p95'"),
        ("tv_cpu:\n  statistic: p99\n", 2, "of figures take max or mean"),
        ("tv_cpu:\n  stage: loop_lag\n", 2, "either a stage or figures"),
        ("tv_cpu:\n  figures: [cpu]\n", 2, "'cpu': a figure is SERVICE.NAME"),
        ("tv_tick_stream_latency:\n  stage: warp\n", 2, "'warp': there is no such stage"),
        ("tv_tick_stream_latency:\n  unit: furlongs\n", 2, "a latency is in us, ms, s"),
        ("tv_tick_stream_latency:\n  statistic: mean\n", 2, "of a latency take"),
        ("Loud:\n  target: 1\n", 1, "small letters"),
        ("mine:\n  target: 1\n", 1, "text is missing"),
        ("tv_cpu:\n  target: 1\n  target: 2\n", 3, "twice"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as error:
        load_targets(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_too_long(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        load_targets(tmp_path / "none.yaml")
    fields = "{text: t, unit: s, target: 1, limit: 2, for_seconds: 0, window_seconds: 1, measured: once, " \
        "figures: [a.b], statistic: max}"  # fmt: skip
    with pytest.raises(UsageError, match="there may be 64"):
        load_targets(written(tmp_path, "".join(f"m{n}: {fields}\n" for n in range(60))))


def test_levels_in_both_directions() -> None:
    targets = {target.name: target for target in load_targets()}
    latency, uptime = targets["tv_order_execution_latency"], targets["tv_uptime"]
    assert [latency.level(v) for v in (None, 0, 20, 20.1, 25, 25.1)] == [
        "no data", "ok", "ok", "warn", "warn", "breach",
    ]  # fmt: skip
    assert [uptime.level(v) for v in (None, 100, 99.9, 99.8, 99, 98.9)] == [
        "no data", "ok", "ok", "warn", "warn", "breach",
    ]  # fmt: skip


STEPS = st.lists(st.tuples(st.floats(0, 5), st.sampled_from(LEVELS)), max_size=60)


@given(STEPS, st.sampled_from([0.0, 1.0, 3.0]))
def test_a_level_becomes_the_state_when_it_has_lasted(
    steps: list[tuple[float, MetricState]], seconds: float
) -> None:
    """A worse or better state than before was there, or beyond, at every sample for at least the duration."""
    judge, now = Judge(seconds), 0.0
    history: list[tuple[float, MetricState]] = []
    before: MetricState = "no data"
    for pause, level in steps:
        now += pause
        history.append((now, level))
        state = judge.update(now, level)
        if state != before and state == "no data":
            assert lasted(history, seconds, lambda past: past == "no data")
        elif state != before and before != "no data" and RANK[state] > RANK[before]:
            assert lasted(history, seconds, lambda past, rank=RANK[state]: past == "no data" or RANK[past] >= rank)
        elif state != before and before != "no data":
            assert lasted(history, seconds, lambda past, rank=RANK[state]: past == "no data" or RANK[past] <= rank)
        elif state != before:
            assert state == "ok" or seconds == 0
        before = state


def lasted(history: list[tuple[float, MetricState]], seconds: float, holds: object) -> bool:
    """Whether ``holds`` was so at every sample up to now, from one on that is at least ``seconds`` old."""
    assert callable(holds)
    now = history[-1][0]
    for when, level in reversed(history):
        if not holds(level):
            return False
        if now - when >= seconds:
            return True
    return False


@given(STEPS, st.sampled_from(["ok", "warn", "breach"]))
def test_what_lasts_comes_through(steps: list[tuple[float, MetricState]], last: MetricState) -> None:
    judge, now = Judge(3.0), 0.0
    for pause, level in steps:
        now += pause
        judge.update(now, level)
    for _ in range(5):
        now += 1.0
        state = judge.update(now, last)
    assert state == last
    for _ in range(5):
        now += 1.0
        state = judge.update(now, "no data")
    assert state == "no data"


def target(**changes: object) -> Target:
    fields = {
        "name": "m", "text": "t", "unit": "us", "target": 10.0, "limit": 20.0, "for_seconds": 2.0,
        "window_seconds": 10, "measured": "once", "statistic": "p99", "stage": "state_sync",
    }  # fmt: skip
    return Target(**{**fields, **changes})  # type: ignore[arg-type]


@given(st.lists(st.lists(st.integers(0, 10**7), max_size=300), min_size=1, max_size=25))
def test_a_window_of_latencies_is_that_of_its_last_seconds(seconds: list[list[int]]) -> None:
    stages = Stages()
    recorder = stages.add("state_sync")
    evaluator = Evaluator([target()], stages)
    for now, values in enumerate(seconds):
        recorder.record_many(np.array(values, np.int64))
        evaluator.update(float(now), now, {})
        metric = evaluator.metrics[0]
        inside = np.array([value for batch in seconds[max(0, now - 9) : now + 1] for value in batch])
        assert metric.samples == len(inside)
        if not len(inside):
            assert metric.value is None
            assert metric.detail
            continue
        exact = np.percentile(inside, 99, method="inverted_cdf") / 1e3
        if 5 < len(inside) < 100:  # one outlier among so few is no evidence
            exact = np.sort(inside)[-2] / 1e3
        assert metric.value is not None
        assert exact - 1e-9 <= metric.value <= exact * (1 + RELATIVE_ERROR) + 1e-3
        assert (metric.p99 is None) == (len(inside) < 100)
        assert metric.p999 is None
        assert bool(metric.detail) == (len(inside) < 100)


def test_a_single_sample_is_one() -> None:
    stages = Stages()
    stages.add("state_sync").record(1000)
    evaluator = Evaluator([target(statistic="p99", for_seconds=0.0)], stages)
    evaluator.update(0.0, 0, {})
    assert evaluator.metrics[0].detail == "the maximum: 1 sample is too few for p99"


@pytest.mark.parametrize(
    ("statistic", "samples", "one_is_a_breach", "told"),
    [
        ("p99", 2, True, "the maximum: 2 samples are too few for p99"),
        ("p99", 5, True, "the maximum: 5 samples are too few for p99"),
        ("p99", 6, False, "the second largest: 6 samples are too few for p99"),
        ("p99", 99, False, "the second largest: 99 samples are too few for p99"),
        ("p99", 100, False, ""),
        ("p999", 51, True, "the maximum: 51 samples are too few for p999"),
        ("p999", 52, False, "the second largest: 52 samples are too few for p999"),
        ("max", 30, True, ""),
    ],
)
def test_one_outlier_among_few_is_no_breach_and_two_are(
    statistic: str, samples: int, one_is_a_breach: bool, told: str
) -> None:
    for outliers, state in ((1, "breach" if one_is_a_breach else "ok"), (2, "breach")):
        stages = Stages()
        usual, longer = [1000] * (samples - outliers), [50_000] * outliers
        stages.add("state_sync").record_many(np.array(usual + longer, np.int64))
        evaluator = Evaluator([target(statistic=statistic, for_seconds=0.0)], stages)
        evaluator.update(0.0, 0, {})
        (metric,) = evaluator.metrics
        assert (metric.state, metric.detail, metric.maximum) == (state, told, 50)


def test_states_and_changes_of_a_figure() -> None:
    figure = target(stage="", figures=("a.gone", "a.load"), statistic="max", unit="%", window_seconds=1)
    evaluator = Evaluator([figure], Stages())
    seen = []
    values = [None, 5, 15, 15, 15, 25, 25, 25, 5, 5, 5, None, None, None, None]
    for now, value in enumerate(values):
        changes = evaluator.update(float(now), 1000 + now, {} if value is None else {"a.load": value})
        seen += [(now, change.before, change.metric.state, change.metric.since) for change in changes]
    assert seen == [
        (1, "no data", "ok", 1001),
        (4, "ok", "warn", 1004),
        (7, "warn", "breach", 1007),
        (10, "breach", "ok", 1010),
        (13, "ok", "no data", 1013),
    ]
    assert evaluator.metrics[0].since == 1013
    assert evaluator.metrics[0].value is None


def test_who_measures_what() -> None:
    def measured(process: str, watching: bool) -> set[str]:
        return {t.name for t in load_targets() if t.measured_by(process, watching)}

    engine, market = measured("engine", True), measured("market", False)
    assert engine & market == {"tv_max_concurrent_sessions", "tv_uptime", "tv_recovery_time"}
    assert engine | market == {t.name for t in load_targets()}
    assert measured("market", True) - market == {"tv_memory", "tv_cpu", "tv_redis_memory"}
