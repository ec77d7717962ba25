"""`./run` on machines that lack something: one plain line says what."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = ("sh", "dirname", "readlink", "cksum", "find", "sort", "sed", "grep", "rm")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Give a copy of what `./run` reads, under a path with a space."""
    folder = tmp_path / "a checkout"
    shutil.copytree(
        ROOT / "tvops" / "web", folder / "tvops" / "web", ignore=shutil.ignore_patterns("node_modules", "static")
    )
    for name in ("run", "uv.lock", "pyproject.toml", "hatch_build.py", "NOTICE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a folder for PATH with the tools that every machine has, and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def run(checkout: Path, path: Path, *arguments: str) -> tuple[int, str]:
    command = [str(checkout / "run"), *arguments]
    done = subprocess.run(command, cwd="/", env={"PATH": str(path)}, capture_output=True, text=True)
    return done.returncode, done.stderr


def python(path: Path, *, version: bool, venv: bool) -> None:
    """Put a python on PATH that answers the two questions that `./run` asks."""
    script = f"""#!/bin/sh
case "$2" in
    *version_info*) exit {int(not version)} ;;
    *ensurepip*) exit {int(not venv)} ;;
esac
exit 9
"""
    (path / "python3").write_text(script)
    (path / "python3").chmod(0o755)


def test_without_a_command_it_shows_them(checkout: Path, path: Path) -> None:
    code, text = run(checkout, path)
    assert code == 2
    assert [line.split()[1] for line in text.splitlines()] == ["serve", "tvops", "test"]


def test_an_unknown_command_is_a_usage_error(checkout: Path, path: Path) -> None:
    assert run(checkout, path, "severe")[0] == 2


def test_no_python(checkout: Path, path: Path) -> None:
    code, text = run(checkout, path, "serve")
    assert code == 1
    assert text.startswith("run: no python >= 3.11 on PATH; install one")
    assert len(text.splitlines()) == 1


def test_an_old_python(checkout: Path, path: Path) -> None:
    python(path, version=False, venv=True)
    assert "no python >= 3.11" in run(checkout, path, "serve")[1]


def test_python_without_venv_names_the_package(checkout: Path, path: Path) -> None:
    python(path, version=True, venv=False)
    code, text = run(checkout, path, "serve")
    assert code == 1
    assert "apt-get install python3-venv" in text
    assert len(text.splitlines()) == 1


def test_an_up_to_date_environment_is_used_as_it_is(checkout: Path, path: Path) -> None:
    environment = checkout / ".venv" / "bin"
    environment.mkdir(parents=True)
    (environment / "tvops").write_text('#!/bin/sh\nprintf "<%s>" "$@" >&2\nexit 7\n')
    (environment / "tvops").chmod(0o755)
    (checkout / "tvops" / "web" / "static").mkdir()
    (checkout / "tvops" / "web" / "static" / "index.html").touch()
    assert "no python" in run(checkout, path, "serve")[1], "without a stamp it has to be made"
    script = (checkout / "run").read_text().partition("[ $# -gt 0 ]")[0] + "sources"
    printed = subprocess.run(
        ["sh", "-c", script, str(checkout / "run")],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    (checkout / ".venv" / "run-stamp").write_text(f"{printed.stdout.split()[0]} run\n")
    assert run(checkout, path, "serve", "--feed", "replay:a b") == (7, "<serve><--feed><replay:a b>")
    (checkout / "uv.lock").write_text("changed")
    assert "no python" in run(checkout, path, "serve")[1]
