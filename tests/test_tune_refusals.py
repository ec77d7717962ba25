"""What this kernel did not take counts until it is booted again; what a server did not take does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuning_tree import Tree
from tvops.tuning.history import Refusals, refusals
from tvops.tuning.host import Host
from tvops.tuning.journal import StateDirectory
from tvops.tuning.model import Item, Kind, Place, State
from tvops.tuning.records import Done, Failed, Run, Write

BOOT = "/proc/sys/kernel/random/boot_id"
ADDRESSES = {"sysctl": "/proc/sys/x", "file": "/sys/x", "nic": "eth0", "redis": "unix:///run/s"}


class Read(StateDirectory):
    """A state directory that notes which journals were read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.peeked: list[str] = []

    def peek(self, run_id: str) -> Run | None:
        self.peeked.append(run_id)
        return super().peek(run_id)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path)
    with tree.state.lock(0, "test"):
        yield tree


def attempt(tree: Tree, kind: Kind, *, failed: bool = True, value: str = "1") -> str:
    """Journal a run that tried one value; give its id."""
    item = Item(
        knob=kind, kind=kind, place=Place(ADDRESSES[kind]), scope="host", risk="safe", required=False, current="0",
        wanted=value, value=value, state="pending",
    )  # fmt: skip
    with tree.begin([item]) as journal:
        journal.append(Write(n=0, item=item, before=State("present", "0", "0")))
        journal.append(Failed(0, "Invalid argument") if failed else Done(0))
        return journal.run.id


def refused(tree: Tree) -> Refusals:
    return refusals(tree.state, Host(tree.root))


@pytest.mark.parametrize("kind", ["sysctl", "file", "nic"])
def test_what_the_kernel_refused_is_remembered_until_it_takes_it(tree: Tree, kind: Kind) -> None:
    run = attempt(tree, kind)
    attempt(tree, kind, failed=False, value="2")
    assert refused(tree) == {
        (kind, ADDRESSES[kind], "1"): f"Invalid argument (tried in run {run}; --retry tries again)"
    }
    attempt(tree, kind, failed=False)
    assert refused(tree) == {}
    attempt(tree, kind)
    assert list(refused(tree)) == [(kind, ADDRESSES[kind], "1")]


def test_what_a_server_refused_is_tried_again(tree: Tree) -> None:
    attempt(tree, "redis")
    assert refused(tree) == {}


def test_another_boot_forgets_and_older_journals_are_not_read(tree: Tree) -> None:
    old = [attempt(tree, "sysctl"), attempt(tree, "sysctl")]
    tree.write(BOOT, "another\n")
    new = [attempt(tree, "file"), attempt(tree, "nic")]
    state = Read(tree.state.path)
    assert {place[0] for place in refusals(state, Host(tree.root))} == {"file", "nic"}
    assert state.peeked == [*reversed(new), old[-1]]


def test_a_damaged_journal_hides_none_of_the_others(tree: Tree) -> None:
    attempt(tree, "sysctl")
    damaged = attempt(tree, "file")
    attempt(tree, "nic")
    (tree.state.path / "journal" / f"{damaged}.jsonl").write_bytes(b"x\ny\n")
    assert {place[0] for place in refused(tree)} == {"sysctl", "nic"}


def test_runs_on_another_root_are_passed_over(tree: Tree, tmp_path: Path) -> None:
    attempt(tree, "sysctl")
    other = Tree(tmp_path / "other")
    other.state = tree.state
    other.write(BOOT, "another\n")
    attempt(other, "file")
    assert {place[0] for place in refused(tree)} == {"sysctl"}
    assert {place[0] for place in refused(other)} == {"file"}
