"""The wheel is whole: it carries page, profiles, instruments and kernel tuning, and works elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import tvops

ROOT = Path(__file__).parent.parent
UV = shutil.which("uv") or shutil.which(ROOT / ".venv-tools" / "bin" / "uv")

pytestmark = [pytest.mark.skipif(UV is None, reason="uv is not installed"), pytest.mark.timeout(600)]


def uv(*arguments: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run([str(UV), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--quiet", "--wheel", "--out-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.parametrize(
    "name",
    [
        "web/static/index.html", "web/static/app.js", "web/static/style.css",
        "web/static/docs.html", "web/static/docs.js", "web/static/docs.css", "web/static/NOTICE.txt",
        "profiles/dev.yaml", "instruments.yaml", "py.typed",
    ],
)  # fmt: skip
def test_wheel_contains(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.getinfo(f"tvops/{name}")


def test_wheel_carries_every_data_file_and_no_sources_of_the_page(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert [name for name in names if "node_modules" in name or name.startswith("tvops/web/src")] == []
    for folder in ("profiles", "kernel-tuning"):
        listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True)
        assert {f"tvops/{path}" for path in listed.stdout.split()} <= names


def test_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    requirements, environment = tmp_path / "requirements.txt", tmp_path / "environment"
    uv("export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--output-file", requirements)
    uv("venv", "--quiet", environment)
    python = environment / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", python, "--requirement", requirements, wheel)

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env={"PATH": os.defpath}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(environment / "bin" / "tvops", "--version").strip() == f"tvops {tvops.__version__}"
    script = "from tvops import cli, shipped as s; print(s.resource('profiles')); print(s.__file__); "
    shown = run(python, "-c", script + "raise SystemExit(cli.run(['settings']))").splitlines()
    assert all(str(environment) in line for line in shown[:2])
    assert len(shown) > 2
