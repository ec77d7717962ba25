"""The journal and the lock: what is on disk when, what is told of damage, and who holds what."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuning_tree import Tree
from tvops.errors import HeldError, JournalError, UsageError
from tvops.tuning import journal as journal_module
from tvops.tuning.journal import StateDirectory, state_directory, without_passwords
from tvops.tuning.model import State
from tvops.tuning.records import Begin, Done, End, Record, Write, decode_run, encode_line

WISHES = {"vm.swappiness": "10", "vm.thp": "never"}


def some_journal(tree: Tree) -> tuple[str, Path]:
    """Make a journal of one write that was done."""
    with tree.state.lock(0, "test"):
        items = tree.plan(WISHES)
        with tree.begin(items) as run:
            run.append(Write(n=0, item=items[0], before=State("present", "60", "60\n")))
            run.append(Done(0))
            run.append(End(1.0, "applied"))
        return run.run.id, tree.state.path / "journal" / f"{run.run.id}.jsonl"


def test_the_state_directory_is_that_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_directory({"TVOPS_STATE_DIR": "/srv/state"}) == Path("/srv/state")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert state_directory({}) == Path("/var/lib/tvops")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/alice/state")
    assert state_directory({}) == Path("/home/alice/state/tvops")


def test_only_the_owner_may_read_and_write(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    _, path = some_journal(tree)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (tree.state.path, path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((tree.state.path / "lock").stat().st_mode) == 0o600


def test_a_directory_in_which_others_could_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with (
        pytest.raises(JournalError, match="others could write in it; chown and chmod 700 it"),
        StateDirectory(tmp_path / "state").lock(0, "test"),
    ):
        pass


def test_each_line_is_json_with_a_number_and_says_what_happened(tmp_path: Path) -> None:
    _, path = some_journal(Tree(tmp_path))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["seq"] for one in records] == [0, 1, 2, 3]
    assert [one["record"] for one in records] == ["begin", "write", "done", "end"]
    assert records[0]["version"] == 1
    assert [item["knob"] for item in records[0]["items"]] == ["vm.swappiness", "vm.thp"]
    assert records[1]["before"]["raw"] == "60\n"


def test_a_record_is_synced_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree(tmp_path)
    synced: list[int] = []

    def fsync(fd: int) -> None:
        synced.append(os.fstat(fd).st_size if stat.S_ISREG(os.fstat(fd).st_mode) else -1)

    monkeypatch.setattr(os, "fsync", fsync)
    with tree.state.lock(0, "test"), tree.begin(tree.plan(WISHES)) as run:
        path = tree.state.path / "journal" / f"{run.run.id}.jsonl"
        assert synced == [path.stat().st_size, -1]  # the file, then its directory
        run.append(End(1.0, "applied"))
        assert synced[2:] == [path.stat().st_size]


def test_a_line_torn_at_any_byte_is_ignored_and_written_over(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    run_id, path = some_journal(tree)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        run = tree.state.load(run_id)
        assert run.state == "interrupted"
        assert run.entries[0].status == "done"
    with tree.state.lock(0, "test"), tree.state.open_run(run_id) as run_again:
        run_again.append(End(1.0, "applied"))
    assert path.read_bytes() == whole


def test_a_begin_torn_at_any_byte_is_no_run(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    run_id, path = some_journal(tree)
    first = path.read_bytes().split(b"\n")[0]
    for length in range(0, len(first) + 1, 7):
        path.write_bytes(first[:length])
        assert tree.state.runs() == []
        with pytest.raises(UsageError, match="was killed before it did anything"):
            tree.state.load(run_id)


@given(position=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_any_changed_byte_in_a_journal_is_named(position: int, byte: int) -> None:
    begin = Begin(
        id="20261121-103000-1a2b", kind="apply", at=1.0, pid=1, user="root", boot="", netns="", root="/",
        profile="prod", command="tvops tune",
    )  # fmt: skip
    records: list[Record] = [begin, End(1.0, "applied"), End(2.0, "applied")]
    data = bytearray(b"".join(encode_line(n, record) for n, record in enumerate(records)))
    position %= len(data) - 1  # without the last newline the last line is a torn one
    if data[position] == byte:
        return
    data[position] = byte
    with pytest.raises(JournalError, match=r"^journal x line [1-3] is damaged: .*move the file away"):
        decode_run(bytes(data), "journal x")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([0, 2], "is record 2 where 1 should be"),
        ([0, 1, 1], "is record 1 where 2 should be"),
        ([1, 2], "is record 1"),
    ],
)
def test_lines_that_are_missing_or_doubled_are_named(tmp_path: Path, lines: list[int], why: str) -> None:
    tree = Tree(tmp_path)
    run_id, path = some_journal(tree)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[n] for n in lines))
    with pytest.raises(JournalError, match=why):
        tree.state.load(run_id)


def test_records_that_do_not_follow_are_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    run_id, path = some_journal(tree)
    path.write_bytes(path.read_bytes() + encode_line(4, Done(7)))
    with pytest.raises(JournalError, match="line 5 is damaged: speaks of write 7, which is not there"):
        tree.state.load(run_id)


def test_a_newer_format_is_told(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    run_id, path = some_journal(tree)
    begin = tree.state.load(run_id).begin
    newer = Begin(**{name: getattr(begin, name) for name in Begin.__struct_fields__} | {"version": 2})
    path.write_bytes(encode_line(0, newer))
    with pytest.raises(JournalError, match=r"was written by a newer tvops \(format 2, this one knows 1\)"):
        tree.state.load(run_id)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "", "x", "20261121-103000-1a2b/..", "20261121-103000-1A2B\n"]
)
def test_names_that_are_none_lead_nowhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not the id of a run"):
        Tree(tmp_path).state.load(name)


def test_an_unknown_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such run; tvops tune history lists them"):
        Tree(tmp_path).state.load("20261121-103000-1a2b")


def test_a_journal_under_another_name_is_refused(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    run_id, path = some_journal(tree)
    path.rename(path.with_name("20990101-000000-0000.jsonl"))
    with pytest.raises(JournalError, match=f"is that of run {run_id}"):
        tree.state.runs()


def test_a_journal_that_is_too_long_or_a_link_is_not_read(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    run_id, path = some_journal(tree)
    with path.open("r+b") as file:
        file.truncate(journal_module.LIMIT + 1)
    with pytest.raises(JournalError, match="is longer than"):
        tree.state.load(run_id)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalError, match="symbolic links"):
        tree.state.load(run_id)


def test_ids_sort_by_time_whatever_the_clock_does(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    ids = []
    with tree.state.lock(0, "test"):
        for _ in range(5):
            with tree.begin([]) as run:
                ids.append(run.run.id)
        ahead = datetime.now(UTC) + timedelta(days=400)
        (tree.state.path / "journal" / f"{ahead:%Y%m%d-%H%M%S}-ffff.jsonl").touch()
        with tree.begin([]) as run:
            ids.append(run.run.id)
    assert ids == sorted(set(ids))
    assert ids[-1] > f"{ahead:%Y%m%d-%H%M%S}-ffff"


def test_old_journals_go_unless_something_of_them_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "KEPT", 3)
    tree = Tree(tmp_path)
    applied, _ = some_journal(tree)
    over = []
    with tree.state.lock(0, "test"):
        for _ in range(6):
            with tree.begin([]) as run:
                run.append(End(1.0, "applied"))
                over.append(run.run.id)
    assert tree.state.ids() == [applied, *over[-4:]]  # when the last one began there were three before it


def test_nothing_is_written_without_the_lock(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="with the lock held"):
        Tree(tmp_path).begin([])


def test_reading_makes_no_directory(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "none")
    assert (state.ids(), state.holder(), state.interrupted()) == ([], "", [])
    assert not state.path.exists()


def test_passwords_in_urls_stay_out_of_journal_and_lock(tmp_path: Path) -> None:
    assert without_passwords("--redis ledger=redis://u:secret@h:1/0 x@y") == "--redis ledger=redis://…@h:1/0 x@y"
    tree = Tree(tmp_path)
    command = "tvops tune --redis ledger=redis://:secret@h"
    with tree.state.lock(0, command), tree.state.new_run("apply", command=command, root=tree.root):
        written = [path.read_text() for path in tree.state.path.rglob("*") if path.is_file()]
    assert len(written) == 2
    assert not any("secret" in text for text in written)


HOLD = """
import sys, time
from pathlib import Path
from tvops.tuning.journal import StateDirectory
with StateDirectory(Path(sys.argv[1])).lock(0, "tvops tune --profile prod"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    with hold(state.path) as other:
        who = rf"pid {other.pid} \(tvops tune --profile prod\)"
        said = rf"^tune: {who} holds {state.path} since \d\d:\d\d:\d\d; wait"
        with pytest.raises(HeldError, match=said), state.lock(0, "test"):
            pass
        assert state.holder() == f"pid {other.pid} (tvops tune --profile prod)"
        other.kill()
        other.wait()
        assert state.holder() == ""  # a crash lets go
        with state.lock(0, "test"):
            pass


def test_a_second_run_waits_for_the_first(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    with hold(state.path) as other:
        assert other.stdin
        threading.Timer(0.4, other.stdin.close).start()
        with state.lock(30, "test"):
            assert other.wait(30) == 0


def test_a_full_disk_is_told_with_its_directory(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes write(2) fail at once, as a full disk does."""
    tree = Tree(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with tree.state.lock(0, "test"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
            with pytest.raises(JournalError, match=f"^state directory {tree.state.path}: .*make room there"):
                tree.begin([])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert tree.state.ids() == []
