"""Reports: one file that needs nothing, shows what was measured, and lets no result inject anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest

from tests.bench_results import HOST, full_result, operation, result
from tests.test_bench_compare import runs
from tvops import cli
from tvops.bench.ab import run_ab
from tvops.bench.capacity import Capacity, Step, Throughput, assess, search
from tvops.bench.charts import HEIGHT, WIDE, latency_axis, linear_axis, percentile_points
from tvops.bench.compare import compare
from tvops.bench.conditions import parse_condition
from tvops.bench.report import compare_page, run_page
from tvops.bench.report_experiments import ab_page, capacity_page
from tvops.bench.result import save_result
from tvops.engine.telemetry.histogram import empty, pack, percentiles

VOID_TAGS = {"meta"}


class Checker(HTMLParser):
    """Every element that is opened is closed, and nothing is fetched from anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        assert not {"src", "href", "action", "style", "onload"} & {name for name, _ in attributes}, (
            tag,
            attributes,
        )
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(page: str) -> str:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert not checker.tags & {"script", "link", "img", "iframe", "object"}
    assert "@import" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split()
    assert not re.search(r'="[^"]*\b(nan|inf)\b', page)
    return page


def capacity() -> Capacity:
    def step(load):
        return Step(load=load, achieved=min(load, 2600), kept=load < 2400, why="p99 was 41 ms", response_p99=2e6,
                    busy=0.1 + 6e-4 * load, busiest=4e-4 * load, process="engine")  # fmt: skip

    points = [Throughput(load=n, rate=900 * n / (1 + 0.3 * (n - 1)) * (1 + n % 3)) for n in (1, 2, 4, 8, 16, 32)]
    found = assess("orders", "orders/s", search(step, 200, 20_000), points, "orders under way", 4, 1)
    return Capacity(started=1, seed=1, seconds=5, cores=4, targets=("p99 below 20 ms",), fingerprint=HOST,
                    dimensions=(found,))  # fmt: skip


def test_a_run_shows_everything_that_it_has():
    page = checked(run_page(full_result()))
    for text in ("rest_orders.new", "sessions.ticks",
                 "missed", "knee 2,048", "12 of 15,000", "Testing 3000", "429",
                 "Errors per second", "Memory of the stack", "prefers-color-scheme: dark"):  # fmt: skip
        assert text in page
    assert page.count("<svg") == 7


def test_a_run_of_almost_nothing_is_a_page_too():
    empty_one = msgspec.structs.replace(
        operation(rate=1, seconds=2), response=pack(empty()), service=pack(empty()), lateness=pack(empty())
    )
    for one in (result(), result(empty_one), result(operation(rate=1, seconds=1)), result(void="late")):
        checked(run_page(one))


def test_two_runs_and_their_conditions():
    a, b = result(operation(1)), result(operation(2, middle=0.9e6))
    page = checked(compare_page(compare(a, b, conditions=[parse_condition("p50>+5%")]), a, b))
    assert "p50&gt;+5%" in page
    assert ">failed<" in page
    checked(compare_page(compare(a, result()), a, result()))


def test_an_experiment_and_a_capacity():
    page = checked(ab_page(run_ab(runs(0.3)[0], ("batch_interval_ms=10", "the defaults"), 8, 1)))
    assert "batch_interval_ms=10" in page
    assert "worse" in page
    checked(ab_page(run_ab(runs(0, void=set(range(99)))[0], ("a", "b"), 6, 1)))
    page = checked(capacity_page(capacity()))
    assert "inside the targets" in page
    assert "prediction" in page
    assert re.search('<polygon class="band', page)
    for points in re.findall('points="([^"]*)"', page):
        for x, y in (map(float, point.split(",")) for point in points.split()):
            assert 0 <= x <= WIDE
            assert 0 <= y <= HEIGHT


def test_nothing_in_a_result_becomes_markup():
    evil = "<script>alert(1)</script>\"'><img src=x onerror=y>"
    one = msgspec.structs.replace(operation(), door=evil, name=evil, outcomes={evil: 1}, figures={evil: 1.0})
    host = msgspec.structs.replace(HOST, cpu=evil, versions={evil: evil})
    bad = result(one, name=evil, void=evil, partial=evil, fingerprint=host, scenario={evil: evil},
                 targets_of={evil: evil}, notes=(evil,), version=evil)  # fmt: skip
    checked(run_page(bad))
    checked(compare_page(compare(bad, bad, (evil, evil)), bad, bad))


def test_curves_say_what_the_histogram_says():
    histogram = operation(5).response
    points = percentile_points(histogram)
    counts = histogram.unpack()
    for percent in (50.0, 90.0, 99.0, 99.9):
        at = -np.log10(1 - percent / 100)
        drawn = next(y for x, y in points if x >= at)
        assert drawn == pytest.approx(percentiles(counts, [percent])[0] / 1e6, rel=0.03)
    assert points[-1][1] == pytest.approx(histogram.maximum / 1e6)
    assert list(points) == sorted(points)
    assert len(points) < 1500


@pytest.mark.parametrize("values", [[0.3, 18], [1, 1], [1e-3, 5000.0], [], [7.0]])
def test_axes_hold_their_values(values):
    for axis in (latency_axis(values), linear_axis(values, "x", zero=True)):
        assert all(0 <= axis.share(value) <= 1 for value in values)
        assert 2 <= len(axis.ticks) <= 16


def test_the_command_writes_a_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TVOPS_DATA_DIR", str(tmp_path))
    save_result(full_result(), "full")
    assert cli.run(["bench", "report", "full", str(tmp_path / "x.html")]) == 0
    checked((tmp_path / "x.html").read_text())
    assert (tmp_path / "x.html").stat().st_mode & 0o444 == 0o444
    assert cli.run(["bench", "report", "none", str(tmp_path / "x.html")]) == 2
