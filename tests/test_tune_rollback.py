"""The way back: what was ours is restored, what is not is named with whoever changed it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuning_tree import CATALOGUE, FILES, Tree
from tvops.errors import JournalError, RefusedError
from tvops.tuning.apply import apply_plan
from tvops.tuning.history import drift, history
from tvops.tuning.records import PlannedFile, Run, Undo
from tvops.tuning.recovery import recover
from tvops.tuning.rollback import Restored, is_made_of, roll_back

WISHES = {"net.core.rmem_max": "16mb", "vm.swappiness": "10", "vm.thp": "never"}
SWAPPINESS, THP = "/proc/sys/vm/swappiness", "/sys/kernel/mm/transparent_hugepage/enabled"
BOOT = "/proc/sys/kernel/random/boot_id"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path)
    with tree.state.lock(0, "test"):
        yield tree


def tune(tree: Tree, wishes: dict[str, object] | None = None) -> Run:
    items = tree.plan(wishes or dict(WISHES))
    with tree.begin(items) as run:
        apply_plan(items, CATALOGUE, tree.drivers, run)
    return run.run


def back(tree: Tree, run: Run, force: bool = False) -> dict[str, Restored]:
    with tree.state.open_run(run.id) as journal:
        return {one.name: one for one in roll_back(journal, CATALOGUE, tree.drivers, force)}


def test_a_rollback_restores_in_reverse_order_and_twice_is_once(tree: Tree) -> None:
    before = tree.snapshot()
    run = tune(tree)
    restored = back(tree, run)
    assert list(restored) == list(reversed(WISHES))
    assert {one.outcome for one in restored.values()} == {"restored"}
    assert tree.snapshot() == before
    assert tree.state.load(run.id).state == "rolled back"
    journal = tree.state.path / "journal" / f"{run.id}.jsonl"
    lines = journal.read_bytes()
    assert back(tree, run) == {}
    assert journal.read_bytes() == lines


def test_what_somebody_else_changed_is_left_and_named(tree: Tree) -> None:
    run = tune(tree)
    tree.write(SWAPPINESS, "35\n")
    restored = back(tree, run)
    conflict = restored["vm.swappiness"]
    assert (conflict.outcome, conflict.before, conflict.ours, conflict.found) == ("conflict", "60", "10", "35")
    assert conflict.reason == "holds 35, tvops wrote 10, before that it was 60; left alone, --force restores it"
    assert tree.read(SWAPPINESS) == "35\n"
    assert tree.read(THP) == FILES[THP]
    assert tree.state.load(run.id).state == "incomplete"
    assert list(back(tree, run)) == ["vm.swappiness"]  # asked again, the rest is done
    assert back(tree, run, force=True)["vm.swappiness"].outcome == "restored"
    assert tree.read(SWAPPINESS) == "60\n"
    assert tree.state.load(run.id).state == "rolled back"


def test_what_somebody_else_restored_is_fine(tree: Tree) -> None:
    run = tune(tree)
    tree.write(SWAPPINESS, "60\n")
    assert back(tree, run)["vm.swappiness"].outcome == "untouched"


@pytest.mark.parametrize("later", ["20", "60"])
def test_a_later_run_is_named_and_goes_first(tree: Tree, later: str) -> None:
    """Also where the later run brought back what stood there before the first."""
    before = tree.snapshot()
    first = tune(tree)
    second = tune(tree, {"vm.swappiness": later})
    conflict = back(tree, first)["vm.swappiness"]
    assert conflict.outcome == "conflict"
    assert f"(run {second.id} changed it later: tvops tune rollback {second.id} first)" in conflict.reason
    assert back(tree, second)["vm.swappiness"].outcome == "restored"
    assert back(tree, first)["vm.swappiness"].outcome == "restored"
    assert tree.snapshot() == before


def test_a_reboot_is_named(tree: Tree) -> None:
    run = tune(tree)
    tree.write(BOOT, "another\n")
    tree.write(SWAPPINESS, "35\n")
    assert "(the host was rebooted since)" in back(tree, run)["vm.swappiness"].reason


def test_a_running_service_is_named(tree: Tree) -> None:
    run = tune(tree, {"irq.affinity@irq24": "0", "vm.swappiness": "10"})
    tree.write("/proc/irq/24/smp_affinity_list", "3\n")
    tree.write("/proc/771/comm", "irqbalance\n")
    restored = back(tree, run)
    assert "(irqbalance is running and sets such values)" in restored["irq.affinity@irq24"].reason
    assert restored["vm.swappiness"].outcome == "restored"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"/etc/sysctl.d/9.conf": "# x\n; y\n\nvm.swappiness = 35\n"}, "/etc/sysctl.d/9.conf:4 sets it to 35"),
        ({"/etc/sysctl.conf": "-vm/swappiness=035"}, "/etc/sysctl.conf:1 sets it to 035"),
        ({"/usr/lib/sysctl.d/1.conf": "vm.swap*=35"}, "/usr/lib/sysctl.d/1.conf:1 sets it to 35"),
        # The file of the same name in /etc hides the one in /usr/lib.
        ({"/usr/lib/sysctl.d/1.conf": "vm.swappiness=35", "/etc/sysctl.d/1.conf": "vm.swappiness=36"},
         "/etc/sysctl.d/1.conf:1 sets it to 36"),
        # The line with the value that was found is the likelier one.
        ({"/run/sysctl.d/1.conf": "vm.swappiness=35", "/etc/sysctl.d/2.conf": "vm.swappiness=36"},
         "/run/sysctl.d/1.conf:1 sets it to 35"),
        ({"/etc/sysctl.d/1.conf": "vm.swappiness=1\nvm.swappiness=2"}, "/etc/sysctl.d/1.conf:2 sets it to 2"),
    ],
)  # fmt: skip
def test_a_file_of_settings_is_named_with_its_line(tree: Tree, files: dict[str, str], said: str) -> None:
    run = tune(tree)
    for path, text in files.items():
        tree.write(path, text)
    tree.write(SWAPPINESS, "35\n")
    assert f"({said})" in back(tree, run)["vm.swappiness"].reason


def test_a_file_of_other_settings_is_not_named(tree: Tree) -> None:
    run = tune(tree)
    tree.write("/etc/sysctl.d/1.conf", "#vm.swappiness=35\nvm.swappiness\nvm.dirty_ratio=35\n")
    tree.write("/etc/sysctl.d/1.conf.bak", "vm.swappiness=35\n")
    tree.write(SWAPPINESS, "35\n")
    assert "sets it" not in back(tree, run)["vm.swappiness"].reason


def test_a_place_that_is_gone_is_stuck_until_it_is_given_up(tree: Tree) -> None:
    run = tune(tree, {"irq.affinity@irq24": "0", "vm.swappiness": "10"})
    (tree.root / "proc/irq/24/smp_affinity_list").unlink()
    restored = back(tree, run)
    assert (restored["irq.affinity@irq24"].outcome, restored["irq.affinity@irq24"].reason) == (
        "stuck", "not on this host",
    )  # fmt: skip
    assert restored["vm.swappiness"].outcome == "restored"
    assert back(tree, run, force=True)["irq.affinity@irq24"].outcome == "untouched"
    assert tree.state.load(run.id).state == "rolled back"


def test_a_place_that_refuses_its_old_value_is_stuck(tree: Tree) -> None:
    run = tune(tree)
    (tree.root / SWAPPINESS[1:]).chmod(0o444)
    restored = back(tree, run)
    assert (restored["vm.swappiness"].outcome, restored["vm.swappiness"].reason) == ("stuck", "read-only here")


def test_kinds_that_a_command_does_not_reach_are_told(tree: Tree) -> None:
    run = tune(tree)
    with tree.state.open_run(run.id) as journal:
        restored = roll_back(journal, CATALOGUE, {"sysctl": tree.driver})
    assert [one.reason for one in restored if one.incomplete] == ["this command does not reach file knobs"]


def test_values_of_another_network_namespace_are_not_ours(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sysctls of the network have a value in each namespace; `ip netns exec` brings a rollback into another."""
    names = iter(["net:[1]", "net:[1]", "net:[2]", "net:[2]", "net:[2]"])
    monkeypatch.setattr("tvops.tuning.journal.network_namespace", lambda _: next(names))
    monkeypatch.setattr("tvops.tuning.attribution.network_namespace", lambda _: next(names))
    run = tune(tree, {"net.ipv4.tcp_rmem": "4096 131072 16777216", "vm.swappiness": "10"})
    assert next(names) == "net:[1]"
    restored = back(tree, run)
    assert "(it was written in another network namespace)" in restored["net.ipv4.tcp_rmem"].reason
    assert restored["vm.swappiness"].outcome == "restored"


