"""Comparing runs: what is told of a pair, conditions and where they go wrong, and interleaved experiments."""

from __future__ import annotations

import contextlib
import itertools
import re

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.bench_results import HOST, operation, result
from tvops import cli, statistics
from tvops.bench.ab import run_ab
from tvops.bench.compare import compare
from tvops.bench.conditions import check, parse_condition
from tvops.bench.figures import UNITS, figure_of, text_of
from tvops.bench.page import write_page
from tvops.bench.result import save_result
from tvops.bench.sides import parse_settings
from tvops.errors import UsageError


@pytest.mark.parametrize(
    "text, figure, name, number, change, relative",
    [
        ("p99>+5%", "p99", "", 5, True, True),
        ("rest_orders.new.p99.9 >= -0.2ms", "p99.9", "rest_orders.new", -0.2e6, True, False),
        ("new.p50>+200us", "p50", "new", 200e3, True, False),
        ("service_p99<1s", "service_p99", "", 1e9, False, False),
        ("errors>0", "errors", "", 0, False, False),
        ("rate<-2%", "rate", "", -2, True, True),
        ("rest_orders.rate <= 990.5", "rate", "rest_orders", 990.5, False, False),
    ],
)
def test_conditions_are_read(text, figure, name, number, change, relative):
    condition = parse_condition(text)
    assert (condition.figure, condition.operation, condition.change, condition.relative) == (
        figure, name, change, relative,
    )  # fmt: skip
    assert condition.number == pytest.approx(number)


@pytest.mark.parametrize(
    "text, place, what",
    [
        ("p99", 4, "has no >"),
        ("p98>+5%", 1, "no figure 'p98'"),
        ("  orders.speed>1", 3, "no figure 'orders.speed'"),
        ("p99>5%", 5, "of what"),
        ("p99>+5", 7, "takes %, ns, us, ms or s"),
        ("p99> +5parsec", 8, "and not 'parsec'"),
        ("errors>3ms", 9, "takes no unit there"),
        ("p99>", 5, "takes a number"),
        ("p99>=many", 6, "takes a number"),
        ("p99>+5%%", 5, "takes a number"),
        ("", 1, "has no >"),
        ("p99>+٥%", 5, "takes a number"),
    ],
)
def test_a_condition_that_is_none_says_where(text, place, what):
    with pytest.raises(UsageError, match=what) as error:
        parse_condition(text)
    assert f"character {place}:" in str(error.value)


@given(st.text(max_size=40))
def test_no_condition_ends_in_anything_but_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert parse_condition(text).figure in UNITS


A = result(operation(1))
OTHER_HOST = msgspec.structs.replace(HOST, digest="x", host="bb22")
OTHER_KERNEL = msgspec.structs.replace(HOST, digest="x", kernel="7")
SLOWER = result(operation(2, middle=0.9e6, errors=3))


@pytest.mark.parametrize(
    "text, met",
    [
        ("p50>+5%", True), ("p50>+50%", False), ("p50>+20us", True), ("p50>10ms", False), ("errors>0", True),
        ("errors>=3", True), ("errors>3", False), ("errors>+0%", True), ("rate<-2%", False), ("rate<+0%", True),
        ("new.p50>+5%", True), ("rest_orders.new.p50<-1%", False), ("max>1s", False), ("error_rate>0.01", True),
    ],
)  # fmt: skip
def test_conditions_are_checked(text, met):
    (outcome,) = check([parse_condition(text)], A, SLOWER)
    assert outcome.met is met, outcome.detail


def test_what_cannot_be_checked_keeps_the_gate_shut():
    few = result(operation(1, rate=1, seconds=30))
    (outcome,) = check([parse_condition("p99.9>+5%")], few, few)
    assert outcome.met
    assert "too few samples" in outcome.detail
    other = result(operation(1, key="redis.ping"))
    outcomes = check([parse_condition("p50>+5%")], A, other)
    assert [one.met for one in outcomes] == [True, True]
    with pytest.raises(UsageError, match=r"no operation 'nothing'; there are rest_orders\.new"):
        check([parse_condition("nothing.p50>+5%")], A, SLOWER)


