"""Files that are there whole or not at all: links, folders like /tmp, modes, and what is told beforehand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tvops.errors import UsageError
from tvops.whole_files import PRIVATE, SHARED, check_place, write_whole


def test_a_link_stays_and_what_it_names_is_written(tmp_path: Path) -> None:
    target, link, chain = tmp_path / "far" / "x", tmp_path / "link", tmp_path / "chain"
    target.parent.mkdir()
    link.symlink_to("far/x")
    chain.symlink_to(link)
    for content in (b"new", b"again"):  # at first the link names nothing
        check_place(chain)
        write_whole(chain, content)
        assert target.read_bytes() == content
    assert link.is_symlink()
    assert chain.is_symlink()
    assert [file.name for file in target.parent.iterdir()] == ["x"]


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for act in (check_place, lambda path: write_whole(path, b"x")):
        with pytest.raises(UsageError, match="a: cannot be written: Too many levels of symbolic links"):
            act(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("mode", [PRIVATE, SHARED])
def test_a_file_that_is_there_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_whole(path, b"x", mode)
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == mode & ~umask
    path.chmod(0o640)
    write_whole(path, [b"y", b"z"], mode)
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_bytes() == b"yz"


def test_a_file_in_a_folder_that_takes_no_others_is_told_beforehand() -> None:
    path = Path("/proc/self/comm")  # may be written, but nothing can be put in its place
    before = path.read_bytes()
    for act in (check_place, lambda path: write_whole(path, b"x")):
        with pytest.raises(UsageError, match="/proc/self/comm: cannot be written: "):
            act(path)
    assert path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every folder")
def test_permissions_of_folder_and_file_are_told_beforehand(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x"
    path.parent.mkdir()
    path.touch(0o444)
    with pytest.raises(UsageError, match="Permission denied"):
        check_place(path)
    path.chmod(0o644)
    check_place(path)
    path.parent.chmod(0o555)
    with pytest.raises(UsageError, match="Permission denied"):
        check_place(path)


def test_what_somebody_else_put_into_a_folder_like_tmp_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, mine = tmp_path / "tmp", tmp_path / "mine"
    shared.mkdir()
    mine.write_text("mine")
    (shared / "link").symlink_to(mine)
    (shared / "file").touch(0o666)
    # Whoever asks owns neither the folder nor what is in it: on a stock host that is /tmp and another user.
    me = os.geteuid() + 12345
    monkeypatch.setattr("tvops.whole_files.os.geteuid", lambda: me)
    check_place(shared / "file")
    shared.chmod(0o1777)
    with pytest.raises(UsageError, match="file: cannot be written: it is somebody else's"):
        check_place(shared / "file")
    if me != 12345:
        pytest.skip("only root can make a link of another user")
    os.lchown(shared / "link", 4321, 4321)
    for act in (check_place, lambda path: write_whole(path, b"x")):
        with pytest.raises(UsageError, match="link: cannot be written: it is a link that somebody else has made"):
            act(shared / "link")
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("way", ["w", "a"])
def test_an_open_descriptor_is_written_to_and_what_it_names_is_not_replaced(
    place: str, way: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    inode = log.stat().st_ino
    (tmp_path / "link").symlink_to("/dev/stdout")
    program = f"""
from pathlib import Path
from tvops.whole_files import check_place, write_whole
print("before", flush=True)
check_place(Path({place!r}))
write_whole(Path({place!r}), [b"re", b"sult\\n"])
print("after")
"""
    with log.open(way) as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, cwd=tmp_path, check=True)
    assert log.read_text() == ("old\n" if way == "a" else "") + "before\nresult\nafter\n"
    assert log.stat().st_ino == inode
    assert {file.name for file in tmp_path.iterdir()} == {"log", "link"}


def test_a_descriptor_that_is_read_from_is_told_beforehand(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with path.open() as file:
        for act in (check_place, lambda path: write_whole(path, b"x")):
            with pytest.raises(UsageError, match="cannot be written: it is open for reading only"):
                act(Path(f"/dev/fd/{file.fileno()}"))
    assert path.read_text() == "old"


def test_a_pipe_is_written_where_somebody_reads_it_and_told_where_nobody_does(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(UsageError, match="pipe: cannot be written: it is a pipe that nobody reads"):
        write_whole(path, b"x")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_place(path)
        assert os.read(reader, 9) == b""
        write_whole(path, [b"x", b"y"])
        assert os.read(reader, 9) == b"xy"
    finally:
        os.close(reader)


def test_the_longest_name_that_a_file_may_have(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    check_place(path)
    write_whole(path, b"x")
    assert path.read_bytes() == b"x"
    for act in (check_place, lambda path: write_whole(path, b"x")):
        with pytest.raises(UsageError, match="cannot be written: File name too long"):
            act(tmp_path / ("n" * 256))
