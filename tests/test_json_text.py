"""What `--json` prints: it says the same, and nothing in it steers a terminal."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tvops
from tvops.commands.json_output import print_json
from tvops.json_text import json_indented, json_line

EVIL = "\x00\x1b]0;title\x07\x7f\x9b31m\x85\u202e\u2028 Л→\U0001f600\\"


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.just(EVIL))))
def test_every_document_comes_back_from_plain_ascii(document: dict[str, object]) -> None:
    line, indented = json_line(document), json_indented(document)
    assert msgspec.json.decode(line) == msgspec.json.decode(indented) == document
    assert all(32 <= byte < 127 for byte in line)
    assert all(32 <= byte < 127 or byte == 10 for byte in indented)


def test_what_is_plain_stays_as_it_is() -> None:
    document = {"a": [1, "b c"], "d": "\\ \n"}
    assert json_line(document) == msgspec.json.encode(document)


def test_what_is_printed_is_plain(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    print_json({EVIL: EVIL})
    out, _ = capfdbinary.readouterr()
    assert out.isascii()
    assert b"\\u009b31m" in out
    assert msgspec.json.decode(out) == {EVIL: EVIL}


def test_no_command_makes_json_of_its_own() -> None:
    folder = Path(tvops.__path__[0])
    modules = [*folder.joinpath("commands").rglob("*.py"), folder / "serving.py", folder / "top/plain.py"]
    assert not [str(module) for module in modules if "json.encode(" in module.read_text()]
