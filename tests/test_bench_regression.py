"""The history of nightly runs: kept whole, compared with its like, and honest about what is noise."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.regression import Entry, append, changes, entry_of, history_page, main, parse, read_history
from tests.bench_results import operation, result
from tests.test_bench_report import checked
from tvops.errors import UsageError


def nights(count: int, middle: float = 0.8e6, first: int = 0) -> list[Entry]:
    rng = np.random.default_rng(first)
    return [
        entry_of(result(operation(first + n, seconds=5, middle=middle * rng.normal(1, 0.02)), started=first + n))
        for n in range(count)
    ]


def test_a_run_like_the_others_changed_nothing():
    assert changes(nights(12), nights(1, first=50)[0], last=20) == []


def test_a_slower_run_is_worse_and_a_faster_one_better():
    known = nights(12)
    worse = changes(known, nights(1, middle=1.2e6, first=50)[0], last=20)
    assert {change.figure for change in worse} >= {"rest_orders.new p50", "rest_orders.new service_p50"}
    assert all(change.worse for change in worse)
    assert "worse: steady rest_orders.new p50" in "\n".join(map(str, worse))
    better = changes(known, nights(1, middle=0.5e6, first=50)[0], last=20)
    assert better
    assert not any(change.worse for change in better)


def test_only_runs_of_the_same_host_and_scenario_that_are_not_void_count():
    slow = nights(1, middle=2e6, first=50)[0]
    for change in ({"host": "other"}, {"scenario": "other"}, {"void": "late"}):
        known = [
            Entry(**{**{name: getattr(e, name) for name in e.__struct_fields__}, **change}) for e in nights(9)
        ]
        assert changes(known, slow, last=20) == []
    assert changes(nights(4), slow, last=20) == []  # too few to know their noise
    assert changes(nights(9), slow, last=4) == []


def test_errors_where_there_were_none_are_worse():
    known = nights(8)
    failing = entry_of(result(operation(99, seconds=5, errors=5)))
    assert "rest_orders.new error_rate" in {change.figure for change in changes(known, failing, last=20)}


def test_the_history_is_kept_and_a_torn_line_lost_alone(tmp_path):
    path = tmp_path / "history.jsonl"
    entries = nights(3)
    append(path, entries[:2], [])
    append(path, entries[2:], read_history(path))
    assert read_history(path) == entries
    path.write_bytes(path.read_bytes()[:-20])
    assert read_history(path) == entries[:2]
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(UsageError, match=r"history\.jsonl:1: is no run"):
        read_history(path)
    assert [one.name for one in tmp_path.iterdir()] == ["history.jsonl"]


def test_the_plot():
    entries = [*nights(6), *nights(1, middle=2e6, first=50)]
    page = checked(history_page(entries, changes(entries[:-1], entries[-1], 20)))
    assert "steady: rest_orders.new p99" in page
    checked(history_page([], []))


def test_the_script_gates(tmp_path, monkeypatch, capsys):
    history, tonight = tmp_path / "history.jsonl", nights(1, first=50)
    append(history, nights(8), [])
    monkeypatch.setattr("benchmarks.regression.measure", lambda scenarios, seconds: tonight)
    arguments = parse(["--history", str(history), "--html", str(tmp_path / "x.html"), "--check"])
    assert main(arguments) == 0
    assert "nothing changed" in capsys.readouterr().out
    tonight = nights(1, middle=1.5e6, first=60)
    assert main(arguments) == 3
    assert "worse" in capsys.readouterr().out
    tonight = [entry_of(result(operation(1), void="the generator was late"))]
    assert main(arguments) == 4
    assert len(read_history(history)) == 11
    checked((tmp_path / "x.html").read_text())