@pytest.mark.parametrize(
    ("value", "before", "now", "made"),
    [
        ("100000", "0", "10483", True),  # clamped
        ("1000", "0", "1024", True),  # rounded up
        ("1000", "0", "1025", False), ("1000", "0", "-1", False),
        ("10", "60", "35", True), ("10", "60", "61", False),
        ("1 2 3", "4 5 6", "1 5 6", True), ("1 2 3", "4 5 6", "1 5", False), ("never", "always", "madvise", False),
        ("", "", "", False),
    ],
)  # fmt: skip
def test_what_the_kernel_makes_of_a_value(value: str, before: str, now: str, made: bool) -> None:
    assert is_made_of(value, before, now) == made


def interrupted(tree: Tree, left: str, wishes: dict[str, object] | None = None, after: int = 2) -> Run:
    """Cut the journal of a run behind ``after`` writes, the last of which shows ``left`` and was not read back."""
    run = tune(tree, wishes)
    path = tree.state.path / "journal" / f"{run.id}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: 2 * after]))
    for entry in list(run.entries.values())[after:]:
        where = entry.write.item.place.address  # type: ignore[union-attr]
        tree.write(where, FILES[where])
    tree.write(list(run.entries.values())[after - 1].write.item.place.address, left)  # type: ignore[union-attr]
    return tree.state.interrupted()[-1]