def test_a_comparison_tells_figures_and_their_difference():
    compared = compare(A, SLOWER)
    line = next(line for line in compared.lines if line.figure == "p50")
    assert line.before == figure_of(A.operations[0], "p50")
    assert line.difference == pytest.approx(line.after - line.before)
    assert line.low < line.difference < line.high
    assert line.clear
    assert compared.warnings == ()
    assert "bench ab" in compared.caveat
    assert msgspec.json.decode(msgspec.json.encode(compared), type=type(compared)) == compared


def test_the_same_run_differs_by_nothing():
    assert {line.difference for line in compare(A, A).lines} == {0.0}
    assert not any(line.clear for line in compare(A, A).lines)


def test_short_runs_have_no_interval():
    short = result(operation(1, seconds=9), seconds=9.0)
    assert {line.low for line in compare(short, short).lines} == {None}


@pytest.mark.parametrize(
    "changes, warning",
    [
        ({"fingerprint": OTHER_HOST}, "of different hosts .host differ"),
        ({"fingerprint": OTHER_KERNEL}, "changed .*kernel: 6.12.0 x86_64 → 7"),
        ({"fingerprint": None}, "no fingerprint"),
        ({"scenario": {"name": "steady", "seconds": 5}}, "not of one scenario .*differs in seconds"),
        ({"loop": "closed"}, "A is a open loop, B a closed one"),
        ({"partial": "interrupted"}, "B is not whole: interrupted"),
    ],
)  # fmt: skip
def test_what_makes_a_comparison_doubtful_is_told(changes, warning):
    (found,) = compare(A, result(operation(1), **changes)).warnings
    assert re.search(warning, found), found


def test_blocks_of_neighbours_keep_the_interval_honest():
    """Seconds that hang together: an interval that took them for independent would be far too narrow."""
    inside = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(2, 121))
        both = noise[:, 1:] + 0.8 * noise[:, :-1]
        low, high = statistics.block_bootstrap(both[0], both[1], seed)
        inside += low <= 0 <= high
    assert 0.88 * 150 <= inside < 150
    with pytest.raises(ValueError, match="empty"):
        statistics.block_bootstrap(np.array([]), np.array([1.0]), 0)


def runs(effect: float, void: set[int] = frozenset(), seed: int = 0):  # type: ignore[assignment]
    """A host that drifts, on which B is slower by ``effect``; some runs are void."""
    rng, numbers, sides = np.random.default_rng(seed), itertools.count(), []

    def measure(side):
        number = next(numbers)
        sides.append(side)
        middle = 0.8e6 * (1 + 0.01 * number) * (1 + effect * (side == "b"))
        one = operation(int(rng.integers(1 << 30)), rate=200, seconds=3, middle=middle, spread=0.2)
        return result(one, void="the generator was late" if number in void else "")

    return measure, sides


def test_an_experiment_finds_what_is_there_and_nothing_else():
    worse, sides = runs(0.3)
    ab = run_ab(worse, ("a", "b"), 12, seed=1)
    assert ab.verdict == "worse"
    p50 = next(figure for figure in ab.figures if figure.figure == "p50")
    assert p50.low <= p50.difference <= p50.high
    assert p50.percent(p50.difference) == pytest.approx(30, abs=10)
    assert (sides.count("a"), sides.count("b")) == (36, 12)
    assert sides[:12] == ["a"] * 12  # half of the control comes first
    assert run_ab(runs(-0.3)[0], ("a", "b"), 12, seed=1).verdict == "better"
    assert run_ab(runs(0.0)[0], ("a", "b"), 12, seed=1).verdict == "no measurable difference"


def test_which_side_comes_first_is_drawn_from_the_seed():
    def order(seed):
        measure, sides = runs(0)
        run_ab(measure, ("a", "b"), 8, seed)
        return sides

    assert order(3) == order(3)
    assert order(3) != order(4)


