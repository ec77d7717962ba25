"""File access below a root: nothing outside of a tree is ever read or written."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tvops.errors import UsageError
from tvops.tuning.host import LIMIT, PROC_LIMIT, Host


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that no path of the tree may reach."""
    path = tmp_path / "secret"
    path.write_text("outside")
    return path


@pytest.fixture
def tree(tmp_path: Path, outside: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sys/block/vda").mkdir(parents=True)
    (root / "sys/block/vda/size").write_text("8\n")
    return root


def test_the_root_has_to_be_a_directory(outside: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        Host(outside)
    with pytest.raises(UsageError, match="is not a directory"):
        Host(tmp_path / "nowhere")


def test_only_the_root_of_the_system_is_live(tree: Path) -> None:
    assert Host().live
    assert Host(Path("/usr/..")).live
    assert not Host(tree).live


@pytest.mark.parametrize(
    "link",
    ["{outside}", "../../secret", "../../../../../../../../../{outside}", "/../../secret", "loop/../{outside}"],
)
def test_links_stay_within_the_tree(tree: Path, outside: Path, link: str) -> None:
    host = Host(tree)
    (tree / "sys/link").symlink_to(link.format(outside=outside))
    assert not host.exists("/sys/link")
    with pytest.raises(OSError):
        host.read_text("/sys/link")
    with pytest.raises(OSError):
        host.write_text("/sys/link", "changed")
    assert outside.read_text() == "outside"


def test_a_link_to_a_directory_outside_is_looked_up_inside(tree: Path, outside: Path) -> None:
    host = Host(tree)
    (tree / "sys/up").symlink_to(outside.parent)
    assert host.listdir("/sys/up") == []
    assert host.glob("/sys/up/*") == []
    inside = tree / outside.parent.relative_to("/")
    inside.mkdir(parents=True)
    (inside / "secret").write_text("inside")
    assert host.read_text("/sys/up/secret") == "inside"


def test_dots_stay_within_the_tree(tree: Path, outside: Path) -> None:
    host = Host(tree)
    with pytest.raises(FileNotFoundError):
        host.read_text("/../secret")
    assert host.read_text("/sys/../../../sys/block/vda/size") == "8\n"


def test_absolute_links_are_followed_from_the_root_of_the_tree(tree: Path) -> None:
    host = Host(tree)
    (tree / "class").symlink_to("/sys/block")
    host.write_text("/class/vda/size", "16\n")
    assert (tree / "sys/block/vda/size").read_text() == "16\n"
    assert host.readlink("/class") == "/sys/block"
    assert host.glob("/class/*/size") == ["/class/vda/size"]


def test_a_loop_of_links_is_an_error(tree: Path) -> None:
    (tree / "a").symlink_to("b")
    (tree / "b").symlink_to("a")
    with pytest.raises(OSError) as error:
        Host(tree).read_text("/a/x")
    assert error.value.errno == errno.ELOOP
    assert not Host(tree).exists("/a")


def test_a_path_has_to_be_absolute(tree: Path) -> None:
    with pytest.raises(ValueError, match="absolute"):
        Host(tree).read_text("sys/block")


def test_glob_gives_existing_paths_only(tree: Path) -> None:
    host = Host(tree)
    (tree / "sys/block/vdb").mkdir()
    assert host.glob("/sys/block/*") == ["/sys/block/vda", "/sys/block/vdb"]
    assert host.glob("/sys/block/*/size") == ["/sys/block/vda/size"]
    assert host.glob("/sys/block/vd[b-z]/*") == []


@pytest.mark.parametrize(("folder", "limit"), [("sys", LIMIT), ("proc", PROC_LIMIT)])
def test_reads_are_limited(tree: Path, folder: str, limit: int) -> None:
    host = Host(tree)
    (tree / folder).mkdir(exist_ok=True)
    (tree / folder / "big").write_text("x" * limit)
    assert len(host.read_text(f"/{folder}/big")) == limit
    (tree / folder / "big").write_text("x" * (limit + 1))
    with pytest.raises(OSError, match="longer than") as error:
        host.read_text(f"/{folder}/big")
    assert error.value.errno == errno.EFBIG


def test_a_pipe_or_directory_is_no_file(tree: Path) -> None:
    host = Host(tree)
    os.mkfifo(tree / "pipe")
    for name in ("/pipe", "/sys"):
        with pytest.raises(OSError, match=r"not a plain file|Is a directory"):
            host.read_text(name)
        with pytest.raises(OSError, match="not a plain file"):
            host.write_text(name, "x")
    assert stat.S_ISFIFO((tree / "pipe").stat().st_mode)


def test_bytes_that_are_no_text_are_an_error(tree: Path) -> None:
    (tree / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match="not text"):
        Host(tree).read_text("/x")


def test_a_write_keeps_the_mode_and_replaces_the_whole(tree: Path) -> None:
    host = Host(tree)
    path = tree / "value"
    path.write_text("a long text\n")
    path.chmod(0o640)
    before = path.stat()
    host.write_text("/value", "b\n")
    assert path.read_text() == "b\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (path.stat().st_uid, path.stat().st_gid) == (before.st_uid, before.st_gid)
    assert [entry.name for entry in tree.iterdir() if "value" in entry.name] == ["value"]


def test_a_write_keeps_the_owner(tree: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to somebody else")
    path = tree / "value"
    path.write_text("a\n")
    os.chown(path, 65534, 65534)
    Host(tree).write_text("/value", "b\n")
    assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)


def test_a_write_makes_no_file_and_no_directory(tree: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Host(tree).write_text("/sys/new", "x")
    assert not (tree / "sys/new").exists()
    with pytest.raises(FileNotFoundError):
        Host().write_text(str(tree / "sys/new"), "x")
    assert not (tree / "sys/new").exists()


def test_a_file_without_a_write_bit_refuses_root_too_as_the_kernel_does(tree: Path) -> None:
    (tree / "fixed").write_text("1\n")
    (tree / "fixed").chmod(0o444)
    with pytest.raises(PermissionError):
        Host(tree).write_text("/fixed", "2\n")
    assert (tree / "fixed").read_text() == "1\n"


def test_what_a_crash_left_behind_goes_with_the_next_write(tree: Path) -> None:
    host = Host(tree)
    (tree / "value").write_text("a\n")
    (tree / ".value.tvops-new").write_text("half")
    host.write_text("/value", "b\n")
    assert (tree / "value").read_text() == "b\n"
    assert not (tree / ".value.tvops-new").exists()


def test_an_ordinary_file_is_made_or_replaced(tree: Path) -> None:
    host = Host(tree)
    owner = (os.geteuid(), os.getegid())
    host.replace("/sys/new", b"a", 0o600, owner)
    assert stat.S_IMODE((tree / "sys/new").stat().st_mode) == 0o600
    host.replace("/sys/new", b"\xff", 0o644, owner)
    assert (tree / "sys/new").read_bytes() == b"\xff"
    assert stat.S_IMODE((tree / "sys/new").stat().st_mode) == 0o644
    with pytest.raises(FileNotFoundError):
        host.replace("/nowhere/new", b"a", 0o600, owner)


def test_the_running_host_takes_one_write_and_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("aaaa")
    host = Host()
    host.write_text(str(path), "bb")
    # As with a file of the kernel: no truncation, no replacement.
    assert host.read_text(str(path)) == "bbaa"


def test_what_may_not_be_looked_at_counts_as_there() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can ask as somebody else")
    asked = (
        "import os, sys; from tvops.tuning.host import Host; os.setuid(65534); print(Host().exists(sys.argv[1]))"
    )
    with tempfile.TemporaryDirectory() as private:
        command = [sys.executable, "-c", asked, f"{private}/x"]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not Host().exists(f"{private}/x")
    assert run.stdout == "True\n"
