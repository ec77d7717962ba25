"""Saved results may come from anybody: each is refused in one line, or all that is made of it works."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench_results import full_result, operation, result
from tvops import cli
from tvops.bench.compare import compare
from tvops.bench.compare_text import compared_text
from tvops.bench.conditions import parse_condition
from tvops.bench.figures import UNITS
from tvops.bench.histograms import histograms_of, write_histograms
from tvops.bench.printing import render
from tvops.bench.report import compare_page, run_page
from tvops.bench.result import decode_result, load_result, save_result
from tvops.bench.stack_figures import numbers_of
from tvops.bench.store import saved_results
from tvops.errors import UsageError

SMALL = msgspec.structs.replace(
    full_result(),
    operations=(
        operation(1, rate=20, seconds=12, errors=2),
        operation(2, key="sessions.ticks", rate=10, seconds=12),
    ),
)
CONDITIONS = [parse_condition(f"{figure}>=+1%") for figure in UNITS]
NASTY: tuple[Any, ...] = (
    10**400, -(10**400), 2**64, 2**63 - 1, -1, 0, 1, 500_000, 1e308, -1e308, 5e-324, 0.1, float("nan"),
    float("inf"), None, True, "", "x", "\x1b[2J", "\x9b2J", "a\nb", "\u2028", "A" * 5000, "AAAA", [], {}, [1],
    [[]], {"a": 1}, [0] * 100_000, {"\x1b": "\x9b"}, {"a": {"b": [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]}},
)  # fmt: skip


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Give the path of every value, of long lists only of the first elements."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for name, one in inner:
        yield from leaves(one, (*path, name))


BUILTINS = json.loads(msgspec.json.encode(SMALL))
LEAVES = sorted(leaves(BUILTINS), key=str)


def mutated(*changes: tuple[tuple[str | int, ...], Callable[[Any, str | int], None]]) -> bytes:
    document = copy.deepcopy(BUILTINS)
    for path, change in changes:
        inner = document
        try:
            for name in path[:-1]:
                inner = inner[name]
            change(inner, path[-1])
        except (AttributeError, KeyError, IndexError, TypeError):
            continue  # another change has been there before
    return json.dumps(document).encode()


def putting(value: Any) -> Callable[[Any, str | int], None]:
    return lambda inner, name: inner.__setitem__(name, copy.deepcopy(value))


def removing(inner: Any, name: str | int) -> None:
    del inner[name]


def use(one: Any) -> None:
    """Make everything of a result that there is to make of one."""
    for before, after in ((one, SMALL), (SMALL, one), (one, one)):
        compared = compare(before, after, conditions=CONDITIONS if one.operations else ())
        assert "\x1b" not in compared_text(compared)
        compare_page(compared, before, after)
        msgspec.json.encode(compared)
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in render(one).replace("\n", ""))
    run_page(one)
    histograms_of(one)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(LEAVES), st.one_of(st.sampled_from(NASTY).map(putting), st.just(removing))),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_what_is_decoded_works(changes: Any) -> None:
    try:
        one = decode_result(mutated(*changes), "x.json")
    except UsageError as error:
        refusal = str(error)
    else:
        use(one)
        return
    assert refusal.startswith("x.json: ")
    assert refusal.isprintable()


COLUMN = ("operations", 0, "series", "p50")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (COLUMN, [1, 2], "rest_orders.new: the columns of its series are not of one length"),
        (COLUMN, [0] * 500_000, "length <= 86401 - at `$.operations[0].series.p50`"),
        (("seconds",), 500_000, "`float` <= 86400.0 - at `$.seconds`"),
        (("seconds",), float("nan"), "is no result"),
        (("operations", 0, "rate"), 10**400, "at `$.operations[0].rate`"),
        (("operations", 0, "answered"), -1, "`int` >= 0 - at `$.operations[0].answered`"),
        (("operations", 0, "response"), None, "Expected `object`, got `null` - at `$.operations[0].response`"),
        (("operations", 0, "response", "counts"), "AAAA", "is no result"),
        (("operations", 0, "name"), "x\x9b2J", "at `$.operations[0].name`"),
        (("operations",), [BUILTINS["operations"][0]] * 65, "length <= 64"),
        (("scenario",), {"a": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}, "nested more than 16 deep"),
        (("scenario",), {"a": 10**300}, "out of range"),
        (("scenario",), {"a": "x" * (1 << 22)}, "larger than 2 MB"),
        (("memory",), [{"second": 0, "process": f"p{n}", "bytes": 1} for n in range(5000)], "4096 processes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(path: tuple[str | int, ...], value: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(mutated((path, putting(value))))
    with pytest.raises(UsageError) as error:
        load_result(str(file))
    assert str(error.value).startswith(f"{file}: is no result of tvops bench: ")
    assert message in str(error.value)
    assert len(str(error.value)) < 500


def test_what_a_stranger_s_stack_says_of_itself_fits_a_result() -> None:
    figures = {"a\x9b": 1, "b": 10**400, "c": 1e300, "d": True, "e": "x"}
    assert numbers_of("8000", figures) == {"8000.a?": 1.0}
    assert numbers_of("8000", []) == {}


def test_a_number_that_no_condition_can_have() -> None:
    with pytest.raises(UsageError, match="character 5: takes a number there"):
        parse_condition(f"p99>+{'9' * 400}%")


def test_a_whole_day_is_compared(tmp_path: Path) -> None:
    """As many seconds as there may be take no more than some seconds and some memory."""
    day = (1,) * 86_400
    one = operation(rate=1, seconds=2)
    series = msgspec.structs.replace(one.series, **dict.fromkeys(one.series.__struct_fields__, day))
    whole = result(msgspec.structs.replace(one, series=series), seconds=86_400.0, started=2**63 - 1)
    whole = load_result(str(save_result(whole, str(tmp_path / "day.json"))))
    assert [line.low for line in compare(whole, whole).lines if line.figure == "rate"] == [0.0]
    assert len(run_page(whole)) < 10_000_000
    write_histograms(whole, tmp_path, tmp_path / "day.hlog")


def test_no_text_of_a_file_steers_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TVOPS_DATA_DIR", str(tmp_path))
    host = SMALL.fingerprint
    assert host is not None
    evil = msgspec.structs.replace(host, digest="\x1b[2J\x9b\n", kernel="\x1b]0;x\x07\x9b")
    save_result(SMALL, "good")
    place = save_result(msgspec.structs.replace(SMALL, fingerprint=evil), "evil").parent
    (place / "a\x1b\x9bb.json").write_text('{"schema": "\x9b"}')
    (place / "folder.json").mkdir()
    page = str(tmp_path / "x.html")
    for words in (
        ("compare", "good", "evil"), ("compare", "good", "evil", "--json"), ("compare", "good", "\x1b\x9b"),
        ("compare", "good", "evil", "--fail-if", "\x1b\x9b"), ("results",), ("results", "--json"),
        ("report", "evil", page, "--hgrm", f"{tmp_path}/\x1b\x9b"), ("run", "\x1b\x9b"),
    ):  # fmt: skip
        cli.run(["bench", *words])
        out, err = capsys.readouterr()
        assert not {letter for letter in out + err if ord(letter) < 32 or 127 <= ord(letter) < 160} - {"\n"}, words
        assert "--json" not in words or out.isascii()
    assert [one.name for one in saved_results()] == ["evil", "good", "a??b"]