def test_void_runs_drop_their_pair_and_too_many_the_experiment():
    ab = run_ab(runs(0.3, void={5, 20})[0], ("a", "b"), 12, seed=1)
    assert len(ab.dropped) == 2
    assert (ab.pairs, ab.control_pairs) == (12, 12)  # measured again
    assert ab.verdict == "worse"
    measure, sides = runs(0.3, void=set(range(99)))
    ab = run_ab(measure, ("a", "b"), 6, seed=1)
    assert len(sides) == 14  # seven pairs are enough to see that it leads nowhere
    assert ab.verdict == "void"
    assert ab.figures == ()
    assert "the generator was late" in ab.void


def test_too_few_pairs_for_a_verdict_say_so():
    with pytest.raises(UsageError, match="too few for any verdict"):
        run_ab(runs(0)[0], ("a", "b"), 5, seed=1)
    assert "too few for a verdict" in run_ab(runs(0.3)[0], ("a", "b"), 6, seed=1).notes[0]


def test_settings_of_a_side():
    assert parse_settings("--a", ["x=1", "y=a=b"]) == {"x": "1", "y": "a=b"}
    with pytest.raises(UsageError, match="--a 'x': has to be KEY=VALUE"):
        parse_settings("--a", ["x"])


@pytest.mark.parametrize(
    "value, unit, text",
    [
        (1250, "ns", "1.25 us"), (999_900, "ns", "1 ms"), (12, "ns", "12 ns"), (1.5e9, "ns", "1.5 s"),
        (999.6e6, "ns", "1 s"), (None, "ns", "-"), (1000, "1/s", "1,000/s"), (0.25, "%", "0.25 %"), (3, "", "3"),
    ],
)  # fmt: skip
def test_values_as_text(value, unit, text):
    assert text_of(value, unit) == text


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TVOPS_DATA_DIR", str(tmp_path))
    save_result(A, "before")
    save_result(SLOWER, "after")
    save_result(msgspec.structs.replace(A, void="the generator was late"), "late")

    def run(*words):
        code = cli.run(["bench", *words])
        return code, capsys.readouterr()

    return run


def test_the_command_compares_and_gates(command, tmp_path):
    code, said = command("compare", "before", "after")
    assert code == 0
    assert "rest_orders.new" in said.out
    code, said = command("compare", "before", "after", "--fail-if", "p50>+5%", "--fail-if", "rate<-2%")
    assert code == 3
    assert "FAIL p50>+5%" in said.out
    assert "ok   rate<-2%" in said.out
    code, said = command("compare", "before", "after", "--fail-if", "rate<-2%", "--json")
    assert code == 0
    assert msgspec.json.decode(said.out)["conditions"][0]["met"] is False
    assert said.err == ""


def test_the_command_refuses_void_runs_and_bad_input(command):
    code, said = command("compare", "before", "late", "--fail-if", "p50>+900%")
    assert code == 4
    assert said.out == ""
    assert "late: is void" in said.err
    for words in (
        ("before", "nothing"), ("before", "../x"), ("before", "after", "--fail-if", "p99>5%"),
        ("before", "after", "--fail-if", "redis.p99>+5%"), ("before", "after", "--html", "/no/such/folder/x.html"),
    ):  # fmt: skip
        code, said = command("compare", *words)
        assert code == 2, words
        assert said.err.count("\n") == 1


def test_ab_is_refused_before_anything_starts(command):
    for words in (
        ("--a-url", "http://127.0.0.1:1"), (), ("--a", "x=1", "--b", "x=1"), ("stress", "--b", "x=1"),
        ("--b", "x"), ("--b", "x=1", "--a-url", "http://a", "--b-url", "http://b"), ("nothing", "--b", "x=1"),
        ("--control-only", "--b", "x=1"), ("--control-only", "--a-url", "http://a", "--b-url", "http://b"),
        ("--b", "x=1", "--html", "/no/such/folder/x.html"),
    ):  # fmt: skip
        code, said = command("ab", *words)
        assert code == 2, words
        assert said.err.count("\n") == 1


def test_help_is_there():
    for name in ("compare", "ab", "results", "report"):
        outcome = CliRunner().invoke(cli.build_app(["bench", name]), ["bench", name, "--help"])
        assert outcome.exit_code == 0


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        write_page(tmp_path / "page.html", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
