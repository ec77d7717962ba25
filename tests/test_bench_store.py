"""The list of saved results: what is there, newest first, and what is no result."""

from __future__ import annotations

import msgspec
import pytest

from tests.bench_results import operation, result
from tvops import cli
from tvops.bench.result import results_folder, save_result
from tvops.bench.store import saved_results


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TVOPS_DATA_DIR", str(tmp_path))


def test_results_are_listed_newest_first_and_broken_files_last():
    save_result(result(operation(), started=1_000), "old")
    save_result(result(operation(), started=2_000, void="late"), "new")
    (results_folder() / "broken.json").write_text("{")
    (results_folder() / "other.json").write_text('{"schema": 99}')
    saved = saved_results()
    assert [one.name for one in saved] == ["new", "old", "broken", "other"]
    assert [one.verdict for one in saved] == ["void", "no targets", "", ""]
    assert "schema 99" in saved[3].problem


def test_nothing_saved_is_said_and_is_no_error(capsys):
    assert cli.run(["bench", "results"]) == 0
    assert "--save NAME" in capsys.readouterr().out
    assert cli.run(["bench", "results", "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out) == []


def test_the_command_lists(capsys):
    save_result(result(operation()), "before")
    (results_folder() / "broken.json").write_text("{")
    assert cli.run(["bench", "results"]) == 0
    out = capsys.readouterr().out
    assert "before" in out
    assert "0123456789ab" in out
    assert "broken: " in out
