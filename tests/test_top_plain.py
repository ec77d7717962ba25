"""`tvops top` without its screen, and `tvops slo`: what is printed, and which options go together."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.top_documents import BEGIN, GATEWAY, STACK, Engine, metric
from tvops import cli
from tvops.slo import Port, lines, rows_of
from tvops.telemetry_client import Reading
from tvops.top.model import Model
from tvops.top.plain import csv_rows, to_json
from tvops.top.recording import Writer


def test_what_a_stack_says_does_not_steer_a_terminal() -> None:
    """Names with control characters are refused with their document; units and reasons are free text."""
    evil = "\x1b]0;title\x07\x9b31m\r\n"
    row = metric("tv_cpu", evil, 1.0, 1, 1, p50=1.0, detail=evil)
    document = msgspec.structs.replace(Engine().document(BEGIN), metrics=(row,))
    model = Model((STACK,))
    model.take(Reading(GATEWAY, document, "", 0, True))
    (line,) = csv_rows(model.moment(0))
    assert "?]0;title??31m??" in line
    assert to_json(model.moment(0)).isascii()
    assert b"\\u009b31m" in to_json(model.moment(0))
    ports = [Port(GATEWAY, "engine")]
    head, shown = lines(rows_of(ports, [Reading(GATEWAY, document, "", 0, True)], (), own=False))
    assert shown.endswith("(?]0;title??31m??)")
    assert all(text.isprintable() for text in (line, head, shown))


FREE_TO_ASK = ("--gateway", "http://127.0.0.1:1")
IDLE = [
    (form, option)
    for form, options in {
        "--once": "--hz 2,--theme nord,--record {new},--count 2",
        "--json": "--hz 2,--theme nord,--record {new},--baseline {new},--view book",
        "--csv": "--hz 2,--theme nord,--record {new},--baseline {new},--view book",
        "--hlog {new}": "--hz 2,--theme nord,--record {new},--baseline {new},--view book",
        "--hgrm {new}": "--hz 2,--theme nord,--record {new},--baseline {new},--view book",
        "": "--count 2,--seconds 2",
        "--replay {new} --json": "--count 2",
        "--replay {new} --hlog {new}": "-n 2",
        "--replay {new} --once": "--seconds 2",
    }.items()
    for option in options.split(",")
]


@pytest.mark.parametrize(("form", "option"), IDLE)
def test_an_option_that_would_do_nothing_is_refused(
    form: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"{form} {option}".format(new=tmp_path / "new").split()
    assert cli.run(["top", *words, *(() if "--replay" in form else FREE_TO_ASK)]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert f"{option.split()[0].replace('-n', '--count')}: does nothing with" in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", ["--once --view book --seconds 0.1", "--csv --count 2 --seconds 0.1", "--json -n 1"]
)
def test_options_that_are_heeded_are_taken(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["top", *words.split(), *FREE_TO_ASK]) == 1  # nobody is there
    assert capsys.readouterr().out


def test_a_book_that_cannot_be_shown_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    words = ["top", "--once", "--view", "book", "--seconds", "0.1"]
    assert cli.run([*words, *FREE_TO_ASK]) == 1
    assert "no gateway among the ports" in capsys.readouterr().out
    writer = Writer(tmp_path / "recording", (STACK,))
    writer.add(Reading(GATEWAY, Engine().document(BEGIN), "", 0, True), BEGIN)
    writer.close()
    assert cli.run(["top", "--once", "--view", "book", "--replay", str(tmp_path / "recording")]) == 0
    assert "books are not recorded" in capsys.readouterr().out
