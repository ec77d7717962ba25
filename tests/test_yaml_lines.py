"""YAML with lines: what is read, where it stands, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvops.errors import UsageError
from tvops.yaml_lines import load_yaml, parse_yaml

FILE = Path("some.yaml")


def test_values_and_lines() -> None:
    text = "# head\nname: x\n\nknobs:\n  net.core.rmem_max: '>=16mb'\n  list:\n    - 1\n    - two\nflag: true\n"
    located = parse_yaml(text, FILE)
    knobs = {"net.core.rmem_max": ">=16mb", "list": [1, "two"]}
    assert located.value == {"name": "x", "knobs": knobs, "flag": True}
    assert located.line("name") == 2
    assert located.line("knobs", "net.core.rmem_max") == 5
    assert located.line("knobs", "list", 1) == 8
    assert located.place("flag") == "some.yaml:9"


def test_a_missing_key_has_the_line_of_what_should_hold_it() -> None:
    located = parse_yaml("a: 1\nb:\n  c: 2\n", FILE)
    assert (located.line("b", "d"), located.line("b", "d", "e"), located.line()) == (2, 2, 1)


def test_an_empty_file_is_none() -> None:
    assert parse_yaml("# nothing\n", FILE).value is None


def test_dates_and_an_equals_sign_stay_text() -> None:
    assert parse_yaml("a: 2026-01-02\nb: =\nc: 2026-99-99", FILE).value == {
        "a": "2026-01-02", "b": "=", "c": "2026-99-99",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "some.yaml:3: a stands twice, first on line 1"),
        ("x:\n  a: 1\n  a: 1\n", "some.yaml:3: x.a stands twice, first on line 2"),
        ("a: 1\non: 2\n", "some.yaml:2: the key 'on' is not text"),
        ("? [a]\n: 1\n", "some.yaml:1: the key that is a list or mapping is not text"),
        ("a: &x 1\nb: *x\n", "some.yaml:2: *x is an alias"),
        ("a: &x {b: *x}\n", "some.yaml:1: "),
        ("a: {x: 1}\n<<: {y: 2}\n", "some.yaml:2: '<<' has the tag !!merge"),
        ("a: !!python/object:os.system x\n", "some.yaml:1: 'x' has the tag !!python/object:os.system"),
        ("a: !!int x\n", "some.yaml:1: 'x' is not a value"),
        ("a: 1\nb: -.inf\n", "some.yaml:2: '-.inf' must be a finite number"),
        ('a: "x\\0"\n', "some.yaml:1: 'x\\x00' has a control character"),
        ("a: " + "9" * 5000, "some.yaml:1: '9999"),
        ("a: 1\nb: [1, 2\n", "some.yaml:3: "),
        ("a: 1\n\tb: 2\n", "some.yaml:2: "),
        ("a: 1\n---\nb: 2\n", "some.yaml:2: "),
        ("a: \x01\n", "some.yaml: is not YAML"),
        ("[" * 30 + "]" * 30, "some.yaml:1: nested more than 16 deep"),
        ("[" * 100_000, "some.yaml:1: nested more than 16 deep"),
        ("- " * 20_000, "some.yaml:1: nested more than 16 deep"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_yaml(text, FILE)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    large, binary = tmp_path / "large.yaml", tmp_path / "binary.yaml"
    large.write_text("a: 1\n" * 10)
    binary.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(UsageError, match=r"missing.yaml: there is no such file"):
        load_yaml(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match=r": is not a regular file"):
        load_yaml(tmp_path)
    with pytest.raises(UsageError, match=r"large.yaml: is larger than 20 bytes"):
        load_yaml(large, limit=20)
    with pytest.raises(UsageError, match=r"binary.yaml:2: is not UTF-8 text"):
        load_yaml(binary)