@pytest.mark.parametrize("left", ["10\n", "60\n", "35\n"])
def test_a_write_that_a_crash_cut_off_is_undone_whatever_came_of_it(tree: Tree, left: str) -> None:
    before = tree.snapshot()
    run = interrupted(tree, left)
    with tree.state.open_run(run.id) as journal:
        recovered = recover(journal, "undo", CATALOGUE, tree.drivers)
    assert not any(one.incomplete for one in recovered.restored)
    assert tree.snapshot() == before
    assert tree.state.interrupted() == []


@pytest.mark.parametrize("left", ["10\n", "60\n", "35\n"])
def test_a_write_that_a_crash_cut_off_is_finished_whatever_came_of_it(tree: Tree, left: str) -> None:
    before = tree.snapshot()
    run = interrupted(tree, left)
    with tree.state.open_run(run.id) as journal:
        recovered = recover(journal, "finish", CATALOGUE, tree.drivers)
    assert [item.outcome for item in recovered.items] == ["written"] * 3
    assert {item.state for item in tree.plan(dict(WISHES))} == {"met"}
    assert tree.state.load(run.id).state == "applied"
    back(tree, run)
    assert tree.snapshot() == before


@pytest.mark.parametrize("how", ["undo", "finish"])
def test_a_write_that_somebody_changed_after_a_crash_is_left(tree: Tree, how: str) -> None:
    run = interrupted(tree, "99\n")
    with tree.state.open_run(run.id) as journal:
        recovered = recover(journal, how, CATALOGUE, tree.drivers)  # type: ignore[arg-type]
    assert tree.read(SWAPPINESS) == "99\n"
    if how == "undo":
        assert [one.outcome for one in recovered.restored] == ["conflict", "restored"]
    else:
        assert recovered.items[1].outcome == "stuck"
        assert "somebody else changed it to 99" in recovered.items[1].reason


