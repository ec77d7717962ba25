"""`kill -9` at every step of a run: what the journal tells is enough to undo it to the byte, or to finish it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.tuning_crashes import FILES, SCENARIOS, WISHES, crashes, make_tree, set_moods, write_disk
from tests.tuning_tree import CATALOGUE, Tree
from tvops.tuning.history import history
from tvops.tuning.records import Run
from tvops.tuning.recovery import Recovered, recover, unfinishable
from tvops.tuning.rollback import roll_back

pytestmark = pytest.mark.usefixtures("unsynced")


def crashed(scenario: str, folder: Path) -> Iterator[Tree]:
    """Give what all crashes of a scenario leave, one after the other; the last is a run that ended."""
    disks = crashes(scenario, folder)
    assert len(disks) > 15
    for disk in disks:
        write_disk(folder, disk)
        tree = Tree(folder, files={})
        set_moods(tree, scenario)
        yield tree


def recovered(tree: Tree, run: Run, how: Literal["finish", "undo"]) -> Recovered:
    with tree.state.open_run(run.id) as journal:
        return recover(journal, how, CATALOGUE, tree.drivers)


def undo_what_stands(tree: Tree) -> None:
    """Roll back whatever ended as applied."""
    for run in tree.state.runs():
        with tree.state.open_run(run.id) as journal:
            assert not any(one.incomplete for one in roll_back(journal, CATALOGUE, tree.drivers))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_at_any_step_is_undone_to_the_byte(scenario: str, tmp_path: Path) -> None:
    before = make_tree(tmp_path / "before", scenario).snapshot()
    interrupted = 0
    for step, tree in enumerate(crashed(scenario, tmp_path / "crashes")):
        with tree.state.lock(0, "test"):
            for run in tree.state.interrupted():
                interrupted += 1
                assert not any(one.incomplete for one in recovered(tree, run, "undo").restored)
            assert tree.state.interrupted() == []
            undo_what_stands(tree)
        assert tree.snapshot() == before, step
    assert interrupted > 10


@pytest.mark.parametrize("scenario", ["apply", "clamped", "persist"])
def test_a_crash_at_any_step_is_finished_as_planned(scenario: str, tmp_path: Path) -> None:
    before = make_tree(tmp_path / "before", scenario).snapshot()
    *_, applied = crashed(scenario, tmp_path / "applied")
    wanted = applied.snapshot()
    assert wanted != before
    finished = 0
    for step, tree in enumerate(crashed(scenario, tmp_path / "crashes")):
        with tree.state.lock(0, "test"):
            for run in tree.state.interrupted():
                finished += 1
                recovered(tree, run, "finish")
                assert tree.snapshot() == wanted, step
                assert [one.state for one in history(tree.state)] == ["applied"]
            undo_what_stands(tree)
        assert tree.snapshot() == before, step
    assert finished > 10


@pytest.mark.parametrize("scenario", ["required", "rollback", "measure"])
def test_what_was_being_undone_or_measured_is_not_finished(scenario: str, tmp_path: Path) -> None:
    reasons = {
        unfinishable(run, CATALOGUE)
        for tree in crashed(scenario, tmp_path / "crashes")
        for run in tree.state.interrupted()
    }
    if scenario == "measure":
        assert reasons == {"a measurement cannot be taken up again"}
    else:
        assert reasons == {"", "it was being undone"}


def test_a_crash_of_the_recovery_is_recovered(tmp_path: Path) -> None:
    """Half-way through an undo of an interrupted run the records of that undo are cut off again, at each line."""
    before = make_tree(tmp_path / "before", "apply").snapshot()
    folder = tmp_path / "crashes"
    for disk in reversed(crashes("apply", folder)):
        write_disk(folder, disk)
        tree = Tree(folder, files={})
        if tree.state.interrupted():
            break
    (run,) = tree.state.interrupted()
    journal = tree.state.path / "journal" / f"{run.id}.jsonl"
    known = len(journal.read_bytes().splitlines())
    shutil.copytree(tree.root, tmp_path / "applied")
    with tree.state.lock(0, "test"):
        recovered(tree, run, "undo")
        lines = journal.read_bytes().splitlines(keepends=True)
        for count in range(known, len(lines)):
            journal.write_bytes(b"".join(lines[:count]))
            recovered(tree, run, "undo")  # the host is ahead of the journal
            assert tree.snapshot() == before
            shutil.rmtree(tree.root)
            shutil.copytree(tmp_path / "applied", tree.root)
            journal.write_bytes(b"".join(lines[:known]))
            recovered(tree, run, "undo")
            assert tree.snapshot() == before


def test_the_scenarios_do_what_they_say(tmp_path: Path) -> None:
    assert len(WISHES) == 3
    assert len(FILES) == 2
    tree = make_tree(tmp_path / "a", "apply")
    with tree.state.lock(0, "test"):
        SCENARIOS["apply"](tree)
    assert {item.state for item in tree.plan(WISHES)} == {"met"}
