"""Carrying out a plan: what is written, what is undone, and what is said of it."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tuning_tree import CATALOGUE, FILES, Tree
from tvops.errors import JournalError, StoppedError, TvopsError
from tvops.tuning.apply import apply_files, apply_plan
from tvops.tuning.flips import Flipper
from tvops.tuning.journal import Journal
from tvops.tuning.model import ExitCode, Item, NotWrittenError
from tvops.tuning.plan import exit_code
from tvops.tuning.records import PlannedFile
from tvops.tuning.rollback import roll_back

pytestmark = pytest.mark.usefixtures("unsynced")
WISHES = {"net.core.rmem_max": ">=16mb", "vm.swappiness": "10", "vm.thp": "never"}
RMEM, SWAPPINESS = "/proc/sys/net/core/rmem_max", "/proc/sys/vm/swappiness"
HUGEPAGES, THP = "/proc/sys/vm/nr_hugepages", "/sys/kernel/mm/transparent_hugepage/enabled"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path)
    with tree.state.lock(0, "test"):
        yield tree


def apply(tree: Tree, items: list[Item]) -> Journal:
    run = tree.begin(items)
    try:
        apply_plan(items, CATALOGUE, tree.drivers, run)
    finally:
        run.close()
    return run


def outcomes(items: list[Item]) -> dict[str, str]:
    return {item.id: item.outcome for item in items}


def test_pending_items_are_written_and_read_back(tree: Tree) -> None:
    items = tree.plan(WISHES)
    run = apply(tree, items)
    assert set(outcomes(items).values()) == {"written"}
    assert (tree.read(RMEM), tree.read(SWAPPINESS)) == ("16777216\n", "10\n")
    assert [item.current for item in items] == [item.value for item in items]
    assert tree.state.load(run.run.id).state == "applied"
    assert {item.state for item in tree.plan(WISHES)} == {"met"}
    assert exit_code(items, applied=True) == ExitCode.MET


def test_the_journal_tells_of_a_write_before_it_happens(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = tree.driver.write

    def write(knob: object, place: object, value: str) -> None:
        run = tree.state.load(tree.state.ids()[-1])
        entry = list(run.entries.values())[-1]
        seen.append((entry.status, entry.write.name, entry.write.before.raw))  # type: ignore[union-attr]
        plain(knob, place, value)  # type: ignore[arg-type]

    monkeypatch.setattr(tree.driver, "write", write)
    apply(tree, tree.plan(WISHES))
    assert seen == [
        ("open", "net.core.rmem_max", FILES[RMEM]), ("open", "vm.swappiness", FILES[SWAPPINESS]),
        ("open", "vm.thp", FILES[THP]),
    ]  # fmt: skip


def test_progress_is_told_item_by_item(tree: Tree) -> None:
    items = tree.plan(WISHES)
    told = []
    with tree.begin(items) as run:
        apply_plan(items, CATALOGUE, tree.drivers, run, lambda item: told.append((item.id, item.outcome)))
    assert told == [(name, "written") for name in WISHES]


def test_a_best_effort_knob_that_is_rejected_does_not_fail_the_rest(tree: Tree) -> None:
    tree.driver.rejecting = frozenset({SWAPPINESS})
    items = tree.plan(WISHES)
    apply(tree, items)
    assert outcomes(items) == {"net.core.rmem_max": "written", "vm.swappiness": "failed", "vm.thp": "written"}
    assert items[1].reason == "the kernel refuses the value"
    assert tree.read(SWAPPINESS) == "60\n"
    assert exit_code(items, applied=True) == ExitCode.UNSUPPORTED


def test_a_value_that_the_kernel_clamps_is_put_back(tree: Tree) -> None:
    tree.driver.clamping = {HUGEPAGES: 7}
    items = tree.plan({"vm.nr_hugepages": "100", "vm.swappiness": "10"})
    apply(tree, items)
    assert outcomes(items) == {"vm.nr_hugepages": "failed", "vm.swappiness": "written"}
    failed = next(item for item in items if item.outcome == "failed")
    assert failed.reason == "reads back 7 instead of 100"
    assert (failed.current, tree.read(HUGEPAGES)) == ("0", "0\n")


def test_a_required_knob_that_fails_undoes_everything(tree: Tree) -> None:
    before = tree.snapshot()
    tree.driver.rejecting = frozenset({THP})
    items = tree.plan(WISHES, required=("vm.thp",))
    run = apply(tree, items)
    assert tree.snapshot() == before
    assert outcomes(items) == {"net.core.rmem_max": "undone", "vm.swappiness": "undone", "vm.thp": "failed"}
    assert items[0].reason == "vm.thp is required, and the kernel refuses the value"
    assert exit_code(items, applied=True) == ExitCode.FAILED
    assert tree.state.load(run.run.id).state == "failed"
    assert tree.state.interrupted() == []


def test_what_cannot_be_undone_is_stuck(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.driver.rejecting = frozenset({THP})
    items = tree.plan(WISHES, required=("vm.thp",))

    def restore(*_: object) -> None:
        raise NotWrittenError("the device is gone")

    monkeypatch.setattr(tree.driver, "restore", restore)
    run = apply(tree, items)
    assert outcomes(items) == {"net.core.rmem_max": "stuck", "vm.swappiness": "stuck", "vm.thp": "failed"}
    assert exit_code(items, applied=True) == ExitCode.INCOMPLETE
    assert tree.state.load(run.run.id).state == "incomplete"


@pytest.mark.parametrize(("wish", "outcome"), [(">=16mb", "failed"), ("16mb", "written")])
def test_a_value_that_changed_since_the_plan_is_not_lowered(tree: Tree, wish: str, outcome: str) -> None:
    items = tree.plan({"net.core.rmem_max": wish})
    tree.write(RMEM, "67108864\n")
    apply(tree, items)
    assert items[0].outcome == outcome
    if outcome == "failed":
        assert items[0].reason == "changed from 4194304 to 67108864 since it was planned; plan again"
        assert tree.read(RMEM) == "67108864\n"


def test_what_somebody_else_did_meanwhile_is_not_ours(tree: Tree) -> None:
    items = tree.plan(WISHES)
    tree.write(SWAPPINESS, "10\n")
    run = apply(tree, items)
    assert (items[1].state, items[1].outcome) == ("met", "")
    roll_back(run_again := tree.state.open_run(run.run.id), CATALOGUE, tree.drivers)
    run_again.close()
    assert tree.read(SWAPPINESS) == "10\n"


def test_a_place_that_vanished_since_the_plan_fails(tree: Tree) -> None:
    items = tree.plan(WISHES)
    (tree.root / SWAPPINESS[1:]).unlink()
    apply(tree, items)
    assert outcomes(items)["vm.swappiness"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_undoes_what_was_written(tree: Tree, number: signal.Signals) -> None:
    before = tree.snapshot()
    handler = signal.getsignal(number)
    items = tree.plan(WISHES)
    with (
        tree.begin(items) as run,
        pytest.raises(StoppedError, match=f"^stopped by {number.name}; what this run had changed is undone$"),
    ):
        apply_plan(items, CATALOGUE, tree.drivers, run, lambda _: os.kill(os.getpid(), number))
    assert tree.snapshot() == before
    assert outcomes(items) == {"net.core.rmem_max": "undone", "vm.swappiness": "", "vm.thp": ""}
    assert signal.getsignal(number) is handler
    assert tree.state.load(run.run.id).state == "failed"


def test_any_exception_undoes_and_is_raised(tree: Tree) -> None:
    before = tree.snapshot()
    items = tree.plan(WISHES)

    def progress(item: Item) -> None:
        if item.id == "vm.thp":
            raise KeyboardInterrupt

    with tree.begin(items) as run, pytest.raises(KeyboardInterrupt):
        apply_plan(items, CATALOGUE, tree.drivers, run, progress)
    assert tree.snapshot() == before


def test_a_full_disk_of_the_journal_stops_and_undoes(tree: Tree) -> None:
    """At every length at which the disk may be full: no write without its record, and everything is undone."""
    before = tree.snapshot()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    told = []
    try:
        for room in range(0, 4000, 150):
            items = tree.plan(WISHES)
            with tree.begin(items) as run:
                size = (tree.state.path / "journal" / f"{run.run.id}.jsonl").stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limits[1]))
                try:
                    apply_plan(items, CATALOGUE, tree.drivers, run)
                except JournalError as error:
                    told.append(str(error))
                    assert {item.outcome for item in items} <= {"undone", ""}
                    assert tree.state.load(run.run.id).state == "interrupted"  # the end had no room either
                else:
                    roll_back(run, CATALOGUE, tree.drivers)
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert tree.snapshot() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(told) > 5
    assert set(told) == {
        f"state directory {tree.state.path}: File too large; make room there, or name another with "
        "TVOPS_STATE_DIR; what this run had changed is undone"
    }


FILES_WANTED = [
    PlannedFile(path="/etc/sysctl.d/90-tvops.conf", content="vm.swappiness = 10\n"),
    PlannedFile(path="/etc/systemd/system/a.service.d/tvops.conf", content="[Service]\n", mode=0o600),
]


def persist(tree: Tree, files: list[PlannedFile] = FILES_WANTED) -> Journal:
    run = tree.state.new_run("persist", command="tvops tune persist", root=tree.root, files=files)
    try:
        apply_files(files, run)
    finally:
        run.close()
    return run


def test_files_are_made_and_taken_away_with_their_directories(tree: Tree) -> None:
    tree.write("/etc/sysctl.d/90-tvops.conf", "old\n")
    (tree.root / "etc/sysctl.d/90-tvops.conf").chmod(0o640)
    before = tree.snapshot()
    run = persist(tree)
    assert tree.read("/etc/sysctl.d/90-tvops.conf") == "vm.swappiness = 10\n"
    assert (tree.root / "etc/systemd/system/a.service.d/tvops.conf").stat().st_mode & 0o777 == 0o600
    with tree.state.open_run(run.run.id) as again:
        restored = roll_back(again, {}, {})
    assert [one.outcome for one in restored] == ["restored", "restored"]
    assert tree.snapshot() == before


def test_a_directory_in_which_somebody_put_something_stays(tree: Tree) -> None:
    run = persist(tree)
    tree.write("/etc/systemd/system/a.service.d/other.conf", "x")
    with tree.state.open_run(run.run.id) as again:
        roll_back(again, {}, {})
    assert tree.read("/etc/systemd/system/a.service.d/other.conf") == "x"
    assert not (tree.root / "etc/sysctl.d").exists()


def test_a_file_that_somebody_edited_is_left_unless_forced(tree: Tree) -> None:
    run = persist(tree)
    tree.write("/etc/sysctl.d/90-tvops.conf", "mine\n")
    with tree.state.open_run(run.run.id) as again:
        restored = roll_back(again, {}, {})
        assert [one.outcome for one in restored] == ["restored", "conflict"]
        assert tree.read("/etc/sysctl.d/90-tvops.conf") == "mine\n"
        assert [one.outcome for one in roll_back(again, {}, {}, force=True)] == ["restored"]
    assert not (tree.root / "etc").exists()


def test_a_file_that_cannot_be_made_undoes_the_others(tree: Tree) -> None:
    tree.write("/etc/systemd", "a file where a directory should be")
    before = tree.snapshot()
    with pytest.raises(TvopsError, match=r"^/etc/systemd/.*: /etc/systemd is not a directory; what this run"):
        persist(tree)
    assert tree.snapshot() == before


def test_a_link_is_not_followed_or_replaced(tree: Tree) -> None:
    (tree.root / "etc/sysctl.d").mkdir(parents=True)
    (tree.root / "etc/sysctl.d/90-tvops.conf").symlink_to("/proc/sys/vm/swappiness")
    with pytest.raises(TvopsError, match="is a symbolic link"):
        persist(tree)
    assert tree.read(SWAPPINESS) == "60\n"


def measure(tree: Tree, items: list[Item]) -> Journal:
    return tree.state.new_run("measure", command="tvops tune measure", root=tree.root, items=items)


def test_flips_go_back_and_forth_with_one_record(tree: Tree) -> None:
    before = tree.snapshot()
    items = tree.plan(WISHES)
    with measure(tree, items) as run, Flipper(run, CATALOGUE, tree.drivers) as flipper:
        for _ in range(3):
            flipper.on(items[2])
            assert tree.read(THP) == "never\n"
            flipper.off(items[2])
            assert tree.snapshot() == before
        flipper.on(items[1])
        assert len(run.run.entries) == 2
    assert tree.snapshot() == before
    assert (flipper.left, tree.state.load(run.run.id).state) == ([], "rolled back")


def test_what_helped_is_kept_and_can_be_rolled_back(tree: Tree) -> None:
    before = tree.snapshot()
    items = tree.plan(WISHES)
    with measure(tree, items) as run:
        with Flipper(run, CATALOGUE, tree.drivers) as flipper:
            flipper.on(items[1])
            flipper.on(items[2])
            flipper.keep(items[1])
        assert (tree.read(SWAPPINESS), tree.read(THP)) == ("10\n", FILES[THP])
        assert tree.state.load(run.run.id).state == "applied"
        roll_back(run, CATALOGUE, tree.drivers)
    assert tree.snapshot() == before


def test_a_flip_that_fails_leaves_nothing_behind(tree: Tree) -> None:
    before = tree.snapshot()
    tree.driver.clamping = {HUGEPAGES: 7}
    items = tree.plan({"vm.nr_hugepages": "100", "vm.swappiness": "10"})
    hugepages = next(item for item in items if item.knob == "vm.nr_hugepages")
    swappiness = next(item for item in items if item.knob == "vm.swappiness")

    def stop_halfway() -> None:
        with measure(tree, items) as run, Flipper(run, CATALOGUE, tree.drivers) as flipper:
            with pytest.raises(NotWrittenError, match="reads back 7 instead of 100"):
                flipper.on(hugepages)
            assert tree.snapshot() == before
            flipper.keep(swappiness)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert tree.snapshot() == before


INTS = st.integers(0, 10**6).map(str)
OPERATORS = st.sampled_from(["", "=", ">=", "<="])
TRIPLES = st.lists(st.integers(1, 10**6), min_size=3, max_size=3).map(sorted)
CPUS = st.sets(st.integers(0, 3), min_size=1)
THP_WORDS = ("always", "madvise", "never")


@st.composite
def hosts(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, object], dict[str, str]]:
    """Give files, wishes, and places that are moody: rejecting, clamping, read-only or absent."""
    chosen = draw(st.sampled_from(THP_WORDS))
    mask = sum(1 << cpu for cpu in draw(CPUS))
    files = FILES | {
        RMEM: draw(INTS) + draw(st.sampled_from(["\n", ""])),
        SWAPPINESS: draw(INTS) + "\n",
        "/proc/sys/net/ipv4/tcp_rmem": "\t".join(map(str, draw(TRIPLES))) + "\n",
        THP: " ".join(f"[{word}]" if word == chosen else word for word in THP_WORDS) + "\n",
        "/proc/irq/default_smp_affinity": draw(st.sampled_from([f"{mask:x}\n", f"{mask:08x}\n"])),
        "/proc/irq/24/smp_affinity_list": ",".join(map(str, sorted(draw(CPUS)))) + "\n",
    }
    possible: dict[str, object] = {
        "net.core.rmem_max": draw(OPERATORS) + draw(INTS),
        "vm.swappiness": draw(OPERATORS) + draw(INTS),
        "vm.nr_hugepages": draw(INTS),
        "net.ipv4.tcp_rmem": " ".join(f"{draw(OPERATORS)}{number}" for number in draw(TRIPLES)),
        "vm.thp": draw(st.sampled_from([*THP_WORDS, "never|madvise"])),
        "irq.default": draw(st.sampled_from(["$irq", "$engine", "all", "1,3"])),
        "irq.affinity": draw(st.sampled_from(["$irq", "0-1", "all"])),
        "irq.affinity@irq25": "2",
    }
    wishes = {name: possible[name] for name in draw(st.sets(st.sampled_from(sorted(possible)), min_size=1))}
    places = st.sampled_from(sorted(path for path in FILES if "boot_id" not in path))
    moods = draw(st.dictionaries(places, st.sampled_from(["rejecting", "read-only", "absent"]), max_size=3))
    return files, wishes, moods


@settings(max_examples=30)
@given(host=hosts(), clamp=st.integers(0, 10**6))
def test_on_any_host_a_plan_is_idempotent_and_its_rollback_exact(
    tmp_path_factory: pytest.TempPathFactory,
    host: tuple[dict[str, str], dict[str, object], dict[str, str]],
    clamp: int,
) -> None:
    files, wishes, moods = host
    files = {path: text for path, text in files.items() if moods.get(path) != "absent"}
    tree = Tree(tmp_path_factory.mktemp("host"), files)
    for path, mood in moods.items():
        if mood == "read-only":
            (tree.root / path[1:]).chmod(0o444)
    tree.driver.rejecting = frozenset(path for path, mood in moods.items() if mood == "rejecting")
    tree.driver.clamping = {HUGEPAGES: clamp}
    before = tree.snapshot()
    with tree.state.lock(0, "test"):
        items = tree.plan(wishes)
        planned = {item.id: item.current for item in items}
        run = apply(tree, items)
        applied = tree.snapshot()
        failed = {item.id for item in items if item.outcome == "failed"}
        again = tree.plan(wishes)
        assert {item.id for item in again if item.state == "pending"} == failed
        for item in items:
            assert item.outcome in ("", "written", "failed")
            if item.outcome == "written":
                _check_direction(item, planned[item.id] or "")
        apply(tree, again)
        assert tree.snapshot() == applied
        with tree.state.open_run(run.run.id) as opened:
            restored = roll_back(opened, CATALOGUE, tree.drivers)
    assert not any(one.incomplete for one in restored)
    assert tree.snapshot() == before


def _check_direction(item: Item, planned: str) -> None:
    """See that raise-only never lowers and lower-only never raises."""
    for word, had, has in zip(item.wanted.split(), planned.split(), item.value.split(), strict=False):
        if word.startswith(">="):
            assert int(has) >= int(had)
        elif word.startswith("<="):
            assert int(has) <= int(had)
