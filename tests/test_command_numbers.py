"""Numbers of options: what is none is refused by every command, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tvops import cli


def float_options(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Give the words of every command with an option that takes a float, and that option."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from float_options(inner, (*words, name))
    for parameter in command.params:
        if parameter.type.name.startswith("float"):
            yield (*words, max(parameter.opts, key=len))


OPTIONS = [words for name in cli.COMMANDS for words in float_options(cli.build_command([name]))]


def test_there_are_such_options() -> None:
    assert {words[0] for words in OPTIONS} >= {"bench", "slo", "top", "tune", "profile"}


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
@pytest.mark.parametrize("text", ["nan", "inf"])
def test_what_is_no_number_is_refused(
    words: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*words, text]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"'{words[-1]}': {text} is" in err
    assert len(err.splitlines()) == 1