def test_a_run_from_before_a_reboot_or_that_was_being_undone_is_not_finished(tree: Tree) -> None:
    run = interrupted(tree, "10\n")
    tree.write(BOOT, "another\n")
    with (
        tree.state.open_run(run.id) as journal,
        pytest.raises(
            RefusedError, match=f"^run {run.id} cannot be finished: the host was rebooted since; undo it$"
        ),
    ):
        recover(journal, "finish", CATALOGUE, tree.drivers)
    tree.write(BOOT, FILES[BOOT])
    with tree.state.open_run(run.id) as journal:
        back(tree, run)
        journal = tree.state.open_run(run.id)
        journal.append(Undo(0))
    with journal, pytest.raises(RefusedError, match="it was being undone"):
        recover(journal, "finish", CATALOGUE, tree.drivers)


def test_a_damaged_journal_behind_a_run_keeps_it_from_being_rolled_back(tree: Tree) -> None:
    first, second = tune(tree), tune(tree, {"vm.swappiness": "20"})
    path = tree.state.path / "journal" / f"{second.id}.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"20"', b'"21"'))
    with pytest.raises(JournalError, match="line 1 is damaged: the checksum does not fit; move the file away"):
        back(tree, first)
    told = history(tree.state)
    assert [one.state for one in told] == ["applied", "damaged"]
    assert str(path) in told[1].reason


def test_the_history_tells_what_became_of_each_run(tree: Tree) -> None:
    first = tune(tree)
    tree.driver.rejecting = frozenset({"/proc/sys/vm/nr_hugepages"})
    tune(tree, {"vm.nr_hugepages": "5", "vm.swappiness": "20"})
    tree.write(THP, "[always] madvise never\n")
    back(tree, first)
    one, two = history(tree.state)
    assert (one.state, one.undone, one.stuck, one.kind, one.profile) == ("incomplete", 1, 2, "apply", "test")
    assert (two.state, two.written, two.failed) == ("applied", 1, 1)
    assert (one.user, one.command, one.root) == ("root", "tvops tune", str(tree.root)) or one.user != "root"


def test_a_run_that_is_under_way_is_not_called_interrupted(tree: Tree) -> None:
    with tree.begin([]):
        assert [one.state for one in history(tree.state)] == ["running"]


def test_drift_compares_the_last_word_on_each_place(tree: Tree) -> None:
    tune(tree)
    second = tune(tree, {"vm.swappiness": "20"})
    third = tune(tree, {"vm.swappiness": "30"})
    back(tree, third)
    assert drift(tree.state.runs(), CATALOGUE, tree.drivers, tree.root) == []
    tree.write(SWAPPINESS, "35\n")
    tree.write("/etc/sysctl.d/9.conf", "vm.swappiness=35")
    (found,) = drift(tree.state.runs(), CATALOGUE, tree.drivers, tree.root)
    assert (found.name, found.run, found.ours, found.found) == ("vm.swappiness", second.id, "20", "35")
    assert found.reason == "/etc/sysctl.d/9.conf:1 sets it to 35"
    (tree.root / SWAPPINESS[1:]).unlink()
    (found,) = drift(tree.state.runs(), CATALOGUE, tree.drivers, tree.root)
    assert (found.found, found.reason) == (None, "not on this host")


def test_drift_of_files_is_told(tree: Tree) -> None:
    from tvops.tuning.apply import apply_files

    files = [PlannedFile(path=f"/etc/sysctl.d/{n}.conf", content="x") for n in range(3)]
    with tree.state.new_run("persist", command="", root=tree.root, files=files) as run:
        apply_files(files, run)
    tree.write("/etc/sysctl.d/0.conf", "y")
    (tree.root / "etc/sysctl.d/1.conf").unlink()
    found = drift(tree.state.runs(), CATALOGUE, tree.drivers, tree.root)
    assert [(one.name, one.reason) for one in found] == [
        ("/etc/sysctl.d/0.conf", "somebody else changed it"), ("/etc/sysctl.d/1.conf", "somebody removed it"),
    ]  # fmt: skip


def test_runs_on_another_root_are_not_looked_at(tree: Tree, tmp_path: Path) -> None:
    tune(tree)
    (tmp_path / "other").mkdir()
    assert drift(tree.state.runs(), CATALOGUE, tree.drivers, tmp_path / "other") == []
