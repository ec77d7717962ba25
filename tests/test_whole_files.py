"""Files that are there whole or not at all: links, folders like /tmp, modes, and what is told beforehand."""

from __future__ import annotations

import os
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
